// Kind `gaussian` (EWA) for the general compositor, beside other kinds: its event lies at its mean.
#pragma once
#include "gaussian.h"
#include "kind.h"
#ifndef SMALTI_CUDA
#include "gaussian_cpu.h"
#endif

namespace smalti {

struct GaussianExact {
    struct Record {
        GaussianScreen screen;
        real depth, left, top, right, bottom;
        int smooth, absolute;
    };
    static constexpr bool kConstantChannels = true;
    static constexpr int kTableTensors = 0;
    static constexpr bool kRuns = true, kAtKey = true;
    SM_FN static int moments(const KindInput&, const ViewOptions&) { return kGaussianMoments + 3; }

    SM_FN static GaussianInput gaussian(const KindInput& in) {
        return {in.tensors[0], in.tensors[1], in.tensors[2], in.tensors[3], in.tensors[4], in.tensors[5], in.tensors[6],
                in.count, in.integers[0], in.integers[1], in.integers[2], in.numbers[0], in.integers[3], 0};
    }

    // A primitive per lane: as many as there are lanes at once (kind.h).
    SM_FN static void project_lanes(const KindInput& in, const CameraValues& cam, const ViewOptions& view, const int* ids, int count, Record* records,
                                    Bounds* bounds, real* all_values) {
        const GaussianInput g = gaussian(in);
        GaussianProjection p;
        gaussian_project(g, cam, ids, p);
        bool some = false;
        for (int k = 0; k < count; k++) {
            Record& r = records[k];
            Bounds& b = bounds[k];
            b.usable = lane(p.usable, k);
            b.depth = b.nearest = at(p.z, k);
            b.drawn = lane(p.drawn, k);
            if (!b.drawn) continue;
            some = true;
            const real mx = at(p.mx, k), my = at(p.my, k);
            r.screen = {mx, my, at(p.l11, k), at(p.l21, k), at(p.l22, k), at(p.lo, k), at(p.inv_l11, k), at(p.y_right, k)};
            const real rx = at(p.reach_x, k) + real(0.01), ry = at(p.reach_y, k) + real(0.01);
            b.left = mx - rx, b.right = mx + rx, b.top = my - ry, b.bottom = my + ry;
            r.left = b.left, r.right = b.right, r.top = b.top, r.bottom = b.bottom;
            r.depth = b.depth;
            r.smooth = view.smooth, r.absolute = view.absolute;
        }
        if (!some) return;
        F direction[3], inv_length, basis[kShMax], colour[3];
        gaussian_direction(g, cam, ids, direction, &inv_length);
        sh_basis(g.sh_degree, direction[0], direction[1], direction[2], basis);
        gaussian_colour(g, basis, ids, colour);
        for (int k = 0; k < count; k++) {
            if (!bounds[k].drawn) continue;
            real sum = 0, *values = all_values + (long long)k * view.channels;
            for (int c = 0; c < view.channels; c++) values[c] = 0;
            for (int c = 0; c < 3; c++) {
                const real value = at(colour[c], k);
                sum += value * 0;
                values[c] = value > 0 ? value : 0;
            }
            if (!(sum == 0)) bounds[k].usable = bounds[k].drawn = false;
            for (int c = 0; c < g.feature_count; c++) values[3 + c] = g.features[(long long)ids[k] * g.feature_count + c];
        }
    }
    SM_FN static void project(const KindInput& in, const CameraValues& cam, const ViewOptions& view, int k, Record& r, Bounds& b, real* values) {
        int ids[kLanes];
        for (int j = 0; j < kLanes; j++) ids[j] = k;
        project_lanes(in, cam, view, ids, 1, &r, &b, values);
    }

    SM_FN static bool touches(const Record& r, real x0, real y0, real x1, real y1) {
        if (x1 < r.left || x0 > r.right || y1 < r.top || y0 > r.bottom) return false;
        // The least of u^2 + w^2 over the rectangle: inside, or on an edge.
        const GaussianScreen& s = r.screen;
        const real height = (s.lo + kLog2Of255) * real(1.00001) + real(1e-3);
        const real ax = x0 - s.mx, bx = x1 - s.mx, ay = y0 - s.my, by = y1 - s.my;
        if (ax <= 0 && bx >= 0 && ay <= 0 && by >= 0) return true;
        real least = real(1e30);
        for (int k = 0; k < 2; k++) {
            const real dy = k ? by : ay, w = s.l22 * dy;
            real dx = -s.l21 * dy * s.inv_l11;
            dx = dx < ax ? ax : dx > bx ? bx : dx;
            const real u = s.l11 * dx + s.l21 * dy, q = u * u + w * w;
            least = q < least ? q : least;
        }
        const real inverse = 1 / (s.l21 * s.l21 + s.l22 * s.l22);
        for (int k = 0; k < 2; k++) {
            const real dx = k ? bx : ax;
            real dy = -s.l21 * s.l11 * dx * inverse;
            dy = dy < ay ? ay : dy > by ? by : dy;
            const real u = s.l11 * dx + s.l21 * dy, w = s.l22 * dy, q = u * u + w * w;
            least = q < least ? q : least;
        }
        return least <= height;
    }

#ifndef SMALTI_CUDA
    static BlockMask blocks(const Record& r, int x0, int y0) { return GaussianKind<false, false>::blocks(r.screen, x0, y0); }
#endif

    SM_FN static M event(const Record& r, const Rays& rays, F& u, F& w, F& alpha, F& slope) {
        const GaussianScreen& s = r.screen;
        const F dx = rays.x - splat(s.mx), dy = rays.y - splat(s.my);
        u = fma(splat(s.l11), dx, splat(s.l21) * dy);
        w = splat(s.l22) * dy;
        const F t = fnma(u, u, fnma(w, w, splat(s.lo)));
        return r.smooth ? gaussian_event<true>(t, alpha, slope) : gaussian_event<false>(t, alpha, slope);
    }

    template <class Sink>
    SM_FN static void emit(const KindInput&, const CameraValues&, const Record& r, int, const Rays& rays, Sink& sink) {
        F u, w, alpha, slope;
        const M hit = event(r, rays, u, w, alpha, slope);
        if (!any(hit)) return;
        sink.thin(splat(r.depth), zero_unless(hit, alpha), nullptr);
        if (sink.wants_local) {
            const F local[3] = {u, w, splat(0)};
            sink.local(local, nullptr);
        }
    }

    template <class Back>
    SM_FN static void emit_back(const KindInput&, const CameraValues&, const Record& r, int, const Rays& rays, Back& back, F* sums) {
        F u, w, alpha, slope;
        const M hit = event(r, rays, u, w, alpha, slope);
        if (!any(hit)) return;
        const EventGradient& g = back.next();
        const F local = zero_unless(hit, g.value * slope);
        gaussian_moments(local, u, w, sums);
        sums[kGaussianMoments] += zero_unless(hit, g.z0);
        if (!r.absolute) return;
        sums[kGaussianMoments + 1] += abs_of(local * u);
        sums[kGaussianMoments + 2] += abs_of(local * fma(splat(r.screen.l21), u, splat(r.screen.l22) * w));
    }

    // `sums` [count, stride]: the moments, then the channels' gradients.
    SM_FN static void finish_lanes(const KindInput& in, const CameraValues& cam, const int* ids, int count, const Record* const* records,
                                   const real* sums, int stride, int moments, const KindGradient& out, double* camera) {
        const GaussianInput g = gaussian(in);
        F own[kGaussianMoments + 1], colour[3], camera_sum[kCameraGradient];
        for (int k = 0; k < kLanes; k++) {
            const real* row = sums + (long long)(k < count ? k : count - 1) * stride;
            for (int j = 0; j <= kGaussianMoments; j++) put(own[j], k, row[j]);
            for (int c = 0; c < 3; c++) put(colour[c], k, row[moments + c]);
        }
        for (int j = 0; j < kCameraGradient; j++) camera_sum[j] = splat(0);
        GaussianVjp v;
        F* camera_lanes = camera ? camera_sum : nullptr;
        gaussian_vjp_geometry(g, cam, ids, own, own[kGaussianMoments], v, camera_lanes);
        real* rest = out.tensors[5];
        gaussian_vjp_colour(g, cam, ids, colour, v, camera_lanes, [&](int term, int c, F value) {
            if (rest) scatter(rest, ids, count, 3 * g.sh_rest_count, 3 * term + c, value);
        });
        for (int c = 0; c < 4 && out.tensors[1]; c++) scatter(out.tensors[1], ids, count, 4, c, v.quaternion[c]);
        for (int c = 0; c < 3; c++) {
            if (out.tensors[0]) scatter(out.tensors[0], ids, count, 3, c, v.mean[c]);
            if (out.tensors[2]) scatter(out.tensors[2], ids, count, 3, c, v.scale[c]);
            if (out.tensors[4]) scatter(out.tensors[4], ids, count, 3, c, v.dc[c]);
        }
        if (out.tensors[3]) scatter(out.tensors[3], ids, count, 1, 0, v.opacity);
        for (int c = 0; c < 2 && out.screen; c++) scatter(out.screen, ids, count, 2, c, v.screen[c]);
        for (int k = 0; k < count; k++) {
            const long long n = ids[k];
            const real* row = sums + (long long)k * stride;
            if (out.absolute) {
                const real l11 = records[k]->screen.l11;
                out.absolute[2 * n] = row[kGaussianMoments + 1] * (l11 < 0 ? -l11 : l11) / kHalfLog2e;
                out.absolute[2 * n + 1] = row[kGaussianMoments + 2] / kHalfLog2e;
            }
            for (int c = 0; c < g.feature_count && out.tensors[6]; c++) out.tensors[6][n * g.feature_count + c] = row[moments + 3 + c];
            for (int j = 0; j < kCameraGradient && camera; j++) camera[j] += at(camera_sum[j], k);
        }
    }
    SM_FN static void finish(const KindInput& in, const CameraValues& cam, const ViewOptions&, int k, const Record& r, const real* sums,
                             const real* values_gradient, const KindGradient& out, double* camera) {
        int ids[kLanes];
        for (int j = 0; j < kLanes; j++) ids[j] = k;
        const Record* records[1] = {&r};
        finish_lanes(in, cam, ids, 1, records, sums, 0, (int)(values_gradient - sums), out, camera);
    }
};

}  // namespace smalti
