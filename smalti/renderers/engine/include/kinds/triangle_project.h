// Kind `triangle`: its record, where it can be seen, and which rectangles of pixels it can touch.
#pragma once
#include "triangle_view.h"

namespace smalti {

// Soft and antialiased modes: the outline of what lies behind the near plane, as segments. Of a pixel, `across` is the signed
// distance to each segment's line (positive inside) and `along` the way from the segment's begin, pixels. Of long segments only
// what lies near the picture counts as the segment, so that float32 holds it: it is `share` of the whole further on.
struct TriangleOutline {
    AffineFour across, along;
    real length[4], inverse[4], share[4];
    int silhouette[4];
    int count;
};

struct TriangleRecord {
    AffineFour edges;     // three edge functions (TriangleEdge)
    real k[3];            // g_i = k_i f_i
    real sure[3], open[3];  // inside of edge i where f_i > sure_i, outside where f_i < open_i, and to be looked at in between
    real s_low, s_high;   // 1/z of the triangle's points
    real opacity;
    // Value at corner 0 and how those of corners 1 and 2 differ: of the colour (channel by channel), or of the place in the texture
    // (x, then y; texels from `texel`, so that large textures cost no digits).
    real attribute[9];
    int texel[2];
    real z[3];
    real reach[3];        // touches: f_i somewhere above -reach_i
    real left, top, right, bottom;
    real falloff;         // soft: D / sigma per square pixel
    real face_normal[3];
    int mode, channels, normals, smooth, clipped;
    TriangleOutline outline;
};

// Sum of 0 x everything this face brings along, and of 0 x the differences between its corners: 0, or NaN where some of it is
// not finite.
SM_FN real triangle_unusable(const KindInput& in, int k) {
    const long long n = k;
    real sum = in.tensors[kFaceOpacities][n] * 0;
    auto add = [&](int tensor, int count) {
        if (!in.tensors[tensor]) return;
        const real* values = in.tensors[tensor] + 3 * n * count;
        for (int j = 0; j < count; j++) {
            const real first = values[j];
            sum += first * 0 + (values[count + j] - first) * 0 + (values[2 * count + j] - first) * 0;
        }
    };
    add(kCorners, 3), add(kColors, 3), add(kCornerFeatures, triangle_features(in)), add(kNormals, 3), add(kUvs, 2);
    return sum;
}

SM_FN void triangle_attributes(const KindInput& in, int k, TriangleRecord& r) {
    r.texel[0] = r.texel[1] = 0;
    if (const real* colors = in.tensors[kColors]) {
        colors += 9 * (long long)k;
        for (int c = 0; c < 3; c++)
            r.attribute[3 * c] = colors[c], r.attribute[3 * c + 1] = colors[3 + c] - colors[c], r.attribute[3 * c + 2] = colors[6 + c] - colors[c];
        return;
    }
    const real* uvs = in.tensors[kUvs] + 6 * (long long)k;
    for (int c = 0; c < 2; c++) {
        const int size = c ? texture_height(in) : texture_width(in);
        const double texels = uvs[c] * (double)size - 0.5;
        double whole = wide_floor(texels);
        if (c == 0 && texture_wraps(in)) {
            whole = wide_max(wide_min(whole, 1e9), -1e9);
            r.texel[c] = (int)(whole - size * wide_floor(whole / size));
        } else {
            whole = wide_max(wide_min(whole, size - 1), 0);
            r.texel[c] = (int)whole;
        }
        // Bounded, so that an offset that overflows is none: 0 times it would be no number. No pixel can tell 10^12 texels from more.
        r.attribute[3 * c] = (real)wide_max(wide_min(texels - whole, 1e12), -1e12);
        for (int i = 1; i < 3; i++) r.attribute[3 * c + i] = (real)wide_max(wide_min((uvs[2 * i + c] - (double)uvs[c]) * size, 1e12), -1e12);
    }
}

// The edge of the triangle that segment i of the polygon lies on, named by the corner where it begins; -1 on the near plane.
SM_FN int polygon_edge(const TriangleView& t, const TrianglePolygon& polygon, int i) {
    const int from = polygon.from[i];
    return from != polygon.to[i] && t.q[from][2] >= t.near_plane ? -1 : from;
}

SM_FN void triangle_outline(const TriangleView& t, const CameraValues& cam, const TrianglePolygon& polygon, double radius, TriangleOutline& o) {
    o.count = polygon.count;
    const double window = cam.width + cam.height + radius;
    const double side = t.det > 0 ? 1 : -1;
    for (int i = 0; i < 4; i++) {
        const bool there = i < polygon.count;
        const TrianglePoint a = polygon.at[there ? i : 0], b = polygon.at[there ? (i + 1 == polygon.count ? 0 : i + 1) : 0];
        const double dx = b.x - a.x, dy = b.y - a.y, length = wide_sqrt(dx * dx + dy * dy), inverse = length > 1e-12 ? 1 / length : 0;
        const double ux = length > 1e-12 ? dx * inverse : 1, uy = dy * inverse;
        o.across.gx[i] = -uy * side, o.across.gy[i] = ux * side, o.across.c[i] = (uy * a.x - ux * a.y) * side;
        const double middle = ux * (0.5 * cam.width - a.x) + uy * (0.5 * cam.height - a.y);
        const double begin = wide_min(wide_max(middle - window, 0), length), end = wide_max(wide_min(middle + window, length), begin);
        o.along.gx[i] = ux, o.along.gy[i] = uy, o.along.c[i] = -(ux * a.x + uy * a.y) - begin;
        o.length[i] = (real)(end - begin), o.inverse[i] = (real)inverse, o.share[i] = (real)(begin * inverse);
        o.silhouette[i] = there;
    }
}

// The edge from corner i on is a silhouette: no neighbour there, or one that faces the other way.
SM_FN bool triangle_silhouette(const KindInput& in, const CameraValues& cam, const TriangleView& t, int k, int i) {
    const int* neighbours = in.indices[0];
    const int neighbour = neighbours ? neighbours[3 * (long long)k + i] : -1;
    if (neighbour < 0 || neighbour >= in.count) return true;
    const double facing = triangle_facing(in, cam, neighbour);
    return !((facing > 0 && t.det > 0) || (facing < 0 && t.det < 0));
}

// Antialiased: silhouettes reach half a pixel further out and decide no pixel by themselves; the other segments leave the outline.
SM_FN void triangle_silhouettes(const KindInput& in, const CameraValues& cam, const TriangleView& t, const TrianglePolygon& polygon,
                                int k, TriangleRecord& r) {
    bool silhouette[3];
    for (int i = 0; i < 3; i++) {
        silhouette[i] = triangle_silhouette(in, cam, t, k, i);
        if (!silhouette[i]) continue;
        const int opposite = next_corner(next_corner(i));
        const double gx = r.edges.gx[opposite], gy = r.edges.gy[opposite];
        r.sure[opposite] = r.open[opposite] = -real(3e38);
        r.reach[opposite] += (real)(0.5 * wide_sqrt(gx * gx + gy * gy));
    }
    for (int i = 0; i < polygon.count; i++) {
        const int edge = polygon_edge(t, polygon, i);
        r.outline.silhouette[i] = edge >= 0 && silhouette[edge];
    }
}

SM_FN void triangle_project(const KindInput& in, const CameraValues& cam, const ViewOptions& view, int k, TriangleRecord& r, Bounds& b) {
    TriangleView t;
    triangle_view(in, cam, k, t);
    b.drawn = false;
    b.depth = (real)((t.q[0][2] + t.q[1][2] + t.q[2][2]) / 3);
    const double zero = t.det * 0 + triangle_unusable(in, k);
    // Depths of 1e30 overflow where they are multiplied.
    b.usable = zero == 0 && view.channels <= kTriangleChannels && t.z_max < 1e30 && t.z_min > -1e30;
    if (!b.usable || t.z_max < t.near_plane || !(t.z_max > 0)) return;
    if (t.det * t.det <= 1e-18 * wide_dot(t.q[0], t.q[0]) * wide_dot(t.side1, t.side1) * wide_dot(t.side2, t.side2)) return;

    const double nearest = wide_max(t.z_min, t.near_plane);
    r.s_low = (real)(1 / t.z_max), r.s_high = (real)(1 / nearest);
    b.nearest = (real)(nearest * (1 - 2e-6));
    r.mode = triangle_mode(in), r.channels = view.channels, r.normals = view.normals, r.smooth = view.smooth, r.clipped = t.clipped;

    TrianglePolygon polygon;
    triangle_polygon(t, cam, polygon);
    double left = polygon.at[0].x, right = left, top = polygon.at[0].y, bottom = top;
    for (int i = 1; i < polygon.count; i++) {
        left = wide_min(left, polygon.at[i].x), right = wide_max(right, polygon.at[i].x);
        top = wide_min(top, polygon.at[i].y), bottom = wide_max(bottom, polygon.at[i].y);
    }
    double radius = 1e-3 + 1e-12 * (right - left + bottom - top);
    r.falloff = 0;
    if (r.mode == kSoft) {
        const double ndc = 2.0 / wide_min(cam.width, cam.height);
        r.falloff = (real)(ndc * ndc / in.numbers[0]);
        radius += wide_sqrt(kSoftCut * in.numbers[0]) / ndc * 1.00001;
    } else if (r.mode == kAntialiased) {
        radius += 0.5;
    }
    left -= radius, right += radius, top -= radius, bottom += radius;
    // No pixel centre inside?
    if (right < 0 || bottom < 0 || left > cam.width || top > cam.height) return;
    if (wide_floor(right - 0.5) < left - 0.5 || wide_floor(bottom - 0.5) < top - 0.5) return;
    const double wide = 2.0 * cam.width + 16, high = 2.0 * cam.height + 16;  // large numbers have no use beyond
    b.left = r.left = (real)wide_max(left, -wide), b.right = r.right = (real)wide_min(right, wide);
    b.top = r.top = (real)wide_max(top, -high), b.bottom = r.bottom = (real)wide_min(bottom, high);

    r.edges.gx[3] = r.edges.gy[3] = r.edges.c[3] = 0;
    for (int i = 0; i < 3; i++) {
        const TriangleEdge edge = triangle_edge(t, cam, i);
        r.edges.gx[i] = edge.gx, r.edges.gy[i] = edge.gy, r.edges.c[i] = edge.c;
        r.k[i] = (real)edge.k;
        const double steepness = wide_sqrt(edge.gx * edge.gx + edge.gy * edge.gy);
        r.sure[i] = (real)(kEdgeDoubt * steepness), r.open[i] = -r.sure[i];
        r.reach[i] = (real)((r.mode == kSoft ? radius : 1e-3) * steepness);
        r.z[i] = (real)t.q[i][2];
        const double sound = (double)r.k[i] * 0 + (double)r.reach[i] * 0 + (double)(real)edge.c * 0;
        if (!(sound == 0)) {
            b.usable = false;
            return;
        }
    }
    if (r.mode != kHard) triangle_outline(t, cam, polygon, radius, r.outline);
    if (r.mode == kAntialiased) triangle_silhouettes(in, cam, t, polygon, k, r);
    r.opacity = in.tensors[kFaceOpacities][k];
    triangle_attributes(in, k, r);
    if (!in.tensors[kNormals]) {
        // The cross product in world axes, turned so that its product with the rays is negative: det is q0 . normal (camera axes).
        double side1[3], side2[3], normal[3];
        for (int j = 0; j < 3; j++) side1[j] = t.p[1][j] - t.p[0][j], side2[j] = t.p[2][j] - t.p[0][j];
        wide_cross(side1, side2, normal);
        const double factor = (t.det > 0 ? -1 : 1) / wide_sqrt(wide_dot(normal, normal));
        for (int j = 0; j < 3; j++) r.face_normal[j] = (real)(normal[j] * factor);
    }
    b.drawn = true;
}

// Can the triangle be seen at a pixel centre of this rectangle? Separating lines: the rectangle's sides and the triangle's edges,
// each moved out by how far the mode reaches. Soft corners reach a little too far; they are cut by their distance.
SM_FN bool triangle_touches(const TriangleRecord& r, real x0, real y0, real x1, real y1) {
    if (x1 < r.left || x0 > r.right || y1 < r.top || y0 > r.bottom) return false;
    const AffineFour& e = r.edges;
    for (int i = 0; i < 3; i++) {
        const double x = e.gx[i] > 0 ? x1 : x0, y = e.gy[i] > 0 ? y1 : y0;
        if (e.gx[i] * x + e.gy[i] * y + e.c[i] < -r.reach[i]) return false;
    }
    return true;
}

}  // namespace smalti
