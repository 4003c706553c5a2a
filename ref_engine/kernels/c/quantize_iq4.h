/* IQ4_NL and IQ4_XS: quant/quantize_iq4.py. */

#define TRIES 7

/* Index of the nearest of the sixteen values; a number halfway belongs to the larger one, and so does NaN. */
#if LANES > 4
OP vi looked_up(const float *table, vi index)
{
#if LANES == 16
    return (vi)_mm512_permutexvar_ps((__m512i)index, _mm512_castps256_ps512(_mm256_loadu_ps(table)));
#else
    return (vi)_mm256_permutevar8x32_ps(_mm256_loadu_ps(table), (__m256i)index);
#endif
}
/* By halving: the numbers to compare with in each of the four steps. */
typedef struct { vf first; float second[8], third[8], fourth[8]; const float *value; } nearest_table;
OP nearest_table open_values(const value_table *t)
{
    const float *m = t->middle;
    nearest_table y = {splat(m[7]), {m[3], m[11]}, {m[1], m[5], m[9], m[13]},
                       {m[0], m[2], m[4], m[6], m[8], m[10], m[12], m[14]}, t->value};
    return y;
}
OP vi nearest_index(const nearest_table *t, vf x)
{
    vi i = (x < t->first) + 1;
    i = 2 * i + 1 + (x < (vf)looked_up(t->second, i));
    i = 2 * i + 1 + (x < (vf)looked_up(t->third, i));
    return 2 * i + 1 + (x < (vf)looked_up(t->fourth, i));
}
OP vf value_at(const nearest_table *t, vi i)
{
#if LANES == 16
    return (vf)_mm512_permutexvar_ps((__m512i)i, _mm512_loadu_ps(t->value));
#else
    return pick(i > 7, (vf)looked_up(t->value + 8, i), (vf)looked_up(t->value, i));
#endif
}
#else
typedef value_table nearest_table;
OP nearest_table open_values(const value_table *t) { return *t; }
OP vi nearest_index(const nearest_table *t, vf x)
{
    vi i = splat_int(15);
    for (int k = 0; k < 15; k++)
        i += x < t->middle[k];
    return i;
}
OP vf value_at(const nearest_table *t, vi i)
{
    vf y;
    for (int l = 0; l < LANES; l++)
        y[l] = t->value[i[l]];
    return y;
}
#endif

OP void value_sums(const nearest_table *t, const vf *x, const vf *w, vf inverse, vf *xv, vf *vv)
{
    vf sum_xv = splat(0), sum_vv = splat(0);
    for (int i = 0; i < 32; i++) {
        vf v = value_at(t, nearest_index(t, inverse * x[i])), wv = w[i] * v;
        sum_xv += wv * x[i];
        sum_vv += wv * v;
    }
    *xv = sum_xv;
    *vv = sum_vv;
}

/* Of fifteen tries around value 0 / largest the scale with the least error. */
OP vf fit_values(const nearest_table *t, const vf *x, const vf *w)
{
    const float lowest = t->value[0];
    vf top = largest(x, 32), xv, vv;
    value_sums(t, x, w, 1.0f / (-top / lowest), &xv, &vv);
    vf d = pick(vv > 0, xv / vv, splat(0)), best = d * xv;
    for (int step = -TRIES; step <= TRIES; step++) {
        value_sums(t, x, w, ((float)step + lowest) / top, &xv, &vv);
        vi better = (vv > 0) & (xv * xv > best * vv);
        d = pick(better, xv / vv, d);
        best = pick(better, d * xv, best);
    }
    return pick(magnitude(top) < ZERO_BELOW, splat(0), d);
}

OP void nearest_indices(const nearest_table *t, const float *x, float inverse, uint8_t *out)
{
    uint8_t q[32];
    for (int i = 0; i < 32; i += LANES)
        put_bytes(nearest_index(t, inverse * load(x + i)), q + i);
    halves(q, out);
}

static int quantize_iq4_nl(const quantize_job *job, ptrdiff_t first, int count)
{
    nearest_table t = open_values(job->values);
    vf x[32], w[32];
    float d[LANES];
    side_by_side(job->x + first * 32, 32, count, x);
    if (job->importance) {
        vf squares = splat(0);
        for (int i = 0; i < 32; i++)
            squares += x[i] * x[i];
        importance_beside(job->importance, first, job->blocks_in_row, 32, count, w);
        weigh(x, squares * (2.0f / 32), 32, w);
    } else
        for (int i = 0; i < 32; i++)
            w[i] = x[i] * x[i];
    store(d, fit_values(&t, x, w));
    for (int k = 0; k < count; k++) {
        uint8_t *out = job->out + (first + k) * 18;
        put_half(out, d[k]);
        nearest_indices(&t, job->x + (first + k) * 32, inverse_of(d[k]), out + 2);
    }
    return 0;
}

static int quantize_iq4_xs(const quantize_job *job, ptrdiff_t first, int count)
{
    const int weighted = job->importance != NULL;
    nearest_table t = open_values(job->values);
    batch b = open_batch(job, first, count, 32, 0);
    float scale[8 * LANES];
    if (weighted)
        measure_spread(&b, 1, BLOCK / 2);
    for (int s = 0; s < strips(&b); s++) {
        vf x[32], w[32];
        open_strip(&b, s, x, weighted ? w : NULL);
        if (weighted)
            weigh(x, spread_of(&b, s), 32, w);
        for (int i = 0; i < 32 && !weighted; i++)
            w[i] = x[i] * x[i];
        store(scale + s * LANES, fit_values(&t, x, w));
    }
    for (int k = 0; k < count; k++) {
        uint8_t *out = job->out + (first + k) * 136;
        float d = -largest1(scale + 8 * k, 8) / 32.0f, inverse = inverse_of(d);
        unsigned high = 0;
        put_half(out, d);
        memset(out + 4, 0, 4);
        for (int j = 0; j < 8; j++) {
            int step = clip1(nearest_int1(inverse * scale[8 * k + j]), -32, 31);
            float exact = d * (float)step;
            nearest_indices(&t, group(&b, 8 * k + j), inverse_of(exact), out + 8 + 16 * j);
            out[4 + j / 2] |= (uint8_t)(((step + 32) & 15) << j % 2 * 4);
            high |= (unsigned)((step + 32) >> 4) << 2 * j;
        }
        out[2] = (uint8_t)high;
        out[3] = (uint8_t)(high >> 8);
    }
    return 0;
}
