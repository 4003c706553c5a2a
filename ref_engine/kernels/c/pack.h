/* The layout of repacked weights: groups of 16 rows, so that a vector holds the same thing of 16 rows.

   Four weights that follow each other in a row are a quad; a quad of 16 rows is 64 bytes, row after row. Blocks of 32
   have 8 quads. Rows that are missing in the last group are zeros.

   Q4_0 .. Q8_0, a group of B blocks, each section filled up to 64 bytes:
       d    B x 16 float16
       m    B x 16 float16                 Q4_1, Q5_1
       qh   B x 64 bytes                   Q5_0, Q5_1: bit j of byte 4r + i is bit 4 of weight 4j + i of row r
       q    B x 256 bytes                  low nibbles: quads 0..3, high nibbles: quads 4..7
            B x 512 bytes                  Q8_0, each with its top bit turned over: an unsigned number, 128 more
   Q4_K, Q5_K, Q6_K, block after block:
       K_D, K_DMIN ... below */
#ifndef REF_ENGINE_PACK_H
#define REF_ENGINE_PACK_H

#include "table.h"

#define GROUP 16
#define FETCH_AHEAD 4096 /* bytes */
#define ALIGN64(n) (((n) + 63) & ~(ptrdiff_t)63)

static inline int has_m(int kind) { return kind == W_Q4_1 || kind == W_Q5_1; }
static inline int has_qh(int kind) { return kind == W_Q5_0 || kind == W_Q5_1; }

/* Where the sections of a group of 32-weight blocks begin. */
typedef struct {
    ptrdiff_t m, qh, q, bytes;
} sections;

static inline sections sections_of(int kind, ptrdiff_t blocks)
{
    ptrdiff_t scales = ALIGN64(blocks * 32);
    sections s;
    s.m = scales;
    s.qh = s.m + (has_m(kind) ? scales : 0);
    s.q = s.qh + (has_qh(kind) ? blocks * 64 : 0);
    s.bytes = s.q + blocks * (kind == W_Q8_0 ? 512 : 256);
    return s;
}

/* What a block takes of its group, scales and all. */
static inline int block_bytes32(int kind)
{
    return 32 + 32 * has_m(kind) + 64 * has_qh(kind) + (kind == W_Q8_0 ? 512 : 256);
}

/* Blocks of 256: offsets within one block of 16 rows. */
#define K_D 0      /* 16 float16 */
#define K_DMIN 32  /* 16 float16 (Q6_K: unused) */
#define K_SCALES 64 /* Q4_K, Q5_K: 8 sub-blocks x 16 bytes; Q6_K: 16 x 16 signed bytes */
#define K_MINS 192 /* Q4_K, Q5_K: 4 pairs of sub-blocks x 16 rows x 2 bytes */
#define K_Q 320    /* Q4_K, Q5_K: 4 runs x 8 quads x 64: low nibbles sub-block 2 run, high 2 run + 1 (Q6_K: ql) */
#define K_QH 2368  /* Q5_K: 8 quads x 64, bit j: bit 4 of sub-block j; Q6_K: 2 halves x 8 quads x 64, two bits a run */

static inline ptrdiff_t k_bytes(int kind)
{
    return kind == W_Q4_K ? K_QH : kind == W_Q5_K ? K_QH + 512 : K_QH + 1024;
}

/* Bytes of a whole group of rows. */
static inline ptrdiff_t packed_group(int kind, ptrdiff_t blocks)
{
    return kind <= W_Q8_0 ? sections_of(kind, blocks).bytes : blocks * k_bytes(kind);
}

#endif
