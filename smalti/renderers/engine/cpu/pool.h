// The engine's threads: a pool that starts at the first parallel stage, hands out work items by an atomic counter and is built
// anew after fork. No OpenMP: its barriers spin, which is ruinous on shared cores.
#pragma once
#include <pthread.h>

#include <atomic>
#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace smalti {

// Bodies index scratch by thread in arrays of this length: the count itself may change at any time.
constexpr int kMaxThreads = 1024;

class Pool {
public:
    explicit Pool(int threads) {
        workers_.reserve(threads);
        try {
            for (int k = 1; k < threads; k++) workers_.emplace_back([this, k] { work(k); });
        } catch (const std::system_error&) {
            // The system grants no more threads: results do not depend on their number.
        }
    }
    ~Pool() {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            quitting_ = true;
        }
        wake_.notify_all();
        for (auto& worker : workers_) worker.join();
    }
    int threads() const { return (int)workers_.size() + 1; }

    // Calls body(item, thread) for every item in [0, items); returns when all are done. Where a body throws, the items not
    // yet begun are dropped, and the first exception is thrown here, when no thread is in a body any more.
    void run(int items, const std::function<void(int, int)>& body) {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            body_ = &body;
            items_ = items;
            next_.store(0);
            busy_ = (int)workers_.size();
            failure_ = nullptr;
            generation_++;
        }
        wake_.notify_all();
        drain(0);
        std::unique_lock<std::mutex> lock(mutex_);
        done_.wait(lock, [this] { return busy_ == 0; });
        if (failure_) std::rethrow_exception(failure_);
    }

private:
    void drain(int thread) {
        try {
            for (int item; (item = next_.fetch_add(1)) < items_;) (*body_)(item, thread);
        } catch (...) {
            next_.store(items_);
            std::lock_guard<std::mutex> lock(mutex_);
            if (!failure_) failure_ = std::current_exception();
        }
    }
    void work(int thread) {
        long seen = 0;
        for (;;) {
            {
                std::unique_lock<std::mutex> lock(mutex_);
                wake_.wait(lock, [&] { return quitting_ || generation_ != seen; });
                if (quitting_) return;
                seen = generation_;
            }
            drain(thread);
            std::lock_guard<std::mutex> lock(mutex_);
            if (--busy_ == 0) done_.notify_one();
        }
    }

    std::vector<std::thread> workers_;
    std::mutex mutex_;
    std::condition_variable wake_, done_;
    const std::function<void(int, int)>* body_ = nullptr;
    std::exception_ptr failure_;
    std::atomic<int> next_{0};
    int items_ = 0, busy_ = 0;
    long generation_ = 0;
    bool quitting_ = false;
};

struct PoolHolder {
    std::mutex mutex;  // one parallel stage at a time; a second caller waits
    Pool* pool = nullptr;
    std::atomic<int> wanted{0};
};

inline PoolHolder*& pool_holder() {
    static PoolHolder* holder = [] {
        // A forked child has none of the threads: it forgets the pool (leaked on purpose) and starts its own when needed.
        pthread_atfork(nullptr, nullptr, [] {
            PoolHolder* fresh = new PoolHolder;
            fresh->wanted = pool_holder()->wanted.load();
            pool_holder() = fresh;
        });
        return new PoolHolder;
    }();
    return holder;
}

inline int thread_count() {
    int count = pool_holder()->wanted;
    if (count <= 0) {
        cpu_set_t set;
        count = pthread_getaffinity_np(pthread_self(), sizeof set, &set) == 0 ? CPU_COUNT(&set) : (int)std::thread::hardware_concurrency();
    }
    return count < 1 ? 1 : count > kMaxThreads ? kMaxThreads : count;
}

inline void set_thread_count(int n) {
    PoolHolder* holder = pool_holder();
    std::lock_guard<std::mutex> lock(holder->mutex);
    holder->wanted = n;
    if (holder->pool && holder->pool->threads() != thread_count()) {
        delete holder->pool;
        holder->pool = nullptr;
    }
}

template <class Body>
void parallel(int items, const Body& body) {
    if (items <= 0) return;
    const int threads = thread_count();
    if (threads <= 1 || items == 1) {
        for (int k = 0; k < items; k++) body(k, 0);
        return;
    }
    PoolHolder* holder = pool_holder();
    std::lock_guard<std::mutex> lock(holder->mutex);
    if (!holder->pool) holder->pool = new Pool(threads);
    holder->pool->run(items, body);
}

// Splits [0, n) into pieces of `grain` and calls body(begin, end, piece, thread).
template <class Body>
void parallel_ranges(int n, int grain, const Body& body) {
    parallel((n + grain - 1) / grain, [&](int piece, int thread) {
        const int begin = piece * grain, end = begin + grain < n ? begin + grain : n;
        body(begin, end, piece, thread);
    });
}

}  // namespace smalti
