/* Activations rounded to 8 bits: quant/activations.py in sixteen lanes.

   Tokens come in tiles of TILE, then of 8, 4, 2 and 1, so that a kernel finds the activations of its tile at
   fixed distances. A tile of N tokens starts where N tokens before it end; in it, block after block:
       32-weight types   q N x 32 int8 | N x (d, s floats, -8 sum, -16 sum, -128 sum int32)
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

/* `count` blocks of 32, up to 16: the integers of the first to q, of the others q_step bytes later each, and so its
   words. What each needs of all its 32 numbers is a lane of vectors that all share. A block without a finite scale is
   zeros. */
OP void round32_to(int count, const float *x, int8_t *q, ptrdiff_t q_step, int32_t *to, ptrdiff_t step)
{
    vi most[16], sums[16];
    UNROLL for (int b = 0; b < 2 * count; b++) __builtin_prefetch(x + 32 * 16 + 16 * b);
    UNROLL for (int b = 0; b < 16; b++)
        most[FOLD_SLOT(b)] = b < count ? vi_max(abs_bits(x + 32 * b), abs_bits(x + 32 * b + 16)) : vi_set1(0);
    const vf largest = vf_of_bits(vi_fold16(1, most)), none = vf_set1(0), infinite = vf_set1(INFINITY);
    const vm finite = vm_less(largest, infinite);
    vf inverse = vf_select(vm_less(none, largest), vf_div(vf_set1(127.0f), largest), none);
    const vm lost = vm_or(vm_and_not(vm_below(16), finite), vm_and_not(vm_below(16), vm_less(inverse, infinite)));
    const vf scale = vf_select(finite, vf_div(largest, vf_set1(127.0f)), vf_set1(NAN));
    float by[16], dropped[16];
    int32_t words[X32_WORDS][16];
    vf_store(by, vf_select(lost, none, inverse));
    UNROLL for (int b = 0; b < 16; b++)
    {
        sums[FOLD_SLOT(b)] = vi_set1(0);
        if (b >= count)
            continue;
        const float *from = x + 32 * b;
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
    vi_store(words[0], vi_of_bits(vf_as_half(scale)));
    vi_store(words[1], vi_of_bits(vf_as_half(vf_mul(scale, vf_of(sum)))));
    vi_store(words[2], vi_mul(sum, vi_set1(-8)));
    vi_store(words[3], vi_mul(sum, vi_set1(-16)));
    vi_store(words[4], vi_mul(sum, vi_set1(-128)));
    for (int b = 0; b < count; b++, to += step)
        UNROLL for (int i = 0; i < X32_WORDS; i++) to[i] = words[i][b];
}

/* Blocks of token t in a tile of n: `block` is where the first is. */
OP void round32(int count, const float *x, uint8_t *block, int n, int t)
{
    round32_to(count, x, (int8_t *)block + 32 * t, n * X32_BYTES, (int32_t *)(block + 32 * n) + X32_WORDS * t,
               n * (X32_BYTES / 4));
}

/* One block of each of the n tokens of a tile, x (n, 32). */
OP void round_tile32(int n, const float *x, uint8_t *block)
{
    int8_t *q = (int8_t *)block;
    int32_t *words = (int32_t *)(block + 32 * n);
    if (n == TILE)
        round32_to(TILE, x, q, 32, words, X32_WORDS);
    else
        for (int t = 0; t < n; t += 4)
            round32_to(n - t < 4 ? n - t : 4, x + 32 * t, q + 32 * t, 32, words + X32_WORDS * t, X32_WORDS);
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
        round32(16, x + b * 32, block + b * n * bytes, n, (int)t);
    for (; size == 32 && b < blocks; b += 4)
        round32(blocks - b < 4 ? (int)(blocks - b) : 4, x + b * 32, block + b * n * bytes, n, (int)t);
    for (; size == 256 && b < blocks; b++)
        round256(x + b * 256, block + b * n * bytes, n, (int)t);
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
