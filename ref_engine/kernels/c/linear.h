/* Packed weights times rounded activations (reference/linear.py: block_dot), 16 rows and up to TILE tokens at a time.

   Integer sums are exact; each output then adds its blocks in order, every product and sum rounded to float32. */

OP void store_rows(float *y, vf acc, int rows)
{
    if (rows == 16)
        vf_store(y, acc);
    else {
        float all[16];
        vf_store(all, acc);
        memcpy(y, all, (size_t)rows * 4);
    }
}

/* bits 8: weights that are 128 too large. */
OP vi dot(vi acc, const vb *q, int quads, int bits, const int8_t *x)
{
    return bits == 8 ? vi_dot_shifted(acc, q, quads, x) : vi_dot(acc, q, quads, x, bits);
}

/* isum[t] + `quads` quads of weights times the activations of token t, for n tokens side by side: a single chain of
   dependent additions would leave most of the processor idle. */
OP void dots(int n, const vb *q, int quads, int bits, const int8_t *x, ptrdiff_t token, vi *isum)
{
    const int step = DOT_STEP(bits);
    if (n == 1 && quads > step) { /* two chains of one token's */
        vi other = vi_set1(0);
        UNROLL for (int j = 0; j < quads; j += 2 * step)
        {
            isum[0] = dot(isum[0], q + j, step, bits, x + 4 * j);
            other = dot(other, q + j + step, step, bits, x + 4 * (j + step));
        }
        isum[0] = vi_add(isum[0], other);
        return;
    }
    UNROLL for (int j = 0; j < quads; j += step)
        UNROLL for (int t = 0; t < n; t++)
            isum[t] = dot(isum[t], q + j, step, bits, x + t * token + 4 * j);
}

/* A single token reads weights that no cache has: ask for those that come some blocks later. */
OP void fetch_ahead(const uint8_t *w, int bytes)
{
    UNROLL for (int i = 0; i < bytes; i += 64) __builtin_prefetch(w + FETCH_AHEAD + i);
}

/* NVFP4: the sums of two times 16 weights times their scales. Products have at most 19 bits and are exact, so that their
   sum is rounded once, as if it had been one integer. sum: -16 times that of the 32 activations. */
OP void scaled_halves(int n, const vb *q, vf first, vf second, const int8_t *x, const int32_t *sum, vf *y)
{
    uint8_t bytes[64];
    memset(bytes, 16, sizeof bytes);
    const vb one = vb_load(bytes), sixteens[4] = {one, one, one, one};
    vi low[TILE], high[TILE];
    UNROLL for (int t = 0; t < n; t++) low[t] = vi_set1(0);
    dots(n, sixteens, 4, 5, x, 32, low); /* 16 times the sum of the first 16 */
    UNROLL for (int t = 0; t < n; t++) high[t] = vi_add(vi_set1(sum[t]), low[t]);
    UNROLL for (int t = 0; t < n; t++) low[t] = vi_mul(low[t], vi_set1(-1));
    dots(n, q, 4, 5, x, 32, low);
    dots(n, q + 4, 4, 5, x + 16, 32, high);
    UNROLL for (int t = 0; t < n; t++) y[t] = vf_add(vf_mul(first, vf_of(low[t])), vf_mul(second, vf_of(high[t])));
}

/* One group of rows, packed or wide, one tile of n tokens, weights in blocks of 32. y: first output of the first token. */
OP void tile32(int kind, int n, int wide, const uint8_t *w, const uint8_t *x, ptrdiff_t blocks, float *y,
               ptrdiff_t stride, int rows)
{
    const sections at = sections_of(kind, blocks);
    const int sum_at = kind == W_Q4_0 ? 2 : kind == W_Q5_0 || kind == W_MXFP4 || kind == W_NVFP4 ? 3 : 4;
    const int bits = bits32(kind);
    const vb levels = levels_of(w);
    vf acc[TILE];
    UNROLL for (int t = 0; t < n; t++) acc[t] = vf_set1(0);
    for (ptrdiff_t b = 0; b < blocks; b++, x += n * X32_BYTES) {
        if (n == 1)
            fetch_ahead(w + b * block_bytes32(kind), block_bytes32(kind));
        const int8_t *xq = (const int8_t *)x;
        const float *xd = (const float *)(x + 32 * n), *xs = xd + n;
        const int32_t *sum = (const int32_t *)xd + sum_at * n;
        vb q[8];
        const uint8_t *block = w + b * wide_bytes(kind), *scales = w + at.d + b * d_bytes(kind);
        vf fsum[TILE], d, m;
        if (wide) {
            UNROLL for (int j = 0; j < 8; j++) q[j] = vb_load(block + 64 * j);
            d = vf_load((const float *)(block + WIDE_D));
            m = has_two(kind) ? vf_load((const float *)(block + WIDE_M)) : d;
        } else {
            unpack32(kind, levels, w + at.q + b * q_bytes(kind), w + at.qh + b * 64, q);
            d = scale32(kind, scales);
            m = second32(kind, has_m(kind) ? w + at.m + b * 32 : scales);
        }
        if (kind == W_NVFP4)
            scaled_halves(n, q, d, m, xq, sum, fsum);
        else {
            vi isum[TILE];
            UNROLL for (int t = 0; t < n; t++)
                isum[t] = vi_set1(has_m(kind) ? 0 : bits == 8 ? SHIFTED_START(sum[t]) : sum[t]);
            dots(n, q, 8, bits, xq, 32, isum);
            UNROLL for (int t = 0; t < n; t++) fsum[t] = vf_of(isum[t]);
        }
        UNROLL for (int t = 0; t < n; t++)
        {
            vf scale = kind == W_NVFP4 ? vf_set1(NVFP4_STEP) : d;
            acc[t] = vf_add(acc[t], vf_mul(vf_mul(scale, vf_set1(xd[t])), fsum[t]));
            if (has_m(kind))
                acc[t] = vf_add_exact(acc[t], m, vf_set1(xs[t])); /* both were float16: 22 bits at most */
        }
    }
    UNROLL for (int t = 0; t < n; t++) store_rows(y + t * stride, acc[t], rows);
}

/* isum[t] + sub-block j of 32 weights, times its scale or its two. shifted, eights: -32 times the sums of 16 activations
   and of 8, in tiles of tokens. */
OP void sub_block(int kind, int n, int wide, const vb *q, const uint8_t *w, int j, const int8_t *x,
                  const int32_t *shifted, const int32_t *eights, vi *isum)
{
    const int bits = bits_k(kind), of_scale = in_sixteens(kind) ? 4 : 8;
    const int quads = short_quads(kind) ? short_quads(kind) : of_scale;
    if (kind == W_LEVELS2) { /* without a scale */
        dots(n, q, 8, bits, x, 256, isum);
        return;
    }
    UNROLL for (int at = 0; at < 8; at += quads)
    {
        const int i = (8 * j + at) / of_scale;
        vi scale = wide ? vi_load(w + WIDE_K_SCALES + 64 * i) : scale_k(kind, w + K_SCALES + 16 * i), sum[TILE];
        UNROLL for (int t = 0; t < n; t++)
            sum[t] = vi_set1(start_k(kind, quads, shifted + 16 * t + 2 * j + at / 4, eights + 32 * t + 4 * j + at / 2));
        dots(n, q + at, quads, bits, x + 4 * at, 256, sum);
        UNROLL for (int t = 0; t < n; t++)
            isum[t] = short_quads(kind) ? vi_add_scaled(isum[t], sum[t], scale)
                                        : vi_add(isum[t], vi_mul(sum[t], scale));
    }
}

/* Sums of minima times the sums of their activations: pairs of sub-blocks, 16 rows x 2 bytes; x of one token. */
OP vf sum_of_mins(const uint8_t *mins, const int32_t *x, int pairs)
{
    vi imin = vi_set1(0);
    UNROLL for (int j = 0; j < pairs; j++) imin = vi_dot_pairs(imin, mins + 32 * j, x[j]);
    return vf_of(imin);
}

/* The same as tile32 for blocks of 256: sums of the sub-blocks times their integer scales, in int32. */
OP void tile_k(int kind, int n, int wide, const uint8_t *w, const uint8_t *x, ptrdiff_t blocks, float *y,
               ptrdiff_t stride, int rows)
{
    const ptrdiff_t bytes = wide ? wide_bytes(kind) : k_bytes(kind);
    const vb levels = levels_of(w);
    vf acc[TILE];
    UNROLL for (int t = 0; t < n; t++) acc[t] = vf_set1(0);
    w += has_levels(kind) && !wide ? LEVELS_BYTES : 0;
    for (ptrdiff_t b = 0; b < blocks; b++, x += n * XK_BYTES, w += bytes) {
        const int8_t *xq = (const int8_t *)x;
        const float *xd = (const float *)(x + 256 * n);
        const int32_t *pairs = (const int32_t *)(x + 260 * n), *shifted = (const int32_t *)(x + 276 * n);
        const int32_t *pairs16 = (const int32_t *)(x + 340 * n), *eights = (const int32_t *)(x + 372 * n);
        vi isum[TILE];
        UNROLL for (int t = 0; t < n; t++) isum[t] = vi_set1(kind == W_LEVELS2 ? minus_sum(shifted + 16 * t) : 0);
        UNROLL for (int j = 0; j < 8; j++)
        {
            vb q[8];
            if (n == 1)
                fetch_ahead(w + j * (k_bytes(kind) / 8), (int)k_bytes(kind) / 8);
            if (wide)
                UNROLL for (int i = 0; i < 8; i++) q[i] = vb_load(w + 512 * j + 64 * i);
            else
                unpack_k(kind, levels, w, j, q);
            sub_block(kind, n, wide, q, w, j, xq + 32 * j, shifted, eights, isum);
        }
        vf d = wide ? vf_load((const float *)(w + WIDE_K_D)) : d_k(kind, w);
        UNROLL for (int t = 0; t < n; t++)
            acc[t] = vf_add(acc[t], vf_mul(vf_mul(d, vf_set1(xd[t])), vf_of(isum[t])));
        if (!has_mins(kind))
            continue;
        vf dmin = wide ? vf_load((const float *)(w + WIDE_K_DMIN)) : vf_load_half(w + K_DMIN);
        uint8_t pairs_q2[256];
        const uint8_t *mins = wide ? w + WIDE_K_MINS : kind == W_Q2_K ? pairs_q2 : w + K_MINS;
        if (kind == W_Q2_K && !wide)
            pairs_of_mins(w + K_SCALES, pairs_q2);
        UNROLL for (int t = 0; t < n; t++)
        {
            vf imin = kind == W_Q2_K ? sum_of_mins(mins, pairs16 + 8 * t, 8) : sum_of_mins(mins, pairs + 4 * t, 4);
            acc[t] = vf_sub(acc[t], vf_mul(vf_mul(dmin, vf_set1(xd[t])), imin));
        }
    }
    UNROLL for (int t = 0; t < n; t++) store_rows(y + t * stride, acc[t], rows);
}

typedef void (*tile_function)(const uint8_t *, const uint8_t *, ptrdiff_t, float *, ptrdiff_t, int);

#define TILE_OF(name, body, kind, n, wide)                                                                             \
    static void name(const uint8_t *w, const uint8_t *x, ptrdiff_t b, float *y, ptrdiff_t s, int r)                    \
    { body(kind, n, wide, w, x, b, y, s, r); }
#define TILES(kind, body)                                                                                              \
    TILE_OF(kind##_1, body, kind, 1, 0)                                                                                \
    TILE_OF(kind##_2, body, kind, 2, 0)                                                                                \
    TILE_OF(kind##_4, body, kind, 4, 0)                                                                                \
    TILE_OF(kind##_8, body, kind, 8, 0)                                                                                \
    TILE_OF(kind##_all, body, kind, TILE, 0)
#define WIDE_TILE(kind, body) TILE_OF(kind##_wide, body, kind, TILE, 1)
TILES(W_Q4_0, tile32)
TILES(W_Q4_1, tile32)
TILES(W_Q5_0, tile32)
TILES(W_Q5_1, tile32)
TILES(W_Q8_0, tile32)
TILES(W_LEVELS32, tile32)
TILES(W_MXFP4, tile32)
TILES(W_NVFP4, tile32)
TILES(W_Q4_K, tile_k)
TILES(W_Q5_K, tile_k)
TILES(W_Q6_K, tile_k)
TILES(W_Q2_K, tile_k)
TILES(W_Q3_K, tile_k)
TILES(W_LEVELS2, tile_k)
TILES(W_LEVELS3, tile_k)
TILES(W_LEVELS4, tile_k)
WIDE_TILE(W_Q4_0, tile32)
WIDE_TILE(W_Q4_1, tile32)
WIDE_TILE(W_Q5_0, tile32)
WIDE_TILE(W_Q5_1, tile32)
WIDE_TILE(W_Q8_0, tile32)
WIDE_TILE(W_NVFP4, tile32)
WIDE_TILE(W_Q4_K, tile_k)
WIDE_TILE(W_Q5_K, tile_k)
WIDE_TILE(W_Q6_K, tile_k)
WIDE_TILE(W_Q2_K, tile_k)
WIDE_TILE(W_LEVELS2, tile_k)
WIDE_TILE(W_LEVELS3, tile_k)
WIDE_TILE(W_LEVELS4, tile_k)

/* Wide, kinds of the same offset and as many scales are the same: the second names the one that is compiled. */
#define TILES_OF(kind, wide) {kind##_1, kind##_2, kind##_4, kind##_8, kind##_all, wide##_wide}
static const tile_function TILE_FUNCTIONS[W_KINDS][6] = {
    TILES_OF(W_Q4_0, W_Q4_0),         TILES_OF(W_Q4_1, W_Q4_1),       TILES_OF(W_Q5_0, W_Q5_0),
    TILES_OF(W_Q5_1, W_Q5_1),         TILES_OF(W_Q8_0, W_Q8_0),       TILES_OF(W_LEVELS32, W_Q8_0),
    TILES_OF(W_MXFP4, W_Q5_0),        TILES_OF(W_NVFP4, W_NVFP4),     TILES_OF(W_Q4_K, W_Q4_K),
    TILES_OF(W_Q5_K, W_Q5_K),         TILES_OF(W_Q6_K, W_Q6_K),       TILES_OF(W_Q2_K, W_Q2_K),
    TILES_OF(W_Q3_K, W_Q6_K),         TILES_OF(W_LEVELS2, W_LEVELS2), TILES_OF(W_LEVELS3, W_LEVELS3),
    TILES_OF(W_LEVELS4, W_LEVELS4),
};

/* One tile of n tokens with a group that is packed at w and perhaps wide too. */
OP void tile(int kind, int n, const uint8_t *w, const uint8_t *wide, const uint8_t *x, ptrdiff_t blocks, float *y,
             ptrdiff_t stride, int rows)
{
    if (wide && n == TILE)
        TILE_FUNCTIONS[kind][5](wide, x, blocks, y, stride, rows);
    else
        TILE_FUNCTIONS[kind][n > 8 ? 4 : n == 8 ? 3 : n / 2](w, x, blocks, y, stride, rows);
}

/* With many tokens a thread's next weights come while it multiplies: tokens t .. t + n - 1 of T ask for their part. */
OP void fetch_part(const uint8_t *next, ptrdiff_t bytes, ptrdiff_t t, int n, ptrdiff_t T)
{
    if (T >= WIDE_FROM)
        for (ptrdiff_t i = t * bytes / T & -64; i < (t + n) * bytes / T; i += 64)
            __builtin_prefetch(next + i, 0, 2);
}

/* Groups of rows that a thread takes at a time: with many tokens one, so that a thread which other work holds up leaves the
   rest to the others; with few its whole share. */
OP ptrdiff_t groups_at_a_time(ptrdiff_t groups, ptrdiff_t T, int threads)
{
    return T >= WIDE_FROM ? 1 : (groups + 4 * threads - 1) / (4 * threads);
}

static void linear(int kind, const uint8_t *w, const uint8_t *x, ptrdiff_t T, ptrdiff_t rows, ptrdiff_t blocks,
                   float *y, int threads)
{
    const ptrdiff_t groups = (rows + GROUP - 1) / GROUP, token = blocks * (in_blocks_of_32(kind) ? X32_BYTES : XK_BYTES);
    const ptrdiff_t size = packed_group(kind, blocks);
    const ptrdiff_t chunk = groups_at_a_time(groups, T, threads);
    (void)chunk;
#pragma omp parallel for num_threads(threads) schedule(dynamic, chunk)
    for (ptrdiff_t g = 0; g < groups; g++) {
        int n, here = rows - g * GROUP < GROUP ? (int)(rows - g * GROUP) : GROUP;
        const uint8_t *packed = w + g * size, *wide = widened(kind, packed, blocks, T, 0);
        for (ptrdiff_t t = 0; t < T; t += n) {
            n = tile_at(T - t);
            fetch_part(packed + threads * size, size, t, n, T);
            tile(kind, n, packed, wide, x + t * token, blocks, y + t * rows + g * GROUP, rows, here);
        }
    }
}
