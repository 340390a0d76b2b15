// How a kind that was compiled apart from the engine meets it. No class of the engine's crosses the border (another compiler may
// have other standard containers), only plain structs and calls.
#pragma once
#include "outside.h"
#include "table.h"

namespace smalti {

// The engine's side: what an event is handed to.
struct OutsideCalls {
    void (*thin)(void* block, const F* z, const F* alpha);
    void (*thick)(void* block, const F* z0, const F* z1, const F* tau);
    void (*local)(void* block, const F* coordinates);
    int (*wants_local)(const void* block);
    void (*next)(void* back, EventGradient* gradient);
};

inline const OutsideCalls& outside_calls() {
    static const OutsideCalls calls = {
        [](void* block, const F* z, const F* alpha) { static_cast<ExactBlock*>(block)->thin(*z, *alpha, nullptr); },
        [](void* block, const F* z0, const F* z1, const F* tau) { static_cast<ExactBlock*>(block)->thick(*z0, *z1, *tau, nullptr, false); },
        [](void* block, const F* coordinates) { static_cast<ExactBlock*>(block)->local(coordinates, nullptr); },
        [](const void* block) { return int(static_cast<const ExactBlock*>(block)->wants_local); },
        [](void* back, EventGradient* gradient) { *gradient = static_cast<ExactBack*>(back)->next(); },
    };
    return calls;
}

// The kind's side.
struct OutsideSink {
    const OutsideCalls& calls;
    void* block;
    bool wants_local;
    void thin(F z, F alpha, const F*) { calls.thin(block, &z, &alpha); }
    void thick(F z0, F z1, F tau, const F*, bool) { calls.thick(block, &z0, &z1, &tau); }
    void local(const F* coordinates, const F*) { calls.local(block, coordinates); }
};

struct OutsideBack {
    const OutsideCalls& calls;
    void* back;
    EventGradient gradient;
    const EventGradient& next() {
        calls.next(back, &gradient);
        return gradient;
    }
};

// Given by the engine before anything is drawn.
inline const OutsideCalls*& bound_calls() {
    static const OutsideCalls* calls = nullptr;
    return calls;
}

// `Kind` as it is anywhere else, but for where its events go.
template <class Kind>
struct Apart : Kind {
    typedef typename Kind::Record Record;
    static void emit(const KindInput& in, const CameraValues& cam, const Record& r, int k, const Rays& rays, ExactBlock& block) {
        const OutsideCalls& calls = *bound_calls();
        OutsideSink sink = {calls, &block, calls.wants_local(&block) != 0};
        Kind::emit(in, cam, r, k, rays, sink);
    }
    static void emit_back(const KindInput& in, const CameraValues& cam, const Record& r, int k, const Rays& rays, ExactBack& back, F* sums) {
        OutsideBack outside = {*bound_calls(), &back, {}};
        Kind::emit_back(in, cam, r, k, rays, outside, sums);
    }
};

template <class User>
const ExactKind& outside_kind(const char* name) {
    return exact_kind<Apart<OutsideKind<User>>>(name);
}

}  // namespace smalti
