/* Activations rounded to 8 bits: quant/activations.py in sixteen lanes.

   Tokens come in tiles of TILE, then of smaller powers of two, so that a kernel finds the activations of its tile at
   fixed distances. A tile of N tokens starts where N tokens before it end; in it, block after block:
       32-weight types   q N x 32 int8 | d N floats | s N floats | -8 sum, -16 sum, -128 sum: N int32 each
       K-quants          q N x 256 int8 | d N floats | N x 4 pairs of int16, sums of 32 | N x 16 int32, -32 sum of 16 */

OP int tile_at(ptrdiff_t left)
{
    int n = TILE;
    while (n > left)
        n /= 2;
    return n;
}

OP int32_t largest_bits(vi abs_bits)
{
    int32_t v[16], most = 0;
    memcpy(v, &abs_bits, 64);
    for (int l = 0; l < 16; l++)
        most = v[l] > most ? v[l] : most;
    return most;
}

OP float float_of_bits(int32_t bits)
{
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

OP vi abs_bits(const float *x) { return vi_and(vi_of_bits(vf_load(x)), vi_set1(0x7fffffff)); }

#define NOT_FINITE 0x7f800000 /* the bits of infinity; NaNs are above */

OP int sum_i8(const int8_t *q, int n)
{
    int sum = 0;
    for (int i = 0; i < n; i++)
        sum += q[i];
    return sum;
}

/* One block of 32 of token t in a tile of n. */
OP void round32(const float *x, uint8_t *block, int n, int t)
{
    int8_t *q = (int8_t *)block + 32 * t;
    float *d = (float *)(block + 32 * n) + t, *s = d + n;
    int32_t *shifted = (int32_t *)(block + 40 * n) + t;
    int32_t most = largest_bits(vi_max(abs_bits(x), abs_bits(x + 16)));
    float largest = float_of_bits(most), inverse = most ? 127.0f / largest : 0.0f;
    float scale = most < NOT_FINITE ? largest / 127.0f : NAN;
    int sum = 0;
    if (most < NOT_FINITE && inverse <= FLT_MAX) {
        vf by = vf_set1(inverse);
        vi_store_i8(q, vi_rint(vf_mul(vf_load(x), by)));
        vi_store_i8(q + 16, vi_rint(vf_mul(vf_load(x + 16), by)));
        sum = sum_i8(q, 32);
    } else
        memset(q, 0, 32);
    *d = half_to_float(float_to_half(scale));
    *s = half_to_float(float_to_half(scale * (float)sum));
    shifted[0] = -8 * sum;
    shifted[n] = -16 * sum;
    shifted[2 * n] = -128 * sum;
}

/* One block of 256: the value of largest magnitude, the first of equals, becomes -127. */
OP void round256(const float *x, uint8_t *block, int n, int t)
{
    int8_t *q = (int8_t *)block + 256 * t;
    float *d = (float *)(block + 256 * n) + t;
    int16_t *pairs = (int16_t *)(block + 260 * n) + 8 * t;
    int32_t *shifted = (int32_t *)(block + 276 * n) + 16 * t;
    vi most_of_lane = abs_bits(x);
    for (int i = 16; i < 256; i += 16)
        most_of_lane = vi_max(most_of_lane, abs_bits(x + i));
    int32_t most = largest_bits(most_of_lane);
    float size = float_of_bits(most), first = size;
    for (int i = 0; i < 256; i++)
        if (x[i] == size || x[i] == -size) {
            first = x[i];
            break;
        }
    float inverse = most ? -127.0f / first : 0.0f;
    *d = most >= NOT_FINITE ? NAN : most ? 1.0f / inverse : 0.0f;
    if (most < NOT_FINITE && inverse <= FLT_MAX && inverse >= -FLT_MAX)
        for (int i = 0; i < 256; i += 16) {
            vf scaled = vf_mul(vf_load(x + i), vf_set1(inverse));
            vi_store_i8(q + i, vi_rint(vf_min(scaled, vf_set1(127.0f))));
        }
    else
        memset(q, 0, 256);
    for (int j = 0; j < 8; j++) {
        int low = sum_i8(q + 32 * j, 16), high = sum_i8(q + 32 * j + 16, 16);
        pairs[j] = (int16_t)(low + high);
        shifted[2 * j] = -32 * low;
        shifted[2 * j + 1] = -32 * high;
    }
}

/* Token t of T, all its blocks. */
OP void round_token(int size, const float *x, ptrdiff_t t, ptrdiff_t T, ptrdiff_t blocks, uint8_t *out)
{
    ptrdiff_t bytes = size == 32 ? X32_BYTES : XK_BYTES, first = t / TILE * TILE;
    int n = tile_at(T - first);
    while (first + n <= t) {
        first += n;
        n = tile_at(T - first);
    }
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
