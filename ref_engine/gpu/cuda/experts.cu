// What a token's experts gave, (tokens, k, width), times their weights (tokens, k) and added in the order of the
// ranking, every step rounded: (tokens, width). Without weights they are only added. A thread for each sum.
extern "C" __global__ void __launch_bounds__(256)
weighted_sum(const float *y, const float *weights, float *out, long long n, int k, int width) {
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    long long token = i / width, at = token * k * width + i % width;
    float total = 0;
    for (int r = 0; r < k; r++) {
        float v = y[at + (long long)r * width];
        if (weights) v = __fmul_rn(v, weights[token * k + r]);
        total = r ? __fadd_rn(total, v) : v;
    }
    out[i] = total;
}
