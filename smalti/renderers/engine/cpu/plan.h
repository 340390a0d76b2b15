// What one render keeps for its backward pass: projected records, tile lists, transmittances. Owned by a handle that Python frees.
#pragma once
#include <atomic>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <new>
#include <vector>

#include "kinds/gaussian_cpu.h"
#include "kinds/table.h"
#include "pool.h"

namespace smalti {

inline std::atomic<long long>& arena_bytes() {
    static std::atomic<long long> bytes{0};
    return bytes;
}

// A growing array of plain values, 64-byte aligned, not initialised, counted in arena_bytes().
template <class T>
class Array {
public:
    Array() = default;
    Array(const Array&) = delete;
    Array& operator=(const Array&) = delete;
    ~Array() { release(); }
    T* resize(size_t n) {
        if (n > capacity_ || !data_) {  // never null: an empty array, too, may be handed to memcpy
            release();
            data_ = static_cast<T*>(std::aligned_alloc(64, bytes_of(n)));
            if (!data_) throw std::bad_alloc();
            capacity_ = n;
            arena_bytes() += (long long)bytes_of(n);
        }
        size_ = n;
        return data_;
    }
    void release() {
        if (data_) arena_bytes() -= (long long)bytes_of(capacity_);
        std::free(data_);
        data_ = nullptr;
        capacity_ = size_ = 0;
    }
    T* data() { return data_; }
    const T* data() const { return data_; }
    size_t size() const { return size_; }
    long long bytes() const { return data_ ? (long long)bytes_of(capacity_) : 0; }
    T& operator[](size_t k) { return data_[k]; }
    const T& operator[](size_t k) const { return data_[k]; }

private:
    static size_t bytes_of(size_t n) { return n ? (n * sizeof(T) + 63) / 64 * 64 : 64; }
    T* data_ = nullptr;
    size_t size_ = 0, capacity_ = 0;
};

struct TileSpan {
    short x0, x1;  // half open range of tiles in one tile row
};

// One drawable of the general compositor.
struct ExactDrawable {
    const ExactKind* kind;
    KindInput in;
    int first, moments, stride;  // row of its first primitive; reals per slot
    long long slots_at;          // of its first slot, in reals
    Array<char> records;
    const void* record(int k) const { return records.data() + (size_t)k * kind->record_size; }
};

struct Plan {
    int count = 0, channels = 0, width = 0, height = 0, tiles_x = 0, tiles_y = 0, skipped = 0, slots = 0;
    long long intersections = 0;
    real transmittance_min = 0;
    Array<GaussianScreen> screens;  // [n]
    Array<real> values;             // [n, channels]
    Array<real> depths, radii;      // [n]
    Array<Footprint> footprints;    // [n]
    Array<int> span_start;          // [n] first span, by primitive
    Array<TileSpan> spans;          // one per (primitive, tile row)
    Array<int> visible;             // ids, nearest first (ties by index)
    Array<int> tile_start, ids;     // lists
    // Read and written as F and I, too: vector types alias their elements.
    Array<real> tile_T;             // [tiles, 256] block order
    Array<lane_int> tile_stop;      // [tiles, 256] block order
    // The general compositor (exact_stage.h) in place of `screens`, `tile_T` and `tile_stop`.
    std::vector<std::unique_ptr<ExactDrawable>> drawables;
    Array<int> drawable_of;  // [n]
    Array<real> keys;        // [n] what the lists are sorted by
    Array<real> final_T;     // [h, w]
    ViewOptions view = {};
    CameraValues camera = {};
    bool additive = false;
    long long slots_reals = 0, wide_pixels = 0, lookups = 0;
    // Scratch of the backward pass, kept for the next one over the same graph; one at a time.
    std::mutex backward;
    Array<real> slot_values;

    long long record_bytes() const {
        long long sum = 0;
        for (const auto& d : drawables) sum += d->records.bytes();
        return sum;
    }
    long long bytes() const {
        return screens.bytes() + values.bytes() + depths.bytes() + radii.bytes() + footprints.bytes() + span_start.bytes() + spans.bytes() +
               visible.bytes() + tile_start.bytes() + ids.bytes() + tile_T.bytes() + tile_stop.bytes() + slot_values.bytes() + drawable_of.bytes() + keys.bytes() + final_T.bytes() + record_bytes();
    }
};

}  // namespace smalti
