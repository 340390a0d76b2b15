// What a piece of a segment takes away, and the sums that say how dense it is there (docs/kinds.md, section 1).
#pragma once
#include "lane_math.h"

namespace smalti {

// (1 - exp(-x)) / x and its derivative, (1 - (1 + x) exp(-x)) / x and its derivative, and exp(-x); x >= 0.
struct Absorption {
    F decay, phi, dphi, psi, dpsi;
};

SM_FN F polynomial(F x, const double* c, int n) {
    F sum = splat((real)c[n - 1]);
    for (int k = n - 2; k >= 0; k--) sum = fma(sum, x, splat((real)c[k]));
    return sum;
}

template <bool derivatives>
SM_FN Absorption absorption(F x, bool with_depth) {
    // Taylor below 0.2, where the closed forms cancel; the terms left out are below 1e-13.
    constexpr double phi[10] = {1., -1. / 2, 1. / 6, -1. / 24, 1. / 120, -1. / 720, 1. / 5040, -1. / 40320, 1. / 362880, -1. / 3628800};
    constexpr double dphi[9] = {-1. / 2, 1. / 3, -1. / 8, 1. / 30, -1. / 144, 1. / 840, -1. / 5760, 1. / 45360, -1. / 403200};
    // psi = sum_{k>=1} (-1)^(k+1) k x^k / (k+1)!
    constexpr double psi[10] = {0., 1. / 2, -1. / 3, 1. / 8, -1. / 30, 1. / 144, -1. / 840, 1. / 5760, -1. / 45360, 1. / 403200};
    constexpr double dpsi[9] = {1. / 2, -2. / 3, 3. / 8, -4. / 30, 5. / 144, -6. / 840, 7. / 5760, -8. / 45360, 9. / 403200};
    Absorption a = {};
    a.decay = exp_of(-x);
    const M small = lt(x, splat(real(0.2)));
    const F inverse = splat(1) / max_of(x, splat(real(0.1)));
    const F far_phi = (splat(1) - a.decay) * inverse;
    a.phi = select(small, polynomial(x, phi, 10), far_phi);
    a.dphi = a.psi = a.dpsi = F{};
    if (derivatives) a.dphi = select(small, polynomial(x, dphi, 9), (a.decay - far_phi) * inverse);
    if (with_depth) {
        const F far_psi = fnma(a.decay, splat(1) + x, splat(1)) * inverse;
        a.psi = select(small, polynomial(x, psi, 10), far_psi);
        if (derivatives) a.dpsi = select(small, polynomial(x, dpsi, 9), a.decay - far_psi * inverse);
    }
    return a;
}

// A sum kept in two parts, so that what was added and taken away again leaves nothing behind (Knuth's TwoSum).
struct LongSum {
    F high = F{}, low = F{};
    SM_FN void add(F x) {
        const F sum = high + x, part = sum - high;
        low = low + ((high - (sum - part)) + (x - part));
        high = sum;
    }
    SM_FN F value() const { return high + low; }
    SM_FN void clear_where(M m) {
        high = select(m, F{}, high);
        low = select(m, F{}, low);
    }
};

}  // namespace smalti
