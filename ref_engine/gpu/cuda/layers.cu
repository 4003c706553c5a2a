// Norms, the rotation by position, and gated activations: what would else be many small launches.

// Over a block of threads, of any number of warps; the same in all threads
__device__ __forceinline__ double block_sum(double x) {
    __shared__ double parts[WARP];
#pragma unroll
    for (int by = WARP / 2; by; by /= 2) x += __shfl_xor_sync(WHOLE, x, by);
    if (threadIdx.x % WARP == 0) parts[threadIdx.x / WARP] = x;
    __syncthreads();
    double sum = 0;
    for (int w = 0; w < blockDim.x / WARP; w++) sum += parts[w];
    return sum;
}

// One block for each row of D numbers. weight: (D,) or null.
extern "C" __global__ void __launch_bounds__(256)
rms_norm(const float *x, const float *weight, float *y, int D, float eps) {
    x += (long long)blockIdx.x * D, y += (long long)blockIdx.x * D;
    double squares = 0;
    for (int i = threadIdx.x; i < D; i += blockDim.x) squares += (double)x[i] * (double)x[i];
    double inverse = 1.0 / sqrt(block_sum(squares) / (double)D + (double)eps);
    for (int i = threadIdx.x; i < D; i += blockDim.x) {
        float normed = (float)((double)x[i] * inverse);
        y[i] = weight ? __fmul_rn(normed, weight[i]) : normed;
    }
}

// Grid: (T, pairs or features behind them / 64), 64 threads for each. x: (T, H, Hd), of rows `row_x` apart and heads
// `head_x`; y without gaps. cos, sin: (T, n). adjacent: pairs are neighbours, not half of what is turned apart.
extern "C" __global__ void __launch_bounds__(64)
rope(const float *x, const float *cos, const float *sin, float *y, int H, int Hd, int n, long long row_x,
     long long head_x, int adjacent) {
    int i = blockIdx.y * blockDim.x + threadIdx.x, t = blockIdx.x, left = Hd - 2 * n;
    if (i >= n + left) return;
    float c = i < n ? cos[(long long)t * n + i] : 1, s = i < n ? sin[(long long)t * n + i] : 0;
    int first = i >= n ? n + i : adjacent ? 2 * i : i, second = adjacent ? first + 1 : first + n;
    for (int h = 0; h < H; h++) {
        const float *from = x + t * row_x + h * head_x;
        float *to = y + ((long long)t * H + h) * Hd;
        if (i < n) {
            float a = from[first], b = from[second];
            to[first] = __fsub_rn(__fmul_rn(a, c), __fmul_rn(b, s));
            to[second] = __fadd_rn(__fmul_rn(a, s), __fmul_rn(b, c));
        } else
            to[first] = from[first];
    }
}

// activation(gate) * up; activation: 0 silu, 1 gelu, 2 relu, 3 relu squared. n numbers; up may be null for none.
extern "C" __global__ void __launch_bounds__(256)
glu(const float *gate, const float *up, float *y, long long n, int activation) {
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float x = gate[i], a;
    if (activation == 0)
        a = x / (1.0f + expf(-x));
    else if (activation == 1)
        a = 0.5f * x * (1.0f + tanhf(0.797884560802865355f * x * (1.0f + 0.044715f * x * x)));
    else {
        a = x > 0 ? x : x != x ? x : 0.0f;
        a = activation == 3 ? a * a : a;
    }
    y[i] = up ? a * up[i] : a;
}
