// Rotation, activations, gated units: a thread for each number or pair, results row after row.
#define THREADS 128

// The first 2 * half features of each of n rows are turned, the others copied. heads: rows of one token, which share its
// cosines and sines. adjacent: features (0, 1), (2, 3) ... are pairs, else i and i + half.
extern "C" __global__ __launch_bounds__(THREADS) void rope(
    const float *x, ROWS_OF(x), const float *cosines, const float *sines, float *y, long long n, int heads, int width,
    int half, int adjacent) {
    long long i = (long long)blockIdx.x * THREADS + threadIdx.x;
    int each = width - half;  // pairs, and features behind them
    if (i >= n * each) return;
    long long row = i / each;
    int at = (int)(i % each);
    x += row_at(AS_ROWS(x), row), y += row * width;
    if (at >= half) {
        y[at + half] = x[at + half];
        return;
    }
    float c = cosines[row / heads * half + at], s = sines[row / heads * half + at];
    int first = adjacent ? 2 * at : at, second = adjacent ? first + 1 : at + half;
    float a = x[first], b = x[second];
    y[first] = a * c - b * s;
    y[second] = a * s + b * c;
}

__device__ __forceinline__ float at_most(float x, float limit) { return x > limit ? limit : x; }  // NaN stays NaN
__device__ __forceinline__ float within(float x, float limit) { return x < -limit ? -limit : at_most(x, limit); }
__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
__device__ __forceinline__ float silu(float x) { return x / (1.0f + expf(-x)); }

enum { SILU, GELU, RELU, RELU_SQR, SWIGLU_OAI, SWIGLU_CLAMP, SWIGLU_LIMIT, SITU, SOFT_CAP, SIGMOID };

__device__ __forceinline__ float activated(float x, int kind) {
    switch (kind) {
        case SILU: return silu(x);
        case GELU: return 0.5f * x * (1.0f + tanhf(0.79788456080286535588f * x * (1.0f + 0.044715f * x * x)));
        case RELU: return x < 0 ? 0.0f : x + 0.0f;
        case SIGMOID: return sigmoid(x);
        default: return x < 0 ? 0.0f : x * x;
    }
}

// The units of reference ffn.py, with a and b their constants.
__device__ __forceinline__ float unit(float gate, float up, int kind, float a, float b) {
    switch (kind) {
        case SWIGLU_OAI: {
            float g = at_most(gate, b);
            return g / (1.0f + expf(a * -g)) * (within(up, b) + 1.0f);
        }
        case SWIGLU_CLAMP: return silu(at_most(gate, a)) * within(up, a);
        case SWIGLU_LIMIT: return at_most(silu(gate), a) * within(up, a);
        case SITU: {
            float act = tanhf(gate * __fdiv_rn(1.0f, a)) * a * sigmoid(gate);
            return act * (b > 0 ? tanhf(up * __fdiv_rn(1.0f, b)) * b : up);
        }
        default: return activated(gate, kind) * up;
    }
}

extern "C" __global__ __launch_bounds__(THREADS) void glu(
    const float *gate, ROWS_OF(gate), const float *up, ROWS_OF(up), float *y, long long n, int width, int kind, float a,
    float b) {
    long long i = (long long)blockIdx.x * THREADS + threadIdx.x;
    if (i >= n * width) return;
    long long row = i / width, at = i % width;
    y[i] = unit(gate[row_at(AS_ROWS(gate), row) + at], up[row_at(AS_ROWS(up), row) + at], kind, a, b);
}

// cap: of tanh(x / cap) * cap
extern "C" __global__ __launch_bounds__(THREADS) void activate(
    const float *x, ROWS_OF(x), float *y, long long n, int width, int kind, float cap, float inverse) {
    long long i = (long long)blockIdx.x * THREADS + threadIdx.x;
    if (i >= n * width) return;
    float v = x[row_at(AS_ROWS(x), i / width) + i % width];
    y[i] = kind == SOFT_CAP ? tanhf(v * inverse) * cap : activated(v, kind);
}
