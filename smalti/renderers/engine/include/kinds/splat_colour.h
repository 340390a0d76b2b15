// Channels of the kinds with a mean and spherical harmonics, one primitive at a time, and their cut-off. Colour is EWA's
// (docs/gaussian-kind.md): max(0, 0.5 + sum_k c_k Y_k(direction from the camera to the mean)).
#pragma once
#include "gaussian.h"
#include "splat_pose.h"

namespace smalti {

// The integers that every splat's `inputs` begin with (drawables.py).
constexpr int kShRestCount = 0, kShDegree = 1, kFeatureCount = 2, kSplatIntegers = 3;

struct SplatColour {
    double direction[3], inverse_length;
    real basis[kShMax];
    real colour[3];  // before the clamp at zero
    int terms;       // of sh_rest that are in use
};

SM_FN void splat_colour_of(const KindInput& in, const CameraValues& cam, int k, SplatColour& s) {
    const real *R = cam.rotation, *t = cam.translation, *p = in.tensors[kMeans] + 3 * (long long)k;
    double n2 = 0;
    for (int j = 0; j < 3; j++) {
        s.direction[j] = p[j] + (double(R[j]) * t[0] + double(R[3 + j]) * t[1] + double(R[6 + j]) * t[2]);  // minus the camera centre
        n2 += s.direction[j] * s.direction[j];
    }
    s.inverse_length = 1 / wide_sqrt(n2 > 0 ? n2 : 1);
    for (int j = 0; j < 3; j++) s.direction[j] *= s.inverse_length;
    const int degree = in.integers[kShDegree];
    s.terms = (degree + 1) * (degree + 1) - 1;
    F basis[kShMax];
    sh_basis(degree, splat(real(s.direction[0])), splat(real(s.direction[1])), splat(real(s.direction[2])), basis);
    for (int j = 0; j <= s.terms; j++) s.basis[j] = at(basis[j], 0);
    const real *dc = in.tensors[kShDc] + 3 * (long long)k, *rest = in.tensors[kShRest] + 3 * (long long)k * in.integers[kShRestCount];
    for (int c = 0; c < 3; c++) s.colour[c] = s.basis[0] * dc[c] + real(0.5);
    for (int j = 0; j < s.terms; j++)
        for (int c = 0; c < 3; c++) s.colour[c] += s.basis[j + 1] * rest[3 * j + c];
}

// Colour and features into `values` [view.channels]; the rest is 0. False: one of them is not a number.
SM_FN bool splat_colour(const KindInput& in, const CameraValues& cam, const ViewOptions& view, int k, real* values) {
    SplatColour s;
    splat_colour_of(in, cam, k, s);
    double sum = 0;
    for (int c = 0; c < view.channels; c++) values[c] = 0;
    for (int c = 0; c < 3; c++) {
        sum += wide_abs(s.colour[c]);
        values[c] = s.colour[c] > 0 ? s.colour[c] : 0;
    }
    const int count = in.integers[kFeatureCount];
    for (int f = 0; f < count; f++) {
        values[3 + f] = in.tensors[kFeatures][(long long)k * count + f];
        sum += wide_abs(values[3 + f]);
    }
    return is_finite(sum);
}

// Gradient of `values` to sh_dc, sh_rest and features (rows written), and to pose.mean and the camera (added to).
SM_FN void splat_colour_vjp(const KindInput& in, const CameraValues& cam, int k, const real* values_gradient, PoseGradient& pose,
                            const KindGradient& out, double* camera) {
    SplatColour s;
    splat_colour_of(in, cam, k, s);
    const int held = in.integers[kShRestCount], degree = in.integers[kShDegree], count = in.integers[kFeatureCount];
    const long long n = k;
    real gradient[3];
    for (int c = 0; c < 3; c++) {
        gradient[c] = s.colour[c] >= 0 ? values_gradient[c] : 0;
        if (out.tensors[kShDc]) out.tensors[kShDc][3 * n + c] = gradient[c] * s.basis[0];
    }
    for (int f = 0; f < count && out.tensors[kFeatures]; f++) out.tensors[kFeatures][n * count + f] = values_gradient[3 + f];
    if (!s.terms) return;
    const real* rest = in.tensors[kShRest] + 3 * n * held;
    real* rest_gradient = out.tensors[kShRest] ? out.tensors[kShRest] + 3 * n * held : nullptr;
    F weight[kShMax], gd[3] = {splat(0), splat(0), splat(0)};
    weight[0] = splat(0);
    for (int j = 0; j < s.terms; j++) {
        real sum = 0;
        for (int c = 0; c < 3; c++) {
            sum += gradient[c] * rest[3 * j + c];
            if (rest_gradient) rest_gradient[3 * j + c] = gradient[c] * s.basis[j + 1];
        }
        weight[j + 1] = splat(sum);
    }
    sh_basis_vjp(degree, splat(real(s.direction[0])), splat(real(s.direction[1])), splat(real(s.direction[2])), weight, gd, gd + 1, gd + 2);
    double along = 0, offset[3];  // d loss / d (mean - camera centre)
    for (int j = 0; j < 3; j++) along += at(gd[j], 0) * s.direction[j];
    for (int j = 0; j < 3; j++) {
        offset[j] = (at(gd[j], 0) - along * s.direction[j]) * s.inverse_length;
        pose.mean[j] += offset[j];
    }
    if (!camera) return;
    for (int i = 0; i < 3; i++) {  // the centre is -R^T t
        for (int j = 0; j < 3; j++) camera[3 * i + j] += cam.translation[i] * offset[j];
        camera[9 + i] += cam.rotation[3 * i] * offset[0] + cam.rotation[3 * i + 1] * offset[1] + cam.rotation[3 * i + 2] * offset[2];
    }
}

// ------------------------------------------------------------------ cut-off and cap
// The thin splats' alpha from `raw` in [0, 1]; `slope` comes in as d raw / d x and leaves as d alpha / d x. Returns where it counts.
template <bool smooth>
SM_FN M splat_cut_off(F raw, F& alpha, F& slope) {
    const F cap = splat(kAlphaMax), zero = splat(0), one = splat(1);
    const M hit = ge(raw, splat(kAlphaMin));
    F value = raw;
    if (smooth) {  // the step at 1/255 as a ramp (gaussian_event)
        const F x = min_of(max_of(fma(splat(255), raw, splat(-1)), zero), one);
        const F step = x * x * (splat(3) - x - x), rise = splat(255 * 6) * x * (one - x);
        value = raw * step;
        slope = slope * fma(raw, rise, step);
    }
    slope = zero_unless(both(hit, ge(cap, value)), slope);
    alpha = zero_unless(hit, min_of(value, cap));
    return hit;
}

}  // namespace smalti
