/* float16 in plain C: as the conversions of processors round, for any compiler. */
#ifndef REF_ENGINE_HALF_H
#define REF_ENGINE_HALF_H

#include <stdint.h>

static inline __attribute__((unused)) float half_to_float(uint16_t h)
{
    uint32_t sign = (uint32_t)(h >> 15) << 31, e = h >> 10 & 31, m = h & 1023;
    union { uint32_t u; float f; } y;
    if (e == 0) { /* zero or denormal: m * 2**-24, exact */
        y.f = (float)m * 5.9604644775390625e-8f;
        y.u |= sign;
    } else
        y.u = sign | (e == 31 ? 255u : e + 112) << 23 | m << 13;
    return y.f;
}
/* round to nearest, ties to even */
static inline __attribute__((unused)) uint16_t float_to_half(float x)
{
    union { float f; uint32_t u; } v = {x};
    uint32_t sign = v.u >> 16 & 0x8000, a = v.u & 0x7fffffff;
    if (a > 0x7f800000)
        return (uint16_t)(sign | 0x7e00);
    if (a >= 0x477ff000) /* 65520 and more */
        return (uint16_t)(sign | 0x7c00);
    if (a < 0x38800000) { /* below 2**-14: add 0.5, whose last bit is 2**-24, and keep what the sum has rounded to */
        union { uint32_t u; float f; } d = {a};
        d.f += 0.5f;
        return (uint16_t)(sign | (d.u - 0x3f000000));
    }
    return (uint16_t)(sign | ((a + 0xfff + (a >> 13 & 1)) - 0x38000000) >> 13);
}

#endif
