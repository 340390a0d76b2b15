// CUDA: the kinds of a scene as one list, and from projected primitives to one depth-ordered list per tile.
//
// A kind is a struct with `Screen` (its record), `Event`, `kMoments`, and the static functions `event` (does this primitive do
// something at this pixel, with which alpha), `moments` (its gradient, summed over pixels) and `tile_span` (which tiles of a
// row it reaches). The kinds of a scene are composed into one `KindList`, whose functions look up the kind.
// Parameter structs are laid out in Python, too (parameters.py).
#pragma once
#include "lanes.h"
#include "tiles.h"

namespace smalti {

struct TileRect {
    short x0, x1, y0, y1;  // half open
};

struct TileSpan {
    short x0, x1;  // half open range of tiles in one tile row
};

// ------------------------------------------------------------------ kinds, composed
template <class First, class... Rest>
struct KindList {
    typedef KindList<Rest...> Tail;
    static constexpr int kCount = 1 + Tail::kCount;
    static constexpr int kMoments = First::kMoments > Tail::kMoments ? First::kMoments : Tail::kMoments;
    union Record {
        typename First::Screen own;
        typename Tail::Record others;
    };
    union Event {
        typename First::Event own;
        typename Tail::Event others;
    };
    static SM_FN M event(int kind, const Record& r, F x, F y, Event& e, F& alpha) {
        return kind == 0 ? First::event(r.own, x, y, e.own, alpha) : Tail::event(kind - 1, r.others, x, y, e.others, alpha);
    }
    static SM_FN void moments(int kind, const Record& r, const Event& e, F gradient, F* sums) {
        if (kind == 0)
            First::moments(r.own, e.own, gradient, sums);
        else
            Tail::moments(kind - 1, r.others, e.others, gradient, sums);
    }
    static SM_FN TileSpan tile_span(int kind, const Record& r, const TileRect& rect, int row) {
        return kind == 0 ? First::tile_span(r.own, rect, row) : Tail::tile_span(kind - 1, r.others, rect, row);
    }
};

template <class Only>
struct KindList<Only> {
    static constexpr int kCount = 1, kMoments = Only::kMoments;
    union Record {
        typename Only::Screen own;
    };
    union Event {
        typename Only::Event own;
    };
    static SM_FN M event(int, const Record& r, F x, F y, Event& e, F& alpha) { return Only::event(r.own, x, y, e.own, alpha); }
    static SM_FN void moments(int, const Record& r, const Event& e, F gradient, F* sums) { Only::moments(r.own, e.own, gradient, sums); }
    static SM_FN TileSpan tile_span(int, const Record& r, const TileRect& rect, int row) { return Only::tile_span(r.own, rect, row); }
};

// ------------------------------------------------------------------ parameters
struct PrimitiveTable {
    const void* records;         // [n] KindList::Record
    const unsigned char* kinds;  // [n] position in the KindList; null where there is one kind
    const TileRect* rects;       // [n]
};

struct EmitParameters {
    PrimitiveTable primitives;
    const int *order, *counts;   // [n] ids by depth; [n] tiles of each id
    const long long* ends;       // [n] by depth rank: sum of counts up to and including it
    int *tiles, *ids;            // [entries] in depth order
    int* first_entry;            // [n] by id
    int count, tiles_x;
};

struct RangeParameters {
    const int* tiles;            // [entries] sorted
    int* start;                  // [tile_count + 1]
    int entries, tile_count;
};

struct SumParameters {
    const real* slots;           // [entries]
    const int *counts, *first_entry;  // [n]
    real* sums;                  // [n]
    int count;
};

struct TileList {
    PrimitiveTable primitives;
    const int *start, *ids, *entries;  // per tile; per sorted entry: id, and position before the sort
    const real* values;          // [n, channels]
};

// ------------------------------------------------------------------ lists
SM_FN long long global_thread() { return (long long)blockIdx.x * blockDim.x + threadIdx.x; }

// One thread per depth rank: its (tile, id) pairs. A stable sort by tile then leaves every tile's list in depth order.
template <class Kinds>
SM_FN void emit_entries(const EmitParameters& p) {
    const long long rank = global_thread();
    if (rank >= p.count) return;
    const int id = p.order[rank], count = p.counts[id];
    long long at = p.ends[rank] - count;
    p.first_entry[id] = (int)at;
    if (count == 0) return;
    const auto& record = static_cast<const typename Kinds::Record*>(p.primitives.records)[id];
    const int kind = Kinds::kCount > 1 ? p.primitives.kinds[id] : 0;
    const TileRect rect = p.primitives.rects[id];
    for (int row = rect.y0; row < rect.y1; row++) {
        const TileSpan span = Kinds::tile_span(kind, record, rect, row);
        for (int x = span.x0; x < span.x1; x++, at++) {
            p.tiles[at] = row * p.tiles_x + x;
            p.ids[at] = id;
        }
    }
}

// One thread per sorted entry, and one past the end: where each tile's list starts.
SM_FN void tile_ranges(const RangeParameters& p) {
    const long long k = global_thread();
    if (k > p.entries) return;
    const int from = k == 0 ? 0 : p.tiles[k - 1] + 1, to = k == p.entries ? p.tile_count : p.tiles[k];
    for (int tile = from; tile <= to; tile++) p.start[tile] = (int)k;
}

// One thread per primitive: the sum of its entries, in an order that does not vary.
SM_FN void sum_entries(const SumParameters& p) {
    const long long id = global_thread();
    if (id >= p.count) return;
    real sum = 0;
    for (int k = 0; k < p.counts[id]; k++) sum += p.slots[(long long)p.first_entry[id] + k];
    p.sums[id] = sum;
}

}  // namespace smalti
