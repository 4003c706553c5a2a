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

OP void plain_group(int kind, const uint8_t *w, const float *x, ptrdiff_t T, ptrdiff_t n, float *y, ptrdiff_t stride,
                    int here)
{
    for (ptrdiff_t t = 0; t < T; t++)
        store_rows(y + t * stride, dot16(kind, kind == P_F16, x + t * n, n, w, n * item_bytes(kind), here), here);
}

/* Rows of group g, `here` of them, times x (T, n): each token's outputs `stride` after those of the one before. */
static void plain_rows(int kind, const void *w, ptrdiff_t g, const float *x, ptrdiff_t T, ptrdiff_t n, float *y,
                       ptrdiff_t stride, int here)
{
    const uint8_t *wg = (const uint8_t *)w + g * GROUP * n * item_bytes(kind);
    if (kind == P_F32)
        plain_group(P_F32, wg, x, T, n, y, stride, here);
    else if (kind == P_F16)
        plain_group(P_F16, wg, x, T, n, y, stride, here);
    else
        plain_group(P_BF16, wg, x, T, n, y, stride, here);
}

static void plain(int kind, const void *w, const float *x, ptrdiff_t T, ptrdiff_t rows, ptrdiff_t n, float *y,
                  int threads)
{
    const ptrdiff_t groups = (rows + GROUP - 1) / GROUP;
    const ptrdiff_t chunk = groups_at_a_time(groups, T, threads);
    (void)chunk;
#pragma omp parallel for num_threads(threads) schedule(dynamic, chunk)
    for (ptrdiff_t g = 0; g < groups; g++) {
        int here = rows - g * GROUP < GROUP ? (int)(rows - g * GROUP) : GROUP;
        plain_rows(kind, w, g, x, T, n, y + g * GROUP, rows, here);
    }
}
