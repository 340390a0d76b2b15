// Bilinear lookup in a triangle's texture, for a block of pixels. Texel centres lie at +0.5; clamped, or wrapped in u.
#pragma once
#include "triangle_project.h"
#include "voxels.h"

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

// The texture, or one of its coarser levels, as one triangle sees it.
struct TextureLevel {
    int tensor, offset;  // where it begins, reals
    int width, height;
    real scale[2];       // its texels per texel of the texture, x and y
    int texel[2];        // TriangleRecord::texel, and corner 0's place from there
    real first[2];
};

SM_FN int coarser(int size, int levels) { return size >> levels > 0 ? size >> levels : 1; }

SM_FN TextureLevel texture_level(const KindInput& in, const TriangleRecord& r, int number) {
    const int size[2] = {texture_width(in), texture_height(in)};
    TextureLevel level = {kTexture, 0, size[0], size[1], {1, 1}, {r.texel[0], r.texel[1]}, {r.attribute[0], r.attribute[3]}};
    if (number == 0) return level;
    level.tensor = kMipmaps;
    for (int k = 1; k < number; k++) level.offset += coarser(size[0], k) * coarser(size[1], k) * texture_depth(in);
    level.width = coarser(size[0], number), level.height = coarser(size[1], number);
    for (int c = 0; c < 2; c++) {
        const int texels = c ? level.height : level.width;
        const double scale = texels / (double)size[c], at = ((double)level.texel[c] + level.first[c] + 0.5) * scale - 0.5;
        const double whole = wide_max(wide_min(wide_floor(at), texels - 1), 0);
        level.scale[c] = (real)scale, level.texel[c] = (int)whole, level.first[c] = (real)(at - whole);
    }
    return level;
}

// Where a block of pixels looks: the texel above and to the left, steps to its neighbours (0 at a border), and how far beyond it.
struct TexturePlace {
    int base[kLanes], step_x[kLanes], step_y[kLanes];
    F fx, fy;
    M free_x, free_y;  // not clamped: moving the place moves the value
};

SM_FN void texture_place(const KindInput& in, const TriangleRecord& r, const TextureLevel& level, const F* beta, M hit, TexturePlace& place) {
    const int width = level.width, height = level.height, depth = texture_depth(in);
    const real *a = r.attribute, *scale = level.scale;
    // Rays that miss look at the first texel.
    F x = zero_unless(hit, fma(beta[1], splat(a[1] * scale[0]), fma(beta[2], splat(a[2] * scale[0]), splat(level.first[0]))));
    F y = zero_unless(hit, fma(beta[1], splat(a[4] * scale[1]), fma(beta[2], splat(a[5] * scale[1]), splat(level.first[1]))));
    const F left = splat((real)-level.texel[0]), right = splat((real)(width - 1 - level.texel[0]));
    const F top = splat((real)-level.texel[1]), bottom = splat((real)(height - 1 - level.texel[1]));
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
    F column = whole_x + splat((real)level.texel[0]);
    if (wraps) column = fnma(whole_part((column + splat(real(0.5))) * splat(real(1) / width)), splat((real)width), column);
    column = min_of(max_of(column, splat(0)), splat((real)(width - 1)));
    const F row = min_of(max_of(whole_y + splat((real)level.texel[1]), splat(0)), splat((real)(height - 1)));
#ifdef SMALTI_CUDA
    const int i = (int)column, j = (int)row;
    place.base[0] = level.offset + (j * width + i) * depth;
    place.step_x[0] = i + 1 < width ? depth : wraps ? -i * depth : 0;
    place.step_y[0] = j + 1 < height ? width * depth : 0;
#else
    const I i = truncated(column), j = truncated(row), base = (j * width + i) * depth + level.offset;
    const I step_x = select_int(le_int(i, splat_int(width - 2)), splat_int(depth), wraps ? -i * depth : I{});
    const I step_y = select_int(le_int(j, splat_int(height - 2)), splat_int(width * depth), I{});
    for (int k = 0; k < kLanes; k++) place.base[k] = (int)base[k], place.step_x[k] = (int)step_x[k], place.step_y[k] = (int)step_y[k];
#endif
}

// Values of three or four channels at the place and, if asked for, their derivatives along x and y (texels); 0 where a ray misses.
#ifdef SMALTI_CUDA
template <bool derivatives>
SM_FN void texture_values(const KindInput& in, int tensor, const TexturePlace& place, M hit, F* values, F* along_x, F* along_y) {
    const int depth = texture_depth(in);
    for (int c = 0; c < depth; c++) {
        values[c] = 0;
        if (derivatives) along_x[c] = along_y[c] = 0;
        if (!hit) continue;
        const real* p = in.tensors[tensor] + place.base[0] + c;
        const int x = place.step_x[0], y = place.step_y[0];
        const real upper = p[x] - p[0], lower = p[x + y] - p[y];
        const real above = fma(place.fx, upper, p[0]), below = fma(place.fx, lower, p[y]);
        values[c] = fma(place.fy, below - above, above);
        if (derivatives) {
            along_x[c] = zero_unless(place.free_x, fma(place.fy, lower - upper, upper));
            along_y[c] = zero_unless(place.free_y, below - above);
        }
    }
}
#else
// Four reals per lane, a texel. They are worked on one lane at a time and turned into lanes of channels in the end: lane k is kept
// where a 4 x 4 transposition within every 128 bits brings it to its place.
struct TexelLanes {
    alignas(64) real texel[kLanes][4];
    SM_FN void clear() { std::memset(texel, 0, sizeof texel); }
    SM_FN Voxel* at(int k) { return reinterpret_cast<Voxel*>(texel[k % 4 * (kLanes / 4) + k / 4]); }
    SM_FN void channels(F* out) const {
        F row[4];
        std::memcpy(row, texel, sizeof row);
#if defined(SMALTI_DOUBLE) || !defined(__SSE2__)
        for (int c = 0; c < 4; c++)
            for (int k = 0; k < kLanes; k++) out[c][k] = texel[k % 4 * (kLanes / 4) + k / 4][c];
#else
#if defined(__AVX512F__)
#define SMALTI_512(name, ...) _mm512_##name(__VA_ARGS__)
#elif defined(__AVX2__)
#define SMALTI_512(name, ...) _mm256_##name(__VA_ARGS__)
#else
#define SMALTI_512(name, ...) _mm_##name(__VA_ARGS__)
#endif
        const F a = SMALTI_512(unpacklo_ps, row[0], row[1]), b = SMALTI_512(unpacklo_ps, row[2], row[3]);
        const F c = SMALTI_512(unpackhi_ps, row[0], row[1]), d = SMALTI_512(unpackhi_ps, row[2], row[3]);
        out[0] = SMALTI_512(shuffle_ps, a, b, 0x44), out[1] = SMALTI_512(shuffle_ps, a, b, 0xee);
        out[2] = SMALTI_512(shuffle_ps, c, d, 0x44), out[3] = SMALTI_512(shuffle_ps, c, d, 0xee);
#undef SMALTI_512
#endif
    }
};

SM_FN Voxel texel_at(const real* p, const real* end) {
    Voxel v = {};
    if (p + 4 <= end)
        std::memcpy(&v, p, sizeof v);
    else  // the last of three channels
        v[0] = p[0], v[1] = p[1], v[2] = p[2];
    return v;
}

template <bool derivatives>
SM_FN void texture_values(const KindInput& in, int tensor, const TexturePlace& place, M hit, F* values, F* along_x, F* along_y) {
    const real *texture = in.tensors[tensor], *end = texture + in.sizes[tensor];
    TexelLanes value, slope_x, slope_y;
    value.clear();
    if (derivatives) slope_x.clear(), slope_y.clear();
    alignas(64) real fx[kLanes], fy[kLanes];
    std::memcpy(fx, &place.fx, sizeof fx), std::memcpy(fy, &place.fy, sizeof fy);
    for (LaneBits bits = bits_of(hit); bits; bits &= bits - 1) {
        const int k = first_lane(bits);
        const real *p = texture + place.base[k], *q = p + place.step_y[k];
        const Voxel v00 = texel_at(p, end), v10 = texel_at(p + place.step_x[k], end);
        const Voxel v01 = texel_at(q, end), v11 = texel_at(q + place.step_x[k], end);
        const Voxel upper = v10 - v00, lower = v11 - v01, above = v00 + fx[k] * upper, below = v01 + fx[k] * lower;
        *value.at(k) = above + fy[k] * (below - above);
        if (derivatives) *slope_x.at(k) = upper + fy[k] * (lower - upper), *slope_y.at(k) = below - above;
    }
    value.channels(values);
    if (!derivatives) return;
    slope_x.channels(along_x), slope_y.channels(along_y);
    for (int c = 0; c < 4; c++) along_x[c] = zero_unless(place.free_x, along_x[c]), along_y[c] = zero_unless(place.free_y, along_y[c]);
}
#endif

}  // namespace smalti
