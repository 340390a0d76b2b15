// Kind `gaussian_ray`: 3D Gaussians evaluated on the ray itself (docs/kinds.md section 2): largest response along the ray (Yu et al.
// 2024, Gaussian Opacity Fields; Moenne-Loccoz et al. 2024, 3DGRT) or closed line integral. One thin event, where the response peaks.
#pragma once
#include "../lane_math.h"
#include "ellipsoid.h"
#ifndef SMALTI_CUDA
#include "outline_cpu.h"
#endif
#include "splat_colour.h"

namespace smalti {

struct GaussianRayKind {
    struct Record {
        EllipsoidScreen screen;
        Outline outline;
        real lo;        // log2 of the opacity; `integral`: of the optical depth at q = 0 and unit |d|^2 inverse_area
        real near_plane, nearest, farthest;
        int smooth, integral, absolute;
    };
    static constexpr bool kConstantChannels = true;
    static constexpr int kTableTensors = 0;
    static constexpr bool kRuns = true;
    static constexpr int kResponse = kSplatIntegers;  // integer: 1 for `integral`
    static constexpr double kRootTau = 2.5066282746310002, kFaintest = 0.003929278139889564;  // sqrt(2 pi); -ln(1 - 1/255)

    // Sums: the ellipsoid's, d loss / d ln(response), the local offset's, then with `integral` d loss / d |d|^2 against u and v, and
    // with view.absolute the absolute gradient of the projected centre.
    static constexpr int kLog = kEllipsoidMoments, kLocal = kLog + 1, kLengths = kLocal + kEllipsoidLocalMoments;
    SM_FN static int absolute_at(bool integral) { return kLengths + (integral ? 4 : 0); }
    SM_FN static int moments(const KindInput& in, const ViewOptions& view) {
        return absolute_at(in.integers[kResponse]) + (view.absolute ? 2 : 0);
    }

    SM_FN static double largest(const double* s) { return wide_max(s[0], wide_max(s[1], s[2])); }

    // Squared Mahalanobis distance at which the response has fallen by the factor `over`, and a little.
    SM_FN static double reach2(double over) { return 2 * kLn2 * wide_log2(over) + 1e-5; }

    // No ray that meets the body of this radius has a larger |d| / (|w| max(scales)): the body is seen within an angle t of its mean's
    // direction e, and |M d| >= |M e| cos(t) - |M| sin(t) for unit d.
    SM_FN static double longest_chord(const EllipsoidGeometry& g, double radius) {
        const double *s = g.scale, *q = g.pose.q, longest = largest(s), shortest = wide_min(s[0], wide_min(s[1], s[2]));
        const double distance = wide_sqrt(wide_dot(q, q)), sine = radius * longest / distance;
        if (!(sine < 1)) return 1;
        const double least = wide_sqrt(wide_dot(g.p, g.p)) / distance * wide_sqrt(1 - sine * sine) - sine / shortest;
        return least * longest > 1 ? 1.0001 / (least * longest) : 1;
    }

    // Depths between which responses peak, narrower than the body: there y = M (x - mean) is across the ray's w = (y + p) / z, so it
    // lies on the sphere over the diameter from 0 to -p, and camera z is that of the mean plus a.y. Both ends a little to the outside.
    SM_FN static void peak_depths(const EllipsoidGeometry& g, double radius, real& nearest, real& farthest) {
        double a[3], along = 0, across = 0;
        const double distance = wide_sqrt(wide_dot(g.p, g.p)), z = g.pose.q[2];
        if (!(distance > 0)) return;
        for (int j = 0; j < 3; j++) a[j] = g.pose.axes[6 + j] * g.scale[j], along += a[j] * g.p[j] / distance;
        for (int j = 0; j < 3; j++) {
            const double rest = a[j] - along * g.p[j] / distance;
            across += rest * rest;
        }
        const double reach = radius * wide_sqrt(across), shift = -along * wide_min(radius, radius * radius / distance);
        const double low = z - reach + wide_min(shift, 0.0), high = z + reach + wide_max(shift, 0.0), slack = 2e-5 * (wide_abs(z) + reach);
        if (low - slack > nearest) nearest = real(low - slack);
        if (high + slack < farthest) farthest = real(high + slack);
    }

    SM_FN static void project(const KindInput& in, const CameraValues& cam, const ViewOptions& view, int k, Record& r, Bounds& b, real* values) {
        EllipsoidGeometry g;
        const double opacity = in.tensors[kOpacities][k];
        r.integral = in.integers[kResponse] != 0;
        r.smooth = view.smooth, r.absolute = view.absolute;
        b.usable = ellipsoid_geometry(in, cam, k, g) && is_finite(opacity) && splat_colour(in, cam, view, k, values);
        b.drawn = false;
        if (!b.usable) return;
        b.depth = real(g.pose.q[2]);
        double over = opacity * (r.integral ? kRootTau / kFaintest : 255.0);  // the response at q = 0 over the faintest drawn, at most
        if (r.integral && over > 1) over *= longest_chord(g, wide_sqrt(reach2(over)));
        if (!(over >= 1)) return;
        ellipsoid_bounds(g, wide_sqrt(reach2(over)), cam, b, r.outline, r.farthest);
        if (!b.drawn) return;
        peak_depths(g, wide_sqrt(reach2(over)), b.nearest, r.farthest);
        const double peak = r.integral ? opacity * kRootTau / (g.length * largest(g.scale)) : opacity;
        r.lo = real(wide_log2(peak));
        r.near_plane = cam.near_plane, r.nearest = b.nearest;
        b.usable = ellipsoid_screen(g, r.screen) && is_finite(r.lo);
        b.drawn = b.usable;
    }

    SM_FN static bool touches(const Record& r, real x0, real y0, real x1, real y1) { return outline_touches(r.outline, x0, y0, x1, y1); }
#ifndef SMALTI_CUDA
    SM_FN static BlockMask blocks(const Record& r, int x0, int y0) { return outline_blocks(r.outline, x0, y0); }
#endif

    struct Response {
        EllipsoidRay ray;
        F z, alpha, slope;  // slope: d alpha / d ln(response)
        F inverse_length2;  // 1 / |d|^2 (integral)
        M hit;
    };

    template <bool smooth, bool integral>
    SM_FN static Response respond(const Record& r, const Rays& rays) {
        Response e;
        e.ray = ellipsoid_ray(r.screen, rays.x, rays.y);
        const F t = fnma(e.ray.q, splat(kHalfLog2e), splat(r.lo));
        if (integral) {
            const F length2 = fma(rays.u, rays.u, fma(rays.v, rays.v, splat(1)));
            // exp2_of means nothing far out: there alpha is 0 or at its cap anyway.
            const F tau = exp2_of(min_of(max_of(t, splat(-100)), splat(60))) * sqrt_of(length2 * e.ray.inverse_area), left = exp_of(-tau);
            e.inverse_length2 = recip(length2);
            e.slope = tau * left;
            e.hit = splat_cut_off<smooth>(splat(1) - left, e.alpha, e.slope);
        } else {
            e.hit = gaussian_event<smooth>(t, e.alpha, e.slope);
            e.inverse_length2 = splat(0);
        }
        e.hit = both(e.hit, ge(e.ray.z, splat(r.near_plane)));
        e.alpha = zero_unless(e.hit, e.alpha);
        e.slope = zero_unless(e.hit, e.slope);
        e.z = min_of(max_of(e.ray.z, splat(r.nearest)), splat(r.farthest));
        return e;
    }

    SM_FN static Response respond(const Record& r, const Rays& rays) {
        if (r.smooth) return r.integral ? respond<true, true>(r, rays) : respond<true, false>(r, rays);
        return r.integral ? respond<false, true>(r, rays) : respond<false, false>(r, rays);
    }

    template <class Sink>
    SM_FN static void emit(const KindInput&, const CameraValues&, const Record& r, int, const Rays& rays, Sink& sink) {
        const Response e = respond(r, rays);
        if (!any(e.hit)) return;
        sink.thin(e.z, e.alpha, nullptr);
        if (!sink.wants_local) return;
        F y[3], local[3];
        ellipsoid_offset(r.screen, e.ray, y);
        ellipsoid_local(r.screen, y, local);
        sink.local(local, nullptr);
    }

    template <class Back>
    SM_FN static void emit_back(const KindInput&, const CameraValues&, const Record& r, int, const Rays& rays, Back& back, F* sums) {
        const Response e = respond(r, rays);
        if (!any(e.hit)) return;
        const EventGradient& g = back.next();
        const F log_gradient = g.value * e.slope, g_q = log_gradient * splat(real(-0.5));
        F g_z = zero_unless(e.hit, g.z0);
        if (g.local) {
            F local[3];
            for (int j = 0; j < 3; j++) local[j] = zero_unless(e.hit, g.local[j]);
            g_z = g_z + ellipsoid_moments_local(r.screen, e.ray, local, sums, sums + kLocal);
        }
        sums[kLog] += log_gradient;
        if (r.integral) {
            ellipsoid_moments<true>(r.screen, e.ray, g_q, g_z, g_q, sums);
            const F share = log_gradient * e.inverse_length2, along_u = share * rays.u, along_v = share * rays.v;
            sums[kLengths] += along_u;
            sums[kLengths + 1] += along_v;
            sums[kLengths + 2] = fma(along_u, rays.u, sums[kLengths + 2]);
            sums[kLengths + 3] = fma(along_v, rays.v, sums[kLengths + 3]);
        } else {
            ellipsoid_moments<false>(r.screen, e.ray, g_q, g_z, splat(0), sums);
        }
        if (!r.absolute) return;
        // d ln(response) / d pixel is -z y.w', and w' = (a11, 0, 0) |w0| and (a12, a22, 0) |w0|.
        const EllipsoidScreen& s = r.screen;
        F y[3];
        ellipsoid_offset(s, e.ray, y);
        const F scale = log_gradient * e.ray.z * splat(1 / s.inverse_length);
        const int first = absolute_at(r.integral);
        sums[first] += abs_of(scale * (splat(s.a11) * y[0]));
        sums[first + 1] += abs_of(scale * fma(splat(s.a12), y[0], splat(s.a22) * y[1]));
    }

    SM_FN static void finish(const KindInput& in, const CameraValues& cam, const ViewOptions&, int k, const Record& r, const real* sums,
                             const real* values_gradient, const KindGradient& out, double* camera) {
        EllipsoidGeometry g;
        ellipsoid_geometry(in, cam, k, g);
        EllipsoidGradient d = {};
        ellipsoid_vjp(g, sums, sums + kLocal, d);
        if (r.integral) {
            const int top = g.scale[0] >= g.scale[1] ? (g.scale[0] >= g.scale[2] ? 0 : 2) : g.scale[1] >= g.scale[2] ? 1 : 2;
            d.scale[top] -= sums[kLog] / g.scale[top];
            const real* l = sums + kLengths;
            d.tau[2] += l[0], d.tau[5] += l[1], d.tau[0] += l[2], d.tau[4] += l[3];
        }
        PoseGradient pose = {};
        splat_pose_vjp(g.pose, cam, d.q, d.axes, nullptr, pose, camera);
        if (camera) ray_map_vjp(cam, d.tau, camera);
        splat_colour_vjp(in, cam, k, values_gradient, pose, out, camera);
        write_pose_gradient(pose, k, out);
        const long long n = k;
        for (int j = 0; j < 3 && out.tensors[kScales]; j++) out.tensors[kScales][3 * n + j] = real(d.scale[j]);
        if (out.tensors[kOpacities]) out.tensors[kOpacities][n] = sums[kLog] / in.tensors[kOpacities][k];
        // The projected centre is moved by what the principal point is moved by.
        if (out.screen) out.screen[2 * n] = real(-d.tau[2] / cam.fx), out.screen[2 * n + 1] = real(-d.tau[5] / cam.fy);
        if (out.absolute)
            for (int j = 0; j < 2; j++) out.absolute[2 * n + j] = sums[absolute_at(r.integral) + j];
    }
};

}  // namespace smalti
