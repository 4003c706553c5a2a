/* Activations rounded to 8 bits: quant/activations.py in sixteen lanes.

   Tokens come in tiles of TILE, then of 8, 4, 2 and 1, so that a kernel finds the activations of its tile at
   fixed distances. A tile of N tokens starts where N tokens before it end; in it, block after block:
       32-weight types   q N x 32 int8 | N each of d, s floats, -8 sum, -16 sum, -128 sum int32
       K-quants          q N x 256 int8 | d N floats | N x 4 pairs of int16, sums of 32 | N x 16 int32, -32 sum of 16 |
                      N x 8 pairs of int16, sums of 16 | N x 32 int32, -32 sum of 8 */

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

/* What blocks of 32 need of all their numbers: a lane of each for each block. */
typedef struct {
    vi of[X32_WORDS];
} x32_words;

/* `count` blocks of 32, up to 16, x_step from one to the next, their integers to q, q_step apart. A block without a finite
   scale is zeros. */
OP x32_words round32(int count, const float *x, ptrdiff_t x_step, int8_t *q, ptrdiff_t q_step)
{
    vi most[16], sums[16];
    UNROLL for (int b = 0; b < 16; b++)
        most[FOLD_SLOT(b)] = b < count ? vi_max(abs_bits(x + b * x_step), abs_bits(x + b * x_step + 16)) : vi_set1(0);
    const vf largest = vf_of_bits(vi_fold16(1, most)), none = vf_set1(0), infinite = vf_set1(INFINITY);
    const vm finite = vm_less(largest, infinite);
    vf inverse = vf_select(vm_less(none, largest), vf_div(vf_set1(127.0f), largest), none);
    const vm lost = vm_or(vm_and_not(vm_below(16), finite), vm_and_not(vm_below(16), vm_less(inverse, infinite)));
    const vf scale = vf_select(finite, vf_div(largest, vf_set1(127.0f)), vf_set1(NAN));
    float by[16], dropped[16];
    vf_store(by, vf_select(lost, none, inverse));
    UNROLL for (int b = 0; b < 16; b++)
    {
        sums[FOLD_SLOT(b)] = vi_set1(0);
        if (b >= count)
            continue;
        const float *from = x + b * x_step;
        vi low = round16(vf_mul(vf_load(from), vf_set1(by[b])), q + b * q_step);
        sums[FOLD_SLOT(b)] = vi_add(low, round16(vf_mul(vf_load(from + 16), vf_set1(by[b])), q + b * q_step + 16));
    }
    if (vm_any(lost)) {
        vf_store(dropped, vf_select(lost, vf_set1(1), none));
        for (int b = 0; b < count; b++)
            if (dropped[b] != 0) {
                memset(q + b * q_step, 0, 32);
                sums[FOLD_SLOT(b)] = vi_set1(0);
            }
    }
    const vi sum = vi_fold16(0, sums);
    x32_words words = {{vi_of_bits(vf_as_half(scale)), vi_of_bits(vf_as_half(vf_mul(scale, vf_of(sum)))),
                        vi_mul(sum, vi_set1(-8)), vi_mul(sum, vi_set1(-16)), vi_mul(sum, vi_set1(-128))}};
    return words;
}

/* `count` blocks of token t in a tile of n: `block` is where the first is. */
OP void round_blocks32(int count, const float *x, uint8_t *block, int n, int t)
{
    const x32_words words = round32(count, x, 32, (int8_t *)block + 32 * t, n * X32_BYTES);
    int32_t lanes[X32_WORDS][16], *to = (int32_t *)(block + 32 * n) + t;
    UNROLL for (int i = 0; i < X32_WORDS; i++) vi_store(lanes[i], words.of[i]);
    for (int b = 0; b < count; b++, to += n * (X32_BYTES / 4))
        UNROLL for (int i = 0; i < X32_WORDS; i++) to[i * n] = lanes[i][b];
}

/* One block of each of the n tokens of a tile, `stride` apart. */
OP void round_side_by_side(int n, const float *x, ptrdiff_t stride, uint8_t *block)
{
    const x32_words words = round32(n, x, stride, (int8_t *)block, 32);
    int32_t lanes[16];
    UNROLL for (int i = 0; i < X32_WORDS; i++)
    {
        vi_store(lanes, words.of[i]);
        memcpy(block + 32 * n + 4 * i * n, lanes, (size_t)n * 4);
    }
}
OP void round_tile32(int n, const float *x, ptrdiff_t stride, uint8_t *block)
{
    if (n == TILE)
        round_side_by_side(TILE, x, stride, block);
    else if (n == 8)
        round_side_by_side(8, x, stride, block);
    else if (n == 4)
        round_side_by_side(4, x, stride, block);
    else
        round_side_by_side(n, x, stride, block);
}

/* The first of 256 numbers that is `size` or -size; any number if one is NaN. */
OP float first_of_size(const float *x, float size)
{
    vf most = vf_load(x), least = most;
    float lanes[2][16], largest = -INFINITY, smallest = INFINITY;
    for (int i = 16; i < 256; i += 16) {
        most = vf_max(most, vf_load(x + i));
        least = vf_min(least, vf_load(x + i));
    }
    vf_store(lanes[0], most);
    vf_store(lanes[1], least);
    for (int l = 0; l < 16; l++) {
        largest = lanes[0][l] > largest ? lanes[0][l] : largest;
        smallest = lanes[1][l] < smallest ? lanes[1][l] : smallest;
    }
    if (largest != size || smallest != -size)
        return largest == size ? size : -size;
    for (int i = 0; i < 256; i++)
        if (x[i] == size || x[i] == -size)
            return x[i];
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
    int32_t *eights = (int32_t *)(block + 372 * n) + 32 * t;
    vi most_of_lane = abs_bits(x);
    for (int i = 16; i < 256; i += 16)
        most_of_lane = vi_max(most_of_lane, abs_bits(x + i));
    int32_t most = vi_largest(most_of_lane), sums[32];
    float first = first_of_size(x, float_of_bits(most));
    float inverse = most ? -127.0f / first : 0.0f;
    *d = most >= NOT_FINITE ? NAN : most ? 1.0f / inverse : 0.0f;
    if (most < NOT_FINITE && inverse <= FLT_MAX && inverse >= -FLT_MAX)
        for (int j = 0; j < 16; j++)
            round16(vf_min(vf_mul(vf_load(x + 16 * j), vf_set1(inverse)), vf_set1(127.0f)), q + 16 * j);
    else
        memset(q, 0, 256);
    vi_store(sums, vi_sums8(q));
    vi_store(sums + 16, vi_sums8(q + 128));
    for (int j = 0; j < 32; j++)
        eights[j] = -32 * sums[j];
    for (int j = 0; j < 16; j++)
        shifted[j] = -32 * (sums[2 * j] + sums[2 * j + 1]);
    for (int j = 0; j < 16; j++)
        sixteens[j] = (int16_t)(sums[2 * j] + sums[2 * j + 1]);
    for (int j = 0; j < 8; j++)
        pairs[j] = (int16_t)(sums[4 * j] + sums[4 * j + 1] + sums[4 * j + 2] + sums[4 * j + 3]);
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
    t -= first;
    ptrdiff_t b = 0;
    for (; size == 32 && b + 16 <= blocks; b += 16)
        round_blocks32(16, x + b * 32, block + b * n * bytes, n, (int)t);
    for (; size == 32 && b < blocks; b += 4)
        round_blocks32(blocks - b < 4 ? (int)(blocks - b) : 4, x + b * 32, block + b * n * bytes, n, (int)t);
    for (; size == 256 && b < blocks; b++)
        round256(x + b * 256, block + b * n * bytes, n, (int)t);
}

/* `count` tokens of T, one or all of some tiles, from t on; x: that of t. */
OP void round_some(int size, const float *x, ptrdiff_t t, ptrdiff_t count, ptrdiff_t T, ptrdiff_t blocks, uint8_t *out)
{
    int n;
    for (ptrdiff_t i = 0; i < count; i += n) {
        n = size == 32 && count > 1 ? tile_at(T - t - i) : 1;
        if (n == 1)
            round_token(size, x + i * blocks * size, t + i, T, blocks, out);
        else
            for (ptrdiff_t b = 0; b < blocks; b++)
                round_tile32(n, x + (i * blocks + b) * 32, blocks * 32, out + ((t + i) * blocks + b * n) * X32_BYTES);
    }
}

/* Tokens that a thread takes at a time: tiles, but of a few tokens each for itself. */
OP ptrdiff_t tokens_at_a_time(ptrdiff_t T, int threads) { return T >= TILE * threads ? TILE : 1; }

static void quantize(int size, const float *x, ptrdiff_t T, ptrdiff_t blocks, uint8_t *out, int threads)
{
    const ptrdiff_t step = tokens_at_a_time(T, threads);
#pragma omp parallel for num_threads(threads) schedule(static) if (T > 1)
    for (ptrdiff_t t = 0; t < T; t += step)
        round_some(size, x + t * blocks * size, t, T - t < step ? T - t : step, T, blocks, out);
}
static void quantize32(const float *x, ptrdiff_t T, ptrdiff_t blocks, uint8_t *out, int threads)
{
    quantize(32, x, T, blocks, out, threads);
}
static void quantizek(const float *x, ptrdiff_t T, ptrdiff_t blocks, uint8_t *out, int threads)
{
    quantize(256, x, T, blocks, out, threads);
}
