// A kind for the CPU: its struct (kind.h) as a table of functions, so that the engine draws kinds it was not compiled with.
#pragma once
#include "../composite_cpu.h"
#include "../exact.h"
#include "kind.h"

namespace smalti {

constexpr int kKindVersion = 1;  // of this table and of everything it hands over

// Gradients that land in tables (textures, voxels): written down per chunk of tiles and added up in that order, so that the
// sum is the same for any number of threads.
class TableLog {
public:
    static constexpr int kParts = 9;  // three turns of parts that do not touch one another
    struct Row {
        long long base;
        int steps[3], dimensions, channels;
        real f[3];
    };

    void start(int tensor, long long length) { lengths_[tensor] = length; }
    void add(int tensor, const Row& row, const real* gradient) {
        const long long length = lengths_[tensor];
        const int part = length ? (int)(row.base * kParts / length) : 0;
        long long reach = 0;
        for (int j = 0; j < row.dimensions; j++) reach += row.steps[j] < 0 ? -row.steps[j] : row.steps[j];
        if (reach > reach_[tensor]) reach_[tensor] = reach;
        std::vector<char>& rows = rows_[tensor * kParts + part];
        const size_t at = rows.size(), size = sizeof(Row) + (row.channels * sizeof(real) + 7) / 8 * 8;
        if (at + size > rows.capacity()) rows.reserve(2 * at + 4096);
        rows.resize(at + size);
        std::memcpy(&rows[at], &row, sizeof row);
        std::memcpy(&rows[at] + sizeof row, gradient, row.channels * sizeof(real));
    }
    // Adds the rows of one part of one tensor to `table`.
    void apply(int tensor, int part, real* table) const {
        const std::vector<char>& rows = rows_[tensor * kParts + part];
        for (size_t at = 0; at < rows.size();) {
            Row row;
            std::memcpy(&row, &rows[at], sizeof row);
            const real* gradient = reinterpret_cast<const real*>(&rows[at] + sizeof row);
            for (int corner = 0; corner < 1 << row.dimensions; corner++) {
                real weight = 1;
                long long to = row.base;
                for (int j = 0; j < row.dimensions; j++) {
                    weight *= corner >> j & 1 ? row.f[j] : 1 - row.f[j];
                    to += corner >> j & 1 ? row.steps[j] : 0;
                }
                for (int c = 0; c < row.channels; c++) table[to + c] += weight * gradient[c];
            }
            at += sizeof(Row) + (row.channels * sizeof(real) + 7) / 8 * 8;
        }
    }
    // Corners reach at most into the neighbouring parts if this is so; then parts p and p + 3 may be applied side by side.
    bool local(int tensor) const { return reach_[tensor] < lengths_[tensor] / kParts - row_slack; }
    void clear() {
        for (auto& rows : rows_) rows.clear();
    }
    bool empty(int tensor) const {
        for (int p = 0; p < kParts; p++)
            if (!rows_[tensor * kParts + p].empty()) return false;
        return true;
    }

private:
    static constexpr int row_slack = 64;  // channels of a corner
    long long lengths_[kKindTensors] = {}, reach_[kKindTensors] = {};
    std::vector<char> rows_[kKindTensors * kParts];
};

// What a kind's emit_back sees (kind.h).
class ExactBack {
public:
    ExactBack(ExactBlock& block, TableLog* log) : block_(block), log_(log) {}
    void begin(const Emission& emission) { next_ = emission.first; }
    SM_FN const EventGradient& next() {
        const int e = next_++;
        const Event& event = block_.event(e);
        gradient_ = {event.g_value, event.g_z0, event.g_z1, event.constant ? nullptr : block_.channel_gradient(e),
                     locals ? locals + 3 * (size_t)e : nullptr};
        return gradient_;
    }
    // As `next`, without moving on.
    SM_FN const Event& event() const { return block_.event(next_); }
    SM_FN void bilinear(int tensor, const int* base, const int* step_x, const int* step_y, F fx, F fy, const F* gradient, int channels) {
        for (int k = 0; k < kLanes; k++) {
            if (base[k] < 0) continue;
            TableLog::Row row = {base[k], {step_x[k], step_y[k], 0}, 2, channels, {fx[k], fy[k], 0}};
            real own[64];
            for (int c = 0; c < channels; c++) own[c] = gradient[c][k];
            log_->add(tensor, row, own);
        }
    }
    SM_FN void trilinear(int tensor, const long long* base, const int* step_x, const int* step_y, const int* step_z, F fx, F fy, F fz,
                         const F* gradient, int channels) {
        for (int k = 0; k < kLanes; k++) {
            if (base[k] < 0) continue;
            TableLog::Row row = {base[k], {step_x[k], step_y[k], step_z[k]}, 3, channels, {fx[k], fy[k], fz[k]}};
            real own[8];
            for (int c = 0; c < channels; c++) own[c] = gradient[c][k];
            log_->add(tensor, row, own);
        }
    }
    const F* locals = nullptr;  // [event][3], from fragments alone

private:
    ExactBlock& block_;
    TableLog* log_;
    EventGradient gradient_;
    int next_ = 0;
};

struct ExactKind {
    int version;
    const char* name;
    int record_size;
    int constant_channels;
    int table_tensors;  // bits of the tensors that are looked up bilinearly or trilinearly
    int (*moments)(const KindInput&, const ViewOptions&);
    void (*project)(const KindInput&, const CameraValues&, const ViewOptions&, int k, void* record, Bounds&, real* values);
    bool (*touches)(const void* record, real x0, real y0, real x1, real y1);
    BlockMask (*blocks)(const void* record, int x0, int y0);
    void (*emit)(const KindInput&, const CameraValues&, const void* record, int k, const Rays&, ExactBlock&);
    void (*emit_back)(const KindInput&, const CameraValues&, const void* record, int k, const Rays&, ExactBack&, F* sums);
    void (*finish)(const KindInput&, const CameraValues&, const ViewOptions&, int k, const void* record, const real* sums,
                   const real* values_gradient, const KindGradient&, double* camera);
};

// Blocks of the tile at (x0, y0) whose pixel centres the primitive can touch: the kind's own `blocks(record, x0, y0)` if it has
// a faster way than to ask `touches` for each.
template <class Kind>
auto touched_blocks(const typename Kind::Record& r, int x0, int y0, int) -> decltype(Kind::blocks(r, x0, y0)) {
    return Kind::blocks(r, x0, y0);
}

template <class Kind>
BlockMask touched_blocks(const typename Kind::Record& r, int x0, int y0, long) {
    const real half = real(0.5);
    BlockMask mask = 0;
    for (int slab = 0; slab < kSlabs; slab++) {
        const real top = y0 + slab * kBlockHeight + half, bottom = top + kBlockHeight - 1;
        if (!Kind::touches(r, x0 + half, top, x0 + kTile - half, bottom)) continue;
        for (int column = 0; column < kBlocksAcross; column++) {
            const real left = x0 + column * kBlockWidth + half;
            if (Kind::touches(r, left, top, left + kBlockWidth - 1, bottom)) mask |= 1ull << (slab * kBlocksAcross + column);
        }
    }
    return mask;
}

template <class Kind>
const ExactKind& exact_kind(const char* name) {
    typedef typename Kind::Record Record;
    static const ExactKind table = {
        kKindVersion, name, (int)sizeof(Record), Kind::kConstantChannels, Kind::kTableTensors,
        [](const KindInput& in, const ViewOptions& view) { return Kind::moments(in, view); },
        [](const KindInput& in, const CameraValues& cam, const ViewOptions& view, int k, void* record, Bounds& bounds, real* values) {
            Kind::project(in, cam, view, k, *static_cast<Record*>(record), bounds, values);
        },
        [](const void* record, real x0, real y0, real x1, real y1) { return Kind::touches(*static_cast<const Record*>(record), x0, y0, x1, y1); },
        [](const void* record, int x0, int y0) { return touched_blocks<Kind>(*static_cast<const Record*>(record), x0, y0, 0); },
        [](const KindInput& in, const CameraValues& cam, const void* record, int k, const Rays& rays, ExactBlock& block) {
            Kind::emit(in, cam, *static_cast<const Record*>(record), k, rays, block);
        },
        [](const KindInput& in, const CameraValues& cam, const void* record, int k, const Rays& rays, ExactBack& back, F* sums) {
            Kind::emit_back(in, cam, *static_cast<const Record*>(record), k, rays, back, sums);
        },
        [](const KindInput& in, const CameraValues& cam, const ViewOptions& view, int k, const void* record, const real* sums,
           const real* values_gradient, const KindGradient& gradient, double* camera) {
            Kind::finish(in, cam, view, k, *static_cast<const Record*>(record), sums, values_gradient, gradient, camera);
        },
    };
    return table;
}

}  // namespace smalti
