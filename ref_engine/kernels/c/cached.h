/* What a cache holds of keys and values (quant/rows.py): float32, float16, or blocks of 32 in 8 bits. */

/* n blocks of 32 numbers, as quant/rows.py writes and reads them */
OP void to_blocks(const float *from, ptrdiff_t n, uint8_t *to)
{
    float scales[16];
    for (ptrdiff_t b = 0; b < n; b += 2, from += 64, to += 2 * C_BLOCK_BYTES) {
        const int count = n - b < 2 ? 1 : 2;
        const x32_words words = round32(count, from, 32, (int8_t *)to + 2, C_BLOCK_BYTES);
        vf_store(scales, vf_of_bits(words.of[0]));
        for (int i = 0; i < count; i++) {
            const uint16_t d = float_to_half(scales[i]);
            memcpy(to + i * C_BLOCK_BYTES, &d, 2);
        }
    }
}
OP void from_blocks(const uint8_t *from, ptrdiff_t n, float *to)
{
    for (ptrdiff_t b = 0; b < n; b++, from += C_BLOCK_BYTES, to += 32) {
        uint16_t d;
        memcpy(&d, from, 2);
        const vf scale = vf_set1(half_to_float(d));
        vf_store(to, vf_as_half(vf_mul(vf_of(vi_load_i8(from + 2)), scale)));
        vf_store(to + 16, vf_as_half(vf_mul(vf_of(vi_load_i8(from + 18)), scale)));
    }
}

/* n numbers of a cache */
OP void to_float(int kind, const void *from, ptrdiff_t n, float *to)
{
    ptrdiff_t i = 0;
    if (kind == C_Q8_0) {
        from_blocks(from, n / 32, to);
        return;
    }
    if (kind == C_F32) {
        memcpy(to, from, (size_t)n * 4);
        return;
    }
    for (; i + 16 <= n; i += 16)
        vf_store(to + i, vf_load_half((const uint16_t *)from + i));
    for (; i < n; i++)
        to[i] = half_to_float(((const uint16_t *)from)[i]);
}

OP void to_half(const float *from, ptrdiff_t n, uint16_t *to)
{
    ptrdiff_t i = 0;
    for (; i + 16 <= n; i += 16)
        vf_store_half(to + i, vf_load(from + i));
    for (; i < n; i++)
        to[i] = float_to_half(from[i]);
}

OP void as_half(const float *from, ptrdiff_t n, float *to)
{
    ptrdiff_t i = 0;
    for (; i + 16 <= n; i += 16)
        vf_store(to + i, vf_as_half(vf_load(from + i)));
    for (; i < n; i++)
        to[i] = half_to_float(float_to_half(from[i]));
}

/* n numbers into a cache, those after the first `at` of it. */
OP void remember(int kind, const float *x, ptrdiff_t n, void *cache, ptrdiff_t at)
{
    uint8_t *to = (uint8_t *)cache + cached_bytes(kind, at);
    if (kind == C_Q8_0)
        to_blocks(x, n / 32, to);
    else if (kind == C_F16)
        to_half(x, n, (uint16_t *)to);
    else
        memcpy(to, x, (size_t)n * 4);
}

/* Over how many features of n a rotation spreads what is large before they become blocks (quant/rows.py); 1: none. */
OP ptrdiff_t spread_over(int kind, ptrdiff_t n, ptrdiff_t most)
{
    ptrdiff_t width = n & -n;
    width = width > most ? most : width;
    return kind == C_Q8_0 && width >= 64 ? width : 1;
}

/* x times the orthonormal Walsh-Hadamard matrix of `width` up to MOST_HEAD (reference/hadamard.py). Each step halves what is
   interleaved, so that after the last all is in its place. */
OP void spread_block(float *x, ptrdiff_t width)
{
    float room[2][MOST_HEAD];
    const float *from = x, scale = (float)(1 / sqrt((double)width));
    int turn = 0;
    for (ptrdiff_t step = 1; step < width; step *= 2, turn ^= 1) {
        float *to = room[turn];
        for (ptrdiff_t i = 0; i < width / 2; i++) {
            const float a = from[2 * i], b = from[2 * i + 1];
            to[i] = a + b;
            to[i + width / 2] = a - b;
        }
        from = to;
    }
    for (ptrdiff_t i = 0; i < width; i++)
        x[i] = from[i] * scale;
}
static void spread(float *x, ptrdiff_t n, ptrdiff_t width)
{
    for (ptrdiff_t i = 0; i < n && width > 1; i += width)
        if (width == 64)
            spread_block(x + i, 64);
        else if (width == 128)
            spread_block(x + i, 128);
        else
            spread_block(x + i, width);
}
