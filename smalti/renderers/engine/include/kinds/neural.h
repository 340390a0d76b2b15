// Kind `neural`: ellipsoids filled with a density b2 + sum_i w2_i cos(omega (W1_i . x + b1_i)) whose line integral is closed (Zhou et
// al. 2025, Splat the Net; docs/kinds.md section 2). One segment per ray: the chord.
//
// Lengths along the ray are t = (z - screen.z) |w0| (ellipsoid.h), so that the chord, and all below, is of the order of 1 however far
// and small the primitive is. With y = M (z d - q_mean) and w = dy/dt, a neuron's angle along the chord is, in half turns,
// V . y + b + (V . w) (t - t_middle), and its mean is sinc(V . w t_half) cos(V . y_middle + b).
#pragma once
#include "../lane_math.h"
#include "ellipsoid.h"
#include "splat_colour.h"
#ifndef SMALTI_CUDA
#include "outline_cpu.h"
#endif

namespace smalti {

struct NeuralKind {
    static constexpr int kWidest = 16;
    struct Record {
        EllipsoidScreen screen;
        Outline outline;
        real frequencies[3 * kWidest], phases[kWidest];  // V in the screen's axes and b: half turns
        real amplitudes[kWidest], offset;
        real reach;                                      // of z per unit of t, twice, in units of the largest scale
        real near_t, nearest, farthest, leak;
        int width, cap, smooth, absolute;
    };
    static constexpr bool kConstantChannels = true;
    static constexpr int kTableTensors = 0;
    static constexpr int kFrequencies = 7, kPhases = 8, kAmplitudes = 9, kOffsets = 10;                  // tensors
    static constexpr int kWidth = kSplatIntegers, kLocalFrame = kWidth + 1, kCap = kWidth + 2;           // integers
    static constexpr int kOmega = 0, kLeak = 1;                                                          // numbers
    static constexpr double kPi = 3.141592653589793, kLargest = 4.605170185988091, kFaintest = 0.0039292852767270345;  // -ln(1 - alpha)
    static constexpr double kGrazing = sizeof(real) == 4 ? 1e-5 : 1e-9;  // of 1 - q

    // Sums: the ellipsoid's, the local offset's, d loss / d |d|^2 against u and v, the offset's, five per neuron (V, b, w2), and with
    // view.absolute the absolute gradient of the projected centre.
    static constexpr int kLocal = kEllipsoidMoments, kLengths = kLocal + kEllipsoidLocalMoments, kOffset = kLengths + 4, kNeurons = kOffset + 1;
    SM_FN static int absolute_at(int width) { return kNeurons + 5 * width; }
    SM_FN static int moments(const KindInput& in, const ViewOptions& view) {
        return absolute_at(in.integers[kWidth]) + (view.absolute ? 2 : 0);
    }

    SM_FN static int largest(const double* s) { return s[0] >= s[1] ? (s[0] >= s[2] ? 0 : 2) : s[1] >= s[2] ? 1 : 2; }

    // Half turns per unit of W . x, x in units of the largest scale.
    SM_FN static double half_turns_per_unit(const KindInput& in) { return in.numbers[kOmega] / kPi; }

    // W in local axes; `rotation`: world from local.
    SM_FN static void to_local(const double* rotation, bool local_frame, const double* w, double* out) {
        for (int a = 0; a < 3; a++) out[a] = local_frame ? w[a] : rotation[a] * w[0] + rotation[3 + a] * w[1] + rotation[6 + a] * w[2];
    }

    SM_FN static void project(const KindInput& in, const CameraValues& cam, const ViewOptions& view, int k, Record& r, Bounds& b, real* values) {
        EllipsoidGeometry g;
        const int width = in.integers[kWidth];
        const long long n = k;
        const real *w1 = in.tensors[kFrequencies] + 3 * width * n, *b1 = in.tensors[kPhases] + width * n, *w2 = in.tensors[kAmplitudes] + width * n;
        r.width = width, r.cap = in.integers[kCap], r.leak = in.numbers[kLeak];
        r.smooth = view.smooth, r.absolute = view.absolute;
        r.offset = in.tensors[kOffsets][n];
        b.drawn = false;
        b.usable = ellipsoid_geometry(in, cam, k, g) && splat_colour(in, cam, view, k, values);
        if (!b.usable) return;
        b.depth = real(g.pose.q[2]);
        // Angles and densities far beyond all use would make the sums overflow.
        double angles = 0, densities = wide_abs(r.offset), turns = half_turns_per_unit(in);
        for (int i = 0; i < width; i++) {
            for (int j = 0; j < 3; j++) angles += wide_abs(w1[3 * i + j]);
            angles += wide_abs(b1[i]), densities += wide_abs(w2[i]);
        }
        b.usable = angles * wide_abs(turns) < 1e15 && densities < 1e15;
        if (!b.usable) return;
        ellipsoid_bounds(g, 1, cam, b, r.outline, r.farthest);
        if (!b.drawn) return;
        const double scale = g.scale[largest(g.scale)];
        for (int i = 0; i < kWidest; i++) {
            double given[3] = {0, 0, 0}, local[3];
            if (i < width)
                for (int j = 0; j < 3; j++) given[j] = w1[3 * i + j];
            to_local(g.pose.local, in.integers[kLocalFrame], given, local);
            for (int a = 0; a < 3; a++) local[a] *= turns * g.scale[a] / scale;
            for (int a = 0; a < 3; a++) r.frequencies[3 * i + a] = real(wide_dot(g.turn + 3 * a, local));
            r.phases[i] = i < width ? real(turns * b1[i]) : real(0);
            r.amplitudes[i] = i < width ? w2[i] : real(0);
        }
        r.reach = real(2 / (g.length * scale));
        r.nearest = b.nearest;
        b.usable = ellipsoid_screen(g, r.screen);
        r.near_t = real((double(cam.near_plane) - r.screen.z) * g.length);
        b.usable = b.usable && is_finite(r.near_t) && is_finite(r.reach) && g.length > 1e-30 && g.length < 1e30;
        b.drawn = b.usable;
    }

    SM_FN static bool touches(const Record& r, real x0, real y0, real x1, real y1) { return outline_touches(r.outline, x0, y0, x1, y1); }
#ifndef SMALTI_CUDA
    static BlockMask blocks(const Record& r, int x0, int y0) { return outline_blocks(r.outline, x0, y0); }
#endif

    // ------------------------------------------------------------------ the chord
    struct Chord {
        EllipsoidRay ray;
        F inside;          // 1 - q
        F half_free;       // half chord in t, before the near plane
        F middle, half;    // of the chord drawn, in t
        F w3;              // third coordinate of w
        F y[3];            // at the middle
        F length2, reach;  // |d|^2; the integral is reach * half * mean density
        M hit, free;       // free: the begin is the bound's, not the near plane's
    };

    SM_FN static Chord chord(const Record& r, const Rays& rays) {
        Chord c;
        const F zero = splat(0), one = splat(1), half = splat(real(0.5));
        c.ray = ellipsoid_ray(r.screen, rays.x, rays.y);
        c.inside = one - c.ray.q;
        c.half_free = sqrt_of(max_of(c.inside * c.ray.inverse_area, zero));
        const F start = c.ray.t - c.half_free, end = c.ray.t + c.half_free, near_t = splat(r.near_t);
        c.free = ge(start, near_t);
        const F begin = max_of(start, near_t);
        c.hit = both(gt(c.half_free, zero), gt(end, begin));
        c.middle = select(c.free, c.ray.t, half * (end + begin));
        c.half = select(c.free, c.half_free, half * (end - begin));
        c.w3 = splat(r.screen.a33);
        ellipsoid_offset_at(r.screen, c.ray, c.middle, c.y);
        c.length2 = fma(rays.u, rays.u, fma(rays.v, rays.v, one));
        c.reach = splat(r.reach) * sqrt_of(c.length2);
        return c;
    }

    // ------------------------------------------------------------------ the optical depth
    struct Depth {
        F tau, slope;  // slope: d tau / d integral
        M shown;       // there is an event
    };

    SM_FN static Depth optical_depth(const Record& r, const M& hit, F integral) {
        Depth d;
        const F zero = splat(0), one = splat(1), cap = splat(real(kLargest));
        F value = integral, slope = one;
        d.shown = both(hit, gt(integral, zero));
        if (r.cap) {
            d.shown = both(hit, ge(integral, splat(real(kFaintest))));
            if (r.smooth) {  // the step at 1/255 as a ramp up to 2/255 of alpha
                const F left = exp_of(-max_of(integral, zero)), share = fnma(splat(255), left, splat(254));
                const F x = min_of(max_of(share, zero), one);
                const F step = x * x * (splat(3) - x - x), rise = splat(255 * 6) * x * (one - x) * left;
                slope = fma(integral, rise, step);
                value = integral * step;
            }
            slope = zero_unless(ge(cap, value), slope);
            value = min_of(value, cap);
        }
        d.tau = zero_unless(d.shown, value);
        d.slope = zero_unless(d.shown, slope);
        if (r.leak > 0) {
            d.slope = select(d.shown, d.slope, zero_unless(hit, splat(r.leak)));
            d.shown = hit;
        }
        return d;
    }

    // A neuron along the chord: `along` = V . w, x = along * half, angle at the middle.
    struct Angles {
        F along, x;
        HalfTurns spread, middle;
    };

    SM_FN static Angles angles(const Record& r, const Chord& c, int i) {
        const real* v = r.frequencies + 3 * i;
        Angles a;
        a.along = fma(splat(v[0]), c.ray.f1, fma(splat(v[1]), c.ray.f2, splat(v[2]) * c.w3));
        a.x = away_from_zero(a.along * c.half);
        a.spread = half_turns(a.x);
        a.middle = half_turns(fma(splat(v[0]), c.y[0], fma(splat(v[1]), c.y[1], fma(splat(v[2]), c.y[2], splat(r.phases[i])))));
        return a;
    }

    // ------------------------------------------------------------------ forward
    template <int width>
    SM_FN static F mean_density(const Record& r, const Chord& c) {
        F sum = splat(r.offset);
        for (int i = 0; i < width; i++) {
            const Angles a = angles(r, c, i);
            const F share = sine_of(a.spread) * cosine_of(a.middle) * recip(a.x * splat(real(kPi)));
            sum = fma(splat(r.amplitudes[i]), negate_if_odd(a.spread.turns ^ a.middle.turns, share), sum);
        }
        return sum;
    }

    template <class Sink>
    SM_FN static void emit(const KindInput&, const CameraValues&, const Record& r, int, const Rays& rays, Sink& sink) {
        const Chord c = chord(r, rays);
        if (!any(c.hit)) return;
        const F density = r.width == 8 ? mean_density<8>(r, c) : mean_density<16>(r, c);
        const Depth d = optical_depth(r, c.hit, c.reach * c.half * density);
        if (!any(d.shown)) return;
        const F unit = splat(r.screen.inverse_length), z = splat(r.screen.z), nearest = splat(r.nearest), farthest = splat(r.farthest);
        const F middle = select(c.hit, c.middle, c.ray.t), half = zero_unless(c.hit, c.half);
        const F z0 = min_of(max_of(fma(middle - half, unit, z), nearest), farthest);
        sink.thick(z0, min_of(max_of(fma(middle + half, unit, z), nearest), farthest), d.tau, nullptr, false);
        if (!sink.wants_local) return;
        F y[3], local[3];
        ellipsoid_offset(r.screen, c.ray, y);
        ellipsoid_local(r.screen, y, local);
        sink.local(local, nullptr);
    }

    // ------------------------------------------------------------------ back
    template <int width, class Back>
    SM_FN static void emit_back(const Record& r, const Rays& rays, Back& back, F* sums) {
        const Chord c = chord(r, rays);
        if (!any(c.hit)) return;
        const F pi = splat(real(kPi)), half = splat(real(0.5)), zero = splat(0);
        F along[width], mean[width], mean_by_x[width], mean_by_angle[width], density = splat(r.offset);
        for (int i = 0; i < width; i++) {
            const Angles a = angles(r, c, i);
            const F inverse = recip(a.x * pi);
            const F sinc = negate_if_odd(a.spread.turns, sine_of(a.spread)) * inverse;
            const F slope = sinc_slope(a.x, negate_if_odd(a.spread.turns, cosine_of(a.spread)), sinc, inverse);
            const F cosine = negate_if_odd(a.middle.turns, cosine_of(a.middle));
            along[i] = a.along;
            mean[i] = sinc * cosine;
            mean_by_x[i] = slope * cosine;
            mean_by_angle[i] = sinc * negate_if_odd(a.middle.turns, sine_of(a.middle));  // but for the sign
            density = fma(splat(r.amplitudes[i]), mean[i], density);
        }
        const F per_half = c.reach * density, integral = per_half * c.half;
        const Depth d = optical_depth(r, c.hit, integral);
        if (!any(d.shown)) return;
        const EventGradient& g = back.next();
        const F g_integral = zero_unless(d.shown, g.value * d.slope);
        const F g_mean = g_integral * c.reach * c.half, g_turn = g_mean * pi;
        F g_half = g_integral * per_half, g_middle = zero;
        const F w_half[3] = {c.ray.f1 * c.half, c.ray.f2 * c.half, c.w3 * c.half};
        F by_y[3] = {zero, zero, zero}, by_w[3] = {zero, zero, zero};  // for the absolute gradient alone
        F* neuron = sums + kNeurons;
        for (int i = 0; i < width; i++, neuron += 5) {
            const F scaled = g_turn * splat(r.amplitudes[i]);
            const F g_angle = -(scaled * mean_by_angle[i]), g_x = scaled * mean_by_x[i];
            g_middle = fma(g_angle, along[i], g_middle);
            g_half = fma(g_x, along[i], g_half);
            for (int j = 0; j < 3; j++) neuron[j] = fma(g_angle, c.y[j], fma(g_x, w_half[j], neuron[j]));
            neuron[3] += g_angle;
            neuron[4] = fma(g_mean, mean[i], neuron[4]);
            if (r.absolute)
                for (int j = 0; j < 2; j++) {
                    const F v = splat(r.frequencies[3 * i + j]);
                    by_y[j] = fma(g_angle, v, by_y[j]);
                    by_w[j] = fma(g_x, v, by_w[j]);
                }
        }
        sums[kOffset] += g_mean;
        const F share = g_integral * integral * recip(c.length2), share_u = share * rays.u, share_v = share * rays.v;
        sums[kLengths] += share_u;
        sums[kLengths + 1] += share_v;
        sums[kLengths + 2] = fma(share_u, rays.u, sums[kLengths + 2]);
        sums[kLengths + 3] = fma(share_v, rays.v, sums[kLengths + 3]);

        // Ends and then the free chord: a clamped end stays where it is, and the ends of a segment that absorbs nothing are nowhere.
        const F unit = splat(r.screen.inverse_length);
        const M absorbs = gt(d.tau, zero);
        const F g_end = fma(half, g_middle + g_half, zero_unless(absorbs, g.z1) * unit);
        const F g_begin = zero_unless(c.free, fma(half, g_middle - g_half, zero_unless(absorbs, g.z0) * unit));
        // half_free^2 = (1 - q) / A. At a grazing ray its derivative is infinite while the chord is nothing: it fades to zero there.
        const F g_log = half * (g_end - g_begin) * c.half_free;
        const F g_q = -(g_log * recip(max_of(c.inside, splat(real(kGrazing)))));
        F g_z = (g_begin + g_end) * splat(real(1) / r.screen.inverse_length);
        if (g.local) {
            F local[3];
            for (int j = 0; j < 3; j++) local[j] = zero_unless(absorbs, g.local[j]);
            g_z = g_z + ellipsoid_moments_local(r.screen, c.ray, local, sums, sums + kLocal);
        }
        ellipsoid_moments<true>(r.screen, c.ray, g_q, g_z, -g_log, sums);
        if (!r.absolute) return;
        // A pixel's shift moves w / |w0| by (a11, 0, 0) or (a12, a22, 0) and y by z |w0| times that; q, z and A follow.
        const EllipsoidScreen& s = r.screen;
        F y[3], shift[2];
        ellipsoid_offset(s, c.ray, y);
        const F length = splat(1 / s.inverse_length), z = c.ray.z * length, z_middle = fma(splat(s.z), length, c.middle);
        const F h = g_z * c.ray.inverse_area;
        const F along_y = fma(g_q + g_q, z, -(h * unit)), along_w = -fma(h, c.ray.z, (g_log + g_log) * c.ray.inverse_area);
        const F w[2] = {c.ray.f1, c.ray.f2};
        for (int j = 0; j < 2; j++) shift[j] = fma(along_y, y[j], fma(along_w, w[j], fma(by_y[j], z_middle, by_w[j] * c.half)));
        sums[absolute_at(width)] += abs_of(splat(s.a11) * shift[0]);
        sums[absolute_at(width) + 1] += abs_of(fma(splat(s.a12), shift[0], splat(s.a22) * shift[1]));
    }

    template <class Back>
    SM_FN static void emit_back(const KindInput&, const CameraValues&, const Record& r, int, const Rays& rays, Back& back, F* sums) {
        if (r.width == 8)
            emit_back<8>(r, rays, back, sums);
        else
            emit_back<16>(r, rays, back, sums);
    }

    SM_FN static void finish(const KindInput& in, const CameraValues& cam, const ViewOptions&, int k, const Record& r, const real* sums,
                             const real* values_gradient, const KindGradient& out, double* camera) {
        EllipsoidGeometry g;
        ellipsoid_geometry(in, cam, k, g);
        EllipsoidGradient d = {};
        ellipsoid_vjp(g, sums, sums + kLocal, d);
        const int width = r.width, top = largest(g.scale);
        const bool local_frame = in.integers[kLocalFrame];
        const long long n = k;
        const double turns = half_turns_per_unit(in), rate = turns / g.scale[top], *axes = g.pose.axes, *world = g.pose.local;
        const real* w1 = in.tensors[kFrequencies] + 3 * width * n;
        double by_scale = double(sums[kOffset]) * r.offset;  // d loss / d ln(1 / largest scale)
        for (int i = 0; i < width; i++) {
            const real* own = sums + kNeurons + 5 * i;
            double w[3], turned[3], world_units[3], given[3];
            for (int j = 0; j < 3; j++) w[j] = w1[3 * i + j];
            to_local(world, local_frame, w, turned);
            // What is summed in sigmas along the screen's axes, in world units along local ones.
            for (int a = 0; a < 3; a++) {
                world_units[a] = g.scale[a] * (g.turn[a] * own[0] + g.turn[3 + a] * own[1] + g.turn[6 + a] * own[2]);
                by_scale += rate * turned[a] * world_units[a];
            }
            by_scale += double(own[4]) * r.amplitudes[i];
            // The angle is rate (W . (m d - q_mean)) + b in camera axes; m and the chord's length are the ellipsoid's.
            double in_camera[3], w_camera[3];
            for (int c = 0; c < 3; c++) {
                in_camera[c] = wide_dot(axes + 3 * c, world_units);
                w_camera[c] = rate * wide_dot(axes + 3 * c, turned);
                given[c] = rate * (local_frame ? world_units[c] : wide_dot(world + 3 * c, world_units));
            }
            for (int c = 0; c < 3; c++) {
                d.q[c] -= w_camera[c] * own[3];
                for (int j = 0; j < 3; j++) {
                    d.tau[3 * c + j] += w_camera[c] * (in_camera[j] + g.pose.q[j] * own[3]);
                    if (local_frame)
                        d.axes[3 * c + j] += rate * in_camera[c] * w[j];
                    else if (camera)
                        camera[3 * c + j] += rate * in_camera[c] * w[j];
                }
            }
            for (int j = 0; j < 3 && out.tensors[kFrequencies]; j++) out.tensors[kFrequencies][3 * (width * n + i) + j] = real(given[j]);
            if (out.tensors[kPhases]) out.tensors[kPhases][width * n + i] = real(turns * own[3]);
            if (out.tensors[kAmplitudes]) out.tensors[kAmplitudes][width * n + i] = own[4];
        }
        d.scale[top] -= by_scale / g.scale[top];
        const real* l = sums + kLengths;
        d.tau[2] += l[0], d.tau[5] += l[1], d.tau[0] += l[2], d.tau[4] += l[3];
        if (out.tensors[kOffsets]) out.tensors[kOffsets][n] = sums[kOffset];
        for (int j = 0; j < 3 && out.tensors[kScales]; j++) out.tensors[kScales][3 * n + j] = real(d.scale[j]);
        PoseGradient pose = {};
        splat_pose_vjp(g.pose, cam, d.q, d.axes, nullptr, pose, camera);
        if (camera) ray_map_vjp(cam, d.tau, camera);
        splat_colour_vjp(in, cam, k, values_gradient, pose, out, camera);
        write_pose_gradient(pose, k, out);
        // The projected centre is moved by what the principal point is moved by.
        if (out.screen) out.screen[2 * n] = real(-d.tau[2] / cam.fx), out.screen[2 * n + 1] = real(-d.tau[5] / cam.fy);
        if (out.absolute)
            for (int j = 0; j < 2; j++) out.absolute[2 * n + j] = sums[absolute_at(width) + j];
    }
};

}  // namespace smalti
