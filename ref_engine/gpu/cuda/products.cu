// Products of rows of activations with a weight of block type TYPE, and its values themselves.
//
// A warp has one row of the weight: its threads take units of 32 weights in turn, so that together they read 512
// neighbouring bytes at once, and add up what they have at the end. Every unit is used for all rows of x (which.cuh).
template <int T, class Which> __device__ __forceinline__ void
matvec_q8(const Which &s, Streams w, const i8 *xq, const float *xd, const float *xs, const float *bias, float *y,
          int rows, int columns) {
    if (s.row >= rows) return;
    int units = columns / 32;
    long long first = ((long long)s.matrix * rows + s.row) * (columns / TYPE::SIZE);
    float acc[T] = {};
#pragma unroll(T > 2 ? 1 : 4)  // several loads in flight
    for (int k = threadIdx.x % WARP; k < units; k += WARP) {
        Unit u;
        TYPE::unit(u, w, first + k / (TYPE::SIZE / 32), k);
#pragma unroll
        for (int t = 0; t < T; t++) {
            if (t >= s.n) break;
            long long x = (long long)s.x(t) * columns;
#pragma unroll
            for (int h = 0; h < 2; h++) {
                int4 v = load<int4>(xq + x + u.column[h]);
                int dot = __dp4a(u.q[4 * h], v.x, 0);
                dot = __dp4a(u.q[4 * h + 1], v.y, dot);
                dot = __dp4a(u.q[4 * h + 2], v.z, dot);
                dot = __dp4a(u.q[4 * h + 3], v.w, dot);
                acc[t] += u.d[h] * xd[(x + u.column[h]) / 32] * (float)dot;
                if (xs) acc[t] -= u.m[h] * xs[(x + u.column[h]) / 16];
            }
        }
    }
    write_sums<T>(acc, bias, y, s, rows);
}

__device__ __forceinline__ float value_of(const Unit &u, int i) {
    float q = (float)(i8)(u.q[i / 4] >> i % 4 * 8);
    return __fsub_rn(__fmul_rn(u.d[i / 16], q), u.m[i / 16]);
}

template <int T, class Which> __device__ __forceinline__ void
matvec_f32(const Which &s, Streams w, const float *xf, const float *bias, float *y, int rows, int columns) {
    if (s.row >= rows) return;
    int units = columns / 32;
    long long first = ((long long)s.matrix * rows + s.row) * (columns / TYPE::SIZE);
    float acc[T] = {};
#pragma unroll(T > 2 ? 1 : 4)  // several loads in flight
    for (int k = threadIdx.x % WARP; k < units; k += WARP) {
        Unit u;
        TYPE::unit(u, w, first + k / (TYPE::SIZE / 32), k);
#pragma unroll
        for (int t = 0; t < T; t++) {
            if (t >= s.n) break;
            const float *x = xf + (long long)s.x(t) * columns;
#pragma unroll
            for (int i = 0; i < 32; i += 4) {
                float4 v = load<float4>(x + u.column[i / 16] + i % 16);
                acc[t] += value_of(u, i) * v.x + value_of(u, i + 1) * v.y;
                acc[t] += value_of(u, i + 2) * v.z + value_of(u, i + 3) * v.w;
            }
        }
    }
    write_sums<T>(acc, bias, y, s, rows);
}

#define WEIGHT const u8 *a, const u8 *b, const u8 *c, const u8 *e
#define ROUNDED const i8 *xq, const float *xd, const float *xs
#define KERNEL extern "C" __global__ void __launch_bounds__(128)

#define MATVEC(T)                                                                                                    \
    KERNEL matvec_q8_##T(WEIGHT, ROUNDED, const float *bias, const int *ids, float *y, int rows, int columns,        \
                         int tokens, int share) {                                                                    \
        matvec_q8<T>(Slot<T>(ids, tokens, share), {a, b, c, e}, xq, xd, xs, bias, y, rows, columns);                 \
    }                                                                                                                \
    KERNEL matvec_f32_##T(WEIGHT, const float *x, const float *bias, const int *ids, float *y, int rows, int columns, \
                          int tokens, int share) {                                                                   \
        matvec_f32<T>(Slot<T>(ids, tokens, share), {a, b, c, e}, x, bias, y, rows, columns);                         \
    }
MATVEC(1)
MATVEC(2)
MATVEC(4)
MATVEC(8)

KERNEL grouped_q8(WEIGHT, ROUNDED, const float *bias, const int4 *tiles, const int *order, float *y, int rows,
                  int columns, int share) {
    matvec_q8<PAIRS>(Group<PAIRS>(tiles, order, share), {a, b, c, e}, xq, xd, xs, bias, y, rows, columns);
}

KERNEL grouped_f32(WEIGHT, const float *x, const float *bias, const int4 *tiles, const int *order, float *y, int rows,
                   int columns, int share) {
    matvec_f32<PAIRS>(Group<PAIRS>(tiles, order, share), {a, b, c, e}, x, bias, y, rows, columns);
}

// -- values: one thread a unit; n units from row `row` on ---------------------------------------------------------------

struct Here {
    Unit u;
    long long at;  // of the unit's row in the output
};

__device__ __forceinline__ bool unpacked_unit(Here &here, Streams w, long long row, long long n, int columns) {
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return false;
    int units = columns / 32, k = (int)(i % units);
    long long r = i / units;
    TYPE::unit(here.u, w, (row + r) * (columns / TYPE::SIZE) + k / (TYPE::SIZE / 32), k);
    here.at = r * columns;
    return true;
}

extern "C" __global__ void values_f32(
    const u8 *a, const u8 *b, const u8 *c, const u8 *e, float *out, long long row, long long n, int columns) {
    Streams w = {a, b, c, e};
    Here h;
    if (!unpacked_unit(h, w, row, n, columns)) return;
#pragma unroll
    for (int i = 0; i < 32; i += 4) {
        float4 v = {value_of(h.u, i), value_of(h.u, i + 1), value_of(h.u, i + 2), value_of(h.u, i + 3)};
        *(float4 *)(out + h.at + h.u.column[i / 16] + i % 16) = v;
    }
}

__device__ __forceinline__ int two_halves(const Unit &u, int i) {
    return (int)(float_to_half(value_of(u, i)) | (unsigned)float_to_half(value_of(u, i + 1)) << 16);
}

extern "C" __global__ void values_f16(
    const u8 *a, const u8 *b, const u8 *c, const u8 *e, u16 *out, long long row, long long n, int columns) {
    Streams w = {a, b, c, e};
    Here h;
    if (!unpacked_unit(h, w, row, n, columns)) return;
#pragma unroll
    for (int i = 0; i < 32; i += 8) {
        int4 v = {two_halves(h.u, i), two_halves(h.u, i + 2), two_halves(h.u, i + 4), two_halves(h.u, i + 6)};
        *(int4 *)(out + h.at + h.u.column[i / 16] + i % 16) = v;
    }
}
