/* Packed weights (pack.h) as quads of unsigned bytes, and the scales that belong to them. */

OP int has_mins(int kind) { return kind == W_Q2_K || kind == W_Q4_K || kind == W_Q5_K; }
/* A scale for 16 weights, else for 32. */
OP int in_sixteens(int kind) { return kind == W_Q2_K || kind == W_Q3_K || kind == W_Q6_K || kind == W_LEVELS3; }

/* How many bits unpacked weights have: what a dot of pairs in 16 bits must know. */
OP int bits32(int kind)
{
    return kind == W_Q8_0 || kind == W_LEVELS32 ? 8 : has_qh(kind) || has_levels(kind) ? 5 : 4;
}
OP int bits_k(int kind)
{
    return kind == W_LEVELS3 || kind == W_LEVELS4 ? 8 : kind == W_Q6_K || kind == W_Q3_K ? 6 : kind == W_Q5_K ? 5 : 4;
}

/* The levels that a group begins with; of a kind without them a vector that nobody looks at. */
OP vb levels_of(const uint8_t *group)
{
    return vb_load(group);
}

/* Quads whose sums, with whatever makes them smaller, are within 16 bits: there, sums times scales are one instruction.
   16 x 15 x 127 (Q4_K), 8 x 31 x 127 (Q5_K), 8 x 32 x 127 (Q6_K; Q3_K has its wide tiles); 0: none or too few. */
OP int short_quads(int kind)
{
    const int quads = kind == W_Q2_K || kind == W_Q4_K                     ? 4
                      : kind == W_Q3_K || kind == W_Q5_K || kind == W_Q6_K ? 2
                                                                           : 0;
    return quads < DOT_STEP(bits_k(kind)) ? 0 : quads;
}

OP void unpack32(int kind, vb levels, const uint8_t *q, const uint8_t *qh, vb *w)
{
    if (kind == W_Q8_0) {
        UNROLL for (int j = 0; j < 8; j++) w[j] = vb_load(q + 64 * j);
        return;
    }
    UNROLL for (int j = 0; j < 4; j++)
    {
        vb both = vb_load(q + 64 * j);
        w[j] = vb_low4(both);
        w[j + 4] = vb_high4(both);
    }
    if (has_levels(kind))
        UNROLL for (int j = 0; j < 8; j++) w[j] = vb_lookup(levels, w[j]);
    if (has_qh(kind)) {
        vb high = vb_load(qh);
        UNROLL for (int j = 0; j < 8; j++) w[j] = vb_or(w[j], vb_bit4(high, j));
    }
}

/* Eight quads of a block of 256: 32 weights. j: sub-block of 32, in the order of the row. */
OP void unpack_k(int kind, vb levels, const uint8_t *w, int j, vb *q)
{
    const uint8_t *low = w + k_q(kind), *high = w + k_qh(kind);
    const int half = j / 4, run = j % 4;
    if (k_two_bits(kind))
        UNROLL for (int i = 0; i < 8; i++) q[i] = vb_bits01(vb_load(low + 512 * half + 64 * i), run);
    else if (kind == W_Q6_K)
        UNROLL for (int i = 0; i < 8; i++)
        {
            vb both = vb_load(low + 1024 * half + 512 * (run % 2) + 64 * i);
            q[i] = vb_or(run < 2 ? vb_low4(both) : vb_high4(both), vb_bits45(vb_load(high + 512 * half + 64 * i), run));
        }
    else
        UNROLL for (int i = 0; i < 8; i++)
        {
            vb both = vb_load(low + 512 * (j / 2) + 64 * i);
            q[i] = j % 2 ? vb_high4(both) : vb_low4(both);
        }
    if (kind == W_Q5_K)
        UNROLL for (int i = 0; i < 8; i++) q[i] = vb_or(q[i], vb_bit4(vb_load(high + 64 * i), j));
    if (kind == W_Q3_K || kind == W_LEVELS3)
        UNROLL for (int i = 0; i < 8; i++) q[i] = vb_or(q[i], vb_bit2(vb_load(high + 64 * i), j));
    if (has_levels(kind))
        UNROLL for (int i = 0; i < 8; i++) q[i] = vb_lookup(levels, q[i]);
}

/* The float scale of a block of 32 in 16 rows. MXFP4: 2^(e - 128). NVFP4: the scale of the first 16 weights, a whole
   number of steps of 2^-9, whose half is in all its values (quant/fp4.py). */
#define NVFP4_STEP (1.0f / 1024)
OP vf whole_scale(const uint8_t *half) { return vf_mul(vf_load_half(half), vf_set1(512)); }
OP vf scale32(int kind, const uint8_t *d)
{
    return kind == W_MXFP4   ? vf_ldexp(vf_set1(1), vf_of(vi_add(vi_load_u8(d), vi_set1(-128))))
           : kind == W_NVFP4 ? whole_scale(d)
                             : vf_load_half(d);
}
/* The minimum of Q4_1, Q5_1; NVFP4: the scale of the second 16 weights. */
OP vf second32(int kind, const uint8_t *m) { return kind == W_NVFP4 ? whole_scale(m + 32) : vf_load_half(m); }

/* The float scale of a block of 256. */
OP vf d_k(int kind, const uint8_t *w)
{
    return has_levels(kind) ? vf_load((const float *)(w + K_D)) : vf_load_half(w + K_D);
}

/* The integer scales of a sub-block in 16 rows, the upper half of each zero where sums are short. */
OP vi scale_k(int kind, const uint8_t *scales)
{
    return kind == W_Q2_K                      ? vi_and(vi_load_u8(scales), vi_set1(15))
           : kind == W_Q4_K || kind == W_Q5_K ? vi_load_u8(scales)
           : short_quads(kind)                ? vi_and(vi_load_i8(scales), vi_set1(0xffff))
                                              : vi_load_i8(scales);
}

/* Where the sum of some quads begins, since unpacked weights are level_offset() too large, or 32 (Q6_K).
   shifted: -32 times the sums of the next 16 activations, and of the 16 after them; eights: the same of 8. */
OP int32_t start_k(int kind, int quads, const int32_t *shifted, const int32_t *eights)
{
    if (quads == 2)
        return has_mins(kind) ? 0 : eights[0];
    return has_mins(kind)        ? 0
           : kind == W_LEVELS3   ? SHIFTED_START(4 * shifted[0])
           : kind == W_LEVELS4   ? SHIFTED_START(4 * (shifted[0] + shifted[1]))
                                 : shifted[0];
}
/* W_LEVELS2: minus the sum of all 256. */
OP int32_t minus_sum(const int32_t *shifted)
{
    int32_t sum = 0;
    for (int i = 0; i < 16; i++)
        sum += shifted[i] / 32;
    return sum;
}

/* Q2_K: the minima, high nibbles of 16 x 16 rows, as pairs. */
OP void pairs_of_mins(const uint8_t *scales, uint8_t *pairs)
{
    for (int j = 0; j < 8; j++)
        for (int r = 0; r < 16; r++) {
            pairs[32 * j + 2 * r] = scales[32 * j + r] >> 4;
            pairs[32 * j + 2 * r + 1] = scales[32 * j + 16 + r] >> 4;
        }
}
