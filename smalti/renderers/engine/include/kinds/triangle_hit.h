// Where a block of rays meets a triangle: edges, coverage, barycentrics, depth, and what depends on the ray's direction.
#pragma once
#include "triangle_project.h"

namespace smalti {

struct TriangleHit {
    F g[3], beta[3], z;
    F inverse;             // 1 / sum of the clamped g
    F weight;              // coverage, or the soft factor; 0 where the ray misses
    M hit, inside;         // inside the triangle itself
    F across[4], along[4];  // TriangleOutline
    F nearest;             // to the outline: soft, squared; antialiased, `outside` if < kFar, else the least distance inside
    F least_inside;
    F slope;               // soft: -d weight / d squared distance; antialiased: 1 on the ramp, else 0
    bool edged;            // some ray is where the outline matters
};

constexpr real kFar = real(1e30);

// What the outline does to `hit` and `weight`. Soft.
SM_FN void soft_outline(const TriangleRecord& r, const Rays& rays, TriangleHit& h) {
    const TriangleOutline& o = r.outline;
    h.weight = splat(1);
    h.slope = splat(0);
    h.edged = any(lt(min_of(h.g[0], min_of(h.g[1], h.g[2])), splat(0)));
    h.hit = ge(splat(0), splat(0));
    if (!h.edged) return;
    affine_lanes(o.across, o.count, rays, h.across);
    affine_lanes(o.along, o.count, rays, h.along);
    h.nearest = splat(kFar);
    for (int s = 0; s < o.count; s++) {
        const F beyond = h.along[s] - min_of(max_of(h.along[s], splat(0)), splat(o.length[s]));
        h.nearest = min_of(h.nearest, fma(h.across[s], h.across[s], beyond * beyond));
    }
    const F squared = select(h.inside, splat(0), h.nearest), exponent = squared * splat(r.falloff);
    h.hit = ge(splat(real(kSoftCut)), exponent);
    const F factor = exp_of(-exponent);
    h.weight = factor;
    F steepness = splat(1);  // d weight / d factor
    if (r.smooth) {
        const F x = min_of(max_of(fma(factor, splat(real(1e4)), splat(-1)), splat(0)), splat(1));
        const F ramp = x * x * fnma(splat(2), x, splat(3));
        h.weight = factor * ramp;
        steepness = fma(factor * splat(real(6e4)), x * (splat(1) - x), ramp);
    }
    h.slope = select(h.inside, splat(0), steepness * factor * splat(r.falloff));
}

// Antialiased; interior edges have been looked at before.
SM_FN void antialiased_outline(const TriangleRecord& r, const Rays& rays, TriangleHit& h) {
    const TriangleOutline& o = r.outline;
    affine_lanes(o.across, o.count, rays, h.across);
    affine_lanes(o.along, o.count, rays, h.along);
    h.nearest = h.least_inside = splat(kFar);
    for (int s = 0; s < o.count; s++) {
        if (!o.silhouette[s]) continue;
        const F beyond = h.along[s] - min_of(max_of(h.along[s], splat(0)), splat(o.length[s]));
        const F squared = fma(h.across[s], h.across[s], beyond * beyond);
        const M out = lt(h.across[s], splat(0));
        h.nearest = select(out, min_of(h.nearest, squared), h.nearest);
        h.least_inside = select(out, h.least_inside, min_of(h.least_inside, h.across[s]));
    }
    const M outside = lt(h.nearest, splat(kFar));
    const F distance = select(outside, -sqrt_of(min_of(h.nearest, splat(1))), min_of(h.least_inside, splat(1)));
    const F coverage = distance + splat(real(0.5));
    h.weight = min_of(max_of(coverage, splat(0)), splat(1));
    h.hit = both(h.hit, gt(coverage, splat(0)));
    h.slope = zero_unless(both(h.hit, lt(coverage, splat(1))), splat(1));
    h.edged = any(gt(h.slope, splat(0)));
}

SM_FN F from_lanes(const real* values) {
#ifdef SMALTI_CUDA
    return values[0];
#else
    return load_lanes(values);
#endif
}

// Rays that the edges' signs do not place for certain: looked at one by one. Rare, unless vertices lie on pixel centres.
SMALTI_APART M triangle_doubts(const KindInput& in, const CameraValues& cam, const TriangleRecord& r, int k, const Rays& rays, const F* f,
                               M hit, M doubt) {
    TriangleView t;
    triangle_view(in, cam, k, t);
    real inside[kLanes];
    for (int l = 0; l < kLanes; l++) {
        inside[l] = lane(hit, l) ? 1 : 0;
        if (!lane(doubt, l)) continue;
        for (int i = 0; i < 3; i++)
            if (!(at(f[i], l) > r.sure[i]) && !triangle_owns(t, cam, i, at(rays.x, l), at(rays.y, l))) inside[l] = 0;
    }
    return gt(from_lanes(inside), splat(0));
}

// False where no ray of the block hits.
template <int mode>
SM_FN bool triangle_hit(const KindInput& in, const CameraValues& cam, const TriangleRecord& r, int k, const Rays& rays, TriangleHit& h) {
    F f[3];
    affine_lanes(r.edges, 3, rays, f);
    if (mode != kSoft) {
        h.hit = both(gt(f[0], splat(r.open[0])), both(gt(f[1], splat(r.open[1])), gt(f[2], splat(r.open[2]))));
        if (!any(h.hit)) return false;
        const M sure = both(gt(f[0], splat(r.sure[0])), both(gt(f[1], splat(r.sure[1])), gt(f[2], splat(r.sure[2]))));
        const M doubt = lt(zero_unless(sure, splat(1)), zero_unless(h.hit, splat(1)));
        if (any(doubt)) {
            h.hit = triangle_doubts(in, cam, r, k, rays, f, h.hit, doubt);
            if (!any(h.hit)) return false;
        }
    }
    for (int i = 0; i < 3; i++) h.g[i] = f[i] * splat(r.k[i]);
    F sum = h.g[0] + h.g[1] + h.g[2];
    const F low = splat(r.s_low), high = splat(r.s_high);
    if (mode == kHard) {
        if (r.clipped) h.hit = both(h.hit, ge(high, sum));
        // Rays that miss stay near the triangle.
        h.z = h.inverse = recip(min_of(max_of(sum, low), high));
        for (int i = 0; i < 3; i++) h.beta[i] = zero_unless(h.hit, h.g[i] * h.z);
        h.weight = splat(1);
        h.inside = h.hit;
        h.edged = false;
        return r.clipped ? any(h.hit) : true;
    }
    const F zero = splat(0);
    h.inside = both(ge(h.g[0], zero), both(ge(h.g[1], zero), ge(h.g[2], zero)));
    if (mode == kSoft)
        soft_outline(r, rays, h);
    else
        antialiased_outline(r, rays, h);
    if (!any(h.hit)) return false;
    F clamped[3];
    for (int i = 0; i < 3; i++) clamped[i] = max_of(h.g[i], zero);
    sum = clamped[0] + clamped[1] + clamped[2];
    h.hit = both(h.hit, gt(sum, zero));
    h.inverse = recip(max_of(sum, low * splat(real(1e-6))));
    const F depth = fma(clamped[0], splat(r.z[0]), fma(clamped[1], splat(r.z[1]), clamped[2] * splat(r.z[2])));
    const F z = select(h.inside, splat(1), depth) * h.inverse;
    const F farthest = recip(low), closest = recip(high);
    if (r.clipped) h.hit = both(h.hit, ge(z, closest));
    h.z = min_of(max_of(z, closest), farthest);
    for (int i = 0; i < 3; i++) h.beta[i] = clamped[i] * h.inverse;
    return any(h.hit);
}

// A normal interpolated between corners, per pixel.
struct TriangleNormal {
    F unit[3], inverse;  // turned towards the camera; 1 / length, signed; 0 where there is none
};

SM_FN void triangle_normal(const KindInput& in, const CameraValues& cam, int k, const Rays& rays, const F* beta, TriangleNormal& n) {
    const real *corners = in.tensors[kNormals] + 9 * (long long)k, *R = cam.rotation;
    F squared = splat(0), along = splat(0);
    for (int j = 0; j < 3; j++) {
        const real first = corners[j];
        n.unit[j] = fma(beta[1], splat(corners[3 + j] - first), fma(beta[2], splat(corners[6 + j] - first), splat(first)));
        squared = fma(n.unit[j], n.unit[j], squared);
        const F ray = fma(rays.u, splat(R[j]), fma(rays.v, splat(R[3 + j]), splat(R[6 + j])));
        along = fma(n.unit[j], ray, along);
    }
    const F length = sqrt_of(squared), tiny = splat(real(1e-18));
    const F inverse = zero_unless(gt(length, tiny), splat(1) / max_of(length, tiny));
    n.inverse = select(gt(along, splat(0)), -inverse, inverse);
    for (int j = 0; j < 3; j++) n.unit[j] = n.unit[j] * n.inverse;
}

// 1, or -1 where the face's normal has to turn to face the ray: beyond a triangle seen almost edge-on.
SM_FN F face_turn(const CameraValues& cam, const TriangleRecord& r, const Rays& rays) {
    if (r.mode == kHard) return splat(1);
    const real *R = cam.rotation, *n = r.face_normal;
    const real x = R[0] * n[0] + R[1] * n[1] + R[2] * n[2], y = R[3] * n[0] + R[4] * n[1] + R[5] * n[2];
    const real z = R[6] * n[0] + R[7] * n[1] + R[8] * n[2];
    return select(gt(fma(rays.u, splat(x), fma(rays.v, splat(y), splat(z))), splat(0)), splat(-1), splat(1));
}

}  // namespace smalti
