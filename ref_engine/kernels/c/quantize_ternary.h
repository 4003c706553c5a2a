/* Q1_0, Q2_0, TQ1_0 and TQ2_0: quant/quantize_simple.py. Each weight is its sign, or a whole number of scales. */

/* sign bits; scale: the mean magnitude */
static int quantize_q1_0(const quantize_job *job, ptrdiff_t first, int count)
{
    float sum[LANES];
    sums_of_rows(job->x + first * 128, count, 128, SUM_OF_SIZES, sum);
    for (int k = 0; k < count; k++) {
        const float *x = job->x + (first + k) * 128;
        uint8_t *out = job->out + (first + k) * 18;
        put_half(out, sum[k] / 128.0f);
        memset(out + 2, 0, 16);
        for (int i = 0; i < 128; i += LANES) {
            int bits = mask_bits(load(x + i) >= 0);
            for (int j = 0; j < LANES; j += LANES < 8 ? LANES : 8)
                out[2 + (i + j) / 8] |= (uint8_t)(bits >> j << i % 8);
        }
    }
    return 0;
}

/* x / d rounded, plus 1; 1 where d is so small that 1 / d is infinite. d is the largest magnitude. */
OP void whole_steps(const float *x, int n, float inverse, uint8_t *q)
{
    for (int i = 0; i < n; i += LANES) {
        vf scaled = load(x + i) * inverse;
        put_bytes((round_away(scaled) & (magnitude(scaled) <= FLT_MAX)) + 1, q + i);
    }
}

static int quantize_q2_0(const quantize_job *job, ptrdiff_t first, int count)
{
    for (int k = 0; k < count; k++) {
        const float *x = job->x + (first + k) * 64;
        uint8_t *out = job->out + (first + k) * 18, q[64];
        float d = largest_magnitude(x, 64), inverse = inverse_of(d);
        put_half(out, d);
        for (int i = 0; i < 64; i += LANES) {
            vf scaled = load(x + i) * inverse;
            vi steps = least_of(most(round_away(scaled) + 1, splat_int(0)), splat_int(3));
            put_bytes(steps & (magnitude(scaled) <= FLT_MAX), q + i);
        }
        for (int i = 0; i < 16; i++)
            out[2 + i] = (uint8_t)(q[4 * i] | q[4 * i + 1] << 2 | q[4 * i + 2] << 4 | q[4 * i + 3] << 6);
    }
    return 0;
}

/* `digits` rows of k digits 0 .. 2 -> k bytes; fewer than five are followed by zeros. */
OP void pack_trits(const uint8_t *q, int digits, int k, uint8_t *out)
{
    for (int i = 0; i < k; i++) {
        unsigned number = 0;
        for (int n = 0; n < 5; n++)
            number = number * 3 + (n < digits ? q[n * k + i] : 0);
        out[i] = (uint8_t)((number * 256 + 242) / 243);
    }
}

static int quantize_tq1_0(const quantize_job *job, ptrdiff_t first, int count)
{
    for (int k = 0; k < count; k++) {
        const float *x = job->x + (first + k) * BLOCK;
        uint8_t *out = job->out + (first + k) * 54, q[BLOCK];
        float d = largest_magnitude(x, BLOCK);
        whole_steps(x, BLOCK, inverse_of(d), q);
        pack_trits(q, 5, 32, out);
        pack_trits(q + 160, 5, 16, out + 32);
        pack_trits(q + 240, 4, 4, out + 48);
        put_half(out + 52, d);
    }
    return 0;
}

static int quantize_tq2_0(const quantize_job *job, ptrdiff_t first, int count)
{
    for (int k = 0; k < count; k++) {
        const float *x = job->x + (first + k) * BLOCK;
        uint8_t *out = job->out + (first + k) * 66, q[BLOCK];
        float d = largest_magnitude(x, BLOCK);
        whole_steps(x, BLOCK, inverse_of(d), q);
        bit_pairs(q, out);
        put_half(out + 64, d);
    }
    return 0;
}
