// Adam (Kingma and Ba 2015), one pass over parameter, gradient and both moments.
#pragma once
#include <cmath>

#include "plan.h"

namespace smalti {

struct AdamStep {
    real rate, beta_1, beta_2, epsilon;
    long long step;  // from 1
};

inline void adam_update(real* parameter, const real* gradient, real* first, real* second, long long count, const AdamStep& s) {
    const real correction = real(std::sqrt(1 - std::pow((double)s.beta_2, (double)s.step)));
    const real rate = real(s.rate / (1 - std::pow((double)s.beta_1, (double)s.step)));
    const F one_minus_1 = splat(1 - s.beta_1), beta_2 = splat(s.beta_2), one_minus_2 = splat(1 - s.beta_2);
    const F inverse = splat(1 / correction), epsilon = splat(s.epsilon), minus_rate = splat(-rate);
    constexpr long long kPiece = 1 << 16;
    parallel((int)((count + kPiece - 1) / kPiece), [&](int piece, int) {
        const long long begin = piece * kPiece, end = begin + kPiece < count ? begin + kPiece : count;
        auto lanes = [&](real* p, const real* g, real* m, real* v) {
            const F gradient = load_lanes(g);
            const F mean = fma(gradient - load_lanes(m), one_minus_1, load_lanes(m));
            const F square = fma(gradient * gradient, one_minus_2, load_lanes(v) * beta_2);
            const F moved = fma(minus_rate, mean / fma(sqrt_of(square), inverse, epsilon), load_lanes(p));
            std::memcpy(m, &mean, sizeof(F));
            std::memcpy(v, &square, sizeof(F));
            std::memcpy(p, &moved, sizeof(F));
        };
        long long k = begin;
        for (; k + kLanes <= end; k += kLanes) lanes(parameter + k, gradient + k, first + k, second + k);
        if (k < end) {
            real tail[4][kLanes] = {};
            const size_t bytes = (end - k) * sizeof(real);
            std::memcpy(tail[0], parameter + k, bytes), std::memcpy(tail[1], gradient + k, bytes);
            std::memcpy(tail[2], first + k, bytes), std::memcpy(tail[3], second + k, bytes);
            lanes(tail[0], tail[1], tail[2], tail[3]);
            std::memcpy(parameter + k, tail[0], bytes);
            std::memcpy(first + k, tail[2], bytes), std::memcpy(second + k, tail[3], bytes);
        }
    });
}

}  // namespace smalti
