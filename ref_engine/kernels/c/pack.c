/* Rows of ggml blocks -> groups of 16 interleaved rows. See pack.h for the layout. */
#define _DEFAULT_SOURCE /* madvise */
#include "pack.h"
#include "pack_levels.h"

#include <stdlib.h>
#include <string.h>
#if defined(__unix__) || defined(__APPLE__)
#include <sys/mman.h>
#endif

/* In the order of BLOCK_KINDS. m, qh, q: where these parts of a block of 32 begin (quant/simple.py). */
static const struct {
    block_type is;
    const leveled *levels;
    int m, qh, q;
} TYPES[] = {
    {{W_Q4_0, 32, 18, 0}, NULL, 0, 0, 2},
    {{W_Q4_1, 32, 20, 0}, NULL, 2, 0, 4},
    {{W_Q5_0, 32, 22, 0}, NULL, 0, 2, 6},
    {{W_Q5_1, 32, 24, 0}, NULL, 2, 4, 8},
    {{W_Q8_0, 32, 34, 0}, NULL, 0, 0, 2},
    {{W_Q8_0, 32, 36, 0}, NULL, 0, 0, 4}, /* Q8_1 */
    {{W_Q4_K, 256, 144, 0}, NULL, 0, 0, 0},
    {{W_Q5_K, 256, 176, 0}, NULL, 0, 0, 0},
    {{W_Q6_K, 256, 210, 0}, NULL, 0, 0, 0},
    {{W_Q2_K, 256, 84, 0}, NULL, 0, 0, 0},
    {{W_Q3_K, 256, 110, 0}, &LEVELS_Q3_K, 0, 0, 0},
    {{W_LEVELS32, 32, 18, 0}, &LEVELS_IQ4_NL, 0, 0, 0},
    {{W_LEVELS4, 256, 136, 0}, &LEVELS_IQ4_XS, 0, 0, 0},
    {{W_MXFP4, 32, 17, 0}, &LEVELS_MXFP4, 0, 0, 0},
    {{W_NVFP4, 64, 36, 0}, &LEVELS_NVFP4, 0, 0, 0},
    {{W_LEVELS32, 128, 18, 0}, &LEVELS_Q1_0, 0, 0, 0},
    {{W_LEVELS32, 64, 18, 0}, &LEVELS_Q2_0, 0, 0, 0},
    {{W_LEVELS2, 256, 54, 0}, &LEVELS_TQ1_0, 0, 0, 0},
    {{W_LEVELS2, 256, 66, 0}, &LEVELS_TQ2_0, 0, 0, 0},
    {{W_LEVELS3, 256, 50, 2048 * 8}, &LEVELS_IQ1_S, 0, 0, 0},
    {{W_LEVELS3, 256, 56, 2048 * 8}, &LEVELS_IQ1_M, 0, 0, 0},
    {{W_LEVELS3, 256, 66, 256 * 8}, &LEVELS_IQ2_XXS, 0, 0, 0},
    {{W_LEVELS3, 256, 74, 512 * 8}, &LEVELS_IQ2_XS, 0, 0, 0},
    {{W_LEVELS3, 256, 82, 1024 * 8}, &LEVELS_IQ2_S, 0, 0, 0},
    {{W_LEVELS4, 256, 98, 256 * 4}, &LEVELS_IQ3_XXS, 0, 0, 0},
    {{W_LEVELS4, 256, 110, 512 * 4}, &LEVELS_IQ3_S, 0, 0, 0},
};
enum { N_TYPES = sizeof TYPES / sizeof *TYPES };

const block_type *ref_engine_block_type(int type) { return 0 <= type && type < N_TYPES ? &TYPES[type].is : NULL; }

size_t ref_engine_packed_bytes(int type, ptrdiff_t rows, ptrdiff_t columns)
{
    const int kind = TYPES[type].is.kind;
    return (size_t)((rows + GROUP - 1) / GROUP * packed_group(kind, columns / (in_blocks_of_32(kind) ? 32 : 256)));
}

/* Space for that many bytes, to be freed. Large ones lie in large pages where the system has them: fewer faults while
   they are filled, fewer misses of the address cache when they are read. */
uint8_t *ref_engine_packed_space(size_t nbytes)
{
    const size_t page = (size_t)2 << 20;
    size_t alignment = nbytes >= 2 * page ? page : 64;
    uint8_t *space = aligned_alloc(alignment, (nbytes + alignment - 1) / alignment * alignment);
#ifdef MADV_HUGEPAGE
    if (space != NULL && alignment == page)
        (void)madvise(space, nbytes / page * page, MADV_HUGEPAGE); /* advice: without it, small pages */
#endif
    return space;
}

static inline void pack_simple(int kind, int type, const uint8_t *block, int r, uint8_t *group, sections at, ptrdiff_t b)
{
    const uint8_t *q = block + TYPES[type].q;
    uint8_t *out = group + at.q + b * q_bytes(kind) + 4 * r;
    memcpy(group + b * 32 + 2 * r, block, 2);
    if (has_m(kind))
        memcpy(group + at.m + b * 32 + 2 * r, block + TYPES[type].m, 2);
    if (has_qh(kind)) {
        const uint8_t *qh = block + TYPES[type].qh;
        uint32_t bits = (uint32_t)qh[0] | (uint32_t)qh[1] << 8 | (uint32_t)qh[2] << 16 | (uint32_t)qh[3] << 24;
        for (int i = 0; i < 4; i++) { /* every fourth bit: the multiplication moves bit 4j to bit j of the top byte */
            uint32_t even = bits >> i & 0x01010101, odd = bits >> (4 + i) & 0x01010101;
            uint32_t byte = (even * 0x01041040 >> 24 & 0x55) | (odd * 0x01041040 >> 23 & 0xaa);
            group[at.qh + b * 64 + 4 * r + i] = (uint8_t)byte;
        }
    }
    if (kind == W_Q8_0)
        for (int j = 0; j < 8; j++) {
            uint32_t quad;
            memcpy(&quad, q + 4 * j, 4);
            quad ^= 0x80808080;
            memcpy(out + 64 * j, &quad, 4);
        }
    else
        for (int j = 0; j < 4; j++)
            memcpy(out + 64 * j, q + 4 * j, 4);
}

static inline void pack_quads(const uint8_t *from, int quads, int r, uint8_t *to)
{
    for (int j = 0; j < quads; j++)
        memcpy(to + 64 * j + 4 * r, from + 4 * j, 4);
}

/* Q4_K, Q5_K: d, dmin, 12 bytes of 6-bit scales and minima (`scales_and_mins` in quant/kquants.py), qh, qs */
static inline void pack_with_mins(int kind, const uint8_t *block, int r, uint8_t *out)
{
    const uint8_t *s = block + 4, *m = block + 8, *low = block + 12;
    memcpy(out + K_D + 2 * r, block, 2);
    memcpy(out + K_DMIN + 2 * r, block + 2, 2);
    for (int j = 0; j < 8; j++) {
        int i = j & 3;
        int scale = j < 4 ? s[i] & 63 : (low[i] & 15) | s[i] >> 6 << 4;
        int min = j < 4 ? m[i] & 63 : low[i] >> 4 | m[i] >> 6 << 4;
        out[K_SCALES + 16 * j + r] = (uint8_t)scale;
        out[K_MINS + 32 * (j / 2) + 2 * r + j % 2] = (uint8_t)min;
    }
    if (kind == W_Q5_K)
        pack_quads(block + 16, 8, r, out + k_qh(kind));
    pack_quads(block + (kind == W_Q5_K ? 48 : 16), 32, r, out + k_q(kind));
}

/* Q6_K: ql, qh, 16 signed scales, d */
static inline void pack_q6_k(const uint8_t *block, int r, uint8_t *out)
{
    memcpy(out + K_D + 2 * r, block + 208, 2);
    for (int j = 0; j < 16; j++)
        out[K_SCALES + 16 * j + r] = block[192 + j];
    pack_quads(block, 32, r, out + k_q(W_Q6_K));
    pack_quads(block + 128, 16, r, out + k_qh(W_Q6_K));
}

/* Q2_K: 16 scales and minima, qs, d, dmin */
static inline void pack_q2_k(const uint8_t *block, int r, uint8_t *out)
{
    memcpy(out + K_D + 2 * r, block + 80, 2);
    memcpy(out + K_DMIN + 2 * r, block + 82, 2);
    for (int j = 0; j < 16; j++)
        out[K_SCALES + 16 * j + r] = block[j];
    pack_quads(block + 16, 16, r, out + k_q(W_Q2_K));
}

/* Codes of 256 weights. */
static void pack_levels(int kind, const coded *n, int r, uint8_t *out)
{
    uint8_t low[128] = {0}, high[32] = {0};
    memcpy(out + K_D + 4 * r, &n->d, 4);
    for (int j = 0; j < 16 && kind != W_LEVELS2; j++)
        if (kind != W_LEVELS4)
            out[K_SCALES + 16 * j + r] = n->scale[j];
        else if (j % 2 == 0)
            out[K_SCALES + 8 * j + r] = n->scale[j];
    for (int j = 0; j < 8; j++)
        for (int i = 0; i < 32; i++) {
            const uint8_t code = n->code[32 * j + i];
            if (kind == W_LEVELS4)
                low[32 * (j / 2) + i] |= (uint8_t)(code << 4 * (j % 2));
            else {
                low[32 * (j / 4) + i] |= (uint8_t)((code & 3) << 2 * (j % 4));
                high[i] |= (uint8_t)(code >> 2 << j);
            }
        }
    pack_quads(low, kind == W_LEVELS4 ? 32 : 16, r, out + k_q(kind));
    if (kind == W_Q3_K || kind == W_LEVELS3)
        pack_quads(high, 8, r, out + k_qh(kind));
}

/* Codes of 32 weights, of block b of the row, part `part` of a block of the file. */
static void pack_levels32(int kind, const uint8_t *block, int part, const uint8_t *code, int r, uint8_t *group,
                          sections at, ptrdiff_t b)
{
    uint8_t both[16];
    for (int i = 0; i < 16; i++)
        both[i] = (uint8_t)(code[i] | code[16 + i] << 4);
    pack_quads(both, 4, r, group + at.q + 256 * b);
    group += at.d + b * d_bytes(kind);
    if (kind == W_MXFP4)
        group[r] = block[0];
    else if (kind == W_LEVELS32)
        memcpy(group + 2 * r, block, 2);
    else
        for (int j = 0; j < 2; j++) {
            uint16_t scale = half_of_ue4m3(block[2 * part + j]);
            memcpy(group + 32 * j + 2 * r, &scale, 2);
        }
}

/* A row of a type that has levels; blocks: of the file. */
static void pack_leveled_row(int type, const uint8_t *in, const int8_t *points, const uint8_t *code_of, int r,
                             ptrdiff_t blocks, uint8_t *group)
{
    const block_type is = TYPES[type].is;
    const int parts = is.size / 32;
    const sections at = sections_of(is.kind, blocks * parts);
    for (ptrdiff_t b = 0; b < blocks; b++, in += is.bytes) {
        coded n;
        TYPES[type].levels->read(in, points, &n);
        for (int i = 0; i < is.size && is.points; i++)
            n.code[i] = code_of[n.code[i]];
        if (in_blocks_of_32(is.kind))
            for (int p = 0; p < parts; p++)
                pack_levels32(is.kind, in, p, n.code + 32 * p, r, group, at, b * parts + p);
        else
            pack_levels(is.kind, &n, r, group + LEVELS_BYTES + b * k_bytes(is.kind));
    }
}

static void pack_leveled(int type, const uint8_t *in, const int8_t *points, int rows, ptrdiff_t blocks, uint8_t *group)
{
    const leveled *levels = TYPES[type].levels;
    uint8_t code_of[256] = {0};
    for (int i = 0; i < levels->n; i++)
        code_of[(uint8_t)levels->level[i]] = (uint8_t)i;
    for (int i = 0; i < LEVELS_BYTES; i++)
        group[i] = (uint8_t)(levels->level[i % 16] + level_offset(TYPES[type].is.kind));
    for (int r = 0; r < rows; r++)
        pack_leveled_row(type, in + r * blocks * TYPES[type].is.bytes, points, code_of, r, blocks, group);
}

/* Blocks outside, rows inside: what is written at a time is a few KB, which stay in the first cache. */
static inline void pack_rows(int kind, int type, const uint8_t *in, int rows, ptrdiff_t blocks, uint8_t *group)
{
    const ptrdiff_t bytes = TYPES[type].is.bytes;
    const sections at = sections_of(in_blocks_of_32(kind) ? kind : W_Q4_0, blocks);
    for (ptrdiff_t b = 0; b < blocks; b++)
        for (int r = 0; r < rows; r++) {
            const uint8_t *block = in + (r * blocks + b) * bytes;
            if (in_blocks_of_32(kind))
                pack_simple(kind, type, block, r, group, at, b);
            else if (kind == W_Q6_K)
                pack_q6_k(block, r, group + b * k_bytes(kind));
            else if (kind == W_Q2_K)
                pack_q2_k(block, r, group + b * k_bytes(kind));
            else
                pack_with_mins(kind, block, r, group + b * k_bytes(kind));
        }
}

static void pack_group(int type, const uint8_t *in, const int8_t *points, int rows, ptrdiff_t blocks, uint8_t *group)
{
    if (TYPES[type].levels) {
        pack_leveled(type, in, points, rows, blocks, group);
        return;
    }
    switch (TYPES[type].is.kind) { /* known to the compiler */
    case W_Q4_0: pack_rows(W_Q4_0, type, in, rows, blocks, group); break;
    case W_Q4_1: pack_rows(W_Q4_1, type, in, rows, blocks, group); break;
    case W_Q5_0: pack_rows(W_Q5_0, type, in, rows, blocks, group); break;
    case W_Q5_1: pack_rows(W_Q5_1, type, in, rows, blocks, group); break;
    case W_Q8_0: pack_rows(W_Q8_0, type, in, rows, blocks, group); break;
    case W_Q4_K: pack_rows(W_Q4_K, type, in, rows, blocks, group); break;
    case W_Q5_K: pack_rows(W_Q5_K, type, in, rows, blocks, group); break;
    default: pack_rows(TYPES[type].is.kind, type, in, rows, blocks, group);
    }
}

void ref_engine_pack(int type, const uint8_t *in, const int8_t *points, ptrdiff_t rows, ptrdiff_t columns, uint8_t *out,
                     int threads)
{
    const ptrdiff_t groups = (rows + GROUP - 1) / GROUP, blocks = columns / TYPES[type].is.size;
    const ptrdiff_t size = (ptrdiff_t)ref_engine_packed_bytes(type, GROUP, columns);
    const ptrdiff_t row = blocks * TYPES[type].is.bytes;
    (void)threads; /* unused without OpenMP */
#pragma omp parallel for num_threads(threads) schedule(static)
    for (ptrdiff_t g = 0; g < groups; g++) {
        int n = rows - g * GROUP < GROUP ? (int)(rows - g * GROUP) : GROUP;
        if (n < GROUP)
            memset(out + g * size, 0, (size_t)size);
        pack_group(type, in + g * GROUP * row, points, n, blocks, out + g * size);
    }
}
