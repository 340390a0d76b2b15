// Transcendental functions of lanes. Angles are in half turns (1 is pi): taking a whole number of them off is exact, so that large
// phases cost nothing but the rounding they came with, and needs no table of pi.
//
// The polynomials are minimax in r^2 on [0, 1/4] (Remez in 40 digits). Largest errors, the rounding of the argument aside, over
// |x| <= 3000 half turns: float 1.9e-7 absolute (of which the polynomials: sine 4e-9 relative, cosine 5e-8), double 2e-16.
#pragma once
#include "lanes.h"

namespace smalti {

#ifdef SMALTI_DOUBLE
// A function of the library, lane by lane: its digits matter more than its time.
SM_FN F by_lane(double (*function)(double), F x) {
#ifdef SMALTI_CUDA
    return function(x);
#else
    for (int k = 0; k < kLanes; k++) x[k] = function(x[k]);
    return x;
#endif
}
#endif

// e^x, exactly 1 at 0. In float 0 below -87 and no more than e^88; relative error 1e-7.
SM_FN F exp_of(F x) {
#if defined(SMALTI_DOUBLE)
    return by_lane(::exp, x);
#elif defined(SMALTI_CUDA)
    return ::expf(x);
#else
    // e^x = 2^k e^r with |r| <= ln(2)/2; ln(2) in two parts, the first so short that its product with k is exact. Minimax in r.
    const F magic = splat(12582912.0f), low = splat(-87.0f);
    const F bounded = min_of(max_of(x, low), splat(88.0f)), shifted = fma(bounded, splat(1.44269504f), magic), k = shifted - magic;
    const F r = fma(k, splat(2.12194440e-4f), fnma(k, splat(0.693359375f), bounded));
    F p = fma(r, splat(1.39506029742e-3f), splat(8.36895350227e-3f));
    p = fma(p, r, splat(4.16662041279e-2f));
    p = fma(p, r, splat(1.66665183061e-1f));
    p = fma(p, r, splat(5.00000009570e-1f));
    p = fma(p, r * r, r) + splat(1);
    I bits, exponent;
    std::memcpy(&bits, &p, sizeof bits);
    std::memcpy(&exponent, &shifted, sizeof exponent);
    bits += exponent << 23;
    std::memcpy(&p, &bits, sizeof bits);
    return zero_unless(ge(x, low), p);
#endif
}

// An angle of `x` half turns as r + k with |r| <= 1/2; the lowest bit of `turns` is k's. Means nothing for |x| > 2^22 (float).
struct HalfTurns {
    F r, square;
#ifdef SMALTI_CUDA
    int turns;
#else
    I turns;
#endif
};

SM_FN HalfTurns half_turns(F x) {
    HalfTurns angle;
#ifdef SMALTI_CUDA
#ifdef SMALTI_DOUBLE
    const F whole = ::rint(x);
#else
    const F whole = ::rintf(x);
#endif
    angle.turns = (int)whole;
#else
    // Adding 1.5 * 2^23 (2^52 in double) rounds to the nearest integer and leaves its lowest bit in the mantissa's.
    const F magic = splat(sizeof(real) == 4 ? real(12582912.0) : real(6755399441055744.0));
    const F shifted = x + magic, whole = shifted - magic;
    std::memcpy(&angle.turns, &shifted, sizeof shifted);
#endif
    angle.r = x - whole;
    angle.square = angle.r * angle.r;
    return angle;
}

#ifdef SMALTI_CUDA
SM_FN F negate_if_odd(int turns, F v) { return turns & 1 ? -v : v; }
#else
SM_FN F negate_if_odd(I turns, F v) {
    I bits;
    std::memcpy(&bits, &v, sizeof bits);
    bits ^= turns << (8 * (int)sizeof(real) - 1);
    std::memcpy(&v, &bits, sizeof bits);
    return v;
}
#endif

// sin(pi r) and cos(pi r); those of the whole angle are negate_if_odd(turns, ...) of them. Near a zero the sine is as good as r.
#ifdef SMALTI_DOUBLE
SM_FN F sine_of(const HalfTurns& angle) { return by_lane(::sin, splat(3.141592653589793238) * angle.r); }
SM_FN F cosine_of(const HalfTurns& angle) { return by_lane(::cos, splat(3.141592653589793238) * angle.r); }
#else
SM_FN F sine_of(const HalfTurns& angle) {
    F p = fma(angle.square, splat(7.76594083304e-2f), splat(-5.98292159521e-1f));
    p = fma(p, angle.square, splat(2.55007765974f));
    p = fma(p, angle.square, splat(-5.16771009033f));
    return angle.r * fma(p, angle.square, splat(3.14159264018f));
}

SM_FN F cosine_of(const HalfTurns& angle) {
    F p = fma(angle.square, splat(2.19696798471e-1f), splat(-1.3318801612f));
    p = fma(p, angle.square, splat(4.05841191416f));
    p = fma(p, angle.square, splat(-4.93479285868f));
    return fma(p, angle.square, splat(0.999999953467f));
}
#endif

// x, or a tiny number in place of 0: sinc(x) = sin(pi x) / (pi x) is then 1 to rounding, because sine_of is good relative to r.
SM_FN F away_from_zero(F x) {
    const F tiny = splat(real(1e-18));
    return select(ge(abs_of(x), tiny), x, tiny);
}

// The derivative of sin(t)/t at t = pi x from cos(t), sin(t)/t and 1/t: (cos(t) - sin(t)/t)/t, and its series where that cancels.
SM_FN F sinc_slope(F x, F cosine, F sinc, F inverse) {
    const F t = x * splat(real(3.141592653589793238)), t2 = t * t;
#ifdef SMALTI_DOUBLE
    F p = fma(t2, splat(16.0 / 355687428096000.0), splat(-14.0 / 1307674368000.0));
    p = fma(p, t2, splat(12.0 / 6227020800.0));
    p = fma(p, t2, splat(-10.0 / 39916800.0));
    p = fma(p, t2, splat(8.0 / 362880.0));
    p = fma(p, t2, splat(-6.0 / 5040.0));
#else
    F p = fma(t2, splat(8.0f / 362880), splat(-6.0f / 5040));
#endif
    p = fma(p, t2, splat(real(4.0 / 120.0)));
    p = t * fma(p, t2, splat(real(-2.0 / 6.0)));
    return select(lt(abs_of(x), splat(real(0.25))), p, (cosine - sinc) * inverse);
}

}  // namespace smalti
