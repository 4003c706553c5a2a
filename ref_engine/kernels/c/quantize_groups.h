/* What the types with blocks of 256 weights share: LANES blocks at a time, cut into strips of LANES groups. */

#define BLOCK 256

typedef struct {
    const quantize_job *job;
    const float *x;   /* the weights of the batch */
    ptrdiff_t first;  /* block */
    int count;        /* blocks, 1 .. LANES */
    int n, in_block;  /* weights in a group, groups in a block */
    float sigma2[LANES < 8 ? 8 : LANES]; /* of each block: what `measure_spread` found */
} batch;

/* sigma2 = factor * sum of squares / over; the product may be infinite where the quotient would not */
OP void measure_spread(batch *b, float factor, float over)
{
    sums_of_rows(b->x, b->count, BLOCK, SUM_OF_SQUARES, b->sigma2);
    for (int i = 0; i < b->count; i++)
        b->sigma2[i] = factor * b->sigma2[i] / over;
}
/* factor 0: without sigma2 */
OP batch open_batch(const quantize_job *job, ptrdiff_t first, int count, int n, int factor)
{
    batch b = {job, job->x + first * BLOCK, first, count, n, BLOCK / n, {0}};
    if (factor)
        measure_spread(&b, (float)factor, BLOCK);
    return b;
}
OP int strips(const batch *b) { return (b->count * b->in_block + LANES - 1) / LANES; }
OP int groups_left(const batch *b, int strip) { return b->count * b->in_block - strip * LANES; }
OP const float *group(const batch *b, int g) { return b->x + g * b->n; }

OP vf spread_of(const batch *b, int strip)
{
    vf y;
    for (int l = 0; l < LANES; l++)
        y[l] = b->sigma2[(strip * LANES + l) / b->in_block];
    return y;
}
/* The weights of a strip, and their importances as they are. */
OP void open_strip(const batch *b, int strip, vf *x, vf *importance)
{
    side_by_side(b->x + strip * LANES * b->n, b->n, groups_left(b, strip), x);
    if (importance)
        importance_beside(b->job->importance, b->first * b->in_block + strip * LANES,
                          b->job->blocks_in_row * b->in_block, b->n, groups_left(b, strip), importance);
}

/* Integers for the scale and minimum as they are stored, less `low`; where the scale is zero, those of the search stay:
   `found`, the words of the group's strip. */
OP void stored(const batch *b, const vi *found, int g, float d, float m, int low, int high, uint8_t *out)
{
    const float *x = group(b, g);
    const int32_t *kept = (const int32_t *)(found + g / LANES * b->n);
    for (int i = 0; d != 0 && i < b->n; i += LANES)
        put_bytes(nearest_in((load(x + i) + m) / d, low, high) - low, out + i);
    for (int i = 0; d == 0 && i < b->n; i++)
        out[i] = (uint8_t)(kept[i * LANES + g % LANES] - low);
}

/* 256 integers of 2 or 4 bits to bytes, in the order of quant/kquants.py. */
OP void bit_pairs(const uint8_t *q, uint8_t *out)
{
    for (int h = 0; h < 2; h++, q += 128, out += 32)
        for (int i = 0; i < 32; i++)
            out[i] = (uint8_t)(q[i] | q[32 + i] << 2 | q[64 + i] << 4 | q[96 + i] << 6);
}
OP void nibble_pairs(const uint8_t *q, uint8_t *out)
{
    for (int h = 0; h < 4; h++, q += 64, out += 32)
        for (int i = 0; i < 32; i++)
            out[i] = (uint8_t)(q[i] | q[32 + i] << 4);
}
/* The top bits of 256 bytes, already at bit 0: bit r of byte i is that of 32 r + i. */
OP void single_bits(const uint8_t *bit, uint8_t *out)
{
    memset(out, 0, 32);
    for (int r = 0; r < 8; r++)
        for (int i = 0; i < 32; i++)
            out[i] |= (uint8_t)(bit[32 * r + i] << r);
}
