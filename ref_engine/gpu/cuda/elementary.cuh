// exp, tanh, log and what is made of them, as reference/elementary.py writes them: each operation rounds by itself, so
// that what is chosen by these numbers is chosen alike (but denormal numbers are zero here).
__device__ __forceinline__ float times(float a, float b) { return __fmul_rn(a, b); }
__device__ __forceinline__ float plus(float a, float b) { return __fadd_rn(a, b); }
__device__ __forceinline__ float less(float a, float b) { return __fsub_rn(a, b); }

template <int N> __device__ __forceinline__ float polynomial(const float (&c)[N], float x) {
    float y = c[0];
#pragma unroll
    for (int i = 1; i < N; i++) y = plus(times(y, x), c[i]);
    return y;
}

#define LN2_HIGH 0.693359375f
#define LN2_LOW -2.12194440e-4f
#define EXP_MAX 88.72283905206835f
#define EXP_MIN -103.97208f

__device__ __forceinline__ float exp_written(float x) {
    const float c[6] = {1.9875691500e-4f, 1.3981999507e-3f, 8.3334519073e-3f,
                        4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f};
    float within = x < EXP_MIN ? EXP_MIN : x > EXP_MAX ? EXP_MAX : x;  // NaN stays
    float n = rintf(times(within, 1.44269504088896341f));
    float r = less(less(within, times(n, LN2_HIGH)), times(n, LN2_LOW));
    float y = plus(plus(times(polynomial(c, r), times(r, r)), r), 1.0f);
    y = ldexpf(y, n == n ? (int)n : 0);
    return x > EXP_MAX ? __uint_as_float(0x7f800000u) : x < EXP_MIN ? 0.0f : y;
}

__device__ __forceinline__ float tanh_written(float x) {
    const float c[5] = {-5.70498872745e-3f, 2.06390887954e-2f, -5.37397155531e-2f, 1.33314422036e-1f,
                        -3.33332819422e-1f};
    float a = fabsf(x), z = times(x, x);
    if (a < 0.625f) return plus(times(times(polynomial(c, z), z), x), x);
    return copysignf(less(1.0f, __fdiv_rn(2.0f, plus(exp_written(plus(a, a)), 1.0f))), x);
}

__device__ __forceinline__ float sigmoid_written(float x) { return __fdiv_rn(1.0f, plus(1.0f, exp_written(-x))); }

__device__ __forceinline__ float log_written(float x) {
    const float c[9] = {7.0376836292e-2f,  -1.1514610310e-1f, 1.1676998740e-1f, -1.2420140846e-1f, 1.4249322787e-1f,
                        -1.6668057665e-1f, 2.0000714765e-1f,  -2.4999993993e-1f, 3.3333331174e-1f};
    int e;
    float m = frexpf(x, &e);
    bool small = m < 0.707106781186547524f;
    m = less(small ? plus(m, m) : m, 1.0f);
    float n = (float)(e - (int)small), z = times(m, m);
    float y = less(plus(times(times(polynomial(c, m), m), z), times(n, LN2_LOW)), times(0.5f, z));
    return plus(plus(m, y), times(n, LN2_HIGH));
}

__device__ __forceinline__ float softplus_written(float x) {
    float small = exp_written(-fabsf(x)), u = plus(1.0f, small);
    float log1p = u == 1.0f ? small : times(log_written(u), __fdiv_rn(small, less(u, 1.0f)));
    return plus(x < 0 ? 0.0f : x, log1p);
}

// The sum of n numbers in shared memory in sixteen lanes and their tree (reference/sums.py), by a whole warp.
__device__ __forceinline__ float lane_sum(const float *x, int n) {
    float sum = 0;
    for (int i = threadIdx.x % 16; i < n; i += 16) sum = plus(sum, x[i]);
#pragma unroll
    for (int by = 8; by; by /= 2) sum = plus(sum, __shfl_xor_sync(WHOLE, sum, by));
    return sum;
}
