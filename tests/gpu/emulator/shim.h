// What CUDA C has beyond C++, for g++: a block's threads are fibers of one host thread, run one after the other.
//
// A fiber runs until it waits: at a barrier of the block until all its threads are there, at an exchange within the warp
// until all lanes of the mask are. Shared memory is filled with 0xff bytes (NaN) before each block, so that what a
// missing barrier lets through is seen, by running the threads forwards or backwards.
#pragma once
#include <cmath>
#include <csetjmp>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <tuple>
#include <utility>
#include <xmmintrin.h>

#pragma GCC push_options
#pragma GCC optimize("O2")  // sources are compiled without: that takes half the time

#ifndef EMULATED
#define EMULATED 1
#endif
#define __global__
#define __device__  // sources are put in a namespace without a name: nothing leaves the library but its launchers
#define __constant__ static
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static __attribute__((section("emu_shared")))
#define DYNAMIC_SHARED(type, name) type *name = (type *)emu::dynamic

struct uint3 { unsigned x, y, z; };
struct dim3 { unsigned x, y, z; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(8) int2 { int x, y; };
struct alignas(8) float2 { float x, y; };

extern "C" char __start_emu_shared[] __attribute__((weak, visibility("hidden")));
extern "C" char __stop_emu_shared[] __attribute__((weak, visibility("hidden")));

namespace emu {
enum State { RUNS, AT_BARRIER, IN_WARP, ENDED };
struct Fiber { void *stack_pointer; State state; unsigned mask; unsigned exchanges; const void *where; };

constexpr size_t STACK = (64 << 10) + 64 * 17;  // not a power of two: the tops would share a few lines of the cache
constexpr int MOST = 1024;
static Fiber fibers[MOST];
static char *stacks;
static void *scheduler;
static int current;
static uint64_t slots[MOST / 32][2][32];
static char message[256];
static char *dynamic;
static sigjmp_buf fault;
static void (*body)(void *);
static void *body_args;

extern "C" void emu_switch(void **from, void *to) __attribute__((visibility("hidden")));
#ifndef __x86_64__
#error "the emulator switches between fibers on x86-64 only"
#endif
asm(R"(
.text
.hidden emu_switch
.globl emu_switch
.type emu_switch, @function
emu_switch:
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
.size emu_switch, .-emu_switch
)");
}  // namespace emu

static dim3 gridDim, blockDim;
static uint3 blockIdx, threadIdx;
constexpr int warpSize = 32;

namespace emu {
static void wait(State why) {
    Fiber &f = fibers[current];
    uint3 own = threadIdx;
    f.state = why;
    emu_switch(&f.stack_pointer, scheduler);
    threadIdx = own;
}

static void entry() {
    threadIdx = {current % blockDim.x, current / blockDim.x % blockDim.y, current / blockDim.x / blockDim.y};
    body(body_args);
    fibers[current].state = ENDED;
    emu_switch(&fibers[current].stack_pointer, scheduler);
    abort();
}

// Lets those go on whose wait is over. False if nobody can.
static bool release(int n) {
    int waiting = 0, ended = 0;
    bool any = false;
    for (int i = 0; i < n; i++) {
        waiting += fibers[i].state == AT_BARRIER;
        ended += fibers[i].state == ENDED;
    }
    if (waiting == n) {
        for (int i = 0; i < n; i++) {
            if (fibers[i].where != fibers[0].where) {
                snprintf(message, sizeof message, "threads 0 and %d wait at different barriers", i);
                return false;
            }
            fibers[i].state = RUNS;
        }
        return true;
    }
    for (int first = 0; first < n; first += 32) {
        int lanes = n - first < 32 ? n - first : 32, whole = 0;
        for (int i = first; i < first + lanes; i++) whole += fibers[i].state == IN_WARP && fibers[i].mask == ~0u;
        if (whole == 32) {
            for (int i = first; i < first + 32; i++) fibers[i].state = RUNS;
            any = true;
            continue;
        }
        for (int i = first; i < first + lanes; i++) {
            if (fibers[i].state != IN_WARP) continue;
            bool all = true;
            for (int lane = 0; lane < 32; lane++) {
                int other = first + lane;
                if (!(fibers[i].mask >> lane & 1)) continue;
                all = all && other < n && fibers[other].state == IN_WARP && fibers[other].mask == fibers[i].mask;
            }
            if (!all) continue;
            for (int lane = 0; lane < 32; lane++)
                if (fibers[i].mask >> lane & 1) fibers[first + lane].state = RUNS;
            any = true;
        }
    }
    if (!any)
        snprintf(message, sizeof message, "%d threads wait at a barrier, %d in a warp, %d of %d have ended", waiting,
                 n - waiting - ended, ended, n);
    return any;
}

static bool run_block(int n, bool backwards) {
    for (int i = 0; i < n; i++) {
        void **top = (void **)(stacks + (i + 1) * STACK);
        *--top = nullptr;  // where a call would have put its return: functions count on the alignment that it makes
        *--top = (void *)entry;
        top -= 6;
        fibers[i] = {top, RUNS, 0, 0, nullptr};
    }
    for (;;) {
        bool ran = false, left = false;
        for (int k = 0; k < n; k++) {
            current = backwards ? n - 1 - k : k;
            if (fibers[current].state == RUNS) {
                emu_switch(&scheduler, fibers[current].stack_pointer);
                ran = true;
            }
            left = left || fibers[current].state != ENDED;
        }
        if (!left) return true;
        if (!release(n) && ran) {
            bool runs = false;
            for (int i = 0; i < n; i++) runs = runs || fibers[i].state == RUNS;
            if (!runs) return false;
        } else if (!ran) {
            bool runs = false;
            for (int i = 0; i < n; i++) runs = runs || fibers[i].state == RUNS;
            if (!runs) return false;
        }
    }
}

static void caught(int signal) { siglongjmp(fault, signal); }

template <class... P, size_t... I>
static const char *launch(void (*f)(P...), const unsigned *grid, const unsigned *block, size_t shared, void **args,
                          const size_t *sizes, int n_args, int backwards, std::index_sequence<I...>) {
    constexpr size_t wanted[] = {sizeof(P)..., 0};
    if (n_args != (int)sizeof...(P)) {
        snprintf(message, sizeof message, "takes %d arguments, %d are given", (int)sizeof...(P), n_args);
        return message;
    }
    for (int i = 0; i < n_args; i++)
        if (sizes[i] != wanted[i]) {
            snprintf(message, sizeof message, "argument %d has %zu bytes, expected %zu", i, sizes[i], wanted[i]);
            return message;
        }
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {block[0], block[1], block[2]};
    int n = block[0] * block[1] * block[2];
    if (n < 1 || n > MOST || !grid[0] || !grid[1] || !grid[2]) return "a grid or block that no device takes";
    if (!stacks) stacks = (char *)aligned_alloc(4096, MOST * STACK);
    using Call = std::pair<void (*)(P...), void **>;
    static Call call;
    call = {f, args};
    body_args = &call;
    body = [](void *p) { ((Call *)p)->first(*(std::remove_const_t<P> *)((Call *)p)->second[I]...); };
    struct sigaction action = {}, old[4];
    const int signals[4] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE};
    action.sa_handler = caught;
    action.sa_flags = SA_ONSTACK;
    static char alternate[1 << 16];
    stack_t other = {alternate, 0, sizeof alternate}, before;
    sigaltstack(&other, &before);
    for (int i = 0; i < 4; i++) sigaction(signals[i], &action, &old[i]);
    const char *error = nullptr;
    dynamic = (char *)aligned_alloc(256, (shared + 511) / 256 * 256);
    const unsigned rounding = _mm_getcsr();
    _mm_setcsr(rounding | 0x8040);  // denormals are zero: CuPy compiles with -ftz=true
    if (int signal = sigsetjmp(fault, 1)) {
        snprintf(message, sizeof message, "%s in block (%u, %u, %u), thread %d",
                 signal == SIGILL ? "a misaligned or otherwise undefined access" : "access outside an array", blockIdx.x,
                 blockIdx.y, blockIdx.z, current);
        error = message;
    } else {
        for (unsigned z = 0; !error && z < grid[2]; z++)
            for (unsigned y = 0; !error && y < grid[1]; y++)
                for (unsigned x = 0; !error && x < grid[0]; x++) {
                    blockIdx = {x, y, z};
                    memset(dynamic, 0xff, (shared + 511) / 256 * 256);
                    if (__start_emu_shared) memset(__start_emu_shared, 0xff, __stop_emu_shared - __start_emu_shared);
                    if (!run_block(n, backwards)) error = message;
                    for (size_t i = shared; !error && i < (shared + 511) / 256 * 256; i++)
                        if ((unsigned char)dynamic[i] != 0xff) error = "a write behind the dynamic shared memory";
                }
    }
    _mm_setcsr(rounding);
    free(dynamic);
    for (int i = 0; i < 4; i++) sigaction(signals[i], &old[i], nullptr);
    sigaltstack(&before, nullptr);
    return error;
}

template <class... P>
static const char *start(void (*f)(P...), const unsigned *grid, const unsigned *block, size_t shared, void **args,
                         const size_t *sizes, int n, int backwards) {
    return launch(f, grid, block, shared, args, sizes, n, backwards, std::index_sequence_for<P...>());
}

template <class T> static T exchange(unsigned mask, T value, int from) {
    static_assert(sizeof(T) <= 8);
    Fiber &f = fibers[current];
    int warp = current / 32, lane = current % 32;
    auto &slot = slots[warp][f.exchanges++ & 1];
    memset(&slot[lane], 0, 8);
    memcpy(&slot[lane], &value, sizeof(T));
    f.mask = mask;
    wait(IN_WARP);
    T result;
    memcpy(&result, &slot[from & 31], sizeof(T));
    return result;
}
}  // namespace emu

#define EMULATE(name)                                                                                             \
    extern "C" const char *emu_launch_##name(const unsigned *grid, const unsigned *block, size_t shared,          \
                                             void **args, const size_t *sizes, int n, int backwards) {            \
        return emu::start(name, grid, block, shared, args, sizes, n, backwards);                                  \
    }

static void __attribute__((noinline)) emu_barrier(int line) {
    emu::fibers[emu::current].where = (const void *)(intptr_t)line;
    emu::wait(emu::AT_BARRIER);
}
#define __syncthreads() emu_barrier(__LINE__)
inline void __syncwarp(unsigned mask = ~0u) { emu::exchange(mask, 0, 0); }
template <class T> T __shfl_sync(unsigned mask, T v, int lane) { return emu::exchange(mask, v, lane); }
template <class T> T __shfl_xor_sync(unsigned mask, T v, int by) {
    return emu::exchange(mask, v, (emu::current % 32) ^ by);
}
template <class T> T __shfl_down_sync(unsigned mask, T v, int by) {
    int lane = emu::current % 32;
    return emu::exchange(mask, v, lane + by < 32 ? lane + by : lane);
}
inline unsigned __ballot_sync(unsigned mask, int condition) {
    unsigned bits = 0;
    int own = emu::current / 32;
    emu::exchange(mask, condition != 0, 0);
    for (int lane = 0; lane < 32; lane++)
        if (mask >> lane & 1)
            bits |= unsigned(emu::slots[own][(emu::fibers[emu::current].exchanges - 1) & 1][lane] & 1) << lane;
    return bits;
}

inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __any_sync(unsigned mask, int condition) { return __ballot_sync(mask, condition) != 0; }

template <class T> T __ldg(const T *p) { return *p; }
inline int __dp4a(int a, int b, int c) {
    for (int i = 0; i < 4; i++) c += int(int8_t(unsigned(a) >> 8 * i)) * int(int8_t(unsigned(b) >> 8 * i));
    return c;
}
inline unsigned __vsub4(unsigned a, unsigned b) {
    unsigned r = 0;
    for (int i = 0; i < 4; i++) r |= (((a >> 8 * i) - (b >> 8 * i)) & 0xff) << 8 * i;
    return r;
}
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned s) {
    uint64_t both = uint64_t(b) << 32 | a;
    unsigned r = 0;
    for (int i = 0; i < 4; i++) {
        unsigned byte = both >> 8 * (s >> 4 * i & 7) & 0xff;
        if (s >> 4 * i & 8) byte = byte & 0x80 ? 0xff : 0;
        r |= byte << 8 * i;
    }
    return r;
}
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline float __int_as_float(int i) { float f; memcpy(&f, &i, 4); return f; }
inline int __float_as_int(float f) { int i; memcpy(&i, &f, 4); return i; }
inline unsigned __float_as_uint(float f) { unsigned i; memcpy(&i, &f, 4); return i; }
inline float __uint_as_float(unsigned i) { float f; memcpy(&f, &i, 4); return f; }
inline float half_to_float(unsigned short h) { _Float16 x; memcpy(&x, &h, 2); return (float)x; }
inline unsigned short float_to_half(float f) { _Float16 x = (_Float16)f; unsigned short h; memcpy(&h, &x, 2); return h; }
template <class V> V load(const void *p) { return *(const V *)p; }
inline float __expf(float x) { return std::exp(x); }
template <class T> T atomicAdd(T *p, T v) { T old = *p; *p = old + v; return old; }
inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
#pragma GCC pop_options
