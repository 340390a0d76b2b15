// A block's rays on their way through one box, cell by cell.
//
// Precision: with q_c the box's centre in camera axes and f the ray's foot (its point nearest to q_c), a sample is
// y = A (f - q_c) + t A d/|d|, where t is its distance from the foot and A takes camera axes into the box. f - q_c and t are computed
// from differences to the projected centre and to the cell of the centre, so a far camera costs no digits.
#pragma once
#include "box_view.h"
#include "voxels.h"

namespace smalti {

// The block's rays in one box: y(n) = foot + (n - cell) step along + offset along.
struct BoxWalk {
    F foot[3], along[3];
    F offset;          // distance of the sample of `cell` from the foot
    F foot_distance;   // of the foot from the camera, along the ray
    F inv_length;      // 1 / |d|
    int cell, first, last;
};

struct BoxCell {
    F y[3], t;         // t: distance from the foot
    F values[4], tau, window;
    F warped[3];
    VoxelPlace place, warp_place;
    LaneBits inside;
    M hit;
};

struct BoxGrids {
    VoxelGrid payload, warp;
    bool warps;
};

SM_FN BoxGrids box_grids(const KindInput& in, int k) {
    BoxGrids g;
    g.payload = voxel_grid(in.tensors[kBoxPayload], in.integers, 4, k);
    g.warps = in.tensors[kBoxWarp] != nullptr;
    g.warp = g.payload;
    if (g.warps) g.warp = voxel_grid(in.tensors[kBoxWarp], in.integers + 3, 3, k);
    return g;
}

SM_FN F box_dot(const real* row, const F* v) { return fma(splat(row[0]), v[0], fma(splat(row[1]), v[1], splat(row[2]) * v[2])); }

SM_FN BoxWalk box_walk(const KindInput& in, const CameraValues& cam, const BoxRecord& r, const Rays& rays) {
    BoxWalk w;
    const real step = in.numbers[0];
    const F zero = splat(0), one = splat(1), d[3] = {rays.u, rays.v, one};
    const F dd = fma(rays.u, rays.u, fma(rays.v, rays.v, one)), length = sqrt_of(dd);
    w.inv_length = one / length;
    w.cell = r.cell;
    F off[3];
    if (r.ahead) {
        const F du = ((rays.x - splat(r.pixel_x)) - splat(r.pixel_x_rest)) / splat(cam.fx);
        const F dv = ((rays.y - splat(r.pixel_y)) - splat(r.pixel_y_rest)) / splat(cam.fy);
        const F across = fma(du, rays.u, dv * rays.v), ahead = dd - across, scale = splat(r.centre[2]) / dd;
        off[0] = scale * fnma(across, splat(r.slope_x), ahead * du);
        off[1] = scale * fnma(across, splat(r.slope_y), ahead * dv);
        off[2] = -(scale * across);
        w.foot_distance = splat(r.centre[2]) * ahead * w.inv_length;
        const F off2 = fma(off[0], off[0], fma(off[1], off[1], off[2] * off[2]));
        // distance - foot_distance, without the difference of two large numbers; the sum is 0 only for rays that look away.
        w.offset = splat(r.remainder) + off2 / max_of(splat(r.distance) + w.foot_distance, splat(r.distance * real(1e-3)));
    } else {
        w.foot_distance = box_dot(r.centre, d) * w.inv_length;
        for (int i = 0; i < 3; i++) off[i] = fma(w.foot_distance * w.inv_length, d[i], -splat(r.centre[i]));
        w.offset = splat(r.remainder) - w.foot_distance;
    }
    // The range of cells: a little wider than the slabs say, because `cell` asks each sample again.
    const F inv_step = splat(1 / step);
    F low = fma(splat(cam.near_plane), length, -(w.foot_distance)), high = splat(real(1e30));
    for (int j = 0; j < 3; j++) {
        w.foot[j] = box_dot(r.inward + 3 * j, off);
        w.along[j] = box_dot(r.inward + 3 * j, d) * w.inv_length;
        const F tiny = splat(real(1e-20)), size = max_of(abs_of(w.along[j]), tiny), inv = one / size;
        const F from = select(lt(w.along[j], zero), -w.foot[j], w.foot[j]);
        low = max_of(low, (-one - from) * inv);
        high = min_of(high, (one - from) * inv);
    }
    const F n_low = (low - w.offset) * inv_step, n_high = (high - w.offset) * inv_step;
    const F slack = fma(splat(real(4e-6)), max_of(abs_of(n_low), abs_of(n_high)), splat(real(0.02)));
    const F from = n_low - slack, to = n_high + slack;
    const M some = ge(to, from);
    const F limit = splat(real(1 << 25));
    const real first = least_lane(select(some, max_of(from, -limit), limit));
    const real last = greatest_lane(select(some, min_of(to, limit), -limit));
    w.first = w.cell + (int)first + ((real)(int)first < first ? 1 : 0);  // rounded up, and `last` down
    w.last = w.cell + (int)last - ((real)(int)last > last ? 1 : 0);
    w.first = w.first < 0 ? 0 : w.first;
    return w;
}

// |y|^b; 0 where it would underflow.
SM_FN F box_power(F size, real exponent) {
    const F least = splat(real(1e-30)), log = log2_of(max_of(size, least)) * splat(exponent), floor = splat(-120);
    return zero_unless(both(gt(size, least), gt(log, floor)), exp2_of(max_of(log, floor)));
}

SM_FN F box_window(const KindInput& in, const F* y) {
    const real a = in.numbers[1], b = in.numbers[2];
    if (!(a > 0)) return splat(1);
    F sum = splat(0);
    for (int j = 0; j < 3; j++) {
        if (b == 8) {
            const F y2 = y[j] * y[j], y4 = y2 * y2;
            sum = fma(y4, y4, sum);
        } else {
            sum = sum + box_power(abs_of(y[j]), b);
        }
    }
    const F log = splat(a * real(-1.4426950408889634)) * sum, floor = splat(-120);
    return zero_unless(gt(log, floor), exp2_of(max_of(log, floor)));
}

// d window / d y[j] over the window.
SM_FN F box_window_slope(const KindInput& in, F y) {
    const real a = in.numbers[1], b = in.numbers[2];
    y = min_of(max_of(y, splat(-1)), splat(1));  // of lanes that miss: no power of theirs may overflow
    if (b == 8) {
        const F y2 = y * y, y4 = y2 * y2;
        return splat(-8 * a) * (y4 * y2 * y);
    }
    const F size = abs_of(y), least = splat(real(1e-30));
    const F slope = splat(-a * b) * box_power(size, b) / max_of(size, least);
    return zero_unless(gt(size, least), select(lt(y, splat(0)), -slope, slope));
}

// Cell n of the walk; false where no lane has a segment.
SM_FN bool box_cell(const KindInput& in, const CameraValues& cam, const BoxGrids& grids, const BoxWalk& w, int n, BoxCell& c) {
    const real step = in.numbers[0];
    const F one = splat(1), zero = splat(0);
    c.t = splat((real)(n - w.cell) * step) + w.offset;
    M inside = ge(splat(((real)n + real(0.5)) * step) * w.inv_length, splat(cam.near_plane));
    for (int j = 0; j < 3; j++) {
        c.y[j] = fma(c.t, w.along[j], w.foot[j]);
        inside = both(inside, lt(abs_of(c.y[j]), one));
    }
    c.inside = bits_of(inside);
    if (!c.inside) return false;
    const F* at = c.y;
    F clamped[3];
    if (grids.warps) {
        c.warp_place = voxel_place(grids.warp, c.y);
        voxel_values<3>(grids.warp, c.warp_place, c.inside, c.warped);
        for (int j = 0; j < 3; j++) clamped[j] = min_of(max_of(c.warped[j], -one), one);
        at = clamped;
    }
    c.place = voxel_place(grids.payload, at);
    voxel_values<4>(grids.payload, c.place, c.inside, c.values);
    c.window = box_window(in, c.y);
    const F tau = c.values[3] * c.window * splat(step);
    c.hit = both(inside, gt(tau, zero));
    c.tau = zero_unless(c.hit, tau);
    return any(c.hit);
}

// Both ends from the same expression: neighbours, and cells of other boxes, meet to the last bit. So they do in lanes that miss.
SM_FN F cell_end(const KindInput& in, const BoxWalk& w, int n) { return splat((real)n * in.numbers[0]) * w.inv_length; }

}  // namespace smalti
