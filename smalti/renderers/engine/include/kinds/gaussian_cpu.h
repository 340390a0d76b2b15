// Kind `gaussian` for the CPU compositor: which blocks of a tile it touches, and its event over a block of pixels.
#pragma once
#include "../composite_cpu.h"
#include "gaussian.h"

namespace smalti {

struct LaneConstants {
    alignas(64) real x[kLanes], y[kLanes], index[kLanes], slab[kSlabs], column[kBlocks], row[kBlocks];
    unsigned char columns[25];  // bits of block columns [first, end), both 0..4
    constexpr LaneConstants() : x(), y(), index(), slab(), column(), row(), columns() {
        for (int k = 0; k < kLanes; k++) x[k] = real(k % kBlockWidth) + real(0.5), y[k] = real(k / kBlockWidth) + real(0.5), index[k] = real(k);
        for (int k = 0; k < kSlabs; k++) slab[k] = real(k * kBlockHeight) + real(0.5);
        for (int k = 0; k < kBlocks; k++) column[k] = real(k % kBlocksAcross), row[k] = real(k / kBlocksAcross);
        for (int a = 0; a < 5; a++)
            for (int b = 0; b < 5; b++) columns[5 * a + b] = a >= b ? 0 : (unsigned char)(((1 << b) - 1) & ~((1 << a) - 1));
    }
};
static constexpr LaneConstants kLaneConstants{};

template <bool smooth, bool absolute>
struct GaussianKind {
    typedef GaussianScreen Screen;
    static constexpr int kMoments = kGaussianMoments + (absolute ? 2 : 0);

    struct Event {
        F alpha, slope, u, w;
    };

    static SM_FN BlockMask blocks(const Screen& s, int x0, int y0) {
        static_assert(kSlabs % kFewLanes == 0, "slabs come in whole vectors");
        BlockMask mask = 0;
        const real dx = s.mx - x0 - real(0.5);
        for (int base = 0; base < kSlabs; base += kFewLanes) {
            const Few low = load_as<Few>(kLaneConstants.slab + base) + (y0 - s.my);
            const GaussianReach<Few> reach = gaussian_reach<Few>(s, low, low + real(kBlockHeight - 1));
            // Pixel x of the tile is inside if left <= x - dx <= right; its block column is x / 4, rounded down (0.99 rounds the
            // first pixel up to a whole one, short of 1 for safety). Clamped so that truncation is rounding down; an empty range
            // becomes first > last.
            const Few zero = Few{};
            const Few from = min_of(max_of((reach.left + (dx + real(0.99))) * real(0.25), zero), zero + real(4));
            const Few to = min_of(max_of((reach.right + dx) * real(0.25) + 1, zero), zero + real(4));
            for (int k = 0; k < kFewLanes; k++)
                mask |= BlockMask(kLaneConstants.columns[5 * (int)from[k] + (int)to[k]]) << (kBlocksAcross * (base + k));
        }
        return mask;
    }

    struct Visit {
        F u_lanes, w_lanes;
        real lo, l21, l22;
        alignas(64) real u_block[kBlocks], w_block[kBlocks];  // u, w at the corner of each block

        SM_FN Visit(const Screen& s, int x0, int y0) {
            const F x = load_lanes(kLaneConstants.x), y = load_lanes(kLaneConstants.y);
            u_lanes = fma(splat(s.l11), x, splat(s.l21) * y);
            w_lanes = splat(s.l22) * y;
            const real dx = x0 - s.mx, dy = y0 - s.my;
            const F u_corner = splat(real_fma(s.l11, dx, s.l21 * dy)), w_corner = splat(s.l22 * dy);
            const F u_column = splat(s.l11 * kBlockWidth), u_row = splat(s.l21 * kBlockHeight), w_row = splat(s.l22 * kBlockHeight);
            for (int k = 0; k < kBlocks; k += kLanes) {
                const F column = load_lanes(kLaneConstants.column + k), row = load_lanes(kLaneConstants.row + k);
                const F u = fma(column, u_column, fma(row, u_row, u_corner)), w = fma(row, w_row, w_corner);
                std::memcpy(u_block + k, &u, sizeof u);
                std::memcpy(w_block + k, &w, sizeof w);
            }
            lo = s.lo, l21 = s.l21, l22 = s.l22;
        }

        SM_FN M event(int block, Event& e) const {
            e.u = splat(u_block[block]) + u_lanes;
            e.w = splat(w_block[block]) + w_lanes;
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
