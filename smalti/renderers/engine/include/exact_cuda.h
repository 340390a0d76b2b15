// The general compositor on CUDA: one thread per pixel runs the same sweep (exact.h) in single lanes.
//
// Every ray's events are counted first (exact_count); the tiles are then drawn in bands whose events fit into a given amount of
// memory, so the order is exact with nothing bounded.
#pragma once
#include "exact_lists_cuda.h"

namespace smalti {

struct ExactTiles {
    const int *start, *ids, *entries;
    const real* keys;
    const long long* offsets;  // [tiles * 256 + 1] events before those of each thread
    char* memory;
    long long event_bytes, fixed_bytes;
    int first_tile;            // of the band
};

struct ExactCountParameters {
    ExactScene scene;
    ExactTiles tiles;
    int* counts;  // [tiles * 256]
};

struct ExactForwardParameters {
    ExactScene scene;
    ExactTiles tiles;
    const real* background;
    int background_per_pixel;
    real *picture, *alpha, *transmittance;
    int *first, *median, *dominant;
    real *depth_first, *depth_median;
    FixedSums contributions;
    real* contribution_max;
    int* overflown;
};

struct CountingSink {
    int channels;
    bool wants_local;
    int count;
    SM_FN void thin(F, F, const F*) { count++; }
    SM_FN void thick(F, F, F, const F*, bool) { count++; }
    SM_FN void local(const F*, const F*) {}
};

struct ExactPixel {
    Pixel pixel;
    Rays rays;
    int tile, thread;

    SM_FN ExactPixel(const ExactScene& scene, const ExactTiles& tiles) {
        tile = tiles.first_tile + (int)blockIdx.x, thread = (int)threadIdx.x;
        const PictureShape shape = {scene.camera.width, scene.camera.height, scene.tiles_x, scene.view.channels, scene.transmittance_min};
        pixel = pixel_of(shape, tile, thread);
        rays.x = real(pixel.x) + real(0.5), rays.y = real(pixel.y) + real(0.5);
        rays.u = (rays.x - scene.camera.cx) * (1 / scene.camera.fx);
        rays.v = (rays.y - scene.camera.cy) * (1 / scene.camera.fy);
    }
};

template <class Kinds, class Sink>
SM_FN void exact_emit_events(const ExactScene& scene, int id, const Rays& rays, Sink& sink) {
    const ExactDevice& d = scene.drawables[scene.drawable_of[id]];
    Kinds::with(d.kind, [&](auto kind) {
        typedef decltype(kind) Kind;
        Kind::emit(d.in, scene.camera, record_of<Kind>(scene, d, id - d.first), id - d.first, rays, sink);
    });
}

template <class Kinds>
SM_FN void exact_count(const ExactCountParameters& p) {
    const ExactPixel at(p.scene, p.tiles);
    CountingSink sink = {p.scene.view.channels, false, 0};
    if (at.pixel.inside)
        for (int k = p.tiles.start[at.tile]; k < p.tiles.start[at.tile + 1]; k++)
            exact_emit_events<Kinds>(p.scene, p.tiles.ids[k], at.rays, sink);
    p.counts[(long long)at.tile * kTilePixels + at.thread] = sink.count;
}

struct ExactMemory {
    char* memory;
    int events;
    SM_FN ExactMemory(const ExactTiles& tiles, const ExactPixel& at) {
        const long long index = (long long)at.tile * kTilePixels + at.thread, band = (long long)tiles.first_tile * kTilePixels;
        memory = tiles.memory + (tiles.offsets[index] - tiles.offsets[band]) * tiles.event_bytes + (index - band) * tiles.fixed_bytes;
        events = (int)(tiles.offsets[index + 1] - tiles.offsets[index]);
    }
};

SM_FN ExactOptions exact_options(const ExactScene& s, bool logged, bool statistics) {
    return {s.view.channels, s.depth != 0, s.view.centre != 0, s.additive != 0, logged, statistics, s.additive ? real(1e-30) : s.transmittance_min};
}

template <class Kinds>
SM_FN void exact_composite(const ExactScene& scene, const ExactTiles& tiles, const ExactPixel& at, ExactBlock& block) {
    block.begin(1);
    for (int k = tiles.start[at.tile]; k < tiles.start[at.tile + 1]; k++) {
        const int id = tiles.ids[k];
        if (block.crowded()) {
            block.composite_until(tiles.keys[id]);
            if (!block.alive()) break;
        }
        const int drawable = scene.drawable_of[id];
        block.begin_emission(drawable, id - scene.drawables[drawable].first, id, tiles.keys[id], scene.values + (long long)id * scene.view.channels);
        exact_emit_events<Kinds>(scene, id, at.rays, block);
        block.end_emission();
    }
    block.composite_rest();
}

template <class Kinds>
SM_FN void exact_forward(const ExactForwardParameters& p) {
    const ExactPixel at(p.scene, p.tiles);
    if (!at.pixel.inside) return;
    const ExactMemory own(p.tiles, at);
    const long long pixel = at.pixel.index;
    const int channels = p.scene.view.channels, stride = channels + p.scene.depth;
    ExactBlock block(exact_options(p.scene, false, p.first != nullptr), own.memory, own.events, false);
    block.contributions = p.contributions, block.contribution_max = p.contribution_max;
    exact_composite<Kinds>(p.scene, p.tiles, at, block);
    if (block.overflown()) *p.overflown = 1;
    real* out = p.picture + pixel * stride;
    for (int c = 0; c < stride; c++) out[c] = block.sums[c];
    if (p.background) {
        const real* behind = p.background + (p.background_per_pixel ? 3 * pixel : 0);
        for (int c = 0; c < 3; c++) out[c] += block.T * behind[c];
    }
    p.alpha[pixel] = block.absorbed;
    p.transmittance[pixel] = block.T;
    if (!p.first) return;
    const BlockStatistics& s = block.answers;
    p.first[pixel] = s.first, p.median[pixel] = s.median, p.dominant[pixel] = s.dominant;
    p.depth_first[pixel] = s.first < 0 ? 0 : s.depth_first;
    p.depth_median[pixel] = s.median < 0 ? 0 : s.depth_median;
}

}  // namespace smalti
