// Products of rows of activations with a weight of plain type TYPE: numbers, no blocks. Rows as in which.cuh. ROUND:
// activations are rounded to the type first, as q8 mode has it.
struct F32 {
    static constexpr int AT_ONCE = 4;
    static __device__ __forceinline__ float rounded(float x) { return x; }
    static __device__ __forceinline__ float one(const u8 *p, long long i) { return ((const float *)p)[i]; }
    static __device__ __forceinline__ void some(float *v, const u8 *p, long long i) {
        float4 w = load<float4>((const float *)p + i);
        v[0] = w.x, v[1] = w.y, v[2] = w.z, v[3] = w.w;
    }
};

struct F16 {
    static constexpr int AT_ONCE = 8;
    static __device__ __forceinline__ float number(unsigned bits) { return half_to_float((u16)bits); }
    static __device__ __forceinline__ float rounded(float x) { return half_to_float(float_to_half(x)); }
    static __device__ __forceinline__ float one(const u8 *p, long long i) { return number(((const u16 *)p)[i]); }
    static __device__ __forceinline__ void some(float *v, const u8 *p, long long i) {
        int4 w = load<int4>((const u16 *)p + i);
        int all[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
        for (int k = 0; k < 8; k++) v[k] = number((unsigned)all[k / 2] >> k % 2 * 16 & 0xffffu);
    }
};

struct BF16 {
    static constexpr int AT_ONCE = 8;
    static __device__ __forceinline__ float number(unsigned bits) { return bf16_to_float((u16)bits); }
    static __device__ __forceinline__ float rounded(float x) { return round_to_bf16(x); }
    static __device__ __forceinline__ float one(const u8 *p, long long i) { return number(((const u16 *)p)[i]); }
    static __device__ __forceinline__ void some(float *v, const u8 *p, long long i) {
        int4 w = load<int4>((const u16 *)p + i);
        int all[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
        for (int k = 0; k < 8; k++) v[k] = number((unsigned)all[k / 2] >> k % 2 * 16 & 0xffffu);
    }
};

template <int T, bool ROUND, class Which> __device__ __forceinline__ void
matvec(const Which &s, const u8 *w, const float *xf, const float *bias, float *y, int rows, int columns) {
    constexpr int N = TYPE::AT_ONCE;
    int lane = threadIdx.x % WARP;
    if (s.row >= rows) return;
    long long at = ((long long)s.matrix * rows + s.row) * columns;
    float acc[T] = {};
    int wide = columns % N ? 0 : columns;  // rows begin at whole 16 bytes, or the numbers are taken one by one
#pragma unroll(T > 2 ? 1 : 4)  // several loads in flight
    for (int k = lane * N; k < wide; k += WARP * N) {
        float v[N];
        TYPE::some(v, w, at + k);
#pragma unroll
        for (int t = 0; t < T; t++) {
            if (t >= s.n) break;
#pragma unroll
            for (int i = 0; i < N; i += 4) {
                float4 z = load<float4>(xf + (long long)s.x(t) * columns + k + i);
                if (ROUND) z.x = TYPE::rounded(z.x), z.y = TYPE::rounded(z.y);
                if (ROUND) z.z = TYPE::rounded(z.z), z.w = TYPE::rounded(z.w);
                acc[t] += v[i] * z.x + v[i + 1] * z.y;
                acc[t] += v[i + 2] * z.z + v[i + 3] * z.w;
            }
        }
    }
    for (int k = wide + lane; k < columns; k += WARP) {
        float v = TYPE::one(w, at + k);
#pragma unroll
        for (int t = 0; t < T; t++) {
            if (t >= s.n) break;
            float z = xf[(long long)s.x(t) * columns + k];
            acc[t] += v * (ROUND ? TYPE::rounded(z) : z);
        }
    }
    write_sums<T>(acc, bias, y, s, rows);
}

#define KERNEL extern "C" __global__ void __launch_bounds__(128)

#define MATVEC(T)                                                                                                    \
    KERNEL matvec_f32_##T(const u8 *w, const float *x, const float *bias, const int *ids, float *y, int rows,        \
                          int columns, int tokens, int share) {                                                      \
        matvec<T, false>(Slot<T>(ids, tokens, share), w, x, bias, y, rows, columns);                                 \
    }                                                                                                                \
    KERNEL matvec_q8_##T(const u8 *w, const float *x, const float *bias, const int *ids, float *y, int rows,         \
                         int columns, int tokens, int share) {                                                       \
        matvec<T, true>(Slot<T>(ids, tokens, share), w, x, bias, y, rows, columns);                                  \
    }
MATVEC(1)
MATVEC(2)
MATVEC(4)
MATVEC(8)

KERNEL grouped_f32(const u8 *w, const float *x, const float *bias, const int4 *tiles, const int *order, float *y,
                   int rows, int columns, int share) {
    matvec<PAIRS, false>(Group<PAIRS>(tiles, order, share), w, x, bias, y, rows, columns);
}

KERNEL grouped_q8(const u8 *w, const float *x, const float *bias, const int4 *tiles, const int *order, float *y,
                  int rows, int columns, int share) {
    matvec<PAIRS, true>(Group<PAIRS>(tiles, order, share), w, x, bias, y, rows, columns);
}
