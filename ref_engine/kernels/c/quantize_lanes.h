/* Words of LANES numbers for the quantisers. Each lane is a group of weights (or a weight) of its own, and sums run from
   word to word in order, so that the number of lanes changes no bit. */
#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "half.h"
#include "quantize.h"

#ifdef REF_ENGINE_NO_INLINE /* fast to compile, for sanitisers */
#define OP static inline __attribute__((unused))
#else
#define OP static inline __attribute__((always_inline, unused))
#endif

#if defined(__AVX512F__)
#define LANES 16
#define SPLAT_(x) {x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x}
#define COUNT_ {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
#elif defined(__AVX2__)
#define LANES 8
#define SPLAT_(x) {x, x, x, x, x, x, x, x}
#define COUNT_ {0, 1, 2, 3, 4, 5, 6, 7}
#else
#define LANES 4
#define SPLAT_(x) {x, x, x, x}
#define COUNT_ {0, 1, 2, 3}
#endif

typedef float vf __attribute__((vector_size(4 * LANES), may_alias));
typedef int32_t vi __attribute__((vector_size(4 * LANES), may_alias)); /* integers, or 0 and -1 as a mask */

OP vf splat(float x) { return (vf)SPLAT_(x); }
OP vi splat_int(int32_t x) { return (vi)SPLAT_(x); }
OP vi count_up(void) { return (vi)COUNT_; }
OP vf load(const float *p) { vf y; memcpy(&y, p, sizeof y); return y; }
OP void store(float *p, vf a) { memcpy(p, &a, sizeof a); }
OP vf to_float(vi a) { return __builtin_convertvector(a, vf); }

/* to_int cuts off the fraction; what does not fit becomes -2^31, as x86 converts. put_bytes keeps the low eight bits. */
#if defined(__AVX512F__)
OP vf square_root(vf a) { return (vf)_mm512_sqrt_ps((__m512)a); }
OP vi most(vi a, vi b) { return (vi)_mm512_max_epi32((__m512i)a, (__m512i)b); }
OP vi least_of(vi a, vi b) { return (vi)_mm512_min_epi32((__m512i)a, (__m512i)b); }
OP int mask_bits(vi m) { return _mm512_movepi32_mask((__m512i)m); }
OP vi to_int(vf x) { return (vi)_mm512_cvttps_epi32((__m512)x); }
OP void put_bytes(vi a, uint8_t *p) { _mm_storeu_si128((__m128i *)(void *)p, _mm512_cvtepi32_epi8((__m512i)a)); }
#elif defined(__AVX2__)
OP vf square_root(vf a) { return (vf)_mm256_sqrt_ps((__m256)a); }
OP vi most(vi a, vi b) { return (vi)_mm256_max_epi32((__m256i)a, (__m256i)b); }
OP vi least_of(vi a, vi b) { return (vi)_mm256_min_epi32((__m256i)a, (__m256i)b); }
OP int mask_bits(vi m) { return _mm256_movemask_ps((__m256)m); }
OP vi to_int(vf x) { return (vi)_mm256_cvttps_epi32((__m256)x); }
OP void put_bytes(vi a, uint8_t *p)
{
    __m256i low = (__m256i)(a & 255);
    __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1));
    _mm_storel_epi64((__m128i *)(void *)p, _mm_packus_epi16(words, words));
}
#else
#if defined(__SSE2__)
OP vf square_root(vf a) { return (vf)_mm_sqrt_ps((__m128)a); }
OP int mask_bits(vi m) { return _mm_movemask_ps((__m128)m); }
OP vi to_int(vf x) { return (vi)_mm_cvttps_epi32((__m128)x); }
OP void put_bytes(vi a, uint8_t *p)
{
    __m128i low = (__m128i)(a & 255), words = _mm_packs_epi32(low, low);
    int32_t four = _mm_cvtsi128_si32(_mm_packus_epi16(words, words));
    memcpy(p, &four, 4);
}
#else
OP vf square_root(vf a) { for (int l = 0; l < LANES; l++) a[l] = sqrtf(a[l]); return a; }
OP int mask_bits(vi m) { int y = 0; for (int l = 0; l < LANES; l++) y |= (m[l] & 1) << l; return y; }
OP vi to_int(vf x)
{
    vi y;
    for (int l = 0; l < LANES; l++)
        y[l] = fabsf(x[l]) < 2147483648.0f ? (int32_t)x[l] : INT32_MIN;
    return y;
}
OP void put_bytes(vi a, uint8_t *p) { for (int l = 0; l < LANES; l++) p[l] = (uint8_t)a[l]; }
#endif
OP vi most(vi a, vi b) { vi m = a > b; return (m & a) | (~m & b); }
OP vi least_of(vi a, vi b) { vi m = a < b; return (m & a) | (~m & b); }
#endif

OP int any(vi m) { return mask_bits(m) != 0; }
OP vi pick_int(vi m, vi a, vi b) { return (m & a) | (~m & b); }
OP vf pick(vi m, vf a, vf b) { return (vf)pick_int(m, (vi)a, (vi)b); }
OP vf magnitude(vf a) { return (vf)((vi)a & 0x7fffffff); }
/* the second where they are equal or one is NaN */
OP vf larger(vf a, vf b) { return pick(a > b, a, b); }

/* The nearest integer, ties to even, by adding 1.5 * 2^23; beyond 2^22 and for NaN whatever bits that leaves. */
OP vi nearest_int(vf x) { return ((vi)(x + 12582912.0f) & 0x007fffff) - 0x00400000; }
OP vi nearest_in(vf x, int low, int high)
{
    return least_of(most(nearest_int(x), splat_int(low)), splat_int(high));
}
OP vf nearest_between(vf x, int low, int high) { return to_float(nearest_in(x, low, high)); }
/* C's roundf for |x| < 2^31: the nearest whole number, halves away from zero; -2^31 for others. */
OP vi round_away(vf x)
{
    vi whole = to_int(x), up = magnitude(x - to_float(whole)) >= 0.5f, fits = magnitude(x) < 2147483648.0f;
    return whole + (fits & up & ((x < 0) | 1));
}

/* One number at a time, for what is done once for a block. */
OP int32_t nearest_int1(float x)
{
    union { float f; int32_t i; } v = {x + 12582912.0f};
    return (v.i & 0x007fffff) - 0x00400000;
}
OP int clip1(int a, int low, int high) { return a < low ? low : a > high ? high : a; }
OP float halved(float x) { return half_to_float(float_to_half(x)); }
OP void put_half(uint8_t *at, float x) { uint16_t h = float_to_half(x); memcpy(at, &h, 2); }
/* of the values that of largest magnitude, the first of equals; NaN is passed over */
OP float largest1(const float *x, int n)
{
    float top = 0, size = 0;
    for (int i = 0; i < n; i++)
        if (size < fabsf(x[i])) {
            size = fabsf(x[i]);
            top = x[i];
        }
    return top;
}
/* the largest value, or 0 if there is none above */
OP float peak1(const float *x, int n)
{
    float top = 0;
    for (int i = 0; i < n; i++)
        top = x[i] > top ? x[i] : top;
    return top;
}

/* Groups of n weights, one behind the other, to groups side by side; from `groups` on zeros. */
OP void side_by_side(const float *x, int n, int groups, vf *out)
{
    float *to = (float *)out;
    if (groups < LANES)
        memset(to, 0, (size_t)n * sizeof(vf));
    for (int l = 0; l < groups && l < LANES; l++)
        for (int i = 0; i < n; i++)
            to[i * LANES + l] = x[l * n + i];
}
/* The same for what a row's columns cost, groups first .. of rows that are `per_row` groups long. */
OP void importance_beside(const float *importance, ptrdiff_t first, ptrdiff_t per_row, int n, int groups, vf *out)
{
    float *to = (float *)out;
    ptrdiff_t at = first % per_row;
    if (groups < LANES)
        memset(to, 0, (size_t)n * sizeof(vf));
    for (int l = 0; l < groups && l < LANES; l++) {
        for (int i = 0; i < n; i++)
            to[i * LANES + l] = importance[at * n + i];
        at = at + 1 < per_row ? at + 1 : 0;
    }
}
/* n words to LANES rows of n numbers. */
OP void in_rows(const vf *x, int n, float (*out)[32])
{
    const float *from = (const float *)x;
    for (int l = 0; l < LANES; l++)
        for (int i = 0; i < n; i++)
            out[l][i] = from[i * LANES + l];
}

OP vf in_order(const vf *terms, int n)
{
    vf acc = splat(0);
    for (int i = 0; i < n; i++)
        acc += terms[i];
    return acc;
}
/* importance * sqrt(sigma2 + x^2): what a wrong weight costs when importances are given; in place of the importances */
OP void weigh(const vf *x, vf sigma2, int n, vf *importance)
{
    for (int i = 0; i < n; i++)
        importance[i] = importance[i] * square_root(sigma2 + x[i] * x[i]);
}

/* (rows, n) -> (rows,): sums in order, of the numbers, their squares or magnitudes. Eight rows at a time, because each sum waits for its
   last addition. */
enum { SUM, SUM_OF_SQUARES, SUM_OF_SIZES };
OP void sums_of_rows(const float *x, ptrdiff_t rows, ptrdiff_t n, int what, float *out)
{
    for (ptrdiff_t r = 0; r < rows; r += 8) {
        const float *at[8];
        float acc[8] = {0};
        for (int k = 0; k < 8; k++)
            at[k] = x + (r + k < rows ? r + k : r) * n;
        for (ptrdiff_t i = 0; i < n; i++)
            for (int k = 0; k < 8; k++)
                acc[k] += what == SUM ? at[k][i] : what == SUM_OF_SIZES ? fabsf(at[k][i]) : at[k][i] * at[k][i];
        for (int k = 0; k < 8 && r + k < rows; k++)
            out[r + k] = acc[k];
    }
}
