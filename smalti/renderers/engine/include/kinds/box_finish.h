// What a box's pose and the camera feel, from the sums that `emit_back` of kind `box` took over its cells. One box at a time, in double.
#pragma once
#include "box_view.h"

namespace smalti {

SM_FN void box_finish(const KindInput& in, const CameraValues& cam, int k, const real* sums, const KindGradient& gradient, double* camera) {
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

}  // namespace smalti
