/* Activations rounded to 8 bits: quant/activations.py in sixteen lanes.

   Tokens come in tiles of TILE, then of 8, 4, 2 and 1, so that a kernel finds the activations of its tile at
   fixed distances. A tile of N tokens starts where N tokens before it end; in it, block after block:
       32-weight types   q N x 32 int8 | d N floats | s N floats | -8 sum, -16 sum, -128 sum: N int32 each
       K-quants          q N x 256 int8 | d N floats | N x 4 pairs of int16, sums of 32 | N x 16 int32, -32 sum of 16 |
                      N x 8 pairs of int16, sums of 16 */

OP int tile_at(ptrdiff_t left)
{
    int n = TILE;
    while (n > left)
        n = n > 8 ? 8 : n / 2;
    return n;
}

OP float float_of_bits(int32_t bits)
{
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

OP vi abs_bits(const float *x) { return vi_and(vi_of_bits(vf_load(x)), vi_set1(0x7fffffff)); }

#define NOT_FINITE 0x7f800000 /* the bits of infinity; NaNs are above */

/* Sixteen numbers rounded and stored; returns them as integers. */
OP vi round16(vf x, int8_t *q)
{
    vi whole = vi_rint(x);
    vi_store_i8(q, whole);
    return whole;
}

/* One block of 32 of token t in a tile of n. */
OP void round32(const float *x, uint8_t *block, int n, int t)
{
    int8_t *q = (int8_t *)block + 32 * t;
    float *d = (float *)(block + 32 * n) + t, *s = d + n;
    int32_t *shifted = (int32_t *)(block + 40 * n) + t;
    int32_t most = vi_largest(vi_max(abs_bits(x), abs_bits(x + 16)));
    float largest = float_of_bits(most), inverse = most ? 127.0f / largest : 0.0f;
    float scale = most < NOT_FINITE ? largest / 127.0f : NAN;
    int sum = 0;
    if (most < NOT_FINITE && inverse <= FLT_MAX) {
        vf by = vf_set1(inverse);
        vi low = round16(vf_mul(vf_load(x), by), q), high = round16(vf_mul(vf_load(x + 16), by), q + 16);
        sum = vi_total(vi_add(low, high));
    } else
        memset(q, 0, 32);
    *d = half_to_float(float_to_half(scale));
    *s = half_to_float(float_to_half(scale * (float)sum));
    shifted[0] = -8 * sum;
    shifted[n] = -16 * sum;
    shifted[2 * n] = -128 * sum;
}

/* The first of 256 numbers that is `size` or -size; any number if one is NaN. */
OP float first_of_size(const float *x, float size)
{
    for (int i = 0; i < 256; i += 16)
        if (vm_any(vm_and_not(vm_below(16), vm_less(vf_of_bits(abs_bits(x + i)), vf_set1(size)))))
            for (int l = i; l < i + 16; l++)
                if (x[l] == size || x[l] == -size)
                    return x[l];
    return size;
}

/* One block of 256: the value of largest magnitude, the first of equals, becomes -127. */
OP void round256(const float *x, uint8_t *block, int n, int t)
{
    int8_t *q = (int8_t *)block + 256 * t;
    float *d = (float *)(block + 256 * n) + t;
    int16_t *pairs = (int16_t *)(block + 260 * n) + 8 * t;
    int32_t *shifted = (int32_t *)(block + 276 * n) + 16 * t;
    int16_t *sixteens = (int16_t *)(block + 340 * n) + 16 * t;
    vi most_of_lane = abs_bits(x);
    for (int i = 16; i < 256; i += 16)
        most_of_lane = vi_max(most_of_lane, abs_bits(x + i));
    int32_t most = vi_largest(most_of_lane), sums[16] = {0};
    float first = first_of_size(x, float_of_bits(most));
    float inverse = most ? -127.0f / first : 0.0f;
    *d = most >= NOT_FINITE ? NAN : most ? 1.0f / inverse : 0.0f;
    if (most < NOT_FINITE && inverse <= FLT_MAX && inverse >= -FLT_MAX)
        for (int j = 0; j < 16; j++) {
            vf scaled = vf_mul(vf_load(x + 16 * j), vf_set1(inverse));
            sums[j] = vi_total(round16(vf_min(scaled, vf_set1(127.0f)), q + 16 * j));
        }
    else
        memset(q, 0, 256);
    for (int j = 0; j < 16; j++)
        shifted[j] = -32 * sums[j];
    for (int j = 0; j < 16; j++)
        sixteens[j] = (int16_t)sums[j];
    for (int j = 0; j < 8; j++)
        pairs[j] = (int16_t)(sums[2 * j] + sums[2 * j + 1]);
}

/* The tile that token t of T is in: its first token, and in `n` how many it holds. */
OP ptrdiff_t tile_of(ptrdiff_t t, ptrdiff_t T, int *n)
{
    ptrdiff_t first = t / TILE * TILE;
    *n = tile_at(T - first);
    while (first + *n <= t) {
        first += *n;
        *n = tile_at(T - first);
    }
    return first;
}

/* Token t of T, all its blocks. */
OP void round_token(int size, const float *x, ptrdiff_t t, ptrdiff_t T, ptrdiff_t blocks, uint8_t *out)
{
    int n;
    ptrdiff_t bytes = size == 32 ? X32_BYTES : XK_BYTES, first = tile_of(t, T, &n);
    uint8_t *block = out + first * blocks * bytes;
    for (ptrdiff_t b = 0; b < blocks; b++, block += n * bytes)
        if (size == 32)
            round32(x + b * 32, block, n, (int)(t - first));
        else
            round256(x + b * 256, block, n, (int)(t - first));
}

static void quantize32(const float *x, ptrdiff_t T, ptrdiff_t blocks, uint8_t *out, int threads)
{
    (void)threads;
#pragma omp parallel for num_threads(threads) schedule(static) if (T > 1)
    for (ptrdiff_t t = 0; t < T; t++)
        round_token(32, x + t * blocks * 32, t, T, blocks, out);
}

static void quantizek(const float *x, ptrdiff_t T, ptrdiff_t blocks, uint8_t *out, int threads)
{
    (void)threads;
#pragma omp parallel for num_threads(threads) schedule(static) if (T > 1)
    for (ptrdiff_t t = 0; t < T; t++)
        round_token(256, x + t * blocks * 256, t, T, blocks, out);
}
