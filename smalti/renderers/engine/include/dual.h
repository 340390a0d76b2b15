// Forward duals over lanes: a number and its derivatives by N variables at once (Griewank and Walther 2008, chapter 3).
//
// `Dual<0>` is the number alone: what is written for any Dual is the event itself with N = 0 and its derivative with N > 0, with
// the same values to the last bit, because both do the same operations on `v`.
// Where a function has no derivative (sqrt and pow at 0, abs at 0, min and max of equals) it is 0 or that of one side, never NaN.
// Comparisons look at values and give a Mask; `select` takes value and derivatives from one of two.
#pragma once
#include "lane_math.h"

namespace smalti {

// Per lane yes or no, whatever the lanes' own mask type is.
struct Mask {
    M m;
    SM_FN friend Mask operator&&(Mask a, Mask b) { return {both(a.m, b.m)}; }
    SM_FN friend Mask operator||(Mask a, Mask b) { return {either(a.m, b.m)}; }
    SM_FN friend Mask operator!(Mask a) { return {gt(select(a.m, splat(0), splat(1)), splat(0))}; }
};

template <int N>
struct Dual {
    F v;
    F d[N > 0 ? N : 1];

    Dual() = default;
    SM_FN Dual(real x) : v(splat(x)) { flat(); }
#ifdef SMALTI_CUDA
    SM_FN static Dual of(F x) { return Dual(x); }
#else
    SM_FN static Dual of(F x) {
        Dual r;
        r.v = x;
        r.flat();
        return r;
    }
#endif
    // Variable number j; a plain number where j is none of the N.
    SM_FN static Dual variable(F x, int j) {
        Dual r = of(x);
        if (j >= 0 && j < N) r.d[j] = splat(1);
        return r;
    }
    SM_FN void flat() {
        for (int j = 0; j < N; j++) d[j] = splat(0);
    }
    // f(v) with derivative `slope`.
    SM_FN Dual chain(F value, F slope) const {
        Dual r;
        r.v = value;
        for (int j = 0; j < N; j++) r.d[j] = slope * d[j];
        return r;
    }

    SM_FN friend Dual operator-(const Dual& a) { return a.chain(-a.v, splat(-1)); }
    SM_FN friend Dual operator+(const Dual& a, const Dual& b) {
        Dual r;
        r.v = a.v + b.v;
        for (int j = 0; j < N; j++) r.d[j] = a.d[j] + b.d[j];
        return r;
    }
    SM_FN friend Dual operator-(const Dual& a, const Dual& b) {
        Dual r;
        r.v = a.v - b.v;
        for (int j = 0; j < N; j++) r.d[j] = a.d[j] - b.d[j];
        return r;
    }
    SM_FN friend Dual operator*(const Dual& a, const Dual& b) {
        Dual r;
        r.v = a.v * b.v;
        for (int j = 0; j < N; j++) r.d[j] = fma(a.v, b.d[j], b.v * a.d[j]);
        return r;
    }
    SM_FN friend Dual operator/(const Dual& a, const Dual& b) {
        Dual r;
        r.v = a.v / b.v;
        if (N > 0) {
            const F inverse = splat(1) / b.v;
            for (int j = 0; j < N; j++) r.d[j] = fnma(r.v, b.d[j], a.d[j]) * inverse;
        }
        return r;
    }
    // With plain numbers: the same values, without multiplying by derivatives that are 0.
    SM_FN friend Dual operator+(const Dual& a, real b) { return a.moved(a.v + splat(b)); }
    SM_FN friend Dual operator+(real a, const Dual& b) { return b.moved(splat(a) + b.v); }
    SM_FN friend Dual operator-(const Dual& a, real b) { return a.moved(a.v - splat(b)); }
    SM_FN friend Dual operator-(real a, const Dual& b) { return b.chain(splat(a) - b.v, splat(-1)); }
    SM_FN friend Dual operator*(const Dual& a, real b) { return a.chain(a.v * splat(b), splat(b)); }
    SM_FN friend Dual operator*(real a, const Dual& b) { return b.chain(splat(a) * b.v, splat(a)); }
    SM_FN friend Dual operator/(const Dual& a, real b) { return a.chain(a.v / splat(b), splat(1 / b)); }
    SM_FN Dual& operator+=(const Dual& b) { return *this = *this + b; }
    SM_FN Dual& operator-=(const Dual& b) { return *this = *this - b; }
    SM_FN Dual& operator*=(const Dual& b) { return *this = *this * b; }
    SM_FN Dual& operator/=(const Dual& b) { return *this = *this / b; }

    SM_FN friend Mask operator<(const Dual& a, const Dual& b) { return {lt(a.v, b.v)}; }
    SM_FN friend Mask operator>(const Dual& a, const Dual& b) { return {gt(a.v, b.v)}; }
    SM_FN friend Mask operator<=(const Dual& a, const Dual& b) { return {ge(b.v, a.v)}; }
    SM_FN friend Mask operator>=(const Dual& a, const Dual& b) { return {ge(a.v, b.v)}; }
    SM_FN friend Dual select(Mask mask, const Dual& a, const Dual& b) {
        Dual r;
        r.v = smalti::select(mask.m, a.v, b.v);
        for (int j = 0; j < N; j++) r.d[j] = smalti::select(mask.m, a.d[j], b.d[j]);
        return r;
    }
    SM_FN friend Dual min(const Dual& a, const Dual& b) { return select(b < a, b, a); }
    SM_FN friend Dual max(const Dual& a, const Dual& b) { return select(a < b, b, a); }
    SM_FN friend Dual abs(const Dual& a) {
        const F zero = splat(0);
        const F sign = smalti::select(gt(a.v, zero), splat(1), smalti::select(lt(a.v, zero), splat(-1), zero));
        return a.chain(abs_of(a.v), sign);
    }

    SM_FN friend Dual sqrt(const Dual& a) {
        const F root = sqrt_of(a.v), zero = splat(0);
        return a.chain(root, smalti::select(gt(root, zero), splat(real(0.5)) / root, zero));
    }
    SM_FN friend Dual exp(const Dual& a) {
        const F value = exp_of(a.v);
        return a.chain(value, value);
    }
    SM_FN friend Dual log(const Dual& a) { return a.chain(log2_of(a.v) * splat(real(0.6931471805599453)), splat(1) / a.v); }
    // sin and cos of radians: as many digits as the angle's own rounding leaves.
    SM_FN friend Dual sin(const Dual& a) {
        F sine, cosine;
        both_of(a.v, sine, cosine);
        return a.chain(sine, cosine);
    }
    SM_FN friend Dual cos(const Dual& a) {
        F sine, cosine;
        both_of(a.v, sine, cosine);
        return a.chain(cosine, -sine);
    }
    // a^b for a >= 0; at a = 0 (or below) the value is 0 and so are the derivatives.
    SM_FN friend Dual pow(const Dual& a, const Dual& b) {
        const F zero = splat(0), one = splat(1);
        const M some = gt(a.v, zero);
        const F base = smalti::select(some, a.v, one), log = log2_of(base) * splat(real(0.6931471805599453));
        Dual r;
        r.v = zero_unless(some, exp_of(b.v * log));
        if (N > 0) {
            const F by_base = zero_unless(some, r.v * b.v / base), by_exponent = r.v * log;
            for (int j = 0; j < N; j++) r.d[j] = fma(by_base, a.d[j], by_exponent * b.d[j]);
        }
        return r;
    }

private:
    // The same derivatives, another value.
    SM_FN Dual moved(F value) const {
        Dual r;
        r.v = value;
        for (int j = 0; j < N; j++) r.d[j] = d[j];
        return r;
    }
    SM_FN static void both_of(F radians, F& sine, F& cosine) {
        const HalfTurns angle = half_turns(radians * splat(real(0.3183098861837907)));
        sine = negate_if_odd(angle.turns, sine_of(angle));
        cosine = negate_if_odd(angle.turns, cosine_of(angle));
    }
};

// ------------------------------------------------------------------ vectors of three, of any Dual
template <class S>
SM_FN S dot(const S* a, const S* b) {
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}
template <class S>
SM_FN void cross(const S* a, const S* b, S* out) {
    out[0] = a[1] * b[2] - a[2] * b[1];
    out[1] = a[2] * b[0] - a[0] * b[2];
    out[2] = a[0] * b[1] - a[1] * b[0];
}
// `v` (world axes) in the axes of a body turned by `quaternion` (w, x, y, z, any length but 0).
template <class S>
SM_FN void turn_into(const S* quaternion, const S* v, S* out) {
    const S *q = quaternion + 1, share = 2 / (quaternion[0] * quaternion[0] + dot(q, q));
    S first[3], second[3];
    cross(q, v, first);
    cross(q, first, second);
    for (int k = 0; k < 3; k++) out[k] = v[k] + share * (second[k] - quaternion[0] * first[k]);
}

}  // namespace smalti
