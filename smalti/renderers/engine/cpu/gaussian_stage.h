// Kind `gaussian` on the CPU: projection of all primitives, colour of the visible ones, and the way back.
#pragma once
#include "binning.h"

namespace smalti {

constexpr int kGrain = 2048;  // primitives per work item; a multiple of every lane count

// Ids of one lane group; lanes past the end repeat the last id and are masked by `count`.
struct LaneGroup {
    int id[kLanes], count;
    LaneGroup(const int* ids, int first, int begin, int end) {
        count = end - begin < kLanes ? end - begin : kLanes;
        for (int k = 0; k < kLanes; k++) {
            const int at = begin + (k < count ? k : count - 1);
            id[k] = ids ? ids[at] - first : at;
        }
    }
};

// Projects primitives [0, in.count) into rows `first`... of the plan; footprints get no slots yet.
inline void gaussian_project_all(Plan& plan, const GaussianInput& in, const CameraValues& cam, int first) {
    std::atomic<int> skipped{0};
    parallel_ranges(in.count, kGrain, [&](int begin, int end, int, int) {
        int bad = 0;
        for (int base = begin; base < end; base += kLanes) {
            const LaneGroup group(nullptr, 0, base, end);
            GaussianProjection p;
            gaussian_project(in, cam, group.id, p);
            for (int k = 0; k < group.count; k++) {
                const int row = first + base + k;
                Footprint& f = plan.footprints[row];
                f = {0, 0, 0, 0, 0};
                plan.depths[row] = p.z[k];
                plan.radii[row] = 0;
                if (!lane(p.usable, k)) {
                    bad++;
                    continue;
                }
                if (!lane(p.drawn, k)) continue;
                const real mx = p.mx[k], my = p.my[k], rx = p.reach_x[k], ry = p.reach_y[k];
                // Generous by a hundredth of a pixel and the rounding of far-away centres; spans and blocks cut it exactly.
                const real sx = real(0.01) + real(1e-6) * std::fabs(mx), sy = real(0.01) + real(1e-6) * std::fabs(my);
                const real left = (mx - rx - sx) / kTile, right = (mx + rx + sx) / kTile;
                const real top = (my - ry - sy) / kTile, bottom = (my + ry + sy) / kTile;
                if (right < 0 || bottom < 0 || left >= plan.tiles_x || top >= plan.tiles_y) continue;
                f.x0 = (short)std::max(left, real(0));
                f.y0 = (short)std::max(top, real(0));
                f.x1 = (short)std::min(right + 1, real(plan.tiles_x));
                f.y1 = (short)std::min(bottom + 1, real(plan.tiles_y));
                plan.radii[row] = rx > ry ? rx : ry;
                plan.screens[row] = {mx, my, p.l11[k], p.l21[k], p.l22[k], p.lo[k], p.inv_l11[k], p.y_right[k]};
            }
        }
        skipped += bad;
    });
    plan.skipped += skipped;
}

// Tiles of each row of the footprint that the ellipse reaches: exact, but for a little slack against rounding.
// Rows are lanes. Returns the number of (primitive, tile) pairs.
inline int tile_spans(const GaussianScreen& s, const Footprint& f, TileSpan* spans) {
    int total = 0;
    const F steps = (load_lanes(kLaneConstants.index)) * splat(kTile), shift = splat(s.mx - real(0.5)), tile = splat(real(1) / kTile);
    for (int row = f.y0; row < f.y1; row += kLanes) {
        const F low = steps + splat(row * kTile + real(0.5) - s.my);
        const GaussianReach<F> reach = gaussian_reach<F>(s, low, low + splat(kTile - 1));
        // First pixel reached, rounded up (0.99), and last, rounded down; then whole tiles inside the footprint.
        const F from = max_of((reach.left + shift + splat(real(0.99))) * tile, splat(f.x0));
        const F to = min_of((reach.right + shift) * tile + splat(1), splat(f.x1));
        for (int k = 0; k < kLanes && row + k < f.y1; k++) {
            // Both are non-negative after the clamp where the span is not empty, so truncation rounds down.
            TileSpan span = {0, 0};
            if (from[k] < f.x1 && to[k] > f.x0) {
                span = {(short)from[k], (short)to[k]};
                if (span.x0 < span.x1)
                    total += span.x1 - span.x0;
                else
                    span = {0, 0};
            }
            *spans++ = span;
        }
    }
    return total;
}

// Spans of every footprint; primitives that reach no pixel lose theirs. Then slots, numbered in index order.
// Returns false if there are more spans than an int can count.
inline bool gaussian_spans(Plan& plan) {
    int* start = plan.span_start.resize(plan.count + 1);
    long long sum = 0;
    for (int k = 0; k < plan.count; k++) {
        start[k] = (int)sum;
        const Footprint& f = plan.footprints[k];
        sum += f.x0 < f.x1 ? f.y1 - f.y0 : 0;
        if (sum > INT_MAX) return false;
    }
    start[plan.count] = (int)sum;
    plan.spans.resize(sum);
    parallel_ranges(plan.count, kGrain, [&](int begin, int end, int, int) {
        for (int k = begin; k < end; k++) {
            Footprint& f = plan.footprints[k];
            if (f.x0 < f.x1 && tile_spans(plan.screens[k], f, &plan.spans[start[k]]) == 0) {
                f.x1 = f.x0;
                plan.radii[k] = 0;
            }
        }
    });
    return true;
}

// Channels of the primitives that are still drawn: colour, features, depth. A colour that is not a number drops the primitive.
inline void gaussian_channels_all(Plan& plan, const GaussianInput& in, const CameraValues& cam, int first) {
    const int channels = plan.channels;
    std::atomic<int> skipped{0};
    parallel_ranges(in.count, kGrain, [&](int begin, int end, int, int) {
        int drawn[kGrain], n = 0, bad = 0;
        for (int k = begin; k < end; k++)
            if (plan.footprints[first + k].x0 < plan.footprints[first + k].x1) drawn[n++] = k;
        for (int base = 0; base < n; base += kLanes) {
            const LaneGroup group(drawn, 0, base, n);
            F dir[3], inv_length, basis[kShMax], colour[3];
            gaussian_direction(in, cam, group.id, dir, &inv_length);
            sh_basis(in.sh_degree, dir[0], dir[1], dir[2], basis);
            gaussian_colour(in, basis, group.id, colour);
            const F sum = (colour[0] + colour[1] + colour[2]) * splat(0);
            const M finite = both(ge(sum, splat(0)), ge(splat(0), sum));
            for (int k = 0; k < group.count; k++) {
                const int row = first + group.id[k];
                real* out = plan.values.data() + (long long)row * channels;
                for (int c = 0; c < 3; c++) out[c] = colour[c][k] > 0 ? colour[c][k] : 0;
                for (int c = 0; c < in.feature_count; c++) out[3 + c] = in.features[(long long)group.id[k] * in.feature_count + c];
                if (in.with_depth) out[channels - 1] = plan.depths[row];
                if (!lane(finite, k)) {
                    plan.footprints[row].x1 = plan.footprints[row].x0;
                    plan.radii[row] = 0;
                    bad++;
                }
            }
        }
        skipped += bad;
    });
    plan.skipped += skipped;
}

// Sums the slots of every visible primitive in slot order and carries them to the parameters. `camera` [kCameraGradient] or null.
// Rows of primitives that are not visible are left as they are (the caller zeroes them).
inline void gaussian_backward_all(const Plan& plan, const GaussianInput& in, const CameraValues& cam, int first, int moments,
                                  const GaussianGradient& out, real* absolute, double* camera) {
    const int stride = slot_stride(moments, plan.channels);
    const int pieces = (in.count + kGrain - 1) / kGrain;
    std::vector<double> camera_pieces(camera ? (size_t)pieces * kCameraGradient : 0, 0.0);
    parallel_ranges(in.count, kGrain, [&](int begin, int end, int piece, int) {
        int drawn[kGrain], n = 0;
        for (int k = begin; k < end; k++)
            if (slot_count(plan.footprints[first + k]) > 0) drawn[n++] = k;
        std::vector<real> rows((size_t)stride * kLanes);
        F camera_sum[kCameraGradient];
        for (int base = 0; base < n; base += kLanes) {
            const LaneGroup group(drawn, 0, base, n);
            for (auto& c : camera_sum) c = F{};
            int row_index[kLanes];
            for (int k = 0; k < kLanes; k++) {
                row_index[k] = k;
                real* row = rows.data() + (size_t)k * stride;
                for (int j = 0; j < stride; j++) row[j] = 0;
                if (k >= group.count) continue;
                const Footprint& f = plan.footprints[first + group.id[k]];
                const real* slot = plan.slot_values.data() + (long long)f.slot * stride;
                for (int s = slot_count(f); s > 0; s--, slot += stride)
                    for (int j = 0; j < stride; j++) row[j] += slot[j];
            }
            auto column = [&](int j) { return gather(rows.data(), row_index, stride, j); };
            F moment[kGaussianMoments], colour[3];
            for (int j = 0; j < kGaussianMoments; j++) moment[j] = column(j);
            for (int c = 0; c < 3; c++) colour[c] = column(moments + c);
            GaussianVjp g;
            F* camera_lanes = camera ? camera_sum : nullptr;
            gaussian_vjp_geometry(in, cam, group.id, moment, in.with_depth ? column(moments + plan.channels - 1) : F{}, g, camera_lanes);
            gaussian_vjp_colour(in, cam, group.id, colour, g, camera_lanes, [&](int k, int c, F value) {
                if (out.sh_rest) scatter(out.sh_rest, group.id, group.count, 3 * in.sh_rest_count, 3 * k + c, value);
            });
            for (int c = 0; c < 3; c++) {
                scatter(out.means, group.id, group.count, 3, c, g.mean[c]);
                scatter(out.scales, group.id, group.count, 3, c, g.scale[c]);
                scatter(out.sh_dc, group.id, group.count, 3, c, g.dc[c]);
            }
            for (int c = 0; c < 4; c++) scatter(out.quaternions, group.id, group.count, 4, c, g.quaternion[c]);
            for (int c = 0; c < 2; c++) scatter(out.screen, group.id, group.count, 2, c, g.screen[c]);
            scatter(out.opacities, group.id, group.count, 1, 0, g.opacity);
            if (out.features)
                for (int c = 0; c < in.feature_count; c++)
                    scatter(out.features, group.id, group.count, in.feature_count, c, column(moments + 3 + c));
            if (absolute)
                for (int k = 0; k < group.count; k++) {
                    const GaussianScreen& s = plan.screens[first + group.id[k]];
                    const real* row = rows.data() + (size_t)k * stride;
                    absolute[2 * (long long)group.id[k]] = row[6] * std::fabs(s.l11) / kHalfLog2e;
                    absolute[2 * (long long)group.id[k] + 1] = row[7] / kHalfLog2e;
                }
            if (camera)
                for (int j = 0; j < kCameraGradient; j++)
                    for (int k = 0; k < group.count; k++) camera_pieces[(size_t)piece * kCameraGradient + j] += camera_sum[j][k];
        }
    });
    if (camera)
        for (int p = 0; p < pieces; p++)
            for (int j = 0; j < kCameraGradient; j++) camera[j] += camera_pieces[(size_t)p * kCameraGradient + j];
}

}  // namespace smalti
