// Growing arrays of the general compositor (exact.h).
#pragma once
#ifndef SMALTI_CUDA
#include <cstdlib>
#include <new>
#endif
#include "lanes.h"

namespace smalti {

#ifdef SMALTI_CUDA
#define SM_METHOD __device__
// A growing array in memory that was counted out beforehand. Past its end it only remembers that it was asked.
template <class T>
struct Store {
    T* values = nullptr;
    int count = 0, capacity = 0;
    bool overflown = false;
    SM_FN void clear() { count = 0; }
    SM_FN int size() const { return count; }
    SM_FN bool empty() const { return count == 0; }
    SM_FN void push_back(const T& x) {
        if (count < capacity)
            values[count++] = x;
        else
            overflown = true;
    }
    SM_FN void resize(int n) {
        if (n > capacity) overflown = true, n = capacity;
        for (; count < n; count++) values[count] = T();
        count = n;
    }
    // `n` more, not set to anything; their place. Past the end it is the first.
    SM_FN int add(int n) {
        const int at = count;
        if (n > capacity - count) return overflown = true, 0;
        count += n;
        return at;
    }
    SM_FN T& operator[](int k) { return values[k]; }
    SM_FN const T& operator[](int k) const { return values[k]; }
    SM_FN T& back() { return values[count - 1]; }
    SM_FN T* begin() { return values; }
    SM_FN T* end() { return values + count; }
};
#else
#define SM_METHOD inline
// A growing array of plain values. Unlike std::vector it sets nothing to zero that is written anyway, and a full one grows out of line.
template <class T>
class Store {
public:
    Store() = default;
    Store(const Store&) = delete;
    Store& operator=(const Store&) = delete;
    ~Store() { std::free(values_); }
    SM_FN void clear() { count_ = 0; }
    SM_FN int size() const { return count_; }
    SM_FN bool empty() const { return count_ == 0; }
    SM_FN int add(int n) {
        const int at = count_;
        if (n > capacity_ - count_) grow(n);
        count_ += n;
        return at;
    }
    SM_FN void push_back(T x) {
        const int at = add(1);  // may move all
        values_[at] = x;
    }
    SM_FN void resize(int n) {
        if (n <= count_) {
            count_ = n;
            return;
        }
        for (int k = add(n - count_); k < n; k++) values_[k] = T();
    }
    SM_FN T& operator[](int k) { return values_[k]; }
    SM_FN const T& operator[](int k) const { return values_[k]; }
    SM_FN T& back() { return values_[count_ - 1]; }
    SM_FN T* begin() { return values_; }
    SM_FN T* end() { return values_ + count_; }

private:
    __attribute__((noinline)) void grow(int n) {
        static_assert(__is_trivially_copyable(T), "values are moved as bytes");
        const long long wanted = (long long)count_ + n, doubled = 2ll * capacity_ + 64, next = wanted > doubled ? wanted : doubled;
        T* values = next < 1ll << 31 ? static_cast<T*>(std::aligned_alloc(64, (next * sizeof(T) + 63) / 64 * 64)) : nullptr;
        if (!values) throw std::bad_alloc();
        if (count_) std::memcpy(static_cast<void*>(values), values_, count_ * sizeof(T));
        std::free(values_);
        values_ = values, capacity_ = (int)next;
    }
    T* values_ = nullptr;
    int count_ = 0, capacity_ = 0;
};
#endif

}  // namespace smalti
