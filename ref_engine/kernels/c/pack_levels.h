/* Blocks whose weights are one of a few levels times a scale. What the bytes mean is drawn in quant/: `fp4`, `iquants`,
   `kquants`, `ternary`. */
#include <string.h>

#include "half.h"
#include "table.h"

/* value = d * scale[j] * level[code]. MXFP4, NVFP4 and the types with a float16 for 32 weights: only codes. */
typedef struct {
    uint8_t code[256]; /* of a type with a codebook the level itself, a signed byte */
    uint8_t scale[16]; /* of 16 weights each, signed bytes */
    float d;
} coded;

typedef void (*reader)(const uint8_t *block, const int8_t *points, coded *out);

typedef struct {
    reader read;
    int n;
    int8_t level[16]; /* by code; of a type with a codebook in any order */
} leveled;

static uint32_t word16(const uint8_t *b) { return b[0] | (uint32_t)b[1] << 8; }
static uint32_t word32(const uint8_t *b) { return word16(b) | word16(b + 2) << 16; }
static float half_at(const uint8_t *b) { return half_to_float((uint16_t)word16(b)); }
static int nibble(const uint8_t *b, int j) { return b[j / 2] >> 4 * (j % 2) & 15; }

/* Seven stored signs of minus -> eight, an even number of them. */
static int even_signs(uint32_t seven)
{
    uint32_t low = seven & 127, odd = low ^ low >> 4;
    odd ^= odd >> 2;
    return (int)(low | ((odd ^ odd >> 1) & 1) << 7);
}

static void signed_point(const int8_t *point, int n, int minus, uint8_t *level)
{
    for (int i = 0; i < n; i++) {
        int all = -(minus >> i & 1);
        level[i] = (uint8_t)((point[i] ^ all) - all);
    }
}

/* scale[j] = 2 * nibble + 1, each for `times` runs of 16 weights */
static void odd_scales(const uint8_t *nibbles, int times, coded *out)
{
    for (int j = 0; j < 16; j++)
        out->scale[j] = (uint8_t)(2 * nibble(nibbles, j / times) + 1);
}

static void read_iq2_xxs(const uint8_t *b, const int8_t *points, coded *out)
{
    out->d = half_at(b) * 0.125f;
    for (int j = 0; j < 8; j++) {
        const uint8_t *at = b + 2 + 8 * j;
        uint32_t word = word32(at + 4);
        out->scale[2 * j] = out->scale[2 * j + 1] = (uint8_t)(2 * (word >> 28) + 1);
        for (int k = 0; k < 4; k++)
            signed_point(points + 8 * at[k], 8, even_signs(word >> 7 * k), out->code + 32 * j + 8 * k);
    }
}

static void read_iq2_xs(const uint8_t *b, const int8_t *points, coded *out)
{
    out->d = half_at(b) * 0.125f;
    odd_scales(b + 66, 1, out);
    for (int p = 0; p < 32; p++) {
        uint32_t word = word16(b + 2 + 2 * p);
        signed_point(points + 8 * (word & 511), 8, even_signs(word >> 9), out->code + 8 * p);
    }
}

static void read_iq2_s(const uint8_t *b, const int8_t *points, coded *out)
{
    out->d = half_at(b) * 0.125f;
    odd_scales(b + 74, 1, out);
    for (int p = 0; p < 32; p++)
        signed_point(points + 8 * (b[2 + p] | (b[66 + p / 4] >> 2 * (p % 4) & 3) << 8), 8, b[34 + p], out->code + 8 * p);
}

static void read_iq3_xxs(const uint8_t *b, const int8_t *points, coded *out)
{
    out->d = half_at(b) * 0.25f;
    for (int p = 0; p < 64; p++) {
        uint32_t word = word32(b + 66 + 4 * (p / 8));
        int minus = even_signs(word >> 7 * (p / 2 % 4)) >> 4 * (p % 2);
        out->scale[p / 4] = (uint8_t)(2 * (word >> 28) + 1);
        signed_point(points + 4 * b[2 + p], 4, minus, out->code + 4 * p);
    }
}

static void read_iq3_s(const uint8_t *b, const int8_t *points, coded *out)
{
    out->d = half_at(b);
    odd_scales(b + 106, 2, out);
    for (int p = 0; p < 64; p++)
        signed_point(points + 4 * (b[2 + p] | (b[66 + p / 8] >> p % 8 & 1) << 8), 4, nibble(b + 74, p), out->code + 4 * p);
}

static void shifted_point(const int8_t *point, int minus, uint8_t *level)
{
    for (int i = 0; i < 8; i++)
        level[i] = (uint8_t)(8 * point[i] + (minus ? -1 : 1));
}

static void read_iq1_s(const uint8_t *b, const int8_t *points, coded *out)
{
    out->d = half_at(b) * 0.125f;
    for (int p = 0; p < 32; p++) {
        uint32_t word = word16(b + 34 + 2 * (p / 4));
        out->scale[p / 2] = (uint8_t)(2 * (word >> 12 & 7) + 1);
        shifted_point(points + 8 * (b[2 + p] | (word >> 3 * (p % 4) & 7) << 8), word >> 15, out->code + 8 * p);
    }
}

static void read_iq1_m(const uint8_t *b, const int8_t *points, coded *out)
{
    const uint8_t *words = b + 48;
    uint32_t d = 0;
    for (int k = 0; k < 4; k++)
        d |= word16(words + 2 * k) >> 12 << 4 * k;
    out->d = half_to_float((uint16_t)d) * 0.125f;
    for (int j = 0; j < 16; j++)
        out->scale[j] = (uint8_t)(2 * (word16(words + 2 * (j / 4)) >> 3 * (j % 4) & 7) + 1);
    for (int p = 0; p < 32; p++) {
        int top = nibble(b + 32, p);
        shifted_point(points + 8 * (b[p] | (top & 7) << 8), top >> 3, out->code + 8 * p);
    }
}

/* 2n weights: all low nibbles, then all high nibbles */
static void nibbles_of(const uint8_t *b, int n, uint8_t *code)
{
    for (int i = 0; i < n; i++) {
        code[i] = b[i] & 15;
        code[n + i] = b[i] >> 4;
    }
}

static void read_iq4_nl(const uint8_t *b, const int8_t *points, coded *out)
{
    (void)points;
    nibbles_of(b + 2, 16, out->code);
}

static void read_iq4_xs(const uint8_t *b, const int8_t *points, coded *out)
{
    (void)points;
    out->d = half_at(b);
    for (int j = 0; j < 8; j++) {
        int scale = (nibble(b + 4, j) | (int)(word16(b + 2) >> 2 * j & 3) << 4) - 32;
        out->scale[2 * j] = out->scale[2 * j + 1] = (uint8_t)scale;
        nibbles_of(b + 8 + 16 * j, 16, out->code + 32 * j);
    }
}

static void read_mxfp4(const uint8_t *b, const int8_t *points, coded *out)
{
    (void)points;
    nibbles_of(b + 1, 16, out->code);
}

static void read_nvfp4(const uint8_t *b, const int8_t *points, coded *out)
{
    (void)points;
    for (int j = 0; j < 4; j++)
        nibbles_of(b + 4 + 8 * j, 8, out->code + 16 * j);
}

/* An unsigned float of 4 exponent and 3 mantissa bits, which any float16 can hold (`ue4m3_units` in quant/fp4.py). */
static uint16_t half_of_ue4m3(uint8_t x)
{
    int exponent = x >> 3 & 15, mantissa = x & 7;
    int units = x == 127 ? 0 : exponent ? (mantissa + 8) << (exponent - 1) : mantissa;
    return float_to_half((float)units / 512);
}

static void read_q1_0(const uint8_t *b, const int8_t *points, coded *out)
{
    (void)points;
    for (int i = 0; i < 128; i++)
        out->code[i] = b[2 + i / 8] >> i % 8 & 1;
}

static void read_q2_0(const uint8_t *b, const int8_t *points, coded *out)
{
    (void)points;
    for (int i = 0; i < 64; i++)
        out->code[i] = b[2 + i / 4] >> 2 * (i % 4) & 3;
}

/* Digits of base 3, `digits` of them in each of n bytes, the most significant first. */
static void trits(const uint8_t *b, int n, int digits, uint8_t *code)
{
    for (int i = 0; i < n; i++) {
        uint8_t rest = b[i];
        for (int k = 0; k < digits; k++, rest = (uint8_t)(3 * rest))
            code[n * k + i] = (uint8_t)(3 * rest >> 8);
    }
}

static void read_tq1_0(const uint8_t *b, const int8_t *points, coded *out)
{
    (void)points;
    out->d = half_at(b + 52);
    trits(b, 32, 5, out->code);
    trits(b + 32, 16, 5, out->code + 160);
    trits(b + 48, 4, 4, out->code + 240);
}

/* Two bits of each of 256 weights, as Q3_K and TQ2_0 have them. */
static void pairs_of_bits(const uint8_t *qs, uint8_t *code)
{
    for (int j = 0; j < 8; j++)
        for (int i = 0; i < 32; i++)
            code[32 * j + i] = qs[32 * (j / 4) + i] >> 2 * (j % 4) & 3;
}

static void read_tq2_0(const uint8_t *b, const int8_t *points, coded *out)
{
    (void)points;
    out->d = half_at(b + 64);
    pairs_of_bits(b, out->code);
}

static void read_q3_k(const uint8_t *b, const int8_t *points, coded *out)
{
    const uint8_t *low = b + 96, *top = b + 104;
    (void)points;
    out->d = half_at(b + 108);
    for (int j = 0; j < 16; j++)
        out->scale[j] = (uint8_t)(((low[j % 8] >> 4 * (j / 8) & 15) | (top[j % 4] >> 2 * (j / 4) & 3) << 4) - 32);
    pairs_of_bits(b + 32, out->code);
    for (int j = 0; j < 8; j++)
        for (int i = 0; i < 32; i++)
            out->code[32 * j + i] |= (uint8_t)((b[i] >> j & 1) << 2);
}

static const leveled
    LEVELS_Q3_K = {read_q3_k, 8, {-4, -3, -2, -1, 0, 1, 2, 3}},
    LEVELS_IQ4_NL = {read_iq4_nl, 16, {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113}},
    LEVELS_IQ4_XS = {read_iq4_xs, 16, {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113}},
    LEVELS_MXFP4 = {read_mxfp4, 16, {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12}},
    LEVELS_NVFP4 = {read_nvfp4, 16, {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12}},
    LEVELS_Q1_0 = {read_q1_0, 2, {-1, 1}},
    LEVELS_Q2_0 = {read_q2_0, 4, {-1, 0, 1, 2}},
    LEVELS_TQ1_0 = {read_tq1_0, 3, {-1, 0, 1}},
    LEVELS_TQ2_0 = {read_tq2_0, 4, {-1, 0, 1, 2}},
    LEVELS_IQ1_S = {read_iq1_s, 6, {-9, -7, -1, 1, 7, 9}},
    LEVELS_IQ1_M = {read_iq1_m, 6, {-9, -7, -1, 1, 7, 9}},
    LEVELS_IQ2_XXS = {read_iq2_xxs, 6, {-43, -25, -8, 8, 25, 43}},
    LEVELS_IQ2_XS = {read_iq2_xs, 6, {-43, -25, -8, 8, 25, 43}},
    LEVELS_IQ2_S = {read_iq2_s, 6, {-43, -25, -8, 8, 25, 43}},
    LEVELS_IQ3_XXS = {read_iq3_xxs, 16, {-62, -52, -44, -36, -28, -20, -12, -4, 4, 12, 20, 28, 36, 44, 52, 62}},
    LEVELS_IQ3_S = {read_iq3_s, 16, {-15, -13, -11, -9, -7, -5, -3, -1, 1, 3, 5, 7, 9, 11, 13, 15}};
