/* Weights to blocks: what each instruction set offers for it. All sizes, indices and numbers are checked by the caller. */
#ifndef REF_ENGINE_QUANTIZE_H
#define REF_ENGINE_QUANTIZE_H

#include <stddef.h>
#include <stdint.h>

/* A codebook prepared for searching, as quant/lattice.py makes it. A lattice point's number has `bits` bits for the rank
   of each of `width` coordinates. */
typedef struct {
    int bits, width, top;            /* top: the largest rank */
    const int32_t *index_of;         /* (2^16 or 2^12,) codebook index by number, or -1 */
    const int32_t *start, *count;    /* the same length: where a point's list of neighbours begins, and how long it is */
    const uint16_t *near;            /* numbers of neighbours, list after list, and 16 more that are not used */
    const uint16_t *points;          /* number by codebook index */
} codebook;

/* Sixteen values, and the fifteen numbers halfway between neighbours. */
typedef struct { float value[16], middle[15]; } value_table;

typedef struct {
    const float *x;          /* the weights, block after block */
    const float *importance; /* (blocks_in_row * weights of a block) or NULL */
    const float *spread;     /* (rows,) mean square of a row, for types weighted by row; else NULL */
    const codebook *grid;    /* of types with a codebook */
    const value_table *values; /* of types with a table of sixteen values */
    ptrdiff_t blocks_in_row;
    uint8_t *out;            /* the records, block after block */
} quantize_job;

/* Records of blocks first .. first + count - 1, count at most `batch` (blocks of one number: any count). Returns 0, or 1
   where an error in a search is not finite. */
typedef int (*quantiser)(const quantize_job *job, ptrdiff_t first, int count);

/* In the order of QUANTIZE_KINDS in _quantize.pyx. */
enum {
    K_Q4_0, K_Q4_1, K_Q5_0, K_Q5_1, K_Q8_0, K_Q2_K, K_Q3_K, K_Q4_K, K_Q5_K, K_Q6_K, K_IQ1_S, K_IQ1_M, K_IQ2_XXS, K_IQ2_XS,
    K_IQ2_S, K_IQ3_XXS, K_IQ3_S, K_IQ4_NL, K_IQ4_XS, K_TQ1_0, K_TQ2_0, K_MXFP4, K_NVFP4, K_Q1_0, K_Q2_0, K_F16, K_BF16,
    K_COUNT
};

typedef struct {
    int weights, bytes, by_row, needs_grid, needs_values; /* of a block; by_row: looks at `spread` */
    quantiser run;
} quantize_kind;

typedef struct {
    int batch; /* blocks at a time */
    const quantize_kind *kinds;
    /* (rows, n) -> (rows,): the sum of squares of each row, in order */
    void (*squares)(const float *x, ptrdiff_t rows, ptrdiff_t n, float *out);
    /* the first number that is not finite, or n */
    ptrdiff_t (*not_finite)(const float *x, ptrdiff_t n);
} quantize_table;

/* The table of an instruction set (ISA_.. of table.h), or NULL if it was not compiled in. */
const quantize_table *ref_engine_quantize_table(int isa);

/* All blocks of the job's rows. spread: room for (rows,) numbers, of types weighted by row. Returns QUANTIZED, or what is
   wrong: the number of a weight that is not finite, the search that failed. */
enum { QUANTIZED = -1, SEARCH_FAILED = -2 };
ptrdiff_t ref_engine_quantize(const quantize_table *table, int kind, quantize_job job, ptrdiff_t rows, float *spread,
                              int threads);

#endif
