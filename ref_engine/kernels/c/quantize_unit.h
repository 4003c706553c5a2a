/* The bodies of all quantisers, for the instruction set that the including quantize_unit_*.c is compiled for. */
#include "quantize_lanes.h"

#include "quantize_fit.h"
#include "quantize_groups.h"

#include "quantize_k.h"
#include "quantize_small.h"

#include "quantize_fp4.h"
#include "quantize_iq4.h"
#include "quantize_plain.h"
#include "quantize_ternary.h"

#include "quantize_points.h"

#include "quantize_iq2.h"
#include "quantize_iq3.h"

#include "quantize_iq1.h"

static void squares(const float *x, ptrdiff_t rows, ptrdiff_t n, float *out)
{
    sums_of_rows(x, rows, n, SUM_OF_SQUARES, out);
}

static ptrdiff_t not_finite(const float *x, ptrdiff_t n)
{
    ptrdiff_t i = 0;
    for (; i + LANES <= n; i += LANES)
        if (any(~(magnitude(load(x + i)) <= FLT_MAX)))
            break;
    for (; i < n && fabsf(x[i]) <= FLT_MAX; i++)
        ;
    return i;
}

static const quantize_kind kinds[K_COUNT] = {
    [K_Q4_0] = {32, 18, 1, 0, 0, quantize_q4_0},       [K_Q4_1] = {32, 20, 1, 0, 0, quantize_q4_1},
    [K_Q5_0] = {32, 22, 1, 0, 0, quantize_q5_0},       [K_Q5_1] = {32, 24, 1, 0, 0, quantize_q5_1},
    [K_Q8_0] = {32, 34, 0, 0, 0, quantize_q8_0},       [K_Q2_K] = {256, 84, 0, 0, 0, quantize_q2_k},
    [K_Q3_K] = {256, 110, 0, 0, 0, quantize_q3_k},     [K_Q4_K] = {256, 144, 0, 0, 0, quantize_q4_k},
    [K_Q5_K] = {256, 176, 0, 0, 0, quantize_q5_k},     [K_Q6_K] = {256, 210, 0, 0, 0, quantize_q6_k},
    [K_IQ1_S] = {256, 50, 0, 1, 0, quantize_iq1_s},    [K_IQ1_M] = {256, 56, 0, 1, 0, quantize_iq1_m},
    [K_IQ2_XXS] = {256, 66, 0, 1, 0, quantize_iq2_xxs}, [K_IQ2_XS] = {256, 74, 0, 1, 0, quantize_iq2_xs},
    [K_IQ2_S] = {256, 82, 0, 1, 0, quantize_iq2_s},    [K_IQ3_XXS] = {256, 98, 0, 1, 0, quantize_iq3_xxs},
    [K_IQ3_S] = {256, 110, 0, 1, 0, quantize_iq3_s},   [K_IQ4_NL] = {32, 18, 0, 0, 1, quantize_iq4_nl},
    [K_IQ4_XS] = {256, 136, 0, 0, 1, quantize_iq4_xs}, [K_TQ1_0] = {256, 54, 0, 0, 0, quantize_tq1_0},
    [K_TQ2_0] = {256, 66, 0, 0, 0, quantize_tq2_0},    [K_MXFP4] = {32, 17, 0, 0, 1, quantize_mxfp4},
    [K_NVFP4] = {64, 36, 0, 0, 1, quantize_nvfp4},     [K_Q1_0] = {128, 18, 0, 0, 0, quantize_q1_0},
    [K_Q2_0] = {64, 18, 0, 0, 0, quantize_q2_0},       [K_F16] = {1, 2, 0, 0, 0, quantize_f16},
    [K_BF16] = {1, 2, 0, 0, 0, quantize_bf16},
};

const quantize_table REF_ENGINE_QUANTIZE = {LANES, kinds, squares, not_finite};
