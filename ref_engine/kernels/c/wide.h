/* A group of rows as tiles read it where many tokens come: integers a byte each, scales as numbers. A block of 32:
       8 quads x 64 bytes | d 16 floats | m 16 floats (Q4_1, Q5_1)     (NVFP4: two integer scales, for d and m)
   a block of 256:
       64 quads | d, dmin 16 floats | pairs of minima | scales 16 int32 for each sub-block */
#define WIDE_FROM 24 /* tokens; with fewer it does not pay */
#define WIDE_D 512
#define WIDE_M 576
#define WIDE_K_D 4096
#define WIDE_K_DMIN 4160
#define WIDE_K_MINS 4224
#define WIDE_K_SCALES 4480

OP int has_two(int kind) { return has_m(kind) || kind == W_NVFP4; }

OP ptrdiff_t wide_bytes(int kind)
{
    if (in_blocks_of_32(kind))
        return WIDE_M + 64 * has_two(kind);
    return WIDE_K_SCALES + (kind == W_LEVELS2 ? 0 : in_sixteens(kind) ? 1024 : 512);
}

static void widen32(int kind, const uint8_t *w, ptrdiff_t blocks, uint8_t *out)
{
    const sections at = sections_of(kind, blocks);
    const vb levels = levels_of(w);
    for (ptrdiff_t b = 0; b < blocks; b++, out += wide_bytes(kind)) {
        const uint8_t *scales = w + at.d + b * d_bytes(kind);
        vb q[8];
        unpack32(kind, levels, w + at.q + b * q_bytes(kind), w + at.qh + b * 64, q);
        UNROLL for (int j = 0; j < 8; j++) memcpy(out + 64 * j, &q[j], 64);
        vf_store((float *)(out + WIDE_D), scale32(kind, scales));
        if (has_two(kind))
            vf_store((float *)(out + WIDE_M), second32(kind, has_m(kind) ? w + at.m + b * 32 : scales));
    }
}

static void widen_k(int kind, const uint8_t *w, ptrdiff_t blocks, uint8_t *out)
{
    const vb levels = levels_of(w);
    const int scales = kind == W_LEVELS2 ? 0 : in_sixteens(kind) ? 16 : 8;
    w += has_levels(kind) ? LEVELS_BYTES : 0;
    for (ptrdiff_t b = 0; b < blocks; b++, w += k_bytes(kind), out += wide_bytes(kind)) {
        UNROLL for (int j = 0; j < 8; j++)
        {
            vb q[8];
            unpack_k(kind, levels, w, j, q);
            UNROLL for (int i = 0; i < 8; i++) memcpy(out + 512 * j + 64 * i, &q[i], 64);
        }
        vf_store((float *)(out + WIDE_K_D), d_k(kind, w));
        for (int j = 0; j < scales; j++) {
            vi scale = scale_k(kind, w + K_SCALES + 16 * j);
            memcpy(out + WIDE_K_SCALES + 64 * j, &scale, 64);
        }
        if (!has_mins(kind))
            continue;
        vf_store((float *)(out + WIDE_K_DMIN), vf_load_half(w + K_DMIN));
        if (kind == W_Q2_K)
            pairs_of_mins(w + K_SCALES, out + WIDE_K_MINS);
        else
            memcpy(out + WIDE_K_MINS, w + K_MINS, 128);
    }
}

/* The group at w unpacked for T tokens, in a place that the thread keeps; NULL where that does not pay or there is no
   memory. slot: 0 or 1, for two groups at once. */
static const uint8_t *widened(int kind, const uint8_t *w, ptrdiff_t blocks, ptrdiff_t T, int slot)
{
    static _Thread_local struct {
        uint8_t *at;
        size_t bytes;
    } kept[2];
    const size_t bytes = (size_t)(blocks * wide_bytes(kind));
    if (T < WIDE_FROM)
        return NULL;
    if (kept[slot].bytes < bytes) {
        free(kept[slot].at);
        kept[slot].at = aligned_alloc(64, bytes);
        kept[slot].bytes = kept[slot].at ? bytes : 0;
    }
    if (kept[slot].at) {
        if (in_blocks_of_32(kind))
            widen32(kind, w, blocks, kept[slot].at);
        else
            widen_k(kind, w, blocks, kept[slot].at);
    }
    return kept[slot].at;
}

