// What all kernels share: half precision from its bits, wide loads, sums over a warp.
typedef unsigned char u8;
typedef signed char i8;
typedef unsigned short u16;

#ifndef EMULATED  // the tests' emulator has no assembly
__device__ __forceinline__ float half_to_float(u16 h) {
    float f;
    asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h));
    return f;
}

__device__ __forceinline__ u16 float_to_half(float f) {  // to nearest, ties to even
    u16 h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(f));
    return h;
}

#endif

// From an address that is a multiple of the type's size.
template <class V> __device__ __forceinline__ V load(const void *p) { return *(const V *)p; }

#define WARP 32
#define WHOLE 0xffffffffu  // all threads of a warp

__device__ __forceinline__ float half_at(const u8 *p) { return half_to_float(load<u16>(p)); }

__device__ __forceinline__ float bf16_to_float(u16 h) { return __uint_as_float((unsigned)h << 16); }

__device__ __forceinline__ float round_to_bf16(float x) {  // ties to even; NaN stays NaN
    unsigned i = __float_as_uint(x);
    if ((i & 0x7fffffffu) > 0x7f800000u) return x;
    return __uint_as_float((i + 0x7fffu + (i >> 16 & 1)) & 0xffff0000u);
}

__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
    for (int by = WARP / 2; by; by /= 2) x += __shfl_xor_sync(WHOLE, x, by);
    return x;
}

// T sums at once, a power of two: that of number i over the warp, in the 32 / T lanes from i * 32 / T on
template <int T> __device__ __forceinline__ float warp_sums(float *v) {
    int by = WARP / 2;
#pragma unroll
    for (int n = T / 2; n; n /= 2, by /= 2) {  // the upper half of the lanes goes on with the upper half of the sums
        bool upper = threadIdx.x & by;
#pragma unroll
        for (int i = 0; i < n; i++) {
            float given = upper ? v[i] : v[i + n];
            v[i] = (upper ? v[i + n] : v[i]) + __shfl_xor_sync(WHOLE, given, by);
        }
    }
#pragma unroll
    for (; by; by /= 2) v[0] += __shfl_xor_sync(WHOLE, v[0], by);
    return v[0];
}

__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
    for (int by = WARP / 2; by; by /= 2) x = fmaxf(x, __shfl_xor_sync(WHOLE, x, by));
    return x;
}

// Which rows of x and y a block of threads takes, and which matrix of a stack.
struct Group {
    int matrix, n;     // n rows; of no stack all, one after the other
    const int *slots;  // their numbers in y; those in x are slots / share
};

// groups: for each blockIdx.y a matrix, where its slots begin and how many they are (see experts.cu); null: no stack
__device__ __forceinline__ Group group_of(const int *groups, const int *slots, int tokens) {
    Group g = {0, tokens, nullptr};
    if (groups) {
        const int *mine = groups + 3 * blockIdx.y;
        g.matrix = mine[0], g.slots = slots + mine[1], g.n = mine[2];
    }
    return g;
}

__device__ __forceinline__ long long row_of_x(const Group &g, int t, int share) {
    return g.slots ? g.slots[t] / share : t;
}

// What a warp's threads have added up for each row t, written to column `row` of y
template <int T> __device__ __forceinline__ void
write_sums(float *acc, const float *bias, float *y, const Group &g, int row, int rows) {
    float sum = warp_sums<T>(acc);
    int lane = threadIdx.x % WARP, t = lane / (WARP / T);
    if (lane % (WARP / T) == 0 && t < g.n)
        y[(long long)(g.slots ? g.slots[t] : t) * rows + row] = sum + (bias ? bias[(long long)g.matrix * rows + row] : 0.0f);
}
