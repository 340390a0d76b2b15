// The general compositor over a picture: any kinds, projected, listed per tile, composited, and taken back.
#pragma once
#include "binning.h"
#include "composite_stage.h"

namespace smalti {

constexpr int kExactGrain = 512;  // primitives per work item; a multiple of every lane count

struct ExactOutput {
    real *picture, *alpha;                      // [h, w, channels + depth] [h, w]
    int *first, *median, *dominant;             // [h, w]; null without statistics
    real *depth_first, *depth_median;           // [h, w]
    real *contribution_sum, *contribution_max;  // [n]
};

// Projects every drawable and makes the tile lists. False: more list entries than an int can count.
inline bool exact_prepare(Plan& plan) {
    plan.skipped = 0;
    const int n = plan.count, channels = plan.view.channels;
    plan.depths.resize(n), plan.radii.resize(n), plan.keys.resize(n), plan.footprints.resize(n), plan.drawable_of.resize(n);
    plan.values.resize((size_t)n * channels);
    Array<real> edges;  // left, top, right, bottom, to find the tiles within
    for (size_t j = 0; j < plan.drawables.size(); j++) {
        ExactDrawable& d = *plan.drawables[j];
        const KindInput& in = d.in;
        d.records.resize((size_t)in.count * d.kind->record_size);
        d.moments = d.kind->moments(in, plan.view);
        d.stride = slot_stride(d.moments, d.kind->constant_channels ? channels : 0);
        std::atomic<int> skipped{0};
        parallel_ranges(in.count, kExactGrain, [&](int begin, int end, int, int) {
            Bounds bounds[kExactGrain];
            d.kind->project(in, plan.camera, plan.view, begin, end, d.records.data() + (size_t)begin * d.kind->record_size, bounds,
                            plan.values.data() + (size_t)(d.first + begin) * channels);
            int bad = 0;
            for (int k = begin; k < end; k++) {
                const int row = d.first + k;
                const Bounds& b = bounds[k - begin];
                Footprint& f = plan.footprints[row];
                f = {0, 0, 0, 0, 0};
                plan.drawable_of[row] = (int)j;
                plan.radii[row] = plan.depths[row] = plan.keys[row] = 0;
                plan.depths[row] = b.depth;
                if (!b.usable) {
                    bad++;
                    continue;
                }
                if (!b.drawn) continue;
                if (!(b.right >= 0 && b.bottom >= 0 && b.left <= plan.width && b.top <= plan.height)) continue;
                const real key = plan.view.centre ? b.depth : b.nearest;
                plan.keys[row] = key > 0 ? key : 0;
                f.x0 = (short)(std::max(b.left, real(0)) / kTile);
                f.y0 = (short)(std::max(b.top, real(0)) / kTile);
                f.x1 = (short)std::min(std::min(b.right, real(plan.width)) / kTile + 1, real(plan.tiles_x));
                f.y1 = (short)std::min(std::min(b.bottom, real(plan.height)) / kTile + 1, real(plan.tiles_y));
                if (f.x0 >= f.x1 || f.y0 >= f.y1) f = {0, 0, 0, 0, 0};
                plan.radii[row] = real(0.5) * std::max(b.right - b.left, b.bottom - b.top);
            }
            skipped += bad;
        });
        plan.skipped += skipped;
    }
    int* start = plan.span_start.resize(n + 1);
    long long sum = 0;
    for (int k = 0; k < n; k++) {
        start[k] = (int)sum;
        const Footprint& f = plan.footprints[k];
        sum += f.x0 < f.x1 ? f.y1 - f.y0 : 0;
        if (sum > INT_MAX) return false;
    }
    start[n] = (int)sum;
    plan.spans.resize(sum);
    parallel_ranges(n, 512, [&](int begin, int end, int, int) {
        for (int k = begin; k < end; k++) {
            Footprint& f = plan.footprints[k];
            if (f.x0 >= f.x1) continue;
            const ExactDrawable& d = *plan.drawables[plan.drawable_of[k]];
            const void* record = d.record(k - d.first);
            const real half = real(0.5);
            auto touches = [&](int x, int y) {
                return d.kind->touches(record, x * kTile + half, y * kTile + half, (x + 1) * kTile - half, (y + 1) * kTile - half);
            };
            int total = 0;
            for (int y = f.y0; y < f.y1; y++) {
                int x0 = f.x0, x1 = f.x1;
                while (x0 < x1 && !touches(x0, y)) x0++;
                while (x1 > x0 && !touches(x1 - 1, y)) x1--;
                plan.spans[start[k] + y - f.y0] = {(short)x0, (short)x1};
                total += x1 - x0;
            }
            if (!total) {
                f.x1 = f.x0;
                plan.radii[k] = 0;
            }
        }
    });
    if (!number_slots(plan) || !bin_primitives(plan, plan.keys.data())) return false;
    long long at = 0;
    for (auto& d : plan.drawables) {
        d->slots_at = at;
        long long slots = 0;
        for (int k = 0; k < d->in.count; k++) slots += slot_count(plan.footprints[d->first + k]);
        at += slots * d->stride;
    }
    plan.slots_reals = at;
    return true;
}

// The primitives of one tile, and the blocks each can touch.
struct TileWork {
    std::vector<BlockMask> masks;
    std::vector<int> owners, listed;  // `listed`: places in the tile's list
    std::vector<char> apart;          // the next primitive begins behind this one's key, ties included
    RunLog log;

    const int* ids;
    int length, tile_x, tile_y;

    void start(const Plan& plan, int x, int y) {
        tile_x = x, tile_y = y;
        const int t = tile_y * plan.tiles_x + tile_x;
        ids = plan.ids.data() + plan.tile_start[t];
        length = plan.tile_start[t + 1] - plan.tile_start[t];
        masks.resize(length), owners.resize(length), apart.resize(length), listed.reserve(length + 1);
        real next = real(1e30);
        for (int k = length; k-- > 0;) {
            const int id = ids[k];
            if (k >= 8) {
                const ExactDrawable& soon = *plan.drawables[plan.drawable_of[ids[k - 8]]];
                const char* record = static_cast<const char*>(soon.record(ids[k - 8] - soon.first));
                __builtin_prefetch(record), __builtin_prefetch(record + 64);
            }
            owners[k] = plan.drawable_of[id];
            const ExactDrawable& d = *plan.drawables[owners[k]];
            masks[k] = d.kind->blocks(d.record(id - d.first), tile_x * kTile, tile_y * kTile);
            const real key = plan.keys[id];
            apart[k] = next > key + 4 * kTie * key;
            next = key;
        }
    }
    void list(int block) {
        listed.resize(length + 1);
        int count = 0;
        for (int k = 0; k < length; k++) {  // no branch: it would be guessed wrongly every other time
            listed[count] = k;
            count += (int)(masks[k] >> block & 1);
        }
        listed.resize(count);
    }
};

// Rays of a block, and T before anything: 1 inside the picture, -1 outside (no light, no events).
struct BlockRays {
    Rays rays;
    F T;
    bool inside;
    BlockRays(const Plan& plan, int tile_x, int tile_y, int block) {
        const int x0 = tile_x * kTile + block % kBlocksAcross * kBlockWidth, y0 = tile_y * kTile + block / kBlocksAcross * kBlockHeight;
        rays.x = load_lanes(kLaneConstants.x) + splat(real(x0));
        rays.y = load_lanes(kLaneConstants.y) + splat(real(y0));
        rays.u = (rays.x - splat(plan.camera.cx)) * splat(1 / plan.camera.fx);
        rays.v = (rays.y - splat(plan.camera.cy)) * splat(1 / plan.camera.fy);
        T = select(both(lt(rays.x, splat(real(plan.width))), lt(rays.y, splat(real(plan.height)))), splat(1), splat(-1));
        inside = x0 < plan.width && y0 < plan.height;
    }
};

inline ExactOptions exact_options(const Plan& plan, bool depth, bool logged, bool statistics) {
    // Additive rays end when nothing is left; a T that is exactly 0 is below any positive number.
    const real least = plan.additive ? real(1e-30) : plan.transmittance_min;
    return {plan.view.channels, depth, plan.view.centre != 0, plan.additive, logged, statistics, least};
}

inline RunInput run_input(const Plan& plan, const TileWork& work, int drawable, const Rays& rays, bool depth) {
    const ExactDrawable& d = *plan.drawables[drawable];
    return {&d.in, &plan.camera, d.records.data(), work.ids, work.listed.data(), 0, 0, d.first, plan.view.channels,
            plan.values.data(), &rays, nullptr, depth, plan.transmittance_min};
}

// Composites places [i, returned) at once, if their events need not wait.
inline int composite_run(const Plan& plan, TileWork& work, int i, const BlockRays& rays, ExactBlock& block, const ExactOptions& options) {
    const int count = (int)work.listed.size(), owner = work.owners[work.listed[i]];
    const ExactKind& kind = *plan.drawables[owner]->kind;
    if (!kind.run || !(kind.at_key || options.centre) || options.statistics || options.additive) return i;
    real horizon = real(1e30);
    if (options.centre) {
        block.composite_rest();
    } else {
        block.composite_until(plan.keys[work.ids[work.listed[i]]]);
        horizon = block.horizon();
    }
    if (!block.idle()) return i;
    int end = i;
    for (; end < count; end++) {
        const int place = work.listed[end];
        if (work.owners[place] != owner) break;
        if (!options.centre && !(plan.keys[work.ids[place]] < horizon && work.apart[place])) break;
    }
    if (end == i) return i;
    RunInput run = run_input(plan, work, owner, rays.rays, options.depth);
    run.begin = i, run.end = end;
    const int before = work.log.count;
    if (options.logged) run.log = &work.log;
    kind.run(run, block);
    if (work.log.count > before) work.log.runs.push_back({owner, block.composited(), before, work.log.count});
    return end;
}

// Events of the primitives in `work.listed`, composited as they become final. `runs`: those that are final when they are found
// go to `work.log`, not to the block.
inline void composite_block(const Plan& plan, TileWork& work, const BlockRays& rays, ExactBlock& block, const ExactOptions& options, bool runs) {
    block.begin(rays.T);
    work.log.start(options.logged && runs ? (int)work.listed.size() : 0);
    for (int i = 0; i < (int)work.listed.size();) {
        if (runs) {
            const int end = composite_run(plan, work, i, rays, block, options);
            if (end > i) {
                if (!block.alive()) break;
                i = end;
                continue;
            }
        }
        const int place = work.listed[i++], id = work.ids[place];
        if (block.crowded()) {
            block.composite_until(plan.keys[id]);
            if (!block.alive()) break;
        }
        const int j = work.owners[place];
        const ExactDrawable& d = *plan.drawables[j];
        block.begin_emission(j, id - d.first, id, plan.keys[id], plan.values.data() + (size_t)id * plan.view.channels);
        d.kind->emit(d.in, plan.camera, d.record(id - d.first), id - d.first, rays.rays, block);
        block.end_emission();
    }
    block.composite_rest();
}

struct ReportTarget {
    const Plan* plan;
    real *slot_sum, *slot_max;
    int tile_x, tile_y;
};

inline void exact_forward(Plan& plan, bool depth, const Background& background, const ExactOutput& out) {
    const int stride = plan.view.channels + (depth ? 1 : 0), across = (plan.tiles_x + kChunkTiles - 1) / kChunkTiles;
    const bool statistics = out.first != nullptr;
    const ExactOptions options = exact_options(plan, depth, false, statistics);
    Array<real> slot_sum, slot_max;
    if (statistics) {
        std::memset(slot_sum.resize(plan.slots), 0, plan.slots * sizeof(real));
        std::memset(slot_max.resize(plan.slots), 0, plan.slots * sizeof(real));
    }
    plan.final_T.resize((size_t)plan.width * plan.height);
    std::vector<std::unique_ptr<ExactBlock>> blocks(kMaxThreads);
    std::vector<TileWork> works(kMaxThreads);
    std::atomic<long long> wide{0}, lookups{0};
    const int items = statistics ? across * plan.tiles_y : plan.tiles_x * plan.tiles_y;
    parallel(items, [&](int item, int thread) {
        if (!blocks[thread]) blocks[thread] = std::make_unique<ExactBlock>(options);
        ExactBlock& block = *blocks[thread];
        TileWork& work = works[thread];
        const int tile_y = statistics ? item / across : item / plan.tiles_x;
        const int x0 = statistics ? item % across * kChunkTiles : item % plan.tiles_x;
        const int x1 = statistics ? std::min(x0 + kChunkTiles, plan.tiles_x) : x0 + 1;
        long long widened = 0;
        block.lookups = 0;
        for (int tile_x = x0; tile_x < x1; tile_x++) {
            work.start(plan, tile_x, tile_y);
            ReportTarget target = {&plan, slot_sum.data(), slot_max.data(), tile_x, tile_y};
            block.report_to = &target;
            if (statistics) block.report = [](void* to, int id, F weight) {
                const ReportTarget& r = *static_cast<ReportTarget*>(to);
                const int slot = slot_of(r.plan->footprints[id], r.tile_x, r.tile_y);
                for (int k = 0; k < kLanes; k++) {
                    r.slot_sum[slot] += weight[k];
                    r.slot_max[slot] = std::max(r.slot_max[slot], weight[k]);
                }
            };
            for (int b = 0; b < kBlocks; b++) {
                const BlockRays rays(plan, tile_x, tile_y, b);
                if (!rays.inside) continue;
                work.list(b);
                composite_block(plan, work, rays, block, options, true);
                int own = 0;
                for (int k = 0; k < kLanes; k++) {
                    const int x = (int)rays.rays.x[k], y = (int)rays.rays.y[k];
                    if (x >= plan.width || y >= plan.height) continue;
                    own++;
                    const long long pixel = (long long)y * plan.width + x;
                    real* colour = out.picture + pixel * stride;
                    for (int c = 0; c < stride; c++) colour[c] = block.sums[c][k];
                    if (background.values) {
                        const real* behind = background.values + (background.per_pixel ? 3 * pixel : 0);
                        for (int c = 0; c < 3; c++) colour[c] += block.T[k] * behind[c];
                    }
                    out.alpha[pixel] = block.absorbed[k];
                    plan.final_T[pixel] = block.T[k];
                    if (statistics) {
                        out.first[pixel] = (int)block.answers.first[k];
                        out.median[pixel] = (int)block.answers.median[k];
                        out.dominant[pixel] = (int)block.answers.dominant[k];
                        out.depth_first[pixel] = block.answers.first[k] < 0 ? 0 : block.answers.depth_first[k];
                        out.depth_median[pixel] = block.answers.median[k] < 0 ? 0 : block.answers.depth_median[k];
                    }
                }
                if (block.widest > kNominalWindow) widened += own;
            }
        }
        wide += widened;
        lookups += block.lookups;
    });
    plan.wide_pixels = wide;
    plan.lookups = lookups;
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

}  // namespace smalti
