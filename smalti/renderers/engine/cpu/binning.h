// From projected primitives to one depth-ordered list per tile.
#pragma once
#include <algorithm>
#include <climits>

#include "plan.h"

namespace smalti {

// Numbers the slots in index order; false if there are more than an int can count.
inline bool number_slots(Plan& plan) {
    long long slots = 0;
    for (int k = 0; k < plan.count; k++) {
        plan.footprints[k].slot = (int)slots;
        slots += slot_count(plan.footprints[k]);
        if (slots > INT_MAX) return false;
    }
    plan.slots = (int)slots;
    return true;
}

// Ids by depth, ties by id: a radix sort over the bits of positive floats (stable), std::stable_sort for doubles.
inline void sort_by_depth(const real* depths, int* ids, int n) {
#ifdef SMALTI_DOUBLE
    std::stable_sort(ids, ids + n, [&](int a, int b) { return depths[a] < depths[b]; });
#else
    struct Key {
        unsigned bits;
        int id;
    };
    constexpr int kBits = 11, kBuckets = 1 << kBits;
    std::vector<Key> a(n), b(n);
    std::vector<unsigned> count(3 * kBuckets, 0);
    for (int k = 0; k < n; k++) {
        unsigned bits;
        std::memcpy(&bits, depths + ids[k], 4);
        a[k] = {bits, ids[k]};
        for (int pass = 0; pass < 3; pass++) count[pass * kBuckets + (bits >> (pass * kBits) & (kBuckets - 1))]++;
    }
    for (int pass = 0; pass < 3; pass++) {
        unsigned* c = &count[pass * kBuckets];
        unsigned sum = 0;
        for (int k = 0; k < kBuckets; k++) {
            unsigned here = c[k];
            c[k] = sum;
            sum += here;
        }
        for (int k = 0; k < n; k++) b[c[a[k].bits >> (pass * kBits) & (kBuckets - 1)]++] = a[k];
        std::swap(a, b);
    }
    for (int k = 0; k < n; k++) ids[k] = a[k].id;
#endif
}

// Fills visible, tile_start and ids from footprints and spans, nearest key first. The lists are the same for any number of threads.
// Returns false if there are more entries than an int can count.
inline bool bin_primitives(Plan& plan, const real* keys) {
    const int tiles = plan.tiles_x * plan.tiles_y;
    int* visible = plan.visible.resize(plan.count);
    int n = 0;
    for (int k = 0; k < plan.count; k++)
        if (plan.footprints[k].x0 < plan.footprints[k].x1) visible[n++] = k;
    plan.visible.resize(n);
    sort_by_depth(keys, visible, n);

    // Pieces of the depth order count their entries per tile; prefix sums over (tile, piece) say where each writes.
    const int pieces = std::max(1, std::min(16, n / 2048)), grain = std::max(1, (n + pieces - 1) / pieces);
    std::vector<int> counts((size_t)pieces * tiles, 0);
    auto each = [&](int begin, int end, auto&& visit) {
        for (int k = begin; k < end; k++) {
            const int id = visible[k];
            const Footprint& f = plan.footprints[id];
            const TileSpan* span = &plan.spans[plan.span_start[id]];
            for (int y = f.y0; y < f.y1; y++, span++)
                for (int x = span->x0; x < span->x1; x++) visit(y * plan.tiles_x + x, id);
        }
    };
    parallel_ranges(n, grain, [&](int begin, int end, int piece, int) {
        int* mine = counts.data() + (size_t)piece * tiles;
        each(begin, end, [&](int tile, int) { mine[tile]++; });
    });
    int* start = plan.tile_start.resize(tiles + 1);
    long long sum = 0;
    for (int t = 0; t < tiles; t++) {
        start[t] = (int)sum;
        for (int p = 0; p < pieces; p++) {
            int& c = counts[(size_t)p * tiles + t];
            const int here = c;
            c = (int)sum;
            sum += here;
        }
    }
    plan.intersections = sum;
    if (sum > INT_MAX) return false;
    start[tiles] = (int)sum;
    int* ids = plan.ids.resize(sum);
    parallel_ranges(n, grain, [&](int begin, int end, int piece, int) {
        int* mine = counts.data() + (size_t)piece * tiles;
        each(begin, end, [&](int tile, int id) { ids[mine[tile]++] = id; });
    });
    return true;
}

}  // namespace smalti
