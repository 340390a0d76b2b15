// Kind `box`: oriented boxes with a voxel payload, marched on one grid of cells (Lombardi et al. 2021, Mixture of Volumetric
// Primitives). docs/kinds.md, section 4, is the specification.
//
// Where a ray is inside a box is a slab test per lane; which blocks ask at all is the tile lists' and `touches`' business. Nothing is
// bounded by a list's length: the boxes of a pixel are those whose lists the compositor walks.
#pragma once
#include "box_finish.h"
#include "box_walk.h"

namespace smalti {

// A sink may count lookups: lanes x cells that were inside a box (`long long lookups`); nothing is asked of those that do not.
template <class Sink>
SM_FN auto count_lookups(Sink& sink, LaneBits bits, int) -> decltype(sink.lookups += 1, void()) {
    for (; bits; bits &= bits - 1) sink.lookups += 1;
}
template <class Sink>
SM_FN void count_lookups(Sink&, LaneBits, long) {}

struct BoxKind {
    typedef BoxRecord Record;
    static constexpr bool kConstantChannels = false;
    static constexpr int kTableTensors = 1 << kBoxPayload | 1 << kBoxWarp;
    SM_FN static int moments(const KindInput&, const ViewOptions&) { return kBoxMoments; }

    SM_FN static void project(const KindInput& in, const CameraValues& cam, const ViewOptions& view, int k, Record& r, Bounds& b, real*) {
        box_project(in, cam, view, k, r, b);
    }

    SM_FN static bool touches(const Record& r, real x0, real y0, real x1, real y1) { return box_touches(r, x0, y0, x1, y1); }

    template <class Sink>
    SM_FN static void emit(const KindInput& in, const CameraValues& cam, const Record& record, int k, const Rays& rays, Sink& sink) {
        const BoxWalk w = box_walk(in, cam, record, rays);
        if (w.first > w.last) return;
        const BoxGrids g = box_grids(in, k);
        F channels[kBoxMostChannels];
        for (int c = 0; c < sink.channels; c++) channels[c] = splat(0);
        int before = -2;
        for (int n = w.first; n <= w.last; n++) {
            BoxCell c;
            const bool some = box_cell(in, cam, g, w, n, c);
            count_lookups(sink, c.inside, 0);
            if (!some) continue;
            for (int j = 0; j < 3; j++) channels[j] = zero_unless(c.hit, c.values[j]);
            sink.thick(cell_end(in, w, n), cell_end(in, w, n + 1), c.tau, channels, before == n - 1);
            before = n;
        }
    }

    template <class Back>
    SM_FN static void emit_back(const KindInput& in, const CameraValues& cam, const Record& record, int k, const Rays& rays, Back& back,
                                F* sums) {
        const BoxWalk w = box_walk(in, cam, record, rays);
        if (w.first > w.last) return;
        const BoxGrids g = box_grids(in, k);
        const long long payload_first = g.payload.values - in.tensors[kBoxPayload];
        const long long warp_first = g.warps ? g.warp.values - in.tensors[kBoxWarp] : 0;
        const F zero = splat(0), one = splat(1), step = splat(in.numbers[0]);
        // Sums over a ray's cells: of the slope d loss / d y, of t times it, and of what the ends of the cells feel.
        F slopes[3] = {zero, zero, zero}, t_slopes[3] = {zero, zero, zero}, ends = zero;
        for (int n = w.first; n <= w.last; n++) {
            BoxCell c;
            if (!box_cell(in, cam, g, w, n, c)) continue;
            const EventGradient& e = back.next();
            // Of all lanes: where one cell ends and the next begins, one of the two feels it for both.
            ends = fma(e.z0, cell_end(in, w, n), fma(e.z1, cell_end(in, w, n + 1), ends));
            const F tau_gradient = zero_unless(c.hit, e.value) * step;
            F gradient[4], felt = abs_of(tau_gradient);
            for (int j = 0; j < 3; j++) {
                gradient[j] = zero_unless(c.hit, e.channels[j]);
                felt = felt + abs_of(gradient[j]);
            }
            gradient[3] = tau_gradient * c.window;
            const LaneBits touched = bits_of(not_zero(felt));
            if (!touched) continue;
            F slope[3];
            voxel_slope<4>(g.payload, c.place, touched, gradient, slope);
            voxel_back<4>(g.payload, payload_first, c.place, touched, gradient, kBoxPayload, back);
            if (g.warps) {
                F warp_gradient[3];
                for (int j = 0; j < 3; j++) warp_gradient[j] = zero_unless(ge(one, abs_of(c.warped[j])), slope[j]);
                voxel_slope<3>(g.warp, c.warp_place, touched, warp_gradient, slope);
                voxel_back<3>(g.warp, warp_first, c.warp_place, touched, warp_gradient, kBoxWarp, back);
            }
            if (in.numbers[1] > 0) {
                const F log_gradient = tau_gradient * c.values[3] * c.window;
                for (int j = 0; j < 3; j++) slope[j] = fma(log_gradient, box_window_slope(in, c.y[j]), slope[j]);
            }
            for (int j = 0; j < 3; j++) {
                slopes[j] = slopes[j] + slope[j];
                t_slopes[j] = fma(c.t, slope[j], t_slopes[j]);
            }
        }
        // y is linear in t, so the moments y x slope need no sum of their own over the cells.
        F seen[3] = {zero, zero, zero};  // sum of z times d loss / d (position in camera axes)
        for (int j = 0; j < 3; j++) {
            sums[j] = sums[j] + slopes[j];
            for (int i = 0; i < 3; i++) sums[3 + 3 * i + j] = sums[3 + 3 * i + j] + fma(w.foot[i], slopes[j], w.along[i] * t_slopes[j]);
            const F far = fma(w.foot_distance, slopes[j], t_slopes[j]) * w.inv_length;
            for (int i = 0; i < 3; i++) seen[i] = fma(splat(record.inward[3 * j + i]), far, seen[i]);
        }
        // A sample is s d / |d| at a constant s; the ends of its cell are at n step / |d|.
        const F inv_dd = w.inv_length * w.inv_length;
        const F radial = (fma(seen[0], rays.u, fma(seen[1], rays.v, seen[2])) + ends) * inv_dd;
        const F du = fnma(radial, rays.u, seen[0]), dv = fnma(radial, rays.v, seen[1]);
        sums[12] = sums[12] + du;
        sums[13] = fma(du, rays.u, sums[13]);
        sums[14] = sums[14] + dv;
        sums[15] = fma(dv, rays.v, sums[15]);
    }

    SM_FN static void finish(const KindInput& in, const CameraValues& cam, const ViewOptions&, int k, const Record&, const real* sums,
                             const real*, const KindGradient& gradient, double* camera) {
        box_finish(in, cam, k, sums, gradient, camera);
    }
};

}  // namespace smalti
