// An ellipsoid that fades like (1 - r^2)^shape, r the ray's distance from its centre in semi-axes (after Liu et al. 2025,
// Deformable Beta Splatting, who do so on the screen). Bounded: at r = 1 it ends, without a step.
#pragma once
#include "kinds/outside.h"

struct BetaKernel {
    static constexpr int kParameters = 12;  // centre 3, quaternion 4, semi-axes 3, opacity, shape
    static constexpr bool kThick = false;

    template <class S>
    SM_FN static S radius(const S* p) {
        return max(p[7], max(p[8], p[9]));
    }

    template <class S>
    SM_FN static void event(const S* p, const S* origin, const S* direction, S& z, S& alpha, smalti::Mask& hit) {
        S o[3], d[3];
        smalti::turn_into(p + 3, origin, o);
        smalti::turn_into(p + 3, direction, d);
        for (int k = 0; k < 3; k++) {
            o[k] /= p[7 + k];
            d[k] /= p[7 + k];
        }
        z = -smalti::dot(o, d) / smalti::dot(d, d);
        for (int k = 0; k < 3; k++) o[k] += z * d[k];
        const S rest = 1 - smalti::dot(o, o);
        alpha = p[10] * pow(rest, p[11]);
        hit = rest > 0;
    }
};
