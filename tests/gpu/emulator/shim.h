// CUDA C on the host: the threads of a block are fibers that run one after the other, each until it has to wait.
#pragma once
#include <csetjmp>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <sys/mman.h>
#include <type_traits>
#include <ucontext.h>
#include <utility>


#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __forceinline__ inline
#define __shared__ static
#define __restrict__
#define __launch_bounds__(...)
#define DYNAMIC_SHARED(type, name) type *name = (type *)emulated::dynamic

struct dim3 { unsigned x = 1, y = 1, z = 1; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(8) int2 { int x, y; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
static inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

static dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulated {
constexpr int LIMIT = 1024, WARP = 32;
constexpr size_t STACK = 1 << 16;
enum State { READY, AT_WARP, AT_BLOCK, DONE };
struct Fiber { jmp_buf at; State state; bool started; unsigned flip; };
static Fiber fibers[LIMIT];
static jmp_buf scheduler;
static char *stacks = nullptr;
static int current, n_threads, waiting[LIMIT / WARP], wanted;
static uint64_t slots[2][LIMIT];
static char *dynamic = nullptr;
static const char *failure = nullptr;
static void (*body)(void *);
static void *body_arg;

static void fail(const char *what) { if (!failure) failure = what; }

static void to_scheduler() { if (!_setjmp(fibers[current].at)) _longjmp(scheduler, 1); }

static void main_of_fiber() {
    for (;;) {  // a fiber is used again for the next block
        body(body_arg);
        fibers[current].state = DONE;
        to_scheduler();
    }
}

static void wait_for_warp() {
    fibers[current].state = AT_WARP;
    to_scheduler();
}

static void wait_for_block() {
    fibers[current].state = AT_BLOCK;
    to_scheduler();
}

static void place_thread(int i) {
    current = i;
    threadIdx.x = i % blockDim.x;
    threadIdx.y = i / blockDim.x % blockDim.y;
    threadIdx.z = i / blockDim.x / blockDim.y;
}

static void resume(int i) {
    place_thread(i);
    if (_setjmp(scheduler)) return;
    Fiber &f = fibers[i];
    if (f.started) _longjmp(f.at, 1);
    f.started = true;
    static ucontext_t made, unused;
    getcontext(&made);
    made.uc_stack.ss_sp = stacks + i * STACK;
    made.uc_stack.ss_size = STACK;
    made.uc_link = nullptr;
    makecontext(&made, main_of_fiber, 0);
    swapcontext(&unused, &made);
}

// Those that wait go on when all of their warp, or of their block but for those that have ended, wait for the same.
static bool release() {
    bool any = false;
    int at_block = 0, done = 0;
    for (int w = 0; w < n_threads; w += WARP) {
        int end = w + WARP < n_threads ? w + WARP : n_threads, at_warp = 0;
        for (int i = w; i < end; i++) {
            at_warp += fibers[i].state == AT_WARP;
            at_block += fibers[i].state == AT_BLOCK;
            done += fibers[i].state == DONE;
        }
        if (at_warp == end - w) {
            for (int i = w; i < end; i++) fibers[i].state = READY;
            any = true;
        }
    }
    if (at_block && at_block + done == n_threads) {
        for (int i = 0; i < n_threads; i++)
            if (fibers[i].state == AT_BLOCK) fibers[i].state = READY;
        any = true;
    }
    return any;
}

static void run_block() {
    for (int i = 0; i < n_threads; i++) fibers[i].state = READY;
    for (;;) {
        int done = 0;
        for (int i = 0; i < n_threads; i++) {
            if (fibers[i].state == READY) resume(i);
            done += fibers[i].state == DONE;
        }
        if (failure || done == n_threads) return;
        if (!release()) return fail("threads wait for others of their warp or block that never come");
    }
}

template <class T> static T exchange(unsigned mask, T value, int from) {
    static_assert(sizeof(T) <= 8, "at most 8 bytes");
    if (mask != 0xffffffffu) fail("a mask other than that of the whole warp");
    if (n_threads % WARP) fail("a warp's exchange in a block that is no multiple of 32 threads");
    unsigned flip = fibers[current].flip ^= 1;
    std::memcpy(&slots[flip][current], &value, sizeof(T));
    wait_for_warp();
    std::memcpy(&value, &slots[flip][current / WARP * WARP + from], sizeof(T));
    return value;
}

template <class P> static P *checked(P *p, size_t bytes) {
    if ((uintptr_t)p % bytes) fail("a load or store of several bytes at an address that is no multiple of them");
    return p;
}

template <class A> constexpr char kind() {
    if (std::is_pointer<A>::value) return 'p';
    if (std::is_floating_point<A>::value) return sizeof(A) == 4 ? 'f' : 'd';
    return std::is_signed<A>::value ? (sizeof(A) == 8 ? 'q' : sizeof(A) == 4 ? 'i' : '?')
                                    : (sizeof(A) == 8 ? 'Q' : sizeof(A) == 4 ? 'I' : '?');
}

template <class... A> const char *kinds(void (*)(A...)) {
    static const char list[] = {kind<A>()..., 0};
    return list;
}

template <class... A> struct Call { void (*kernel)(A...); void **args; };

template <class... A, size_t... I> static void apply(Call<A...> &c, std::index_sequence<I...>) {
    c.kernel(*(A *)c.args[I]...);
}

template <class... A> static void call(void *p) { apply(*(Call<A...> *)p, std::index_sequence_for<A...>{}); }

template <class... A> const char *launch(void (*kernel)(A...), const unsigned *dims, size_t shared, void **args) {
    gridDim = {dims[0], dims[1], dims[2]};
    blockDim = {dims[3], dims[4], dims[5]};
    n_threads = blockDim.x * blockDim.y * blockDim.z;
    failure = nullptr;
    if (!stacks)
        stacks = (char *)mmap(nullptr, STACK * LIMIT, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    dynamic = (char *)std::aligned_alloc(128, shared / 128 * 128 + 128);
    std::memset(dynamic, 0x7f, shared);  // nothing is known of what it holds
    Call<A...> c{kernel, args};
    body = call<A...>;
    body_arg = &c;
    for (unsigned z = 0; z < gridDim.z && !failure; z++)
        for (unsigned y = 0; y < gridDim.y && !failure; y++)
            for (unsigned x = 0; x < gridDim.x && !failure; x++) {
                blockIdx = {x, y, z};
                run_block();
            }
    for (Fiber &f : fibers) f.started = f.started && !failure;  // one that was left waiting starts anew
    std::free(dynamic);
    return failure;
}
}  // namespace emulated

static inline void __syncthreads() { emulated::wait_for_block(); }
static inline void __syncwarp(unsigned mask = 0xffffffffu) { emulated::exchange(mask, 0, 0); }
static inline int lane_of_thread() { return emulated::current % 32; }
template <class T> static T __shfl_xor_sync(unsigned m, T v, int by) { return emulated::exchange(m, v, lane_of_thread() ^ by); }
template <class T> static T __shfl_sync(unsigned m, T v, int from) { return emulated::exchange(m, v, from & 31); }
template <class T> static T __shfl_down_sync(unsigned m, T v, int by) {
    return emulated::exchange(m, v, lane_of_thread() + by < 32 ? lane_of_thread() + by : lane_of_thread());
}
static inline int __any_sync(unsigned m, int p) {
    int any = p != 0;
    for (int by = 16; by; by /= 2) any |= __shfl_xor_sync(m, any, by);
    return any;
}

static inline int __dp4a(int a, int b, int c) {
    for (int i = 0; i < 32; i += 8) c += (int8_t)((unsigned)a >> i) * (int8_t)((unsigned)b >> i);
    return c;
}
static inline unsigned __byte_perm(unsigned a, unsigned b, unsigned s) {
    uint64_t all = (uint64_t)b << 32 | a;
    unsigned made = 0;
    for (int i = 0; i < 4; i++) made |= (unsigned)(all >> (s >> 4 * i & 7) * 8 & 255) << 8 * i;
    return made;
}
template <class T> static T __ldg(const T *p) { return *p; }
static inline int __float_as_int(float x) { int i; std::memcpy(&i, &x, 4); return i; }
static inline float __int_as_float(int i) { float x; std::memcpy(&x, &i, 4); return x; }
static inline unsigned __float_as_uint(float x) { return (unsigned)__float_as_int(x); }
static inline float __uint_as_float(unsigned i) { return __int_as_float((int)i); }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float rsqrtf(float x) { return 1 / std::sqrt(x); }
static inline int min(int a, int b) { return a < b ? a : b; }
static inline int max(int a, int b) { return a > b ? a : b; }
template <class T> static T atomicAdd(T *p, T v) { T old = *p; *p = old + v; return old; }
static inline float half_to_float(unsigned short h) { _Float16 x; std::memcpy(&x, &h, 2); return (float)x; }
static inline unsigned short float_to_half(float f) { _Float16 x = (_Float16)f; unsigned short h; std::memcpy(&h, &x, 2); return h; }
template <class V> static V load(const void *p) { return *(const V *)emulated::checked((const char *)p, sizeof(V)); }
