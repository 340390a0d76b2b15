// Kind `triangle`: from sums over pixels to gradients of corners, attributes and camera.
#pragma once
#include "triangle_project.h"

namespace smalti {

// What emit_back sums. With D1, D2 the derivatives with respect to barycentrics 1 and 2 (of which 0 is the rest), K = D1 beta_1 +
// D2 beta_2 + z' z, and beta_j = z g_j: `side1` = sum D1 beta_j, `side2` = sum D2 beta_j, `plane` = sum K beta_j. Kept apart like
// this, the part that moves the whole plane does not drown the part that turns it in rounding.
struct TriangleSums {
    int side1, side2, plane;  // 3 each; opacity is sum 0
    int depth;                // 3: of the corners' own z, where the barycentrics are clamped; not in hard mode
    int outline;              // 4 x 2: of the polygon's corners on the screen; not in hard mode
    int attribute;            // 9 of the colours (corner, channel) or 6 of the places in the texture (corner, axis; texels)
    int footprint;            // with mipmaps: what the width of a pixel in the texture felt of the slopes of g on the screen. By
                              // texture and screen axis (2 x 2), in units of a_im (triangle_mipmap.h); and alike for all g_m (2)
    int features;             // 3 per channel (corner)
    int normals;              // 9 (corner, axis), or 3 of the face's own
    int count;
};

SM_FN TriangleSums triangle_sums(const KindInput& in, int normals) {
    TriangleSums s;
    s.side1 = 1, s.side2 = 4, s.plane = 7, s.depth = 10;
    const bool hard = triangle_mode(in) == kHard;
    s.outline = s.depth + (hard ? 0 : 3);
    s.attribute = s.outline + (hard ? 0 : 8);
    s.footprint = s.attribute + (in.tensors[kColors] ? 9 : 6);
    s.features = s.footprint + (texture_mipmaps(in) ? 6 : 0);
    s.normals = s.features + 3 * triangle_features(in);
    s.count = s.normals + (normals ? (in.tensors[kNormals] ? 9 : 3) : 0);
    return s;
}

// Adds what the outline's corners on the screen felt to the corners of the triangle.
SM_FN void triangle_outline_back(const TriangleView& t, const CameraValues& cam, const real* sums, double (*out)[3]) {
    TrianglePolygon polygon;
    triangle_polygon(t, cam, polygon);
    for (int v = 0; v < polygon.count; v++) {
        const int from = polygon.from[v], to = polygon.to[v];
        const double *a = t.q[from], *b = t.q[to], share = polygon.share[v];
        const double x = a[0] + share * (b[0] - a[0]), y = a[1] + share * (b[1] - a[1]);
        const double inverse = 1 / (from == to ? a[2] : t.near_plane);
        const double gx = sums[2 * v] * cam.fx * inverse, gy = sums[2 * v + 1] * cam.fy * inverse;
        out[from][0] += (1 - share) * gx, out[from][1] += (1 - share) * gy;
        if (from == to) {
            out[from][2] -= (gx * x + gy * y) * inverse;
            continue;
        }
        // share = (near - a_z) / (b_z - a_z); the cut's own z stays at near.
        out[to][0] += share * gx, out[to][1] += share * gy;
        const double along = gx * (b[0] - a[0]) + gy * (b[1] - a[1]), rise = b[2] - a[2];
        out[from][2] -= along * (1 - share) / rise;
        out[to][2] -= along * share / rise;
    }
}

// Gradient of the face's own normal, to the corners in world axes.
SM_FN void triangle_normal_back(const TriangleView& t, const TriangleRecord& r, const real* sums, double (*out)[3]) {
    double side1[3], side2[3], normal[3], g[3], n[3], to1[3], to2[3];
    for (int j = 0; j < 3; j++) side1[j] = t.p[1][j] - t.p[0][j], side2[j] = t.p[2][j] - t.p[0][j];
    wide_cross(side1, side2, normal);
    for (int j = 0; j < 3; j++) g[j] = sums[j], n[j] = r.face_normal[j];
    const double along = wide_dot(g, n), factor = (t.det > 0 ? -1 : 1) / wide_sqrt(wide_dot(normal, normal));
    for (int j = 0; j < 3; j++) g[j] = (g[j] - along * n[j]) * factor;
    wide_cross(side2, g, to1);
    wide_cross(g, side1, to2);
    for (int j = 0; j < 3; j++) out[1][j] += to1[j], out[2][j] += to2[j], out[0][j] -= to1[j] + to2[j];
}

// Gradient of the slopes of g on the screen. The slope of g_m along the screen's x is element (m, 0) of Q^-1 over fx.
SM_FN void triangle_footprint_back(const TriangleView& t, const CameraValues& cam, const TriangleRecord& r, const real* sums,
                                   double (*out)[3]) {
    double row[3][3];
    wide_cross(t.side2, t.q[0], row[1]);
    wide_cross(t.q[0], t.side1, row[2]);
    for (int c = 0; c < 3; c++) {
        row[1][c] /= t.det, row[2][c] /= t.det;
        row[0][c] = t.normal[c] / t.det - row[1][c] - row[2][c];
    }
    for (int m = 0; m < 3; m++) {
        double felt[2] = {sums[4], sums[5]};
        for (int j = 0; j < 2 && m; j++) felt[j] += (double)r.attribute[m] * sums[j] + (double)r.attribute[3 + m] * sums[2 + j];
        felt[0] /= cam.fx, felt[1] /= cam.fy;
        for (int j = 0; j < 3; j++) {
            const double along = felt[0] * row[j][0] + felt[1] * row[j][1];
            for (int c = 0; c < 3; c++) out[j][c] -= along * row[m][c];
        }
    }
}

SM_FN void triangle_finish(const KindInput& in, const CameraValues& cam, const ViewOptions& view, int k, const TriangleRecord& r,
                           const real* sums, const KindGradient& out, double* camera) {
    const TriangleSums s = triangle_sums(in, view.normals);
    const long long n = k;
    TriangleView t;
    triangle_view(in, cam, k, t);

    // g = Q^-1 d with the corners as columns of Q: row 1 is q2 x q0 / det, row 2 is q0 x q1 / det, and all three rows add up to
    // normal / det; d loss / d q_j = -g_j times what d loss / d g becomes under Q^-T.
    double row1[3], row2[3], g[3][3], world[3][3];
    wide_cross(t.side2, t.q[0], row1);
    wide_cross(t.q[0], t.side1, row2);
    const double inverse = 1 / t.det;
    for (int j = 0; j < 3; j++)
        for (int c = 0; c < 3; c++)
            g[j][c] = (sums[s.plane + j] * t.normal[c] - sums[s.side1 + j] * row1[c] - sums[s.side2 + j] * row2[c]) * inverse;
    if (r.mode != kHard) {
        for (int j = 0; j < 3; j++) g[j][2] += sums[s.depth + j];
        triangle_outline_back(t, cam, sums + s.outline, g);
    }

    if (texture_mipmaps(in) && !triangle_detached(in)) triangle_footprint_back(t, cam, r, sums + s.footprint, g);

    const real* R = cam.rotation;
    for (int j = 0; j < 3; j++)
        for (int c = 0; c < 3; c++) world[j][c] = R[c] * g[j][0] + R[3 + c] * g[j][1] + R[6 + c] * g[j][2];
    if (view.normals && !in.tensors[kNormals]) triangle_normal_back(t, r, sums + s.normals, world);
    if (real* to = out.tensors[kCorners])
        for (int j = 0; j < 9; j++) to[9 * n + j] = (real)world[j / 3][j % 3];
    if (camera) {
        // All of it depends on the intrinsics through (fx x + cx z, fy y + cy z, z) alone.
        for (int j = 0; j < 3; j++) {
            for (int a = 0; a < 3; a++) {
                for (int b = 0; b < 3; b++) camera[3 * a + b] += g[j][a] * t.p[j][b];
                camera[9 + a] += g[j][a];
            }
            camera[12] += g[j][0] * t.q[j][0] / cam.fx, camera[13] += g[j][1] * t.q[j][1] / cam.fy;
            camera[14] += g[j][0] * t.q[j][2] / cam.fx, camera[15] += g[j][1] * t.q[j][2] / cam.fy;
        }
    }

    const bool inside = r.opacity >= 0 && r.opacity <= 1;  // clamped elsewhere; with a texture, per pixel
    if (out.tensors[kFaceOpacities]) out.tensors[kFaceOpacities][n] = inside || texture_depth(in) == 4 ? sums[0] : 0;
    if (real* to = out.tensors[kColors])
        for (int j = 0; j < 9; j++) to[9 * n + j] = sums[s.attribute + j];
    if (real* to = out.tensors[kUvs])
        for (int j = 0; j < 6; j++) to[6 * n + j] = sums[s.attribute + j] * (j % 2 ? texture_height(in) : texture_width(in));
    if (real* to = out.tensors[kCornerFeatures])
        for (int i = 0, f = triangle_features(in); i < 3; i++)
            for (int c = 0; c < f; c++) to[(3 * n + i) * f + c] = sums[s.features + 3 * c + i];
    if (out.tensors[kNormals] && view.normals)
        for (int j = 0; j < 9; j++) out.tensors[kNormals][9 * n + j] = sums[s.normals + j];
}

}  // namespace smalti
