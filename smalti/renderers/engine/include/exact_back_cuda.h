// The general compositor's way back on CUDA: gradients of a primitive are summed over a tile's threads in lockstep over the tile's
// list, then added to its row, or written to the entry's own row where the order of sums must not vary.
#pragma once
#include "exact_cuda.h"

namespace smalti {

constexpr int kMostSums = 192;  // moments and channels of one primitive

// How gradients reach textures and voxels, of which a pixel feels a few elements anywhere.
enum TablePass {
    kAddFloats = 0,  // by float atomics, as they come
    kMeasure = 1,    // not at all: only how large the additions are. Primitives' sums are done in this pass, ...
    kAddFixed = 2,   // ... and in this one tables alone, by integers (fixed_sums_cuda.h)
};

struct ExactTables {
    unsigned long long* words;  // of all tables together, [reals, 2]
    const long long* places;    // [drawables, kKindTensors] where each begins among them
    const double* units;        // [drawables, kKindTensors]
    real* most;                 // [drawables, kKindTensors] size of the greatest addition
    double rest_unit;
    int pass;
};

// Where gradients go on their way to `exact_finish`.
struct ExactSums {
    real *rows, *slots;  // [n, stride] added to, or [entries, stride] written; the other is null
    ExactTables tables;
    int stride;
};

struct ExactBackwardParameters {
    ExactScene scene;
    ExactTiles tiles;
    const real* background;
    int background_per_pixel;
    const real *picture, *alpha;  // cotangents
    ExactSums sums;
    int* overflown;
};

struct ExactFinishParameters {
    ExactScene scene;
    int drawable, stride;
    const int *counts, *first_entry;
    const real *rows, *slots;
    double* camera_blocks;  // [blocks, kCameraGradient] or null
};

// What a kind's emit_back sees (kind.h).
class ExactBackCuda {
public:
    // `locals`: the block holds cotangents of local coordinates.
    SM_FN ExactBackCuda(ExactBlock& block, const KindGradient& gradient, const ExactTables& tables, const Emission& emission, bool locals)
        : block_(block), out_(gradient), tables_(tables), first_table_(emission.drawable * kKindTensors), next_(emission.first), locals_(locals) {}
    SM_FN const EventGradient& next() {
        const Event& e = block_.event(next_);
        gradient_ = {e.g_value, e.g_z0, e.g_z1, e.constant ? nullptr : block_.channel_gradient(next_), locals_ ? block_.locals(next_) : nullptr};
        next_++;
        return gradient_;
    }
    SM_FN const Event& event() const { return block_.event(next_); }
    SM_FN void bilinear(int tensor, const int* base, const int* step_x, const int* step_y, F fx, F fy, const F* gradient, int channels) {
        if (base[0] < 0 || !out_.tensors[tensor]) return;
        for (int corner = 0; corner < 4; corner++) {
            const F weight = (corner & 1 ? fx : 1 - fx) * (corner & 2 ? fy : 1 - fy);
            const long long at = base[0] + (corner & 1 ? step_x[0] : 0) + (corner & 2 ? step_y[0] : 0);
            for (int c = 0; c < channels; c++) add(tensor, at + c, weight * gradient[c]);
        }
    }
    SM_FN void trilinear(int tensor, const long long* base, const int* step_x, const int* step_y, const int* step_z, F fx, F fy, F fz,
                         const F* gradient, int channels) {
        if (base[0] < 0 || !out_.tensors[tensor]) return;
        for (int corner = 0; corner < 8; corner++) {
            const F weight = (corner & 1 ? fx : 1 - fx) * (corner & 2 ? fy : 1 - fy) * (corner & 4 ? fz : 1 - fz);
            const long long at = base[0] + (corner & 1 ? step_x[0] : 0) + (corner & 2 ? step_y[0] : 0) + (corner & 4 ? step_z[0] : 0);
            for (int c = 0; c < channels; c++) add(tensor, at + c, weight * gradient[c]);
        }
    }

private:
    SM_FN void add(int tensor, long long at, real value) const {
        const int table = first_table_ + tensor;
        if (tables_.pass == kMeasure) {
            const real size = abs_of(value);
            volatile real* most = tables_.most + table;  // mostly there is nothing to change, and nobody has to wait
            if (size > *most && size - size == 0) atomic_max(tables_.most + table, size);
            return;
        }
        FixedSums sums = {out_.tensors[tensor], nullptr, 0, 0};
        if (tables_.pass == kAddFixed) sums = {sums.plain, tables_.words + 2 * tables_.places[table], tables_.units[table], tables_.rest_unit};
        sums.add(at, value);
    }

    ExactBlock& block_;
    const KindGradient& out_;
    const ExactTables& tables_;
    EventGradient gradient_;
    int first_table_, next_;
    bool locals_;
};

// From the gradients of the events of a tile's rays, one per thread, to sums per primitive. All threads of the block come here.
template <class Kinds>
SM_FN void exact_tile_back(const ExactScene& scene, const ExactTiles& tiles, const ExactSums& out, const ExactPixel& at, ExactBlock& block, bool locals) {
    __shared__ real partial[kWarps * kMostSums];
    const int channels = scene.view.channels, lane = at.thread % kWarp, warp = at.thread / kWarp;
    const bool tables_alone = out.tables.pass == kAddFixed;
    // The tile's threads go through its list together; each has its emissions in the same order.
    int next = 0;
    for (int k = tiles.start[at.tile]; k < tiles.start[at.tile + 1]; k++) {
        const int id = tiles.ids[k];
        const bool mine = next < block.emissions.size() && block.emissions[next].id == id;
        if (tables_alone ? !mine : !__syncthreads_count(mine)) continue;
        const ExactDevice& d = scene.drawables[scene.drawable_of[id]];
        F sums[kMostSums];
        int width = 0;
        Kinds::with(d.kind, [&](auto kind) {
            typedef decltype(kind) Kind;
            const int moments = Kind::moments(d.in, scene.view);
            width = moments + (Kind::kConstantChannels ? channels : 0);
            for (int j = 0; j < width; j++) sums[j] = 0;
            if (!mine || (tables_alone && !Kind::kTableTensors)) return;
            const Emission& emission = block.emissions[next];
            ExactBackCuda back(block, d.gradient, out.tables, emission, locals);
            Kind::emit_back(d.in, scene.camera, record_of<Kind>(scene, d, id - d.first), id - d.first, at.rays, back, sums);
            if (Kind::kConstantChannels)
                for (int e = emission.first; e < emission.first + emission.count; e++)
                    for (int c = 0; c < channels; c++) sums[moments + c] += block.channel_gradient(e)[c];
        });
        if (mine) next++;
        if (tables_alone) continue;
        for (int j = 0; j < width; j++) {
            real v = sums[j];
            for (int step = kWarp / 2; step; step /= 2) v += __shfl_xor_sync(kAllLanes, v, step);
            if (lane == 0) partial[warp * kMostSums + j] = v;
        }
        __syncthreads();
        for (int j = at.thread; j < width; j += kTilePixels) {
            real v = 0;
            for (int w = 0; w < kWarps; w++) v += partial[w * kMostSums + j];
            if (out.slots)
                out.slots[(long long)tiles.entries[k] * out.stride + j] = v;
            else
                atomicAdd(out.rows + (long long)id * out.stride + j, v);
        }
        __syncthreads();
    }
}

template <class Kinds>
SM_FN void exact_backward(const ExactBackwardParameters& p) {
    const ExactPixel at(p.scene, p.tiles);
    const ExactMemory own(p.tiles, at);
    const int stride = p.scene.view.channels + p.scene.depth;
    ExactBlock block(exact_options(p.scene, true, false), own.memory, own.events, false);
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
    exact_tile_back<Kinds>(p.scene, p.tiles, p.sums, at, block, false);
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
