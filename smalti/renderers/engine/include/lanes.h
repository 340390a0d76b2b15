// Lanes: the one type in which every kind is written.
//
// `F` is a float on CUDA (one thread, one lane) and a SIMD vector on the CPU; `M` is its mask, `I` its integers.
// `real` is the scalar behind F: float, or double in the build that tests use (SMALTI_DOUBLE).
// Rounding is explicit: fused operations are written fma()/fnma(), and the build forbids contraction, so the forward
// and the backward pass take bit-equal decisions wherever they call the same functions.
#pragma once

#if defined(__CUDACC__) || defined(__CUDACC_RTC__) || defined(SMALTI_EMULATE_CUDA)
#define SMALTI_CUDA 1
#endif

#ifdef SMALTI_CUDA
#define SM_FN __device__ __forceinline__
#else
#include <cmath>
#include <cstdint>
#include <cstring>
#define SM_FN inline __attribute__((always_inline))
#endif

namespace smalti {

#ifdef SMALTI_DOUBLE
typedef double real;
#else
typedef float real;
#endif

constexpr real kLog2Of255 = real(7.994353436858858);

#ifdef SMALTI_CUDA
// ------------------------------------------------------------------ one lane per CUDA thread
typedef real F;
typedef int I;
typedef bool M;
constexpr int kLanes = 1;
#ifdef SMALTI_DOUBLE
SM_FN F fma(F a, F b, F c) { return __fma_rn(a, b, c); }
SM_FN F exp2_of(F x) { return ::exp2(x); }
SM_FN F log2_of(F x) { return ::log2(x); }
SM_FN F sqrt_of(F x) { return ::sqrt(x); }
#else
SM_FN F fma(F a, F b, F c) { return __fmaf_rn(a, b, c); }
SM_FN F exp2_of(F x) { return exp2f(x); }
SM_FN F log2_of(F x) { return log2f(x); }
SM_FN F sqrt_of(F x) { return sqrtf(x); }
#endif
SM_FN F fnma(F a, F b, F c) { return fma(-a, b, c); }
SM_FN F splat(real x) { return x; }
SM_FN F recip(F x) { return F(1) / x; }
SM_FN F min_of(F a, F b) { return a < b ? a : b; }
SM_FN F max_of(F a, F b) { return a > b ? a : b; }
SM_FN F abs_of(F a) { return a < 0 ? -a : a; }
SM_FN M ge(F a, F b) { return a >= b; }
SM_FN M gt(F a, F b) { return a > b; }
SM_FN M lt(F a, F b) { return a < b; }
SM_FN M both(M a, M b) { return a && b; }
SM_FN M either(M a, M b) { return a || b; }
SM_FN F select(M m, F a, F b) { return m ? a : b; }
SM_FN F zero_unless(M m, F a) { return m ? a : F(0); }
SM_FN bool any(M m) { return m; }
SM_FN bool lane(M m, int) { return m; }
SM_FN F gather(const real* p, const int* index, int stride, int offset) { return p[(long long)index[0] * stride + offset]; }
SM_FN void scatter(real* p, const int* index, int count, int stride, int offset, F v) {
    if (count > 0) p[(long long)index[0] * stride + offset] = v;
}
SM_FN real at(F v, int) { return v; }
SM_FN int at(I v, int) { return v; }
SM_FN void put(F& v, int, real x) { v = x; }
SM_FN void put(I& v, int, int x) { v = x; }
SM_FN I splat_int(int x) { return x; }
SM_FN I select_int(M m, I a, I b) { return m ? a : b; }
SM_FN M le_int(I a, I b) { return a <= b; }
SM_FN M eq_int(I a, I b) { return a == b; }
SM_FN int first_lane(M m) { return m ? 0 : 1; }
SM_FN M not_of(M m) { return !m; }
SM_FN bool every(M m) { return m; }
SM_FN real real_sqrt(real x) { return sqrt_of(x); }
#ifdef SMALTI_DOUBLE
SM_FN real real_log(real x) { return ::log(x); }
#else
SM_FN real real_log(real x) { return logf(x); }
#endif

#else
// ------------------------------------------------------------------ SIMD lanes on the CPU
#if defined(SMALTI_DOUBLE)
constexpr int kLanes = 4;
typedef double F __attribute__((vector_size(32)));
typedef long long I __attribute__((vector_size(32)));
typedef long long lane_int;
#else
#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif
typedef float F __attribute__((vector_size(4 * kLanes)));
typedef int I __attribute__((vector_size(4 * kLanes)));
typedef int lane_int;
#endif

SM_FN I splat_int(int x) { return I{} + x; }
SM_FN real at(F v, int k) { return v[k]; }
SM_FN int at(I v, int k) { return (int)v[k]; }
SM_FN void put(F& v, int k, real x) { v[k] = x; }
SM_FN void put(I& v, int k, int x) { v[k] = x; }
SM_FN real real_log(real x) { return std::log(x); }
SM_FN real real_fma(real a, real b, real c) {
#if defined(__FMA__) && !defined(SMALTI_DOUBLE)
    return __builtin_fmaf(a, b, c);
#else
    return a * b + c;
#endif
}
SM_FN real real_sqrt(real x) { return std::sqrt(x); }

}  // namespace smalti
#if !defined(SMALTI_DOUBLE) && (defined(__AVX512F__) || defined(__AVX2__) || defined(__SSE2__))
#include <immintrin.h>
#endif
namespace smalti {

#if defined(__AVX512F__) && !defined(SMALTI_DOUBLE)
typedef __mmask16 M;
SM_FN F splat(real x) { return _mm512_set1_ps(x); }
SM_FN F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
SM_FN F fnma(F a, F b, F c) { return _mm512_fnmadd_ps(a, b, c); }
SM_FN F sqrt_of(F x) { return _mm512_sqrt_ps(x); }
SM_FN F min_of(F a, F b) { return _mm512_min_ps(a, b); }
SM_FN F max_of(F a, F b) { return _mm512_max_ps(a, b); }
SM_FN F abs_of(F a) { return _mm512_abs_ps(a); }
SM_FN M ge(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ); }
SM_FN M gt(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
SM_FN M lt(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
SM_FN M le_int(I a, I b) { return _mm512_cmp_epi32_mask((__m512i)a, (__m512i)b, _MM_CMPINT_LE); }
SM_FN M eq_int(I a, I b) { return _mm512_cmp_epi32_mask((__m512i)a, (__m512i)b, _MM_CMPINT_EQ); }
SM_FN int first_lane(M m) { return m ? __builtin_ctz(m) : kLanes; }
SM_FN M both(M a, M b) { return M(a & b); }
SM_FN M either(M a, M b) { return M(a | b); }
SM_FN F select(M m, F a, F b) { return _mm512_mask_mov_ps(b, m, a); }
SM_FN I select_int(M m, I a, I b) { return (I)_mm512_mask_mov_epi32((__m512i)b, m, (__m512i)a); }
SM_FN F zero_unless(M m, F a) { return _mm512_maskz_mov_ps(m, a); }
SM_FN bool any(M m) { return m != 0; }
SM_FN bool lane(M m, int k) { return m >> k & 1; }
// One Newton step on the 14-bit estimate: relative error below 2^-23 on the range used here.
SM_FN F recip(F x) {
    F r = _mm512_rcp14_ps(x);
    return fma(r, fnma(x, r, splat(1)), r);
}
// 2^x, minimax polynomial of degree 5 on [0, 1): relative error 7.5e-8 before rounding.
SM_FN F exp2_of(F x) {
    F r = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    F p = fma(r, splat(1.8775766584e-03f), splat(8.9893401310e-03f));
    p = fma(p, r, splat(5.5826318019e-02f));
    p = fma(p, r, splat(2.4015361706e-01f));
    p = fma(p, r, splat(6.9315307320e-01f));
    p = fma(p, r, splat(9.9999992506e-01f));
    return _mm512_scalef_ps(p, x);
}
#else
typedef I M;
#if defined(__AVX2__) && !defined(SMALTI_DOUBLE)
SM_FN F splat(real x) { return _mm256_set1_ps(x); }
SM_FN F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
SM_FN F fnma(F a, F b, F c) { return _mm256_fnmadd_ps(a, b, c); }
SM_FN F sqrt_of(F x) { return _mm256_sqrt_ps(x); }
SM_FN F min_of(F a, F b) { return _mm256_min_ps(a, b); }
SM_FN F max_of(F a, F b) { return _mm256_max_ps(a, b); }
SM_FN int lane_bits(M m) { return _mm256_movemask_ps((__m256)m); }
SM_FN F recip(F x) {
    F r = _mm256_rcp_ps(x);  // 12 bits, so two Newton steps
    r = fma(r, fnma(x, r, splat(1)), r);
    return fma(r, fnma(x, r, splat(1)), r);
}
#else
SM_FN F splat(real x) { return F{x, x, x, x}; }
SM_FN F fma(F a, F b, F c) { return a * b + c; }
SM_FN F fnma(F a, F b, F c) { return c - a * b; }
SM_FN F recip(F x) { return real(1) / x; }
#if defined(__SSE2__) && !defined(SMALTI_DOUBLE)
SM_FN F sqrt_of(F x) { return _mm_sqrt_ps(x); }
SM_FN F min_of(F a, F b) { return _mm_min_ps(a, b); }
SM_FN F max_of(F a, F b) { return _mm_max_ps(a, b); }
SM_FN int lane_bits(M m) { return _mm_movemask_ps((__m128)m); }
#else
SM_FN F sqrt_of(F x) {
    for (int k = 0; k < kLanes; k++) x[k] = std::sqrt(x[k]);
    return x;
}
SM_FN F min_of(F a, F b) { return a < b ? a : b; }
SM_FN F max_of(F a, F b) { return a > b ? a : b; }
SM_FN int lane_bits(M m) {
    int bits = 0;
    for (int k = 0; k < kLanes; k++) bits |= int(m[k] & 1) << k;
    return bits;
}
#endif
#endif
SM_FN F abs_of(F a) { return max_of(a, -a); }
SM_FN M ge(F a, F b) { return a >= b; }
SM_FN M gt(F a, F b) { return a > b; }
SM_FN M lt(F a, F b) { return a < b; }
SM_FN M le_int(I a, I b) { return a <= b; }
SM_FN M eq_int(I a, I b) { return a == b; }
SM_FN bool any(M m) { return lane_bits(m) != 0; }
SM_FN int first_lane(M m) { return any(m) ? __builtin_ctz(lane_bits(m)) : kLanes; }
SM_FN M both(M a, M b) { return a & b; }
SM_FN M either(M a, M b) { return a | b; }
SM_FN F select(M m, F a, F b) { return m ? a : b; }
SM_FN I select_int(M m, I a, I b) { return m ? a : b; }
SM_FN F zero_unless(M m, F a) {
    I bits;
    std::memcpy(&bits, &a, sizeof bits);
    bits &= m;
    std::memcpy(&a, &bits, sizeof bits);
    return a;
}
SM_FN bool lane(M m, int k) { return m[k] != 0; }
SM_FN F exp2_of(F x) {
#ifdef SMALTI_DOUBLE
    for (int k = 0; k < kLanes; k++) x[k] = std::exp2(x[k]);
    return x;
#else
    // Adding 1.5 * 2^23 rounds to the nearest integer and leaves it in the low bits of the mantissa. Below -126 the exponent
    // wraps and the result means nothing: callers look only where their event is a hit (x >= -8).
    const F magic = splat(12582912.0f);
    F shifted = x + magic;
    F r = x - (shifted - magic);
    F p = fma(r, splat(1.3276471875e-03f), splat(9.6755413335e-03f));
    p = fma(p, r, splat(5.5507132739e-02f));
    p = fma(p, r, splat(2.4022119724e-01f));
    p = fma(p, r, splat(6.9314696706e-01f));
    p = fma(p, r, splat(1.0000000717e+00f));
    typedef unsigned Bits __attribute__((vector_size(sizeof(F))));  // unsigned, because they may wrap
    Bits bits, exponent;
    std::memcpy(&bits, &p, sizeof bits);
    std::memcpy(&exponent, &shifted, sizeof exponent);
    bits += exponent << 23;
    std::memcpy(&p, &bits, sizeof bits);
    return p;
#endif
}
#endif

SM_FN M not_of(M m) { return M(~m); }
SM_FN bool every(M m) { return !any(not_of(m)); }
SM_FN F log2_of(F x) {
    for (int k = 0; k < kLanes; k++) x[k] = std::log2(x[k]);
    return x;
}
SM_FN F gather(const real* p, const int* index, int stride, int offset) {
    F v;
    for (int k = 0; k < kLanes; k++) v[k] = p[(long long)index[k] * stride + offset];
    return v;
}
SM_FN void scatter(real* p, const int* index, int count, int stride, int offset, F v) {
    for (int k = 0; k < count; k++) p[(long long)index[k] * stride + offset] = v[k];
}

// Few lanes, for work that has no use for a whole F: four, or as many as F has where that is less than 16.
#if defined(__AVX512F__) && !defined(SMALTI_DOUBLE)
constexpr int kFewLanes = 4;
typedef float Few __attribute__((vector_size(16)));
SM_FN Few sqrt_of(Few x) { return _mm_sqrt_ps(x); }
SM_FN Few min_of(Few a, Few b) { return _mm_min_ps(a, b); }
SM_FN Few max_of(Few a, Few b) { return _mm_max_ps(a, b); }
#else
constexpr int kFewLanes = kLanes;
typedef F Few;
#endif
template <class V>
SM_FN V load_as(const real* p) {
    V v;
    std::memcpy(&v, p, sizeof v);
    return v;
}
SM_FN F load_lanes(const real* p) { return load_as<F>(p); }

// Sums of `count` vectors (a multiple of four), added to out[0..count): a tree of fixed shape, so always the same bits.
SM_FN void add_sums(const F* v, int count, real* out) {
#if defined(__SSE2__) && !defined(SMALTI_DOUBLE)
    for (int k = 0; k < count; k += 4) {
        __m128 q[4];
        for (int j = 0; j < 4; j++) {
#if defined(__AVX512F__)
            __m256 h = _mm256_add_ps(_mm512_castps512_ps256(v[k + j]), _mm512_extractf32x8_ps(v[k + j], 1));
            q[j] = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
#elif defined(__AVX2__)
            q[j] = _mm_add_ps(_mm256_castps256_ps128(v[k + j]), _mm256_extractf128_ps(v[k + j], 1));
#else
            q[j] = v[k + j];
#endif
        }
        __m128 a = _mm_add_ps(_mm_unpacklo_ps(q[0], q[1]), _mm_unpackhi_ps(q[0], q[1]));
        __m128 b = _mm_add_ps(_mm_unpacklo_ps(q[2], q[3]), _mm_unpackhi_ps(q[2], q[3]));
        __m128 sums = _mm_add_ps(_mm_movelh_ps(a, b), _mm_movehl_ps(b, a));
        _mm_storeu_ps(out + k, _mm_add_ps(_mm_loadu_ps(out + k), sums));
    }
#else
    for (int k = 0; k < count; k++) {
        real s = 0;
        for (int j = 0; j < kLanes; j++) s += v[k][j];
        out[k] += s;
    }
#endif
}
#endif  // SIMD

// What is not a number is not zero: it goes on and is named by who asked, not hidden here.
SM_FN M not_zero(F x) { return not_of(ge(splat(0), abs_of(x))); }

}  // namespace smalti
