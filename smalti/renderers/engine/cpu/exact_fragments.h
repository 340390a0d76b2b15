// Events of every pixel in place of a picture, and their cotangents taken back.
#pragma once
#include "exact_back_stage.h"

namespace smalti {

// The `most` nearest events of every pixel; everything [h, w, most, ...], `primitive` -1 where there is none.
struct FragmentValues {
    int *primitive, *count;      // count [h, w]: all events that the ray met
    unsigned char* thick;
    real *z0, *z1, *value, *channels, *local, *normal;
    real* left;                  // [h, w] transmittance behind all events
};

inline void exact_fragments(Plan& plan, int most, const FragmentValues& out) {
    const int channels = plan.view.channels;
    const ExactOptions options = exact_options(plan, false, true, false);
    std::vector<BackScratch> scratches(kMaxThreads);
    const int across = (plan.tiles_x + kChunkTiles - 1) / kChunkTiles;
    parallel(across * plan.tiles_y, [&](int chunk, int thread) {
        BackScratch& s = scratches[thread];
        if (!s.block) s.block = std::make_unique<ExactBlock>(options);
        ExactBlock& block = *s.block;
        block.wants_local = true;
        for_chunk_blocks(plan, chunk, s.work, [&](int, int, const BlockRays& rays) {
            composite_block(plan, s.work, rays, block, options, false);
            long long pixels[kLanes];
            for (auto& pixel : pixels) pixel = -1;
            for_block_pixels(plan, rays.rays, [&](int k, long long pixel) {
                pixels[k] = pixel;
                out.count[pixel] = 0;
                out.left[pixel] = block.T[k];
                for (int j = 0; j < most; j++) out.primitive[pixel * most + j] = -1;
            });
            block.for_events([&](int k, int e) {
                const long long pixel = pixels[k];
                const int j = out.count[pixel]++;
                if (j >= most) return;
                const Event& event = block.event(e);
                const long long at = pixel * most + j;
                out.primitive[at] = event.id, out.thick[at] = event.thick != 0;
                out.z0[at] = event.z0[k], out.z1[at] = event.z1[k], out.value[at] = event.value[k];
                const F* local = block.locals(e);
                for (int c = 0; c < 3; c++) out.local[3 * at + c] = local[c][k], out.normal[3 * at + c] = local[3 + c][k];
                for (int c = 0; c < channels; c++) out.channels[channels * at + c] = block.channel_of(e, c)[k];
            });
        });
    });
}

// Takes back cotangents of z0, z1, value, channels and local; shapes as there, any may be null.
inline void exact_fragments_back(Plan& plan, int most, const FragmentValues& in, const KindGradient* gradients, double* camera) {
    const int channels = plan.view.channels;
    const ExactOptions options = exact_options(plan, false, true, false);
    exact_chunks_back(plan, options, gradients, camera, [&](int chunk, BackScratch& s, TableLog* logs) {
        ExactBlock& block = *s.block;
        for_chunk_blocks(plan, chunk, s.work, [&](int tile_x, int tile_y, const BlockRays& rays) {
            if (s.work.listed.empty()) return;
            composite_block(plan, s.work, rays, block, options, false);
            s.locals.assign(3 * (size_t)block.event_count(), F{});
            for (int e = 0; e < block.event_count(); e++) block.event(e).g_value = F{};
            long long pixels[kLanes];
            int counts[kLanes] = {};
            for_block_pixels(plan, rays.rays, [&](int k, long long pixel) { pixels[k] = pixel; });
            block.for_events([&](int k, int e) {
                const int j = counts[k]++;
                if (j >= most) return;
                const long long at = pixels[k] * most + j;
                Event& event = block.event(e);
                if (in.value) event.g_value[k] = in.value[at];
                if (in.z0) event.g_z0[k] = in.z0[at];
                if (in.z1) (event.thick ? event.g_z1 : event.g_z0)[k] += in.z1[at];
                if (in.channels)
                    for (int c = 0; c < channels; c++) block.channel_gradient(e)[c][k] = in.channels[channels * at + c];
                if (in.local)
                    for (int c = 0; c < 3; c++) s.locals[3 * (size_t)e + c][k] = in.local[3 * at + c];
            });
            exact_block_back(plan, s, rays.rays, tile_x, tile_y, logs, s.locals.data());
        });
    });
}

}  // namespace smalti
