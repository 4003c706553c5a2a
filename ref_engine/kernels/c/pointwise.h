/* Norm, rotation and gating (reference/norm.py, rope.py, ffn.py). Small inputs are not worth waking threads for. */
#define WORTH_THREADS 32768 /* numbers */

OP void norm_row(const float *x, const float *weight, ptrdiff_t n, float eps, float *y)
{
    vf acc = vf_set1(0);
    ptrdiff_t i = 0;
    for (; i + 16 <= n; i += 16)
        acc = vf_add(acc, vf_mul(vf_load(x + i), vf_load(x + i)));
    if (i < n) {
        vf rest = load_some(P_F32, (const uint8_t *)(x + i), n - i);
        acc = vf_add(acc, vf_mul(rest, rest));
    }
    float factor = 1.0f / sqrtf(lane_fold(acc) / (float)n + eps);
    for (i = 0; i + 16 <= n; i += 16) {
        vf scaled = vf_mul(vf_load(x + i), vf_set1(factor));
        vf_store(y + i, weight ? vf_mul(scaled, vf_load(weight + i)) : scaled);
    }
    for (; i < n; i++) {
        float scaled = x[i] * factor;
        y[i] = weight ? scaled * weight[i] : scaled;
    }
}

static void rms_norm(const float *x, const float *weight, ptrdiff_t rows, ptrdiff_t n, float eps, float *y, int threads)
{
    (void)threads;
#pragma omp parallel for num_threads(threads) schedule(static) if (rows * n >= WORTH_THREADS)
    for (ptrdiff_t r = 0; r < rows; r++)
        norm_row(x + r * n, weight, n, eps, y + r * n);
}

OP void turn_head(const float *x, const float *cos, const float *sin, ptrdiff_t Hd, ptrdiff_t half, int adjacent,
                  float *y)
{
    ptrdiff_t i = 0;
    if (adjacent)
        for (; i < half; i++) {
            float a = x[2 * i], b = x[2 * i + 1];
            y[2 * i] = a * cos[i] - b * sin[i];
            y[2 * i + 1] = a * sin[i] + b * cos[i];
        }
    for (; i + 16 <= half; i += 16) {
        const vf a = vf_load(x + i), b = vf_load(x + i + half), c = vf_load(cos + i), s = vf_load(sin + i);
        vf_store(y + i, vf_sub(vf_mul(a, c), vf_mul(b, s)));
        vf_store(y + i + half, vf_add(vf_mul(a, s), vf_mul(b, c)));
    }
    for (; i < half; i++) {
        float a = x[i], b = x[i + half];
        y[i] = a * cos[i] - b * sin[i];
        y[i + half] = a * sin[i] + b * cos[i];
    }
    memcpy(y + 2 * half, x + 2 * half, (size_t)(Hd - 2 * half) * 4);
}

static void rope(const float *x, const float *cos, const float *sin, ptrdiff_t T, ptrdiff_t H, ptrdiff_t Hd,
                 ptrdiff_t half, int adjacent, float *y, int threads)
{
    (void)threads;
#pragma omp parallel for num_threads(threads) schedule(static) if (T * H * Hd >= WORTH_THREADS)
    for (ptrdiff_t t = 0; t < T; t++)
        for (ptrdiff_t h = 0; h < H; h++) {
            ptrdiff_t at = (t * H + h) * Hd;
            turn_head(x + at, cos + t * half, sin + t * half, Hd, half, adjacent, y + at);
        }
}

OP void glu_part(int kind, const float *constants, const float *gate, const float *up, ptrdiff_t n, float *y)
{
    ptrdiff_t i = 0;
    for (; i + 16 <= n; i += 16) {
        vf g = vf_load(gate + i), u = vf_load(up + i);
        units(kind, constants, 1, &g, &u);
        vf_store(y + i, g);
    }
    if (i < n) {
        vf g = load_some(P_F32, (const uint8_t *)(gate + i), n - i);
        vf u = load_some(P_F32, (const uint8_t *)(up + i), n - i);
        units(kind, constants, 1, &g, &u);
        store_rows(y + i, g, (int)(n - i));
    }
}

/* n times sixteen hidden features, in place of up: unit(gate, up), or without a gate activation(up). */
OP void hidden_some(int kind, int gated, const float *constants, int n, const float *gate, float *up)
{
    vf g[TOGETHER], u[TOGETHER];
    UNROLL for (int i = 0; i < n; i++) u[i] = vf_load(up + 16 * i);
    if (gated) {
        UNROLL for (int i = 0; i < n; i++) g[i] = vf_load(gate + 16 * i);
        units(kind, constants, n, g, u);
    } else
        activations(kind, n, u);
    UNROLL for (int i = 0; i < n; i++) vf_store(up + 16 * i, gated ? g[i] : u[i]);
}
static void hidden(int kind, int gated, const float *constants, int n, const float *gate, float *up)
{
    int i = 0;
    for (; i + TOGETHER <= n; i += TOGETHER)
        if (kind == GLU_SILU && gated)
            hidden_some(GLU_SILU, 1, constants, TOGETHER, gate + 16 * i, up + 16 * i);
        else if (kind == GLU_GELU && gated)
            hidden_some(GLU_GELU, 1, constants, TOGETHER, gate + 16 * i, up + 16 * i);
        else
            hidden_some(kind, gated, constants, TOGETHER, gate + 16 * i, up + 16 * i);
    for (; i < n; i++)
        hidden_some(kind, gated, constants, 1, gate + 16 * i, up + 16 * i);
}

#define PART 4096 /* numbers that one thread takes at a time */

static void glu(int kind, const float *constants, const float *gate, const float *up, ptrdiff_t n, float *y,
                int threads)
{
    (void)threads;
#pragma omp parallel for num_threads(threads) schedule(static) if (n >= WORTH_THREADS)
    for (ptrdiff_t i = 0; i < n; i += PART) {
        ptrdiff_t here = n - i < PART ? n - i : PART;
        if (kind == GLU_SILU)
            glu_part(GLU_SILU, constants, gate + i, up + i, here, y + i);
        else if (kind == GLU_GELU)
            glu_part(GLU_GELU, constants, gate + i, up + i, here, y + i);
        else
            glu_part(kind, constants, gate + i, up + i, here, y + i);
    }
}

/* Up to n vectors of `count` numbers. */
OP void activate_part(int kind, int n, const float *x, ptrdiff_t count, float *y)
{
    vf v[TOGETHER];
    UNROLL for (int i = 0; i < n; i++) v[i] = count == 16 * n ? vf_load(x + 16 * i) : load_some(P_F32, (const uint8_t *)x, count);
    if (kind == ACT_SIGMOID)
        sigmoids(n, v);
    else
        activations(kind, n, v);
    UNROLL for (int i = 0; i < n; i++) store_rows(y + 16 * i, v[i], count == 16 * n ? 16 : (int)count);
}
static void activate(int kind, const float *x, ptrdiff_t n, float *y, int threads)
{
    (void)threads;
#pragma omp parallel for num_threads(threads) schedule(static) if (n >= WORTH_THREADS)
    for (ptrdiff_t i = 0; i < n; i += 16 * TOGETHER) {
        if (n - i >= 16 * TOGETHER && kind == GLU_SILU)
            activate_part(GLU_SILU, TOGETHER, x + i, 16 * TOGETHER, y + i);
        else if (n - i >= 16 * TOGETHER)
            activate_part(kind, TOGETHER, x + i, 16 * TOGETHER, y + i);
        else
            for (ptrdiff_t j = i; j < n; j += 16)
                activate_part(kind, 1, x + j, n - j < 16 ? n - j : 16, y + j);
    }
}

/* Token by token, the earliest of its inputs first. */
static void conv(const float *x, const float *before, const float *weight, ptrdiff_t T, ptrdiff_t C, ptrdiff_t W,
                 ptrdiff_t step, float *y, int threads)
{
    const ptrdiff_t earlier = (W - 1) * step;
    (void)threads;
#pragma omp parallel for num_threads(threads) schedule(static) if (T * C >= WORTH_THREADS)
    for (ptrdiff_t t = 0; t < T; t++)
        for (ptrdiff_t c = 0; c < C; c += 16) {
            const int here = C - c < 16 ? (int)(C - c) : 16;
            vf sum = vf_set1(0);
            for (ptrdiff_t w = 0; w < W; w++) {
                const ptrdiff_t row = t + w * step;
                const float *from = (row < earlier ? before + row * C : x + (row - earlier) * C) + c, *by = weight + w * C + c;
                const vf a = here == 16 ? vf_load(from) : load_some(P_F32, (const uint8_t *)from, here);
                const vf b = here == 16 ? vf_load(by) : load_some(P_F32, (const uint8_t *)by, here);
                sum = vf_add(sum, vf_mul(a, b));
            }
            store_rows(y + t * C + c, sum, here);
        }
}

static void soft_cap(const float *x, ptrdiff_t n, float inverse_cap, float cap, float *y, int threads)
{
    (void)threads;
#pragma omp parallel for num_threads(threads) schedule(static) if (n >= WORTH_THREADS)
    for (ptrdiff_t i = 0; i < n; i += 16) {
        int here = n - i < 16 ? (int)(n - i) : 16;
        store_rows(y + i, vf_soft_cap(load_some(P_F32, (const uint8_t *)(x + i), here), inverse_cap, cap), here);
    }
}
