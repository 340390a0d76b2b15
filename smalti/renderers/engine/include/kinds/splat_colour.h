// Channels of the kinds with a mean and spherical harmonics: as EWA's (gaussian.h), one primitive at a time.
#pragma once
#include "gaussian.h"
#include "splat_pose.h"

namespace smalti {

// The integers that every splat's `inputs` begin with (drawables.py).
constexpr int kShRestCount = 0, kShDegree = 1, kFeatureCount = 2, kSplatIntegers = 3;

SM_FN GaussianInput splat_colour_input(const KindInput& in) {
    return {in.tensors[kMeans], nullptr, nullptr, nullptr, in.tensors[kShDc], in.tensors[kShRest], in.tensors[kFeatures], in.count,
            in.integers[kShRestCount], in.integers[kShDegree], in.integers[kFeatureCount], 0, 0, 0};
}

// Colour and features into `values` [view.channels]; the rest is 0. False: one of them is not a number.
SM_FN bool splat_colour(const KindInput& in, const CameraValues& cam, const ViewOptions& view, int k, real* values) {
    const GaussianInput g = splat_colour_input(in);
    int ids[kLanes];
    for (int j = 0; j < kLanes; j++) ids[j] = k;
    F direction[3], inverse_length, basis[kShMax], colour[3];
    gaussian_direction(g, cam, ids, direction, &inverse_length);
    sh_basis(g.sh_degree, direction[0], direction[1], direction[2], basis);
    gaussian_colour(g, basis, ids, colour);
    double sum = 0;
    for (int c = 0; c < view.channels; c++) values[c] = 0;
    for (int c = 0; c < 3; c++) {
        const real value = at(colour[c], 0);
        sum += wide_abs(value);
        values[c] = value > 0 ? value : 0;
    }
    for (int f = 0; f < g.feature_count; f++) {
        values[3 + f] = g.features[(long long)k * g.feature_count + f];
        sum += wide_abs(values[3 + f]);
    }
    return is_finite(sum);
}

// Gradient of `values` to sh_dc, sh_rest and features (rows written), and to pose.mean and the camera (added to).
SM_FN void splat_colour_vjp(const KindInput& in, const CameraValues& cam, int k, const real* values_gradient, PoseGradient& pose,
                            const KindGradient& out, double* camera) {
    const GaussianInput g = splat_colour_input(in);
    int ids[kLanes];
    for (int j = 0; j < kLanes; j++) ids[j] = k;
    F gradient[3], camera_lanes[kCameraGradient];
    for (int c = 0; c < 3; c++) gradient[c] = splat(values_gradient[c]);
    for (int j = 0; j < kCameraGradient; j++) camera_lanes[j] = splat(0);
    GaussianVjp v;
    for (int j = 0; j < 3; j++) v.mean[j] = splat(0);
    real* rest = out.tensors[kShRest];
    gaussian_vjp_colour(g, cam, ids, gradient, v, camera ? camera_lanes : nullptr, [&](int term, int c, F value) {
        if (rest) rest[((long long)k * g.sh_rest_count + term) * 3 + c] = at(value, 0);
    });
    for (int j = 0; j < 3; j++) {
        pose.mean[j] += at(v.mean[j], 0);
        if (out.tensors[kShDc]) out.tensors[kShDc][3 * (long long)k + j] = at(v.dc[j], 0);
    }
    for (int f = 0; f < g.feature_count && out.tensors[kFeatures]; f++)
        out.tensors[kFeatures][(long long)k * g.feature_count + f] = values_gradient[3 + f];
    if (camera)
        for (int j = 0; j < kCameraGradient; j++) camera[j] += at(camera_lanes[j], 0);
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
