// Lookups in a texture's coarser levels (docs/kinds.md, section 3): how many texels a pixel is wide, which levels that needs,
// and the way back, through what is looked up and through the width.
#pragma once
#include "triangle_finish.h"
#include "triangle_hit.h"
#include "triangle_texture.h"

namespace smalti {

// With G_mj the slopes of g_m along a pixel's x and y (j), S_j their sum over m and a_im by how many texels corner m lies further
// along texture axis i than corner 0, a step of one pixel crosses J_ij = z sum_m a_im (G_mj - beta_m S_j) texels.
struct TextureFootprint {
    real slope[3][2], sum[2];
    F texels[2][2];   // J, where the width is free
    F width;          // root of the mean square of J over all directions, between one texel of the finest and of the coarsest level
    M free;           // strictly between
    int first, last;  // levels that some ray looks at
};

SM_FN void texture_footprint(const KindInput& in, const TriangleRecord& r, const TriangleHit& h, TextureFootprint& f) {
    const real* a = r.attribute;
    for (int j = 0; j < 2; j++) {
        const double* along = j ? r.edges.gy : r.edges.gx;
        for (int m = 0; m < 3; m++) f.slope[m][j] = r.k[m] * (real)along[m];
        f.sum[j] = f.slope[0][j] + f.slope[1][j] + f.slope[2][j];
    }
    F squares = splat(0);
    for (int i = 0; i < 2; i++) {
        const real to1 = a[3 * i + 1], to2 = a[3 * i + 2];
        const F from_corner = fma(h.beta[1], splat(to1), h.beta[2] * splat(to2));
        for (int j = 0; j < 2; j++) {
            const F flat = splat(to1 * f.slope[1][j] + to2 * f.slope[2][j]);
            f.texels[i][j] = h.z * fnma(from_corner, splat(f.sum[j]), flat);
            squares = fma(f.texels[i][j], f.texels[i][j], squares);
        }
    }
    const int levels = texture_mipmaps(in);
    real coarsest = 1;
    for (int k = 0; k < levels; k++) coarsest *= 2;
    squares = squares * splat(real(0.5));
    const M within = ge(splat(coarsest * coarsest), squares);  // not where they overflow
    f.free = both(h.hit, both(gt(squares, splat(1)), gt(splat(coarsest * coarsest), squares)));
    for (int i = 0; i < 4; i++) f.texels[i / 2][i % 2] = zero_unless(f.free, f.texels[i / 2][i % 2]);
    f.width = select(within, sqrt_of(max_of(squares, splat(1))), splat(coarsest));
    const real least = least_lane(select(h.hit, f.width, splat(coarsest))), most = greatest_lane(select(h.hit, f.width, splat(1)));
    real size = 1;
    for (f.first = 0; f.first < levels && 2 * size <= least; f.first++) size *= 2;
    for (f.last = f.first; f.last < levels && size < most; f.last++) size *= 2;
}

// What level `number` counts, and by how much that changes with the width: two levels make the width, as a mean.
SM_FN F mipmap_share(const TextureFootprint& f, int number, M hit, M& seen, F& slope) {
    real size = 1;
    for (int k = 0; k < number; k++) size *= 2;
    const M finer = lt(f.width, splat(size));
    slope = select(finer, splat(2 / size), splat(-1 / size));
    const F share = fma(f.width, slope, select(finer, splat(-1), splat(2)));
    seen = both(hit, gt(share, splat(0)));
    return zero_unless(seen, share);
}

struct MipmapTexels {
    F values[4];
    F along_x[4], along_y[4], along_width[4];  // derivatives: along x and y of the texture (its own texels), and the width
};

template <bool derivatives>
SMALTI_APART MipmapTexels mipmap_texels(const KindInput& in, const TriangleRecord& r, const TriangleHit& h, const TextureFootprint& f) {
    const int depth = texture_depth(in);
    MipmapTexels all;
    for (int c = 0; c < 4; c++) all.values[c] = all.along_x[c] = all.along_y[c] = all.along_width[c] = splat(0);
    for (int k = f.first; k <= f.last; k++) {
        M seen;
        F slope;
        const F share = mipmap_share(f, k, h.hit, seen, slope);
        if (!any(seen)) continue;
        const TextureLevel level = texture_level(in, r, k);
        TexturePlace place;
        F values[4], along_x[4], along_y[4];
        texture_place(in, r, level, h.beta, seen, place);
        texture_values<derivatives>(in, level.tensor, place, seen, values, along_x, along_y);
        slope = zero_unless(both(f.free, seen), slope);
        const F across = share * splat(level.scale[0]), down = share * splat(level.scale[1]);
        for (int c = 0; c < depth; c++) {
            all.values[c] = fma(share, values[c], all.values[c]);
            if (!derivatives) continue;
            all.along_x[c] = fma(across, along_x[c], all.along_x[c]), all.along_y[c] = fma(down, along_y[c], all.along_y[c]);
            all.along_width[c] = fma(slope, values[c], all.along_width[c]);
        }
    }
    return all;
}

// Gradients of what was looked up, to the levels.
template <class Back>
SMALTI_APART void mipmap_texels_back(const KindInput& in, const TriangleRecord& r, const TriangleHit& h, const TextureFootprint& f,
                                     const F* gradient, Back& back) {
    const int depth = texture_depth(in);
    for (int k = f.first; k <= f.last; k++) {
        M seen;
        F slope, own[4];
        const F share = mipmap_share(f, k, h.hit, seen, slope);
        if (!any(seen)) continue;
        const TextureLevel level = texture_level(in, r, k);
        TexturePlace place;
        texture_place(in, r, level, h.beta, seen, place);
        for (int c = 0; c < depth; c++) own[c] = share * gradient[c];
        for (int l = 0; l < kLanes; l++)
            if (!lane(seen, l)) place.base[l] = -1;
        back.bilinear(level.tensor, place.base, place.step_x, place.step_y, place.fx, place.fy, own, depth);
    }
}

// Gradient of the width: to the corners' places in the texture, to the barycentrics 1 and 2 and the depth of the hit, and to the
// slopes of g on the screen (TriangleSums::footprint).
SMALTI_APART void texture_footprint_back(const TriangleRecord& r, const TriangleHit& h, const TextureFootprint& f, F gradient,
                                         const TriangleSums& s, F* sums, F& d1, F& d2, F& depth) {
    const real* a = r.attribute;
    const F inverse_z = recip(h.z), factor = gradient * h.z * recip(f.width + f.width);
    F of_sum[2] = {splat(0), splat(0)};
    for (int i = 0; i < 2; i++) {
        const real to1 = a[3 * i + 1], to2 = a[3 * i + 2];
        const F from_corner = fma(h.beta[1], splat(to1), h.beta[2] * splat(to2));
        F along1 = splat(0), along2 = splat(0);
        for (int j = 0; j < 2; j++) {
            const F felt = factor * f.texels[i][j], turned = felt * splat(f.sum[j]);
            sums[s.footprint + 2 * i + j] = sums[s.footprint + 2 * i + j] + felt;
            of_sum[j] = fnma(felt, from_corner, of_sum[j]);
            along1 = fma(felt, splat(f.slope[1][j]), fnma(turned, h.beta[1], along1));
            along2 = fma(felt, splat(f.slope[2][j]), fnma(turned, h.beta[2], along2));
            d1 = fnma(turned, splat(to1), d1), d2 = fnma(turned, splat(to2), d2);
        }
        F* corner = sums + s.attribute + i;
        corner[0] = corner[0] - (along1 + along2), corner[2] = corner[2] + along1, corner[4] = corner[4] + along2;
    }
    for (int j = 0; j < 2; j++) sums[s.footprint + 4 + j] = sums[s.footprint + 4 + j] + of_sum[j];
    depth = fma(gradient * f.width, inverse_z, depth);
}

}  // namespace smalti
