/* What the machine can do at the most, measured beside the kernels: integer dots, and reading memory. */

#define CHAINS (TILE > 8 ? TILE : 8) /* no sum waits for its last addition */

static int32_t dots_alone(ptrdiff_t n)
{
    static const int8_t X[32] = {1, -2, 3, -4, 5, -6, 7, -8};
    uint8_t bytes[64];
    memset(bytes, 3, sizeof bytes);
    vb w[4];
    vi acc[CHAINS];
    for (int j = 0; j < 4; j++)
        w[j] = vb_load(bytes);
    UNROLL for (int i = 0; i < CHAINS; i++) acc[i] = vi_set1(i);
    for (ptrdiff_t r = 0; r < 8 * n; r += 4 * CHAINS * DOT_STEP(4)) /* four rounds: compilers move registers after the last */
        UNROLL for (int j = 0; j < 4; j++)
            UNROLL for (int i = 0; i < CHAINS; i++) acc[i] = dot(acc[i], w, DOT_STEP(4), 4, X + 4 * i % 16);
    for (int i = 1; i < CHAINS; i++)
        acc[0] = vi_add(acc[0], acc[i]);
    return vi_total(acc[0]);
}

static int32_t read_alone(const uint8_t *p, ptrdiff_t n)
{
    vi acc[4];
    UNROLL for (int i = 0; i < 4; i++) acc[i] = vi_set1(0);
    for (ptrdiff_t at = 0; at + 256 <= n; at += 256)
        UNROLL for (int i = 0; i < 4; i++) acc[i] = vi_or(acc[i], vi_load(p + at + 64 * i));
    return vi_total(vi_or(vi_or(acc[0], acc[1]), vi_or(acc[2], acc[3])));
}
