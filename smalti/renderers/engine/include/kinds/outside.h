// A kind from outside: whoever writes one gives its event alone, and `OutsideKind` makes the whole of it (kind.h), with the
// derivative by forward duals (dual.h). docs/a-family-of-your-own.md goes step by step.
//
//   struct SomeKind {
//       static constexpr int kParameters = 12;   // numbers per primitive, 3 to 16; the first three are its centre, world units
//       static constexpr bool kThick = false;
//       // World-space radius of a sphere around the centre outside of which no event happens.
//       template <class S> SM_FN static S radius(const S* parameters);
//       // Thin: one event at origin + z direction.
//       template <class S> SM_FN static void event(const S* parameters, const S* origin, const S* direction, S& z, S& alpha, Mask& hit);
//       // Thick: one segment between z0 and z1 with optical depth tau, evenly spread.
//       template <class S> SM_FN static void event(const S* parameters, const S* origin, const S* direction, S& z0, S& z1, S& tau, Mask& hit);
//   };
//
// `S` is a Dual, written like a number. World axes; **the centre is the origin of them**: parameters[0..3) arrive as 0, and `origin`
// is a point of the ray relative to the centre, so that a far camera costs no digits. So the event must not depend on where in
// the world the primitive is. It must not depend either on which point of the ray `origin` is, apart from z, which counts from
// there. `direction` is the ray (u, v, 1) of the pixel turned into the world: z + const is the camera's.
//
// Which responses are too faint, and which are capped, is the event's own business: nothing else skips below 1/255 or cuts at 0.99
// (`smooth`, the tests' ramp, does nothing to it). Of an event only this is taken away: alpha outside 0..1 is clamped, tau below 0
// is 0, both without gradient there; NaN or Inf, an empty segment, z in front of the near plane or outside of the sphere's depths
// is a miss; a segment is cut at the near plane, its density staying what it was (docs/kinds.md section 1). Normal: 0.
// Skipped and counted: NaN or Inf in a parameter, a colour or a feature, and a radius that is not positive.
//
// Tensors: parameters [n, P], colors [n, 3] (composited as they are), features [n, f] or null. Integers: f. Numbers, for tests:
// factor on the radius (1), and by how many radii origins are moved along their rays (0). Fragments' local coordinates: the event's place (a segment's begin) relative to the centre, world axes.
#pragma once
#include "../dual.h"
#include "splat_pose.h"

namespace smalti {

constexpr int kOutsideMostParameters = 16;

template <class User>
struct OutsideKind {
    static constexpr int P = User::kParameters, kShape = P - 3;  // parameters beside the centre
    static constexpr int kVariables = P + 3;                     // those, the origin, the direction
    // Derivatives carried at once: more would not stay in registers, fewer repeat the values too often.
    static constexpr int kPasses = (kVariables + 7) / 8, kWidth = (kVariables + kPasses - 1) / kPasses;
    static_assert(P >= 3 && P <= kOutsideMostParameters, "a kind has 3 to 16 parameters, the centre first");

    struct Record {
        Outline outline;
        real pixel_x, pixel_y;            // where origins are counted from
        real scale_x, scale_y;            // of pixels to lengths at `depth`
        real rest_x, rest_y, rest_z;      // what rounding left, camera axes
        real depth, nearest, farthest, near_plane;
        int absolute;
    };
    static constexpr bool kConstantChannels = true;
    static constexpr int kTableTensors = 0;

    // Sums: d loss / d (shape parameters), d (origin), d (direction) times (u, v, 1), then |d (projected centre)| if asked for.
    static constexpr int kOrigin = kShape, kDirection = kShape + 3, kAbsolute = kShape + 12;
    SM_FN static int moments(const KindInput&, const ViewOptions& view) { return kAbsolute + (view.absolute ? 2 : 0); }

    SM_FN static const real* row(const KindInput& in, int k) { return in.tensors[0] + (long long)k * P; }

    // A coordinate of the centre in camera axes.
    SM_FN static double wide_place(const CameraValues& cam, const real* centre, int i) {
        const real* R = cam.rotation + 3 * i;
        return double(R[0]) * centre[0] + double(R[1]) * centre[1] + double(R[2]) * centre[2] + cam.translation[i];
    }

    SM_FN static void project(const KindInput& in, const CameraValues& cam, const ViewOptions& view, int k, Record& r, Bounds& b, real* values) {
        const real *own = row(in, k), *colour = in.tensors[1] + 3 * (long long)k;
        const int features = in.integers[0];
        double sum = 0, q[3];
        Dual<0> p[P];
        for (int j = 0; j < P; j++) p[j] = Dual<0>(j < 3 ? real(0) : own[j]), sum += wide_abs(own[j]);
        for (int c = 0; c < view.channels; c++) values[c] = 0;
        for (int c = 0; c < 3; c++) values[c] = colour[c], sum += wide_abs(colour[c]);
        for (int f = 0; f < features; f++) values[3 + f] = in.tensors[2][(long long)k * features + f], sum += wide_abs(values[3 + f]);
        b.drawn = b.usable = false;
        if (!is_finite(sum)) return;
        const double radius = double(at(User::radius(p).v, 0)) * in.numbers[0];
        if (!(radius > 0) || !is_finite(radius)) return;
        for (int i = 0; i < 3; i++) q[i] = wide_place(cam, own, i);
        b.usable = true;
        const double sphere[9] = {1, 0, 0, 0, 1, 0, 0, 0, 1};
        splat_outline(q, sphere, radius, cam, b, r.outline, r.farthest);
        // Origins are counted from where the centre is seen, at its depth; from the picture's middle where that is far outside.
        r.depth = real(wide_max(q[2], 0) + in.numbers[1] * radius);
        r.pixel_x = real(0.5) * cam.width, r.pixel_y = real(0.5) * cam.height;
        if (q[2] > 0) {
            const double x = cam.cx + cam.fx * (q[0] / q[2]), y = cam.cy + cam.fy * (q[1] / q[2]), margin = 8.0 * (cam.width + cam.height);
            if (wide_abs(x) < margin && wide_abs(y) < margin) r.pixel_x = real(x), r.pixel_y = real(y);
        }
        r.scale_x = r.depth / cam.fx, r.scale_y = r.depth / cam.fy;
        r.rest_x = real(double(r.depth) * (r.pixel_x - double(cam.cx)) / cam.fx - q[0]);
        r.rest_y = real(double(r.depth) * (r.pixel_y - double(cam.cy)) / cam.fy - q[1]);
        r.rest_z = real(r.depth - q[2]);
        r.nearest = b.nearest, r.near_plane = cam.near_plane, r.absolute = view.absolute;
        if (!is_finite(wide_abs(r.rest_x) + wide_abs(r.rest_y) + wide_abs(r.rest_z))) b.drawn = b.usable = false;
    }

    SM_FN static bool touches(const Record& r, real x0, real y0, real x1, real y1) { return outline_touches(r.outline, x0, y0, x1, y1); }

    // Origin and direction in world axes.
    struct LocalRay {
        F origin[3], direction[3];
    };
    SM_FN static LocalRay local_ray(const CameraValues& cam, const Record& r, const Rays& rays) {
        const F x = fma(rays.x - splat(r.pixel_x), splat(r.scale_x), splat(r.rest_x));
        const F y = fma(rays.y - splat(r.pixel_y), splat(r.scale_y), splat(r.rest_y)), z = splat(r.rest_z);
        const real* R = cam.rotation;
        LocalRay ray;
        for (int j = 0; j < 3; j++) {
            ray.origin[j] = fma(splat(R[j]), x, fma(splat(R[3 + j]), y, splat(R[6 + j]) * z));
            ray.direction[j] = fma(splat(R[j]), rays.u, fma(splat(R[3 + j]), rays.v, splat(R[6 + j])));
        }
        return ray;
    }

    // The user's event with derivatives by variables [first, first + N).
    template <int N>
    struct Answer {
        Dual<N> z0, z1, value;
        Mask hit;
    };
    template <int N>
    SM_FN static Answer<N> ask(const real* own, const LocalRay& ray, int first) {
        typedef Dual<N> S;
        S p[P], origin[3], direction[3];
        for (int j = 0; j < P; j++) p[j] = j < 3 ? S(real(0)) : S::variable(splat(own[j]), j - 3 - first);
        for (int j = 0; j < 3; j++) {
            origin[j] = S::variable(ray.origin[j], kShape + j - first);
            direction[j] = S::variable(ray.direction[j], kShape + 3 + j - first);
        }
        Answer<N> a;
        if constexpr (User::kThick) {
            User::event(p, origin, direction, a.z0, a.z1, a.value, a.hit);
        } else {
            User::event(p, origin, direction, a.z0, a.value, a.hit);
            a.z1 = a.z0;
        }
        return a;
    }

    // What is made of an answer, for one block; with the slopes of what goes to the compositor by what the user gave.
    struct Outcome {
        F z0, z1, value;
        F value_slope, value_z0, value_z1;  // d value / d (user's value, z0, z1)
        M hit, cut;                         // cut: at the near plane
    };
    template <int N>
    SM_FN static Outcome judge(const Record& r, const Answer<N>& a) {
        Outcome o;
        const F zero = splat(0), one = splat(1), depth = splat(r.depth), near_plane = splat(r.near_plane);
        o.z0 = a.z0.v + depth, o.z1 = a.z1.v + depth, o.value = a.value.v;
        o.value_slope = one, o.value_z0 = o.value_z1 = zero;
        const F all = (o.z0 - o.z0) + (o.z1 - o.z1) + (o.value - o.value);  // 0, or NaN
        o.hit = both(a.hit.m, both(ge(all, zero), ge(splat(r.farthest), o.z1)));
        if (User::kThick) {
            o.hit = both(o.hit, both(both(gt(o.value, zero), gt(o.z1, o.z0)), gt(o.z1, near_plane)));
            o.cut = both(o.hit, lt(o.z0, near_plane));
            if (any(o.cut)) {
                const F length = select(o.cut, o.z1 - o.z0, one), share = (o.z1 - near_plane) / length, density = o.value / length;
                o.value_slope = select(o.cut, share, one);
                o.value_z0 = zero_unless(o.cut, density * share);
                o.value_z1 = zero_unless(o.cut, density * (one - share));
                o.value = select(o.cut, density * (o.z1 - near_plane), o.value);
                o.z0 = select(o.cut, near_plane, o.z0);
            }
        } else {
            o.cut = lt(one, zero);
            o.hit = both(both(o.hit, gt(o.value, zero)), ge(o.z0, near_plane));
            o.value_slope = zero_unless(ge(one, o.value), one);
            o.value = min_of(o.value, one);
        }
        o.hit = both(o.hit, ge(o.z0, splat(r.nearest)));
        // Rays that miss stay near to the others' events, so that a block keeps one order.
        o.z0 = select(o.hit, o.z0, depth), o.z1 = select(o.hit, o.z1, depth);
        o.value = zero_unless(o.hit, o.value);
        return o;
    }

    template <class Sink>
    SM_FN static void emit(const KindInput& in, const CameraValues& cam, const Record& r, int k, const Rays& rays, Sink& sink) {
        const LocalRay ray = local_ray(cam, r, rays);
        const Answer<0> a = ask<0>(row(in, k), ray, 0);
        const Outcome o = judge(r, a);
        if (!any(o.hit)) return;
        if constexpr (User::kThick)
            sink.thick(o.z0, o.z1, o.value, nullptr, false);
        else
            sink.thin(o.z0, o.value, nullptr);
        if (!sink.wants_local) return;
        F place[3];
        for (int j = 0; j < 3; j++) place[j] = fma(o.z0 - splat(r.depth), ray.direction[j], ray.origin[j]);
        sink.local(place, nullptr);
    }

    template <int first>
    SM_FN static void derive(const KindInput& in, const Record& r, int k, const LocalRay& ray, const Outcome& o, F by_z0, F by_z1, F by_value,
                             F* gradient) {
        if constexpr (first < kVariables) {
            const Answer<kWidth> a = ask<kWidth>(row(in, k), ray, first);
            const M felt = not_zero(by_value);  // a derivative may be infinite where it is clamped away
            for (int j = 0; j < kWidth && first + j < kVariables; j++) {
                F g = fma(by_value, zero_unless(felt, a.value.d[j]), by_z0 * a.z0.d[j]);
                if (User::kThick) g = fma(by_z1, a.z1.d[j], g);
                gradient[first + j] = zero_unless(o.hit, g);
            }
            derive<first + kWidth>(in, r, k, ray, o, by_z0, by_z1, by_value, gradient);
        }
    }

    template <class Back>
    SM_FN static void emit_back(const KindInput& in, const CameraValues& cam, const Record& r, int k, const Rays& rays, Back& back, F* sums) {
        const LocalRay ray = local_ray(cam, r, rays);
        const Outcome o = judge(r, ask<0>(row(in, k), ray, 0));
        if (!any(o.hit)) return;
        const EventGradient& g = back.next();
        F gradient[kVariables], g_z0 = g.z0;
        F to_origin[3] = {splat(0), splat(0), splat(0)}, to_direction[3] = {splat(0), splat(0), splat(0)};
        if (g.local)
            for (int j = 0; j < 3; j++) {
                to_origin[j] = g.local[j], to_direction[j] = (o.z0 - splat(r.depth)) * g.local[j];
                g_z0 = fma(g.local[j], ray.direction[j], g_z0);
            }
        const F uncut = select(o.cut, splat(0), g_z0);
        const F by_value = g.value * o.value_slope, by_z0 = fma(g.value, o.value_z0, uncut);
        const F by_z1 = User::kThick ? fma(g.value, o.value_z1, g.z1) : splat(0);
        derive<0>(in, r, k, ray, o, by_z0, by_z1, by_value, gradient);
        for (int j = 0; j < kShape; j++) sums[j] += gradient[j];
        F felt[3];
        for (int j = 0; j < 3; j++) {
            // The ray's point at `depth` moves with the direction, too.
            felt[j] = gradient[kShape + j] + zero_unless(o.hit, to_origin[j]);
            const F turn = fma(splat(r.depth), felt[j], gradient[kShape + 3 + j] + zero_unless(o.hit, to_direction[j]));
            sums[kOrigin + j] += felt[j];
            sums[kDirection + 3 * j] = fma(turn, rays.u, sums[kDirection + 3 * j]);
            sums[kDirection + 3 * j + 1] = fma(turn, rays.v, sums[kDirection + 3 * j + 1]);
            sums[kDirection + 3 * j + 2] += turn;
        }
        if (!r.absolute) return;
        for (int i = 0; i < 2; i++) {
            const real* R = cam.rotation + 3 * i;
            sums[kAbsolute + i] += abs_of(fma(splat(R[0]), felt[0], fma(splat(R[1]), felt[1], splat(R[2]) * felt[2])));
        }
    }

    SM_FN static void finish(const KindInput& in, const CameraValues& cam, const ViewOptions&, int k, const Record& r, const real* sums,
                             const real* values_gradient, const KindGradient& out, double* camera) {
        const int features = in.integers[0];
        const real *R = cam.rotation, *felt = sums + kOrigin, *turn = sums + kDirection;
        for (int j = 0; j < P && out.tensors[0]; j++) {
            real g = j < 3 ? 0 : sums[j - 3];
            if (j < 3)
                for (int i = 0; i < 3; i++) g -= R[3 * i + j] * (R[3 * i] * felt[0] + R[3 * i + 1] * felt[1] + R[3 * i + 2] * felt[2]);
            out.tensors[0][(long long)k * P + j] = g;
        }
        for (int c = 0; c < 3 && out.tensors[1]; c++) out.tensors[1][3 * (long long)k + c] = values_gradient[c];
        for (int f = 0; f < features && out.tensors[2]; f++) out.tensors[2][(long long)k * features + f] = values_gradient[3 + f];
        if (out.screen) {
            const real lengths[2] = {r.scale_x, r.scale_y};  // per pixel; 0 behind the camera
            for (int i = 0; i < 2; i++) {
                const real along = R[3 * i] * felt[0] + R[3 * i + 1] * felt[1] + R[3 * i + 2] * felt[2];
                out.screen[2 * (long long)k + i] = -along * lengths[i];
                if (out.absolute) out.absolute[2 * (long long)k + i] = sums[kAbsolute + i] * lengths[i];
            }
        }
        if (!camera) return;
        // In world axes the ray is direction = R^T (u, v, 1) and origin = R^T (depth (u, v, 1) - q), where q = R centre + t.
        const real* centre = row(in, k);
        for (int i = 0; i < 3; i++) {
            const double q = wide_place(cam, centre, i), moved = double(R[3 * i]) * felt[0] + double(R[3 * i + 1]) * felt[1] + double(R[3 * i + 2]) * felt[2];
            for (int j = 0; j < 3; j++) camera[3 * i + j] += double(turn[3 * j + i]) - q * felt[j] - moved * centre[j];
            camera[9 + i] -= moved;
        }
        for (int j = 0; j < 3; j++) {
            camera[12] -= double(R[j]) * turn[3 * j] / cam.fx;
            camera[13] -= double(R[3 + j]) * turn[3 * j + 1] / cam.fy;
            camera[14] -= double(R[j]) * turn[3 * j + 2] / cam.fx;
            camera[15] -= double(R[3 + j]) * turn[3 * j + 2] / cam.fy;
        }
    }
};

}  // namespace smalti
