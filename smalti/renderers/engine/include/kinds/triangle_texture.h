// Bilinear lookup in a triangle's texture, for a block of pixels. Texel centres lie at +0.5; clamped, or wrapped in u.
#pragma once
#include "triangle_project.h"

namespace smalti {

SM_FN F whole_part(F x) {
#if defined(SMALTI_CUDA) && defined(SMALTI_DOUBLE)
    return ::floor(x);
#elif defined(SMALTI_CUDA)
    return ::floorf(x);
#else
    // Adding 1.5 * 2^23 (2^52 in double) rounds to the nearest integer; places in a texture are far below that.
    const F magic = splat(sizeof(real) == 4 ? real(12582912.0) : real(6755399441055744.0)), rounded = (x + magic) - magic;
    return rounded - zero_unless(gt(rounded, x), splat(1));
#endif
}

SM_FN int whole_lane(F x, int k) { return (int)at(x, k); }

// Where a block of pixels looks: the texel above and to the left, steps to its neighbours (0 at a border), and how far beyond it.
struct TexturePlace {
    int base[kLanes], step_x[kLanes], step_y[kLanes];
    F fx, fy;
    M free_x, free_y;  // not clamped: moving the place moves the value
};

SM_FN void texture_place(const KindInput& in, const TriangleRecord& r, const F* beta, M hit, TexturePlace& place) {
    const int width = texture_width(in), height = texture_height(in), depth = texture_depth(in);
    const real* a = r.attribute;
    // Rays that miss look at the first texel.
    F x = zero_unless(hit, fma(beta[1], splat(a[1]), fma(beta[2], splat(a[2]), splat(a[0]))));
    F y = zero_unless(hit, fma(beta[1], splat(a[4]), fma(beta[2], splat(a[5]), splat(a[3]))));
    const F left = splat((real)-r.texel[0]), right = splat((real)(width - 1 - r.texel[0]));
    const F top = splat((real)-r.texel[1]), bottom = splat((real)(height - 1 - r.texel[1]));
    place.free_x = both(ge(x, left), ge(right, x));
    place.free_y = both(ge(y, top), ge(bottom, y));
    y = min_of(max_of(y, top), bottom);
    const bool wraps = texture_wraps(in);
    if (wraps)
        place.free_x = ge(splat(0), splat(0));
    else
        x = min_of(max_of(x, left), right);
    const F whole_x = whole_part(x), whole_y = whole_part(y);
    place.fx = x - whole_x, place.fy = y - whole_y;
    F column = whole_x + splat((real)r.texel[0]);
    if (wraps) column = fnma(whole_part((column + splat(real(0.5))) * splat(real(1) / width)), splat((real)width), column);
    column = min_of(max_of(column, splat(0)), splat((real)(width - 1)));
    const F row = min_of(max_of(whole_y + splat((real)r.texel[1]), splat(0)), splat((real)(height - 1)));
    for (int k = 0; k < kLanes; k++) {
        const int i = whole_lane(column, k), j = whole_lane(row, k);
        place.base[k] = (j * width + i) * depth;
        place.step_x[k] = i + 1 < width ? depth : wraps ? -i * depth : 0;
        place.step_y[k] = j + 1 < height ? width * depth : 0;
    }
}

// Values of `depth` channels at the place and, if asked for, their derivatives along x and y (texels).
template <bool derivatives>
SM_FN void texture_values(const real* texture, const TexturePlace& place, int depth, F* values, F* along_x, F* along_y) {
    int corner[3][kLanes];
    for (int k = 0; k < kLanes; k++) {
        corner[0][k] = place.base[k] + place.step_x[k];
        corner[1][k] = place.base[k] + place.step_y[k];
        corner[2][k] = corner[0][k] + place.step_y[k];
    }
    for (int c = 0; c < depth; c++) {
        const F v00 = gather(texture, place.base, 1, c), v10 = gather(texture, corner[0], 1, c);
        const F v01 = gather(texture, corner[1], 1, c), v11 = gather(texture, corner[2], 1, c);
        const F upper = v10 - v00, lower = v11 - v01;
        const F above = fma(place.fx, upper, v00), below = fma(place.fx, lower, v01);
        values[c] = fma(place.fy, below - above, above);
        if (derivatives) {
            along_x[c] = zero_unless(place.free_x, fma(place.fy, lower - upper, upper));
            along_y[c] = zero_unless(place.free_y, below - above);
        }
    }
}

}  // namespace smalti
