// The general compositor on CUDA: one thread per pixel runs the same sweep (exact.h) in single lanes.
//
// Every ray's events are counted first (exact_count); the tiles are then drawn in bands whose events fit into a given amount of
// memory, so the order is exact with nothing bounded. Gradients of a primitive are summed over a tile's threads in lockstep over the
// tile's list, then added to its row, or written to the entry's own row where the order of sums must not vary.
#pragma once
#include "composite_cuda.h"
#include "exact.h"

namespace smalti {

constexpr int kMostSums = 192;  // moments and channels of one primitive

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
    int drawables;
    int* sizes;  // event bytes, fixed bytes; per drawable: record bytes, moments, whether channels are constant
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
    real *depth_first, *depth_median, *contribution_sum, *contribution_max;
    int* overflown;
};

struct ExactBackwardParameters {
    ExactScene scene;
    ExactTiles tiles;
    const real* background;
    int background_per_pixel;
    const real *picture, *alpha;  // cotangents
    real *rows, *slots;           // [n, stride] added to, or [entries, stride] written; the other is null
    int stride;
    int* overflown;
};

struct ExactFinishParameters {
    ExactScene scene;
    int drawable, stride;
    const int *counts, *first_entry;
    const real *rows, *slots;
    double* camera_blocks;  // [blocks, kCameraGradient] or null
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

struct CountingSink {
    int channels;
    bool wants_local;
    int count;
    SM_FN void thin(F, F, const F*) { count++; }
    SM_FN void thick(F, F, F, const F*, bool) { count++; }
    SM_FN void local(const F*, const F*) {}
};

// What a kind's emit_back sees (kind.h).
class ExactBackCuda {
public:
    SM_FN ExactBackCuda(ExactBlock& block, const KindGradient& gradient, int first) : block_(block), out_(gradient), next_(first) {}
    SM_FN const EventGradient& next() {
        const Event& e = block_.event(next_);
        gradient_ = {e.g_value, e.g_z0, e.g_z1, e.constant ? nullptr : block_.channel_gradient(next_), nullptr};
        next_++;
        return gradient_;
    }
    SM_FN const Event& event() const { return block_.event(next_); }
    SM_FN void bilinear(int tensor, const int* base, const int* step_x, const int* step_y, F fx, F fy, const F* gradient, int channels) {
        if (base[0] < 0 || !out_.tensors[tensor]) return;
        for (int corner = 0; corner < 4; corner++) {
            const F weight = (corner & 1 ? fx : 1 - fx) * (corner & 2 ? fy : 1 - fy);
            real* to = out_.tensors[tensor] + base[0] + (corner & 1 ? step_x[0] : 0) + (corner & 2 ? step_y[0] : 0);
            for (int c = 0; c < channels; c++) atomicAdd(to + c, weight * gradient[c]);
        }
    }
    SM_FN void trilinear(int tensor, const long long* base, const int* step_x, const int* step_y, const int* step_z, F fx, F fy, F fz,
                         const F* gradient, int channels) {
        if (base[0] < 0 || !out_.tensors[tensor]) return;
        for (int corner = 0; corner < 8; corner++) {
            const F weight = (corner & 1 ? fx : 1 - fx) * (corner & 2 ? fy : 1 - fy) * (corner & 4 ? fz : 1 - fz);
            real* to = out_.tensors[tensor] + base[0] + (corner & 1 ? step_x[0] : 0) + (corner & 2 ? step_y[0] : 0) + (corner & 4 ? step_z[0] : 0);
            for (int c = 0; c < channels; c++) atomicAdd(to + c, weight * gradient[c]);
        }
    }

private:
    ExactBlock& block_;
    const KindGradient& out_;
    EventGradient gradient_;
    int next_;
};

// ------------------------------------------------------------------ primitives
// One thread per drawable (and one for the sizes of events).
template <class Kinds>
SM_FN void exact_sizes(const ExactSizesParameters& p) {
    const int k = (int)global_thread();
    if (k == 0) {
        p.sizes[0] = (int)ExactBlock::event_bytes(p.scene.view.channels);
        p.sizes[1] = (int)ExactBlock::fixed_bytes(p.scene.view.channels);
    }
    if (k >= p.drawables) return;
    const ExactDevice& d = p.scene.drawables[k];
    Kinds::with(d.kind, [&](auto kind) {
        typedef decltype(kind) Kind;
        p.sizes[2 + 3 * k] = (int)sizeof(typename Kind::Record);
        p.sizes[3 + 3 * k] = Kind::moments(d.in, p.scene.view);
        p.sizes[4 + 3 * k] = Kind::kConstantChannels;
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

// ------------------------------------------------------------------ pixels
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
    ExactBlock block(exact_options(p.scene, false, p.first != nullptr), own.memory, own.events);
    block.contribution_sum = p.contribution_sum, block.contribution_max = p.contribution_max;
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

// ------------------------------------------------------------------ the way back
template <class Kinds>
SM_FN void exact_backward(const ExactBackwardParameters& p) {
    __shared__ real partial[kWarps * kMostSums];
    const ExactPixel at(p.scene, p.tiles);
    const ExactMemory own(p.tiles, at);
    const int channels = p.scene.view.channels, stride = channels + p.scene.depth, lane = at.thread % kWarp, warp = at.thread / kWarp;
    ExactBlock block(exact_options(p.scene, true, false), own.memory, own.events);
    block.begin(-1);
    if (at.pixel.inside && own.events) {
        exact_composite<Kinds>(p.scene, p.tiles, at, block);
        if (block.overflown()) *p.overflown = 1;
        F behind = p.alpha ? -p.alpha[at.pixel.index] : real(0);
        for (int c = 0; c < stride; c++) block.cotangent[c] = p.picture ? p.picture[at.pixel.index * stride + c] : real(0);
        if (p.background) {
            const real* color = p.background + (p.background_per_pixel ? 3 * at.pixel.index : 0);
            for (int c = 0; c < 3; c++) behind += block.cotangent[c] * color[c];
        }
        block.back(block.cotangent.values, behind);
    }
    // The tile's threads go through its list together; each has its emissions in the same order.
    int next = 0;
    for (int k = p.tiles.start[at.tile]; k < p.tiles.start[at.tile + 1]; k++) {
        const int id = p.tiles.ids[k];
        const bool mine = next < block.emissions.size() && block.emissions[next].id == id;
        if (!__syncthreads_count(mine)) continue;
        const ExactDevice& d = p.scene.drawables[p.scene.drawable_of[id]];
        F sums[kMostSums];
        int width = 0;
        Kinds::with(d.kind, [&](auto kind) {
            typedef decltype(kind) Kind;
            const int moments = Kind::moments(d.in, p.scene.view);
            width = moments + (Kind::kConstantChannels ? channels : 0);
            for (int j = 0; j < width; j++) sums[j] = 0;
            if (!mine) return;
            const Emission& emission = block.emissions[next];
            ExactBackCuda back(block, d.gradient, emission.first);
            Kind::emit_back(d.in, p.scene.camera, record_of<Kind>(p.scene, d, id - d.first), id - d.first, at.rays, back, sums);
            if (Kind::kConstantChannels)
                for (int e = emission.first; e < emission.first + emission.count; e++)
                    for (int c = 0; c < channels; c++) sums[moments + c] += block.channel_gradient(e)[c];
        });
        if (mine) next++;
        for (int j = 0; j < width; j++) {
            real v = sums[j];
            for (int step = kWarp / 2; step; step /= 2) v += __shfl_xor_sync(kAllLanes, v, step);
            if (lane == 0) partial[warp * kMostSums + j] = v;
        }
        __syncthreads();
        for (int j = at.thread; j < width; j += kTilePixels) {
            real v = 0;
            for (int w = 0; w < kWarps; w++) v += partial[w * kMostSums + j];
            if (p.slots)
                p.slots[(long long)p.tiles.entries[k] * p.stride + j] = v;
            else
                atomicAdd(p.rows + (long long)id * p.stride + j, v);
        }
        __syncthreads();
    }
}

template <class Kinds>
SM_FN void exact_finish(const ExactFinishParameters& p) {
    __shared__ double partial[kWarps * kCameraGradient];
    const long long k = global_thread();
    const ExactDevice& d = p.scene.drawables[p.drawable];
    double camera[kCameraGradient];
    for (int j = 0; j < kCameraGradient; j++) camera[j] = 0;
    const long long row = d.first + k;
    if (k < d.in.count && p.counts[row]) {
        real sums[kMostSums];
        Kinds::with(d.kind, [&](auto kind) {
            typedef decltype(kind) Kind;
            const int moments = Kind::moments(d.in, p.scene.view), width = moments + (Kind::kConstantChannels ? p.scene.view.channels : 0);
            for (int j = 0; j < width; j++) {
                sums[j] = 0;
                if (p.rows) sums[j] = p.rows[row * p.stride + j];
                if (p.slots)
                    for (int e = 0; e < p.counts[row]; e++) sums[j] += p.slots[((long long)p.first_entry[row] + e) * p.stride + j];
            }
            bool felt = false;  // else zeros, also where a derivative is out of range
            for (int j = 0; j < width; j++) felt = felt || !(sums[j] == 0);
            if (felt)
                Kind::finish(d.in, p.scene.camera, p.scene.view, (int)k, record_of<Kind>(p.scene, d, (int)k), sums, sums + moments, d.gradient,
                             p.camera_blocks ? camera : nullptr);
        });
    }
    if (!p.camera_blocks) return;
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    for (int j = 0; j < kCameraGradient; j++) {
        double v = camera[j];
        for (int step = kWarp / 2; step; step /= 2) v += __shfl_xor_sync(kAllLanes, v, step);
        if (lane == 0) partial[warp * kCameraGradient + j] = v;
    }
    __syncthreads();
    if (threadIdx.x >= kCameraGradient) return;
    double sum = 0;
    for (int w = 0; w < kWarps; w++) sum += partial[w * kCameraGradient + threadIdx.x];
    p.camera_blocks[(long long)blockIdx.x * kCameraGradient + threadIdx.x] = sum;
}

}  // namespace smalti
