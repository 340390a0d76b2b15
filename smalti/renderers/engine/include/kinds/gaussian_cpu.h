// Kind `gaussian` for the CPU compositor: which blocks of a tile it touches, and its event over a block of pixels.
#pragma once
#include "../composite_cpu.h"
#include "gaussian.h"

namespace smalti {

// Horizontal reach of the ellipse alpha >= 1/255 within rows dy in [low, high] (relative to the centre), a little widened so that
// rounding never loses a pixel; empty ranges come back as right < left. Lane type or real alike.
struct GaussianReach {
    F left, right;
};

SM_FN GaussianReach gaussian_reach(const GaussianScreen& s, F low, F high) {
    const real height = (s.lo + kLog2Of255) * real(1.00001) + real(1e-4);
    const F zero = splat(0), y_max = splat(real_sqrt(height > 0 ? height : real(0)) / s.l22), y_right = splat(s.y_right);
    F from = max_of(low, -y_max), to = min_of(high, y_max);
    F at_right = min_of(max_of(y_right, from), to), at_left = min_of(max_of(-y_right, from), to);
    F wr = splat(s.l22) * at_right, wl = splat(s.l22) * at_left;
    F right = (sqrt_of(max_of(splat(height) - wr * wr, zero)) - splat(s.l21) * at_right) * splat(s.inv_l11);
    F left = (-sqrt_of(max_of(splat(height) - wl * wl, zero)) - splat(s.l21) * at_left) * splat(s.inv_l11);
    const F slack = splat(real(2e-3)), share = splat(real(1e-5));
    M empty = gt(from, to);
    return {select(empty, splat(real(1e9)), left - slack - share * abs_of(left)),
            select(empty, splat(real(-1e9)), right + slack + share * abs_of(right))};
}

struct LaneConstants {
    alignas(64) real x[kLanes], y[kLanes], index[kLanes], slab[kLanes * ((kSlabs + kLanes - 1) / kLanes)];
    unsigned char columns[16];
    constexpr LaneConstants() : x(), y(), index(), slab(), columns() {
        for (int k = 0; k < kLanes; k++) x[k] = real(k % kBlockWidth) + real(0.5), y[k] = real(k / kBlockWidth) + real(0.5), index[k] = real(k);
        for (int k = 0; k < (int)(sizeof slab / sizeof slab[0]); k++) slab[k] = real((k < kSlabs ? k : 0) * kBlockHeight) + real(0.5);
        for (int a = 0; a < 4; a++)
            for (int b = 0; b < 4; b++) columns[4 * a + b] = a > b ? 0 : (unsigned char)(((2 << b) - 1) & ~((1 << a) - 1));
    }
};
static constexpr LaneConstants kLaneConstants{};

SM_FN F load_lanes(const real* p) {
    F v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

template <bool smooth, bool absolute>
struct GaussianKind {
    typedef GaussianScreen Screen;
    static constexpr int kMoments = kGaussianMoments + (absolute ? 2 : 0);

    struct Event {
        F alpha, slope, u, w;
    };

    static SM_FN BlockMask blocks(const Screen& s, int x0, int y0) {
        BlockMask mask = 0;
        const real dx = s.mx - x0 - real(0.5);
        for (int base = 0; base < kSlabs; base += kLanes) {
            F low = load_lanes(kLaneConstants.slab + base) + splat(y0 - s.my);
            GaussianReach reach = gaussian_reach(s, low, low + splat(kBlockHeight - 1));
            // Pixel x of the tile is inside if left <= x - dx <= right; its block column is x / 4, rounded down (0.99 rounds the
            // first pixel up to a whole one, short of 1 for safety). Clamped so that truncation is rounding down.
            const F quarter = splat(real(0.25));
            F from = min_of(max_of((reach.left + splat(dx + real(0.99))) * quarter, splat(0)), splat(4));
            F to = min_of(max_of((reach.right + splat(dx)) * quarter, splat(-1)), splat(real(3.5)));
            M touched = both(ge(to, splat(0)), lt(from, splat(4)));
            alignas(64) real first[kLanes], last[kLanes];
            F kept_from = select(touched, from, splat(3)), kept_to = select(touched, to, splat(0));
            std::memcpy(first, &kept_from, sizeof first);
            std::memcpy(last, &kept_to, sizeof last);
            const int rows = kSlabs - base < kLanes ? kSlabs - base : kLanes;
            for (int k = 0; k < rows; k++)
                mask |= BlockMask(kLaneConstants.columns[4 * (int)first[k] + (int)last[k]]) << (kBlocksAcross * (base + k));
        }
        return mask;
    }

    struct Visit {
        F u_lanes, w_lanes;
        real u_corner, w_corner, u_column, u_row, w_row, lo, l11, l21, l22;

        SM_FN Visit(const Screen& s, int x0, int y0) {
            const F x = load_lanes(kLaneConstants.x), y = load_lanes(kLaneConstants.y);
            u_lanes = fma(splat(s.l11), x, splat(s.l21) * y);
            w_lanes = splat(s.l22) * y;
            const real dx = x0 - s.mx, dy = y0 - s.my;
            u_corner = real_fma(s.l11, dx, s.l21 * dy);
            w_corner = s.l22 * dy;
            u_column = s.l11 * kBlockWidth, u_row = s.l21 * kBlockHeight, w_row = s.l22 * kBlockHeight;
            lo = s.lo, l11 = s.l11, l21 = s.l21, l22 = s.l22;
        }

        SM_FN M event(int block, Event& e) const {
            const real column = real(block % kBlocksAcross), row = real(block / kBlocksAcross);
            e.u = splat(real_fma(column, u_column, real_fma(row, u_row, u_corner))) + u_lanes;
            e.w = splat(real_fma(row, w_row, w_corner)) + w_lanes;
            const F t = fnma(e.u, e.u, fnma(e.w, e.w, splat(lo)));
            return gaussian_event<smooth>(t, e.alpha, e.slope);
        }

        SM_FN void moments(const Event& e, F gradient, F* sums) const {
            const F local = gradient * e.slope;
            gaussian_moments(local, e.u, e.w, sums);
            if (absolute) {
                sums[6] += abs_of(local * e.u);
                sums[7] += abs_of(local * fma(splat(l21), e.u, splat(l22) * e.w));
            }
        }
    };
};

template <bool smooth, bool absolute>
KindFunctions gaussian_functions(int channels, bool statistics) {
    typedef GaussianKind<smooth, absolute> Kind;
    KindFunctions f;
    f.moments = Kind::kMoments;
    if (statistics)
        f.forward = composite_run<Kind, 0, true>;
    else
        f.forward = channels == 3 ? composite_run<Kind, 3, false> : channels == 4 ? composite_run<Kind, 4, false> : composite_run<Kind, 0, false>;
    f.backward = channels == 3 ? composite_run_back<Kind, 3> : channels == 4 ? composite_run_back<Kind, 4> : composite_run_back<Kind, 0>;
    return f;
}

inline KindFunctions gaussian_functions(int channels, bool statistics, bool smooth, bool absolute) {
    if (smooth) return absolute ? gaussian_functions<true, true>(channels, statistics) : gaussian_functions<true, false>(channels, statistics);
    return absolute ? gaussian_functions<false, true>(channels, statistics) : gaussian_functions<false, false>(channels, statistics);
}

}  // namespace smalti
