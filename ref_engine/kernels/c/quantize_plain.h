/* F16 and BF16: a block is one number, and a batch as many as there are. */

static int quantize_f16(const quantize_job *job, ptrdiff_t first, int count)
{
    const float *x = job->x + first;
    uint8_t *out = job->out + 2 * first;
    int i = 0;
#if defined(__F16C__)
    for (; i + 8 <= count; i += 8) {
        __m128i eight = _mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT);
        _mm_storeu_si128((__m128i *)(void *)(out + 2 * i), eight);
    }
#endif
    for (; i < count; i++)
        put_half(out + 2 * i, x[i]);
    return 0;
}

/* Round to nearest, ties to even; the weights are finite. */
static int quantize_bf16(const quantize_job *job, ptrdiff_t first, int count)
{
    const float *x = job->x + first;
    uint8_t *out = job->out + 2 * first;
    for (int i = 0; i < count; i++) {
        uint32_t u;
        memcpy(&u, x + i, 4);
        uint16_t upper = (uint16_t)((u + (0x7fff + (u >> 16 & 1))) >> 16);
        memcpy(out + 2 * i, &upper, 2);
    }
    return 0;
}
