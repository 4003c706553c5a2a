// Activations rounded to 8 bits, as quant/activations.py does: q, and a scale for every 32 of them.
//
// sums: for types with minima, the scale times the sum of each 16; null: not asked for. Of q8_1 it is half of the
// rounded s of the block for each of its 16s, so that the two together are s.
#define BLOCK_FOR_ROWS 128

__device__ __forceinline__ bool is_finite(float x) { return (__float_as_uint(x) & 0x7f800000u) != 0x7f800000u; }

// One warp for each block of 32. Grid: blocks of all rows / 4.
extern "C" __global__ void __launch_bounds__(BLOCK_FOR_ROWS)
round_q8_0(const float *x, i8 *q, float *d, float *sums, long long n_blocks) {
    long long block = (long long)blockIdx.x * (BLOCK_FOR_ROWS / WARP) + threadIdx.x / WARP;
    if (block >= n_blocks) return;
    int lane = threadIdx.x % WARP;
    float v = x[block * 32 + lane];
    bool finite = !__any_sync(WHOLE, !is_finite(v));
    float largest = warp_max(fabsf(v));
    float inverse = largest != 0 ? __fdiv_rn(127.0f, largest) : 0.0f;
    float r = finite && is_finite(inverse) ? rintf(__fmul_rn(v, inverse)) : 0.0f;
    float scale = __fdiv_rn(largest, 127.0f);
    q[block * 32 + lane] = (i8)r;
    float sum = warp_sum(r);
    if (lane == 0) d[block] = finite ? half_to_float(float_to_half(scale)) : __uint_as_float(0x7fc00000u);
    if (sums && lane < 2) {
        float s = half_to_float(float_to_half(__fmul_rn(scale, sum)));
        sums[block * 2 + lane] = finite ? 0.5f * s : __uint_as_float(0x7fc00000u);
    }
}

// One warp for each block of 256, eight neighbours a thread. The first of the largest magnitude becomes -127.
extern "C" __global__ void __launch_bounds__(BLOCK_FOR_ROWS)
round_q8_k(const float *x, i8 *q, float *d, float *sums, long long n_blocks) {
    long long block = (long long)blockIdx.x * (BLOCK_FOR_ROWS / WARP) + threadIdx.x / WARP;
    if (block >= n_blocks) return;
    int lane = threadIdx.x % WARP;
    const float *mine = x + block * 256 + lane * 8;
    float4 low = load<float4>(mine), high = load<float4>(mine + 4);
    float v[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
    bool bad = false;
    float largest = v[0];
#pragma unroll
    for (int i = 0; i < 8; i++) {
        bad = bad || !is_finite(v[i]);
        if (fabsf(v[i]) > fabsf(largest)) largest = v[i];
    }
    bool finite = !__any_sync(WHOLE, bad);
#pragma unroll
    for (int by = 1; by < WARP; by *= 2) {  // of equals, that of the lower lane
        float other = __shfl_xor_sync(WHOLE, largest, by);
        bool before = (lane & by) != 0;
        if (fabsf(other) > fabsf(largest) || (before && fabsf(other) == fabsf(largest))) largest = other;
    }
    float inverse = largest != 0 ? __fdiv_rn(-127.0f, largest) : 0.0f;
    float scale = largest != 0 ? __fdiv_rn(1.0f, inverse) : 0.0f;
    bool whole = finite && is_finite(inverse);
    float sum = 0;
    unsigned packed[2] = {0, 0};
#pragma unroll
    for (int i = 0; i < 8; i++) {
        float r = whole ? rintf(fminf(__fmul_rn(v[i], inverse), 127.0f)) : 0.0f;
        sum += r;
        packed[i / 4] |= ((unsigned)(int)r & 255u) << i % 4 * 8;
    }
    int2 both;
    both.x = (int)packed[0], both.y = (int)packed[1];
    *(int2 *)(q + block * 256 + lane * 8) = both;
    sum += __shfl_xor_sync(WHOLE, sum, 1);
    scale = finite ? scale : __uint_as_float(0x7fc00000u);
    if (sums && lane % 2 == 0) sums[block * 16 + lane / 2] = scale * sum;
    if (lane % 4 == 0) d[block * 8 + lane / 4] = scale;
}
