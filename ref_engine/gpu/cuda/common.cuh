// What all kernels share: half precision from its bits, wide loads, sums over a warp.
typedef unsigned char u8;
typedef signed char i8;
typedef unsigned short u16;

#ifndef EMULATED  // the tests' emulator has its own
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

// From an address that is a multiple of the type's size.
template <class V> __device__ __forceinline__ V load(const void *p) { return *(const V *)p; }

#define DYNAMIC_SHARED(type, name) extern __shared__ type name[]
#endif

#define WARP 32
#define WHOLE 0xffffffffu  // all threads of a warp

__device__ __forceinline__ float half_at(const u8 *p) { return half_to_float(load<u16>(p)); }

__device__ __forceinline__ float bf16_to_float(u16 h) { return __uint_as_float((unsigned)h << 16); }

__device__ __forceinline__ float round_to_bf16(float x) {  // ties to even; NaN stays NaN
    unsigned i = __float_as_uint(x);
    if ((i & 0x7fffffffu) > 0x7f800000u) return x;
    return __uint_as_float((i + 0x7fffu + (i >> 16 & 1)) & 0xffff0000u);
}

template <class N> __device__ __forceinline__ N warp_sum(N x) {
#pragma unroll
    for (int by = WARP / 2; by; by /= 2) x += __shfl_xor_sync(WHOLE, x, by);
    return x;
}

__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
    for (int by = WARP / 2; by; by /= 2) x = fmaxf(x, __shfl_xor_sync(WHOLE, x, by));
    return x;
}
