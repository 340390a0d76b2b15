// The picture: all tiles of a plan composited, and taken back into slots.
#pragma once
#include "plan.h"

namespace smalti {

struct KindRange {
    KindFunctions functions;
    const void* screens;
    int first, count;  // ids [first, first + count) are of this kind
};

struct Background {
    const real* values;  // [3] or [h, w, 3]; null: black
    int per_pixel;
};

struct ForwardOutput {
    real *picture, *alpha;                // [h, w, channels] [h, w]
    int *first, *median, *dominant;       // [h, w]; null without statistics
    real *contribution_sum, *contribution_max;  // [n]
};

struct BackwardInput {
    const real *picture, *alpha;  // cotangents; either may be null
    real* background;             // gradient out, shaped as the background; null if not wanted
};

// Calls inside(block, lane, pixel index) for the pixels of the tile in the picture, outside(block, lane) for the others.
template <class Inside, class Outside>
SM_FN void for_tile_pixels(const Plan& plan, int tile_x, int tile_y, const Inside& inside, const Outside& outside) {
    for (int b = 0; b < kBlocks; b++) {
        const int x0 = tile_x * kTile + b % kBlocksAcross * kBlockWidth, y0 = tile_y * kTile + b / kBlocksAcross * kBlockHeight;
        for (int k = 0; k < kLanes; k++) {
            const int x = x0 + k % kBlockWidth, y = y0 + k / kBlockWidth;
            if (x < plan.width && y < plan.height)
                inside(b, k, (long long)y * plan.width + x);
            else
                outside(b, k);
        }
    }
}

template <class Body>
SM_FN void for_tile_pixels(const Plan& plan, int tile_x, int tile_y, const Body& body) {
    for_tile_pixels(plan, tile_x, tile_y, body, [](int, int) {});
}

// Splits list positions [begin, end) into runs of one kind; with one kind there is nothing to look up.
template <class Body>
SM_FN void for_runs(const std::vector<KindRange>& kinds, const int* ids, int begin, int end, bool backward, const Body& body) {
    if (kinds.size() == 1) return body(kinds[0], begin, end);
    auto kind_of = [&](int k) {
        size_t j = 0;
        while (ids[k] >= kinds[j].first + kinds[j].count) j++;
        return j;
    };
    while (begin < end) {
        const size_t kind = kind_of(backward ? end - 1 : begin);
        int edge = backward ? end - 1 : begin + 1;
        if (backward) {
            while (edge > begin && kind_of(edge - 1) == kind) edge--;
            body(kinds[kind], edge, end);
            end = edge;
        } else {
            while (edge < end && kind_of(edge) == kind) edge++;
            body(kinds[kind], begin, edge);
            begin = edge;
        }
    }
}

inline void composite_forward(Plan& plan, const std::vector<KindRange>& kinds, const Background& background, const ForwardOutput& out) {
    const int tiles = plan.tiles_x * plan.tiles_y, channels = plan.channels;
    const bool statistics = out.first != nullptr;
    plan.tile_T.resize((size_t)tiles * kTilePixels);
    plan.tile_stop.resize((size_t)tiles * kTilePixels);
    Array<real> slot_sum, slot_max;
    if (statistics) {
        std::memset(slot_sum.resize(plan.slots), 0, plan.slots * sizeof(real));
        std::memset(slot_max.resize(plan.slots), 0, plan.slots * sizeof(real));
    }
    std::vector<std::unique_ptr<Array<F>>> sums(kMaxThreads), weights(kMaxThreads);
    std::vector<std::unique_ptr<Array<I>>> answers(kMaxThreads);
    const int across = (plan.tiles_x + kChunkTiles - 1) / kChunkTiles;
    // With statistics a chunk is one thread's (slots are summed in order); without, single tiles balance better.
    const int items = statistics ? across * plan.tiles_y : tiles;
    parallel(items, [&](int item, int thread) {
        if (!sums[thread]) {
            sums[thread] = std::make_unique<Array<F>>();
            sums[thread]->resize((size_t)kBlocks * channels);
            if (statistics) {
                weights[thread] = std::make_unique<Array<F>>();
                answers[thread] = std::make_unique<Array<I>>();
                weights[thread]->resize(kBlocks);
                answers[thread]->resize(3 * kBlocks);
            }
        }
        const int tile_y = statistics ? item / across : item / plan.tiles_x;
        const int x0 = statistics ? item % across * kChunkTiles : item % plan.tiles_x;
        const int x1 = statistics ? std::min(x0 + kChunkTiles, plan.tiles_x) : x0 + 1;
        for (int tile_x = x0; tile_x < x1; tile_x++) {
            const int t = tile_y * plan.tiles_x + tile_x, begin = plan.tile_start[t], length = plan.tile_start[t + 1] - begin;
            F* acc = sums[thread]->data();
            for (int k = 0; k < kBlocks * channels; k++) acc[k] = F{};
            Tile tile;
            tile.x0 = tile_x * kTile, tile.y0 = tile_y * kTile, tile.channels = channels;
            tile.values = plan.values.data();
            tile.transmittance_min = plan.transmittance_min;
            tile.live = kAllBlocks;
            tile.T = reinterpret_cast<F*>(plan.tile_T.data() + (size_t)t * kTilePixels);
            tile.stop = reinterpret_cast<I*>(plan.tile_stop.data() + (size_t)t * kTilePixels);
            tile.sums = acc;
            for (int b = 0; b < kBlocks; b++) tile.T[b] = splat(1), tile.stop[b] = splat_int(length);
            if (tile.x0 + kTile > plan.width || tile.y0 + kTile > plan.height) {
                // No light reaches pixels outside the picture: they have no events, in this pass and on the way back.
                BlockMask inside = 0;
                for_tile_pixels(
                    plan, tile_x, tile_y, [&](int b, int, long long) { inside |= 1ull << b; },
                    [&](int b, int k) { tile.T[b][k] = -1, tile.stop[b][k] = -1; });
                tile.live = inside;
            }
            TileStatistics s;
            if (statistics) {
                I* a = answers[thread]->data();
                for (int k = 0; k < 3 * kBlocks; k++) a[k] = splat_int(-1);
                for (int b = 0; b < kBlocks; b++) (*weights[thread])[b] = F{};
                s = {a, a + kBlocks, a + 2 * kBlocks, weights[thread]->data(), slot_sum.data(), slot_max.data(), plan.footprints.data(), tile_x, tile_y};
                tile.statistics = &s;
            }
            const int* ids = plan.ids.data() + begin;
            for_runs(kinds, ids, 0, length, false, [&](const KindRange& kind, int from, int to) {
                if (tile.live) kind.functions.forward(tile, kind.screens, ids, from, to, kind.first);
            });
            for_tile_pixels(plan, tile_x, tile_y, [&](int b, int k, long long pixel) {
                const real T = tile.T[b][k];
                real* colour = out.picture + pixel * channels;
                for (int c = 0; c < channels; c++) colour[c] = acc[b * channels + c][k];
                if (background.values) {
                    const real* behind = background.values + (background.per_pixel ? 3 * pixel : 0);
                    for (int c = 0; c < 3; c++) colour[c] += T * behind[c];
                }
                out.alpha[pixel] = 1 - T;
                if (statistics) {
                    out.first[pixel] = (int)s.first[b][k];
                    out.median[pixel] = (int)s.median[b][k];
                    out.dominant[pixel] = (int)s.dominant[b][k];
                }
            });
        }
    });
    if (!statistics) return;
    parallel_ranges(plan.count, 4096, [&](int begin, int end, int, int) {
        for (int id = begin; id < end; id++) {
            const Footprint& f = plan.footprints[id];
            real sum = 0, most = 0;
            for (int s = f.slot, n = slot_count(f); n > 0; n--, s++) sum += slot_sum[s], most = std::max(most, slot_max[s]);
            out.contribution_sum[id] = sum;
            out.contribution_max[id] = most;
        }
    });
}

inline void composite_backward(Plan& plan, const std::vector<KindRange>& kinds, int moments, const Background& background, const BackwardInput& in) {
    const int channels = plan.channels, stride = slot_stride(moments, channels);
    const size_t values = (size_t)plan.slots * stride;
    plan.slot_values.resize(values);
    const int across = (plan.tiles_x + kChunkTiles - 1) / kChunkTiles, chunks = across * plan.tiles_y;
    parallel_ranges((int)((values + (1 << 16) - 1) >> 16), 1, [&](int begin, int, int, int) {
        const size_t from = (size_t)begin << 16, to = std::min(values, from + (1 << 16));
        std::memset(plan.slot_values.data() + from, 0, (to - from) * sizeof(real));
    });
    const bool constant = in.background && !background.per_pixel;
    std::vector<double> background_sums(constant ? (size_t)chunks * 3 : 0, 0.0);
    // Longest chunks first, so that the last ones to run are short.
    std::vector<int> order(chunks);
    std::vector<long long> work(chunks, 0);
    for (int k = 0; k < chunks; k++) {
        order[k] = k;
        const int row = k / across * plan.tiles_x, x0 = k % across * kChunkTiles, x1 = std::min(x0 + kChunkTiles, plan.tiles_x);
        work[k] = plan.tile_start[row + x1] - plan.tile_start[row + x0];
    }
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return work[a] > work[b]; });
    std::vector<std::unique_ptr<Array<F>>> scratch(kMaxThreads);
    parallel(chunks, [&](int item, int thread) {
        const int chunk = order[item], tile_y = chunk / across, first_tile = chunk % across * kChunkTiles;
        if (!scratch[thread]) {
            scratch[thread] = std::make_unique<Array<F>>();
            scratch[thread]->resize((size_t)kBlocks * (channels + 2) + stride);
        }
        F* T = scratch[thread]->data();
        F *behind = T + kBlocks, *cotangent = behind + kBlocks, *sums = cotangent + (size_t)kBlocks * channels;
        for (int tile_x = first_tile; tile_x < std::min(first_tile + kChunkTiles, plan.tiles_x); tile_x++) {
            const int t = tile_y * plan.tiles_x + tile_x, begin = plan.tile_start[t], length = plan.tile_start[t + 1] - begin;
            std::memcpy(T, plan.tile_T.data() + (size_t)t * kTilePixels, kTilePixels * sizeof(real));
            for (int k = 0; k < kBlocks; k++) behind[k] = F{};
            for (int k = 0; k < kBlocks * channels; k++) cotangent[k] = F{};
            double background_sum[3] = {0, 0, 0};
            for_tile_pixels(plan, tile_x, tile_y, [&](int b, int k, long long pixel) {
                real after = in.alpha ? -in.alpha[pixel] : real(0);
                const real* v = in.picture ? in.picture + pixel * channels : nullptr;
                if (v) {
                    for (int c = 0; c < channels; c++) cotangent[b * channels + c][k] = v[c];
                    if (background.values) {
                        const real* colour = background.values + (background.per_pixel ? 3 * pixel : 0);
                        for (int c = 0; c < 3; c++) after += v[c] * colour[c];
                    }
                    if (in.background)
                        for (int c = 0; c < 3; c++) {
                            if (constant)
                                background_sum[c] += double(T[b][k]) * v[c];
                            else
                                in.background[3 * pixel + c] = T[b][k] * v[c];
                        }
                }
                behind[b][k] = T[b][k] * after;
            });
            if (constant)
                for (int c = 0; c < 3; c++) background_sums[(size_t)chunk * 3 + c] += background_sum[c];
            int block_stop[kBlocks];
            const I* stop = reinterpret_cast<const I*>(plan.tile_stop.data() + (size_t)t * kTilePixels);
            for (int b = 0; b < kBlocks; b++) {
                lane_int most = -1;
                for (int k = 0; k < kLanes; k++) most = std::max(most, (lane_int)stop[b][k]);
                block_stop[b] = (int)most;
            }
            BackwardTile tile = {tile_x * kTile, tile_y * kTile, channels, tile_x, tile_y, plan.values.data(), T, behind, cotangent, stop,
                                 block_stop, plan.footprints.data(), plan.slot_values.data(), sums};
            const int* ids = plan.ids.data() + begin;
            for_runs(kinds, ids, 0, length, true, [&](const KindRange& kind, int from, int to) {
                kind.functions.backward(tile, kind.screens, ids, from, to, kind.first);
            });
        }
    });
    if (constant)
        for (int c = 0; c < 3; c++) {
            double sum = 0;
            for (int k = 0; k < chunks; k++) sum += background_sums[(size_t)k * 3 + c];
            in.background[c] = (real)sum;
        }
}

}  // namespace smalti
