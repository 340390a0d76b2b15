// Kind `gaussian`: 3D Gaussians splatted as 2D ones (EWA: Zwicker et al. 2001; Kerbl et al. 2023). docs/gaussian-kind.md is
// the specification. This file holds the mathematics for any lane type; composing tiles out of it is the compositors' business.
#pragma once
#include "../camera.h"
#include "../spherical_harmonics.h"

namespace smalti {

struct GaussianInput {
    const real *means, *quaternions, *scales, *opacities;  // [n,3] [n,4] [n,3] [n]
    const real *sh_dc, *sh_rest, *features;                // [n,3] [n,k,3] or null, [n,f] or null
    int count, sh_rest_count, sh_degree, feature_count;
    real filter_variance;
    int compensated;
    int with_depth;  // append camera z to the channels
};

struct GaussianGradient {
    real *means, *quaternions, *scales, *opacities, *sh_dc, *sh_rest, *features;
    real *screen;  // [n,2] d loss / d projected centre, pixels
};

SM_FN int gaussian_channels(const GaussianInput& in) { return 3 + in.feature_count + (in.with_depth ? 1 : 0); }

// One projected Gaussian. With d = pixel - (mx, my): u = l11 dx + l21 dy, w = l22 dy, and log2(alpha) = lo - u^2 - w^2.
// The factor (rather than the conic) keeps the exponent non-negative and free of cancellation for long needles.
struct GaussianScreen {
    real mx, my, l11, l21, l22, lo;
    real inv_l11;  // 1 / l11
    real y_right;  // dy at which the ellipse alpha = 1/255 reaches furthest right (furthest left: -y_right)
};

// (1/2) log2(e): the scale of u^2 + w^2 over the Mahalanobis form; its square root scales the factor.
constexpr real kHalfLog2e = real(0.7213475204444817);
constexpr real kFactorScale = real(0.8493218002880191);

struct GaussianGeometry {
    F x, y, z, iz, xz, yz, u, v;
    M u_free, v_free;
    F q[4], inv_norm, rot[9], scale[3];
    F b1[3], b2[3], m1[3], m2[3];
    F a0, c0, b, d0, a, c, det;
    F opacity;  // after compensation
    F compensation;
    M usable;
};

SM_FN F dot3(const F* a, const F* b) { return fma(a[0], b[0], fma(a[1], b[1], a[2] * b[2])); }

SM_FN void gaussian_geometry(const GaussianInput& in, const CameraValues& cam, const int* id, GaussianGeometry& g) {
    const real* R = cam.rotation;
    const F zero = splat(0);
    F p[3], not_finite = zero;
    for (int k = 0; k < 3; k++) {
        p[k] = gather(in.means, id, 3, k);
        g.scale[k] = gather(in.scales, id, 3, k);
        not_finite = not_finite + p[k] * zero + g.scale[k] * zero;
    }
    F n2 = zero;
    for (int k = 0; k < 4; k++) {
        g.q[k] = gather(in.quaternions, id, 4, k);
        n2 = fma(g.q[k], g.q[k], n2);
    }
    F o = gather(in.opacities, id, 1, 0);
    not_finite = not_finite + n2 * zero + o * zero;
    for (int f = 0; f < in.feature_count; f++) not_finite = not_finite + gather(in.features, id, in.feature_count, f) * zero;
    g.x = fma(splat(R[0]), p[0], fma(splat(R[1]), p[1], fma(splat(R[2]), p[2], splat(cam.translation[0]))));
    g.y = fma(splat(R[3]), p[0], fma(splat(R[4]), p[1], fma(splat(R[5]), p[2], splat(cam.translation[1]))));
    g.z = fma(splat(R[6]), p[0], fma(splat(R[7]), p[1], fma(splat(R[8]), p[2], splat(cam.translation[2]))));
    g.iz = splat(1) / g.z;
    g.xz = g.x * g.iz;
    g.yz = g.y * g.iz;
    // The affine map is taken no further out than 0.3 half-tangents beyond the picture (3DGS): further out it explodes.
    const real margin_x = real(0.15) * cam.width, margin_y = real(0.15) * cam.height;
    const F u_low = splat((-cam.cx - margin_x) / cam.fx), u_high = splat((cam.width - cam.cx + margin_x) / cam.fx);
    const F v_low = splat((-cam.cy - margin_y) / cam.fy), v_high = splat((cam.height - cam.cy + margin_y) / cam.fy);
    g.u_free = both(ge(g.xz, u_low), ge(u_high, g.xz));
    g.v_free = both(ge(g.yz, v_low), ge(v_high, g.yz));
    g.u = min_of(max_of(g.xz, u_low), u_high);
    g.v = min_of(max_of(g.yz, v_low), v_high);

    M rotates = ge(n2, splat(real(1e-24)));
    g.inv_norm = splat(1) / sqrt_of(select(rotates, n2, splat(1)));
    for (int k = 0; k < 4; k++) g.q[k] = g.q[k] * g.inv_norm;
    F w = g.q[0], x = g.q[1], y = g.q[2], z = g.q[3], two = splat(2), one = splat(1);
    g.rot[0] = one - two * (y * y + z * z), g.rot[1] = two * (x * y - w * z), g.rot[2] = two * (x * z + w * y);
    g.rot[3] = two * (x * y + w * z), g.rot[4] = one - two * (x * x + z * z), g.rot[5] = two * (y * z - w * x);
    g.rot[6] = two * (x * z - w * y), g.rot[7] = two * (y * z + w * x), g.rot[8] = one - two * (x * x + y * y);

    F p1 = splat(cam.fx) * g.iz, p2 = splat(cam.fy) * g.iz;
    for (int j = 0; j < 3; j++) {
        g.b1[j] = p1 * fnma(g.u, splat(R[6 + j]), splat(R[j]));
        g.b2[j] = p2 * fnma(g.v, splat(R[6 + j]), splat(R[3 + j]));
    }
    for (int k = 0; k < 3; k++) {
        g.m1[k] = g.scale[k] * fma(g.b1[0], g.rot[k], fma(g.b1[1], g.rot[3 + k], g.b1[2] * g.rot[6 + k]));
        g.m2[k] = g.scale[k] * fma(g.b2[0], g.rot[k], fma(g.b2[1], g.rot[3 + k], g.b2[2] * g.rot[6 + k]));
    }
    g.a0 = dot3(g.m1, g.m1);
    g.c0 = dot3(g.m2, g.m2);
    g.b = dot3(g.m1, g.m2);
    F cross[3] = {g.m1[1] * g.m2[2] - g.m1[2] * g.m2[1], g.m1[2] * g.m2[0] - g.m1[0] * g.m2[2],
                  g.m1[0] * g.m2[1] - g.m1[1] * g.m2[0]};
    g.d0 = dot3(cross, cross);
    const F filter = splat(in.filter_variance);
    g.a = g.a0 + filter;
    g.c = g.c0 + filter;
    // A sum of non-negative terms: a c - b^2 would lose every digit of a long needle.
    g.det = g.d0 + filter * (g.a0 + g.c0) + filter * filter;
    g.compensation = in.compensated ? sqrt_of(g.d0 / g.det) : splat(1);
    g.opacity = o * g.compensation;
    M positive = both(both(gt(g.scale[0], zero), gt(g.scale[1], zero)), gt(g.scale[2], zero));
    // x * 0 is 0 for every finite x and NaN otherwise; NaN fails both comparisons.
    M finite = both(ge(not_finite, zero), ge(zero, not_finite));
    g.usable = both(both(finite, rotates), positive);
}

// Screen record and reach (half extents in pixels of the ellipse alpha = 1/255). `drawn` false: culled; `usable` false: skipped.
struct GaussianProjection {
    F mx, my, l11, l21, l22, lo, inv_l11, y_right, reach_x, reach_y, z;
    M usable, drawn;
};

SM_FN void gaussian_project(const GaussianInput& in, const CameraValues& cam, const int* id, GaussianProjection& out) {
    GaussianGeometry g;
    gaussian_geometry(in, cam, id, g);
    const F zero = splat(0), scale = splat(kFactorScale);
    out.z = g.z;
    out.mx = fma(splat(cam.fx), g.xz, splat(cam.cx));
    out.my = fma(splat(cam.fy), g.yz, splat(cam.cy));
    F root_c = sqrt_of(g.c), root_det = sqrt_of(g.det);
    out.l11 = scale * root_c / root_det;
    out.l21 = -(scale * g.b) / (root_c * root_det);
    out.l22 = scale / root_c;
    out.inv_l11 = splat(1) / out.l11;
    M opaque = ge(g.opacity, splat(real(1.0 / 255.0)));
    out.lo = log2_of(select(opaque, g.opacity, splat(1)));
    F height = out.lo + splat(kLog2Of255);
    F root_h = sqrt_of(max_of(height, zero)), root_a = sqrt_of(g.a);
    out.reach_x = root_h * root_a / scale;
    out.reach_y = root_h * root_c / scale;
    out.y_right = root_h * g.b / (root_a * scale);
    M near_enough = ge(g.z, splat(cam.near_plane));
    F sum = (out.l11 + out.l21 + out.inv_l11 + out.mx + out.my + out.reach_x + out.reach_y + out.y_right) * zero;
    M finite = both(ge(sum, zero), ge(zero, sum));
    // What is behind the camera is culled before its projection (meaningless there) is judged.
    out.usable = both(g.usable, either(finite, lt(g.z, splat(cam.near_plane))));
    out.drawn = both(both(g.usable, finite), both(near_enough, opaque));
}

// Colour before and after the clamp at zero, for the primitives `id`.
SM_FN void gaussian_direction(const GaussianInput& in, const CameraValues& cam, const int* id, F* dir, F* inv_length) {
    F p[3], v[3];
    const real *R = cam.rotation, *t = cam.translation;
    for (int k = 0; k < 3; k++) {
        p[k] = gather(in.means, id, 3, k);
        v[k] = p[k] + splat(R[k] * t[0] + R[3 + k] * t[1] + R[6 + k] * t[2]);  // minus the camera centre
    }
    F n2 = dot3(v, v);
    *inv_length = splat(1) / sqrt_of(select(gt(n2, splat(0)), n2, splat(1)));
    for (int k = 0; k < 3; k++) dir[k] = v[k] * *inv_length;
}

SM_FN void gaussian_colour(const GaussianInput& in, const F* basis, const int* id, F* colour) {
    const int terms = (in.sh_degree + 1) * (in.sh_degree + 1) - 1, stride = 3 * in.sh_rest_count;
    for (int c = 0; c < 3; c++) {
        F sum = fma(basis[0], gather(in.sh_dc, id, 3, c), splat(real(0.5)));
        for (int k = 0; k < terms; k++) sum = fma(basis[k + 1], gather(in.sh_rest, id, stride, 3 * k + c), sum);
        colour[c] = sum;
    }
}

// ------------------------------------------------------------------ where it reaches
// Horizontal reach of the ellipse alpha >= 1/255 within rows dy in [low, high] (relative to the centre), a little widened so that
// rounding never loses a pixel; empty ranges come back as right < left. V: any vector of reals.
template <class V>
struct GaussianReach {
    V left, right;
};

template <class V>
SM_FN GaussianReach<V> gaussian_reach(const GaussianScreen& s, V low, V high) {
    const real height = (s.lo + kLog2Of255) * real(1.00001) + real(1e-4);
    const V zero = V{}, y_max = zero + real_sqrt(height > 0 ? height : real(0)) / s.l22, y_right = zero + s.y_right;
    const V from = max_of(low, -y_max), to = min_of(high, y_max);
    const V at_right = min_of(max_of(y_right, from), to), at_left = min_of(max_of(-y_right, from), to);
    const V wr = s.l22 * at_right, wl = s.l22 * at_left;
    const V right = (sqrt_of(max_of(height - wr * wr, zero)) - s.l21 * at_right) * s.inv_l11;
    const V left = (-sqrt_of(max_of(height - wl * wl, zero)) - s.l21 * at_left) * s.inv_l11;
    const real slack = real(2e-3), share = real(1e-5);
    return {from > to ? zero + real(1e9) : left - slack - share * max_of(left, -left),
            from > to ? zero - real(1e9) : right + slack + share * max_of(right, -right)};
}

// ------------------------------------------------------------------ the event
// alpha from its log2 `t`; `slope` is d alpha / d ln(alpha before cap and cut-off). Returns where the event happens.
template <bool smooth>
SM_FN M gaussian_event(F t, F& alpha, F& slope) {
    const F cap = splat(real(0.99)), zero = splat(0), one = splat(1);
    F raw = exp2_of(t);
    M hit = ge(t, splat(-kLog2Of255));
    if (smooth) {
        F x = min_of(max_of(fma(splat(255), raw, splat(-1)), zero), one);
        F step = x * x * (splat(3) - x - x), rise = splat(255 * 6) * x * (one - x);
        F value = raw * step;
        slope = zero_unless(ge(cap, value), raw * fma(raw, rise, step));
        alpha = min_of(value, cap);
    } else {
        alpha = min_of(raw, cap);
        slope = zero_unless(ge(cap, raw), raw);
    }
    return hit;
}

// Moments of e = d loss / d ln(alpha) over (1, u, w, u^2, u w, w^2): all that the projection's derivative needs.
constexpr int kGaussianMoments = 6;

SM_FN void gaussian_moments(F e, F u, F w, F* sums) {
    F eu = e * u, ew = e * w;
    sums[0] += e;
    sums[1] += eu;
    sums[2] += ew;
    sums[3] = fma(eu, u, sums[3]);
    sums[4] = fma(eu, w, sums[4]);
    sums[5] = fma(ew, w, sums[5]);
}

// ------------------------------------------------------------------ derivative of projection and colour
// `moments` as above, `channels` d loss / d channel (colour 3, features f, depth 0/1), both summed over the picture.
// Writes the parameters' gradients and adds to camera[kCameraGradient] (lanes) unless null. `colour_free`: the clamp was not hit.
struct GaussianVjp {
    F mean[3], quaternion[4], scale[3], opacity, dc[3], screen[2];
};

SM_FN void gaussian_vjp_geometry(const GaussianInput& in, const CameraValues& cam, const int* id, const F* moments, F depth_gradient,
                                 GaussianVjp& out, F* camera) {
    GaussianGeometry g;
    gaussian_geometry(in, cam, id, g);
    const F scale = splat(kFactorScale), zero = splat(0), half = splat(real(0.5));
    F root_c = sqrt_of(g.c), root_det = sqrt_of(g.det);
    F l11 = scale * root_c / root_det, l21 = -(scale * g.b) / (root_c * root_det), l22 = scale / root_c;
    const F k2 = splat(1 / kHalfLog2e), k4 = splat(real(0.5) / (kHalfLog2e * kHalfLog2e));
    F gmx = k2 * l11 * moments[1], gmy = k2 * (l21 * moments[1] + l22 * moments[2]);
    out.screen[0] = gmx;
    out.screen[1] = gmy;
    F axx = k4 * l11 * l11 * moments[3];
    F axy = k4 * l11 * fma(l21, moments[3], l22 * moments[4]);
    F ayy = k4 * (l21 * l21 * moments[3] + splat(2) * l21 * l22 * moments[4] + l22 * l22 * moments[5]);
    out.opacity = moments[0] / g.opacity * g.compensation;
    // Felt by no ray: zeros, also where the ellipse has no area, so that its derivatives are out of range.
    F size = zero;
    for (int k = 0; k < kGaussianMoments; k++) size = size + max_of(moments[k], -moments[k]);
    const M felt = not_zero(size);
    if (in.compensated) {
        F s = half * moments[0], i0 = splat(1) / g.d0, i1 = splat(1) / g.det;
        axx += s * (g.c0 * i0 - g.c * i1);
        ayy += s * (g.a0 * i0 - g.a * i1);
        axy += s * g.b * (i1 - i0);
    }
    axx = zero_unless(felt, axx), axy = zero_unless(felt, axy), ayy = zero_unless(felt, ayy);
    gmx = zero_unless(felt, gmx), gmy = zero_unless(felt, gmy);
    out.screen[0] = gmx, out.screen[1] = gmy;
    F dm1[3], dm2[3], dv[9], db1[3] = {zero, zero, zero}, db2[3] = {zero, zero, zero}, drot[9];
    for (int k = 0; k < 3; k++) {
        dm1[k] = splat(2) * fma(axx, g.m1[k], axy * g.m2[k]);
        dm2[k] = splat(2) * fma(axy, g.m1[k], ayy * g.m2[k]);
    }
    for (int j = 0; j < 3; j++)
        for (int k = 0; k < 3; k++) {
            F column = g.rot[3 * j + k] * g.scale[k];
            dv[3 * j + k] = fma(g.b1[j], dm1[k], g.b2[j] * dm2[k]);
            drot[3 * j + k] = dv[3 * j + k] * g.scale[k];
            db1[j] = fma(dm1[k], column, db1[j]);
            db2[j] = fma(dm2[k], column, db2[j]);
        }
    for (int k = 0; k < 3; k++)
        out.scale[k] = fma(g.rot[k], dv[k], fma(g.rot[3 + k], dv[3 + k], g.rot[6 + k] * dv[6 + k]));
    F w = g.q[0], x = g.q[1], y = g.q[2], z = g.q[3], two = splat(2), dn[4];
    const F* r = drot;
    dn[0] = two * (x * (r[7] - r[5]) + y * (r[2] - r[6]) + z * (r[3] - r[1]));
    dn[1] = two * (y * (r[1] + r[3]) + z * (r[2] + r[6]) - two * x * (r[4] + r[8]) + w * (r[7] - r[5]));
    dn[2] = two * (x * (r[1] + r[3]) + w * (r[2] - r[6]) + z * (r[5] + r[7]) - two * y * (r[0] + r[8]));
    dn[3] = two * (w * (r[3] - r[1]) + x * (r[2] + r[6]) + y * (r[5] + r[7]) - two * z * (r[0] + r[4]));
    F along = w * dn[0] + x * dn[1] + y * dn[2] + z * dn[3];
    for (int k = 0; k < 4; k++) out.quaternion[k] = g.inv_norm * fnma(g.q[k], along, dn[k]);

    const real* R = cam.rotation;
    F R0[3], R1[3], R2[3];
    for (int j = 0; j < 3; j++) R0[j] = splat(R[j]), R1[j] = splat(R[3 + j]), R2[j] = splat(R[6 + j]);
    const F fx = splat(cam.fx), fy = splat(cam.fy);
    F p1 = fx * g.iz, p2 = fy * g.iz;
    F du = -p1 * dot3(db1, R2), dvv = -p2 * dot3(db2, R2);
    F dp1 = dot3(db1, R0) - g.u * dot3(db1, R2), dp2 = dot3(db2, R1) - g.v * dot3(db2, R2);
    F dxz = fma(gmx, fx, zero_unless(g.u_free, du)), dyz = fma(gmy, fy, zero_unless(g.v_free, dvv));
    // x / z rather than x: for means as far away as 1e20 the products of x would overflow.
    F along_z = fma(p1, dp1, fma(p2, dp2, fma(dxz, g.xz, dyz * g.yz)));
    F dq[3] = {dxz * g.iz, dyz * g.iz, fnma(g.iz, along_z, depth_gradient)};
    for (int j = 0; j < 3; j++) out.mean[j] = fma(R0[j], dq[0], fma(R1[j], dq[1], R2[j] * dq[2]));
    if (camera) {
        F p[3];
        for (int j = 0; j < 3; j++) p[j] = gather(in.means, id, 3, j);
        for (int j = 0; j < 3; j++) {
            camera[j] += fma(p1, db1[j], dq[0] * p[j]);
            camera[3 + j] += fma(p2, db2[j], dq[1] * p[j]);
            camera[6 + j] += dq[2] * p[j] - g.u * p1 * db1[j] - g.v * p2 * db2[j];
            camera[9 + j] += dq[j];
        }
        // Where u is clamped it depends on the intrinsics alone: u = (limit - cx) / fx.
        F du_limit = select(g.u_free, zero, du) / fx, dv_limit = select(g.v_free, zero, dvv) / fy;
        camera[12] += g.iz * dp1 + gmx * g.xz - g.u * du_limit;
        camera[13] += g.iz * dp2 + gmy * g.yz - g.v * dv_limit;
        camera[14] += gmx - du_limit;
        camera[15] += gmy - dv_limit;
    }
}

// Colour: adds to out.mean and camera, writes out.dc and calls put(k, c, value) for every coefficient of sh_rest in use.
template <class Put>
SM_FN void gaussian_vjp_colour(const GaussianInput& in, const CameraValues& cam, const int* id, const F* colour_gradient, GaussianVjp& out,
                               F* camera, Put put) {
    F dir[3], inv_length, basis[kShMax], colour[3], gradient[3], weight[kShMax];
    gaussian_direction(in, cam, id, dir, &inv_length);
    sh_basis(in.sh_degree, dir[0], dir[1], dir[2], basis);
    gaussian_colour(in, basis, id, colour);
    for (int c = 0; c < 3; c++) {
        gradient[c] = zero_unless(ge(colour[c], splat(0)), colour_gradient[c]);
        out.dc[c] = gradient[c] * basis[0];
    }
    const int terms = (in.sh_degree + 1) * (in.sh_degree + 1) - 1, stride = 3 * in.sh_rest_count;
    if (!terms) return;
    weight[0] = splat(0);
    for (int k = 0; k < terms; k++) {
        F sum = splat(0);
        for (int c = 0; c < 3; c++) {
            sum = fma(gradient[c], gather(in.sh_rest, id, stride, 3 * k + c), sum);
            put(k, c, gradient[c] * basis[k + 1]);
        }
        weight[k + 1] = sum;
    }
    F gd[3] = {splat(0), splat(0), splat(0)}, gv[3];
    sh_basis_vjp(in.sh_degree, dir[0], dir[1], dir[2], weight, gd, gd + 1, gd + 2);
    F along = dot3(gd, dir);
    for (int j = 0; j < 3; j++) {
        gv[j] = fnma(along, dir[j], gd[j]) * inv_length;
        out.mean[j] += gv[j];
    }
    if (!camera) return;
    // direction = p + R^T t
    const real *R = cam.rotation, *t = cam.translation;
    for (int i = 0; i < 3; i++) {
        for (int j = 0; j < 3; j++) camera[3 * i + j] += splat(t[i]) * gv[j];
        camera[9 + i] += splat(R[3 * i]) * gv[0] + splat(R[3 * i + 1]) * gv[1] + splat(R[3 * i + 2]) * gv[2];
    }
}

}  // namespace smalti
