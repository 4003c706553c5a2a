/* The types with blocks of 32 weights and one scale (and minimum): quant/quantize_simple.py. */

#define WORDS (32 / LANES) /* of the weights of a block, one behind the other */

/* 32 integers of 4 bits: i in the low, i + 16 in the high nibble */
OP void halves(const uint8_t *q, uint8_t *out)
{
    for (int i = 0; i < 16; i++)
        out[i] = (uint8_t)((q[i] & 15) | q[i + 16] << 4);
}
/* bit 4 of each of 32 integers */
OP void top_bits(const uint8_t *q, uint8_t *out)
{
    uint32_t bits = 0;
    for (int i = 0; i < 32; i++)
        bits |= (uint32_t)(q[i] >> 4 & 1) << i;
    for (int i = 0; i < 4; i++)
        out[i] = (uint8_t)(bits >> 8 * i);
}
OP float largest_magnitude(const float *x, int n)
{
    vf size = splat(0);
    for (int i = 0; i < n; i += LANES)
        size = larger(magnitude(load(x + i)), size);
    return peak1((const float *)&size, LANES);
}
OP float inverse_of(float d) { return d != 0 ? 1.0f / d : 0; }
/* Where in a block the first weight of this magnitude is, which is there. */
OP int place_of_magnitude(const float *x, float size)
{
    for (int i = 0; i < 32; i += LANES) {
        int equal = mask_bits(magnitude(load(x + i)) == size);
        if (equal)
            return i + __builtin_ctz((unsigned)equal);
    }
    return 0;
}

/* value = d * (q - half), q in 0 .. 2 half - 1 */
OP void symmetric(const float *x, int half, float *d, uint8_t *q)
{
    *d = (x[place_of_magnitude(x, largest_magnitude(x, 32))] + 0.0f) / (float)-half; /* + 0: minus zeros count as zeros */
    float inverse = inverse_of(*d);
    for (int i = 0; i < 32; i += LANES) {
        vi whole = to_int(load(x + i) * inverse + ((float)half + 0.5f)) << 24 >> 24; /* through a signed byte */
        put_bytes(least_of(whole, splat_int(2 * half - 1)), q + i);
    }
}

/* value = d * q + m, q in 0 .. nmax */
OP void least_to_most(const float *x, int nmax, float *d, float *m, uint8_t *q)
{
    float least = x[0], most_ = x[0];
    vf lows = load(x), highs = lows;
    for (int i = LANES; i < 32; i += LANES) {
        vf v = load(x + i);
        lows = pick(v < lows, v, lows);
        highs = pick(v > highs, v, highs);
    }
    for (int l = 0; l < LANES; l++) {
        least = lows[l] < least ? lows[l] : least;
        most_ = highs[l] > most_ ? highs[l] : most_;
    }
    for (int i = 0; i < 32 && least == 0; i++)
        if (x[i] == 0) { /* of zeros the first, whatever its sign */
            least = x[i];
            break;
        }
    *d = (most_ - least) / (float)nmax;
    *m = least;
    float inverse = inverse_of(*d);
    for (int i = 0; i < 32; i += LANES) {
        vi whole = to_int((load(x + i) - least) * inverse + 0.5f);
        put_bytes(nmax == 15 ? least_of(whole << 24 >> 24, splat_int(15)) : whole, q + i);
    }
}

/* LANES blocks with the weights of their errors, side by side. */
OP void open_weighted(const quantize_job *job, ptrdiff_t first, int count, vf *x, vf *w)
{
    vf sigma2;
    for (int l = 0; l < LANES; l++)
        sigma2[l] = l < count ? job->spread[(first + l) / job->blocks_in_row] : 0;
    side_by_side(job->x + first * 32, 32, count, x);
    importance_beside(job->importance, first, job->blocks_in_row, 32, count, w);
    weigh(x, sigma2, 32, w);
}

/* d, m and q of `count` blocks, (LANES, 32); m NULL: types without a minimum */
OP void fit_small(const quantize_job *job, ptrdiff_t first, int count, int steps, float *d, float *m, uint8_t *q)
{
    if (job->importance) {
        vf x[32], w[32], low;
        vi found[32];
        open_weighted(job, first, count, x, w);
        if (m) {
            store(d, fit_with_minimum(x, w, 32, steps, -0.9f, 0.05f, 36, 0, found, &low));
            store(m, -low);
        } else
            store(d, fit_signed(x, w, 32, steps, found));
        for (int i = 0; i < 32; i++)
            for (int l = 0; l < LANES; l++)
                q[32 * l + i] = (uint8_t)(found[i][l] + (m ? 0 : steps));
        return;
    }
    for (int k = 0; k < count; k++) {
        const float *x = job->x + (first + k) * 32;
        if (m)
            least_to_most(x, steps, d + k, m + k, q + 32 * k);
        else
            symmetric(x, steps, d + k, q + 32 * k);
    }
}

static int quantize_q4_0(const quantize_job *job, ptrdiff_t first, int count)
{
    float d[LANES];
    uint8_t q[32 * LANES];
    fit_small(job, first, count, 8, d, NULL, q);
    for (int k = 0; k < count; k++) {
        uint8_t *out = job->out + (first + k) * 18;
        put_half(out, d[k]);
        halves(q + 32 * k, out + 2);
    }
    return 0;
}

static int quantize_q5_0(const quantize_job *job, ptrdiff_t first, int count)
{
    float d[LANES];
    uint8_t q[32 * LANES];
    fit_small(job, first, count, 16, d, NULL, q);
    for (int k = 0; k < count; k++) {
        uint8_t *out = job->out + (first + k) * 22;
        put_half(out, d[k]);
        top_bits(q + 32 * k, out + 2);
        halves(q + 32 * k, out + 6);
    }
    return 0;
}

static int quantize_q4_1(const quantize_job *job, ptrdiff_t first, int count)
{
    float d[LANES], m[LANES];
    uint8_t q[32 * LANES];
    fit_small(job, first, count, 15, d, m, q);
    for (int k = 0; k < count; k++) {
        uint8_t *out = job->out + (first + k) * 20;
        put_half(out, d[k]);
        put_half(out + 2, m[k]);
        halves(q + 32 * k, out + 4);
    }
    return 0;
}

static int quantize_q5_1(const quantize_job *job, ptrdiff_t first, int count)
{
    float d[LANES], m[LANES];
    uint8_t q[32 * LANES];
    fit_small(job, first, count, 31, d, m, q);
    for (int k = 0; k < count; k++) {
        uint8_t *out = job->out + (first + k) * 24;
        put_half(out, d[k]);
        put_half(out + 2, m[k]);
        top_bits(q + 32 * k, out + 4);
        halves(q + 32 * k, out + 8);
    }
    return 0;
}

static int quantize_q8_0(const quantize_job *job, ptrdiff_t first, int count)
{
    for (int k = 0; k < count; k++) {
        const float *x = job->x + (first + k) * 32;
        uint8_t *out = job->out + (first + k) * 34;
        float d = largest_magnitude(x, 32) / 127.0f, inverse = inverse_of(d);
        put_half(out, d);
        for (int i = 0; i < 32; i += LANES)
            put_bytes(round_away(load(x + i) * inverse), out + 2 + i);
    }
    return 0;
}
