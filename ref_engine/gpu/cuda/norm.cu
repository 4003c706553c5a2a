// Normalisation of rows: blockDim.x threads for each row, 32 or 256, and blockDim.y rows for each block.
//
// Sums are float32: each thread its part in order, then the warp's tree, then the warps in order. A row whose sum leaves
// the numbers that float32 has to spare is added again in double.
#define MOST_WARPS 8
#define SMALL 1e-30f
#define LARGE 1e30f

// Over the threads of a row, the same in all of them. parts: room for blockDim.x / 32 numbers; not used with one warp.
template <class F> __device__ __forceinline__ F row_sum(F x, F *parts) {
#pragma unroll
    for (int by = WARP / 2; by; by /= 2) x += __shfl_xor_sync(WHOLE, x, by);
    if (blockDim.x == WARP) return x;
    __syncthreads();  // somebody may still read what was there
    if (threadIdx.x % WARP == 0) parts[threadIdx.x / WARP] = x;
    __syncthreads();
    F sum = parts[0];
    for (int w = 1; w < blockDim.x / WARP; w++) sum += parts[w];
    return sum;
}

__device__ __forceinline__ bool to_spare(float x) { return x > SMALL && x < LARGE; }  // not NaN

// y = x / sqrt(mean(x^2) + eps) * weight; weight may be null.
extern "C" __global__ __launch_bounds__(256) void rms_norm(
    const float *x, ROWS_OF(x), const float *weight, float *y, long long n, int width, float eps) {
    __shared__ double parts[MOST_WARPS];
    long long row = (long long)blockIdx.x * blockDim.y + threadIdx.y, own = row * width;
    if (row >= n) return;  // with several rows in a block nobody waits for another warp
    x += row_at(AS_ROWS(x), row);
    float sum = 0;
    for (int i = threadIdx.x; i < width; i += blockDim.x) sum += x[i] * x[i];
    sum = row_sum(sum, (float *)parts);
    if (to_spare(sum)) {
        float factor = __fdiv_rn(1.0f, __fsqrt_rn(sum / (float)width + eps));
        for (int i = threadIdx.x; i < width; i += blockDim.x) y[own + i] = x[i] * factor * (weight ? weight[i] : 1.0f);
        return;
    }
    double exact = 0;
    for (int i = threadIdx.x; i < width; i += blockDim.x) exact += (double)x[i] * x[i];
    exact = row_sum(exact, parts);
    double root = sqrt(exact / width + eps);
    for (int i = threadIdx.x; i < width; i += blockDim.x) y[own + i] = (float)(x[i] / root) * (weight ? weight[i] : 1.0f);
}

// y = (x - mean) / sqrt(mean((x - mean)^2) + eps) * weight + bias; weight and bias may be null.
extern "C" __global__ __launch_bounds__(256) void layer_norm(
    const float *x, ROWS_OF(x), const float *weight, const float *bias, float *y, long long n, int width, float eps) {
    __shared__ double parts[MOST_WARPS];
    long long row = (long long)blockIdx.x * blockDim.y + threadIdx.y, own = row * width;
    if (row >= n) return;
    x += row_at(AS_ROWS(x), row);
    float sum = 0, rest = 0, squares = 0;
    for (int i = threadIdx.x; i < width; i += blockDim.x) sum += x[i];
    float mean = row_sum(sum, (float *)parts) / (float)width;
    for (int i = threadIdx.x; i < width; i += blockDim.x) rest += x[i] - mean;
    float more = row_sum(rest, (float *)parts) / (float)width;  // what the mean lacks where it is far from zero
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        float v = x[i] - mean - more;
        squares += v * v;
    }
    squares = row_sum(squares, (float *)parts);
    if (to_spare(squares)) {
        float factor = __fdiv_rn(1.0f, __fsqrt_rn(squares / (float)width + eps));
        for (int i = threadIdx.x; i < width; i += blockDim.x)
            y[own + i] = (x[i] - mean - more) * factor * (weight ? weight[i] : 1.0f) + (bias ? bias[i] : 0.0f);
        return;
    }
    double exact = 0;
    for (int i = threadIdx.x; i < width; i += blockDim.x) exact += x[i];
    double centre = row_sum(exact, parts) / width;
    exact = 0;
    for (int i = threadIdx.x; i < width; i += blockDim.x) exact += (x[i] - centre) * (x[i] - centre);
    double root = sqrt(row_sum(exact, parts) / width + eps);
    for (int i = threadIdx.x; i < width; i += blockDim.x)
        y[own + i] = (float)((x[i] - centre) / root) * (weight ? weight[i] : 1.0f) + (bias ? bias[i] : 0.0f);
}
