// CUDA compositor: one block of 16 x 16 threads per tile, one thread per pixel, primitives staged through shared memory.
//
// The tile loops look up the kind once per primitive, so it is the same for all threads of a block, and a list of one kind
// pays nothing. Sums over the pixels of a tile are trees of fixed shape, then the warps in order. What differs from run to run
// is only the order in which tiles add to a primitive (float atomics); where slots are given, each (tile, primitive) writes
// its own and the kinds sum them in index order.
#pragma once
#include "lists_cuda.h"

namespace smalti {

constexpr int kWarp = 32, kWarps = kTilePixels / kWarp;
constexpr int kForwardBatch = 128;   // primitives staged at once
constexpr int kBackwardBatch = 32;
constexpr int kSumGroup = 16;        // values that `warp_sums` reduces together
constexpr unsigned kAllLanes = 0xffffffffu;

// ------------------------------------------------------------------ parameters, as Python lays them out (parameters.py)
struct PictureShape {
    int width, height, tiles_x, channels;
    real transmittance_min;
};

struct TileForwardParameters {
    PictureShape shape;
    TileList list;
    int first_channel;           // of the channels that this launch composites
    int background_per_pixel;
    const real* background;      // [3] or [h, w, 3]; null: black
    real *picture, *alpha, *transmittance;  // [h, w, channels] [h, w] [h, w]
    int *stop;                   // [h, w] list position of the event that ended the ray; the list's length where none did
    int *first, *median, *dominant;         // [h, w], statistics
    real *contribution_sum, *contribution_max;  // [n]
    real* slots;                 // [entries] sums of T a, in place of atomics; or null
};

struct TileBackwardParameters {
    PictureShape shape;
    TileList list;
    int first_channel;
    int background_per_pixel;
    const real *background, *transmittance;
    const int* stop;
    const real *picture, *alpha;  // cotangents; either may be null
    real *rows, *slots;          // [n, stride] added to, or [entries, stride] written; the other is null
    int stride, moments;
};

// ------------------------------------------------------------------ pixels and sums
struct Pixel {
    int x, y;
    long long index;
    bool inside;
};

// A warp covers 8 x 4 pixels: closer together than two rows of 16, so that more warps find nothing to do.
SM_FN Pixel pixel_of(const PictureShape& shape, int tile, int thread) {
    Pixel p;
    p.x = tile % shape.tiles_x * kTile + (thread & 7) + (thread >> 5 & 1) * 8;
    p.y = tile / shape.tiles_x * kTile + (thread >> 3 & 3) + (thread >> 6) * 4;
    p.index = (long long)p.y * shape.width + p.x;
    p.inside = p.x < shape.width && p.y < shape.height;
    return p;
}

// Sums of 16 values over the lanes of a warp, in 16 shuffles: every step halves the values that a lane still carries.
// Afterwards v[0] of lanes 2 k and 2 k + 1 is the sum of value k. The tree is fixed: always the same bits.
SM_FN void warp_sums(real (&v)[kSumGroup], int lane) {
#pragma unroll
    for (int half = kSumGroup / 2; half >= 1; half /= 2) {
        const bool upper = (lane & (2 * half)) != 0;
#pragma unroll
        for (int k = 0; k < kSumGroup / 2; k++) {
            if (k >= half) continue;
            const real sent = upper ? v[k] : v[k + half];
            v[k] = (upper ? v[k + half] : v[k]) + __shfl_xor_sync(kAllLanes, sent, 2 * half);
        }
    }
    v[0] += __shfl_xor_sync(kAllLanes, v[0], 1);
}

// Writes the warp's sums of `width` values to out[0..width).
template <int width>
SM_FN void store_warp_sums(const real* values, int lane, real* out) {
#pragma unroll
    for (int base = 0; base < width; base += kSumGroup) {
        real v[kSumGroup];
#pragma unroll
        for (int k = 0; k < kSumGroup; k++) v[k] = base + k < width ? values[base + k < width ? base + k : 0] : real(0);
        warp_sums(v, lane);
        if ((lane & 1) == 0 && base + lane / 2 < width) out[base + lane / 2] = v[0];
    }
}

// The larger of *p and v, for v >= 0, whose bits order as integers do.
SM_FN void atomic_max(float* p, float v) { atomicMax(reinterpret_cast<int*>(p), __float_as_int(v)); }
SM_FN void atomic_max(double* p, double v) { atomicMax(reinterpret_cast<long long*>(p), __double_as_longlong(v)); }

// ------------------------------------------------------------------ forward
// Composites channels [first_channel, first_channel + channels) of one tile, front to back.
template <class Kinds, int channels, bool statistics>
SM_FN void tile_forward(const TileForwardParameters& p) {
    typedef typename Kinds::Record Record;
    constexpr int kBatch = statistics ? kForwardBatch / 2 : kForwardBatch;
    __shared__ Record records[kBatch];
    __shared__ real values[kBatch * channels];
    __shared__ int ids[kBatch];
    __shared__ unsigned char kinds[Kinds::kCount > 1 ? kBatch : 1];
    __shared__ real partial[statistics ? kWarps * kBatch * 2 : 1];  // per warp and primitive: sum and maximum of T a

    const int tile = blockIdx.x, thread = threadIdx.x, lane = thread % kWarp, warp = thread / kWarp;
    const Pixel pixel = pixel_of(p.shape, tile, thread);
    const int begin = p.list.start[tile], end = p.list.start[tile + 1];
    const F x = real(pixel.x) + real(0.5), y = real(pixel.y) + real(0.5), tmin = p.shape.transmittance_min;
    const int wanted = p.shape.channels - p.first_channel;  // of the `channels` of this launch

    F T = 1, sums[channels], dominant_weight = 0;
    for (int c = 0; c < channels; c++) sums[c] = 0;
    int stop = end - begin, first = -1, median = -1, dominant = -1;
    bool done = !pixel.inside;
    for (int base = begin; base < end; base += kBatch) {
        if (__syncthreads_count(done) == kTilePixels) break;
        const int count = end - base < kBatch ? end - base : kBatch;
        if (thread < count) {
            const int id = p.list.ids[base + thread];
            ids[thread] = id;
            records[thread] = static_cast<const Record*>(p.list.primitives.records)[id];
            if (Kinds::kCount > 1) kinds[thread] = p.list.primitives.kinds[id];
            const real* value = p.list.values + (long long)id * p.shape.channels + p.first_channel;
            for (int c = 0; c < channels; c++) values[thread * channels + c] = c < wanted ? value[c] : real(0);
        }
        __syncthreads();
        for (int j = 0; j < count; j++) {
            if (!statistics && done) break;
            typename Kinds::Event event;
            F alpha;
            const bool hit = Kinds::event(Kinds::kCount > 1 ? kinds[j] : 0, records[j], x, y, event, alpha) && !done;
            F weight = 0;
            if (hit) {
                weight = alpha * T;
                const F after = fnma(alpha, T, T);
                for (int c = 0; c < channels; c++) sums[c] = fma(weight, values[j * channels + c], sums[c]);
                if (statistics) {
                    if (first < 0) first = ids[j];
                    if (T > real(0.5) && after <= real(0.5)) median = ids[j];
                    if (weight > dominant_weight) dominant_weight = weight, dominant = ids[j];
                }
                T = after;
                if (after < tmin) {
                    stop = base + j - begin;
                    done = true;
                }
            }
            if (statistics) {
                real sum = 0, most = 0;
                if (__any_sync(kAllLanes, hit)) {
                    sum = most = weight;
                    for (int step = kWarp / 2; step; step /= 2) {
                        sum += __shfl_xor_sync(kAllLanes, sum, step);
                        most = max_of(most, __shfl_xor_sync(kAllLanes, most, step));
                    }
                }
                if (lane == 0) {
                    partial[(warp * kBatch + j) * 2] = sum;
                    partial[(warp * kBatch + j) * 2 + 1] = most;
                }
            }
        }
        if (statistics) {
            __syncthreads();
            if (thread < count) {
                real sum = 0, most = 0;
                for (int w = 0; w < kWarps; w++) {
                    sum += partial[(w * kBatch + thread) * 2];
                    most = max_of(most, partial[(w * kBatch + thread) * 2 + 1]);
                }
                if (p.slots)
                    p.slots[p.list.entries[base + thread]] = sum;
                else if (sum > 0)
                    atomicAdd(p.contribution_sum + ids[thread], sum);
                if (most > 0) atomic_max(p.contribution_max + ids[thread], most);
            }
        }
    }
    if (!pixel.inside) return;
    real* out = p.picture + pixel.index * p.shape.channels + p.first_channel;
    if (p.first_channel == 0 && p.background) {
        const real* behind = p.background + (p.background_per_pixel ? 3 * pixel.index : 0);
        for (int c = 0; c < 3; c++) sums[c] += T * behind[c];
    }
    for (int c = 0; c < channels; c++)
        if (c < wanted) out[c] = sums[c];
    if (p.first_channel != 0) return;
    p.alpha[pixel.index] = 1 - T;
    p.transmittance[pixel.index] = T;
    p.stop[pixel.index] = stop;
    if (statistics) {
        p.first[pixel.index] = first;
        p.median[pixel.index] = median;
        p.dominant[pixel.index] = dominant;
    }
}

// ------------------------------------------------------------------ backward
// Back to front over the same events. The first launch adds the moments and the first channels, further ones (where there are
// more than `channels`) the gradients of their own channels.
template <class Kinds, int channels>
SM_FN void tile_backward(const TileBackwardParameters& p) {
    typedef typename Kinds::Record Record;
    constexpr int kWidth = Kinds::kMoments + channels, kBatch = kBackwardBatch;
    __shared__ Record records[kBatch];
    __shared__ real values[kBatch * channels];
    __shared__ int ids[kBatch];
    __shared__ unsigned char kinds[Kinds::kCount > 1 ? kBatch : 1];
    __shared__ real partial[kWarps * kBatch * kWidth];
    __shared__ int last_stop;

    const int tile = blockIdx.x, thread = threadIdx.x, lane = thread % kWarp, warp = thread / kWarp;
    const Pixel pixel = pixel_of(p.shape, tile, thread);
    const int begin = p.list.start[tile], length = p.list.start[tile + 1] - begin;
    const F x = real(pixel.x) + real(0.5), y = real(pixel.y) + real(0.5);
    const int all = p.shape.channels, wanted = all - p.first_channel;
    const bool leads = p.first_channel == 0;

    F T = 1, behind = 0, v[channels];
    const real* cotangent = p.picture && pixel.inside ? p.picture + pixel.index * all : nullptr;
    for (int c = 0; c < channels; c++) v[c] = cotangent && c < wanted ? cotangent[p.first_channel + c] : real(0);
    int stop = -1;
    if (pixel.inside) {
        T = p.transmittance[pixel.index];
        stop = p.stop[pixel.index];
        behind = p.alpha ? -p.alpha[pixel.index] : real(0);
        if (leads && cotangent && p.background) {
            const real* color = p.background + (p.background_per_pixel ? 3 * pixel.index : 0);
            for (int c = 0; c < 3; c++) behind += v[c] * color[c];
        }
        behind *= T;
    }
    if (thread == 0) last_stop = -1;
    __syncthreads();
    if (stop >= 0) atomicMax(&last_stop, stop);
    __syncthreads();
    const int top = last_stop < length - 1 ? last_stop : length - 1;

    for (int last = top; last >= 0; last -= kBatch) {
        const int count = last + 1 < kBatch ? last + 1 : kBatch;
        if (thread < count) {
            const int id = p.list.ids[begin + last - thread];
            ids[thread] = id;
            records[thread] = static_cast<const Record*>(p.list.primitives.records)[id];
            if (Kinds::kCount > 1) kinds[thread] = p.list.primitives.kinds[id];
            const real* value = p.list.values + (long long)id * all + p.first_channel;
            for (int c = 0; c < channels; c++) values[thread * channels + c] = c < wanted ? value[c] : real(0);
        }
        __syncthreads();
        for (int j = 0; j < count; j++) {
            const int kind = Kinds::kCount > 1 ? kinds[j] : 0;
            real* out = partial + (warp * kBatch + j) * kWidth;
            typename Kinds::Event event;
            F alpha;
            const bool hit = last - j <= stop && Kinds::event(kind, records[j], x, y, event, alpha);
            if (!__any_sync(kAllLanes, hit)) {
                for (int k = lane; k < kWidth; k += kWarp) out[k] = 0;
                continue;
            }
            real sums[kWidth];
            for (int k = 0; k < kWidth; k++) sums[k] = 0;
            if (hit) {
                const F ratio = recip(1 - alpha);
                T = T * ratio;
                const F weight = alpha * T;
                F along = 0;
                for (int c = 0; c < channels; c++) {
                    along = fma(values[j * channels + c], v[c], along);
                    sums[Kinds::kMoments + c] = weight * v[c];
                }
                if (leads) {
                    if (all > channels && cotangent) {
                        const real* value = p.list.values + (long long)ids[j] * all;
                        for (int c = channels; c < all; c++) along = fma(value[c], cotangent[c], along);
                    }
                    const F gradient = fnma(behind, ratio, T * along);
                    behind = fma(weight, along, behind);
                    Kinds::moments(kind, records[j], event, gradient, sums);
                }
            }
            store_warp_sums<kWidth>(sums, lane, out);
        }
        __syncthreads();
        for (int k = thread; k < count * kWidth; k += kTilePixels) {
            const int j = k / kWidth, column = k % kWidth, channel = column - Kinds::kMoments;
            // Row layout: moments, then all channels.
            if (channel < 0 ? !leads : channel >= wanted) continue;
            real sum = 0;
            for (int w = 0; w < kWarps; w++) sum += partial[(w * kBatch + j) * kWidth + column];
            const int at = channel < 0 ? column : p.moments + p.first_channel + channel;
            if (p.slots)
                p.slots[(long long)p.list.entries[begin + last - j] * p.stride + at] = sum;
            else if (sum != 0)
                atomicAdd(p.rows + (long long)ids[j] * p.stride + at, sum);
        }
        __syncthreads();
    }
}

}  // namespace smalti
