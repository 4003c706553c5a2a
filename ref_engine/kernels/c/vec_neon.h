/* Sixteen lanes as four NEON registers (ARMv8.2 with dotprod). The words are those of vec_avx512.h. */
#include <arm_neon.h>
#include <string.h>

typedef struct { float32x4_t v[4]; } vf;
typedef struct { int32x4_t v[4]; } vi;
typedef struct { uint8x16_t v[4]; } vb;
typedef struct { uint32x4_t v[4]; } vm;

#define TILE 4
#define TOGETHER 2 /* vectors that chains of operations interleave */
#define FOUR_(T, expr) T y_; UNROLL for (int r = 0; r < 4; r++) y_.v[r] = (expr); return y_

OP vf vf_set1(float x) { FOUR_(vf, vdupq_n_f32(x)); }
OP vf vf_load(const float *p) { FOUR_(vf, vld1q_f32(p + 4 * r)); }
OP void vf_store(float *p, vf a) { UNROLL for (int r = 0; r < 4; r++) vst1q_f32(p + 4 * r, a.v[r]); }
OP vf vf_add(vf a, vf b) { FOUR_(vf, vaddq_f32(a.v[r], b.v[r])); }
OP vf vf_sub(vf a, vf b) { FOUR_(vf, vsubq_f32(a.v[r], b.v[r])); }
OP vf vf_mul(vf a, vf b) { FOUR_(vf, vmulq_f32(a.v[r], b.v[r])); }
OP vf vf_add_exact(vf acc, vf a, vf b) { FOUR_(vf, vfmaq_f32(acc.v[r], a.v[r], b.v[r])); } /* a * b is exact */
OP vf vf_div(vf a, vf b) { FOUR_(vf, vdivq_f32(a.v[r], b.v[r])); }
/* the second where either is NaN or they are equal, as the x86 instructions do; NEON's own would give the NaN */
OP vf vf_max(vf a, vf b) { FOUR_(vf, vbslq_f32(vcgtq_f32(a.v[r], b.v[r]), a.v[r], b.v[r])); }
OP vf vf_min(vf a, vf b) { FOUR_(vf, vbslq_f32(vcltq_f32(a.v[r], b.v[r]), a.v[r], b.v[r])); }
OP float vf_largest(vf a) { return vmaxvq_f32(vmaxq_f32(vmaxq_f32(a.v[0], a.v[1]), vmaxq_f32(a.v[2], a.v[3]))); }
OP vi vi_of_bits(vf a) { FOUR_(vi, vreinterpretq_s32_f32(a.v[r])); }
OP vf vf_of_bits(vi a) { FOUR_(vf, vreinterpretq_f32_s32(a.v[r])); }

OP vi vi_set1(int32_t x) { FOUR_(vi, vdupq_n_s32(x)); }
OP vi vi_add(vi a, vi b) { FOUR_(vi, vaddq_s32(a.v[r], b.v[r])); }
OP vi vi_mul(vi a, vi b) { FOUR_(vi, vmulq_s32(a.v[r], b.v[r])); }
OP vi vi_and(vi a, vi b) { FOUR_(vi, vandq_s32(a.v[r], b.v[r])); }
OP vi vi_or(vi a, vi b) { FOUR_(vi, vorrq_s32(a.v[r], b.v[r])); }
OP vi vi_max(vi a, vi b) { FOUR_(vi, vmaxq_s32(a.v[r], b.v[r])); }
OP int32_t vi_largest(vi a) { return vmaxvq_s32(vmaxq_s32(vmaxq_s32(a.v[0], a.v[1]), vmaxq_s32(a.v[2], a.v[3]))); }
OP int32_t vi_total(vi a) { return vaddvq_s32(vaddq_s32(vaddq_s32(a.v[0], a.v[1]), vaddq_s32(a.v[2], a.v[3]))); }
OP vf vf_of(vi a) { FOUR_(vf, vcvtq_f32_s32(a.v[r])); }
OP void vi_store(void *p, vi a)
{
    UNROLL for (int r = 0; r < 4; r++) vst1q_u8((uint8_t *)p + 16 * r, vreinterpretq_u8_s32(a.v[r]));
}
OP vi vi_load(const void *p) { FOUR_(vi, vreinterpretq_s32_u8(vld1q_u8((const uint8_t *)p + 16 * r))); }
OP vi vi_load_u8(const uint8_t *p)
{
    uint8x16_t x = vld1q_u8(p);
    uint16x8_t low = vmovl_u8(vget_low_u8(x)), high = vmovl_high_u8(x);
    vi y = {{vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(low))), vreinterpretq_s32_u32(vmovl_high_u16(low)),
             vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(high))), vreinterpretq_s32_u32(vmovl_high_u16(high))}};
    return y;
}
OP vi vi_load_i8(const uint8_t *p)
{
    int8x16_t x = vreinterpretq_s8_u8(vld1q_u8(p));
    int16x8_t low = vmovl_s8(vget_low_s8(x)), high = vmovl_high_s8(x);
    vi y = {{vmovl_s16(vget_low_s16(low)), vmovl_high_s16(low), vmovl_s16(vget_low_s16(high)), vmovl_high_s16(high)}};
    return y;
}
OP void vi_store_i8(int8_t *p, vi a)
{
    int16x8_t low = vmovn_high_s32(vmovn_s32(a.v[0]), a.v[1]), high = vmovn_high_s32(vmovn_s32(a.v[2]), a.v[3]);
    vst1q_s8(p, vmovn_high_s16(vmovn_s16(low), high));
}

OP vf vf_rint(vf a) { FOUR_(vf, vrndnq_f32(a.v[r])); }
OP vi vi_rint(vf a) { FOUR_(vi, vcvtnq_s32_f32(a.v[r])); }
/* a * 2**n for whole n in -150 .. 128, rounded once: the first factor is exact */
OP float32x4_t power_(int32x4_t n) { return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(n, vdupq_n_s32(127)), 23)); }
OP float32x4_t ldexp_(float32x4_t a, float32x4_t n)
{
    int32x4_t whole = vcvtnq_s32_f32(n), one = vshrq_n_s32(whole, 1);
    return vmulq_f32(vmulq_f32(a, power_(one)), power_(vsubq_s32(whole, one)));
}
OP vf vf_ldexp(vf a, vf n) { FOUR_(vf, ldexp_(a.v[r], n.v[r])); }

OP vm vm_less(vf a, vf b) { FOUR_(vm, vcltq_f32(a.v[r], b.v[r])); }
OP vm vm_below(int n)
{
    static const int32_t LANE[4] = {0, 1, 2, 3};
    int32x4_t lane = vld1q_s32(LANE);
    FOUR_(vm, vcltq_s32(lane, vdupq_n_s32(n - 4 * r)));
}
OP vm vm_or(vm a, vm b) { FOUR_(vm, vorrq_u32(a.v[r], b.v[r])); }
OP vm vm_and_not(vm a, vm b) { FOUR_(vm, vbicq_u32(a.v[r], b.v[r])); }
OP int vm_any(vm a) { return vmaxvq_u32(vorrq_u32(vorrq_u32(a.v[0], a.v[1]), vorrq_u32(a.v[2], a.v[3]))) != 0; }
OP vf vf_select(vm m, vf a, vf b) { FOUR_(vf, vbslq_f32(m.v[r], a.v[r], b.v[r])); }
OP vf vf_ldexp_but(vm zero, vf a, vf n)
{
    return vf_select(zero, vf_set1(0), vf_ldexp(a, vf_select(zero, vf_set1(0), n)));
}

OP float half_to_float(uint16_t h)
{
    __fp16 x;
    memcpy(&x, &h, 2);
    return (float)x;
}
OP uint16_t float_to_half(float x)
{
    __fp16 y = (__fp16)x;
    uint16_t h;
    memcpy(&h, &y, 2);
    return h;
}
OP vf vf_load_half(const void *p)
{
    FOUR_(vf, vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8((const uint8_t *)p + 8 * r))));
}
OP void vf_store_half(void *p, vf a)
{
    UNROLL for (int r = 0; r < 4; r++) vst1_u8((uint8_t *)p + 8 * r, vreinterpret_u8_f16(vcvt_f16_f32(a.v[r])));
}
OP vf vf_as_half(vf a) { FOUR_(vf, vcvt_f32_f16(vcvt_f16_f32(a.v[r]))); }

OP vb vb_load(const void *p) { FOUR_(vb, vld1q_u8((const uint8_t *)p + 16 * r)); }
OP vb vb_low4(vb a) { FOUR_(vb, vandq_u8(a.v[r], vdupq_n_u8(15))); }
OP vb vb_high4(vb a) { FOUR_(vb, vshrq_n_u8(a.v[r], 4)); }
OP vb vb_or(vb a, vb b) { FOUR_(vb, vorrq_u8(a.v[r], b.v[r])); }
/* a shift to the left by a negative number is one to the right */
OP vb vb_bit4(vb a, int j)
{
    FOUR_(vb, vandq_u8(vshlq_u8(a.v[r], vdupq_n_s8((int8_t)(4 - j))), vdupq_n_u8(16)));
}
OP vb vb_bits45(vb a, int r2)
{
    FOUR_(vb, vandq_u8(vshlq_u8(a.v[r], vdupq_n_s8((int8_t)(4 - 2 * r2))), vdupq_n_u8(48)));
}

OP vb vb_bits01(vb a, int r2) { FOUR_(vb, vandq_u8(vshlq_u8(a.v[r], vdupq_n_s8((int8_t)(-2 * r2))), vdupq_n_u8(3))); }
OP vb vb_bit2(vb a, int j) { FOUR_(vb, vandq_u8(vshlq_u8(a.v[r], vdupq_n_s8((int8_t)(2 - j))), vdupq_n_u8(4))); }
OP vb vb_lookup(vb levels, vb index) { FOUR_(vb, vqtbl1q_u8(levels.v[r], index.v[r])); }

/* acc + four quads of signed weights times the sixteen activations at x: a lane of x is the quad for all rows. */
OP int32x4_t dot4_(int32x4_t acc, const vb *w, int r, int8x16_t x)
{
    acc = vdotq_laneq_s32(acc, vreinterpretq_s8_u8(w[0].v[r]), x, 0);
    acc = vdotq_laneq_s32(acc, vreinterpretq_s8_u8(w[1].v[r]), x, 1);
    acc = vdotq_laneq_s32(acc, vreinterpretq_s8_u8(w[2].v[r]), x, 2);
    return vdotq_laneq_s32(acc, vreinterpretq_s8_u8(w[3].v[r]), x, 3);
}
/* Weights of at most 7 bits are the same numbers when they are read as signed: exact, and no correction is needed. */
#define DOT_STEP(bits) 4
OP vi vi_dot(vi acc, const vb *w, int quads, const int8_t *x, int bits)
{
    (void)bits;
    UNROLL for (int j = 0; j < quads; j += 4)
    {
        int8x16_t xj = vld1q_s8(x + 4 * j);
        UNROLL for (int r = 0; r < 4; r++) acc.v[r] = dot4_(acc.v[r], w + j, r, xj);
    }
    return acc;
}
/* Bytes that are 128 too large are signed weights but for their top bit. */
#define SHIFTED_START(s) 0
OP vi vi_dot_shifted(vi acc, const vb *w, int quads, const int8_t *x)
{
    UNROLL for (int j = 0; j < quads; j += 4)
    {
        vb weights[4];
        UNROLL for (int i = 0; i < 4; i++)
            UNROLL for (int r = 0; r < 4; r++) weights[i].v[r] = veorq_u8(w[j + i].v[r], vdupq_n_u8(128));
        acc = vi_dot(acc, weights, 4, x + 4 * j, 8);
    }
    return acc;
}
OP vi vi_dot_pairs(vi acc, const uint8_t *pairs, int32_t x)
{
    uint8x16x2_t both = vld2q_u8(pairs);
    const int16_t two[2] = {(int16_t)(x & 0xffff), (int16_t)(x >> 16)};
    UNROLL for (int i = 0; i < 2; i++)
    {
        int16x8_t low = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(both.val[i])));
        int16x8_t high = vreinterpretq_s16_u16(vmovl_high_u8(both.val[i]));
        acc.v[0] = vmlal_n_s16(acc.v[0], vget_low_s16(low), two[i]);
        acc.v[1] = vmlal_high_n_s16(acc.v[1], low, two[i]);
        acc.v[2] = vmlal_n_s16(acc.v[2], vget_low_s16(high), two[i]);
        acc.v[3] = vmlal_high_n_s16(acc.v[3], high, two[i]);
    }
    return acc;
}

OP vi vi_add_scaled(vi acc, vi sum, vi scale)
{
    FOUR_(vi, vmlal_s16(acc.v[r], vmovn_s32(sum.v[r]), vmovn_s32(scale.v[r])));
}

/* Sixteen lanes to four: twice the upper half onto the lower. */
OP float32x4_t fold4_(vf a) { return vaddq_f32(vaddq_f32(a.v[0], a.v[2]), vaddq_f32(a.v[1], a.v[3])); }
/* Two vectors of four lanes to two each, side by side: again the upper half onto the lower. */
OP float32x4_t fold2_(float32x4_t a, float32x4_t b)
{
    float64x2_t low = vzip1q_f64(vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(b));
    float64x2_t high = vzip2q_f64(vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(b));
    return vaddq_f32(vreinterpretq_f32_f64(low), vreinterpretq_f32_f64(high));
}
OP vf vf_fold16(vf *a)
{
    FOUR_(vf, vpaddq_f32(fold2_(fold4_(a[4 * r]), fold4_(a[4 * r + 1])),
                         fold2_(fold4_(a[4 * r + 2]), fold4_(a[4 * r + 3]))));
}
#define FOLD_SLOT(k) (k)
OP int32x4_t folded4_(int largest, vi a)
{
    return largest ? vmaxq_s32(vmaxq_s32(a.v[0], a.v[1]), vmaxq_s32(a.v[2], a.v[3]))
                   : vaddq_s32(vaddq_s32(a.v[0], a.v[1]), vaddq_s32(a.v[2], a.v[3]));
}
OP int32x4_t paired4_(int largest, int32x4_t a, int32x4_t b) { return largest ? vpmaxq_s32(a, b) : vpaddq_s32(a, b); }
OP vi vi_fold16(int largest, vi *a)
{
    FOUR_(vi, paired4_(largest, paired4_(largest, folded4_(largest, a[4 * r]), folded4_(largest, a[4 * r + 1])),
                       paired4_(largest, folded4_(largest, a[4 * r + 2]), folded4_(largest, a[4 * r + 3]))));
}
OP int32x4_t sums4_(const int8_t *x) { return vpaddlq_s16(vpaddlq_s8(vld1q_s8(x))); }
OP vi vi_sums8(const int8_t *x) { FOUR_(vi, vpaddq_s32(sums4_(x + 32 * r), sums4_(x + 32 * r + 16))); }
