// A ball of fog, thick: its optical depth fades towards the edge, and its density is a trial of every function of a Dual.
#pragma once
#include "kinds/outside.h"

namespace trial {

struct Fog {
    static constexpr int kParameters = 8;  // centre 3, radius, density, three more
    static constexpr bool kThick = true;

    template <class S>
    SM_FN static S radius(const S* p) {
        return p[3];
    }

    template <class S>
    SM_FN static void event(const S* p, const S* origin, const S* direction, S& z0, S& z1, S& tau, smalti::Mask& hit) {
        const S a = smalti::dot(direction, direction), b = smalti::dot(origin, direction) / a;
        const S square = p[3] * p[3] - smalti::dot(origin, origin) + a * b * b, inside = max(square, 1e-12);
        const S half = sqrt(inside / a), share = square / (p[3] * p[3]);
        z0 = -b - half;
        z1 = half - b;
        S density = p[4] * exp(0.3 * sin(7 * p[5])) + log(2 + abs(p[6])) * pow(cos(p[7]) * cos(p[7]), p[4]);
        density += select(p[5] < p[6] || !(p[7] > 0.2) , min(p[5], 3 - p[6]) / 4, 0.5 * p[7]);
        density -= 0.1;
        density *= 0.5;
        density /= 1 + p[7];
        tau = density * share * share * share;
        hit = square > 0 && tau > 0;
    }
};

}  // namespace trial
