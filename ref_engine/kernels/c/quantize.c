/* A whole matrix, divided among threads by blocks: no sum depends on how. */
#include "quantize.h"
#include "table.h"

#define WEIGHTS_AT_A_TIME 16384

extern const quantize_table ref_engine_quantize_baseline;
#ifdef REF_ENGINE_X86
extern const quantize_table ref_engine_quantize_avx2, ref_engine_quantize_avx512;
#endif

const quantize_table *ref_engine_quantize_table(int isa)
{
    switch (isa) {
    case ISA_BASELINE:
        return &ref_engine_quantize_baseline;
#ifdef REF_ENGINE_X86
    case ISA_AVX2:
        return &ref_engine_quantize_avx2;
    case ISA_AVX512:
    case ISA_AVX512_VNNI: /* has nothing more for this */
        return &ref_engine_quantize_avx512;
#endif
#ifdef REF_ENGINE_NEON
    case ISA_NEON: /* any 64-bit ARM has what this takes */
        return &ref_engine_quantize_baseline;
#endif
    default:
        return NULL;
    }
}

/* The number of the first weight that is not finite, or n. */
static ptrdiff_t first_not_finite(const quantize_table *table, const float *x, ptrdiff_t n, int threads)
{
    ptrdiff_t parts = (n + WEIGHTS_AT_A_TIME - 1) / WEIGHTS_AT_A_TIME, found = n;
    (void)threads; /* unused without OpenMP */
#pragma omp parallel for num_threads(threads) schedule(static) reduction(min : found)
    for (ptrdiff_t p = 0; p < parts; p++) {
        ptrdiff_t at = p * WEIGHTS_AT_A_TIME, some = n - at < WEIGHTS_AT_A_TIME ? n - at : WEIGHTS_AT_A_TIME;
        ptrdiff_t here = table->not_finite(x + at, some);
        if (here < some && at + here < found)
            found = at + here;
    }
    return found;
}

static void spread_of_rows(const quantize_table *table, const float *x, ptrdiff_t rows, ptrdiff_t n, float *out, int threads)
{
    (void)threads;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (ptrdiff_t r = 0; r < rows; r += 8) {
        ptrdiff_t some = rows - r < 8 ? rows - r : 8;
        table->squares(x + r * n, some, n, out + r);
        for (ptrdiff_t i = r; i < r + some; i++)
            out[i] /= (float)n;
    }
}

ptrdiff_t ref_engine_quantize(const quantize_table *table, int kind, quantize_job job, ptrdiff_t rows, float *spread,
                              int threads)
{
    const quantize_kind *k = table->kinds + kind;
    const ptrdiff_t columns = job.blocks_in_row * k->weights, n = rows * columns, blocks = rows * job.blocks_in_row;
    ptrdiff_t bad = first_not_finite(table, job.x, n, threads);
    if (bad < n)
        return bad;
    if (k->by_row && job.importance) {
        spread_of_rows(table, job.x, rows, columns, spread, threads);
        job.spread = spread;
    }
    const ptrdiff_t batch = k->weights == 1 ? WEIGHTS_AT_A_TIME : table->batch, batches = (blocks + batch - 1) / batch;
    int failed = 0;
#pragma omp parallel for num_threads(threads) schedule(dynamic, 4) reduction(| : failed)
    for (ptrdiff_t b = 0; b < batches; b++) {
        ptrdiff_t first = b * batch;
        failed |= k->run(&job, first, (int)(blocks - first < batch ? blocks - first : batch));
    }
    return failed ? SEARCH_FAILED : QUANTIZED;
}
