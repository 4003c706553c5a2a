/* The layout of repacked weights: groups of 16 rows, so that a vector holds the same thing of 16 rows.

   Four weights that follow each other in a row are a quad; a quad of 16 rows is 64 bytes, row after row. Blocks of 32
   have 8 quads. Rows that are missing in the last group are zeros.

   Kinds with levels (has_levels) begin with 64 bytes: four times the 16 bytes that their indices stand for, each
   level_offset() more than the weight. All types whose weights are one of 16 levels, or fewer, times a scale share them:
       W_LEVELS32  4 bits, blocks of 32 with a float16           IQ4_NL, Q1_0, Q2_0
       W_MXFP4     the same, with the byte of a power of two
       W_NVFP4     the same, with two float16, of 16 weights each
       W_LEVELS2   2 bits, blocks of 256 with a float32          TQ1_0, TQ2_0
       W_LEVELS3   3 bits, the same, and a signed byte for 16    IQ1_S, IQ1_M, IQ2_XXS, IQ2_XS, IQ2_S
       W_Q3_K      as W_LEVELS3
       W_LEVELS4   4 bits, the same, and a signed byte for 32    IQ4_XS, IQ3_XXS, IQ3_S

   A group of B blocks of 32, each section filled up to 64 bytes:
       levels 64 bytes                    W_LEVELS32, W_MXFP4, W_NVFP4
       d    B x 16 float16                W_MXFP4: bytes; W_NVFP4: B x 2 x 16 float16
       m    B x 16 float16                Q4_1, Q5_1
       qh   B x 64 bytes                  Q5_0, Q5_1: bit j of byte 4r + i is bit 4 of weight 4j + i of row r
       q    B x 256 bytes                 low nibbles: quads 0..3, high nibbles: quads 4..7
            B x 512 bytes                 Q8_0, each with its top bit turned over: an unsigned number, 128 more
   Blocks of 256: the levels, if there are any, then block after block:
       K_D, K_DMIN ... below */
#ifndef REF_ENGINE_PACK_H
#define REF_ENGINE_PACK_H

#include "table.h"

#define GROUP 16
#define LEVELS_BYTES 64
#define FETCH_AHEAD 4096 /* bytes */
#define ALIGN64(n) (((n) + 63) & ~(ptrdiff_t)63)

static inline int has_m(int kind) { return kind == W_Q4_1 || kind == W_Q5_1; }
static inline int has_qh(int kind) { return kind == W_Q5_0 || kind == W_Q5_1; }
static inline int has_levels(int kind)
{
    return (W_LEVELS32 <= kind && kind <= W_NVFP4) || (W_Q3_K <= kind && kind <= W_LEVELS4);
}
/* Unsigned numbers for the dot instructions; those of few bits are faster without VNNI. */
static inline int level_offset(int kind)
{
    return kind == W_MXFP4 || kind == W_NVFP4 ? 16 : kind == W_Q3_K ? 32 : kind == W_LEVELS2 ? 1 : 128;
}

/* Where the sections of a group of 32-weight blocks begin. */
typedef struct {
    ptrdiff_t d, m, qh, q, bytes;
} sections;

static inline int d_bytes(int kind) { return kind == W_MXFP4 ? 16 : kind == W_NVFP4 ? 64 : 32; }
static inline int q_bytes(int kind) { return kind == W_Q8_0 ? 512 : 256; }

static inline sections sections_of(int kind, ptrdiff_t blocks)
{
    sections s;
    s.d = has_levels(kind) ? LEVELS_BYTES : 0;
    s.m = s.d + ALIGN64(blocks * d_bytes(kind));
    s.qh = s.m + (has_m(kind) ? ALIGN64(blocks * 32) : 0);
    s.q = s.qh + (has_qh(kind) ? blocks * 64 : 0);
    s.bytes = s.q + blocks * q_bytes(kind);
    return s;
}

/* What a block takes of its group, scales and all. */
static inline int block_bytes32(int kind)
{
    return d_bytes(kind) + 32 * has_m(kind) + 64 * has_qh(kind) + q_bytes(kind);
}

/* Blocks of 256: offsets within one block of 16 rows. */
#define K_D 0      /* 16 float16, with levels float32 */
#define K_DMIN 32  /* 16 float16: Q2_K, Q4_K, Q5_K */
#define K_SCALES 64 /* Q4_K, Q5_K, W_LEVELS4: 8 sub-blocks x 16 bytes; Q2_K (high nibbles: minima), Q3_K, Q6_K,
                       W_LEVELS3: 16 x 16 bytes; W_LEVELS2: none */
#define K_MINS 192 /* Q4_K, Q5_K: 4 pairs of sub-blocks x 16 rows x 2 bytes */
/* Behind the scales: of 4 bits 4 runs x 8 quads x 64: low nibbles sub-block 2 run, high 2 run + 1 (Q6_K: ql);
   of 2 bits 2 halves x 8 quads x 64: two bits a run, sub-block 4 half + run */
static inline int k_q(int kind) { return kind == W_LEVELS4 ? 192 : kind == W_LEVELS2 ? 64 : 320; }
/* Q5_K: 8 quads x 64, bit j: bit 4 of sub-block j; Q3_K, W_LEVELS3: the same for bit 2;
   Q6_K: 2 halves x 8 quads x 64, two bits a run */
static inline int k_two_bits(int kind) { return kind == W_Q2_K || (W_Q3_K <= kind && kind <= W_LEVELS3); }
static inline int k_qh(int kind) { return k_q(kind) + (k_two_bits(kind) ? 1024 : 2048); }

static inline ptrdiff_t k_bytes(int kind)
{
    return k_qh(kind) + (kind == W_Q6_K ? 1024 : kind == W_Q5_K || kind == W_Q3_K || kind == W_LEVELS3 ? 512 : 0);
}

/* Bytes of a whole group of rows. */
static inline ptrdiff_t packed_group(int kind, ptrdiff_t blocks)
{
    return in_blocks_of_32(kind) ? sections_of(kind, blocks).bytes
                                 : (has_levels(kind) ? LEVELS_BYTES : 0) + blocks * k_bytes(kind);
}

#endif
