/* Weights that are numbers (reference/linear.py: plain_dot): F32, F16, BF16 as they lie in the file. */

OP float round_to(int kind, float x)
{
    union { float f; uint32_t u; } v = {x};
    if (kind == P_F16)
        return half_to_float(float_to_half(x));
    if (kind == P_BF16)
        v.u = x != x ? (v.u | 0x400000) & 0xffff0000 : (v.u + 0x7fff + (v.u >> 16 & 1)) & 0xffff0000;
    return v.f;
}

static void round_plain(int kind, const float *x, ptrdiff_t n, float *out)
{
    for (ptrdiff_t i = 0; i < n; i++)
        out[i] = round_to(kind, x[i]);
}

OP void plain_group(int kind, const uint8_t *w, const float *x, ptrdiff_t T, ptrdiff_t rows, ptrdiff_t n, float *y,
                    int here)
{
    for (ptrdiff_t t = 0; t < T; t++)
        store_rows(y + t * rows, dot16(kind, x + t * n, n, w, n * item_bytes(kind), here), here);
}

static void plain(int kind, const void *w, const float *x, ptrdiff_t T, ptrdiff_t rows, ptrdiff_t n, float *y,
                  int threads)
{
    const ptrdiff_t groups = (rows + GROUP - 1) / GROUP;
    (void)threads;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (ptrdiff_t g = 0; g < groups; g++) {
        const uint8_t *wg = (const uint8_t *)w + g * GROUP * n * item_bytes(kind);
        int here = rows - g * GROUP < GROUP ? (int)(rows - g * GROUP) : GROUP;
        float *yg = y + g * GROUP;
        if (kind == P_F32)
            plain_group(P_F32, wg, x, T, rows, n, yg, here);
        else if (kind == P_F16)
            plain_group(P_F16, wg, x, T, rows, n, yg, here);
        else
            plain_group(P_BF16, wg, x, T, rows, n, yg, here);
    }
}
