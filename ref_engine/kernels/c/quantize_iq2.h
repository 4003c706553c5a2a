/* IQ2_XXS, IQ2_XS and IQ2_S: quant/quantize_iq2.py. */

OP void put_word(uint8_t *at, uint32_t word, int bytes)
{
    for (int i = 0; i < bytes; i++)
        at[i] = (uint8_t)(word >> 8 * i);
}
OP void put_nibbles(const uint8_t *q, int n, uint8_t *out)
{
    for (int i = 0; i < n; i += 2)
        out[i / 2] = (uint8_t)(q[i] | q[i + 1] << 4);
}

static int quantize_iq2_xxs(const quantize_job *job, ptrdiff_t first, int count)
{
    const search s = {32, 2, 8, 2, 6, REFIT_ALL, 0.1f};
    batch b = open_batch(job, first, count, 32, 1);
    found_points f;
    int failed = 0;
    for (int i = 0; i < strips(&b); i++) {
        vf x[32], w[32];
        open_strip(&b, i, x, w);
        weigh(x, spread_of(&b, i), 32, w);
        failed |= search_strip(&s, job->grid, x, w, 1, ZERO_BELOW, 1, i, &f);
    }
    for (int k = 0; k < count; k++) {
        uint8_t *out = job->out + (first + k) * 66, steps[8];
        float d = scale_steps(f.scale + 8 * k, 8, 31, 15, steps);
        memset(out, 0, 66);
        if (d == 0)
            continue;
        put_half(out, d);
        for (int j = 0; j < 8; j++) {
            uint32_t word = (uint32_t)steps[j] << 28;
            for (int p = 0; p < 4; p++) {
                out[2 + 8 * j + p] = (uint8_t)f.index[8 * k + j][p];
                word |= (uint32_t)(f.signs[8 * k + j][p] & 127) << 7 * p;
            }
            put_word(out + 6 + 8 * j, word, 4);
        }
    }
    return failed;
}

static int quantize_iq2_xs(const quantize_job *job, ptrdiff_t first, int count)
{
    const search s = {16, 2, 8, 2, 9, REFIT_MISSED, 0.1f};
    batch b = open_batch(job, first, count, 16, 1);
    found_points f;
    int failed = 0;
    for (int i = 0; i < strips(&b); i++) {
        vf x[16], w[16];
        open_strip(&b, i, x, w);
        weigh(x, spread_of(&b, i), 16, w);
        failed |= search_strip(&s, job->grid, x, w, 1, ZERO_BELOW, 0, i, &f);
    }
    for (int k = 0; k < count; k++) {
        uint8_t *out = job->out + (first + k) * 74, steps[16];
        float d = scale_steps(f.scale + 16 * k, 16, 31, 15, steps);
        memset(out, 0, 74);
        if (d == 0)
            continue;
        put_half(out, d);
        for (int p = 0; p < 32; p++) {
            int g = 16 * k + p / 2;
            put_word(out + 2 + 2 * p, f.index[g][p % 2] | (uint32_t)(f.signs[g][p % 2] & 127) << 9, 2);
        }
        put_nibbles(steps, 16, out + 66);
    }
    return failed;
}

static int quantize_iq2_s(const quantize_job *job, ptrdiff_t first, int count)
{
    const search s = {16, 2, 8, 2, 9, REFIT_MISSED, 0.1f};
    batch b = open_batch(job, first, count, 16, 2);
    found_points f;
    int failed = 0;
    for (int i = 0; i < strips(&b); i++) {
        vf x[16], w[16], sigma2 = spread_of(&b, i);
        open_strip(&b, i, x, job->importance ? w : NULL);
        if (job->importance)
            weigh(x, sigma2, 16, w);
        for (int j = 0; j < 16 && !job->importance; j++)
            w[j] = 0.25f * sigma2 + x[j] * x[j];
        failed |= search_strip(&s, job->grid, x, w, 0, 1e-8f, 0, i, &f);
    }
    for (int k = 0; k < count; k++) {
        uint8_t *out = job->out + (first + k) * 82, steps[16];
        float d = scale_steps(f.scale + 16 * k, 16, 31, 15, steps);
        memset(out, 0, 82);
        put_half(out, d * 0.9875f);
        for (int p = 0; p < 32; p++) {
            int g = 16 * k + p / 2, index = f.index[g][p % 2];
            out[2 + p] = (uint8_t)index;
            out[34 + p] = f.signs[g][p % 2];
            out[66 + p / 4] |= (uint8_t)(index >> 8 << 2 * (p % 4));
        }
        if (d != 0)
            put_nibbles(steps, 16, out + 74);
    }
    return failed;
}
