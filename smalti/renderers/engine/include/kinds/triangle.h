// Kind `triangle`: one thin event per pixel, hard, antialiased or soft at its edges (docs/kinds.md, section 3).
//
// Per pixel there are three edge functions f_i, affine on the screen; g_i = k_i f_i = w_i / det, 1/z = g_0 + g_1 + g_2 and
// beta_i = g_i z. Where an edge passes a pixel centre so closely that rounding would decide who owns it, an exact test does.
#pragma once
#include "triangle_mipmap.h"
#ifndef SMALTI_CUDA
#include "../composite_cpu.h"
#endif

namespace smalti {

// `mipmapped`: whether some may have mipmaps. On CUDA their calls would cost all others registers.
template <bool mipmapped>
struct Triangles {
    typedef TriangleRecord Record;
    static constexpr bool kConstantChannels = false;
    static constexpr int kTableTensors = 1 << kTexture | 1 << kMipmaps;

    SM_FN static int moments(const KindInput& in, const ViewOptions& view) { return triangle_sums(in, view.normals).count; }

    SM_FN static void project(const KindInput& in, const CameraValues& cam, const ViewOptions& view, int k, Record& r, Bounds& b, real*) {
        triangle_project(in, cam, view, k, r, b);
    }

    SM_FN static bool touches(const Record& r, real x0, real y0, real x1, real y1) { return triangle_touches(r, x0, y0, x1, y1); }

#ifndef SMALTI_CUDA
    // As `touches`, for all blocks of a tile at once, blocks in lanes.
    static BlockMask blocks(const Record& r, int x0, int y0) {
        struct Places {
            alignas(64) real column[kBlocks], row[kBlocks];
            constexpr Places() : column(), row() {
                for (int k = 0; k < kBlocks; k++) column[k] = real(k % kBlocksAcross * kBlockWidth), row[k] = real(k / kBlocksAcross * kBlockHeight);
            }
        };
        static constexpr Places places{};
        const AffineFour& e = r.edges;
        const real x = x0 + real(0.5), y = y0 + real(0.5), width = kBlockWidth - 1, height = kBlockHeight - 1;
        F corner[3];  // each edge function where it is largest in the first block, and how far that may be below zero
        for (int i = 0; i < 3; i++) corner[i] = splat(affine_at(e, i, x + (e.gx[i] > 0 ? width : 0), y + (e.gy[i] > 0 ? height : 0)) + r.reach[i]);
        BlockMask mask = 0;
        for (int k = 0; k < kBlocks; k += kLanes) {
            const F column = load_lanes(places.column + k), row = load_lanes(places.row + k);
            M met = both(both(ge(splat(r.right - x), column), ge(column, splat(r.left - x - width))),
                         both(ge(splat(r.bottom - y), row), ge(row, splat(r.top - y - height))));
            for (int i = 0; i < 3; i++)
                met = both(met, ge(fma(column, splat((real)e.gx[i]), fma(row, splat((real)e.gy[i]), corner[i])), splat(0)));
            mask |= (BlockMask)bits_of(met) << k;
        }
        return mask;
    }
#endif

    template <class Sink>
    SM_FN static void emit(const KindInput& in, const CameraValues& cam, const Record& r, int k, const Rays& rays, Sink& sink) {
        TriangleHit h;
        const bool some = r.mode == kHard   ? triangle_hit<kHard>(in, cam, r, k, rays, h)
                          : r.mode == kSoft ? triangle_hit<kSoft>(in, cam, r, k, rays, h)
                                            : triangle_hit<kAntialiased>(in, cam, r, k, rays, h);
        if (!some) return;
        F channels[kTriangleChannels];
        F alpha = splat(min_of_real(max_of_real(r.opacity, 0), 1));
        if (in.tensors[kTexture]) {
            F values[4];
            if (mipmapped && texture_mipmaps(in)) {
                const TriangleHit own = h;  // what goes to functions that stand apart cannot stay in registers
                TextureFootprint footprint;
                texture_footprint(in, r, own, footprint);
                const MipmapTexels texels = mipmap_texels<false>(in, r, own, footprint);
                for (int c = 0; c < 4; c++) values[c] = texels.values[c];
            } else {
                TexturePlace place;
                texture_place(in, r, texture_level(in, r, 0), h.beta, h.hit, place);
                texture_values<false>(in, kTexture, place, h.hit, values, nullptr, nullptr);
            }
            keep_finite(h.hit, values, texture_depth(in));
            for (int c = 0; c < 3; c++) channels[c] = values[c];
            if (texture_depth(in) == 4) alpha = min_of(max_of(splat(r.opacity) * values[3], splat(0)), splat(1));
        } else {
            for (int c = 0; c < 3; c++) channels[c] = interpolated(h, r.attribute[3 * c], r.attribute[3 * c + 1], r.attribute[3 * c + 2]);
        }
        const int own = triangle_features(in);
        const real* features = own ? in.tensors[kCornerFeatures] + 3 * (long long)k * own : nullptr;
        for (int c = 0; c < own; c++)
            channels[3 + c] = interpolated(h, features[c], features[own + c] - features[c], features[2 * own + c] - features[c]);
        for (int c = 3 + own; c < r.channels; c++) channels[c] = splat(0);
        TriangleNormal n;
        if (r.normals || sink.wants_local) {
            if (in.tensors[kNormals]) {
                triangle_normal(in, cam, k, rays, h.beta, n);
            } else {
                const F turn = face_turn(cam, r, rays);
                for (int j = 0; j < 3; j++) n.unit[j] = turn * splat(r.face_normal[j]);
            }
            for (int j = 0; j < (r.normals ? 3 : 0); j++) channels[r.normals + j] = n.unit[j];
        }
        sink.thin(h.z, zero_unless(h.hit, alpha * h.weight), channels);
        if (sink.wants_local) sink.local(h.beta, n.unit);
    }

    template <class Back>
    SM_FN static void emit_back(const KindInput& in, const CameraValues& cam, const Record& r, int k, const Rays& rays, Back& back, F* sums) {
        if (r.mode == kHard)
            back_in_mode<kHard>(in, cam, r, k, rays, back, sums);
        else if (r.mode == kSoft)
            back_in_mode<kSoft>(in, cam, r, k, rays, back, sums);
        else
            back_in_mode<kAntialiased>(in, cam, r, k, rays, back, sums);
    }

    SM_FN static void finish(const KindInput& in, const CameraValues& cam, const ViewOptions& view, int k, const Record& r, const real* sums,
                             const real*, const KindGradient& out, double* camera) {
        triangle_finish(in, cam, view, k, r, sums, out, camera);
    }

private:
    SM_FN static real min_of_real(real a, real b) { return a < b ? a : b; }
    SM_FN static real max_of_real(real a, real b) { return a > b ? a : b; }

    SM_FN static F interpolated(const TriangleHit& h, real first, real to1, real to2) {
        return fma(h.beta[1], splat(to1), fma(h.beta[2], splat(to2), splat(first)));
    }

    // Rays that look at a texel which is not finite miss.
    SM_FN static void keep_finite(M& hit, F* values, int channels) {
        F sum = values[0] * splat(0);
        for (int c = 1; c < channels; c++) sum = fma(values[c], splat(0), sum);
        hit = both(hit, ge(splat(0), abs_of(sum)));
        for (int c = 0; c < channels; c++) values[c] = zero_unless(hit, values[c]);
    }

    // Adds a channel's gradient to its three corners' sums, and to the derivatives with respect to barycentrics 1 and 2.
    SM_FN static void corner_sums(const TriangleHit& h, F g, F* sums, int stride) {
        for (int i = 0; i < 3; i++) sums[i * stride] = fma(h.beta[i], g, sums[i * stride]);
    }

    // The outline's corners on the screen, from d loss / d weight.
    template <int mode>
    SM_FN static void outline_sums(const Record& r, const TriangleHit& h, F g, F* sums) {
        const TriangleOutline& o = r.outline;
        const F zero = splat(0);
        F left = mode == kSoft ? splat(2) * g * h.slope : g * h.slope;  // each ray's share goes to one segment
        const M outside = mode == kSoft ? ge(zero, zero) : lt(h.nearest, splat(kFar));
        for (int s = 0; s < o.count; s++) {
            if (mode != kSoft && !o.silhouette[s]) continue;
            const F bounded = min_of(max_of(h.along[s], zero), splat(o.length[s])), beyond = h.along[s] - bounded;
            const F squared = fma(h.across[s], h.across[s], beyond * beyond);
            const F inverse_length = splat(o.inverse[s]), before = splat(o.share[s]);
            F a = h.across[s], b = beyond, share = fma(bounded, inverse_length, before);
            M mine = ge(h.nearest, squared);
            if (mode != kSoft) {
                const M out = lt(h.across[s], zero);
                mine = either(both(out, mine), both(gt(zero, select(outside, splat(1), -splat(1))), ge(h.least_inside, h.across[s])));
                const F inverse = splat(1) / sqrt_of(max_of(squared, splat(real(1e-30))));
                a = select(out, a * inverse, splat(-1));
                b = zero_unless(out, b * inverse);
                share = select(out, share, fma(h.along[s], inverse_length, before));
            }
            const F weight = zero_unless(mine, left);
            left = left - weight;
            const F x = weight * fma(a, splat((real)o.across.gx[s]), b * splat((real)o.along.gx[s]));
            const F y = weight * fma(a, splat((real)o.across.gy[s]), b * splat((real)o.along.gy[s]));
            F *begin = sums + 2 * s, *end = sums + (s + 1 == o.count ? 0 : 2 * s + 2);
            const F rest = splat(1) - share;
            begin[0] = fma(rest, x, begin[0]), begin[1] = fma(rest, y, begin[1]);
            end[0] = fma(share, x, end[0]), end[1] = fma(share, y, end[1]);
        }
    }

    template <int mode, class Back>
    SM_FN static void back_in_mode(const KindInput& in, const CameraValues& cam, const Record& r, int k, const Rays& rays, Back& back, F* sums) {
        TriangleHit h;
        if (!triangle_hit<mode>(in, cam, r, k, rays, h)) return;
        const EventGradient& gradient = back.next();
        const TriangleSums s = triangle_sums(in, r.normals);
        const bool detached = triangle_detached(in);
        const F zero = splat(0);
        F value = zero_unless(h.hit, gradient.value), depth = zero_unless(h.hit, gradient.z0);
        F d1 = zero, d2 = zero;  // d loss / d beta_1 and beta_2, beta_0 being the rest
        F opacity = splat(min_of_real(max_of_real(r.opacity, 0), 1)), of_opacity = h.weight;
        if (in.tensors[kTexture]) {
            const int channels = texture_depth(in), mipmaps = mipmapped ? texture_mipmaps(in) : 0;
            TexturePlace place;
            TextureFootprint footprint;
            MipmapTexels texels;
            F values[4], along_x[4], along_y[4], g[4], gx = zero, gy = zero;
            if (mipmaps) {
                const TriangleHit own = h;
                texture_footprint(in, r, own, footprint);
                texels = mipmap_texels<true>(in, r, own, footprint);
                for (int c = 0; c < 4; c++) values[c] = texels.values[c], along_x[c] = texels.along_x[c], along_y[c] = texels.along_y[c];
            } else {
                texture_place(in, r, texture_level(in, r, 0), h.beta, h.hit, place);
                texture_values<true>(in, kTexture, place, h.hit, values, along_x, along_y);
            }
            keep_finite(h.hit, values, channels);
            value = zero_unless(h.hit, value), depth = zero_unless(h.hit, depth);
            for (int c = 0; c < channels; c++) along_x[c] = zero_unless(h.hit, along_x[c]), along_y[c] = zero_unless(h.hit, along_y[c]);
            for (int c = 0; c < 3; c++) g[c] = zero_unless(h.hit, gradient.channels[c]);
            if (channels == 4) {
                const F product = splat(r.opacity) * values[3];
                const M linear = both(ge(product, zero), ge(splat(1), product));
                opacity = min_of(max_of(product, zero), splat(1));
                of_opacity = zero_unless(linear, h.weight * values[3]);
                g[3] = zero_unless(linear, value * h.weight * splat(r.opacity));
            }
            for (int c = 0; c < channels; c++) gx = fma(g[c], along_x[c], gx), gy = fma(g[c], along_y[c], gy);
            corner_sums(h, gx, sums + s.attribute, 2);
            corner_sums(h, gy, sums + s.attribute + 1, 2);
            d1 = fma(gx, splat(r.attribute[1]), gy * splat(r.attribute[4]));
            d2 = fma(gx, splat(r.attribute[2]), gy * splat(r.attribute[5]));
            if (mipmaps) {
                const TriangleHit own = h;
                mipmap_texels_back(in, r, own, footprint, g, back);
                F felt = zero;
                for (int c = 0; c < channels; c++) felt = fma(g[c], zero_unless(h.hit, texels.along_width[c]), felt);
                F of_1 = zero, of_2 = zero, of_z = zero;
                if (any(not_zero(felt))) texture_footprint_back(r, own, footprint, felt, s, sums, of_1, of_2, of_z);
                if (!detached) d1 = d1 + of_1, d2 = d2 + of_2, depth = depth + of_z;
            } else {
                for (int l = 0; l < kLanes; l++)
                    if (!lane(h.hit, l)) place.base[l] = -1;
                back.bilinear(kTexture, place.base, place.step_x, place.step_y, place.fx, place.fy, g, channels);
            }
        } else {
            for (int c = 0; c < 3; c++) {
                const F g = zero_unless(h.hit, gradient.channels[c]);
                corner_sums(h, g, sums + s.attribute + c, 3);
                d1 = fma(g, splat(r.attribute[3 * c + 1]), d1), d2 = fma(g, splat(r.attribute[3 * c + 2]), d2);
            }
        }
        sums[0] = fma(value, of_opacity, sums[0]);
        const int own = triangle_features(in);
        const real* features = own ? in.tensors[kCornerFeatures] + 3 * (long long)k * own : nullptr;
        for (int c = 0; c < own; c++) {
            const F g = zero_unless(h.hit, gradient.channels[3 + c]);
            corner_sums(h, g, sums + s.features + 3 * c, 1);
            d1 = fma(g, splat(features[own + c] - features[c]), d1), d2 = fma(g, splat(features[2 * own + c] - features[c]), d2);
        }
        if (r.normals) normal_sums(in, cam, r, k, rays, h, gradient.channels + r.normals, sums + s.normals, d1, d2);
        if (gradient.local) {
            const F first = gradient.local[0];
            d1 = d1 + zero_unless(h.hit, gradient.local[1] - first), d2 = d2 + zero_unless(h.hit, gradient.local[2] - first);
        }
        if (mode != kHard && h.edged) outline_sums<mode>(r, h, value * opacity, sums + s.outline);
        if (detached) d1 = d2 = zero;
        if (!detached || any(not_zero(depth))) place_sums<mode>(r, h, d1, d2, depth, s, sums);
    }

    SM_FN static void normal_sums(const KindInput& in, const CameraValues& cam, const Record& r, int k, const Rays& rays, const TriangleHit& h,
                                  const F* gradient, F* sums, F& d1, F& d2) {
        F g[3];
        for (int j = 0; j < 3; j++) g[j] = zero_unless(h.hit, gradient[j]);
        if (!in.tensors[kNormals]) {
            const F turn = face_turn(cam, r, rays);
            for (int j = 0; j < 3; j++) sums[j] = fma(turn, g[j], sums[j]);
            return;
        }
        TriangleNormal n;
        triangle_normal(in, cam, k, rays, h.beta, n);
        const real* corners = in.tensors[kNormals] + 9 * (long long)k;
        const F along = fma(g[0], n.unit[0], fma(g[1], n.unit[1], g[2] * n.unit[2]));
        for (int j = 0; j < 3; j++) {
            const F before = fnma(along, n.unit[j], g[j]) * n.inverse;
            corner_sums(h, before, sums + j, 3);
            d1 = fma(before, splat(corners[3 + j] - corners[j]), d1), d2 = fma(before, splat(corners[6 + j] - corners[j]), d2);
        }
    }

    // Where the corners are, from the derivatives with respect to barycentrics and depth (TriangleSums).
    template <int mode>
    SM_FN static void place_sums(const Record& r, const TriangleHit& h, F d1, F d2, F depth, const TriangleSums& s, F* sums) {
        const F mean = fma(d1, h.beta[1], d2 * h.beta[2]), plane = fma(depth, h.z, mean);
        if (mode == kHard) {
            for (int j = 0; j < 3; j++) {
                sums[s.side1 + j] = fma(d1, h.beta[j], sums[s.side1 + j]);
                sums[s.side2 + j] = fma(d2, h.beta[j], sums[s.side2 + j]);
                sums[s.plane + j] = fma(plane, h.beta[j], sums[s.plane + j]);
            }
            return;
        }
        // d loss / d g_i; outside of the triangle only of those that are positive, and z is a mean of the corners'.
        const F zero = splat(0), derivative[3] = {zero, d1, d2};
        F g[3];
        for (int i = 0; i < 3; i++) {
            const F clamped = zero_unless(gt(h.g[i], zero), fma(depth, splat(r.z[i]) - h.z, derivative[i] - mean));
            g[i] = select(h.inside, derivative[i] - plane, clamped) * h.inverse;
            sums[s.depth + i] = sums[s.depth + i] + select(h.inside, zero, depth * h.beta[i]);
        }
        for (int j = 0; j < 3; j++) {
            sums[s.side1 + j] = fma(g[1] - g[0], h.g[j], sums[s.side1 + j]);
            sums[s.side2 + j] = fma(g[2] - g[0], h.g[j], sums[s.side2 + j]);
            sums[s.plane + j] = fnma(g[0], h.g[j], sums[s.plane + j]);
        }
    }
};

typedef Triangles<true> TriangleKind;
typedef Triangles<false> PlainTriangleKind;

}  // namespace smalti
