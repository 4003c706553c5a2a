/* Q2_K to Q6_K: quant/quantize_k.py for LANES blocks at a time. */

/* The scales or minima of a block as bytes, and the step of one: a `steps`-th of the largest. */
OP float by_maximum(const float *values, int n, int steps, uint8_t *out)
{
    float high = peak1(values, n), inverse = high > 0 ? (float)steps / high : 0;
    for (int i = 0; i < n; i++)
        out[i] = (uint8_t)nearest_int1(inverse * values[i]);
    return high / (float)steps;
}

/* The same with importances, for all blocks of the batch: `fit_positive`. values, weights: (blocks, n) */
OP void by_fit(const float *values, const float *weights, int n, int blocks, int steps, float *d, uint8_t *out)
{
    vf x[16], w[16];
    vi q[16];
    side_by_side(values, n, blocks, x);
    side_by_side(weights, n, blocks, w);
    store(d, fit_positive(x, w, n, steps, q));
    for (int i = 0; i < n; i++)
        for (int l = 0; l < LANES; l++)
            out[l * n + i] = (uint8_t)q[i][l];
}

/* What the types with scales and minima (Q2_K, Q4_K, Q5_K) find for a batch; groups and blocks in order. */
typedef struct {
    float scale[16 * LANES], low[16 * LANES], cost[16 * LANES]; /* of groups; cost: the sum of the weights */
    uint8_t scales[16 * LANES], lows[16 * LANES];               /* of groups, as stored */
    float d[LANES], dmin[LANES];
    vi q[16 * 16];
} with_minimum;

OP void fit_batch(const batch *b, int nmax, int steps, float first, float step, int tries, int absolute, with_minimum *f)
{
    const int n = b->n, weighted = b->job->importance != NULL;
    for (int s = 0; s < strips(b); s++) {
        vf x[32], w[32], low, scale;
        open_strip(b, s, x, weighted ? w : NULL);
        if (weighted) {
            weigh(x, spread_of(b, s), n, w);
            store(f->cost + s * LANES, in_order(w, n));
            scale = fit_with_minimum(x, w, n, nmax, -0.9f, 0.05f, 36, 0, f->q + s * n, &low);
        } else {
            vf sum = splat(0);
            for (int i = 0; i < n; i++)
                sum += x[i] * x[i];
            vf mean = square_root(sum / 32.0f);
            for (int i = 0; i < n; i++)
                w[i] = absolute ? magnitude(x[i]) : (vf)(mean + magnitude(x[i]));
            scale = fit_with_minimum(x, w, n, nmax, first, step, tries, absolute, f->q + s * n, &low);
        }
        store(f->scale + s * LANES, scale);
        store(f->low + s * LANES, low);
    }
    const int in_block = b->in_block;
    if (weighted) {
        by_fit(f->scale, f->cost, in_block, b->count, steps, f->d, f->scales);
        by_fit(f->low, f->cost, in_block, b->count, steps, f->dmin, f->lows);
    } else
        for (int k = 0; k < b->count; k++) {
            f->d[k] = by_maximum(f->scale + k * in_block, in_block, steps, f->scales + k * in_block);
            f->dmin[k] = by_maximum(f->low + k * in_block, in_block, steps, f->lows + k * in_block);
        }
}

static int quantize_q2_k(const quantize_job *job, ptrdiff_t first, int count)
{
    batch b = open_batch(job, first, count, 16, job->importance != NULL);
    with_minimum f;
    fit_batch(&b, 3, 15, -0.5f, 0.1f, 15, 1, &f);
    for (int k = 0; k < count; k++) {
        uint8_t *out = job->out + (first + k) * 84, q[BLOCK];
        float d = halved(f.d[k]), dmin = halved(f.dmin[k]);
        put_half(out + 80, f.d[k]);
        put_half(out + 82, f.dmin[k]);
        for (int j = 0; j < 16; j++) {
            int g = 16 * k + j;
            out[j] = (uint8_t)(f.scales[g] | f.lows[g] << 4);
            stored(&b, f.q, g, d * (float)(out[j] & 15), dmin * (float)(out[j] >> 4), 0, 3, q + 16 * j);
        }
        bit_pairs(q, out + 16);
    }
    return 0;
}

/* Scales, minima and integers of Q4_K and Q5_K; out: d, dmin, 12 bytes of scales. */
OP void finish_mins(const batch *b, with_minimum *f, int k, int nmax, uint8_t *out, uint8_t *q)
{
    float d = halved(f->d[k]), dmin = halved(f->dmin[k]);
    uint8_t *s = f->scales + 8 * k, *m = f->lows + 8 * k;
    put_half(out, f->d[k]);
    put_half(out + 2, f->dmin[k]);
    for (int j = 0; j < 8; j++) {
        s[j] = s[j] < 63 ? s[j] : 63;
        m[j] = m[j] < 63 ? m[j] : 63;
        stored(b, f->q, 8 * k + j, d * (float)s[j], dmin * (float)m[j], 0, nmax, q + 32 * j);
    }
    for (int j = 0; j < 4; j++) {
        out[4 + j] = (uint8_t)(s[j] | s[j + 4] >> 4 << 6);
        out[8 + j] = (uint8_t)(m[j] | m[j + 4] >> 4 << 6);
        out[12 + j] = (uint8_t)((s[j + 4] & 15) | (m[j + 4] & 15) << 4);
    }
}

static int quantize_q4_k(const quantize_job *job, ptrdiff_t first, int count)
{
    batch b = open_batch(job, first, count, 32, job->importance ? 2 : 0);
    with_minimum f;
    fit_batch(&b, 15, 63, -1.0f, 0.1f, 20, 0, &f);
    for (int k = 0; k < count; k++) {
        uint8_t *out = job->out + (first + k) * 144, q[BLOCK];
        finish_mins(&b, &f, k, 15, out, q);
        nibble_pairs(q, out + 16);
    }
    return 0;
}

static int quantize_q5_k(const quantize_job *job, ptrdiff_t first, int count)
{
    batch b = open_batch(job, first, count, 32, job->importance ? 2 : 0);
    with_minimum f;
    fit_batch(&b, 31, 63, -0.5f, 0.1f, 15, 0, &f);
    for (int k = 0; k < count; k++) {
        uint8_t *out = job->out + (first + k) * 176, q[BLOCK], top[BLOCK];
        finish_mins(&b, &f, k, 31, out, q);
        for (int i = 0; i < BLOCK; i++) {
            top[i] = q[i] >> 4;
            q[i] &= 15;
        }
        single_bits(top, out + 16);
        nibble_pairs(q, out + 48);
    }
    return 0;
}

static int quantize_q3_k(const quantize_job *job, ptrdiff_t first, int count)
{
    const int weighted = job->importance != NULL;
    batch b = open_batch(job, first, count, 16, weighted ? 2 : 0);
    float scale[16 * LANES], cost[16 * LANES], d[LANES];
    int six[16 * LANES];
    vi found[16 * 16];
    for (int s = 0; s < strips(&b); s++) {
        vf x[16], w[16];
        open_strip(&b, s, x, weighted ? w : NULL);
        if (weighted) {
            weigh(x, spread_of(&b, s), 16, w);
            store(cost + s * LANES, in_order(w, 16));
        }
        store(scale + s * LANES, weighted ? fit_signed(x, w, 16, 4, found + 16 * s) : fit_three_bits(x, 16, found + 16 * s));
    }
    if (weighted) {
        vf x[16], w[16];
        vi q[16];
        side_by_side(scale, 16, count, x);
        side_by_side(cost, 16, count, w);
        store(d, fit_signed(x, w, 16, 32, q));
        for (int g = 0; g < 16 * LANES; g++)
            six[g] = q[g % 16][g / 16];
    } else
        for (int k = 0; k < count; k++) {
            float top = largest1(scale + 16 * k, 16), inverse = -32.0f / top;
            for (int j = 0; j < 16; j++)
                six[16 * k + j] = top == 0 ? -32 : clip1(nearest_int1(inverse * scale[16 * k + j]), -32, 31);
            d[k] = top == 0 ? 0 : 1.0f / inverse;
        }
    for (int k = 0; k < count; k++) {
        uint8_t *out = job->out + (first + k) * 110, *scales = out + 96, q[BLOCK], top[BLOCK];
        float stored_d = halved(d[k]);
        put_half(out + 108, d[k]);
        memset(scales, 0, 12);
        for (int j = 0; j < 16; j++) {
            int s = six[16 * k + j];
            scales[j % 8] |= (uint8_t)(((s + 32) & 15) << j / 8 * 4);
            scales[8 + j % 4] |= (uint8_t)((s + 32) >> 4 << j / 4 * 2);
            stored(&b, found, 16 * k + j, stored_d * (float)s, 0, -4, 3, q + 16 * j);
        }
        for (int i = 0; i < BLOCK; i++) {
            top[i] = q[i] >> 2;
            q[i] &= 3;
        }
        single_bits(top, out);
        bit_pairs(q, out + 32);
    }
    return 0;
}

static int quantize_q6_k(const quantize_job *job, ptrdiff_t first, int count)
{
    batch b = open_batch(job, first, count, 16, 0);
    float scale[16 * LANES];
    vi found[16 * 16];
    for (int s = 0; s < strips(&b); s++) {
        vf x[16], w[16];
        open_strip(&b, s, x, job->importance ? w : NULL);
        for (int i = 0; i < 16 && !job->importance; i++)
            w[i] = x[i] * x[i];
        store(scale + s * LANES, fit_signed(x, w, 16, 32, found + 16 * s));
    }
    for (int k = 0; k < count; k++) {
        uint8_t *out = job->out + (first + k) * 210, q[BLOCK];
        float top = largest1(scale + 16 * k, 16), inverse = -128.0f / top, d = halved(1.0f / inverse);
        memset(out, 0, 210);
        if (fabsf(top) < ZERO_BELOW)
            continue;
        put_half(out + 208, 1.0f / inverse);
        for (int j = 0; j < 16; j++) {
            int s = nearest_int1(inverse * scale[16 * k + j]);
            int8_t eight = (int8_t)(s < 127 ? s : 127);
            out[192 + j] = (uint8_t)eight;
            stored(&b, found, 16 * k + j, d * (float)eight, 0, -32, 31, q + 16 * j);
        }
        for (int h = 0; h < 2; h++)
            for (int i = 0; i < 32; i++) {
                const uint8_t *p = q + 128 * h + i;
                out[64 * h + i] = (uint8_t)((p[0] & 15) | (p[64] & 15) << 4);
                out[64 * h + 32 + i] = (uint8_t)((p[32] & 15) | (p[96] & 15) << 4);
                out[128 + 32 * h + i] = (uint8_t)(p[0] >> 4 | p[32] >> 4 << 2 | p[64] >> 4 << 4 | p[96] >> 4 << 6);
            }
    }
    return 0;
}
