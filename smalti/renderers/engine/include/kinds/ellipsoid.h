// Ellipsoids met by rays: what the kinds `gaussian_ray` and `neural` share (docs/kinds.md section 2).
//
// M maps offsets in camera axes to local offsets in units of the scales; p = M q_mean, w = M d for the ray z d, d = (u, v, 1).
//
// How to use it.
//   project:   EllipsoidGeometry g;  bounds.usable = ellipsoid_geometry(in, cam, k, g) && ellipsoid_screen(g, record.screen);
//              ellipsoid_bounds(g, radius, cam, bounds, record.outline, record.farthest);   // {|M (x - mean)| <= radius}
//   touches:   outline_touches(record.outline, x0, y0, x1, y1)
//   emit:      const EllipsoidRay e = ellipsoid_ray(record.screen, rays.x, rays.y);
//              e.z = B / A (camera z of the point nearest to the mean in the metric M), e.q = N / A (its squared distance, in sigmas),
//              e.inverse_area = |w0|^2 / A with |w0| = 1 / screen.inverse_length, so that |w| = |w0| / sqrt(inverse_area) and a body
//              |M x| <= 1 has the half chord h = screen.inverse_length sqrt((1 - q) inverse_area) in camera z.
//              e.t = (z - screen.z) |w0|: camera z in sigmas, from the record's reference.
//              ellipsoid_offset(record.screen, e, y) gives y = M (z d - q_mean) in the record's axes (ellipsoid_offset_at: at another
//              point of the ray); ellipsoid_local takes it to the local ones. There and in world units that point is scales * y.
//   emit_back: the event as a function of q, z and ln A per lane gives g_q, g_z, g_area (= A dL/dA); then
//              ellipsoid_moments<true>(record.screen, e, g_q, g_z, g_area, sums)   adds kEllipsoidMoments sums;
//              what depends on the local offset y directly goes through ellipsoid_moments_local (g_y in local axes), which needs
//              kEllipsoidLocalMoments further sums after them.
//   finish:    EllipsoidGradient d = {};  ellipsoid_vjp(g, sums, local sums or null, d);   // g recomputed with ellipsoid_geometry
//              add to d.scale, d.q (camera axes), d.axes (d loss / d (R rotation(quaternion)), row major) whatever else there is;
//              PoseGradient p = {};  splat_pose_vjp(g.pose, cam, d.q, d.axes, null, p, camera or null);
//              if (camera) ray_map_vjp(cam, d.tau, camera);
//              colour's share (splat_colour.h) is added to p; write_pose_gradient(p, k, out).
//   d.tau is d loss / d a linear map of all rays d -> (1 + tau) d: that is how intrinsics get theirs without further sums.
#pragma once
#include "splat_pose.h"

namespace smalti {

// The record's part: forms in dx, dy = pixel - (x, y), where (x, y) is the projected mean if that is at hand, else the
// picture's centre. Axes are turned so that w / |w0| = (F1, F2, a33), F1 = a11 dx + a12 dy + a13, F2 = a22 dy + a23, and
// w x p / |w0| = (n11 dx + n12 dy + n13) across[0..3) + (n22 dy + n23) across[3..6). Sums of squares of short forms: no cancellation.
struct EllipsoidScreen {
    real x, y;
    real n11, n12, n13, n22, n23;
    real a11, a12, a13, a22, a23, a33;
    real z, span, c1, c2;  // z of the nearest point on the ray through (x, y); z |w0|; see ellipsoid_ray
    real across[6];        // the two axes of w x p, in the record's
    real inverse_length;   // 1 / |w0|
    real turn[9];          // record from local axes
};

struct EllipsoidGeometry {
    SplatPose pose;
    double scale[3];
    double m[9];        // M: local row, camera column
    double p[3];        // M q_mean
    double x, y;        // reference pixel
    double wx[3], wy[3], w0[3];  // w = wx dx + wy dy + w0
    double length;      // |w0|
    double turn[9];     // rows: the record's axes in local axes
};

// False: a parameter is not a number, the quaternion is zero or a scale is not positive.
SM_FN bool ellipsoid_geometry(const KindInput& in, const CameraValues& cam, int k, EllipsoidGeometry& g) {
    if (!splat_pose(in, cam, k, g.pose)) return false;
    for (int j = 0; j < 3; j++) {
        g.scale[j] = in.tensors[kScales][3 * (long long)k + j];
        if (!(g.scale[j] > 0) || !is_finite(g.scale[j])) return false;
    }
    const double* q = g.pose.q;
    for (int a = 0; a < 3; a++)
        for (int c = 0; c < 3; c++) g.m[3 * a + c] = g.pose.axes[3 * c + a] / g.scale[a];
    for (int a = 0; a < 3; a++) g.p[a] = wide_dot(g.m + 3 * a, q);
    // The projected mean as the reference makes all forms vanish there; far outside of the picture it would only cost digits.
    // Rounded to what the record can hold, so that what the rounding takes away is in the forms' constants.
    g.x = real(0.5) * cam.width, g.y = real(0.5) * cam.height;
    if (q[2] > 0) {
        const double x = cam.cx + cam.fx * (q[0] / q[2]), y = cam.cy + cam.fy * (q[1] / q[2]), margin = 8.0 * (cam.width + cam.height);
        if (wide_abs(x) < margin && wide_abs(y) < margin) g.x = real(x), g.y = real(y);
    }
    const double u = (g.x - cam.cx) / cam.fx, v = (g.y - cam.cy) / cam.fy;
    for (int a = 0; a < 3; a++) {
        g.wx[a] = g.m[3 * a] / cam.fx;
        g.wy[a] = g.m[3 * a + 1] / cam.fy;
        g.w0[a] = g.m[3 * a] * u + g.m[3 * a + 1] * v + g.m[3 * a + 2];
    }
    g.length = wide_sqrt(wide_dot(g.w0, g.w0));
    double *e1 = g.turn, *e2 = g.turn + 3, *e3 = g.turn + 6;
    wide_cross(g.wx, g.wy, e3);
    const double n1 = 1 / wide_sqrt(wide_dot(g.wx, g.wx)), n3 = 1 / wide_sqrt(wide_dot(e3, e3));
    for (int a = 0; a < 3; a++) e1[a] = g.wx[a] * n1, e3[a] *= n3;
    wide_cross(e3, e1, e2);
    return true;
}

// False: something overflowed.
SM_FN bool ellipsoid_screen(const EllipsoidGeometry& g, EllipsoidScreen& s) {
    const double *e1 = g.turn, *e2 = g.turn + 3, *e3 = g.turn + 6, inverse = 1 / g.length;
    const double a13 = wide_dot(e1, g.w0) * inverse, a23 = wide_dot(e2, g.w0) * inverse;
    const double span = wide_dot(g.w0, g.p) * inverse;  // p along w0
    double v1[3], v2[3], v0[3], n1[3] = {0, 0, 0}, n2[3] = {0, 0, 0};
    // w x p = v1 dx + v2 dy + v0 lies in the plane across p: two coordinates, the first along v1.
    wide_cross(g.wx, g.p, v1);
    wide_cross(g.wy, g.p, v2);
    wide_cross(g.w0, g.p, v0);
    const double n11 = wide_sqrt(wide_dot(v1, v1)), second = wide_sqrt(wide_dot(v2, v2)), distance = wide_sqrt(wide_dot(g.p, g.p));
    if (n11 > 0 || second > 0) {
        double along[3];
        for (int a = 0; a < 3; a++) n1[a] = n11 > 0 ? v1[a] / n11 : v2[a] / second, along[a] = g.p[a] / distance;
        wide_cross(along, n1, n2);
    }
    const double n12 = wide_dot(n1, v2), n13 = wide_dot(n1, v0), n22 = wide_dot(n2, v2), n23 = wide_dot(n2, v0);
    const double p1 = wide_dot(e1, g.p) - span * a13, p2 = wide_dot(e2, g.p) - span * a23;  // of p less its part along w0
    s.x = real(g.x), s.y = real(g.y);
    s.n11 = real(n11 * inverse), s.n12 = real(n12 * inverse), s.n13 = real(n13 * inverse);
    s.n22 = real(n22 * inverse), s.n23 = real(n23 * inverse);
    s.a11 = real(wide_dot(e1, g.wx) * inverse), s.a12 = real(wide_dot(e1, g.wy) * inverse), s.a13 = real(a13);
    s.a22 = real(wide_dot(e2, g.wy) * inverse), s.a23 = real(a23), s.a33 = real(wide_dot(e3, g.w0) * inverse);
    s.z = real(span * inverse), s.span = real(span), s.inverse_length = real(inverse);
    s.c1 = real(p1 - span * a13), s.c2 = real(p2 - span * a23);
    for (int i = 0; i < 3; i++) s.across[i] = real(wide_dot(g.turn + 3 * i, n1)), s.across[3 + i] = real(wide_dot(g.turn + 3 * i, n2));
    // Large numbers mean scales that differ by more than any number of digits, or a body that is nothing next to its distance;
    // products of these must not overflow.
    const double slopes[] = {s.a11, s.a12, s.a13, s.a22, s.a23, s.a33}, lengths[] = {s.span, s.c1, s.c2};
    const double across[] = {s.n11, s.n12, s.n13, s.n22, s.n23, s.z, s.inverse_length};
    double sum = 0, steepest = 0, longest = 0;
    for (int j = 0; j < 6; j++) sum += wide_abs(slopes[j]), steepest = wide_max(steepest, wide_abs(slopes[j]));
    for (int j = 0; j < 3; j++) sum += wide_abs(lengths[j]), longest = wide_max(longest, wide_abs(lengths[j]));
    for (int j = 0; j < 7; j++) sum += wide_abs(across[j]);
    for (int j = 0; j < 9; j++) s.turn[j] = real(g.turn[j]), sum += wide_abs(g.turn[j]);
    return is_finite(sum) && steepest < 1e8 && longest < 1e12 && s.a33 != 0;
}

// Bounds and outline of the body {|M (x - mean)| <= radius}.
SM_FN void ellipsoid_bounds(const EllipsoidGeometry& g, double radius, const CameraValues& cam, Bounds& bounds, Outline& outline,
                            real& farthest) {
    double factor[9];
    for (int c = 0; c < 3; c++)
        for (int a = 0; a < 3; a++) factor[3 * c + a] = g.pose.axes[3 * c + a] * g.scale[a];
    splat_outline(g.pose.q, factor, radius, cam, bounds, outline, farthest);
}

// ------------------------------------------------------------------ a block of rays
struct EllipsoidRay {
    F f1, f2;        // w / |w0| = (f1, f2, a33)
    F n1, n2;        // w x p / |w0| along the two axes across p
    F inverse_area;  // |w0|^2 / A
    F q, z;          // N / A and B / A
    F t;             // (z - screen.z) |w0|
};

SM_FN EllipsoidRay ellipsoid_ray(const EllipsoidScreen& s, F x, F y) {
    EllipsoidRay e;
    const F dx = x - splat(s.x), dy = y - splat(s.y);
    e.n1 = fma(splat(s.n11), dx, fma(splat(s.n12), dy, splat(s.n13)));
    e.n2 = fma(splat(s.n22), dy, splat(s.n23));
    const F g1 = fma(splat(s.a11), dx, splat(s.a12) * dy), g2 = splat(s.a22) * dy;
    e.f1 = g1 + splat(s.a13);
    e.f2 = g2 + splat(s.a23);
    e.inverse_area = recip(fma(e.f1, e.f1, fma(e.f2, e.f2, splat(s.a33 * s.a33))));
    e.q = fma(e.n1, e.n1, e.n2 * e.n2) * e.inverse_area;
    // B - z0 A, z0 the reference's z: it vanishes with (g1, g2), so z's distance to z0 keeps its digits.
    const F span = splat(s.span), c1 = splat(s.c1), c2 = splat(s.c2);
    e.t = fma(g1, fnma(span, g1, c1), g2 * fnma(span, g2, c2)) * e.inverse_area;
    e.z = fma(e.t, splat(s.inverse_length), splat(s.z));
    return e;
}

// y = M (z d - q_mean) in the record's axes, as w x (w x p) / A: the difference itself would cancel in flat ellipsoids.
SM_FN void ellipsoid_offset(const EllipsoidScreen& s, const EllipsoidRay& e, F* y) {
    F v[3];
    for (int a = 0; a < 3; a++) v[a] = fma(splat(s.across[a]), e.n1, splat(s.across[3 + a]) * e.n2);
    const F f3 = splat(s.a33);
    y[0] = fnma(f3, v[1], e.f2 * v[2]) * e.inverse_area;
    y[1] = fnma(e.f1, v[2], f3 * v[0]) * e.inverse_area;
    y[2] = fnma(e.f2, v[0], e.f1 * v[1]) * e.inverse_area;
}

// The same at another point of the ray, z = screen.z + t inverse_length.
SM_FN void ellipsoid_offset_at(const EllipsoidScreen& s, const EllipsoidRay& e, F t, F* y) {
    const F step = t - e.t;
    ellipsoid_offset(s, e, y);
    y[0] = fma(step, e.f1, y[0]);
    y[1] = fma(step, e.f2, y[1]);
    y[2] = fma(step, splat(s.a33), y[2]);
}

// From the record's axes to the local ones.
SM_FN void ellipsoid_local(const EllipsoidScreen& s, const F* y, F* local) {
    for (int a = 0; a < 3; a++) local[a] = fma(splat(s.turn[a]), y[0], fma(splat(s.turn[3 + a]), y[1], splat(s.turn[6 + a]) * y[2]));
}

// ------------------------------------------------------------------ the way back
// A relative change e of M (M -> (1 + e) M) and a shift of the mean by M dm = b move
//   q by 2 y.(e y - b),   B/A by (-y.e w - w.e y + w.b) / A,   ln A by 2 w.e w / A;
// so all gradients are one symmetric matrix and one vector, summed over the pixels: 9 moments.
constexpr int kEllipsoidMoments = 9, kEllipsoidLocalMoments = 3;

// sums[0..3): half the diagonal, sums[3..6): entries 12, 13, 23, sums[6..9): minus the vector. `area`: whether g_area counts.
template <bool area>
SM_FN void ellipsoid_moments(const EllipsoidScreen& s, const EllipsoidRay& e, F g_q, F g_z, F g_area, F* sums) {
    F y[3], w[3] = {e.f1, e.f2, splat(s.a33)}, r[3];
    ellipsoid_offset(s, e, y);
    const F h = g_z * (e.inverse_area * splat(s.inverse_length));
    for (int a = 0; a < 3; a++) {
        const F gy = g_q * y[a];
        r[a] = fnma(h, w[a], gy);
        sums[6 + a] += r[a] + gy;
    }
    sums[0] = fma(y[0], r[0], sums[0]);
    sums[1] = fma(y[1], r[1], sums[1]);
    sums[2] = fma(y[2], r[2], sums[2]);
    sums[3] = fma(y[0], r[1], fma(y[1], r[0], sums[3]));
    sums[4] = fma(y[0], r[2], fma(y[2], r[0], sums[4]));
    sums[5] = fma(y[1], r[2], fma(y[2], r[1], sums[5]));
    if (area) {
        const F g = g_area * e.inverse_area;
        for (int a = 0; a < 3; a++) r[a] = g * w[a], sums[a] = fma(r[a], w[a], sums[a]);
        r[0] += r[0], r[1] += r[1];
        sums[3] = fma(r[0], w[1], sums[3]);
        sums[4] = fma(r[0], w[2], sums[4]);
        sums[5] = fma(r[1], w[2], sums[5]);
    }
}

// Gradient with respect to the local offset y (sigmas, local axes): adds to `sums` and to `local` [3]; returns what it adds to
// g_z, so call it before ellipsoid_moments.
SM_FN F ellipsoid_moments_local(const EllipsoidScreen& s, const EllipsoidRay& e, const F* g_local, F* sums, F* local) {
    F y[3], g[3], half = splat(real(0.5));
    ellipsoid_offset(s, e, y);
    for (int a = 0; a < 3; a++) {
        const real* row = s.turn + 3 * a;
        g[a] = fma(splat(row[0]), g_local[0], fma(splat(row[1]), g_local[1], splat(row[2]) * g_local[2]));
        sums[a] = fma(half * g[a], y[a], sums[a]);
        sums[6 + a] += g[a];
    }
    const int first[3] = {0, 0, 1}, second[3] = {1, 2, 2};
    for (int n = 0; n < 3; n++) {
        const F one = half * g[first[n]] * y[second[n]], other = half * g[second[n]] * y[first[n]];
        sums[3 + n] += one + other;
        local[n] += one - other;
    }
    return fma(g[0], e.f1, fma(g[1], e.f2, g[2] * splat(s.a33))) * splat(real(1) / s.inverse_length);
}

struct EllipsoidGradient {
    double q[3], axes[9], scale[3], tau[9];
};

// `sums` [kEllipsoidMoments], `local` [kEllipsoidLocalMoments] or null. Adds to `out`.
SM_FN void ellipsoid_vjp(const EllipsoidGeometry& g, const real* sums, const real* local, EllipsoidGradient& out) {
    double turned[9] = {2.0 * sums[0], sums[3], sums[4], sums[3], 2.0 * sums[1], sums[5], sums[4], sums[5], 2.0 * sums[2]};
    if (local) {
        turned[1] += local[0], turned[2] += local[1], turned[5] += local[2];
        turned[3] -= local[0], turned[6] -= local[1], turned[7] -= local[2];
    }
    double relative[9], vector[3], gm[9], dq[3];
    for (int a = 0; a < 3; a++) {
        vector[a] = -(g.turn[a] * sums[6] + g.turn[3 + a] * sums[7] + g.turn[6 + a] * sums[8]);
        for (int b = 0; b < 3; b++) {
            double sum = 0;
            for (int i = 0; i < 3; i++)
                for (int j = 0; j < 3; j++) sum += g.turn[3 * i + a] * turned[3 * i + j] * g.turn[3 * j + b];
            relative[3 * a + b] = sum;
        }
    }
    const double* axes = g.pose.axes;
    for (int a = 0; a < 3; a++) {
        out.scale[a] -= relative[4 * a] / g.scale[a];
        for (int c = 0; c < 3; c++) {  // d loss / d M = relative M^-T
            double sum = 0;
            for (int b = 0; b < 3; b++) sum += relative[3 * a + b] * g.scale[b] * axes[3 * c + b];
            gm[3 * a + c] = sum;
            out.axes[3 * c + a] += sum / g.scale[a];
        }
    }
    for (int c = 0; c < 3; c++) {
        dq[c] = g.m[c] * vector[0] + g.m[3 + c] * vector[1] + g.m[6 + c] * vector[2];
        out.q[c] += dq[c];
    }
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++)
            out.tau[3 * i + j] += g.m[i] * gm[j] + g.m[3 + i] * gm[3 + j] + g.m[6 + i] * gm[6 + j] - dq[i] * g.pose.q[j];
}

}  // namespace smalti
