/* MXFP4 and NVFP4: quant/quantize_simple.py. Values are twice E2M1 (the job's table), scales half of those stored. */

/* The codes with the least |value * d - x|, the first of equals; n weights. */
OP void nearest_e2m1(const float *value, const float *x, int n, float d, uint8_t *q)
{
    float at[16];
    for (int c = 0; c < 16; c++)
        at[c] = value[c] * d;
    for (int i = 0; i < n; i += LANES) {
        vf v = load(x + i), least_error = magnitude(at[0] - v);
        vi code = splat_int(0);
        for (int c = 1; c < 16; c++) {
            vf error = magnitude(at[c] - v);
            vi better = error < least_error;
            code = pick_int(better, splat_int(c), code);
            least_error = pick(better, error, least_error);
        }
        put_bytes(code, q + i);
    }
}

/* 2^(e - 128) */
OP float half_e8m0(int e)
{
    union { uint32_t u; float f; } v = {e < 2 ? 0x00200000u << e : (uint32_t)(e - 1) << 23};
    return v.f;
}

static int quantize_mxfp4(const quantize_job *job, ptrdiff_t first, int count)
{
    for (int k = 0; k < count; k++) {
        const float *x = job->x + (first + k) * 32;
        uint8_t *out = job->out + (first + k) * 17, q[32];
        float top = largest_magnitude(x, 32);
        /* log2 rounded to float32, as log2f does */
        int e = top > 0 ? (int)(floorf((float)log2((double)top)) - 2.0f + 127.0f) & 255 : 0;
        out[0] = (uint8_t)e;
        nearest_e2m1(job->values->value, x, 32, half_e8m0(e), q);
        halves(q, out + 1);
    }
    return 0;
}

/* Unsigned float of 4 bits of exponent and 3 of mantissa, rounded by the first bit dropped, at most 448; x >= 0 */
OP int ue4m3(float x)
{
    union { float f; int32_t i; } v = {x < 448.0f ? x : 448.0f};
    int exponent = (v.i >> 23 & 255) - 120, mantissa = (v.i >> 20 & 7) + (v.i >> 19 & 1);
    if (!(x > 0))
        return 0;
    if (exponent <= 0) {
        int small = (int)(v.f * 512.0f + 0.5f);
        return small < 7 ? small : 7;
    }
    exponent += mantissa >> 3;
    return exponent >= 15 ? 0x7e : exponent << 3 | (mantissa & 7);
}
/* half of what such a byte stands for: its mantissa in units of 2^-10, 127 (a NaN) counts as zero */
OP float half_ue4m3(int code)
{
    int exponent = code >> 3 & 15, mantissa = code & 7;
    if (code == 127)
        return 0;
    return (float)(exponent ? (mantissa + 8) << (exponent - 1) : mantissa) * 0x1p-10f;
}

static int quantize_nvfp4(const quantize_job *job, ptrdiff_t first, int count)
{
    for (int k = 0; k < count; k++) {
        uint8_t *out = job->out + (first + k) * 36, q[16];
        for (int j = 0; j < 4; j++) {
            const float *x = job->x + (first + k) * 64 + 16 * j;
            int scale = ue4m3(largest_magnitude(x, 16) / 6.0f);
            out[j] = (uint8_t)scale;
            nearest_e2m1(job->values->value, x, 16, half_ue4m3(scale), q);
            for (int i = 0; i < 8; i++)
                out[4 + 8 * j + i] = (uint8_t)(q[i] | q[i + 8] << 4);
        }
    }
    return 0;
}
