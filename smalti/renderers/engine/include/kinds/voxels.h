// Trilinear lookup in a grid of voxels, for a block of rays: the value, its slope, and the way back into the grid.
//
// Coordinates and weights are computed in lanes. The voxels themselves lie all over the grid, but the channels of one voxel, and of
// its neighbour along x, lie side by side: so on a CPU each lane loads pairs of voxels as vectors, instead of gathering reals.
#pragma once
#include "kind.h"

namespace smalti {

// One primitive's grid: `size` voxels along x, y, z, `channels` reals each, x fastest.
struct VoxelGrid {
    const real* values;
    int size[3], channels;
    int step[3];  // reals to the next voxel; 0 along an axis with one voxel
};

SM_FN VoxelGrid voxel_grid(const real* tensor, const int* depth_height_width, int channels, int k) {
    VoxelGrid grid;
    long long stride = channels;
    for (int j = 0; j < 3; j++) {
        grid.size[j] = depth_height_width[2 - j];
        grid.step[j] = grid.size[j] > 1 ? (int)stride : 0;
        stride *= grid.size[j];
    }
    grid.values = tensor + k * stride;
    grid.channels = channels;
    return grid;
}

#ifdef SMALTI_CUDA
typedef int LaneBits;
SM_FN LaneBits bits_of(M m) { return m; }
SM_FN I truncated(F x) { return (int)x; }
SM_FN F number_of(I x) { return (F)x; }
SM_FN I least_of(I a, int b) { return a < b ? a : b; }
SM_FN int first_lane(LaneBits) { return 0; }
SM_FN real least_lane(F x) { return x; }
SM_FN real greatest_lane(F x) { return x; }
#else
typedef unsigned LaneBits;
SM_FN LaneBits bits_of(M m) {
#if defined(__AVX512F__) && !defined(SMALTI_DOUBLE)
    return m;
#elif defined(__AVX2__) && !defined(SMALTI_DOUBLE)
    return (unsigned)_mm256_movemask_ps((__m256)m);
#else
    unsigned bits = 0;
    for (int k = 0; k < kLanes; k++) bits |= (unsigned)lane(m, k) << k;
    return bits;
#endif
}
SM_FN I truncated(F x) { return __builtin_convertvector(x, I); }
SM_FN F number_of(I x) { return __builtin_convertvector(x, F); }
SM_FN I least_of(I a, int b) { return select_int(le_int(a, splat_int(b)), a, splat_int(b)); }
SM_FN int first_lane(LaneBits bits) { return __builtin_ctz(bits); }
SM_FN real least_lane(F x) {
    real least = x[0];
    for (int k = 1; k < kLanes; k++) least = x[k] < least ? x[k] : least;
    return least;
}
SM_FN real greatest_lane(F x) { return -least_lane(-x); }
#endif

// Where a block of rays looks: the corner nearest to the origin, in reals from the grid's begin, and how far beyond it.
struct VoxelPlace {
    I corner;
    F beyond[3];  // 0..1
};

// `y` in [-1, 1]^3, corner-aligned: -1 is the centre of the first voxel, +1 of the last.
SM_FN VoxelPlace voxel_place(const VoxelGrid& grid, const F* y) {
    VoxelPlace place;
    I whole[3];
    for (int j = 0; j < 3; j++) {
        const real half = real(0.5) * (grid.size[j] - 1);
        const F g = min_of(max_of(fma(y[j], splat(half), splat(half)), splat(0)), splat(2 * half));
        whole[j] = least_of(truncated(g), grid.size[j] > 1 ? grid.size[j] - 2 : 0);
        place.beyond[j] = g - number_of(whole[j]);
    }
    place.corner = ((whole[2] * grid.size[1] + whole[1]) * grid.size[0] + whole[0]) * grid.channels;
    return place;
}

// ------------------------------------------------------------------ three or four channels, one lane at a time
#ifdef SMALTI_CUDA
template <int channels>
SM_FN void voxel_values(const VoxelGrid& grid, const VoxelPlace& place, LaneBits, F* values) {
    const real *p = grid.values + place.corner, *f = place.beyond;
    const int *s = grid.step;
    for (int c = 0; c < channels; c++) {
        real v[4];
        for (int j = 0; j < 4; j++) {
            const real* q = p + (j & 1) * s[1] + (j >> 1) * s[2] + c;
            v[j] = fma(f[0], q[s[0]] - q[0], q[0]);
        }
        const real a = fma(f[1], v[1] - v[0], v[0]), b = fma(f[1], v[3] - v[2], v[2]);
        values[c] = fma(f[2], b - a, a);
    }
}

// slope[j] = sum_c gradient[c] d value[c] / d y[j].
template <int channels>
SM_FN void voxel_slope(const VoxelGrid& grid, const VoxelPlace& place, LaneBits, const F* gradient, F* slope) {
    const real *p = grid.values + place.corner, *f = place.beyond;
    const int* s = grid.step;
    slope[0] = slope[1] = slope[2] = 0;
    for (int c = 0; c < channels; c++) {
        real v[4], d[4];
        for (int j = 0; j < 4; j++) {
            const real* q = p + (j & 1) * s[1] + (j >> 1) * s[2] + c;
            d[j] = q[s[0]] - q[0];
            v[j] = fma(f[0], d[j], q[0]);
        }
        const real da = fma(f[1], d[1] - d[0], d[0]), db = fma(f[1], d[3] - d[2], d[2]);
        const real a = fma(f[1], v[1] - v[0], v[0]), b = fma(f[1], v[3] - v[2], v[2]);
        slope[0] = fma(gradient[c], fma(f[2], db - da, da), slope[0]);
        slope[1] = fma(gradient[c], fma(f[2], (v[3] - v[2]) - (v[1] - v[0]), v[1] - v[0]), slope[1]);
        slope[2] = fma(gradient[c], b - a, slope[2]);
    }
    for (int j = 0; j < 3; j++) slope[j] *= real(0.5) * (grid.size[j] - 1);
}
#else
typedef real Voxel __attribute__((vector_size(4 * sizeof(real))));
typedef real VoxelPair __attribute__((vector_size(8 * sizeof(real))));  // a voxel and its neighbour along x

#if defined(__AVX__) && !defined(SMALTI_DOUBLE)
SM_FN Voxel low_of(VoxelPair p) { return _mm256_castps256_ps128(p); }
SM_FN Voxel high_of(VoxelPair p) { return _mm256_extractf128_ps(p, 1); }
#else
SM_FN Voxel low_of(VoxelPair p) { return Voxel{p[0], p[1], p[2], p[3]}; }
SM_FN Voxel high_of(VoxelPair p) { return Voxel{p[4], p[5], p[6], p[7]}; }
#endif
// a + f (b - a)
#if defined(__FMA__) && !defined(SMALTI_DOUBLE)
SM_FN VoxelPair between(real f, VoxelPair a, VoxelPair b) { return _mm256_fmadd_ps(_mm256_set1_ps(f), b - a, a); }
SM_FN Voxel between(real f, Voxel a, Voxel b) { return _mm_fmadd_ps(_mm_set1_ps(f), b - a, a); }
#else
SM_FN VoxelPair between(real f, VoxelPair a, VoxelPair b) { return a + f * (b - a); }
SM_FN Voxel between(real f, Voxel a, Voxel b) { return a + f * (b - a); }
#endif

// Four numbers per lane, to be read and written a lane at a time: lane k's lie at of(k).
struct VoxelQuads {
    alignas(64) real values[4][kLanes];
    SM_FN real* of(int k) { return values[k % 4] + k / 4 * 4; }
    SM_FN void put(int k, Voxel v) { std::memcpy(of(k), &v, sizeof v); }
    SM_FN Voxel get(int k) { return load_as<Voxel>(of(k)); }
    SM_FN void clear() { std::memset(values, 0, sizeof values); }
    // Rows of four within the quarters of a vector become columns, and back: so the lanes come out in their order.
    SM_FN static void turn(F* v) {
#if defined(__AVX512F__) && !defined(SMALTI_DOUBLE)
        const F a = _mm512_unpacklo_ps(v[0], v[1]), b = _mm512_unpackhi_ps(v[0], v[1]);
        const F c = _mm512_unpacklo_ps(v[2], v[3]), d = _mm512_unpackhi_ps(v[2], v[3]);
        v[0] = _mm512_shuffle_ps(a, c, 0x44), v[1] = _mm512_shuffle_ps(a, c, 0xee);
        v[2] = _mm512_shuffle_ps(b, d, 0x44), v[3] = _mm512_shuffle_ps(b, d, 0xee);
#elif defined(__AVX2__) && !defined(SMALTI_DOUBLE)
        const F a = _mm256_unpacklo_ps(v[0], v[1]), b = _mm256_unpackhi_ps(v[0], v[1]);
        const F c = _mm256_unpacklo_ps(v[2], v[3]), d = _mm256_unpackhi_ps(v[2], v[3]);
        v[0] = _mm256_shuffle_ps(a, c, 0x44), v[1] = _mm256_shuffle_ps(a, c, 0xee);
        v[2] = _mm256_shuffle_ps(b, d, 0x44), v[3] = _mm256_shuffle_ps(b, d, 0xee);
#else
        static_assert(kLanes == 4, "one quarter");
        const F a = v[0], b = v[1], c = v[2], d = v[3];
        for (int k = 0; k < 4; k++) v[k] = F{a[k], b[k], c[k], d[k]};
#endif
    }
    SM_FN void load(F* v) const {
        for (int j = 0; j < 4; j++) v[j] = load_lanes(values[j]);
        turn(v);
    }
    SM_FN void store(const F* v) {
        F own[4] = {v[0], v[1], v[2], v[3]};
        turn(own);
        std::memcpy(values, own, sizeof values);
    }
};

template <int channels>
SM_FN VoxelPair voxel_pair(const real* p, int step_x) {
    VoxelPair pair = {};
    if (channels == 4 && step_x) {
        std::memcpy(&pair, p, sizeof pair);
    } else {
        for (int c = 0; c < channels; c++) pair[c] = p[c], pair[4 + c] = p[step_x + c];
    }
    return pair;
}

// Places as arrays: lanes are taken one by one here.
struct VoxelLanes {
    lane_int corner[kLanes];
    real beyond[3][kLanes];
    SM_FN explicit VoxelLanes(const VoxelPlace& place) {
        std::memcpy(corner, &place.corner, sizeof corner);
        std::memcpy(beyond, place.beyond, sizeof beyond);
    }
};

template <int channels>
SM_FN void voxel_values(const VoxelGrid& grid, const VoxelPlace& place, LaneBits bits, F* values) {
    const VoxelLanes at(place);
    const int *s = grid.step;
    VoxelQuads out;
    out.clear();
    for (; bits; bits &= bits - 1) {
        const int k = first_lane(bits);
        const real* p = grid.values + at.corner[k];
        const VoxelPair a = between(at.beyond[2][k], voxel_pair<channels>(p, s[0]), voxel_pair<channels>(p + s[2], s[0]));
        const VoxelPair b = between(at.beyond[2][k], voxel_pair<channels>(p + s[1], s[0]), voxel_pair<channels>(p + s[1] + s[2], s[0]));
        const VoxelPair c = between(at.beyond[1][k], a, b);
        out.put(k, between(at.beyond[0][k], low_of(c), high_of(c)));
    }
    F all[4];
    out.load(all);
    for (int j = 0; j < channels; j++) values[j] = all[j];
}

// slope[j] = sum_c gradient[c] d value[c] / d y[j].
template <int channels>
SM_FN void voxel_slope(const VoxelGrid& grid, const VoxelPlace& place, LaneBits bits, const F* gradient, F* slope) {
    const VoxelLanes at(place);
    const int* s = grid.step;
    VoxelQuads weights, out[3];
    F all[4] = {};
    for (int j = 0; j < channels; j++) all[j] = gradient[j];
    weights.store(all);
    for (VoxelQuads& o : out) o.clear();
    for (; bits; bits &= bits - 1) {
        const int k = first_lane(bits);
        const real *p = grid.values + at.corner[k], fx = at.beyond[0][k], fy = at.beyond[1][k], fz = at.beyond[2][k];
        const VoxelPair p00 = voxel_pair<channels>(p, s[0]), p10 = voxel_pair<channels>(p + s[1], s[0]);
        const VoxelPair p01 = voxel_pair<channels>(p + s[2], s[0]), p11 = voxel_pair<channels>(p + s[1] + s[2], s[0]);
        const VoxelPair a = between(fz, p00, p01), b = between(fz, p10, p11), y = b - a, c = between(fy, a, b);
        const VoxelPair z = between(fy, p01 - p00, p11 - p10);
        const Voxel weight = weights.get(k);
        out[0].put(k, weight * (high_of(c) - low_of(c)));
        out[1].put(k, weight * between(fx, low_of(y), high_of(y)));
        out[2].put(k, weight * between(fx, low_of(z), high_of(z)));
    }
    for (int j = 0; j < 3; j++) {
        out[j].load(all);
        slope[j] = ((all[0] + all[1]) + (all[2] + all[3])) * splat(real(0.5) * (grid.size[j] - 1));
    }
}
#endif

// Hands `gradient` of what was looked up to the compositor, for the lanes in `inside`; `first` is the grid's place in its tensor.
template <int channels, class Back>
SM_FN void voxel_back(const VoxelGrid& grid, long long first, const VoxelPlace& place, LaneBits inside, const F* gradient, int tensor,
                      Back& back) {
    long long base[kLanes];
    int step[3][kLanes];
#ifdef SMALTI_CUDA
    base[0] = inside ? first + place.corner : -1;
    for (int j = 0; j < 3; j++) step[j][0] = grid.step[j];
#else
    for (int k = 0; k < kLanes; k++) {
        base[k] = inside >> k & 1 ? first + place.corner[k] : -1;
        for (int j = 0; j < 3; j++) step[j][k] = grid.step[j];
    }
#endif
    back.trilinear(tensor, base, step[0], step[1], step[2], place.beyond[0], place.beyond[1], place.beyond[2], gradient, channels);
}

}  // namespace smalti
