// A box as a camera sees it: its pose and its outline on the screen. One box at a time, in double.
#pragma once
#include "../wide_math.h"
#include "kind.h"

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

SM_FN void box_project(const KindInput& in, const CameraValues& cam, const ViewOptions& view, int k, BoxRecord& record, Bounds& bounds) {
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

SM_FN bool box_touches(const BoxRecord& record, real x0, real y0, real x1, real y1) {
    const real* r = record.rectangle;
    if (x1 < r[0] || x0 > r[2] || y1 < r[1] || y0 > r[3]) return false;
    for (int k = 0; k < record.line_count; k++) {
        const real* line = record.lines[k];
        if (line[0] * (line[0] > 0 ? x1 : x0) + line[1] * (line[1] > 0 ? y1 : y0) + line[2] < 0) return false;
    }
    return true;
}

}  // namespace smalti
