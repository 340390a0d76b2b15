// Kind `surfel`: flat Gaussian disks hit by the ray (Huang et al. 2024, 2DGS, without its screen-space filter); docs/kinds.md section 2.
//
// With r1, r2, n the rotation's columns in camera axes, the ray z d meets the plane at z = n.q / n.d (q the mean there), and
// a = r1.(z d - q) / s1 is d.(r1 (n.q) - n (r1.q)) / (s1 n.d): a, b and z are ratios of forms that are linear in the pixel.
#pragma once
#ifndef SMALTI_CUDA
#include "outline_cpu.h"
#endif
#include "splat_colour.h"
#include "splat_pose.h"

namespace smalti {

struct SurfelKind {
    struct Record {
        Outline outline;
        real x, y;                          // reference pixel, dx, dy = pixel - (x, y)
        real a1, a2, a3, b1, b2, b3;        // a = (a1 dx + a2 dy + a3) / below, b likewise,
        real w1, w2, w3, z;                 // z = z / below, below = w1 dx + w2 dy + w3
        real lo, near_plane, nearest, farthest;
        real normal[3];                     // world axes, towards the camera
        int smooth, absolute;
    };
    static constexpr bool kConstantChannels = true;
    static constexpr int kTableTensors = 0;
    static constexpr bool kRuns = true;

    // Sums: of (g_a, g_b, -(a g_a + b g_b + z g_z)) times (a, b, 1), of d loss / d ln(response), then what view.absolute asks for.
    static constexpr int kLog = 9, kAbsolute = 10;
    SM_FN static int moments(const KindInput&, const ViewOptions& view) { return kAbsolute + (view.absolute ? 2 : 0); }

    struct Geometry {
        SplatPose pose;
        double scale[2];
        double columns[9];    // r1, r2, n
        double mean_at[3];    // r1.q, r2.q, n.q
        double forms[9];      // rows: r1 (n.q) - n (r1.q) over s1, r2 likewise over s2, n
        double facing;        // sign that turns the third axis towards the camera
    };

    SM_FN static bool geometry(const KindInput& in, const CameraValues& cam, int k, Geometry& g) {
        if (!splat_pose(in, cam, k, g.pose)) return false;
        for (int j = 0; j < 2; j++) {
            g.scale[j] = in.tensors[kScales][2 * (long long)k + j];
            if (!(g.scale[j] > 0) || !is_finite(g.scale[j])) return false;
        }
        for (int j = 0; j < 3; j++) {
            for (int c = 0; c < 3; c++) g.columns[3 * j + c] = g.pose.axes[3 * c + j];
            g.mean_at[j] = wide_dot(g.columns + 3 * j, g.pose.q);
        }
        for (int c = 0; c < 3; c++) {
            const double n = g.columns[6 + c];
            for (int j = 0; j < 2; j++) g.forms[3 * j + c] = (g.columns[3 * j + c] * g.mean_at[2] - n * g.mean_at[j]) / g.scale[j];
            g.forms[6 + c] = n;
        }
        g.facing = g.mean_at[2] > 0 ? -1 : 1;
        return true;
    }

    SM_FN static void project(const KindInput& in, const CameraValues& cam, const ViewOptions& view, int k, Record& r, Bounds& b, real* values) {
        Geometry g;
        const double opacity = in.tensors[kOpacities][k];
        r.smooth = view.smooth, r.absolute = view.absolute;
        b.usable = geometry(in, cam, k, g) && is_finite(opacity) && splat_colour(in, cam, view, k, values);
        b.drawn = false;
        if (!b.usable) return;
        const double* q = g.pose.q;
        b.depth = real(q[2]);
        if (!(opacity * 255 >= 1)) return;
        double factor[9];
        for (int c = 0; c < 3; c++) factor[3 * c] = g.columns[c] * g.scale[0], factor[3 * c + 1] = g.columns[3 + c] * g.scale[1], factor[3 * c + 2] = 0;
        splat_outline(q, factor, wide_sqrt(2 * kLn2 * wide_log2(opacity * 255) + 1e-5), cam, b, r.outline, r.farthest);
        if (!b.drawn) return;
        // Reference: the projected mean, where a and b vanish, or the picture's centre if that is behind or far outside.
        double x = real(0.5) * cam.width, y = real(0.5) * cam.height;
        if (q[2] > 0) {
            const double px = cam.cx + cam.fx * (q[0] / q[2]), py = cam.cy + cam.fy * (q[1] / q[2]), margin = 8.0 * (cam.width + cam.height);
            if (wide_abs(px) < margin && wide_abs(py) < margin) x = real(px), y = real(py);
        }
        const double u = (x - cam.cx) / cam.fx, v = (y - cam.cy) / cam.fy;
        double forms[9], below = 0;
        for (int i = 0; i < 3; i++) {
            const double* row = g.forms + 3 * i;
            forms[3 * i] = row[0] / cam.fx, forms[3 * i + 1] = row[1] / cam.fy, forms[3 * i + 2] = row[0] * u + row[1] * v + row[2];
        }
        // Over the largest value that the denominator takes, so that nothing over- or underflows.
        below = wide_abs(forms[8]);
        below = wide_max(below, wide_max(wide_abs(forms[6]) * cam.width, wide_abs(forms[7]) * cam.height));
        const double inverse = (g.mean_at[2] < 0 ? -1 : 1) / below;  // below > 0 in front of the camera
        r.x = real(x), r.y = real(y);
        r.a1 = real(forms[0] * inverse), r.a2 = real(forms[1] * inverse), r.a3 = real(forms[2] * inverse);
        r.b1 = real(forms[3] * inverse), r.b2 = real(forms[4] * inverse), r.b3 = real(forms[5] * inverse);
        r.w1 = real(forms[6] * inverse), r.w2 = real(forms[7] * inverse), r.w3 = real(forms[8] * inverse);
        r.z = real(g.mean_at[2] * inverse);
        r.lo = real(wide_log2(opacity));
        r.near_plane = cam.near_plane, r.nearest = b.nearest;
        for (int c = 0; c < 3; c++) r.normal[c] = real(g.facing * g.pose.local[3 * c + 2]);
        // Seen exactly edge-on there is nothing to see.
        if (r.z == 0) {
            b.drawn = false;
            return;
        }
        double sum = 0;
        const real numbers[] = {r.a1, r.a2, r.a3, r.b1, r.b2, r.b3, r.w1, r.w2, r.w3, r.z, r.lo};
        for (int j = 0; j < 11; j++) sum += wide_abs(numbers[j]);
        b.usable = is_finite(sum);
        b.drawn = b.usable;
        if (b.drawn && view.normals)
            for (int c = 0; c < 3; c++) values[view.normals + c] = r.normal[c];
    }

    SM_FN static bool touches(const Record& r, real x0, real y0, real x1, real y1) { return outline_touches(r.outline, x0, y0, x1, y1); }
#ifndef SMALTI_CUDA
    SM_FN static BlockMask blocks(const Record& r, int x0, int y0) { return outline_blocks(r.outline, x0, y0); }
#endif

    struct Hit {
        F a, b, z, inverse;  // inverse: 1 / below
        F clamped, alpha, slope;
        M hit;
    };

    SM_FN static Hit meet(const Record& r, const Rays& rays) {
        Hit e;
        const F dx = rays.x - splat(r.x), dy = rays.y - splat(r.y);
        const F below = fma(splat(r.w1), dx, fma(splat(r.w2), dy, splat(r.w3)));
        const M front = gt(below, splat(real(1e-30)));
        e.inverse = recip(select(front, below, splat(1)));
        e.a = fma(splat(r.a1), dx, fma(splat(r.a2), dy, splat(r.a3))) * e.inverse;
        e.b = fma(splat(r.b1), dx, fma(splat(r.b2), dy, splat(r.b3))) * e.inverse;
        e.z = splat(r.z) * e.inverse;
        const F half = splat(-kHalfLog2e), t = fma(half * e.a, e.a, fma(half * e.b, e.b, splat(r.lo)));
        e.hit = r.smooth ? gaussian_event<true>(t, e.alpha, e.slope) : gaussian_event<false>(t, e.alpha, e.slope);
        e.hit = both(both(e.hit, front), ge(e.z, splat(r.near_plane)));
        e.alpha = zero_unless(e.hit, e.alpha);
        e.slope = zero_unless(e.hit, e.slope);
        // Beyond the horizon the plane is farther than all.
        e.clamped = min_of(max_of(select(front, e.z, splat(r.farthest)), splat(r.nearest)), splat(r.farthest));
        return e;
    }

    template <class Sink>
    SM_FN static void emit(const KindInput&, const CameraValues&, const Record& r, int, const Rays& rays, Sink& sink) {
        const Hit e = meet(r, rays);
        if (!any(e.hit)) return;
        sink.thin(e.clamped, e.alpha, nullptr);
        if (!sink.wants_local) return;
        const F local[3] = {e.a, e.b, splat(0)}, normal[3] = {splat(r.normal[0]), splat(r.normal[1]), splat(r.normal[2])};
        sink.local(local, normal);
    }

    template <class Back>
    SM_FN static void emit_back(const KindInput&, const CameraValues&, const Record& r, int, const Rays& rays, Back& back, F* sums) {
        const Hit e = meet(r, rays);
        if (!any(e.hit)) return;
        const EventGradient& g = back.next();
        const F log_gradient = g.value * e.slope;
        const F a = zero_unless(e.hit, e.a), b = zero_unless(e.hit, e.b);
        F ga = log_gradient * a, gb = log_gradient * b;  // minus d loss / d a, d loss / d b
        if (g.local) ga = ga - zero_unless(e.hit, g.local[0]), gb = gb - zero_unless(e.hit, g.local[1]);
        const F gz = fma(zero_unless(e.hit, g.z0), zero_unless(e.hit, e.z), -fma(ga, a, gb * b));
        sums[0] = fma(ga, a, sums[0]), sums[1] = fma(ga, b, sums[1]), sums[2] += ga;
        sums[3] = fma(gb, a, sums[3]), sums[4] = fma(gb, b, sums[4]), sums[5] += gb;
        sums[6] = fma(gz, a, sums[6]), sums[7] = fma(gz, b, sums[7]), sums[8] += gz;
        sums[kLog] += log_gradient;
        if (!r.absolute) return;
        const F in_x = fma(a, fnma(a, splat(r.w1), splat(r.a1)), b * fnma(b, splat(r.w1), splat(r.b1)));
        const F in_y = fma(a, fnma(a, splat(r.w2), splat(r.a2)), b * fnma(b, splat(r.w2), splat(r.b2)));
        const F scale = log_gradient * e.inverse;
        sums[kAbsolute] += abs_of(scale * in_x);
        sums[kAbsolute + 1] += abs_of(scale * in_y);
    }

    SM_FN static void finish(const KindInput& in, const CameraValues& cam, const ViewOptions& view, int k, const Record&, const real* sums,
                             const real* values_gradient, const KindGradient& out, double* camera) {
        Geometry g;
        geometry(in, cam, k, g);
        // x - q = a s1 r1 + b s2 r2 turns sums over pixels into moments of (a, b, 1); `ahead`: those of d loss / d ln(z) with the
        // local coordinates following the plane.
        const double *r1 = g.columns, *r2 = g.columns + 3, *n3 = g.columns + 6, s1 = g.scale[0], s2 = g.scale[1], inverse = 1 / g.mean_at[2];
        double ahead[3], dq[3], daxes[9], dlocal[9], tau[9];
        for (int j = 0; j < 3; j++) ahead[j] = (sums[6 + j] - sums[j] * (g.mean_at[0] / s1) - sums[3 + j] * (g.mean_at[1] / s2)) * inverse;
        for (int c = 0; c < 3; c++) {
            const double e1 = s1 * r1[c], e2 = s2 * r2[c];
            daxes[3 * c] = -(sums[0] * e1 + sums[1] * e2) / s1;
            daxes[3 * c + 1] = -(sums[3] * e1 + sums[4] * e2) / s2;
            daxes[3 * c + 2] = -(ahead[0] * e1 + ahead[1] * e2);
            dq[c] = ahead[2] * n3[c] + sums[2] * r1[c] / s1 + sums[5] * r2[c] / s2;
            dlocal[3 * c] = dlocal[3 * c + 1] = 0;
            dlocal[3 * c + 2] = view.normals ? g.facing * values_gradient[view.normals + c] : 0;
            for (int i = 0; i < 3; i++) {  // rays (1 + tau) d
                const double x = g.pose.q[c];
                tau[3 * i + c] = -r1[i] / s1 * (sums[2] * x + sums[0] * e1 + sums[1] * e2) - r2[i] / s2 * (sums[5] * x + sums[3] * e1 + sums[4] * e2) -
                                 n3[i] * (ahead[2] * x + ahead[0] * e1 + ahead[1] * e2);
            }
        }
        PoseGradient pose = {};
        splat_pose_vjp(g.pose, cam, dq, daxes, dlocal, pose, camera);
        if (camera) ray_map_vjp(cam, tau, camera);
        splat_colour_vjp(in, cam, k, values_gradient, pose, out, camera);
        write_pose_gradient(pose, k, out);
        const long long n = k;
        for (int j = 0; j < 2 && out.tensors[kScales]; j++) out.tensors[kScales][2 * n + j] = real(sums[4 * j] / g.scale[j]);
        if (out.tensors[kOpacities]) out.tensors[kOpacities][n] = sums[kLog] / in.tensors[kOpacities][k];
        if (out.screen) out.screen[2 * n] = real(-tau[2] / cam.fx), out.screen[2 * n + 1] = real(-tau[5] / cam.fy);
        if (out.absolute)
            for (int j = 0; j < 2; j++) out.absolute[2 * n + j] = sums[kAbsolute + j];
    }
};

}  // namespace smalti
