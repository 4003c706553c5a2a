/* Sixteen lanes as two AVX2 registers. The words are those of vec_avx512.h. */
#include <immintrin.h>
#include <string.h>

typedef struct { __m256 a, b; } vf;
typedef struct { __m256i a, b; } vi;
typedef vi vb;
typedef vf vm;

#define TILE 4
#define TOGETHER 2 /* vectors that chains of operations interleave */

OP vf vf_both(__m256 a, __m256 b) { vf y = {a, b}; return y; }
OP vi vi_both(__m256i a, __m256i b) { vi y = {a, b}; return y; }

OP vf vf_set1(float x) { return vf_both(_mm256_set1_ps(x), _mm256_set1_ps(x)); }
OP vf vf_load(const float *p) { return vf_both(_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)); }
OP void vf_store(float *p, vf x) { _mm256_storeu_ps(p, x.a); _mm256_storeu_ps(p + 8, x.b); }
OP vf vf_add(vf x, vf y) { return vf_both(_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)); }
OP vf vf_sub(vf x, vf y) { return vf_both(_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)); }
OP vf vf_mul(vf x, vf y) { return vf_both(_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)); }
OP vf vf_add_exact(vf acc, vf x, vf y) /* x * y is exact: halves */
{
    return vf_both(_mm256_fmadd_ps(x.a, y.a, acc.a), _mm256_fmadd_ps(x.b, y.b, acc.b));
}
OP vf vf_div(vf x, vf y) { return vf_both(_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)); }
OP vf vf_max(vf x, vf y) { return vf_both(_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)); }
OP vf vf_min(vf x, vf y) { return vf_both(_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)); }
OP float vf_largest(vf x)
{
    __m256 m = _mm256_max_ps(x.a, x.b);
    __m128 n = _mm_max_ps(_mm256_castps256_ps128(m), _mm256_extractf128_ps(m, 1));
    n = _mm_max_ps(n, _mm_movehl_ps(n, n));
    return _mm_cvtss_f32(_mm_max_ss(n, _mm_movehdup_ps(n)));
}
OP vi vi_of_bits(vf x) { return vi_both(_mm256_castps_si256(x.a), _mm256_castps_si256(x.b)); }
OP vf vf_of_bits(vi x) { return vf_both(_mm256_castsi256_ps(x.a), _mm256_castsi256_ps(x.b)); }

OP vi vi_set1(int32_t x) { return vi_both(_mm256_set1_epi32(x), _mm256_set1_epi32(x)); }
OP vi vi_add(vi x, vi y) { return vi_both(_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)); }
OP vi vi_mul(vi x, vi y) { return vi_both(_mm256_mullo_epi32(x.a, y.a), _mm256_mullo_epi32(x.b, y.b)); }
OP vi vi_and(vi x, vi y) { return vi_both(_mm256_and_si256(x.a, y.a), _mm256_and_si256(x.b, y.b)); }
OP vi vi_or(vi x, vi y) { return vi_both(_mm256_or_si256(x.a, y.a), _mm256_or_si256(x.b, y.b)); }
OP vi vi_max(vi x, vi y) { return vi_both(_mm256_max_epi32(x.a, y.a), _mm256_max_epi32(x.b, y.b)); }
OP int32_t vi_largest(vi x)
{
    __m256i m = _mm256_max_epi32(x.a, x.b);
    __m128i n = _mm_max_epi32(_mm256_castsi256_si128(m), _mm256_extracti128_si256(m, 1));
    n = _mm_max_epi32(n, _mm_shuffle_epi32(n, 0x4E));
    return _mm_cvtsi128_si32(_mm_max_epi32(n, _mm_shuffle_epi32(n, 0xB1)));
}
OP int32_t vi_total(vi x)
{
    __m256i m = _mm256_add_epi32(x.a, x.b);
    __m128i n = _mm_add_epi32(_mm256_castsi256_si128(m), _mm256_extracti128_si256(m, 1));
    n = _mm_add_epi32(n, _mm_shuffle_epi32(n, 0x4E));
    return _mm_cvtsi128_si32(_mm_add_epi32(n, _mm_shuffle_epi32(n, 0xB1)));
}
OP vf vf_of(vi x) { return vf_both(_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)); }
OP vi vi_load(const void *p)
{
    const __m256i *v = (const __m256i *)p;
    return vi_both(_mm256_loadu_si256(v), _mm256_loadu_si256(v + 1));
}
OP void vi_store(void *p, vi x)
{
    _mm256_storeu_si256((__m256i *)p, x.a);
    _mm256_storeu_si256((__m256i *)p + 1, x.b);
}
OP vi vi_load_u8(const uint8_t *p)
{
    __m128i x = _mm_loadu_si128((const __m128i *)p);
    return vi_both(_mm256_cvtepu8_epi32(x), _mm256_cvtepu8_epi32(_mm_srli_si128(x, 8)));
}
OP vi vi_load_i8(const uint8_t *p)
{
    __m128i x = _mm_loadu_si128((const __m128i *)p);
    return vi_both(_mm256_cvtepi8_epi32(x), _mm256_cvtepi8_epi32(_mm_srli_si128(x, 8)));
}
OP __m128i halves_(__m256i x) { return _mm_packs_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1)); }
OP void vi_store_i8(int8_t *p, vi x) { _mm_storeu_si128((__m128i *)p, _mm_packs_epi16(halves_(x.a), halves_(x.b))); }

#define NEAREST_ (_MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
OP vf vf_rint(vf x) { return vf_both(_mm256_round_ps(x.a, NEAREST_), _mm256_round_ps(x.b, NEAREST_)); }
OP vi vi_rint(vf x) { return vi_both(_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b)); }
/* a * 2**n for whole n in -150 .. 128, rounded once: the first factor is exact */
OP __m256 ldexp_(__m256 a, __m256 n)
{
    __m256i whole = _mm256_cvtps_epi32(n), one = _mm256_srai_epi32(whole, 1), two = _mm256_sub_epi32(whole, one);
    __m256i bias = _mm256_set1_epi32(127);
    __m256 f1 = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(one, bias), 23));
    __m256 f2 = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(two, bias), 23));
    return _mm256_mul_ps(_mm256_mul_ps(a, f1), f2);
}
OP vf vf_ldexp(vf x, vf n) { return vf_both(ldexp_(x.a, n.a), ldexp_(x.b, n.b)); }

OP vm vm_less(vf x, vf y)
{
    return vf_both(_mm256_cmp_ps(x.a, y.a, _CMP_LT_OQ), _mm256_cmp_ps(x.b, y.b, _CMP_LT_OQ));
}
OP vm vm_below(int n)
{
    __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return vf_of_bits(vi_both(_mm256_cmpgt_epi32(_mm256_set1_epi32(n), lane),
                              _mm256_cmpgt_epi32(_mm256_set1_epi32(n - 8), lane)));
}
OP vm vm_or(vm x, vm y) { return vf_both(_mm256_or_ps(x.a, y.a), _mm256_or_ps(x.b, y.b)); }
OP vm vm_and_not(vm x, vm y) { return vf_both(_mm256_andnot_ps(y.a, x.a), _mm256_andnot_ps(y.b, x.b)); }
OP int vm_any(vm x) { return _mm256_movemask_ps(_mm256_or_ps(x.a, x.b)) != 0; }
OP vf vf_select(vm m, vf x, vf y) { return vf_both(_mm256_blendv_ps(y.a, x.a, m.a), _mm256_blendv_ps(y.b, x.b, m.b)); }
OP vf vf_ldexp_but(vm zero, vf a, vf n)
{
    return vf_select(zero, vf_set1(0), vf_ldexp(a, vf_select(zero, vf_set1(0), n)));
}

OP float half_to_float(uint16_t h) { return _cvtsh_ss(h); }
OP uint16_t float_to_half(float x) { return _cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT); }
OP vf vf_load_half(const void *p)
{
    const __m128i *v = (const __m128i *)p;
    return vf_both(_mm256_cvtph_ps(_mm_loadu_si128(v)), _mm256_cvtph_ps(_mm_loadu_si128(v + 1)));
}
OP __m128i halved_(__m256 a) { return _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT); }
OP void vf_store_half(void *p, vf x)
{
    _mm_storeu_si128((__m128i *)p, halved_(x.a));
    _mm_storeu_si128((__m128i *)p + 1, halved_(x.b));
}
OP vf vf_as_half(vf x) { return vf_both(_mm256_cvtph_ps(halved_(x.a)), _mm256_cvtph_ps(halved_(x.b))); }

OP vb vb_load(const void *p) { return vi_load(p); }
OP vb vb_mask(vb x, int bits)
{
    __m256i m = _mm256_set1_epi8((char)bits);
    return vi_both(_mm256_and_si256(x.a, m), _mm256_and_si256(x.b, m));
}
OP vb vb_left(vb x, int n) { return vi_both(_mm256_slli_epi16(x.a, n), _mm256_slli_epi16(x.b, n)); }
OP vb vb_right(vb x, int n) { return vi_both(_mm256_srli_epi16(x.a, n), _mm256_srli_epi16(x.b, n)); }
OP vb vb_low4(vb x) { return vb_mask(x, 15); }
OP vb vb_high4(vb x) { return vb_mask(vb_right(x, 4), 15); }
OP vb vb_or(vb x, vb y) { return vi_or(x, y); }
OP vb vb_bit4(vb x, int j) { return vb_mask(j < 4 ? vb_left(x, (4 - j) & 15) : vb_right(x, (j - 4) & 15), 16); }
OP vb vb_bits45(vb x, int r)
{
    return vb_mask(r < 2 ? vb_left(x, (4 - 2 * r) & 15) : vb_right(x, (2 * r - 4) & 15), 48);
}

OP vb vb_bits01(vb x, int r) { return vb_mask(vb_right(x, 2 * r & 15), 3); }
OP vb vb_bit2(vb x, int j) { return vb_mask(j < 2 ? vb_left(x, (2 - j) & 15) : vb_right(x, (j - 2) & 15), 4); }
OP vb vb_lookup(vb levels, vb index)
{
    return vi_both(_mm256_shuffle_epi8(levels.a, index.a), _mm256_shuffle_epi8(levels.b, index.b));
}

OP __m256i x_quad(const int8_t *x)
{
    int32_t quad;
    memcpy(&quad, x, 4);
    return _mm256_set1_epi32(quad);
}
/* Pairs of products stay within int16 for as many quads as the width of the weights allows: 31 * 127 * 2 * 4 < 2**15. */
#define DOT_STEP(bits) ((bits) <= 5 ? 4 : 2)
OP vi vi_dot(vi acc, const vb *w, int quads, const int8_t *x, int bits)
{
    const int together = DOT_STEP(bits);
    __m256i ones = _mm256_set1_epi16(1);
    for (int j = 0; j < quads; j += together) {
        __m256i xj = x_quad(x + 4 * j);
        __m256i pa = _mm256_maddubs_epi16(w[j].a, xj), pb = _mm256_maddubs_epi16(w[j].b, xj);
        for (int i = 1; i < together; i++) {
            xj = x_quad(x + 4 * (j + i));
            pa = _mm256_add_epi16(pa, _mm256_maddubs_epi16(w[j + i].a, xj));
            pb = _mm256_add_epi16(pb, _mm256_maddubs_epi16(w[j + i].b, xj));
        }
        acc = vi_add(acc, vi_both(_mm256_madd_epi16(pa, ones), _mm256_madd_epi16(pb, ones)));
    }
    return acc;
}
/* Signed weights as their size times the activation with their sign: exact, and no correction is needed. */
OP __m256i signed_(__m256i w, __m256i x)
{
    __m256i weight = _mm256_xor_si256(w, _mm256_set1_epi8(-128));
    __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(weight), _mm256_sign_epi8(x, weight));
    return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}
#define SHIFTED_START(s) 0
OP vi vi_dot_shifted(vi acc, const vb *w, int quads, const int8_t *x)
{
    for (int j = 0; j < quads; j++) {
        __m256i xj = x_quad(x + 4 * j);
        acc = vi_add(acc, vi_both(signed_(w[j].a, xj), signed_(w[j].b, xj)));
    }
    return acc;
}
OP vi vi_dot_pairs(vi acc, const uint8_t *pairs, int32_t x)
{
    const __m128i *p = (const __m128i *)pairs;
    __m256i xs = _mm256_set1_epi32(x);
    return vi_add(acc, vi_both(_mm256_madd_epi16(_mm256_cvtepu8_epi16(_mm_loadu_si128(p)), xs),
                               _mm256_madd_epi16(_mm256_cvtepu8_epi16(_mm_loadu_si128(p + 1)), xs)));
}

OP vi vi_add_scaled(vi acc, vi sum, vi scale)
{
    return vi_add(acc, vi_both(_mm256_madd_epi16(sum.a, scale.a), _mm256_madd_epi16(sum.b, scale.b)));
}

/* Each step adds the upper half of what is left of two vectors onto the lower, and leaves both in one. */
OP __m256 fold8_(const vf *a, int first)
{
    __m256 s[8];
    for (int k = 0; k < 8; k++)
        s[k] = _mm256_add_ps(a[first + k].a, a[first + k].b);
    for (int k = 0; k < 4; k++)
        s[k] = _mm256_add_ps(_mm256_permute2f128_ps(s[2 * k], s[2 * k + 1], 0x20),
                             _mm256_permute2f128_ps(s[2 * k], s[2 * k + 1], 0x31));
    for (int k = 0; k < 2; k++)
        s[k] = _mm256_add_ps(_mm256_shuffle_ps(s[2 * k], s[2 * k + 1], 0x44),
                             _mm256_shuffle_ps(s[2 * k], s[2 * k + 1], 0xEE));
    return _mm256_add_ps(_mm256_shuffle_ps(s[0], s[1], 0x88), _mm256_shuffle_ps(s[0], s[1], 0xDD));
}
OP vf vf_fold16(vf *a) { return vf_both(fold8_(a, 0), fold8_(a, 8)); }
#define FOLD_SLOT(k) (8 * ((k) / 8) + 2 * ((k) % 4) + (k) / 4 % 2)
OP vi vi_fold16(int largest, vi *a)
{
    int32_t lanes[16];
    for (int k = 0; k < 16; k++)
        lanes[k] = largest ? vi_largest(a[FOLD_SLOT(k)]) : vi_total(a[FOLD_SLOT(k)]);
    return vi_load(lanes);
}
OP __m256i sums8_(const int8_t *x) /* of 64 bytes made unsigned, which is 128 more */
{
    __m256i more = _mm256_set1_epi8(-128), zero = _mm256_setzero_si256();
    __m256i a = _mm256_sad_epu8(_mm256_xor_si256(_mm256_loadu_si256((const __m256i *)x), more), zero);
    __m256i b = _mm256_sad_epu8(_mm256_xor_si256(_mm256_loadu_si256((const __m256i *)(x + 32)), more), zero);
    __m256 both = _mm256_shuffle_ps(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b), 0x88);
    __m256i sums = _mm256_permute4x64_epi64(_mm256_castps_si256(both), 0xD8);
    return _mm256_sub_epi32(sums, _mm256_set1_epi32(8 * 128));
}
OP vi vi_sums8(const int8_t *x) { return vi_both(sums8_(x), sums8_(x + 64)); }
