// Runs: neighbours in a block's list whose thin events are final when they are found are composited at once, with nothing
// stored but what the way back needs. The numbers are those of the general sweep (exact.h), which a run interrupts only where
// nothing is open and whatever waits lies behind the whole run.
#pragma once
#include <vector>

#include "composite_cpu.h"
#include "exact.h"

namespace smalti {

// The runs of a block, and of every event in them the primitive's place in the tile's list, T before, alpha and z.
struct RunLog {
    static constexpr int kStride = 3;
    struct Run {
        int drawable, ranks, begin, end;  // ranks of the general sweep that came before; events [begin, end)
    };
    std::vector<Run> runs;
    std::vector<int> places;
    std::vector<F> values;  // [event][kStride]
    int count = 0;

    // `most`: events that may come, one per primitive listed.
    void start(int most) {
        runs.clear();
        count = 0;
        if ((size_t)most > places.size()) places.resize(most), values.resize((size_t)kStride * most);
    }
};

// Places [begin, end) of `listed`, all of one drawable; a place is a position in the tile's list `ids`.
struct RunInput {
    const KindInput* in;
    const CameraValues* camera;
    const char* records;
    const int *ids, *listed;
    int begin, end, first, channels;
    const real* values;
    const Rays* rays;
    RunLog* log;  // null: not wanted
    bool depth;
    real transmittance_min;
};

struct RunBackInput {
    const F* cotangent;  // [channels, depth]
    F* sums;             // [stride]
    int moments, stride, tile_x, tile_y;
    const Footprint* footprints;
    real* slots;  // of the picture's slot `slots_from` on
    int slots_from;
};

// A sink (kind.h) that composites as it is told.
template <int fixed, bool logged>
struct RunSink {
    const int channels;
    static constexpr bool wants_local = false;
    F T, absorbed, tmin, last, own[fixed ? fixed : 1], *sums;
    const real* constant;
    RunLog* log;
    int place;
    bool depth;

    SM_FN void thin(F z, F alpha, const F*) {
        const F before = T, visible = zero_unless(ge(T, tmin), alpha), weight = visible * T;
        if (logged) {
            F* values = log->values.data() + (size_t)RunLog::kStride * log->count;
            values[0] = before, values[1] = visible, values[2] = z;
            log->places[log->count++] = place;
        }
        T = fnma(visible, T, T);
        last = z;
        if (logged) return;  // the picture is not wanted again
        absorbed = absorbed + weight;
        if (fixed)
            for (int c = 0; c < fixed; c++) own[c] = fma(weight, splat(constant[c]), own[c]);
        else
            for (int c = 0; c < channels; c++) sums[c] = fma(weight, splat(constant[c]), sums[c]);
        if (depth) sums[channels] = fma(weight, z, sums[channels]);
    }
    SM_FN void local(const F*, const F*) {}
};

template <class Kind, int fixed, bool logged>
void composite_places(const RunInput& r, ExactBlock& block) {
    const auto* records = reinterpret_cast<const typename Kind::Record*>(r.records);
    RunSink<fixed, logged> sink = {r.channels, block.T, block.absorbed, splat(r.transmittance_min), F{}, {}, &block.sums[0], nullptr, r.log, 0, r.depth};
    for (int c = 0; c < fixed; c++) sink.own[c] = block.sums[c];
    const Rays rays = *r.rays;
    for (int k = r.begin; k < r.end; k++) {
        const int place = r.listed[k], id = r.ids[place];
        if (k + 4 < r.end) __builtin_prefetch(records + (r.ids[r.listed[k + 4]] - r.first));
        sink.constant = r.values + (long long)id * r.channels, sink.place = place;
        Kind::emit(*r.in, *r.camera, records[id - r.first], id - r.first, rays, sink);
        if (!any(ge(sink.T, sink.tmin))) break;
    }
    for (int c = 0; c < fixed; c++) block.sums[c] = sink.own[c];
    block.after_run(sink.T, sink.absorbed, sink.last);
}

template <class Kind>
void composite_run_of(const RunInput& r, ExactBlock& block) {
    if (r.channels == 3)
        return r.log ? composite_places<Kind, 3, true>(r, block) : composite_places<Kind, 3, false>(r, block);
    r.log ? composite_places<Kind, 0, true>(r, block) : composite_places<Kind, 0, false>(r, block);
}

// What emit_back sees (kind.h): the gradient of the one event at hand.
template <int fixed>
struct RunBack {
    const int channels;
    const F *cotangent, *values;
    const real* constant;
    F behind, tmin, depth_cotangent, *sums;  // `sums`: of the channels
    bool depth;
    EventGradient gradient;

    SM_FN const EventGradient& next() {
        const F T = values[0], alpha = values[1], weight = alpha * T;
        F along = depth ? values[2] * depth_cotangent : F{};
        for (int c = 0; c < (fixed ? fixed : channels); c++) {
            along = fma(splat(constant[c]), cotangent[c], along);
            sums[c] = fma(weight, cotangent[c], sums[c]);
        }
        const F less = along - behind;
        gradient.value = zero_unless(ge(T, tmin), T * less);
        gradient.z0 = depth ? weight * depth_cotangent : F{};
        behind = fma(alpha, less, behind);
        return gradient;
    }
};

template <class Kind, int fixed>
void take_places_back(const RunInput& r, const RunBackInput& b, F& behind) {
    const auto* records = reinterpret_cast<const typename Kind::Record*>(r.records);
    RunBack<fixed> back = {r.channels, b.cotangent, nullptr, nullptr, behind, splat(r.transmittance_min), r.depth ? b.cotangent[r.channels] : F{},
                           b.sums + b.moments, r.depth, {F{}, F{}, F{}, nullptr, nullptr}};
    const Rays rays = *r.rays;
    for (int e = r.end; e-- > r.begin;) {
        const int id = r.ids[r.log->places[e]];
        if (e - 4 >= r.begin) {
            const int soon = r.ids[r.log->places[e - 4]];
            __builtin_prefetch(records + (soon - r.first));
            __builtin_prefetch(b.footprints + soon);
        }
        for (int j = 0; j < b.stride; j++) b.sums[j] = F{};
        back.constant = r.values + (long long)id * r.channels;
        back.values = r.log->values.data() + (size_t)RunLog::kStride * e;
        Kind::emit_back(*r.in, *r.camera, records[id - r.first], id - r.first, rays, back, b.sums);
        const int slot = slot_of(b.footprints[id], b.tile_x, b.tile_y) - b.slots_from;
        add_sums(b.sums, b.stride, b.slots + (long long)slot * b.stride);
    }
    behind = back.behind;
}

// Here `begin` and `end` count the log's events.
template <class Kind>
void composite_run_of_back(const RunInput& r, const RunBackInput& b, F& behind) {
    r.channels == 3 ? take_places_back<Kind, 3>(r, b, behind) : take_places_back<Kind, 0>(r, b, behind);
}

}  // namespace smalti
