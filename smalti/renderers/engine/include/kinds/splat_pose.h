// Where a splat (a primitive with mean, quaternion and scales) stands in camera axes, its way back, and its outline on the screen.
//
// One primitive at a time and in double: means a thousand sizes away keep their digits, and it costs little next to the pixels.
#pragma once
#include "../wide_math.h"
#include "kind.h"

namespace smalti {

constexpr double kLn2 = 0.6931471805599453;

// Order of the tensors that all splats share (drawables.py).
constexpr int kMeans = 0, kQuaternions = 1, kScales = 2, kOpacities = 3, kShDc = 4, kShRest = 5, kFeatures = 6;

// ------------------------------------------------------------------ pose
struct SplatPose {
    double mean[3];          // world
    double q[3];             // the mean in camera axes
    double quaternion[4];    // unit
    double inverse_norm;     // of the quaternion given
    double local[9];         // world from local
    double axes[9];          // camera from local: R local
};

// d loss / d what the pose was made from; `mean` also takes the colour's share.
struct PoseGradient {
    double mean[3], quaternion[4];
};

// False: a parameter is not a number or the quaternion is zero.
SM_FN bool splat_pose(const KindInput& in, const CameraValues& cam, int k, SplatPose& pose) {
    const real *p = in.tensors[kMeans] + 3 * (long long)k, *r = in.tensors[kQuaternions] + 4 * (long long)k;
    double n2 = 0;
    for (int j = 0; j < 3; j++) pose.mean[j] = p[j];
    for (int j = 0; j < 4; j++) pose.quaternion[j] = r[j], n2 += double(r[j]) * r[j];
    if (!is_finite(pose.mean[0] + pose.mean[1] + pose.mean[2]) || !is_finite(n2) || n2 < 1e-24) return false;
    pose.inverse_norm = 1 / wide_sqrt(n2);
    for (int j = 0; j < 4; j++) pose.quaternion[j] *= pose.inverse_norm;
    const double w = pose.quaternion[0], x = pose.quaternion[1], y = pose.quaternion[2], z = pose.quaternion[3];
    double* m = pose.local;
    m[0] = 1 - 2 * (y * y + z * z), m[1] = 2 * (x * y - w * z), m[2] = 2 * (x * z + w * y);
    m[3] = 2 * (x * y + w * z), m[4] = 1 - 2 * (x * x + z * z), m[5] = 2 * (y * z - w * x);
    m[6] = 2 * (x * z - w * y), m[7] = 2 * (y * z + w * x), m[8] = 1 - 2 * (x * x + y * y);
    const real* R = cam.rotation;
    for (int i = 0; i < 3; i++) {
        pose.q[i] = R[3 * i] * pose.mean[0] + R[3 * i + 1] * pose.mean[1] + R[3 * i + 2] * pose.mean[2] + cam.translation[i];
        for (int j = 0; j < 3; j++) pose.axes[3 * i + j] = R[3 * i] * m[j] + R[3 * i + 1] * m[3 + j] + R[3 * i + 2] * m[6 + j];
    }
    return true;
}

// Carries d loss / d q and d loss / d axes [9] (and `local_gradient` [9] or null, what reaches `local` directly) to mean and
// quaternion, which are added to, and to camera[0..12) unless null.
SM_FN void splat_pose_vjp(const SplatPose& pose, const CameraValues& cam, const double* dq, const double* daxes,
                          const double* local_gradient, PoseGradient& out, double* camera) {
    const real* R = cam.rotation;
    double r[9];
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++) {
            r[3 * i + j] = R[i] * daxes[j] + R[3 + i] * daxes[3 + j] + R[6 + i] * daxes[6 + j];
            if (local_gradient) r[3 * i + j] += local_gradient[3 * i + j];
        }
    for (int j = 0; j < 3; j++) out.mean[j] += R[j] * dq[0] + R[3 + j] * dq[1] + R[6 + j] * dq[2];
    const double w = pose.quaternion[0], x = pose.quaternion[1], y = pose.quaternion[2], z = pose.quaternion[3];
    double dn[4];
    dn[0] = 2 * (x * (r[7] - r[5]) + y * (r[2] - r[6]) + z * (r[3] - r[1]));
    dn[1] = 2 * (y * (r[1] + r[3]) + z * (r[2] + r[6]) - 2 * x * (r[4] + r[8]) + w * (r[7] - r[5]));
    dn[2] = 2 * (x * (r[1] + r[3]) + w * (r[2] - r[6]) + z * (r[5] + r[7]) - 2 * y * (r[0] + r[8]));
    dn[3] = 2 * (w * (r[3] - r[1]) + x * (r[2] + r[6]) + y * (r[5] + r[7]) - 2 * z * (r[0] + r[4]));
    const double along = w * dn[0] + x * dn[1] + y * dn[2] + z * dn[3];
    for (int j = 0; j < 4; j++) out.quaternion[j] += pose.inverse_norm * (dn[j] - pose.quaternion[j] * along);
    if (!camera) return;
    for (int i = 0; i < 3; i++) {
        for (int j = 0; j < 3; j++) camera[3 * i + j] += dq[i] * pose.mean[j] + wide_dot(daxes + 3 * i, pose.local + 3 * j);
        camera[9 + i] += dq[i];
    }
}

// Changing the intrinsics maps every ray, d -> (1 + tau) d. `tau` [9]: d loss / d tau, row major; adds to camera[12..16).
SM_FN void ray_map_vjp(const CameraValues& cam, const double* tau, double* camera) {
    camera[12] -= tau[0] / cam.fx;
    camera[13] -= tau[4] / cam.fy;
    camera[14] -= tau[2] / cam.fx;
    camera[15] -= tau[5] / cam.fy;
}

// Writes the rows of mean and quaternion, where wanted.
SM_FN void write_pose_gradient(const PoseGradient& g, int k, const KindGradient& out) {
    if (out.tensors[kMeans])
        for (int j = 0; j < 3; j++) out.tensors[kMeans][3 * (long long)k + j] = real(g.mean[j]);
    if (out.tensors[kQuaternions])
        for (int j = 0; j < 4; j++) out.tensors[kQuaternions][4 * (long long)k + j] = real(g.quaternion[j]);
}

// ------------------------------------------------------------------ outline
// The exact outline of {mean + factor y, |y| <= radius} on the screen, an ellipse: with d = pixel - (x, y), u = l11 dx + l21 dy,
// w = l22 dy, it is u^2 + w^2 <= 1. Where the body reaches the camera plane there is no ellipse, and l11 is 0.
struct Outline {
    real x, y, l11, l21, l22, inv_l11, y_right;
};

// Left end of what a body can cover among the columns u = x / z in [low, high]: the first plane of columns that touches it.
// Columns of the screen as planes (1, 0, -u); `bx`, `bz` the mean, `xx`, `xz`, `zz` the covariance times radius^2.
SM_FN double first_column(double bx, double bz, double xx, double xz, double zz, double low, double high) {
    const double clear = bx - low * bz, spread = xx - 2 * low * xz + low * low * zz;
    if (!(clear > 0 && clear * clear > spread)) return low;
    const double a = bz * bz - zz, b = bx * bz - xz, c = bx * bx - xx, disc = b * b - a * c;
    if (disc < 0) return low;
    const double s = b < 0 ? b - wide_sqrt(disc) : b + wide_sqrt(disc), beyond = high + 1 + wide_abs(high);
    double first = beyond;
    if (a != 0 && s / a > low) first = wide_min(first, s / a);
    if (s != 0 && c / s > low) first = wide_min(first, c / s);
    return first;
}

// Fills bounds (depth, nearest, box, drawn) and the outline of the body {q + factor y, |y| <= radius}; `factor` row major in
// camera axes (a disk's third column is 0). `farthest`: no point of the body has a larger z.
SM_FN void splat_outline(const double* q, const double* factor, double radius, const CameraValues& cam, Bounds& bounds, Outline& out,
                         real& farthest) {
    radius *= 1.00001;
    const double r2 = radius * radius, *gz = factor + 6, zz = wide_dot(gz, gz), reach = radius * wide_sqrt(zz);
    const double widened = 2e-6 * (wide_abs(q[2]) + reach), low = q[2] - reach, high = q[2] + reach;
    bounds.depth = real(q[2]);
    bounds.nearest = real(wide_max(low - widened, cam.near_plane));
    farthest = real(wide_min(wide_max(high + widened, cam.near_plane), 1e30));  // finite whatever the scales
    bounds.drawn = false;
    out = Outline{0, 0, 0, 0, 0, 0, 0};
    if (!(high >= cam.near_plane)) return;
    const double slack = 0.01, far_away = 16.0 * (cam.width + cam.height);
    double left = 0, right = 0, top = 0, bottom = 0;
    bool ellipse = low > 1e-3 * reach;
    if (ellipse) {
        const double u = q[0] / q[2], v = q[1] / q[2], ratio = r2 / (low * high), root = wide_sqrt(ratio);
        double m1[4], m2[4];
        for (int j = 0; j < 3; j++) m1[j] = cam.fx * (factor[j] - u * gz[j]), m2[j] = cam.fy * (factor[3 + j] - v * gz[j]);
        const double s1 = wide_dot(m1, gz), s2 = wide_dot(m2, gz);
        m1[3] = root * s1, m2[3] = root * s2;
        double a = 0, b = 0, c = 0, det = 0;
        for (int i = 0; i < 4; i++) {
            a += m1[i] * m1[i], b += m1[i] * m2[i], c += m2[i] * m2[i];
            for (int j = 0; j < i; j++) det += (m1[i] * m2[j] - m1[j] * m2[i]) * (m1[i] * m2[j] - m1[j] * m2[i]);
        }
        // Grown by a hundredth of a pixel all around: against rounding, and so that a disk seen edge-on has an outline.
        const double grown = slack * slack;
        det = ratio * ratio * det + grown * (ratio * (a + c) + grown);
        a = ratio * a + grown, b = ratio * b, c = ratio * c + grown;
        const double x = cam.cx + cam.fx * u - ratio * s1, y = cam.cy + cam.fy * v - ratio * s2;
        const double root_a = wide_sqrt(a), root_c = wide_sqrt(c), root_det = wide_sqrt(det);
        left = x - root_a, right = x + root_a, top = y - root_c, bottom = y + root_c;
        ellipse = root_a + root_c < far_away && wide_abs(x) + wide_abs(y) < far_away;
        if (ellipse)
            out = {real(x), real(y), real(root_c / root_det), real(-b / (root_c * root_det)), real(1 / root_c), real(root_det / root_c),
                   real(b / root_a)};
    }
    if (!ellipse) {
        const double xx = r2 * wide_dot(factor, factor), yy = r2 * wide_dot(factor + 3, factor + 3);
        const double xz = r2 * wide_dot(factor, gz), yz = r2 * wide_dot(factor + 3, gz), wz = r2 * zz;
        const double u0 = -cam.cx / cam.fx, u1 = (cam.width - cam.cx) / cam.fx, v0 = -cam.cy / cam.fy, v1 = (cam.height - cam.cy) / cam.fy;
        left = cam.cx + cam.fx * first_column(q[0], q[2], xx, xz, wz, u0, u1);
        right = cam.cx - cam.fx * first_column(-q[0], q[2], xx, -xz, wz, -u1, -u0);
        top = cam.cy + cam.fy * first_column(q[1], q[2], yy, yz, wz, v0, v1);
        bottom = cam.cy - cam.fy * first_column(-q[1], q[2], yy, -yz, wz, -v1, -v0);
    }
    bounds.left = real(left - slack), bounds.right = real(right + slack);
    bounds.top = real(top - slack), bounds.bottom = real(bottom + slack);
    bounds.drawn = right + slack >= 0.5 && bottom + slack >= 0.5 && left - slack <= cam.width - 0.5 && top - slack <= cam.height - 0.5 &&
                   left <= right && top <= bottom;
}

// Whether the outline reaches the rectangle of pixel centres; errs on yes by a few thousandths of a pixel.
SM_FN bool outline_touches(const Outline& o, real x0, real y0, real x1, real y1) {
    if (o.l11 == 0) return true;
    const real height = real(1.00002), y_max = real_sqrt(height) / o.l22, low = y0 - o.y, high = y1 - o.y;
    const real from = low > -y_max ? low : -y_max, to = high < y_max ? high : y_max;
    if (from > to) return false;
    const real at_right = o.y_right < from ? from : o.y_right > to ? to : o.y_right;
    const real at_left = -o.y_right < from ? from : -o.y_right > to ? to : -o.y_right;
    const real wr = o.l22 * at_right, wl = o.l22 * at_left, r2 = height - wr * wr, l2 = height - wl * wl;
    const real right = (real_sqrt(r2 > 0 ? r2 : 0) - o.l21 * at_right) * o.inv_l11;
    const real left = (-real_sqrt(l2 > 0 ? l2 : 0) - o.l21 * at_left) * o.inv_l11;
    const real slack = real(2e-3), share = real(1e-5);
    return x0 - o.x <= right + slack + share * (right < 0 ? -right : right) && x1 - o.x >= left - slack - share * (left < 0 ? -left : left);
}

}  // namespace smalti
