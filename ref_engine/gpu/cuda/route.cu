// Which experts a token takes and how it weighs them, as reference/moe.py `route`: a warp for each token.
typedef unsigned long long u64;

enum { SOFTMAX, SIGMOID, SOFTMAX_WEIGHT, SQRT_SOFTPLUS };
enum { BY_GATE, BY_LOGITS, BY_SIGMOID };
#define LEAST_SUM 6.103515625e-5f

// Larger for what comes earlier: larger scores, of equals the lower number, NaN last. Zero: taken.
__device__ __forceinline__ u64 place_of(float score, int number) {
    unsigned bits = score == 0 ? 0u : __float_as_uint(score);
    bits = score != score ? 0u : bits >> 31 ? ~bits : bits | 0x80000000u;
    return (u64)bits << 32 | ~(unsigned)number;
}

__device__ __forceinline__ int number_of(u64 place) { return (int)~(unsigned)place; }

// The first of n, which is taken. All threads of the warp get it.
__device__ __forceinline__ int take_first(u64 *places, int n) {
    u64 best = 0;
    for (int i = threadIdx.x; i < n; i += WARP) best = places[i] > best ? places[i] : best;
#pragma unroll
    for (int by = WARP / 2; by; by /= 2) {
        u64 other = __shfl_xor_sync(WHOLE, best, by);
        best = other > best ? other : best;
    }
    int number = number_of(best);
    if (threadIdx.x == 0) places[number] = 0;
    __syncwarp();
    return number;
}

__device__ __forceinline__ void soft_max(float *x, int n) {
    float most = __uint_as_float(0xff800000u);
    for (int i = threadIdx.x; i < n; i += WARP) most = fmaxf(most, x[i]);
    most = warp_max(most);  // without NaN, which the sum has
    for (int i = threadIdx.x; i < n; i += WARP) x[i] = exp_written(less(x[i], most));
    __syncwarp();
    float inverse = __fdiv_rn(1.0f, lane_sum(x, n));
    __syncwarp();
    for (int i = threadIdx.x; i < n; i += WARP) x[i] = times(x[i], inverse);
    __syncwarp();
}

// Leaves in `allowed` (groups,) what the best groups are; totals: room for as many.
__device__ __forceinline__ void best_groups(
    const float *scores, const u64 *places, int n, u64 *totals, int *allowed, int groups, int used) {
    int size = n / groups;
    for (int g = threadIdx.x; g < groups; g += WARP) {
        u64 first = 0, second = 0;
        for (int i = g * size; i < (g + 1) * size; i++) {
            u64 place = places[i];
            if (place > first) second = first, first = place;
            else if (place > second) second = place;
        }
        float total = scores[number_of(first)];
        if (size > 1) total = plus(total, scores[number_of(second)]);
        totals[g] = place_of(total, g), allowed[g] = 0;
    }
    __syncwarp();
    for (int j = 0; j < used; j++) {
        int g = take_first(totals, groups);
        if (threadIdx.x == 0) allowed[g] = 1;
    }
    __syncwarp();
}

// logits (T, n), bias (n,) or null, given (T, used) or null -> ids, weights (T, used). cap, scale: 0 for none.
// inverse: 1 / cap. Shared memory: 16 bytes for each expert, 12 for each group, 4 for each that is used.
extern "C" __global__ __launch_bounds__(WARP) void route(
    const float *logits, const float *bias, const int *given, int *ids, float *weights, int n, int used, int gate,
    int select, int groups, int groups_used, int normalise, float cap, float inverse, float scale) {
    DYNAMIC_SHARED(u64, places);
    u64 *totals = places + n;
    float *p = (float *)(totals + groups), *s = p + n, *w = s + n;
    int *allowed = (int *)(w + used);
    int lane = threadIdx.x;
    logits += (long long)blockIdx.x * n, ids += (long long)blockIdx.x * used, weights += (long long)blockIdx.x * used;
    for (int i = lane; i < n; i += WARP) {
        float x = logits[i];
        if (cap != 0) x = times(cap, tanh_written(times(x, inverse)));
        p[i] = gate == SIGMOID ? sigmoid_written(x) : gate == SQRT_SOFTPLUS ? __fsqrt_rn(softplus_written(x)) : x;
        s[i] = select == BY_SIGMOID ? sigmoid_written(x) : x;
    }
    __syncwarp();
    if (gate == SOFTMAX) soft_max(p, n);
    for (int i = lane; i < n; i += WARP) {
        float score = select == BY_GATE ? p[i] : s[i];
        if (bias) score = plus(score, bias[i]);
        s[i] = score, places[i] = place_of(score, i);
    }
    __syncwarp();
    if (groups > 1 && !given) {
        best_groups(s, places, n, totals, allowed, groups, groups_used);
        for (int i = lane; i < n; i += WARP)
            if (!allowed[i / (n / groups)]) places[i] = place_of(__uint_as_float(0xff800000u), i);
        __syncwarp();
    }
    for (int j = 0; j < used; j++) {
        int number = given ? given[(long long)blockIdx.x * used + j] : take_first(places, n);
        if (lane == 0) ids[j] = number, w[j] = p[number];
    }
    __syncwarp();
    if (gate == SOFTMAX_WEIGHT) soft_max(w, used);
    float total = lane_sum(w, used);
    if (total < LEAST_SUM) total = LEAST_SUM;
    for (int j = lane; j < used; j += WARP) {
        float weight = normalise ? __fdiv_rn(w[j], total) : w[j];
        weights[j] = scale != 0 ? times(weight, scale) : weight;
    }
}
