// CPU compositor: one tile at a time, its pixels in SIMD blocks of 4 x (lanes / 4).
//
// A kind meets it through `KindFunctions`: how to composite a run of consecutive primitives of that kind into a tile, and how
// to take that back. The tile loop looks up the kind once per run, so a list of one kind pays nothing for mixing.
// A kind written as a struct (see kinds/gaussian_cpu.h) gets its functions from `composite_run` and `composite_run_back`.
#pragma once
#include "lanes.h"
#include "tiles.h"

namespace smalti {

constexpr int kBlockWidth = 4, kBlockHeight = kLanes / kBlockWidth;
constexpr int kBlocksAcross = kTile / kBlockWidth, kBlocks = kTilePixels / kLanes, kSlabs = kTile / kBlockHeight;
typedef unsigned long long BlockMask;
constexpr BlockMask kAllBlocks = ~0ull >> (64 - kBlocks);

// Per-pixel answers about which primitive did what; everything in block order, forward only.
struct TileStatistics {
    I *first, *median, *dominant;
    F* dominant_weight;
    real *slot_sum, *slot_max;  // per (primitive, chunk): sum and maximum of T a
    const Footprint* footprints;
    int tile_x, tile_y;
};

struct Tile {
    int x0, y0, channels;
    const real* values;  // [n, channels]
    real transmittance_min;
    BlockMask live;
    F* T;           // [blocks]
    F* sums;        // [blocks, channels]
    I* stop;        // [blocks] list position of the event that ended the ray; the list's length where none did, -1 for
                    // pixels outside the picture
    TileStatistics* statistics;
};

struct BackwardTile {
    int x0, y0, channels, tile_x, tile_y;
    const real* values;
    F* T;            // [blocks] transmittance behind the event at hand
    F* behind;       // [blocks] what lies behind it: sum of w (c . cotangent), background and alpha included
    const F* cotangent;  // [blocks, channels]
    const I* stop;
    const int* block_stop;  // [blocks] largest stop of the block's pixels
    const Footprint* footprints;
    real* slots;     // [slots, stride]
    F* scratch;      // [stride]
};

struct KindFunctions {
    // Composite list positions [begin, end) front to back; `screens` is the kind's own record array, indexed by id - first.
    void (*forward)(Tile&, const void* screens, const int* ids, int begin, int end, int first);
    // The same from end - 1 down to begin, adding gradients to the slots.
    void (*backward)(BackwardTile&, const void* screens, const int* ids, int begin, int end, int first);
    int moments;  // reals per slot before the channels
};

// Slots hold the kind's moments, then the channels, padded to whole quadruples for add_sums.
inline int slot_stride(int moments, int channels) { return (moments + channels + 3) / 4 * 4; }

template <class Kind, int fixed_channels, bool with_statistics>
void composite_run(Tile& tile, const void* screens, const int* ids, int begin, int end, int first) {
    const int channels = fixed_channels ? fixed_channels : tile.channels;
    const auto* records = static_cast<const typename Kind::Screen*>(screens);
    const F tmin = splat(tile.transmittance_min);
    for (int k = begin; k < end; k++) {
        const int id = ids[k];
        if (k + 4 < end) {
            __builtin_prefetch(records + (ids[k + 4] - first));
            __builtin_prefetch(tile.values + (long long)ids[k + 4] * channels);
        }
        const typename Kind::Screen record = records[id - first];
        BlockMask todo = Kind::blocks(record, tile.x0, tile.y0) & tile.live;
        if (!todo) continue;
        const real* value = tile.values + (long long)id * channels;
        const typename Kind::Visit visit(record, tile.x0, tile.y0);
        F colour[fixed_channels ? fixed_channels : 1];
        for (int c = 0; c < fixed_channels; c++) colour[c] = splat(value[c]);
        real slot_sum = 0, slot_max = 0;
        do {
            const int block = __builtin_ctzll(todo);
            todo &= todo - 1;
            typename Kind::Event event;
            F T = tile.T[block];
            const M hit = both(visit.event(block, event), ge(T, tmin));
            const F alpha = zero_unless(hit, event.alpha);
            const F weight = alpha * T;
            const F after = fnma(alpha, T, T);
            tile.T[block] = after;
            F* sums = tile.sums + (long long)block * channels;
            if (fixed_channels)
                for (int c = 0; c < fixed_channels; c++) sums[c] = fma(weight, colour[c], sums[c]);
            else
                for (int c = 0; c < channels; c++) sums[c] = fma(weight, splat(value[c]), sums[c]);
            if (with_statistics) {
                TileStatistics& s = *tile.statistics;
                for (int j = 0; j < kLanes; j++) {
                    if (!lane(hit, j)) continue;
                    if (s.first[block][j] < 0) s.first[block][j] = id;
                    if (T[j] > real(0.5) && after[j] <= real(0.5)) s.median[block][j] = id;
                    if (weight[j] > s.dominant_weight[block][j]) s.dominant_weight[block][j] = weight[j], s.dominant[block][j] = id;
                    slot_sum += weight[j];
                    slot_max = weight[j] > slot_max ? weight[j] : slot_max;
                }
            }
            const M ended = both(hit, lt(after, tmin));
            if (__builtin_expect(any(ended), 0)) {
                tile.stop[block] = select_int(ended, splat_int(k), tile.stop[block]);
                if (!any(ge(after, tmin))) tile.live &= ~(1ull << block);
            }
        } while (todo);
        if (with_statistics) {
            TileStatistics& s = *tile.statistics;
            const int slot = slot_of(s.footprints[id], s.tile_x, s.tile_y);
            s.slot_sum[slot] += slot_sum;
            s.slot_max[slot] = slot_max > s.slot_max[slot] ? slot_max : s.slot_max[slot];
        }
        if (!tile.live) return;
    }
}

template <class Kind, int fixed_channels>
void composite_run_back(BackwardTile& tile, const void* screens, const int* ids, int begin, int end, int first) {
    const int channels = fixed_channels ? fixed_channels : tile.channels;
    const int stride = slot_stride(Kind::kMoments, channels);
    const auto* records = static_cast<const typename Kind::Screen*>(screens);
    F fixed_sums[fixed_channels ? (Kind::kMoments + fixed_channels + 3) / 4 * 4 : 1];
    F* sums = fixed_channels ? fixed_sums : tile.scratch;
    BlockMask live = 0;  // blocks in which some pixel's ray reached this far
    int next_stop = 0;
    for (int b = 0; b < kBlocks; b++) next_stop = tile.block_stop[b] > next_stop ? tile.block_stop[b] : next_stop;
    if (end > next_stop + 1) end = next_stop + 1;
    next_stop = end;
    for (int k = end - 1; k >= begin; k--) {
        if (k < next_stop) {  // some blocks may wake up: recompute the mask, and when next to look
            next_stop = -1;
            for (int b = 0; b < kBlocks; b++) {
                if (tile.block_stop[b] >= k)
                    live |= 1ull << b;
                else if (tile.block_stop[b] + 1 > next_stop)
                    next_stop = tile.block_stop[b] + 1;
            }
        }
        const int id = ids[k];
        if (k - 4 >= begin) {
            __builtin_prefetch(records + (ids[k - 4] - first));
            __builtin_prefetch(tile.values + (long long)ids[k - 4] * channels);
            __builtin_prefetch(tile.footprints + ids[k - 4]);
        }
        const typename Kind::Screen record = records[id - first];
        BlockMask todo = Kind::blocks(record, tile.x0, tile.y0) & live;
        if (!todo) continue;
        const real* value = tile.values + (long long)id * channels;
        const typename Kind::Visit visit(record, tile.x0, tile.y0);
        F colour[fixed_channels ? fixed_channels : 1];
        for (int c = 0; c < fixed_channels; c++) colour[c] = splat(value[c]);
        for (int j = 0; j < stride; j++) sums[j] = F{};
        const I position = splat_int(k);
        do {
            const int block = __builtin_ctzll(todo);
            todo &= todo - 1;
            typename Kind::Event event;
            const M hit = both(visit.event(block, event), le_int(position, tile.stop[block]));
            const F alpha = zero_unless(hit, event.alpha);
            const F ratio = recip(splat(1) - alpha);
            const F T = tile.T[block] * ratio;
            const F weight = alpha * T;
            const F* v = tile.cotangent + (long long)block * channels;
            F* channel_sums = sums + Kind::kMoments;
            F along = F{};
            if (fixed_channels)
                for (int c = 0; c < fixed_channels; c++) {
                    along = c ? fma(colour[c], v[c], along) : colour[c] * v[c];
                    channel_sums[c] = fma(weight, v[c], channel_sums[c]);
                }
            else
                for (int c = 0; c < channels; c++) {
                    along = fma(splat(value[c]), v[c], along);
                    channel_sums[c] = fma(weight, v[c], channel_sums[c]);
                }
            const F behind = tile.behind[block];
            const F gradient = zero_unless(hit, fnma(behind, ratio, T * along));
            tile.behind[block] = fma(weight, along, behind);
            tile.T[block] = T;
            visit.moments(event, gradient, sums);
        } while (todo);
        add_sums(sums, stride, tile.slots + (long long)slot_of(tile.footprints[id], tile.tile_x, tile.tile_y) * stride);
    }
}

}  // namespace smalti
