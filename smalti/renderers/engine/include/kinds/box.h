// Kind `box`: oriented boxes with a voxel payload, marched on one grid of cells (Lombardi et al. 2021, Mixture of Volumetric
// Primitives). docs/kinds.md, section 4, is the specification.
//
// Where a ray is inside a box is a slab test per lane; which blocks ask at all is the tile lists' and `touches`' business. Nothing is
// bounded by a list's length: the boxes of a pixel are those whose lists the compositor walks.
//
// Precision: with q_c the box's centre in camera axes and f the ray's foot (its point nearest to q_c), a sample is
// y = A (f - q_c) + t A d/|d|, where t is its distance from the foot and A takes camera axes into the box. f - q_c and t are computed
// from differences to the projected centre and to the cell of the centre, so a far camera costs no digits.
#pragma once
#include "../wide_math.h"
#include "voxels.h"

namespace smalti {

constexpr int kBoxLines = 8;           // edges of its outline that are kept; dropping one errs on yes
constexpr int kBoxMoments = 16;        // slope 3, local position x slope 9, d loss / d (u, v) and with u, v 4
constexpr int kBoxMostChannels = 256;  // of a picture with boxes
constexpr real kMostCells = real(1 << 24);  // between the camera and a box's far end: cells are counted in reals

enum BoxTensor { kBoxCentres, kBoxQuaternions, kBoxHalfExtents, kBoxPayload, kBoxWarp };

struct BoxRecord {
    real inward[9];       // A, rows: the local axes over their half extents, in camera axes
    real centre[3];       // q_c
    real distance;        // |q_c|
    real slope_x, slope_y;        // q_c over its z, if `ahead`
    real pixel_x, pixel_y;        // where the centre is seen, if `ahead`; rounded, and what rounding left over
    real pixel_x_rest, pixel_y_rest;
    real remainder;       // arc length at the sample of `cell`, less the distance
    int cell;             // the one around the centre
    int ahead;            // the centre lies well in front of the camera plane
    int line_count;
    real lines[kBoxLines][3];  // a x + b y + c >= 0 inside of the outline
    real rectangle[4];
};

// What a box is in double, for `project` and `finish`.
struct BoxPose {
    double rotation[9];  // columns: axes in the world
    double axes[9];      // columns: axes in the camera
    double centre[3];    // in the camera
    double half[3], q[4], inv_norm;
    bool usable;
};

SM_FN BoxPose box_pose(const KindInput& in, const CameraValues& cam, int k) {
    BoxPose pose;
    double n2 = 0, sum = 0;
    for (int j = 0; j < 4; j++) {
        pose.q[j] = in.tensors[kBoxQuaternions][4ll * k + j];
        n2 += pose.q[j] * pose.q[j];
    }
    bool positive = true;
    for (int j = 0; j < 3; j++) {
        pose.half[j] = in.tensors[kBoxHalfExtents][3ll * k + j];
        positive = positive && pose.half[j] > 0;
        sum += (double)in.tensors[kBoxCentres][3ll * k + j] + pose.half[j] + 1 / pose.half[j];
    }
    pose.usable = positive && n2 >= 1e-24 && is_finite((double)(real)n2) && is_finite((double)(real)sum);
    pose.inv_norm = 1 / wide_sqrt(n2 > 0 ? n2 : 1);
    for (int j = 0; j < 4; j++) pose.q[j] *= pose.inv_norm;
    const double w = pose.q[0], x = pose.q[1], y = pose.q[2], z = pose.q[3];
    double* r = pose.rotation;
    r[0] = 1 - 2 * (y * y + z * z), r[1] = 2 * (x * y - w * z), r[2] = 2 * (x * z + w * y);
    r[3] = 2 * (x * y + w * z), r[4] = 1 - 2 * (x * x + z * z), r[5] = 2 * (y * z - w * x);
    r[6] = 2 * (x * z - w * y), r[7] = 2 * (y * z + w * x), r[8] = 1 - 2 * (x * x + y * y);
    const real* R = cam.rotation;
    for (int i = 0; i < 3; i++) {
        pose.centre[i] = cam.translation[i];
        for (int j = 0; j < 3; j++) {
            pose.centre[i] += (double)R[3 * i + j] * (double)in.tensors[kBoxCentres][3ll * k + j];
            pose.axes[3 * i + j] = R[3 * i] * r[j] + R[3 * i + 1] * r[3 + j] + R[3 * i + 2] * r[6 + j];
        }
    }
    return pose;
}

// Whether the reals of a grid and their squares are finite: a NaN somewhere, or a colour times a density that overflows, would
// otherwise show wherever a ray meets it.
SM_FN bool voxels_finite(const real* values, long long count) {
    real sums[16] = {};
    long long k = 0;
    for (; k + 16 <= count; k += 16)
        for (int j = 0; j < 16; j++) sums[j] += values[k + j] * values[k + j] * 0;
    for (; k < count; k++) sums[0] += values[k] * values[k] * 0;
    for (int j = 1; j < 16; j++) sums[0] += sums[j];
    return sums[0] == 0;
}

// The outline of points on the screen (their convex hull) as lines, by walking around it (Jarvis).
struct BoxOutline {
    double x[20], y[20];
    int count = 0;
    SM_FN void add(double px, double py) { x[count] = px, y[count++] = py; }

    SM_FN int lines(real (*out)[3]) const {
        int start = 0;
        double size = 0;
        for (int k = 0; k < count; k++) {
            if (x[k] < x[start] || (x[k] == x[start] && y[k] < y[start])) start = k;
            const double ax = x[k] < 0 ? -x[k] : x[k], ay = y[k] < 0 ? -y[k] : y[k];
            size = ax > size ? ax : size, size = ay > size ? ay : size;
        }
        const double slack = 0.02 + 4e-6 * size;
        int from = start, found = 0;
        do {
            int to = -1;
            for (int k = 0; k < count; k++) {
                const double dx = x[k] - x[from], dy = y[k] - y[from];
                if (dx == 0 && dy == 0) continue;
                if (to < 0) {
                    to = k;
                    continue;
                }
                const double ex = x[to] - x[from], ey = y[to] - y[from], side = ex * dy - ey * dx;
                if (side < 0 || (side == 0 && dx * dx + dy * dy > ex * ex + ey * ey)) to = k;
            }
            if (to < 0) return found;  // a single point: the rectangle says it all
            const double ex = x[to] - x[from], ey = y[to] - y[from], length = wide_sqrt(ex * ex + ey * ey);
            const double a = -ey / length, b = ex / length;
            out[found][0] = (real)a, out[found][1] = (real)b;
            out[found][2] = (real)(slack - a * x[from] - b * y[from]);
            found++;
            from = to;
        } while (from != start && found < kBoxLines);
        return found;
    }
};

// A sink may count lookups: lanes x cells that were inside a box (`long long lookups`); nothing is asked of those that do not.
template <class Sink>
SM_FN auto count_lookups(Sink& sink, LaneBits bits, int) -> decltype(sink.lookups += 1, void()) {
    for (; bits; bits &= bits - 1) sink.lookups += 1;
}
template <class Sink>
SM_FN void count_lookups(Sink&, LaneBits, long) {}

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

struct BoxKind {
    typedef BoxRecord Record;
    static constexpr bool kConstantChannels = false;
    static constexpr int kTableTensors = 1 << kBoxPayload | 1 << kBoxWarp;
    SM_FN static int moments(const KindInput&, const ViewOptions&) { return kBoxMoments; }

    SM_FN static BoxGrids grids(const KindInput& in, int k) {
        BoxGrids g;
        g.payload = voxel_grid(in.tensors[kBoxPayload], in.integers, 4, k);
        g.warps = in.tensors[kBoxWarp] != nullptr;
        g.warp = g.payload;
        if (g.warps) g.warp = voxel_grid(in.tensors[kBoxWarp], in.integers + 3, 3, k);
        return g;
    }

    static SM_FN void project(const KindInput& in, const CameraValues& cam, const ViewOptions& view, int k, Record& record, Bounds& bounds,
                              real*) {
        const BoxPose pose = box_pose(in, cam, k);
        const double step = in.numbers[0], near = cam.near_plane;
        bounds.usable = pose.usable && view.channels <= kBoxMostChannels;
        if (!bounds.usable) return;
        bounds.depth = (real)pose.centre[2];

        double corner[8][3], lowest = 0, highest = 0, radius2 = 0, distance2 = 0;
        for (int c = 0; c < 8; c++) {
            for (int i = 0; i < 3; i++) {
                corner[c][i] = pose.centre[i];
                for (int j = 0; j < 3; j++) corner[c][i] += (c >> j & 1 ? 1 : -1) * pose.half[j] * pose.axes[3 * i + j];
            }
            const double z = corner[c][2];
            lowest = c == 0 || z < lowest ? z : lowest;
            highest = c == 0 || z > highest ? z : highest;
        }
        for (int i = 0; i < 3; i++) radius2 += pose.half[i] * pose.half[i], distance2 += pose.centre[i] * pose.centre[i];
        const double distance = wide_sqrt(distance2), reach = distance + wide_sqrt(radius2);
        bounds.usable = is_finite((double)(real)reach) && reach < step * kMostCells;
        if (!bounds.usable || highest < near) return;
        const double nearest = (lowest > near ? lowest : near) * (1 - 1e-5) - step * 0.5001;
        // In lanes of a block (up to 4 x 4 pixels) that miss a cell it may begin nearer than in those that have it, by as much as
        // their |d| may be longer.
        const double wide = kLanes > 1 ? 3 / (double)cam.fx : 0, high = kLanes > 4 ? 3 / (double)cam.fy : 0;
        bounds.nearest = (real)(nearest > 0 ? nearest * (1 - 4e-6) / (1 + wide_sqrt(wide * wide + high * high)) : 0);

        BoxOutline outline;
        // Seen at z >= near alone: corners before it, and where edges pierce it.
        const double cut = near * (1 - 1e-4);
        const bool whole = lowest < cut && !(cut > 1e-30);
        if (!whole) {
            for (int c = 0; c < 8; c++) {
                const double* q = corner[c];
                if (q[2] >= cut) outline.add(cam.fx * q[0] / q[2] + cam.cx, cam.fy * q[1] / q[2] + cam.cy);
                for (int j = 0; j < 3; j++) {
                    const double* p = corner[c | 1 << j];
                    if (c >> j & 1 || (q[2] >= cut) == (p[2] >= cut)) continue;
                    const double s = (cut - q[2]) / (p[2] - q[2]);
                    outline.add(cam.fx * (q[0] + s * (p[0] - q[0])) / cut + cam.cx, cam.fy * (q[1] + s * (p[1] - q[1])) / cut + cam.cy);
                }
            }
        }
        double left = 0, top = 0, right = cam.width, bottom = cam.height;
        for (int c = 0; c < outline.count; c++) {
            const double x = outline.x[c], y = outline.y[c];
            if (c == 0) left = right = x, top = bottom = y;
            left = x < left ? x : left, right = x > right ? x : right;
            top = y < top ? y : top, bottom = y > bottom ? y : bottom;
        }
        const double slack = 0.02 + 1e-6 * ((right - left) + (bottom - top));
        bounds.left = record.rectangle[0] = (real)(left - slack > -1 ? left - slack : -1);
        bounds.top = record.rectangle[1] = (real)(top - slack > -1 ? top - slack : -1);
        bounds.right = record.rectangle[2] = (real)(right + slack < cam.width + 1 ? right + slack : cam.width + 1);
        bounds.bottom = record.rectangle[3] = (real)(bottom + slack < cam.height + 1 ? bottom + slack : cam.height + 1);
        if (bounds.left >= bounds.right || bounds.top >= bounds.bottom) return;
        record.line_count = outline.count ? outline.lines(record.lines) : 0;

        for (int i = 0; i < 3; i++) {
            record.centre[i] = (real)pose.centre[i];
            for (int j = 0; j < 3; j++) record.inward[3 * j + i] = (real)(pose.axes[3 * i + j] / pose.half[j]);
        }
        record.distance = (real)distance;
        record.ahead = pose.centre[2] > 0.125 * distance;
        record.slope_x = record.slope_y = record.pixel_x = record.pixel_y = record.pixel_x_rest = record.pixel_y_rest = 0;
        record.cell = 0;
        record.remainder = (real)(0.5 * step);
        if (record.ahead) {
            const double u = pose.centre[0] / pose.centre[2], v = pose.centre[1] / pose.centre[2];
            const double x = cam.fx * u + cam.cx, y = cam.fy * v + cam.cy;
            record.slope_x = (real)u, record.slope_y = (real)v;
            record.pixel_x = (real)x, record.pixel_y = (real)y;
            record.pixel_x_rest = (real)(x - record.pixel_x), record.pixel_y_rest = (real)(y - record.pixel_y);
            record.cell = (int)wide_floor(distance / step);
            record.remainder = (real)((record.cell + 0.5) * step - distance);
        }
        const int* m = in.integers;
        const long long payload = 4ll * m[0] * m[1] * m[2], warp = in.tensors[kBoxWarp] ? 3ll * m[3] * m[4] * m[5] : 0;
        bounds.usable = payload < (1ll << 31) && warp < (1ll << 31) && voxels_finite(in.tensors[kBoxPayload] + k * payload, payload) &&
                        (!warp || voxels_finite(in.tensors[kBoxWarp] + k * warp, warp));
        bounds.drawn = bounds.usable;
    }

    SM_FN static bool touches(const Record& record, real x0, real y0, real x1, real y1) {
        const real* r = record.rectangle;
        if (x1 < r[0] || x0 > r[2] || y1 < r[1] || y0 > r[3]) return false;
        for (int k = 0; k < record.line_count; k++) {
            const real* line = record.lines[k];
            if (line[0] * (line[0] > 0 ? x1 : x0) + line[1] * (line[1] > 0 ? y1 : y0) + line[2] < 0) return false;
        }
        return true;
    }

    SM_FN static F dot(const real* row, const F* v) { return fma(splat(row[0]), v[0], fma(splat(row[1]), v[1], splat(row[2]) * v[2])); }

    SM_FN static BoxWalk walk(const KindInput& in, const CameraValues& cam, const Record& r, const Rays& rays) {
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
            w.foot_distance = dot(r.centre, d) * w.inv_length;
            for (int i = 0; i < 3; i++) off[i] = fma(w.foot_distance * w.inv_length, d[i], -splat(r.centre[i]));
            w.offset = splat(r.remainder) - w.foot_distance;
        }
        // The range of cells: a little wider than the slabs say, because `cell` asks each sample again.
        const F inv_step = splat(1 / step);
        F low = fma(splat(cam.near_plane), length, -(w.foot_distance)), high = splat(real(1e30));
        for (int j = 0; j < 3; j++) {
            w.foot[j] = dot(r.inward + 3 * j, off);
            w.along[j] = dot(r.inward + 3 * j, d) * w.inv_length;
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

    // Cell n of the walk; false where no lane has a segment.
    SM_FN static bool cell(const KindInput& in, const CameraValues& cam, const BoxGrids& grids, const BoxWalk& w, int n, BoxCell& c) {
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
        c.window = window(in, c.y);
        const F tau = c.values[3] * c.window * splat(step);
        c.hit = both(inside, gt(tau, zero));
        c.tau = zero_unless(c.hit, tau);
        return any(c.hit);
    }

    // |y|^b; 0 where it would underflow.
    SM_FN static F power(F size, real exponent) {
        const F least = splat(real(1e-30)), log = log2_of(max_of(size, least)) * splat(exponent), floor = splat(-120);
        return zero_unless(both(gt(size, least), gt(log, floor)), exp2_of(max_of(log, floor)));
    }

    SM_FN static F window(const KindInput& in, const F* y) {
        const real a = in.numbers[1], b = in.numbers[2];
        if (!(a > 0)) return splat(1);
        F sum = splat(0);
        for (int j = 0; j < 3; j++) {
            if (b == 8) {
                const F y2 = y[j] * y[j], y4 = y2 * y2;
                sum = fma(y4, y4, sum);
            } else {
                sum = sum + power(abs_of(y[j]), b);
            }
        }
        const F log = splat(a * real(-1.4426950408889634)) * sum, floor = splat(-120);
        return zero_unless(gt(log, floor), exp2_of(max_of(log, floor)));
    }

    // d window / d y[j] over the window.
    SM_FN static F window_slope(const KindInput& in, F y) {
        const real a = in.numbers[1], b = in.numbers[2];
        y = min_of(max_of(y, splat(-1)), splat(1));  // of lanes that miss: no power of theirs may overflow
        if (b == 8) {
            const F y2 = y * y, y4 = y2 * y2;
            return splat(-8 * a) * (y4 * y2 * y);
        }
        const F size = abs_of(y), least = splat(real(1e-30));
        const F slope = splat(-a * b) * power(size, b) / max_of(size, least);
        return zero_unless(gt(size, least), select(lt(y, splat(0)), -slope, slope));
    }

    // Both ends from the same expression: neighbours, and cells of other boxes, meet to the last bit. So they do in lanes that miss.
    SM_FN static F edge(const KindInput& in, const BoxWalk& w, int n) { return splat((real)n * in.numbers[0]) * w.inv_length; }

    template <class Sink>
    SM_FN static void emit(const KindInput& in, const CameraValues& cam, const Record& record, int k, const Rays& rays, Sink& sink) {
        const BoxWalk w = walk(in, cam, record, rays);
        if (w.first > w.last) return;
        const BoxGrids g = grids(in, k);
        F channels[kBoxMostChannels];
        for (int c = 0; c < sink.channels; c++) channels[c] = splat(0);
        int before = -2;
        for (int n = w.first; n <= w.last; n++) {
            BoxCell c;
            const bool some = cell(in, cam, g, w, n, c);
            count_lookups(sink, c.inside, 0);
            if (!some) continue;
            for (int j = 0; j < 3; j++) channels[j] = zero_unless(c.hit, c.values[j]);
            sink.thick(edge(in, w, n), edge(in, w, n + 1), c.tau, channels, before == n - 1);
            before = n;
        }
    }

    template <class Back>
    SM_FN static void emit_back(const KindInput& in, const CameraValues& cam, const Record& record, int k, const Rays& rays, Back& back,
                                F* sums) {
        const BoxWalk w = walk(in, cam, record, rays);
        if (w.first > w.last) return;
        const BoxGrids g = grids(in, k);
        const long long payload_first = g.payload.values - in.tensors[kBoxPayload];
        const long long warp_first = g.warps ? g.warp.values - in.tensors[kBoxWarp] : 0;
        const F zero = splat(0), one = splat(1), step = splat(in.numbers[0]);
        // Sums over a ray's cells: of the slope d loss / d y, of t times it, and of what the ends of the cells feel.
        F slopes[3] = {zero, zero, zero}, t_slopes[3] = {zero, zero, zero}, ends = zero;
        for (int n = w.first; n <= w.last; n++) {
            BoxCell c;
            if (!cell(in, cam, g, w, n, c)) continue;
            const EventGradient& e = back.next();
            // Of all lanes: where one cell ends and the next begins, one of the two feels it for both.
            ends = fma(e.z0, edge(in, w, n), fma(e.z1, edge(in, w, n + 1), ends));
            const F tau_gradient = zero_unless(c.hit, e.value) * step;
            F gradient[4], felt = abs_of(tau_gradient);
            for (int j = 0; j < 3; j++) {
                gradient[j] = zero_unless(c.hit, e.channels[j]);
                felt = felt + abs_of(gradient[j]);
            }
            gradient[3] = tau_gradient * c.window;
            const LaneBits touched = bits_of(gt(felt, zero));
            if (!touched) continue;
            F slope[3];
            voxel_slope<4>(g.payload, c.place, touched, gradient, slope);
            voxel_back<4>(g.payload, payload_first, c.place, touched, gradient, kBoxPayload, back);
            if (g.warps) {
                F warp_gradient[3];
                for (int j = 0; j < 3; j++) warp_gradient[j] = zero_unless(ge(one, abs_of(c.warped[j])), slope[j]);
                voxel_slope<3>(g.warp, c.warp_place, touched, warp_gradient, slope);
                voxel_back<3>(g.warp, warp_first, c.warp_place, touched, warp_gradient, kBoxWarp, back);
            }
            if (in.numbers[1] > 0) {
                const F log_gradient = tau_gradient * c.values[3] * c.window;
                for (int j = 0; j < 3; j++) slope[j] = fma(log_gradient, window_slope(in, c.y[j]), slope[j]);
            }
            for (int j = 0; j < 3; j++) {
                slopes[j] = slopes[j] + slope[j];
                t_slopes[j] = fma(c.t, slope[j], t_slopes[j]);
            }
        }
        // y is linear in t, so the moments y x slope need no sum of their own over the cells.
        F seen[3] = {zero, zero, zero};  // sum of z times d loss / d (position in camera axes)
        for (int j = 0; j < 3; j++) {
            sums[j] = sums[j] + slopes[j];
            for (int i = 0; i < 3; i++) sums[3 + 3 * i + j] = sums[3 + 3 * i + j] + fma(w.foot[i], slopes[j], w.along[i] * t_slopes[j]);
            const F far = fma(w.foot_distance, slopes[j], t_slopes[j]) * w.inv_length;
            for (int i = 0; i < 3; i++) seen[i] = fma(splat(record.inward[3 * j + i]), far, seen[i]);
        }
        // A sample is s d / |d| at a constant s; the ends of its cell are at n step / |d|.
        const F inv_dd = w.inv_length * w.inv_length;
        const F radial = (fma(seen[0], rays.u, fma(seen[1], rays.v, seen[2])) + ends) * inv_dd;
        const F du = fnma(radial, rays.u, seen[0]), dv = fnma(radial, rays.v, seen[1]);
        sums[12] = sums[12] + du;
        sums[13] = fma(du, rays.u, sums[13]);
        sums[14] = sums[14] + dv;
        sums[15] = fma(dv, rays.v, sums[15]);
    }

    static SM_FN void finish(const KindInput& in, const CameraValues& cam, const ViewOptions&, int k, const Record&, const real* sums,
                             const real*, const KindGradient& gradient, double* camera) {
        const BoxPose pose = box_pose(in, cam, k);
        const real *R = cam.rotation, *moment = sums + 3, *c = in.tensors[kBoxCentres] + 3ll * k;
        // From local to camera axes: the inverse transpose of `axes`, which a camera's rotation need not make orthonormal.
        double back[9], volume = 0;
        for (int j = 0; j < 3; j++) {
            const int p = (j + 1) % 3, q = (j + 2) % 3;
            for (int i = 0; i < 3; i++) {
                const int u = (i + 1) % 3, v = (i + 2) % 3;
                back[3 * i + j] = pose.axes[3 * u + p] * pose.axes[3 * v + q] - pose.axes[3 * v + p] * pose.axes[3 * u + q];
            }
        }
        for (int i = 0; i < 3; i++) volume += pose.axes[3 * i] * back[3 * i];
        double centre[3], axes[9], rotation[9];  // gradients of the pose in the camera, and of the rotation in the world
        for (int i = 0; i < 3; i++) {
            centre[i] = 0;
            for (int j = 0; j < 3; j++) {
                const double inv = 1 / pose.half[j];
                centre[i] -= pose.axes[3 * i + j] * inv * sums[j];
                axes[3 * i + j] = 0;
                for (int m = 0; m < 3; m++) axes[3 * i + j] += back[3 * i + m] / volume * pose.half[m] * moment[3 * m + j] * inv;
            }
        }
        for (int i = 0; i < 3; i++)
            for (int j = 0; j < 3; j++) rotation[3 * i + j] = R[i] * axes[j] + R[3 + i] * axes[3 + j] + R[6 + i] * axes[6 + j];
        if (gradient.tensors[kBoxCentres])
            for (int j = 0; j < 3; j++)
                gradient.tensors[kBoxCentres][3ll * k + j] = (real)(R[j] * centre[0] + R[3 + j] * centre[1] + R[6 + j] * centre[2]);
        if (gradient.tensors[kBoxHalfExtents])
            for (int j = 0; j < 3; j++) gradient.tensors[kBoxHalfExtents][3ll * k + j] = (real)(-moment[4 * j] / pose.half[j]);
        if (gradient.tensors[kBoxQuaternions]) {
            const double w = pose.q[0], x = pose.q[1], y = pose.q[2], z = pose.q[3], *r = rotation;
            const double dn[4] = {
                2 * (x * (r[7] - r[5]) + y * (r[2] - r[6]) + z * (r[3] - r[1])),
                2 * (y * (r[1] + r[3]) + z * (r[2] + r[6]) - 2 * x * (r[4] + r[8]) + w * (r[7] - r[5])),
                2 * (x * (r[1] + r[3]) + w * (r[2] - r[6]) + z * (r[5] + r[7]) - 2 * y * (r[0] + r[8])),
                2 * (w * (r[3] - r[1]) + x * (r[2] + r[6]) + y * (r[5] + r[7]) - 2 * z * (r[0] + r[4])),
            };
            const double along = w * dn[0] + x * dn[1] + y * dn[2] + z * dn[3];
            for (int j = 0; j < 4; j++) gradient.tensors[kBoxQuaternions][4ll * k + j] = (real)(pose.inv_norm * (dn[j] - pose.q[j] * along));
        }
        if (gradient.screen && pose.centre[2] > 0) {  // of the centre, moved across the picture at its depth
            gradient.screen[2ll * k] = (real)(centre[0] * pose.centre[2] / cam.fx);
            gradient.screen[2ll * k + 1] = (real)(centre[1] * pose.centre[2] / cam.fy);
        }
        if (!camera) return;
        for (int i = 0; i < 3; i++) {
            for (int j = 0; j < 3; j++) {
                camera[3 * i + j] += centre[i] * c[j];
                for (int m = 0; m < 3; m++) camera[3 * i + j] += axes[3 * i + m] * pose.rotation[3 * j + m];
            }
            camera[9 + i] += centre[i];
        }
        camera[12] -= sums[13] / (double)cam.fx;
        camera[13] -= sums[15] / (double)cam.fy;
        camera[14] -= sums[12] / (double)cam.fx;
        camera[15] -= sums[14] / (double)cam.fy;
    }
};

}  // namespace smalti
