/* Sixteen lanes in AVX-512 (F, BW, VL, DQ), with its dot instruction where the unit has VNNI. */
#include <immintrin.h>
#include <string.h>

typedef __m512 vf;
typedef __m512i vi, vb;
typedef __mmask16 vm;

#ifdef REF_ENGINE_VNNI
#define TILE 12 /* chains of dot instructions: each waits five cycles for the one before, and two start in each */
#else
#define TILE 8
#endif
#define TOGETHER 4 /* vectors that chains of operations interleave */

OP vf vf_set1(float x) { return _mm512_set1_ps(x); }
OP vf vf_load(const float *p) { return _mm512_loadu_ps(p); }
OP void vf_store(float *p, vf a) { _mm512_storeu_ps(p, a); }
OP vf vf_add(vf a, vf b) { return _mm512_add_ps(a, b); }
OP vf vf_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
OP vf vf_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
OP vf vf_add_exact(vf acc, vf a, vf b) { return _mm512_fmadd_ps(a, b, acc); } /* a * b is exact: halves */
OP vf vf_div(vf a, vf b) { return _mm512_div_ps(a, b); }
OP vf vf_max(vf a, vf b) { return _mm512_max_ps(a, b); }
OP vf vf_min(vf a, vf b) { return _mm512_min_ps(a, b); }
OP float vf_largest(vf a) { return _mm512_reduce_max_ps(a); }
OP vi vi_of_bits(vf a) { return _mm512_castps_si512(a); }
OP vf vf_of_bits(vi a) { return _mm512_castsi512_ps(a); }

OP vi vi_set1(int32_t x) { return _mm512_set1_epi32(x); }
OP vi vi_add(vi a, vi b) { return _mm512_add_epi32(a, b); }
OP vi vi_mul(vi a, vi b) { return _mm512_mullo_epi32(a, b); }
OP vi vi_and(vi a, vi b) { return _mm512_and_si512(a, b); }
OP vi vi_or(vi a, vi b) { return _mm512_or_si512(a, b); }
OP vi vi_max(vi a, vi b) { return _mm512_max_epi32(a, b); }
OP int32_t vi_largest(vi a) { return _mm512_reduce_max_epi32(a); }
OP int32_t vi_total(vi a) { return _mm512_reduce_add_epi32(a); }
OP vf vf_of(vi a) { return _mm512_cvtepi32_ps(a); }
OP vi vi_load(const void *p) { return _mm512_loadu_si512(p); }
OP void vi_store(void *p, vi a) { _mm512_storeu_si512(p, a); }
OP vi vi_load_u8(const uint8_t *p) { return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p)); }
OP vi vi_load_i8(const uint8_t *p) { return _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)); }
OP void vi_store_i8(int8_t *p, vi a) { _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8(a)); }

OP vf vf_rint(vf a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
OP vi vi_rint(vf a) { return _mm512_cvtps_epi32(a); }
OP vf vf_ldexp(vf a, vf n) { return _mm512_scalef_ps(a, n); }

OP vm vm_less(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
OP vm vm_below(int n) { return (vm)((1u << n) - 1); }
OP vm vm_or(vm a, vm b) { return (vm)(a | b); }
OP vm vm_and_not(vm a, vm b) { return (vm)(a & ~b); }
OP int vm_any(vm a) { return a != 0; }
OP vf vf_select(vm m, vf a, vf b) { return _mm512_mask_blend_ps(m, b, a); }
OP vf vf_ldexp_but(vm zero, vf a, vf n) { return _mm512_maskz_scalef_ps((vm)~zero, a, n); }

OP float half_to_float(uint16_t h) { return _cvtsh_ss(h); }
OP uint16_t float_to_half(float x) { return _cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT); }
OP vf vf_load_half(const void *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }
OP __m256i halved_(vf a) { return _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
OP void vf_store_half(void *p, vf a) { _mm256_storeu_si256((__m256i *)p, halved_(a)); }
OP vf vf_as_half(vf a) { return _mm512_cvtph_ps(halved_(a)); }

OP vb vb_load(const void *p) { return _mm512_loadu_si512(p); }
OP vb vb_low4(vb a) { return _mm512_and_si512(a, _mm512_set1_epi8(15)); }
OP vb vb_high4(vb a) { return _mm512_and_si512(_mm512_srli_epi16(a, 4), _mm512_set1_epi8(15)); }
OP vb vb_or(vb a, vb b) { return _mm512_or_si512(a, b); }
OP vb vb_bit4(vb a, int j)
{
    vb shifted = j < 4 ? _mm512_slli_epi16(a, (unsigned)(4 - j) & 15) : _mm512_srli_epi16(a, (unsigned)(j - 4) & 15);
    return _mm512_and_si512(shifted, _mm512_set1_epi8(16));
}
OP vb vb_bits45(vb a, int r)
{
    vb shifted = r < 2 ? _mm512_slli_epi16(a, (unsigned)(4 - 2 * r) & 15)
                       : _mm512_srli_epi16(a, (unsigned)(2 * r - 4) & 15);
    return _mm512_and_si512(shifted, _mm512_set1_epi8(48));
}

OP vb vb_bits01(vb a, int r) { return _mm512_and_si512(_mm512_srli_epi16(a, 2 * (unsigned)r & 15), _mm512_set1_epi8(3)); }
OP vb vb_bit2(vb a, int j)
{
    vb shifted = j < 2 ? _mm512_slli_epi16(a, (unsigned)(2 - j) & 15) : _mm512_srli_epi16(a, (unsigned)(j - 2) & 15);
    return _mm512_and_si512(shifted, _mm512_set1_epi8(4));
}
OP vb vb_lookup(vb levels, vb index) { return _mm512_shuffle_epi8(levels, index); }

typedef int32_t __attribute__((may_alias, aligned(1))) quad;
OP vi x_quad(const int8_t *x)
{
    int32_t quad;
    memcpy(&quad, x, 4);
    return _mm512_set1_epi32(quad);
}

#ifdef REF_ENGINE_VNNI
OP vi vi_dot(vi acc, const vb *w, int quads, const int8_t *x, int bits)
{
    (void)bits;
    for (int j = 0; j < quads; j++) /* compilers would broadcast first, which is one instruction more for each */
        __asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(acc) : "v"(w[j]), "m"(*(const quad *)(x + 4 * j)));
    return acc;
}
OP vi vi_dot_shifted(vi acc, const vb *w, int quads, const int8_t *x) { return vi_dot(acc, w, quads, x, 8); }
#define SHIFTED_START(s) (s)
#define DOT_STEP(bits) 1
OP vi vi_dot_pairs(vi acc, const uint8_t *pairs, int32_t x)
{
    vi w = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i *)pairs));
    return _mm512_dpwssd_epi32(acc, w, _mm512_set1_epi32(x));
}
OP vi vi_add_scaled(vi acc, vi sum, vi scale) { return _mm512_dpwssd_epi32(acc, sum, scale); }
#else
/* Pairs of products stay within int16 for as many quads as the width of the weights allows: 31 * 127 * 2 * 4 < 2**15. */
#define DOT_STEP(bits) ((bits) <= 5 ? 4 : 2)
OP vi vi_dot(vi acc, const vb *w, int quads, const int8_t *x, int bits)
{
    const int together = DOT_STEP(bits);
    for (int j = 0; j < quads; j += together) {
        vi pairs = _mm512_maddubs_epi16(w[j], x_quad(x + 4 * j));
        for (int i = 1; i < together; i++)
            pairs = _mm512_add_epi16(pairs, _mm512_maddubs_epi16(w[j + i], x_quad(x + 4 * (j + i))));
        acc = _mm512_add_epi32(acc, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
    }
    return acc;
}
/* Signed weights as their size times the activation with their sign: exact, and no correction is needed. */
#define SHIFTED_START(s) 0
OP vi vi_dot_shifted(vi acc, const vb *w, int quads, const int8_t *x)
{
    for (int j = 0; j < quads; j++) {
        vi weight = _mm512_xor_si512(w[j], _mm512_set1_epi8(-128)), xj = x_quad(x + 4 * j);
        vi signed_x = _mm512_mask_sub_epi8(xj, _mm512_movepi8_mask(weight), _mm512_setzero_si512(), xj);
        vi pairs = _mm512_maddubs_epi16(_mm512_abs_epi8(weight), signed_x);
        acc = _mm512_add_epi32(acc, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
    }
    return acc;
}
OP vi vi_dot_pairs(vi acc, const uint8_t *pairs, int32_t x)
{
    vi w = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i *)pairs));
    return _mm512_add_epi32(acc, _mm512_madd_epi16(w, _mm512_set1_epi32(x)));
}
OP vi vi_add_scaled(vi acc, vi sum, vi scale) { return _mm512_add_epi32(acc, _mm512_madd_epi16(sum, scale)); }
#endif

/* Each step adds the upper half of what is left of two vectors onto the lower, and leaves both in one. */
OP vf vf_fold16(vf *a)
{
    for (int k = 0; k < 8; k++)
        a[k] = vf_add(_mm512_shuffle_f32x4(a[2 * k], a[2 * k + 1], 0x44),
                      _mm512_shuffle_f32x4(a[2 * k], a[2 * k + 1], 0xEE));
    for (int k = 0; k < 4; k++)
        a[k] = vf_add(_mm512_shuffle_f32x4(a[2 * k], a[2 * k + 1], 0x88),
                      _mm512_shuffle_f32x4(a[2 * k], a[2 * k + 1], 0xDD));
    for (int k = 0; k < 2; k++)
        a[k] = vf_add(_mm512_shuffle_ps(a[2 * k], a[2 * k + 1], 0x44), _mm512_shuffle_ps(a[2 * k], a[2 * k + 1], 0xEE));
    return vf_add(_mm512_shuffle_ps(a[0], a[1], 0x88), _mm512_shuffle_ps(a[0], a[1], 0xDD));
}
#define FOLD_SLOT(k) (4 * ((k) % 4) + (k) / 4)
OP vi vi_either(int largest, vi a, vi b) { return largest ? vi_max(a, b) : vi_add(a, b); }
OP vi vi_fold16(int largest, vi *a)
{
    for (int k = 0; k < 8; k++)
        a[k] = vi_either(largest, _mm512_shuffle_i32x4(a[2 * k], a[2 * k + 1], 0x44),
                         _mm512_shuffle_i32x4(a[2 * k], a[2 * k + 1], 0xEE));
    for (int k = 0; k < 4; k++)
        a[k] = vi_either(largest, _mm512_shuffle_i32x4(a[2 * k], a[2 * k + 1], 0x88),
                         _mm512_shuffle_i32x4(a[2 * k], a[2 * k + 1], 0xDD));
    for (int k = 0; k < 2; k++)
        a[k] = vi_either(largest, _mm512_unpacklo_epi64(a[2 * k], a[2 * k + 1]),
                         _mm512_unpackhi_epi64(a[2 * k], a[2 * k + 1]));
    __m512 x = _mm512_castsi512_ps(a[0]), y = _mm512_castsi512_ps(a[1]);
    return vi_either(largest, _mm512_castps_si512(_mm512_shuffle_ps(x, y, 0x88)),
                     _mm512_castps_si512(_mm512_shuffle_ps(x, y, 0xDD)));
}
OP __m256i sums8_(const int8_t *x) /* of bytes without a sign, 128 too large */
{
    __m512i bytes = _mm512_xor_si512(_mm512_loadu_si512(x), _mm512_set1_epi8(-128));
    return _mm512_cvtepi64_epi32(_mm512_sad_epu8(bytes, _mm512_setzero_si512()));
}
OP vi vi_sums8(const int8_t *x)
{
    __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(sums8_(x)), sums8_(x + 64), 1);
    return _mm512_sub_epi32(both, _mm512_set1_epi32(8 * 128));
}
