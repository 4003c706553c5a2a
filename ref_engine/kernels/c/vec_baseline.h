/* Sixteen lanes in plain C, for any compiler and processor. The words are those of vec_avx512.h. */
#include <math.h>
#include <string.h>

#include "half.h"

typedef struct { float v[16]; } vf;
typedef struct { int32_t v[16]; } vi;
typedef struct { uint8_t v[64]; } vb;
typedef struct { int32_t v[16]; } vm; /* 0 or -1 */

#define TILE 4 /* most tokens that a tile of the matrix product holds */
#define TOGETHER 1 /* vectors that chains of operations interleave */
#define LANES_(T, expr) T y_; for (int l = 0; l < 16; l++) y_.v[l] = (expr); return y_
#define BYTES_(expr) vb y_; for (int l = 0; l < 64; l++) y_.v[l] = (uint8_t)(expr); return y_

OP vf vf_set1(float x) { LANES_(vf, x); }
OP vf vf_load(const float *p) { vf y; memcpy(&y, p, 64); return y; }
OP void vf_store(float *p, vf a) { memcpy(p, &a, 64); }
OP vf vf_add(vf a, vf b) { LANES_(vf, a.v[l] + b.v[l]); }
OP vf vf_sub(vf a, vf b) { LANES_(vf, a.v[l] - b.v[l]); }
OP vf vf_mul(vf a, vf b) { LANES_(vf, a.v[l] * b.v[l]); }
OP vf vf_add_exact(vf acc, vf a, vf b) { return vf_add(acc, vf_mul(a, b)); }
OP vf vf_div(vf a, vf b) { LANES_(vf, a.v[l] / b.v[l]); }
/* the second where either is NaN or they are equal, as the x86 instructions do */
OP vf vf_max(vf a, vf b) { LANES_(vf, a.v[l] > b.v[l] ? a.v[l] : b.v[l]); }
OP vf vf_min(vf a, vf b) { LANES_(vf, a.v[l] < b.v[l] ? a.v[l] : b.v[l]); }
OP float vf_largest(vf a) { float y = a.v[0]; for (int l = 1; l < 16; l++) y = a.v[l] > y ? a.v[l] : y; return y; }
OP vi vi_of_bits(vf a) { vi y; memcpy(&y, &a, 64); return y; }
OP vf vf_of_bits(vi a) { vf y; memcpy(&y, &a, 64); return y; }

OP vi vi_set1(int32_t x) { LANES_(vi, x); }
OP vi vi_add(vi a, vi b) { LANES_(vi, a.v[l] + b.v[l]); }
OP vi vi_mul(vi a, vi b) { LANES_(vi, a.v[l] * b.v[l]); }
OP vi vi_and(vi a, vi b) { LANES_(vi, a.v[l] & b.v[l]); }
OP vi vi_or(vi a, vi b) { LANES_(vi, a.v[l] | b.v[l]); }
OP vi vi_max(vi a, vi b) { LANES_(vi, a.v[l] > b.v[l] ? a.v[l] : b.v[l]); }
OP int32_t vi_largest(vi a) { int32_t y = a.v[0]; for (int l = 1; l < 16; l++) y = a.v[l] > y ? a.v[l] : y; return y; }
OP int32_t vi_total(vi a) { int32_t y = 0; for (int l = 0; l < 16; l++) y += a.v[l]; return y; }
OP vf vf_of(vi a) { LANES_(vf, (float)a.v[l]); }
OP vi vi_load(const void *p) { vi y; memcpy(&y, p, 64); return y; }
OP void vi_store(void *p, vi a) { memcpy(p, &a, 64); }
OP vi vi_load_u8(const uint8_t *p) { LANES_(vi, p[l]); }
OP vi vi_load_i8(const uint8_t *p) { LANES_(vi, (int8_t)p[l]); }
OP void vi_store_i8(int8_t *p, vi a) { for (int l = 0; l < 16; l++) p[l] = (int8_t)a.v[l]; }

/* to the nearest integer, ties to even; |a| < 2**22 */
OP vf vf_rint(vf a)
{
    vf magic = vf_set1(12582912.0f);
    return vf_sub(vf_add(a, magic), magic);
}
OP vi vi_rint(vf a) { vf r = vf_rint(a); LANES_(vi, (int32_t)r.v[l]); }
/* a * 2**n for whole n in -150 .. 128, rounded once: the first factor is exact */
OP vf vf_ldexp(vf a, vf n)
{
    vf y;
    for (int l = 0; l < 16; l++) {
        int whole = n.v[l] == n.v[l] ? (int)n.v[l] : 0, one = whole / 2, two = whole - one;
        union { int32_t i; float f; } f1 = {(one + 127) << 23}, f2 = {(two + 127) << 23};
        y.v[l] = a.v[l] * f1.f * f2.f;
    }
    return y;
}

OP vm vm_less(vf a, vf b) { LANES_(vm, -(a.v[l] < b.v[l])); }
OP vm vm_below(int n) { LANES_(vm, -(l < n)); }
OP vm vm_or(vm a, vm b) { LANES_(vm, a.v[l] | b.v[l]); }
OP vm vm_and_not(vm a, vm b) { LANES_(vm, a.v[l] & ~b.v[l]); }
OP int vm_any(vm a) { int any = 0; for (int l = 0; l < 16; l++) any |= a.v[l]; return any; }
OP vf vf_select(vm m, vf a, vf b) { LANES_(vf, m.v[l] ? a.v[l] : b.v[l]); }
/* a * 2**n, and zero in some lanes, whatever n is there */
OP vf vf_ldexp_but(vm zero, vf a, vf n)
{
    return vf_select(zero, vf_set1(0), vf_ldexp(a, vf_select(zero, vf_set1(0), n)));
}

OP vf vf_load_half(const void *p)
{
    const uint16_t *h = (const uint16_t *)p;
    LANES_(vf, half_to_float(h[l]));
}
OP void vf_store_half(void *p, vf a) { for (int l = 0; l < 16; l++) ((uint16_t *)p)[l] = float_to_half(a.v[l]); }
OP vf vf_as_half(vf a) { LANES_(vf, half_to_float(float_to_half(a.v[l]))); }

OP vb vb_load(const void *p) { vb y; memcpy(&y, p, 64); return y; }
OP vb vb_low4(vb a) { BYTES_(a.v[l] & 15); }
OP vb vb_high4(vb a) { BYTES_(a.v[l] >> 4); }
OP vb vb_or(vb a, vb b) { BYTES_(a.v[l] | b.v[l]); }
/* bit `j` of each byte to bit 4 */
OP vb vb_bit4(vb a, int j) { BYTES_((a.v[l] >> j & 1) << 4); }
/* bits 2r and 2r + 1 of each byte to bits 4 and 5 */
OP vb vb_bits45(vb a, int r) { BYTES_((a.v[l] >> 2 * r & 3) << 4); }
/* bits 2r and 2r + 1 of each byte to bits 0 and 1 */
OP vb vb_bits01(vb a, int r) { BYTES_(a.v[l] >> 2 * r & 3); }
/* bit `j` of each byte to bit 2 */
OP vb vb_bit2(vb a, int j) { BYTES_((a.v[l] >> j & 1) << 2); }
/* the byte of the first sixteen that each index 0 .. 15 names; the first sixteen stand there four times */
OP vb vb_lookup(vb levels, vb index) { BYTES_(levels.v[index.v[l]]); }

/* acc + the products of `quads` quads of 16 rows with the same 4 * quads activations. Weights of at most `bits` bits. */
OP vi vi_dot(vi acc, const vb *w, int quads, const int8_t *x, int bits)
{
    (void)bits;
    for (int j = 0; j < quads; j++)
        for (int l = 0; l < 16; l++)
            for (int i = 0; i < 4; i++)
                acc.v[l] += w[j].v[4 * l + i] * x[4 * j + i];
    return acc;
}
/* the same for bytes that are 128 too large; the first acc is SHIFTED_START(-128 times the sum of all x) */
OP vi vi_dot_shifted(vi acc, const vb *w, int quads, const int8_t *x) { return vi_dot(acc, w, quads, x, 8); }
#define SHIFTED_START(s) (s)
#define DOT_STEP(bits) 4 /* quads to take at a time, so that there is something between two tokens' dots */
/* acc + pairs of bytes of 16 rows times the pair of int16 in x */
OP vi vi_dot_pairs(vi acc, const uint8_t *pairs, int32_t x)
{
    int low = (int16_t)(x & 0xffff), high = x >> 16;
    LANES_(vi, acc.v[l] + pairs[2 * l] * low + pairs[2 * l + 1] * high);
}

/* acc + sum * scale, for sums within 16 bits and scales in the lower 16, where the upper half is zero */
OP vi vi_add_scaled(vi acc, vi sum, vi scale) { LANES_(vi, acc.v[l] + sum.v[l] * (int16_t)scale.v[l]); }
/* Sums of 8 of 128 numbers. */
OP vi vi_sums8(const int8_t *x)
{
    LANES_(vi, x[8 * l] + x[8 * l + 1] + x[8 * l + 2] + x[8 * l + 3] + x[8 * l + 4] + x[8 * l + 5] + x[8 * l + 6] +
                   x[8 * l + 7]);
}
/* a[k] -> lane k, wherever FOLD_SLOT puts it: the largest, or the sum, of all lanes of a[k] */
OP vi vi_fold16(int largest, vi *a)
{
    vi y;
    for (int k = 0; k < 16; k++)
        y.v[k] = largest ? vi_largest(a[k]) : vi_total(a[k]);
    return y;
}

/* a[k] -> lane k: the sixteen lanes of a[k], folded upper half onto lower */
OP vf vf_fold16(vf *a)
{
    vf y;
    for (int k = 0; k < 16; k++) {
        for (int n = 8; n; n /= 2)
            for (int l = 0; l < n; l++)
                a[k].v[l] += a[k].v[l + n];
        y.v[k] = a[k].v[0];
    }
    return y;
}
#define FOLD_SLOT(k) (k) /* where key k goes in the argument of vf_fold16 */
