// The general compositor on CUDA, first half: the kinds of a scene, its drawables as the device sees them, and from projected primitives to
// one list per tile, sorted by each primitive's nearest bound.
// Parameter structs are laid out in Python, too (exact_source.py).
#pragma once
#include "composite_cuda.h"
#include "exact.h"

namespace smalti {

// One drawable as the device sees it.
struct ExactDevice {
    KindInput in;
    KindGradient gradient;
    long long records;  // bytes before its first record
    int kind, first;
};

struct ExactScene {
    const ExactDevice* drawables;
    const int* drawable_of;  // [n]
    char* records;
    real* values;            // [n, channels]
    CameraValues camera;
    ViewOptions view;
    real transmittance_min;
    int count, tiles_x, tiles_y, additive, depth;
};

struct ExactSizesParameters {
    ExactScene scene;
    int drawables, locals;  // whether events keep their local coordinates
    int* sizes;  // event bytes, fixed bytes; per drawable: record bytes, moments, whether channels are constant, table tensors
};

struct ExactProjectParameters {
    ExactScene scene;
    int drawable;
    real *depths, *keys, *radii;
    TileRect* rects;
    int *counts, *skipped;
};

struct ExactEmitParameters {
    ExactScene scene;
    const TileRect* rects;
    const int *order, *counts;
    const long long* ends;
    int *tiles, *ids, *first_entry;
};

// ------------------------------------------------------------------ kinds, composed
template <class... Kinds>
struct ExactKinds;

template <>
struct ExactKinds<> {
    template <class Body>
    static SM_FN void with(int, const Body&) {}
};

template <class First, class... Rest>
struct ExactKinds<First, Rest...> {
    // Calls body(Kind()) for the kind at this position.
    template <class Body>
    static SM_FN void with(int kind, const Body& body) {
        if (kind == 0)
            body(First());
        else
            ExactKinds<Rest...>::with(kind - 1, body);
    }
};

template <class Kind>
SM_FN typename Kind::Record& record_of(const ExactScene& scene, const ExactDevice& d, int k) {
    return reinterpret_cast<typename Kind::Record*>(scene.records + d.records)[k];
}

template <class Kind>
SM_FN TileSpan touched_tiles(const typename Kind::Record& record, const TileRect& rect, int row) {
    const real half = real(0.5);
    auto touches = [&](int x) {
        return Kind::touches(record, x * kTile + half, row * kTile + half, (x + 1) * kTile - half, (row + 1) * kTile - half);
    };
    TileSpan span = {rect.x0, rect.x1};
    while (span.x0 < span.x1 && !touches(span.x0)) span.x0++;
    while (span.x1 > span.x0 && !touches(span.x1 - 1)) span.x1--;
    return span;
}

// ------------------------------------------------------------------ primitives
// One thread per drawable (and one for the sizes of events).
template <class Kinds>
SM_FN void exact_sizes(const ExactSizesParameters& p) {
    const int k = (int)global_thread();
    if (k == 0) {
        p.sizes[0] = (int)ExactBlock::event_bytes(p.scene.view.channels, p.locals != 0);
        p.sizes[1] = (int)ExactBlock::fixed_bytes(p.scene.view.channels);
    }
    if (k >= p.drawables) return;
    const ExactDevice& d = p.scene.drawables[k];
    Kinds::with(d.kind, [&](auto kind) {
        typedef decltype(kind) Kind;
        int* own = p.sizes + 2 + 4 * k;
        own[0] = (int)sizeof(typename Kind::Record);
        own[1] = Kind::moments(d.in, p.scene.view);
        own[2] = Kind::kConstantChannels;
        own[3] = Kind::kTableTensors;
    });
}

template <class Kinds>
SM_FN void exact_project(const ExactProjectParameters& p) {
    const long long k = global_thread();
    const ExactDevice& d = p.scene.drawables[p.drawable];
    if (k >= d.in.count) return;
    const long long row = d.first + k;
    const CameraValues& camera = p.scene.camera;
    Bounds b;
    TileRect rect = {0, 0, 0, 0};
    int count = 0;
    real radius = 0;
    Kinds::with(d.kind, [&](auto kind) {
        typedef decltype(kind) Kind;
        typename Kind::Record& record = record_of<Kind>(p.scene, d, (int)k);
        Kind::project(d.in, camera, p.scene.view, (int)k, record, b, p.scene.values + row * p.scene.view.channels);
        if (!b.usable || !b.drawn) return;
        if (!(b.right >= 0 && b.bottom >= 0 && b.left <= camera.width && b.top <= camera.height)) return;
        rect.x0 = (short)(max_of(b.left, real(0)) / kTile);
        rect.y0 = (short)(max_of(b.top, real(0)) / kTile);
        rect.x1 = (short)min_of(min_of(b.right, real(camera.width)) / kTile + 1, real(p.scene.tiles_x));
        rect.y1 = (short)min_of(min_of(b.bottom, real(camera.height)) / kTile + 1, real(p.scene.tiles_y));
        for (int y = rect.y0; y < rect.y1; y++) {
            const TileSpan span = touched_tiles<Kind>(record, rect, y);
            count += span.x1 - span.x0;
        }
        if (count) radius = real(0.5) * max_of(b.right - b.left, b.bottom - b.top);
    });
    if (!b.usable) atomicAdd(p.skipped, 1);
    const real key = p.scene.view.centre ? b.depth : b.nearest;
    p.depths[row] = b.depth, p.radii[row] = radius, p.keys[row] = key > 0 ? key : 0;
    p.rects[row] = rect, p.counts[row] = count;
}

template <class Kinds>
SM_FN void exact_emit(const ExactEmitParameters& p) {
    const long long rank = global_thread();
    if (rank >= p.scene.count) return;
    const int id = p.order[rank], count = p.counts[id];
    long long at = p.ends[rank] - count;
    p.first_entry[id] = (int)at;
    if (count == 0) return;
    const ExactDevice& d = p.scene.drawables[p.scene.drawable_of[id]];
    const TileRect rect = p.rects[id];
    Kinds::with(d.kind, [&](auto kind) {
        typedef decltype(kind) Kind;
        for (int row = rect.y0; row < rect.y1; row++) {
            const TileSpan span = touched_tiles<Kind>(record_of<Kind>(p.scene, d, id - d.first), rect, row);
            for (int x = span.x0; x < span.x1; x++, at++) p.tiles[at] = row * p.scene.tiles_x + x, p.ids[at] = id;
        }
    });
}

}  // namespace smalti
