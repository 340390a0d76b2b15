// Kind `gaussian` for the CUDA compositor: projection, one thread per primitive; its event at a pixel; and the way back.
#pragma once
#include "../composite_cuda.h"
#include "gaussian.h"

namespace smalti {

template <bool smooth, bool absolute>
struct GaussianKind {
    typedef GaussianScreen Screen;
    static constexpr int kMoments = kGaussianMoments + (absolute ? 2 : 0);

    struct Event {
        F slope, u, w;
    };

    static SM_FN M event(const Screen& s, F x, F y, Event& e, F& alpha) {
        const F dx = x - s.mx, dy = y - s.my;
        e.u = fma(s.l11, dx, s.l21 * dy);
        e.w = s.l22 * dy;
        const F t = fnma(e.u, e.u, fnma(e.w, e.w, s.lo));
        return gaussian_event<smooth>(t, alpha, e.slope);
    }

    static SM_FN void moments(const Screen& s, const Event& e, F gradient, F* sums) {
        const F local = gradient * e.slope;
        gaussian_moments(local, e.u, e.w, sums);
        if (absolute) {
            sums[6] += abs_of(local * e.u);
            sums[kMoments - 1] += abs_of(local * fma(s.l21, e.u, s.l22 * e.w));
        }
    }

    // Tiles of one row of the rectangle that the ellipse alpha >= 1/255 reaches.
    static SM_FN TileSpan tile_span(const Screen& s, const TileRect& rect, int row) {
        const real low = row * kTile + real(0.5) - s.my, shift = s.mx - real(0.5), tile = real(1) / kTile;
        const GaussianReach<real> reach = gaussian_reach<real>(s, low, low + (kTile - 1));
        // First pixel reached, rounded up (0.99), and last, rounded down; then whole tiles inside the rectangle.
        const real first = max_of((reach.left + shift + real(0.99)) * tile, real(rect.x0));
        const real last = min_of((reach.right + shift) * tile + 1, real(rect.x1));
        if (!(first < rect.x1 && last > rect.x0)) return {0, 0};
        TileSpan span = {(short)first, (short)last};
        if (span.x0 >= span.x1) span = {0, 0};
        return span;
    }
};

// ------------------------------------------------------------------ parameters
struct GaussianProjectParameters {
    GaussianInput input;
    CameraValues camera;
    int first, tiles_x, tiles_y, channels;  // row of the drawable's first primitive
    char* records;                          // [n] KindList::Record
    int record_bytes;
    TileRect* rects;                        // [n]
    real *values, *depths, *radii;          // [n, channels] [n] [n]
    int *counts, *skipped;                  // [n] tiles; [1] added to
};

struct GaussianBackwardParameters {
    GaussianInput input;
    CameraValues camera;
    int first, channels, moments, stride, record_bytes;
    const char* records;
    const int *counts, *first_entry;        // [n]
    const real *rows, *slots;               // as TileBackwardParameters
    GaussianGradient output;                // rows of primitives that are not drawn are left as they are
    real* absolute;                         // [n, 2] or null
    double* camera_blocks;                  // [blocks, kCameraGradient] or null
};

// ------------------------------------------------------------------ projection
// Screen record, tiles and channels of one primitive; false where it is not drawn. `bad` where a number is not usable.
template <class Kind>
SM_FN bool gaussian_project_one(const GaussianProjectParameters& p, int id, TileRect& rect, int& count, real& radius, bool& bad) {
    const int row = p.first + id;
    GaussianProjection g;
    gaussian_project(p.input, p.camera, &id, g);
    p.depths[row] = g.z;
    bad = !g.usable;
    if (bad || !g.drawn) return false;
    // Generous by a hundredth of a pixel and the rounding of far-away centres; tile_span cuts it exactly.
    const real sx = real(0.01) + real(1e-6) * abs_of(g.mx), sy = real(0.01) + real(1e-6) * abs_of(g.my);
    const real left = (g.mx - g.reach_x - sx) / kTile, right = (g.mx + g.reach_x + sx) / kTile;
    const real top = (g.my - g.reach_y - sy) / kTile, bottom = (g.my + g.reach_y + sy) / kTile;
    if (right < 0 || bottom < 0 || left >= p.tiles_x || top >= p.tiles_y) return false;
    rect.x0 = (short)max_of(left, real(0));
    rect.y0 = (short)max_of(top, real(0));
    rect.x1 = (short)min_of(right + 1, real(p.tiles_x));
    rect.y1 = (short)min_of(bottom + 1, real(p.tiles_y));
    const GaussianScreen screen = {g.mx, g.my, g.l11, g.l21, g.l22, g.lo, g.inv_l11, g.y_right};
    count = 0;
    for (int y = rect.y0; y < rect.y1; y++) {
        const TileSpan span = Kind::tile_span(screen, rect, y);
        count += span.x1 - span.x0;
    }
    if (count == 0) return false;

    F dir[3], inv_length, basis[kShMax], color[3];
    gaussian_direction(p.input, p.camera, &id, dir, &inv_length);
    sh_basis(p.input.sh_degree, dir[0], dir[1], dir[2], basis);
    gaussian_colour(p.input, basis, &id, color);
    const F sum = (color[0] + color[1] + color[2]) * 0;
    bad = !(sum >= 0 && 0 >= sum);
    if (bad) return false;
    real* out = p.values + (long long)row * p.channels;
    for (int c = 0; c < 3; c++) out[c] = color[c] > 0 ? color[c] : 0;
    for (int c = 0; c < p.input.feature_count; c++) out[3 + c] = p.input.features[(long long)id * p.input.feature_count + c];
    if (p.input.with_depth) out[p.channels - 1] = g.z;
    *reinterpret_cast<GaussianScreen*>(p.records + (long long)row * p.record_bytes) = screen;
    radius = max_of(g.reach_x, g.reach_y);
    return true;
}

template <class Kind>
SM_FN void gaussian_project_all(const GaussianProjectParameters& p) {
    const long long id = global_thread();
    if (id >= p.input.count) return;
    TileRect rect = {0, 0, 0, 0};
    int count = 0;
    real radius = 0;
    bool bad = false;
    const bool drawn = gaussian_project_one<Kind>(p, (int)id, rect, count, radius, bad);
    if (bad) atomicAdd(p.skipped, 1);
    p.rects[p.first + id] = rect;
    p.counts[p.first + id] = drawn ? count : 0;
    p.radii[p.first + id] = drawn ? radius : 0;
}

// ------------------------------------------------------------------ the way back
SM_FN void gaussian_backward_one(const GaussianBackwardParameters& p, int id, F* camera) {
    const int row = p.first + id, entries = p.counts[row];
    const long long first_entry = p.slots ? p.first_entry[row] : 0;
    auto column = [&](int j) {
        if (!p.slots) return p.rows[(long long)row * p.stride + j];
        real sum = 0;
        for (int k = 0; k < entries; k++) sum += p.slots[(first_entry + k) * p.stride + j];
        return sum;
    };
    F moment[kGaussianMoments], color[3];
    for (int j = 0; j < kGaussianMoments; j++) moment[j] = column(j);
    for (int c = 0; c < 3; c++) color[c] = column(p.moments + c);
    GaussianVjp g;
    const F depth = p.input.with_depth ? column(p.moments + p.channels - 1) : real(0);
    gaussian_vjp_geometry(p.input, p.camera, &id, moment, depth, g, camera);
    gaussian_vjp_colour(p.input, p.camera, &id, color, g, camera, [&](int k, int c, F value) {
        if (p.output.sh_rest) scatter(p.output.sh_rest, &id, 1, 3 * p.input.sh_rest_count, 3 * k + c, value);
    });
    for (int c = 0; c < 3; c++) {
        scatter(p.output.means, &id, 1, 3, c, g.mean[c]);
        scatter(p.output.scales, &id, 1, 3, c, g.scale[c]);
        scatter(p.output.sh_dc, &id, 1, 3, c, g.dc[c]);
    }
    for (int c = 0; c < 4; c++) scatter(p.output.quaternions, &id, 1, 4, c, g.quaternion[c]);
    for (int c = 0; c < 2; c++) scatter(p.output.screen, &id, 1, 2, c, g.screen[c]);
    scatter(p.output.opacities, &id, 1, 1, 0, g.opacity);
    if (p.output.features)
        for (int c = 0; c < p.input.feature_count; c++)
            scatter(p.output.features, &id, 1, p.input.feature_count, c, column(p.moments + 3 + c));
    if (p.absolute) {
        const auto& s = *reinterpret_cast<const GaussianScreen*>(p.records + (long long)row * p.record_bytes);
        p.absolute[2 * (long long)row] = column(kGaussianMoments) * abs_of(s.l11) / kHalfLog2e;
        p.absolute[2 * (long long)row + 1] = column(kGaussianMoments + 1) / kHalfLog2e;
    }
}

// Blocks of 256 threads. The camera's gradient leaves one row of doubles per block, summed by the caller in index order.
SM_FN void gaussian_backward_all(const GaussianBackwardParameters& p) {
    __shared__ real partial[kWarps * kCameraGradient];
    const long long id = global_thread();
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    F camera[kCameraGradient];
    for (int k = 0; k < kCameraGradient; k++) camera[k] = 0;
    if (id < p.input.count && p.counts[p.first + id] > 0) gaussian_backward_one(p, (int)id, p.camera_blocks ? camera : nullptr);
    if (!p.camera_blocks) return;  // the same for all threads
    store_warp_sums<kCameraGradient>(camera, lane, partial + warp * kCameraGradient);
    __syncthreads();
    if (threadIdx.x >= kCameraGradient) return;
    double sum = 0;
    for (int w = 0; w < kWarps; w++) sum += partial[w * kCameraGradient + threadIdx.x];
    p.camera_blocks[(long long)blockIdx.x * kCameraGradient + threadIdx.x] = sum;
}

}  // namespace smalti

// Entry points of this kind; `Kinds` is the scene's list, whose first parameters do not matter to projection.
#define SMALTI_GAUSSIAN_KERNELS                                                                                       \
    SMALTI_KERNEL(gaussian_project, smalti::GaussianProjectParameters, 256,                                           \
                  (smalti::gaussian_project_all<smalti::GaussianKind<false, false>>(p)))                              \
    SMALTI_KERNEL(gaussian_backward, smalti::GaussianBackwardParameters, 256, (smalti::gaussian_backward_all(p)))
