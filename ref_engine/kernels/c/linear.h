/* Packed weights times rounded activations (reference/linear.py: block_dot), 16 rows and up to TILE tokens at a time.

   Integer sums are exact; each output then adds its blocks in order, every product and sum rounded to float32. */

OP void unpack32(int kind, const uint8_t *q, const uint8_t *qh, vb *w)
{
    if (kind == W_Q8_0) {
        UNROLL for (int j = 0; j < 8; j++) w[j] = vb_load(q + 64 * j);
        return;
    }
    UNROLL for (int j = 0; j < 4; j++)
    {
        vb both = vb_load(q + 64 * j);
        w[j] = vb_low4(both);
        w[j + 4] = vb_high4(both);
    }
    if (has_qh(kind)) {
        vb high = vb_load(qh);
        UNROLL for (int j = 0; j < 8; j++) w[j] = vb_or(w[j], vb_bit4(high, j));
    }
}

/* A group of rows as tiles read it where many tokens come: integers a byte each, scales as numbers. A block of 32:
       8 quads x 64 bytes | d 16 floats | m 16 floats (Q4_1, Q5_1)
   a block of 256:
       64 quads | d, dmin 16 floats | minima as packed | scales 16 int32 for each sub-block */
#define WIDE_FROM 24 /* tokens; with fewer it does not pay */
#define WIDE_K_D 4096
#define WIDE_K_DMIN 4160
#define WIDE_K_MINS 4224
#define WIDE_K_SCALES 4352

OP ptrdiff_t wide_bytes(int kind)
{
    if (kind <= W_Q8_0)
        return 576 + 64 * has_m(kind);
    return WIDE_K_SCALES + (kind == W_Q6_K ? 1024 : 512);
}

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

/* One group of rows, packed or wide, one tile of n tokens, weights in blocks of 32. y: first output of the first token. */
OP void tile32(int kind, int n, int wide, const uint8_t *w, const uint8_t *x, ptrdiff_t blocks, float *y,
               ptrdiff_t stride, int rows)
{
    const sections at = sections_of(kind, blocks);
    const int weight_bytes = kind == W_Q8_0 ? 512 : 256;
    const int sum_at = kind == W_Q4_0 ? 40 : kind == W_Q5_0 ? 44 : 48;
    vf acc[TILE];
    UNROLL for (int t = 0; t < n; t++) acc[t] = vf_set1(0);
    for (ptrdiff_t b = 0; b < blocks; b++, x += n * X32_BYTES) {
        if (n == 1)
            fetch_ahead(w + b * block_bytes32(kind), block_bytes32(kind));
        const int8_t *xq = (const int8_t *)x;
        const float *xd = (const float *)(x + 32 * n), *xs = xd + n;
        const int32_t *sum = (const int32_t *)(x + sum_at * n);
        vb q[8];
        vf d, m;
        if (wide) {
            const uint8_t *block = w + b * wide_bytes(kind);
            UNROLL for (int j = 0; j < 8; j++) q[j] = vb_load(block + 64 * j);
            d = vf_load((const float *)(block + 512));
            m = has_m(kind) ? vf_load((const float *)(block + 576)) : d;
        } else {
            unpack32(kind, w + at.q + b * weight_bytes, w + at.qh + b * 64, q);
            d = vf_load_half(w + b * 32);
            m = vf_load_half(w + (has_m(kind) ? at.m : 0) + b * 32);
        }
        vi isum[TILE];
        UNROLL for (int t = 0; t < n; t++)
            isum[t] = vi_set1(has_m(kind) ? 0 : kind == W_Q8_0 ? SHIFTED_START(sum[t]) : sum[t]);
        dots(n, q, 8, kind == W_Q8_0 ? 8 : has_qh(kind) ? 5 : 4, xq, 32, isum);
        UNROLL for (int t = 0; t < n; t++)
        {
            acc[t] = vf_add(acc[t], vf_mul(vf_mul(d, vf_set1(xd[t])), vf_of(isum[t])));
            if (has_m(kind))
                acc[t] = vf_add_exact(acc[t], m, vf_set1(xs[t])); /* both were float16: 22 bits at most */
        }
    }
    UNROLL for (int t = 0; t < n; t++) store_rows(y + t * stride, acc[t], rows);
}

/* Eight quads of a K-quant: 32 weights. j: sub-block of 32, in the order of the row. */
OP void unpack_k(int kind, const uint8_t *w, int j, vb *q)
{
    if (kind == W_Q6_K) {
        int half = j / 4, run = j % 4;
        UNROLL for (int i = 0; i < 8; i++)
        {
            vb low = vb_load(w + K_Q + 1024 * half + 512 * (run % 2) + 64 * i);
            vb high = vb_load(w + K_QH + 512 * half + 64 * i);
            q[i] = vb_or(run < 2 ? vb_low4(low) : vb_high4(low), vb_bits45(high, run));
        }
        return;
    }
    UNROLL for (int i = 0; i < 8; i++)
    {
        vb both = vb_load(w + K_Q + 512 * (j / 2) + 64 * i);
        q[i] = j % 2 ? vb_high4(both) : vb_low4(both);
        if (kind == W_Q5_K)
            q[i] = vb_or(q[i], vb_bit4(vb_load(w + K_QH + 64 * i), j));
    }
}

/* The same as tile32 for blocks of 256: sums of the sub-blocks times their integer scales, in int32. */
OP void tile_k(int kind, int n, int wide, const uint8_t *w, const uint8_t *x, ptrdiff_t blocks, float *y,
               ptrdiff_t stride, int rows)
{
    const ptrdiff_t bytes = wide ? wide_bytes(kind) : k_bytes(kind);
    vf acc[TILE];
    UNROLL for (int t = 0; t < n; t++) acc[t] = vf_set1(0);
    for (ptrdiff_t b = 0; b < blocks; b++, x += n * XK_BYTES, w += bytes) {
        const int8_t *xq = (const int8_t *)x;
        const float *xd = (const float *)(x + 256 * n);
        const int32_t *pairs = (const int32_t *)(x + 260 * n), *shifted = (const int32_t *)(x + 276 * n);
        vi isum[TILE];
        UNROLL for (int t = 0; t < n; t++) isum[t] = vi_set1(0);
        UNROLL for (int j = 0; j < 8; j++)
        {
            vb q[8];
            if (n == 1)
                fetch_ahead(w + j * (k_bytes(kind) / 8), (int)k_bytes(kind) / 8);
            if (wide)
                UNROLL for (int i = 0; i < 8; i++) q[i] = vb_load(w + 512 * j + 64 * i);
            else
                unpack_k(kind, w, j, q);
            vi one[TILE], two[TILE];
            if (kind == W_Q6_K) { /* sixteen weights to a scale */
                vi s0 = wide ? vi_load(w + WIDE_K_SCALES + 128 * j) : vi_load_i8(w + K_SCALES + 32 * j);
                vi s1 = wide ? vi_load(w + WIDE_K_SCALES + 128 * j + 64) : vi_load_i8(w + K_SCALES + 32 * j + 16);
                UNROLL for (int t = 0; t < n; t++) one[t] = vi_set1(shifted[16 * t + 2 * j]);
                UNROLL for (int t = 0; t < n; t++) two[t] = vi_set1(shifted[16 * t + 2 * j + 1]);
                dots(n, q, 4, 6, xq + 32 * j, 256, one);
                UNROLL for (int t = 0; t < n; t++) isum[t] = vi_add(isum[t], vi_mul(one[t], s0));
                dots(n, q + 4, 4, 6, xq + 32 * j + 16, 256, two);
                UNROLL for (int t = 0; t < n; t++) isum[t] = vi_add(isum[t], vi_mul(two[t], s1));
            } else {
                vi scale = wide ? vi_load(w + WIDE_K_SCALES + 64 * j) : vi_load_u8(w + K_SCALES + 16 * j);
                UNROLL for (int t = 0; t < n; t++) one[t] = vi_set1(0);
                dots(n, q, 8, kind == W_Q4_K ? 4 : 5, xq + 32 * j, 256, one);
                UNROLL for (int t = 0; t < n; t++) isum[t] = vi_add(isum[t], vi_mul(one[t], scale));
            }
        }
        vf d = wide ? vf_load((const float *)(w + WIDE_K_D)) : vf_load_half(w + K_D);
        UNROLL for (int t = 0; t < n; t++)
            acc[t] = vf_add(acc[t], vf_mul(vf_mul(d, vf_set1(xd[t])), vf_of(isum[t])));
        if (kind == W_Q6_K)
            continue;
        vf dmin = wide ? vf_load((const float *)(w + WIDE_K_DMIN)) : vf_load_half(w + K_DMIN);
        const uint8_t *mins = w + (wide ? WIDE_K_MINS : K_MINS);
        UNROLL for (int t = 0; t < n; t++)
        {
            vi imin = vi_set1(0);
            UNROLL for (int j = 0; j < 4; j++) imin = vi_dot_pairs(imin, mins + 32 * j, pairs[4 * t + j]);
            acc[t] = vf_sub(acc[t], vf_mul(vf_mul(dmin, vf_set1(xd[t])), vf_of(imin)));
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
    TILE_OF(kind##_all, body, kind, TILE, 0)                                                                           \
    TILE_OF(kind##_wide, body, kind, TILE, 1)
TILES(W_Q4_0, tile32)
TILES(W_Q4_1, tile32)
TILES(W_Q5_0, tile32)
TILES(W_Q5_1, tile32)
TILES(W_Q8_0, tile32)
TILES(W_Q4_K, tile_k)
TILES(W_Q5_K, tile_k)
TILES(W_Q6_K, tile_k)

#define TILES_OF(kind) {kind##_1, kind##_2, kind##_4, kind##_all, kind##_wide}
static const tile_function TILE_FUNCTIONS[W_KINDS][5] = {
    TILES_OF(W_Q4_0), TILES_OF(W_Q4_1), TILES_OF(W_Q5_0), TILES_OF(W_Q5_1),
    TILES_OF(W_Q8_0), TILES_OF(W_Q4_K), TILES_OF(W_Q5_K), TILES_OF(W_Q6_K),
};

static void widen32(int kind, const uint8_t *w, ptrdiff_t blocks, uint8_t *out)
{
    const sections at = sections_of(kind, blocks);
    for (ptrdiff_t b = 0; b < blocks; b++, out += wide_bytes(kind)) {
        vb q[8];
        unpack32(kind, w + at.q + b * (kind == W_Q8_0 ? 512 : 256), w + at.qh + b * 64, q);
        UNROLL for (int j = 0; j < 8; j++) memcpy(out + 64 * j, &q[j], 64);
        vf_store((float *)(out + 512), vf_load_half(w + b * 32));
        if (has_m(kind))
            vf_store((float *)(out + 576), vf_load_half(w + at.m + b * 32));
    }
}

static void widen_k(int kind, const uint8_t *w, ptrdiff_t blocks, uint8_t *out)
{
    for (ptrdiff_t b = 0; b < blocks; b++, w += k_bytes(kind), out += wide_bytes(kind)) {
        UNROLL for (int j = 0; j < 8; j++)
        {
            vb q[8];
            unpack_k(kind, w, j, q);
            UNROLL for (int i = 0; i < 8; i++) memcpy(out + 512 * j + 64 * i, &q[i], 64);
        }
        vf_store((float *)(out + WIDE_K_D), vf_load_half(w + K_D));
        if (kind == W_Q6_K) {
            for (int j = 0; j < 16; j++) {
                vi scale = vi_load_i8(w + K_SCALES + 16 * j);
                memcpy(out + WIDE_K_SCALES + 64 * j, &scale, 64);
            }
            continue;
        }
        vf_store((float *)(out + WIDE_K_DMIN), vf_load_half(w + K_DMIN));
        memcpy(out + WIDE_K_MINS, w + K_MINS, 128);
        for (int j = 0; j < 8; j++) {
            vi scale = vi_load_u8(w + K_SCALES + 16 * j);
            memcpy(out + WIDE_K_SCALES + 64 * j, &scale, 64);
        }
    }
}

/* The group at w unpacked for T tokens, in a place that the thread keeps; NULL where that does not pay or there is no
   memory. slot: 0 or 1, for two groups at once. */
static const uint8_t *widened(int kind, const uint8_t *w, ptrdiff_t blocks, ptrdiff_t T, int slot)
{
    static _Thread_local struct {
        uint8_t *at;
        size_t bytes;
    } kept[2];
    const size_t bytes = (size_t)(blocks * wide_bytes(kind));
    if (T < WIDE_FROM)
        return NULL;
    if (kept[slot].bytes < bytes) {
        free(kept[slot].at);
        kept[slot].at = aligned_alloc(64, bytes);
        kept[slot].bytes = kept[slot].at ? bytes : 0;
    }
    if (kept[slot].at) {
        if (kind <= W_Q8_0)
            widen32(kind, w, blocks, kept[slot].at);
        else
            widen_k(kind, w, blocks, kept[slot].at);
    }
    return kept[slot].at;
}

/* One tile of n tokens with a group that is packed at w and perhaps wide too. */
OP void tile(int kind, int n, const uint8_t *w, const uint8_t *wide, const uint8_t *x, ptrdiff_t blocks, float *y,
             ptrdiff_t stride, int rows)
{
    if (wide && n == TILE)
        TILE_FUNCTIONS[kind][4](wide, x, blocks, y, stride, rows);
    else
        TILE_FUNCTIONS[kind][n == TILE ? 3 : n / 2](w, x, blocks, y, stride, rows);
}

static void linear(int kind, const uint8_t *w, const uint8_t *x, ptrdiff_t T, ptrdiff_t rows, ptrdiff_t blocks,
                   float *y, int threads)
{
    const ptrdiff_t groups = (rows + GROUP - 1) / GROUP, token = blocks * (kind <= W_Q8_0 ? X32_BYTES : XK_BYTES);
    const ptrdiff_t size = packed_group(kind, blocks);
    (void)threads;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (ptrdiff_t g = 0; g < groups; g++) {
        int n, here = rows - g * GROUP < GROUP ? (int)(rows - g * GROUP) : GROUP;
        const uint8_t *packed = w + g * size, *wide = widened(kind, packed, blocks, T, 0);
        for (ptrdiff_t t = 0; t < T; t += n) {
            n = tile_at(T - t);
            tile(kind, n, packed, wide, x + t * token, blocks, y + t * rows + g * GROUP, rows, here);
        }
    }
}
