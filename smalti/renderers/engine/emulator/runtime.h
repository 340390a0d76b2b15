// CUDA on the CPU, for tests: every thread of a block is a fiber, blocks run one after another.
//
// It finds wrong indices, barriers that not all threads reach, wrong reductions and (by running the threads in two orders)
// many missing barriers. It does not find races that need a real memory model. Included before the kernels' own text.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#define __global__
#define __device__
#define __shared__ static
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)

struct Dimensions {
    unsigned x, y, z;
};
static Dimensions threadIdx, blockIdx, blockDim, gridDim;

namespace emulator {

constexpr int kMaxThreads = 256, kWarpSize = 32, kStack = 128 << 10;
constexpr int kPatience = 8 * kMaxThreads;  // switches in a row that change nothing: nobody will arrive any more

// Visits the threads of a block upwards (1) or downwards (-1).
static int direction = 1;
// Runs the blocks of a launch upwards or downwards.
static int block_direction = 1;

#if defined(__x86_64__)
// Saves the callee's registers and the stack pointer, and goes on with another fiber's: a few nanoseconds, where
// swapcontext makes a system call.
extern "C" void smalti_fiber_switch(void** from, void* to);
asm(R"(
    .text
    .p2align 4
    .hidden smalti_fiber_switch
    .globl smalti_fiber_switch
smalti_fiber_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");

struct Fiber {
    void* stack_pointer;
    void prepare(char* stack, void (*entry)()) {
        auto top = reinterpret_cast<uintptr_t>(stack + kStack) & ~uintptr_t(15);
        auto* p = reinterpret_cast<void**>(top) - 8;
        for (int k = 0; k < 6; k++) p[k] = nullptr;
        p[6] = reinterpret_cast<void*>(entry);
        p[7] = nullptr;
        stack_pointer = p;
    }
    static void change(Fiber& from, Fiber& to) { smalti_fiber_switch(&from.stack_pointer, to.stack_pointer); }
};
#else
struct Fiber {
    ucontext_t context;
    void prepare(char* stack, void (*entry)()) {
        getcontext(&context);
        context.uc_stack.ss_sp = stack;
        context.uc_stack.ss_size = kStack;
        context.uc_link = nullptr;
        makecontext(&context, entry, 0);
    }
    static void change(Fiber& from, Fiber& to) { swapcontext(&from.context, &to.context); }
};
#endif

// Threads that meet: released when all that have not ended have arrived.
struct Barrier {
    int arrived, members, generation;
    void release_if_full() {
        if (arrived > 0 && arrived == members) {
            arrived = 0;
            generation++;
        }
    }
};

struct Block {
    Fiber main, fibers[kMaxThreads];
    bool ended[kMaxThreads];
    Barrier all, warps[kMaxThreads / kWarpSize];
    uint64_t slots[2][kMaxThreads];  // values of a collective; two, so that one barrier per collective is enough
    uint64_t block_slots[2][kMaxThreads];  // values of a collective; two, so that one barrier per collective is enough
    unsigned char phase[kMaxThreads], block_phase[kMaxThreads];
    int threads, left, current, idle;
    bool stuck;
    void (*body)(const void*);
    const void* parameters;
};
static Block block;
static std::vector<char> stacks;

static void go_on_with(int next) {
    const int from = block.current;
    block.current = next;
    threadIdx = {(unsigned)next, 0, 0};
    Fiber::change(block.fibers[from], block.fibers[next]);
}

// The next thread of [base, base + count) that has not ended, other than the current one; -1 where there is none.
static int next_thread(int base, int count) {
    for (int k = 1; k < count; k++) {
        const int t = base + (block.current - base + direction * k + 2 * count) % count;
        if (!block.ended[t]) return t;
    }
    return -1;
}

static void wait(Barrier& barrier, int base, int count) {
    const int generation = barrier.generation;
    barrier.arrived++;
    block.idle = 0;
    barrier.release_if_full();
    while (barrier.generation == generation) {
        int next = next_thread(base, count);
        // The rest of the warp may itself wait for the block.
        if (++block.idle > kWarpSize) next = next_thread(0, block.threads);
        if (next < 0 || block.idle > kPatience) {
            block.stuck = true;
            Fiber::change(block.fibers[block.current], block.main);
        }
        go_on_with(next);
    }
    block.idle = 0;
}

static Barrier& warp_barrier() { return block.warps[block.current / kWarpSize]; }
static int warp_base() { return block.current / kWarpSize * kWarpSize; }
static int warp_size() { return block.threads - warp_base() < kWarpSize ? block.threads - warp_base() : kWarpSize; }

// Puts down a value, waits for the warp (or the block), and returns what all have put down.
template <class T>
static uint64_t* exchange(T value, bool whole_block) {
    const int me = block.current;
    // Warps run ahead of one another between barriers of the block, so the block's slots are not theirs.
    uint64_t* slots = whole_block ? block.block_slots[block.block_phase[me]++ & 1] : block.slots[block.phase[me]++ & 1];
    std::memcpy(&slots[me], &value, sizeof value);
    if (whole_block)
        wait(block.all, 0, block.threads);
    else
        wait(warp_barrier(), warp_base(), warp_size());
    return slots;
}

static void thread_entry() {
    block.body(block.parameters);
    const int me = block.current;
    block.ended[me] = true;
    block.left--;
    block.idle = 0;
    Barrier& warp = warp_barrier();
    warp.members--, block.all.members--;
    warp.release_if_full();
    block.all.release_if_full();
    const int next = next_thread(0, block.threads);
    if (next >= 0) go_on_with(next);
    Fiber::change(block.fibers[me], block.main);
}

// Returns 0, or 1 where a block did not end because a barrier was not reached by all of its threads.
static int launch(unsigned grid, unsigned threads, void (*body)(const void*), const void* parameters) {
    if (threads == 0 || threads > kMaxThreads) return 2;
    if (stacks.empty()) stacks.resize((size_t)kMaxThreads * kStack);
    gridDim = {grid, 1, 1}, blockDim = {threads, 1, 1};
    block.body = body, block.parameters = parameters, block.threads = (int)threads;
    for (unsigned b = 0; b < grid; b++) {
        blockIdx = {block_direction > 0 ? b : grid - 1 - b, 0, 0};
        block.left = (int)threads, block.idle = 0, block.stuck = false;
        block.all = {0, (int)threads, 0};
        for (int w = 0; w * kWarpSize < (int)threads; w++) {
            const int size = (int)threads - w * kWarpSize;
            block.warps[w] = {0, size < kWarpSize ? size : kWarpSize, 0};
        }
        for (unsigned t = 0; t < threads; t++) {
            block.ended[t] = false, block.phase[t] = block.block_phase[t] = 0;
            block.fibers[t].prepare(stacks.data() + (size_t)t * kStack, thread_entry);
        }
        block.current = direction > 0 ? 0 : (int)threads - 1;
        threadIdx = {(unsigned)block.current, 0, 0};
        Fiber::change(block.main, block.fibers[block.current]);
        if (block.stuck || block.left) return 1;
    }
    return 0;
}

}  // namespace emulator

inline void __syncthreads() { emulator::wait(emulator::block.all, 0, emulator::block.threads); }
inline int __syncthreads_count(int predicate) {
    const uint64_t* slots = emulator::exchange((uint64_t)(predicate != 0), true);
    int count = 0;
    for (int k = 0; k < emulator::block.threads; k++) count += (int)slots[k];
    return count;
}
inline int __any_sync(unsigned, int predicate) {
    const uint64_t* slots = emulator::exchange((uint64_t)(predicate != 0), false) + emulator::warp_base();
    for (int k = 0; k < emulator::warp_size(); k++)
        if (slots[k]) return 1;
    return 0;
}
template <class T>
inline T __shfl_xor_sync(unsigned, T value, int mask) {
    const uint64_t* slots = emulator::exchange(value, false);
    T result;
    std::memcpy(&result, &slots[emulator::block.current ^ mask], sizeof result);
    return result;
}

template <class T>
inline T atomicAdd(T* p, T value) {
    const T old = *p;
    *p = old + value;
    return old;
}
template <class T>
inline T atomicMax(T* p, T value) {
    const T old = *p;
    if (value > old) *p = value;
    return old;
}
inline int __float_as_int(float x) {
    int bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
}
inline long long __double_as_longlong(double x) {
    long long bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
}
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }

// The kernel under its own name: (blocks, threads per block, address of the parameter struct) -> status of launch().
#define SMALTI_KERNEL(name, Parameters, max_threads, body)                                                        \
    extern "C" __attribute__((visibility("default"))) int name(unsigned grid, unsigned threads, const void* parameters) { \
        if (threads > max_threads) return 2;                                                                       \
        return emulator::launch(                                                                                   \
            grid, threads,                                                                                         \
            [](const void* pointer) {                                                                              \
                const Parameters& p = *static_cast<const Parameters*>(pointer);                                    \
                body;                                                                                              \
            },                                                                                                     \
            parameters);                                                                                           \
    }
extern "C" __attribute__((visibility("default"))) void smalti_emulator_direction(int threads, int blocks) {
    emulator::direction = threads, emulator::block_direction = blocks;
}
