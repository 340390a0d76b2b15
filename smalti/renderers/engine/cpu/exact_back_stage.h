// The general compositor's way back over a picture (exact_stage.h): block by block, then from the slots to the parameters.
#pragma once
#include "exact_stage.h"

namespace smalti {

// Sums the slots and carries them to the parameters; tables are done already.
inline void exact_finish(Plan& plan, const KindGradient* gradients, double* camera) {
    for (size_t j = 0; j < plan.drawables.size(); j++) {
        const ExactDrawable& d = *plan.drawables[j];
        const int pieces = (d.in.count + kExactGrain - 1) / kExactGrain, stride = d.stride + plan.view.channels, base = d.in.count ? plan.footprints[d.first].slot : 0;
        std::vector<double> camera_pieces(camera ? (size_t)pieces * kCameraGradient : 0, 0.0);
        parallel_ranges(d.in.count, kExactGrain, [&](int begin, int end, int piece, int) {
            std::vector<real> some((size_t)stride * kLanes);
            int ids[kLanes], count = 0;
            double* own_camera = camera ? camera_pieces.data() + (size_t)piece * kCameraGradient : nullptr;
            auto finish = [&] {
                if (count)
                    d.kind->finish(d.in, plan.camera, plan.view, ids, count, d.records.data(), some.data(), stride, d.moments, gradients[j], own_camera);
                count = 0;
            };
            for (int k = begin; k < end; k++) {
                real* sums = some.data() + (size_t)stride * count;
                const Footprint& f = plan.footprints[d.first + k];
                const int slots = slot_count(f);
                if (!slots) continue;
                std::fill(sums, sums + stride, real(0));
                const real* slot = plan.slot_values.data() + d.slots_at + (long long)(f.slot - base) * d.stride;
                for (int s = slots; s > 0; s--, slot += d.stride)
                    for (int i = 0; i < d.stride; i++) sums[i] += slot[i];
                // Felt by no ray: zeros, also where a derivative is out of range.
                if (std::all_of(sums, sums + d.stride, [](real sum) { return sum == 0; })) continue;
                ids[count++] = k;
                if (count == kLanes) finish();
            }
            finish();
        });
        if (camera)
            for (int p = 0; p < pieces; p++)
                for (int i = 0; i < kCameraGradient; i++) camera[i] += camera_pieces[(size_t)p * kCameraGradient + i];
    }
}

// What a thread needs on the way back.
struct BackScratch {
    std::unique_ptr<ExactBlock> block;
    TileWork work;
    std::vector<F> sums, cotangent, locals;
};

// Adds the gradients of one block's events to the slots of their primitives.
inline void exact_block_back(Plan& plan, BackScratch& s, const Rays& rays, int tile_x, int tile_y, TableLog* logs, const F* locals = nullptr) {
    ExactBlock& block = *s.block;
    const int channels = plan.view.channels;
    for (int k = 0; k < block.emissions.size(); k++) {
        if (k + 4 < block.emissions.size()) __builtin_prefetch(plan.footprints.data() + block.emissions[k + 4].id);
        const Emission& emission = block.emissions[k];
        const ExactDrawable& d = *plan.drawables[emission.drawable];
        ExactBack back(block, logs + emission.drawable);
        back.begin(emission);
        back.locals = locals;
        s.sums.resize(std::max((size_t)d.stride, s.sums.size()));
        F *sums = s.sums.data(), *own = sums + d.moments;
        for (int j = 0; j < d.stride; j++) sums[j] = F{};
        d.kind->emit_back(d.in, plan.camera, d.record(emission.primitive), emission.primitive, rays, back, sums);
        if (d.kind->constant_channels)
            for (int e = emission.first; e < emission.first + emission.count; e++) {
                const Event& event = block.event(e);
                if (block.weighed(event)) {
                    for (int c = 0; c < channels; c++) own[c] = fma(event.density, s.cotangent[c], own[c]);
                } else {
                    const F* g = block.channel_gradient(e);
                    for (int c = 0; c < channels; c++) own[c] += g[c];
                }
            }
        const Footprint& f = plan.footprints[emission.id];
        const long long slot = slot_of(f, tile_x, tile_y) - plan.footprints[d.first].slot;
        add_sums(sums, d.stride, plan.slot_values.data() + d.slots_at + slot * d.stride);
    }
}

// Walks back over a block's ranks and runs; of the runs the gradients are in the slots then.
inline void exact_sweep_back(Plan& plan, BackScratch& s, const Rays& rays, F behind, bool depth) {
    ExactBlock& block = *s.block;
    TileWork& work = s.work;
    block.begin_back(behind);
    for (size_t k = work.log.runs.size(); k-- > 0;) {
        const RunLog::Run& own = work.log.runs[k];
        const ExactDrawable& d = *plan.drawables[own.drawable];
        block.back_until(s.cotangent.data(), own.ranks);
        RunInput run = run_input(plan, work, own.drawable, rays, depth);
        run.begin = own.begin, run.end = own.end, run.log = &work.log;
        s.sums.resize(std::max((size_t)d.stride, s.sums.size()));
        const RunBackInput back = {s.cotangent.data(), s.sums.data(), d.moments, d.stride, work.tile_x, work.tile_y, plan.footprints.data(),
                                   plan.slot_values.data() + d.slots_at, plan.footprints[d.first].slot};
        d.kind->run_back(run, back, block.behind);
    }
    block.back_until(s.cotangent.data(), 0);
}

// Calls body(chunk, scratch, logs) for every chunk of tiles in parallel. Table gradients are logged by chunk and added after every
// batch of chunks, so that the logs stay small; then sums the slots and carries them to the parameters.
template <class Body>
void exact_chunks_back(Plan& plan, const ExactOptions& options, const KindGradient* gradients, double* camera, const Body& body) {
    const int across = (plan.tiles_x + kChunkTiles - 1) / kChunkTiles, chunks = across * plan.tiles_y;
    const size_t drawables = plan.drawables.size();
    std::memset(plan.slot_values.resize(plan.slots_reals), 0, plan.slots_reals * sizeof(real));
    bool tables = false;
    for (const auto& d : plan.drawables) tables = tables || d->kind->table_tensors;
    // (Boxes say how many rows there will be; the same for any number of threads, as the batches are.)
    const long long rows_at_once = (1ll << 27) / (long long)(sizeof(TableLog::Row) + 4 * sizeof(real));
    const int fitting = plan.lookups ? (int)std::min(16ll, chunks * rows_at_once / plan.lookups) : 16;
    const int batch = tables ? std::max(fitting, 2) : chunks;
    std::vector<TableLog> logs = KeptLogs::take((tables ? std::min(batch, chunks) : 1) * drawables);
    for (size_t k = 0; k < logs.size(); k++) {
        const ExactDrawable& d = *plan.drawables[k % drawables];
        for (int t = 0; t < kKindTensors; t++) logs[k].start(t, d.in.sizes[t]);
    }
    std::vector<BackScratch> scratches(kMaxThreads);
    for (int from = 0; from < chunks; from += batch) {
        const int here = std::min(batch, chunks - from);
        parallel(here, [&](int item, int thread) {
            BackScratch& scratch = scratches[thread];
            if (!scratch.block) {
                scratch.block = std::make_unique<ExactBlock>(options);
                scratch.cotangent.resize(plan.view.channels + 1);
            }
            body(from + item, scratch, logs.data() + (tables ? item * drawables : 0));
        });
        if (!tables) continue;
        for (size_t j = 0; j < drawables; j++)
            for (int t = 0; t < kKindTensors; t++) {
                real* table = gradients[j].tensors[t];
                if (!table || !(plan.drawables[j]->kind->table_tensors >> t & 1)) continue;
                bool apart = true;
                for (int i = 0; i < here; i++) apart = apart && logs[i * drawables + j].local(t);
                for (int turn = 0; turn < (apart ? 3 : 1); turn++)
                    parallel(apart ? TableLog::kParts / 3 : 1, [&](int item, int) {
                        for (int part = apart ? 3 * item + turn : 0; part < (apart ? 3 * item + turn + 1 : TableLog::kParts); part++)
                            for (int i = 0; i < here; i++) logs[i * drawables + j].apply(t, part, table);
                    });
            }
        for (auto& log : logs) log.clear();
    }
    KeptLogs::give(std::move(logs));
    exact_finish(plan, gradients, camera);
}

// Calls body(tile_x, tile_y, block, rays) for every block of a chunk that lies in the picture and has primitives to try.
template <class Body>
void for_chunk_blocks(const Plan& plan, int chunk, TileWork& work, const Body& body) {
    const int across = (plan.tiles_x + kChunkTiles - 1) / kChunkTiles, tile_y = chunk / across, first = chunk % across * kChunkTiles;
    for (int tile_x = first; tile_x < std::min(first + kChunkTiles, plan.tiles_x); tile_x++) {
        work.start(plan, tile_x, tile_y);
        for (int b = 0; b < kBlocks; b++) {
            const BlockRays rays(plan, tile_x, tile_y, b);
            if (!rays.inside) continue;
            work.list(b);
            body(tile_x, tile_y, rays);
        }
    }
}

// Calls body(lane, pixel index) for the lanes of a block in the picture.
template <class Body>
SM_FN void for_block_pixels(const Plan& plan, const Rays& rays, const Body& body) {
    for (int k = 0; k < kLanes; k++) {
        const int x = (int)rays.x[k], y = (int)rays.y[k];
        if (x < plan.width && y < plan.height) body(k, (long long)y * plan.width + x);
    }
}

inline void exact_backward(Plan& plan, bool depth, const Background& background, const BackwardInput& in, const KindGradient* gradients, double* camera) {
    const int stride = plan.view.channels + (depth ? 1 : 0), across = (plan.tiles_x + kChunkTiles - 1) / kChunkTiles;
    const bool constant = in.background && !background.per_pixel;
    std::vector<double> background_sums(constant ? (size_t)across * plan.tiles_y * 3 : 0, 0.0);
    const ExactOptions options = exact_options(plan, depth, true, false);
    exact_chunks_back(plan, options, gradients, camera, [&](int chunk, BackScratch& s, TableLog* logs) {
        double background_sum[3] = {0, 0, 0};
        for_chunk_blocks(plan, chunk, s.work, [&](int tile_x, int tile_y, const BlockRays& rays) {
            F behind = F{};
            for (auto& c : s.cotangent) c = F{};
            bool felt = false;
            for_block_pixels(plan, rays.rays, [&](int k, long long pixel) {
                real after = in.alpha ? -in.alpha[pixel] : real(0);
                felt = felt || after != 0;
                if (in.picture) {
                    const real* v = in.picture + pixel * stride;
                    for (int c = 0; c < stride; c++) s.cotangent[c][k] = v[c], felt = felt || v[c] != 0;
                    if (background.values) {
                        const real* colour = background.values + (background.per_pixel ? 3 * pixel : 0);
                        for (int c = 0; c < 3; c++) after += v[c] * colour[c];
                    }
                    if (in.background)
                        for (int c = 0; c < 3; c++) {
                            if (constant)
                                background_sum[c] += double(plan.final_T[pixel]) * v[c];
                            else
                                in.background[3 * pixel + c] = plan.final_T[pixel] * v[c];
                        }
                }
                behind[k] = after;
            });
            if (!felt || s.work.listed.empty()) return;
            s.block->weighs = true;
            composite_block(plan, s.work, rays, *s.block, options, true);
            exact_sweep_back(plan, s, rays.rays, behind, depth);
            exact_block_back(plan, s, rays.rays, tile_x, tile_y, logs);
        });
        if (constant)
            for (int c = 0; c < 3; c++) background_sums[(size_t)chunk * 3 + c] = background_sum[c];
    });
    if (constant)
        for (int c = 0; c < 3; c++) {
            double sum = 0;
            for (size_t k = c; k < background_sums.size(); k += 3) sum += background_sums[k];
            in.background[c] = (real)sum;
        }
}

}  // namespace smalti
