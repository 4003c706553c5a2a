/* IQ3_XXS and IQ3_S: quant/quantize_iq3.py. */

OP int search_batch(const search *s, const batch *b, int even, float zero_below, found_points *f)
{
    int failed = 0;
    for (int i = 0; i < strips(b); i++) {
        vf x[32], w[32];
        open_strip(b, i, x, b->job->importance ? w : NULL);
        if (b->job->importance)
            weigh(x, spread_of(b, i), 32, w);
        for (int j = 0; j < 32 && !b->job->importance; j++)
            w[j] = x[j] * x[j];
        failed |= search_strip(s, b->job->grid, x, w, even, zero_below, 0, i, f);
    }
    return failed;
}

static int quantize_iq3_xxs(const quantize_job *job, ptrdiff_t first, int count)
{
    const search s = {32, 3, 4, 7, 15, REFIT_MISSED, 0.2f};
    batch b = open_batch(job, first, count, 32, job->importance ? 2 : 0);
    found_points f;
    int failed = search_batch(&s, &b, 1, 1e-8f, &f);
    for (int k = 0; k < count; k++) {
        uint8_t *out = job->out + (first + k) * 98, steps[8];
        float d = scale_steps(f.scale + 8 * k, 8, 31, 15, steps);
        memset(out, 0, 98);
        if (d == 0)
            continue;
        put_half(out, d * 1.0125f);
        for (int j = 0; j < 8; j++) {
            uint32_t word = (uint32_t)steps[j] << 28;
            for (int p = 0; p < 8; p++)
                out[2 + 8 * j + p] = (uint8_t)f.index[8 * k + j][p];
            for (int p = 0; p < 4; p++)
                word |= (uint32_t)(f.signs[8 * k + j][p] & 127) << 7 * p;
            put_word(out + 66 + 4 * j, word, 4);
        }
    }
    return failed;
}

/* A group of zeros moves what follows up, except the ninth bits: see the definition. */
static int quantize_iq3_s(const quantize_job *job, ptrdiff_t first, int count)
{
    const search s = {32, 3, 4, 7, 9, REFIT_ALL_IF_MISSED, 0.2f};
    batch b = open_batch(job, first, count, 32, job->importance ? 2 : 0);
    found_points f;
    int failed = search_batch(&s, &b, 0, 0, &f);
    for (int k = 0; k < count; k++) {
        uint8_t *out = job->out + (first + k) * 110, steps[8];
        uint8_t *qs = out + 2, *signs = out + 74;
        float d = scale_steps(f.scale + 8 * k, 8, 31, 15, steps);
        memset(out, 0, 110);
        put_half(out, d * 1.033f);
        for (int j = 0; j < 8; j++) {
            int g = 8 * k + j;
            if (largest_magnitude(group(&b, g), 32) == 0)
                continue;
            for (int p = 0; p < 8; p++) {
                qs[p] = (uint8_t)f.index[g][p];
                out[66 + j] |= (uint8_t)(f.index[g][p] >> 8 << p);
            }
            memcpy(signs, f.signs[g], 4);
            qs += 8;
            signs += 4;
        }
        if (d != 0)
            put_nibbles(steps, 8, out + 106);
    }
    return failed;
}
