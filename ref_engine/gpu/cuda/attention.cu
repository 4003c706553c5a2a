// Attention of new tokens to the keys of a cache, whose numbers are TYPE: float, or u16 for half precision.
//
// The query heads that share a key head, of one token or several, are rows of one matrix: R of them are a block's, which
// goes through its keys TILE at a time and keeps for each row the largest score so far, the sum of the weights, and the
// weighted values (online softmax: Milakov & Gimelshein 2018; Dao et al. 2022). With gridDim.z > 1 each block has a
// part of the keys, and `combine` puts the parts together.
#define THREADS 128
#define TILE 64
#define LANES 8  // threads for each key
#define NONE __uint_as_float(0xff800000u)  // minus infinity: the score of a key that is not seen

__device__ __forceinline__ float number(float x) { return x; }
__device__ __forceinline__ float number(u16 x) { return half_to_float(x); }
__device__ __forceinline__ float4 four(const float *p) { return load<float4>(p); }
__device__ __forceinline__ float4 four(const u16 *p) {
    uint2 v = load<uint2>(p);
    float4 x;
    x.x = half_to_float((u16)(v.x & 0xffffu)), x.y = half_to_float((u16)(v.x >> 16));
    x.z = half_to_float((u16)(v.y & 0xffffu)), x.w = half_to_float((u16)(v.y >> 16));
    return x;
}

// Numbers d .. d + 3 of a key; zeros from `width` on.
__device__ __forceinline__ float4 four_of(const TYPE *key, int d, int width, int wide) {
    float4 x = {0, 0, 0, 0};
    if (wide && d < width) return four(key + d);
    if (d < width) x.x = number(key[d]);
    if (d + 1 < width) x.y = number(key[d + 1]);
    if (d + 2 < width) x.z = number(key[d + 2]);
    if (d + 3 < width) x.w = number(key[d + 3]);
    return x;
}

__device__ __forceinline__ float shrink(float from, float to) { return from == NONE ? 0.0f : expf(from - to); }

// q (tokens, heads, width), keys and values by their strides, y (tokens, heads, value_width). The token t is at position
// first + t and sees those up to itself, of the last `window` ones if that is not 0. Blocks (.., .., z) have keys from
// base + z * chunk on. where: the first token's position, if only the device knows it. wide: rows of keys are 4 numbers after 4, from addresses that these divide.
// part_y, part_stats: (parts, tokens, heads, value_width) and (.., 2), if there are several.
#define PARAMETERS                                                                                                    \
    const float *q, const TYPE *k, const TYPE *v, const float *sinks, float *y, float *part_y, float *part_stats,     \
        int tokens, int heads, int kv_heads, int width, int value_width, int n_keys, int first, int window, int base, \
        int chunk, long long k_row, long long k_head, long long v_row, long long v_head, int wide, float scale,       \
        float cap, const long long *where
#define ARGUMENTS                                                                                                     \
    q, k, v, sinks, y, part_y, part_stats, tokens, heads, kv_heads, width, value_width, n_keys, first, window, base,  \
        chunk, k_row, k_head, v_row, v_head, wide, scale, cap, where

// V: features of a value for each thread
template <int R, int V> __device__ __forceinline__ void attend(PARAMETERS) {
    DYNAMIC_SHARED(float, room);
    if (where) first = (int)*where;
    int padded = (width + 31) & ~31, group = heads / kv_heads, n_rows = tokens * group;
    float *queries = room, *p = room + R * (padded > THREADS ? padded : THREADS);
    float *alpha = p + R * TILE, *largest = alpha + R, *total = largest + R;
    int tid = threadIdx.x, lane = tid % WARP, row0 = blockIdx.x * R, kv = blockIdx.y;
    int last = (row0 + R < n_rows ? row0 + R : n_rows) - 1;

    for (int i = tid; i < R * padded; i += THREADS) {
        int row = row0 + i / padded, d = i % padded;
        bool there = row <= last && d < width;
        queries[i] = there ? q[((long long)(row / group) * heads + kv * group + row % group) * width + d] : 0.0f;
    }
    if (tid < R) largest[tid] = NONE, total[tid] = 0;
    k += kv * k_head, v += kv * v_head;

    int begin = base + (int)blockIdx.z * chunk, end = min(min(begin + chunk, n_keys), first + last / group + 1);
    if (window) begin = max(begin, first + row0 / group - window + 1);
    int span = value_width > 64 ? THREADS : value_width > 32 ? 64 : 32, feature = tid % span;
    float acc[V][R] = {};
    for (int tile = begin; tile < end; tile += TILE) {
        __syncthreads();
        for (int n = tid / LANES; n < TILE; n += THREADS / LANES) {
            float sum[R] = {};
            if (tile + n < end) {
                const TYPE *key = k + (tile + n) * k_row;
                for (int d = tid % LANES * 4; d < padded; d += LANES * 4) {
                    float4 a = four_of(key, d, width, wide);
#pragma unroll
                    for (int r = 0; r < R; r++) {
                        float4 b = load<float4>(queries + r * padded + d);
                        sum[r] += a.x * b.x + a.y * b.y + a.z * b.z + a.w * b.w;
                    }
                }
            }
#pragma unroll
            for (int r = 0; r < R; r++) {
#pragma unroll
                for (int by = LANES / 2; by; by /= 2) sum[r] += __shfl_xor_sync(WHOLE, sum[r], by);
                if (tid % LANES == 0) p[r * TILE + n] = sum[r];
            }
        }
        __syncthreads();
        for (int r = tid / WARP; r < R; r += THREADS / WARP) {
            int position = first + (row0 + r) / group;
            float x[TILE / WARP], most = NONE;
#pragma unroll
            for (int j = 0; j < TILE / WARP; j++) {
                int n = lane + j * WARP, s = tile + n;
                bool seen = row0 + r <= last && s < end && s <= position && (!window || s > position - window);
                float score = p[r * TILE + n];
                if (cap != 0) score = tanhf(score * (1.0f / cap)) * cap;
                x[j] = seen ? score * scale : NONE;
                most = fmaxf(most, x[j]);
            }
            float before = largest[r], now = fmaxf(before, warp_max(most)), sum = 0;
#pragma unroll
            for (int j = 0; j < TILE / WARP; j++) {
                float weight = shrink(x[j], now);
                p[r * TILE + lane + j * WARP] = weight;
                sum += weight;
            }
            sum = warp_sum(sum);
            if (lane == 0) {
                float less = shrink(before, now);
                alpha[r] = less, largest[r] = now, total[r] = total[r] * less + sum;
            }
        }
        __syncthreads();
#pragma unroll
        for (int r = 0; r < R; r++)
#pragma unroll
            for (int i = 0; i < V; i++) acc[i][r] *= alpha[r];
        for (int n = tid / span * 4; n < TILE && tile + n < end; n += THREADS / span * 4) {
            float value[V][4];
#pragma unroll
            for (int i = 0; i < V; i++)
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    int d = feature + i * THREADS;
                    bool there = tile + n + j < end && d < value_width;
                    value[i][j] = there ? number(v[(tile + n + j) * v_row + d]) : 0.0f;
                }
#pragma unroll
            for (int r = 0; r < R; r++) {
                float4 w = load<float4>(p + r * TILE + n);
#pragma unroll
                for (int i = 0; i < V; i++)
                    acc[i][r] += w.x * value[i][0] + w.y * value[i][1] + w.z * value[i][2] + w.w * value[i][3];
            }
        }
    }
    __syncthreads();
    if (span < THREADS) {  // several threads have a feature, each for some of the keys; V is 1
#pragma unroll
        for (int r = 0; r < R; r++) queries[r * THREADS + tid] = acc[0][r];
        __syncthreads();
        if (tid >= span) return;
#pragma unroll
        for (int r = 0; r < R; r++)
            for (int other = tid + span; other < THREADS; other += span) acc[0][r] += queries[r * THREADS + other];
    }
#pragma unroll
    for (int r = 0; r < R; r++) {
        if (row0 + r > last) break;
        int head = kv * group + (row0 + r) % group;
        long long row = (long long)((row0 + r) / group) * heads + head;
        float factor = 1;
        if (gridDim.z == 1) {
            float sink = sinks ? sinks[head] : NONE, most = fmaxf(largest[r], sink), less = shrink(largest[r], most);
            factor = less / (total[r] * less + shrink(sink, most));
        }
        long long part = (long long)blockIdx.z * tokens * heads + row;
        float *out = gridDim.z == 1 ? y + row * value_width : part_y + part * value_width;
#pragma unroll
        for (int i = 0; i < V; i++)
            if (feature + i * THREADS < value_width) out[feature + i * THREADS] = acc[i][r] * factor;
        if (gridDim.z > 1 && tid == 0) part_stats[part * 2] = largest[r], part_stats[part * 2 + 1] = total[r];
    }
}

// A block for each head of each token: y (rows, value_width) of the parts of attend.
extern "C" __global__ __launch_bounds__(THREADS) void combine(
    const float *part_y, const float *part_stats, const float *sinks, float *y, int parts, int rows, int heads,
    int value_width) {
    int row = blockIdx.x;
    float sink = sinks ? sinks[row % heads] : NONE, most = sink, total = 0;
    for (int i = 0; i < parts; i++) most = fmaxf(most, part_stats[((long long)i * rows + row) * 2]);
    for (int i = 0; i < parts; i++) {
        const float *stats = part_stats + ((long long)i * rows + row) * 2;
        total += shrink(stats[0], most) * stats[1];
    }
    total += shrink(sink, most);
    for (int d = threadIdx.x; d < value_width; d += THREADS) {
        float sum = 0;
        for (int i = 0; i < parts; i++) {
            long long part = (long long)i * rows + row;
            sum += shrink(part_stats[part * 2], most) * part_y[part * value_width + d];
        }
        y[(long long)row * value_width + d] = sum / total;
    }
}

extern "C" __global__ __launch_bounds__(THREADS) void attend_1_1(PARAMETERS) { attend<1, 1>(ARGUMENTS); }
extern "C" __global__ __launch_bounds__(THREADS) void attend_2_1(PARAMETERS) { attend<2, 1>(ARGUMENTS); }
extern "C" __global__ __launch_bounds__(THREADS) void attend_4_1(PARAMETERS) { attend<4, 1>(ARGUMENTS); }
extern "C" __global__ __launch_bounds__(THREADS) void attend_8_1(PARAMETERS) { attend<8, 1>(ARGUMENTS); }
extern "C" __global__ __launch_bounds__(THREADS) void attend_16_1(PARAMETERS) { attend<16, 1>(ARGUMENTS); }
extern "C" __global__ __launch_bounds__(THREADS) void attend_4_2(PARAMETERS) { attend<4, 2>(ARGUMENTS); }
extern "C" __global__ __launch_bounds__(THREADS) void attend_16_2(PARAMETERS) { attend<16, 2>(ARGUMENTS); }
extern "C" __global__ __launch_bounds__(THREADS) void attend_4_4(PARAMETERS) { attend<4, 4>(ARGUMENTS); }
extern "C" __global__ __launch_bounds__(THREADS) void attend_16_4(PARAMETERS) { attend<16, 4>(ARGUMENTS); }

__device__ __forceinline__ void store(float *to, float x) { *to = x; }
__device__ __forceinline__ void store(u16 *to, float x) { *to = float_to_half(x); }

// n numbers of a token to its row of a cache, whose rows have so many: rows[*where] = x
extern "C" __global__ __launch_bounds__(THREADS) void remember(const float *x, TYPE *rows, const long long *where, int n) {
    int i = blockIdx.x * THREADS + threadIdx.x;
    if (i < n) store(rows + *where * n + i, x[i]);
}
