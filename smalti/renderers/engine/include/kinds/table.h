// A kind for the CPU: its struct (kind.h) as a table of functions, so that the engine draws kinds it was not compiled with.
#pragma once
#include <algorithm>
#include <memory>
#include <mutex>

#include "../exact_run.h"
#include "voxels.h"

namespace smalti {

constexpr int kKindVersion = 3;  // of this table and of everything it hands over

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

    void start(int tensor, long long length) {
        lengths_[tensor] = length, reach_[tensor] = 0;
        parts_per_real_[tensor] = length ? double(kParts) / double(length) : 0;
    }
    SM_FN void add(int tensor, const Row& row, const real* gradient) {
        const int part = std::min((int)(double(row.base) * parts_per_real_[tensor]), kParts - 1);  // not worth a division
        long long reach = 0;
        for (int j = 0; j < row.dimensions; j++) reach += row.steps[j] < 0 ? -row.steps[j] : row.steps[j];
        if (reach > reach_[tensor]) reach_[tensor] = reach;
        Rows& rows = rows_[tensor * kParts + part];
        char* to = rows.append(sizeof(Row) + row_bytes(row.channels));
        std::memcpy(to, &row, sizeof row);
        std::memcpy(to + sizeof row, gradient, row.channels * sizeof(real));
    }
    // Adds the rows of one part of one tensor to `table`.
    void apply(int tensor, int part, real* table) const {
        const Rows& rows = rows_[tensor * kParts + part];
        for (size_t at = 0; at < rows.size;) {
            Row row;
            std::memcpy(&row, rows.data.get() + at, sizeof row);
            const real* gradient = reinterpret_cast<const real*>(rows.data.get() + at + sizeof row);
            if (row.dimensions == 2 && row.channels == 3)
                apply_bilinear<3>(row, gradient, table);
            else if (row.dimensions == 2 && row.channels == 4)
                apply_bilinear<4>(row, gradient, table);
            else if (row.dimensions == 3 && row.channels == 4)
                apply_voxels(row, gradient, table);
            else
                apply_row(row, gradient, table);
            at += sizeof(Row) + row_bytes(row.channels);
        }
    }
    // Corners reach at most into the neighbouring parts if this is so; then parts p and p + 3 may be applied side by side.
    bool local(int tensor) const { return reach_[tensor] < lengths_[tensor] / kParts - row_slack; }
    void clear() {
        for (auto& rows : rows_) rows.size = 0;
    }
    size_t bytes() const {
        size_t sum = 0;
        for (auto& rows : rows_) sum += rows.capacity;
        return sum;
    }

private:
    static constexpr int row_slack = 64;  // channels of a corner

    // Bytes, appended to; a vector would fill them with zeros first.
    struct Rows {
        std::unique_ptr<char[]> data;
        size_t size = 0, capacity = 0;
        SM_FN char* append(size_t bytes) {
            if (size + bytes > capacity) grow(bytes);
            char* to = data.get() + size;
            size += bytes;
            return to;
        }
        __attribute__((noinline)) void grow(size_t bytes) {
            capacity = 2 * capacity + bytes + 4096;
            std::unique_ptr<char[]> more(new char[capacity]);
            if (size) std::memcpy(more.get(), data.get(), size);
            data = std::move(more);
        }
    };
    SM_FN static size_t row_bytes(int channels) { return (channels * sizeof(real) + 7) / 8 * 8; }

    template <int channels>
    SM_FN static void apply_bilinear(const Row& row, const real* gradient, real* table) {
        const real fx = row.f[0], fy = row.f[1], gx = 1 - fx, gy = 1 - fy, weights[4] = {gx * gy, fx * gy, gx * fy, fx * fy};
        for (int corner = 0; corner < 4; corner++) {
            real* to = table + row.base + (corner & 1 ? row.steps[0] : 0) + (corner & 2 ? row.steps[1] : 0);
            for (int c = 0; c < channels; c++) to[c] += weights[corner] * gradient[c];
        }
    }
    // A voxel of four channels and its seven neighbours.
    SM_FN static void apply_voxels(const Row& row, const real* gradient, real* table) {
        const real fx = row.f[0], fy = row.f[1], fz = row.f[2], gx = 1 - fx, gy = 1 - fy, gz = 1 - fz;
        const Voxel own = load_as<Voxel>(gradient), near = own * gx, far = own * fx;
        const real weights[4] = {gy * gz, fy * gz, gy * fz, fy * fz};
        for (int corner = 0; corner < 4; corner++) {
            real* to = table + row.base + (corner & 1 ? row.steps[1] : 0) + (corner & 2 ? row.steps[2] : 0);
            const Voxel first = load_as<Voxel>(to) + near * weights[corner];
            std::memcpy(to, &first, sizeof first);
            to += row.steps[0];
            const Voxel second = load_as<Voxel>(to) + far * weights[corner];
            std::memcpy(to, &second, sizeof second);
        }
    }
    static void apply_row(const Row& row, const real* gradient, real* table) {
        for (int corner = 0; corner < 1 << row.dimensions; corner++) {
            real weight = 1;
            long long to = row.base;
            for (int j = 0; j < row.dimensions; j++) {
                weight *= corner >> j & 1 ? row.f[j] : 1 - row.f[j];
                to += corner >> j & 1 ? row.steps[j] : 0;
            }
            for (int c = 0; c < row.channels; c++) table[to + c] += weight * gradient[c];
        }
    }

    long long lengths_[kKindTensors] = {}, reach_[kKindTensors] = {};
    double parts_per_real_[kKindTensors] = {};
    Rows rows_[kKindTensors * kParts];
};

// The logs of one backward pass, kept for the next: fresh memory of this size costs more than what is written there.
struct KeptLogs {
    std::mutex mutex;
    std::vector<TableLog> logs;

    static KeptLogs& instance() {
        static KeptLogs* kept = new KeptLogs;  // never destroyed: threads may outlive main
        return *kept;
    }
    static std::vector<TableLog> take(size_t count) {
        std::vector<TableLog> logs;
        if (std::unique_lock<std::mutex> lock(instance().mutex, std::try_to_lock); lock) logs.swap(instance().logs);
        logs.resize(count);
        return logs;
    }
    static void give(std::vector<TableLog>&& logs) {
        size_t bytes = 0;
        for (auto& log : logs) log.clear(), bytes += log.bytes();
        if (bytes > size_t(1) << 28) return;
        if (std::unique_lock<std::mutex> lock(instance().mutex, std::try_to_lock); lock) instance().logs.swap(logs);
    }
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
        alignas(64) real own[64][kLanes], x[kLanes], y[kLanes];
        std::memcpy(own, gradient, channels * sizeof(F));
        std::memcpy(x, &fx, sizeof x), std::memcpy(y, &fy, sizeof y);
        for (int k = 0; k < kLanes; k++) {
            if (base[k] < 0) continue;
            real row[64];
            bool felt = false;
            for (int c = 0; c < channels; c++) row[c] = own[c][k], felt = felt || row[c] != 0;
            if (felt) log_->add(tensor, {base[k], {step_x[k], step_y[k], 0}, 2, channels, {x[k], y[k], 0}}, row);
        }
    }
    SM_FN void trilinear(int tensor, const long long* base, const int* step_x, const int* step_y, const int* step_z, F fx, F fy, F fz,
                         const F* gradient, int channels) {
        alignas(64) real x[kLanes], y[kLanes], z[kLanes];
        std::memcpy(x, &fx, sizeof x), std::memcpy(y, &fy, sizeof y), std::memcpy(z, &fz, sizeof z);
        VoxelQuads quads;
        F first[4] = {};
        for (int c = 0; c < (channels < 4 ? channels : 4); c++) first[c] = gradient[c];
        quads.store(first);
        for (int k = 0; k < kLanes; k++) {
            if (base[k] < 0) continue;
            const TableLog::Row row = {base[k], {step_x[k], step_y[k], step_z[k]}, 3, channels, {x[k], y[k], z[k]}};
            if (channels <= 4) {
                log_->add(tensor, row, quads.of(k));
                continue;
            }
            real own[64];
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
    // Primitives [begin, end); `records`, `bounds` and `values` are those of `begin` and the following.
    void (*project)(const KindInput&, const CameraValues&, const ViewOptions&, int begin, int end, char* records, Bounds* bounds, real* values);
    bool (*touches)(const void* record, real x0, real y0, real x1, real y1);
    BlockMask (*blocks)(const void* record, int x0, int y0);
    void (*emit)(const KindInput&, const CameraValues&, const void* record, int k, const Rays&, ExactBlock&);
    void (*emit_back)(const KindInput&, const CameraValues&, const void* record, int k, const Rays&, ExactBack&, F* sums);
    // Of at most kLanes primitives. `records`: of all; `sums` [count, stride]: the moments, then the channels' gradients.
    void (*finish)(const KindInput&, const CameraValues&, const ViewOptions&, const int* ids, int count, const char* records, const real* sums,
                   int stride, int moments, const KindGradient&, double* camera);
    // Null for kinds that may not be composited in runs (exact_run.h).
    void (*run)(const RunInput&, ExactBlock&);
    void (*run_back)(const RunInput&, const RunBackInput&, F& behind);
    bool at_key;  // events lie at Bounds::nearest, whatever the order
};

// A kind says `kRuns` if each primitive has one thin event at most (RunLog has room for no more) and its channels are constant;
// `kAtKey` if events lie at Bounds::nearest.
template <class Kind>
constexpr auto kind_runs(int) -> decltype(Kind::kRuns) {
    return Kind::kRuns;
}
template <class Kind>
constexpr bool kind_runs(long) {
    return false;
}
template <class Kind>
constexpr auto kind_at_key(int) -> decltype(Kind::kAtKey) {
    return Kind::kAtKey;
}
template <class Kind>
constexpr bool kind_at_key(long) {
    return false;
}
template <class Kind, bool runs>
struct KindRuns {
    static constexpr void (*forward)(const RunInput&, ExactBlock&) = nullptr;
    static constexpr void (*backward)(const RunInput&, const RunBackInput&, F&) = nullptr;
};
template <class Kind>
struct KindRuns<Kind, true> {
    static constexpr void (*forward)(const RunInput&, ExactBlock&) = composite_run_of<Kind>;
    static constexpr void (*backward)(const RunInput&, const RunBackInput&, F&) = composite_run_of_back<Kind>;
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

// One primitive after another, or a primitive per lane if the kind has `project_lanes` and `finish_lanes` (gaussian_exact.h).
template <class Kind>
auto project_range(const KindInput& in, const CameraValues& cam, const ViewOptions& view, int begin, int end, typename Kind::Record* records,
                   Bounds* bounds, real* values, int) -> decltype(Kind::project_lanes(in, cam, view, nullptr, 0, records, bounds, values)) {
    for (int from = begin; from < end; from += kLanes) {
        int ids[kLanes];
        for (int k = 0; k < kLanes; k++) ids[k] = std::min(from + k, end - 1);
        const int at = from - begin;
        Kind::project_lanes(in, cam, view, ids, std::min(kLanes, end - from), records + at, bounds + at, values + (size_t)at * view.channels);
    }
}
template <class Kind>
void project_range(const KindInput& in, const CameraValues& cam, const ViewOptions& view, int begin, int end, typename Kind::Record* records,
                   Bounds* bounds, real* values, long) {
    for (int k = begin; k < end; k++)
        Kind::project(in, cam, view, k, records[k - begin], bounds[k - begin], values + (size_t)(k - begin) * view.channels);
}
template <class Kind>
auto finish_some(const KindInput& in, const CameraValues& cam, const ViewOptions&, const int* ids, int count, const typename Kind::Record* records,
                 const real* sums, int stride, int moments, const KindGradient& gradient, double* camera, int)
    -> decltype(Kind::finish_lanes(in, cam, ids, count, &records, sums, stride, moments, gradient, camera)) {
    const typename Kind::Record* own[kLanes];
    int lanes[kLanes];
    for (int k = 0; k < kLanes; k++) lanes[k] = ids[std::min(k, count - 1)], own[k] = records + lanes[k];
    Kind::finish_lanes(in, cam, lanes, count, own, sums, stride, moments, gradient, camera);
}
template <class Kind>
void finish_some(const KindInput& in, const CameraValues& cam, const ViewOptions& view, const int* ids, int count,
                 const typename Kind::Record* records, const real* sums, int stride, int moments, const KindGradient& gradient, double* camera, long) {
    for (int k = 0; k < count; k++, sums += stride)
        Kind::finish(in, cam, view, ids[k], records[ids[k]], sums, sums + moments, gradient, camera);
}

template <class Kind>
const ExactKind& exact_kind(const char* name) {
    typedef typename Kind::Record Record;
    static const ExactKind table = {
        kKindVersion, name, (int)sizeof(Record), Kind::kConstantChannels, Kind::kTableTensors,
        [](const KindInput& in, const ViewOptions& view) { return Kind::moments(in, view); },
        [](const KindInput& in, const CameraValues& cam, const ViewOptions& view, int begin, int end, char* records, Bounds* bounds, real* values) {
            project_range<Kind>(in, cam, view, begin, end, reinterpret_cast<Record*>(records), bounds, values, 0);
        },
        [](const void* record, real x0, real y0, real x1, real y1) { return Kind::touches(*static_cast<const Record*>(record), x0, y0, x1, y1); },
        [](const void* record, int x0, int y0) { return touched_blocks<Kind>(*static_cast<const Record*>(record), x0, y0, 0); },
        [](const KindInput& in, const CameraValues& cam, const void* record, int k, const Rays& rays, ExactBlock& block) {
            Kind::emit(in, cam, *static_cast<const Record*>(record), k, rays, block);
        },
        [](const KindInput& in, const CameraValues& cam, const void* record, int k, const Rays& rays, ExactBack& back, F* sums) {
            Kind::emit_back(in, cam, *static_cast<const Record*>(record), k, rays, back, sums);
        },
        [](const KindInput& in, const CameraValues& cam, const ViewOptions& view, const int* ids, int count, const char* records, const real* sums,
           int stride, int moments, const KindGradient& gradient, double* camera) {
            finish_some<Kind>(in, cam, view, ids, count, reinterpret_cast<const Record*>(records), sums, stride, moments, gradient, camera, 0);
        },
        KindRuns<Kind, kind_runs<Kind>(0)>::forward, KindRuns<Kind, kind_runs<Kind>(0)>::backward, kind_at_key<Kind>(0),
    };
    return table;
}

}  // namespace smalti
