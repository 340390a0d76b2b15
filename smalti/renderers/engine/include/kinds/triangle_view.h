// Triangles as a camera sees them: what project and finish of kind `triangle` share. One triangle at a time, in double: a corner
// rounded to float on the screen would cost a small far triangle its digits, and neighbours their common edge.
#pragma once
#include "../lane_math.h"
#include "../wide_math.h"
#include "kind.h"

// Code that few triangles need, kept out of the way of the others.
#ifdef SMALTI_CUDA
#define SMALTI_APART __device__ __noinline__
#else
#define SMALTI_APART inline __attribute__((noinline))
#endif

namespace smalti {

constexpr int kTriangleChannels = 64;  // of the picture, at most, where triangles are drawn
constexpr double kSoftCut = 9.210340371976184;  // ln(1e4): a soft edge ends where its factor falls below 1e-4

enum TriangleMode { kHard = 0, kAntialiased = 1, kSoft = 2 };

// The order of TriangleDrawable.inputs().
enum TriangleTensor { kCorners, kFaceOpacities, kColors, kCornerFeatures, kNormals, kTexture, kUvs, kMipmaps };
SM_FN int triangle_features(const KindInput& in) { return in.integers[0]; }
SM_FN int texture_height(const KindInput& in) { return in.integers[1]; }
SM_FN int texture_width(const KindInput& in) { return in.integers[2]; }
SM_FN int texture_depth(const KindInput& in) { return in.integers[3]; }
SM_FN int triangle_mode(const KindInput& in) { return in.integers[4]; }
SM_FN bool texture_wraps(const KindInput& in) { return in.integers[5] != 0; }
SM_FN bool triangle_detached(const KindInput& in) { return in.integers[6] != 0; }
SM_FN int texture_mipmaps(const KindInput& in) { return in.integers[7]; }  // coarser levels

SM_FN int next_corner(int i) { return i == 2 ? 0 : i + 1; }

struct TriangleView {
    double p[3][3], q[3][3];              // corners in world and camera axes
    double side1[3], side2[3], normal[3]; // q1 - q0, q2 - q0 and their cross product
    double det;                           // q0 . normal; its sign is the side that is seen
    double z_min, z_max, near_plane;      // near_plane > 0 wherever a corner is in front of the camera
    bool clipped;                         // some corner lies before the near plane
};

SM_FN void triangle_view(const KindInput& in, const CameraValues& cam, int k, TriangleView& t) {
    const real* corner = in.tensors[kCorners] + 9 * (long long)k;
    const real* R = cam.rotation;
    for (int i = 0; i < 3; i++) {
        for (int j = 0; j < 3; j++) t.p[i][j] = corner[3 * i + j];
        for (int j = 0; j < 3; j++)
            t.q[i][j] = R[3 * j] * t.p[i][0] + R[3 * j + 1] * t.p[i][1] + R[3 * j + 2] * t.p[i][2] + cam.translation[j];
    }
    for (int j = 0; j < 3; j++) t.side1[j] = t.q[1][j] - t.q[0][j], t.side2[j] = t.q[2][j] - t.q[0][j];
    wide_cross(t.side1, t.side2, t.normal);
    t.det = wide_dot(t.q[0], t.normal);
    t.z_min = wide_min(t.q[0][2], wide_min(t.q[1][2], t.q[2][2]));
    t.z_max = wide_max(t.q[0][2], wide_max(t.q[1][2], t.q[2][2]));
    t.near_plane = wide_max(cam.near_plane, 1e-6 * t.z_max);
    t.clipped = t.z_min < t.near_plane;
}

// Which way face `k` is seen: the sign of det, 0 where it is seen edge-on to rounding.
SM_FN double triangle_facing(const KindInput& in, const CameraValues& cam, int k) {
    TriangleView t;
    triangle_view(in, cam, k, t);
    return t.det;
}

struct TrianglePoint {
    double x, y;  // pixels
};

SM_FN TrianglePoint on_screen(const CameraValues& cam, const double* q) {
    const double inverse = 1 / q[2];
    return {cam.fx * q[0] * inverse + cam.cx, cam.fy * q[1] * inverse + cam.cy};
}

// What is left of the triangle at z >= near_plane: corner `from` moved by `share` towards corner `to`.
struct TrianglePolygon {
    int count;
    int from[4], to[4];
    double share[4];
    TrianglePoint at[4];
};

SM_FN void triangle_polygon(const TriangleView& t, const CameraValues& cam, TrianglePolygon& polygon) {
    int n = 0;
    for (int i = 0; i < 3; i++) {
        const int j = next_corner(i);
        const double *a = t.q[i], *b = t.q[j];
        const bool a_inside = a[2] >= t.near_plane, b_inside = b[2] >= t.near_plane;
        if (a_inside) {
            polygon.from[n] = polygon.to[n] = i, polygon.share[n] = 0;
            polygon.at[n++] = on_screen(cam, a);
        }
        if (a_inside != b_inside && n < 4) {
            const double s = (t.near_plane - a[2]) / (b[2] - a[2]);
            const double cut[3] = {a[0] + s * (b[0] - a[0]), a[1] + s * (b[1] - a[1]), t.near_plane};
            polygon.from[n] = i, polygon.to[n] = j, polygon.share[n] = s;
            polygon.at[n++] = on_screen(cam, cut);
        }
    }
    polygon.count = n;
}

// Four affine functions of the pixel, gx x + gy y + c. In double: they are taken at a block's first pixel and continued in lanes.
struct AffineFour {
    double gx[4], gy[4], c[4];
};

SM_FN void affine_lanes(const AffineFour& a, int count, const Rays& rays, F* out) {
#ifdef SMALTI_CUDA
    for (int i = 0; i < count; i++) out[i] = (real)(a.gx[i] * rays.x + a.gy[i] * rays.y + a.c[i]);
#else
    typedef double Four __attribute__((vector_size(32)));
    typedef real FourReals __attribute__((vector_size(4 * sizeof(real))));
    const real x0 = at(rays.x, 0), y0 = at(rays.y, 0);
    Four gx, gy, c;
    std::memcpy(&gx, a.gx, sizeof gx), std::memcpy(&gy, a.gy, sizeof gy), std::memcpy(&c, a.c, sizeof c);
    const FourReals base = __builtin_convertvector(gx * (double)x0 + gy * (double)y0 + c, FourReals);
    const FourReals rx = __builtin_convertvector(gx, FourReals), ry = __builtin_convertvector(gy, FourReals);
    const F x = rays.x - splat(x0), y = rays.y - splat(y0);
    for (int i = 0; i < count; i++) out[i] = fma(splat(rx[i]), x, fma(splat(ry[i]), y, splat(base[i])));
#endif
}

SM_FN real affine_at(const AffineFour& a, int i, real x, real y) { return (real)(a.gx[i] * x + a.gy[i] * y + a.c[i]); }

// Edge function i, opposite corner i: zero on the edge, positive inside, with k f = w_i / det.
struct TriangleEdge {
    double gx, gy, c, k;
};

// In front of the camera, and not so far to the side that its place on the screen loses meaning.
SM_FN bool projects(const CameraValues& cam, const double* q) {
    return q[2] > 0 && q[2] >= cam.near_plane && q[2] > 1e-4 * (wide_abs(q[0]) + wide_abs(q[1]));
}

SM_FN TriangleEdge triangle_edge(const TriangleView& t, const CameraValues& cam, int i) {
    const double *a = t.q[next_corner(i)], *b = t.q[next_corner(next_corner(i))];
    const double area = wide_abs(t.det), side = t.det > 0 ? 1 : -1;
    TriangleEdge edge;
    double scale = side;
    if (projects(cam, a) && projects(cam, b)) {
        const TrianglePoint from = on_screen(cam, a), to = on_screen(cam, b);
        edge.gx = from.y - to.y, edge.gy = to.x - from.x;
        edge.c = -(edge.gx * from.x + edge.gy * from.y);
        edge.k = a[2] * b[2] / (cam.fx * cam.fy * area);
    } else {
        double e[3];
        wide_cross(a, b, e);
        edge.gx = e[0] / cam.fx, edge.gy = e[1] / cam.fy;
        edge.c = e[2] - (edge.gx * cam.cx + edge.gy * cam.cy);
        const double steepest = wide_max(wide_abs(edge.gx), wide_abs(edge.gy)), size = steepest > 0 ? steepest : wide_abs(edge.c);
        scale /= size > 0 ? size : 1;
        edge.k = (size > 0 ? size : 1) / area;
    }
    edge.gx *= scale, edge.gy *= scale, edge.c *= scale;
    return edge;
}

// Edge functions in lanes are rounded: nearer to zero than this, in pixels, their sign is not to be trusted.
constexpr double kEdgeDoubt = 4e-6;

SM_FN TrianglePoint snapped(const CameraValues& cam, const double* q) {
    constexpr double grid = 67108864;  // 2^26 to the pixel
    const TrianglePoint p = on_screen(cam, q);
    return {wide_floor(p.x * grid + 0.5) / grid, wide_floor(p.y * grid + 0.5) / grid};
}

// Does the face own the pixel centre (x, y), as far as edge i decides? Exact, for corners moved to a fine grid, so that whatever
// faces surround a pixel agree on who has it: exactly one of two at an edge, and one of many at a vertex. Where the edge runs
// through the pixel centre it is as if the pixel lay a trifle further down, and a yet smaller trifle to the left.
SM_FN bool triangle_owns(const TriangleView& t, const CameraValues& cam, int i, double x, double y) {
    const double* q[2] = {t.q[next_corner(i)], t.q[next_corner(next_corner(i))]};
    TrianglePoint p[2];
    for (int j = 0; j < 2; j++) {
        const double *own = q[j], *other = q[1 - j];
        if (projects(cam, own)) {
            p[j] = snapped(cam, own);
            continue;
        }
        if (!projects(cam, other)) {  // no part of the edge can be seen
            const TriangleEdge edge = triangle_edge(t, cam, i);
            return edge.gx * x + edge.gy * y + edge.c >= 0;
        }
        // Another point of the same edge, as far as it lies in front of the camera.
        const double z = 0.5 * other[2];
        const double share = own[2] < z ? (other[2] - z) / (other[2] - own[2]) : 1;
        const double point[3] = {other[0] + share * (own[0] - other[0]), other[1] + share * (own[1] - other[1]),
                                 other[2] + share * (own[2] - other[2])};
        p[j] = snapped(cam, point);
    }
    // (b - a) x (s - a): differences are exact, products are taken with their rounding errors.
    const double dx = p[1].x - p[0].x, dy = p[1].y - p[0].y, sx = x - p[0].x, sy = y - p[0].y;
    const double first = dx * sy, second = dy * sx;
    const double rest = wide_fma(dx, sy, -first) - wide_fma(dy, sx, -second);
    const double f = (first - second) + rest;
    const bool left = t.det > 0;
    if (f != 0) return (f > 0) == left;
    const bool downwards = dx > 0 || (dx == 0 && dy > 0);
    return left == downwards;
}

}  // namespace smalti
