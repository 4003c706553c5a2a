// Attention of tokens one by one, to parts of their keys at a time, and the parts put together (Dao et al. 2023,
// "Flash-Decoding"). Keys and values are of type TYPE.
//
// A block of threads has one token, up to HEADS query heads that share a head of keys, and one part of the keys. It
// takes CHUNK keys at once: scores, their exponentials below the largest so far, and the sum of values weighed by them.
#define HEADS 8
#define CHUNK 64
#define THREADS 128
#define LANES 8  // threads that have one key together

struct F32 {
    typedef float Number;
    static __device__ __forceinline__ float number(float x) { return x; }
};

struct F16 {
    typedef u16 Number;
    static __device__ __forceinline__ float number(u16 x) { return half_to_float(x); }
};

// Grid: (T, K * head_blocks, parts). positions of the tokens: first_position + t. window: 0 for none. cap: 0 for none.
// Of part p, head h and token t: most, total (T, H, parts) and out (T, H, parts, Vd), the sum of values.
// Shared memory: heads * (Hd + Vd + CHUNK + 3) floats, heads the smaller of HEADS and H / K.
extern "C" __global__ void __launch_bounds__(THREADS) attend_parts(
    const float *q, const TYPE::Number *keys, const TYPE::Number *values, float *most, float *total, float *out, int H,
    int K, int Hd, int Vd, long long first_position, int window, float scale, float cap, int keys_of_part) {
    extern __shared__ float buffer[];
    int group = H / K, head_blocks = (group + HEADS - 1) / HEADS;
    int k_head = blockIdx.y / head_blocks, from = blockIdx.y % head_blocks * HEADS;
    int n = group - from < HEADS ? group - from : HEADS, t = blockIdx.x, parts = gridDim.z;
    long long head = (long long)t * H + k_head * group + from;
    float *query = buffer, *sum = query + n * Hd, *p = sum + n * Vd, *largest = p + n * CHUNK, *whole = largest + n;
    float *shrink = whole + n;
    for (int i = threadIdx.x; i < n * Hd; i += THREADS) query[i] = q[head * Hd + i];
    for (int i = threadIdx.x; i < n * Vd; i += THREADS) sum[i] = 0;
    if (threadIdx.x < n) largest[threadIdx.x] = __uint_as_float(0xff800000u), whole[threadIdx.x] = 0;
    __syncthreads();
    long long position = first_position + t, begin = (long long)blockIdx.z * keys_of_part, end = begin + keys_of_part;
    if (end > position + 1) end = position + 1;
    if (window && begin < position + 1 - window) begin = position + 1 - window;
    int lane = threadIdx.x % LANES;
    for (long long s0 = begin; s0 < end; s0 += CHUNK) {
        int n_keys = end - s0 < CHUNK ? (int)(end - s0) : CHUNK;
        for (int i = threadIdx.x / LANES; i < CHUNK; i += THREADS / LANES) {  // all threads, as they exchange sums
            const TYPE::Number *key = keys + ((s0 + (i < n_keys ? i : 0)) * K + k_head) * Hd;
            float dot[HEADS] = {};
            for (int d = lane; d < Hd; d += LANES) {
                float x = TYPE::number(key[d]);
#pragma unroll
                for (int h = 0; h < HEADS; h++)
                    if (h < n) dot[h] += query[h * Hd + d] * x;
            }
#pragma unroll
            for (int h = 0; h < HEADS; h++) {
                if (h >= n) break;
#pragma unroll
                for (int by = LANES / 2; by; by /= 2) dot[h] += __shfl_xor_sync(WHOLE, dot[h], by);
                float score = cap != 0 ? tanhf(dot[h] * (1.0f / cap)) * cap : dot[h];
                if (lane == 0 && i < n_keys) p[h * CHUNK + i] = score * scale;
            }
        }
        __syncthreads();
        for (int h = threadIdx.x / WARP; h < n; h += THREADS / WARP) {
            float top = largest[h], e = 0;
            for (int i = threadIdx.x % WARP; i < n_keys; i += WARP) {
                float x = p[h * CHUNK + i];
                top = x > top || x != x ? x : top;  // than a NaN nothing is larger
            }
#pragma unroll
            for (int by = WARP / 2; by; by /= 2) {
                float other = __shfl_xor_sync(WHOLE, top, by);
                top = other > top || other != other ? other : top;
            }
            for (int i = threadIdx.x % WARP; i < n_keys; i += WARP) {
                float x = expf(p[h * CHUNK + i] - top);
                p[h * CHUNK + i] = x, e += x;
            }
            e = warp_sum(e);
            if (threadIdx.x % WARP == 0) {
                float smaller = largest[h] == top ? 1 : expf(largest[h] - top);
                largest[h] = top, whole[h] = whole[h] * smaller + e, shrink[h] = smaller;
            }
        }
        __syncthreads();
        for (int d = threadIdx.x; d < Vd; d += THREADS) {
            float acc[HEADS];
#pragma unroll
            for (int h = 0; h < HEADS; h++) acc[h] = h < n ? sum[h * Vd + d] * shrink[h] : 0;
            const TYPE::Number *value = values + (s0 * K + k_head) * Vd + d;
            for (int i = 0; i < n_keys; i++, value += (long long)K * Vd) {
                float x = TYPE::number(*value);
#pragma unroll
                for (int h = 0; h < HEADS; h++)
                    if (h < n) acc[h] += p[h * CHUNK + i] * x;
            }
#pragma unroll
            for (int h = 0; h < HEADS; h++)
                if (h < n) sum[h * Vd + d] = acc[h];
        }
        __syncthreads();
    }
    for (int i = threadIdx.x; i < n * Vd; i += THREADS)
        out[((head + i / Vd) * parts + blockIdx.z) * Vd + i % Vd] = sum[i];
    if (threadIdx.x < n) {
        long long at = (head + threadIdx.x) * parts + blockIdx.z;
        most[at] = largest[threadIdx.x], total[at] = whole[threadIdx.x];
    }
}

// Grid: (T, H). sinks: (H,) or null.
extern "C" __global__ void __launch_bounds__(THREADS) attend_whole(
    const float *most, const float *total, const float *parts_out, const float *sinks, float *y, int H, int parts,
    int Vd) {
    long long head = (long long)blockIdx.x * H + blockIdx.y;
    most += head * parts, total += head * parts, parts_out += head * parts * Vd;
    float top = sinks ? sinks[blockIdx.y] : __uint_as_float(0xff800000u);
    for (int p = 0; p < parts; p++) top = most[p] > top || most[p] != most[p] ? most[p] : top;
    float whole = sinks ? expf(sinks[blockIdx.y] - top) : 0;
    for (int p = 0; p < parts; p++)
        if (total[p] != 0) whole += total[p] * expf(most[p] - top);  // a NaN is not zero
    for (int d = threadIdx.x; d < Vd; d += THREADS) {
        float sum = 0;
        for (int p = 0; p < parts; p++)
            if (total[p] != 0) sum += parts_out[(long long)p * Vd + d] * expf(most[p] - top);
        y[head * Vd + d] = sum / whole;
    }
}
