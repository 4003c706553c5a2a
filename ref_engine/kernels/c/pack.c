/* Rows of ggml blocks -> groups of 16 interleaved rows. See pack.h for the layout. */
#define _DEFAULT_SOURCE /* madvise */
#include "pack.h"

#include <stdlib.h>
#include <string.h>
#if defined(__unix__) || defined(__APPLE__)
#include <sys/mman.h>
#endif

static const struct {
    int bytes, m, qh, q; /* block size, and where its parts begin (ref_engine/quant/simple.py) */
} SIMPLE[] = {{18, 0, 0, 2}, {20, 2, 0, 4}, {22, 0, 2, 6}, {24, 2, 4, 8}, {34, 0, 0, 2}};

static const int K_BLOCK[] = {144, 176, 210};

size_t ref_engine_packed_bytes(int kind, ptrdiff_t rows, ptrdiff_t blocks)
{
    ptrdiff_t groups = (rows + GROUP - 1) / GROUP;
    return (size_t)(groups * packed_group(kind, blocks));
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

static inline void pack_simple(int kind, const uint8_t *block, int r, uint8_t *group, sections at, ptrdiff_t b)
{
    const uint8_t *q = block + SIMPLE[kind].q;
    uint8_t *out = group + at.q + b * (kind == W_Q8_0 ? 512 : 256) + 4 * r;
    memcpy(group + b * 32 + 2 * r, block, 2);
    if (has_m(kind))
        memcpy(group + at.m + b * 32 + 2 * r, block + SIMPLE[kind].m, 2);
    if (has_qh(kind)) {
        const uint8_t *qh = block + SIMPLE[kind].qh;
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
        pack_quads(block + 16, 8, r, out + K_QH);
    pack_quads(block + (kind == W_Q5_K ? 48 : 16), 32, r, out + K_Q);
}

/* Q6_K: ql, qh, 16 signed scales, d */
static inline void pack_q6_k(const uint8_t *block, int r, uint8_t *out)
{
    memcpy(out + K_D + 2 * r, block + 208, 2);
    for (int j = 0; j < 16; j++)
        out[K_SCALES + 16 * j + r] = block[192 + j];
    pack_quads(block, 32, r, out + K_Q);
    pack_quads(block + 128, 16, r, out + K_QH);
}

/* Blocks outside, rows inside: what is written at a time is a few KB, which stay in the first cache. */
static inline void pack_rows(int kind, const uint8_t *in, int rows, ptrdiff_t blocks, uint8_t *group)
{
    sections at = sections_of(kind <= W_Q8_0 ? kind : W_Q4_0, blocks);
    for (ptrdiff_t b = 0; b < blocks; b++)
        for (int r = 0; r < rows; r++)
            if (kind <= W_Q8_0)
                pack_simple(kind, in + (r * blocks + b) * SIMPLE[kind].bytes, r, group, at, b);
            else if (kind == W_Q6_K)
                pack_q6_k(in + (r * blocks + b) * 210, r, group + b * k_bytes(kind));
            else
                pack_with_mins(kind, in + (r * blocks + b) * K_BLOCK[kind - W_Q4_K], r, group + b * k_bytes(kind));
}

/* The same with the kind known to the compiler. */
static void pack_group(int kind, const uint8_t *in, int rows, ptrdiff_t blocks, uint8_t *group)
{
    switch (kind) {
    case W_Q4_0: pack_rows(W_Q4_0, in, rows, blocks, group); break;
    case W_Q4_1: pack_rows(W_Q4_1, in, rows, blocks, group); break;
    case W_Q5_0: pack_rows(W_Q5_0, in, rows, blocks, group); break;
    case W_Q5_1: pack_rows(W_Q5_1, in, rows, blocks, group); break;
    case W_Q8_0: pack_rows(W_Q8_0, in, rows, blocks, group); break;
    case W_Q4_K: pack_rows(W_Q4_K, in, rows, blocks, group); break;
    case W_Q5_K: pack_rows(W_Q5_K, in, rows, blocks, group); break;
    case W_Q6_K: pack_rows(W_Q6_K, in, rows, blocks, group); break;
    }
}

void ref_engine_pack(int kind, const uint8_t *in, ptrdiff_t rows, ptrdiff_t blocks, uint8_t *out, int threads)
{
    ptrdiff_t groups = (rows + GROUP - 1) / GROUP;
    ptrdiff_t size = (ptrdiff_t)ref_engine_packed_bytes(kind, GROUP, blocks);
    ptrdiff_t row = blocks * (kind <= W_Q8_0 ? SIMPLE[kind].bytes : K_BLOCK[kind - W_Q4_K]);
    (void)threads; /* unused without OpenMP */
#pragma omp parallel for num_threads(threads) schedule(static)
    for (ptrdiff_t g = 0; g < groups; g++) {
        int n = rows - g * GROUP < GROUP ? (int)(rows - g * GROUP) : GROUP;
        if (n < GROUP)
            memset(out + g * size, 0, (size_t)size);
        pack_group(kind, in + g * GROUP * row, n, blocks, out + g * size);
    }
}
