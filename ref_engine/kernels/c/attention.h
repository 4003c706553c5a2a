/* Attention (reference/attention.py, ordered): query t of head h sees keys from .. to - 1, in order of position.

   Masked keys add exact zeros to the sums of the softmax, and nothing to the weighted values: they are left out. */
#ifdef _OPENMP
#include <omp.h>
OP int thread_number(void) { return omp_get_thread_num(); }
#else
OP int thread_number(void) { return 0; }
#endif

#define QUERIES 4 /* that share the loads of values */

OP ptrdiff_t first_key(const attend_args *a, ptrdiff_t t)
{
    ptrdiff_t from = a->window ? (ptrdiff_t)a->positions[t] - a->window + 1 : 0;
    return from > 0 ? from : 0;
}
OP ptrdiff_t end_key(const attend_args *a, ptrdiff_t t)
{
    ptrdiff_t end = (ptrdiff_t)a->positions[t] + 1;
    return end < a->S ? end : a->S;
}

#define PADDED_KEYS(a) (((a)->S + 15) / 16 * 16)
#define CONVERTS(a) ((a)->half && (a)->T >= QUERIES) /* many queries: keys and values to float32 first */

static size_t attend_scratch(const attend_args *a, int threads)
{
    size_t converted = CONVERTS(a) ? (size_t)(a->S * a->K * (a->Hd + a->Vd)) : 0;
    return converted + (size_t)(threads * QUERIES * PADDED_KEYS(a));
}

OP int clip16(ptrdiff_t n) { return n < 0 ? 0 : n > 16 ? 16 : (int)n; }

/* Lanes of the sixteen keys at s that lie within from .. end - 1. */
OP vm seen_lanes(ptrdiff_t s, ptrdiff_t from, ptrdiff_t end)
{
    return vm_and_not(vm_below(clip16(end - s)), vm_below(clip16(from - s)));
}

/* q . k times scale into p, minus infinity where masked. Returns the largest, NaN if there is one. */
OP float scores(const attend_args *a, int kind, const uint8_t *k, ptrdiff_t t, ptrdiff_t h, ptrdiff_t from,
                ptrdiff_t end, float *p)
{
    const ptrdiff_t head = a->Hd * item_bytes(kind), stride = a->K * head, group = a->H / a->K;
    const float *q = a->q + (t * a->H + h) * a->Hd;
    vf most = vf_set1(-INFINITY);
    int nan = 0;
    for (ptrdiff_t s = from / 16 * 16; s < end; s += 16) {
        vf x = dot16(kind, q, a->Hd, k + s * stride + h / group * head, stride, clip16(a->S - s));
        if (a->cap != 0)
            x = vf_soft_cap(x, a->inverse_cap, a->cap);
        x = vf_select(seen_lanes(s, from, end), vf_mul(x, vf_set1(a->scale)), vf_set1(-INFINITY));
        nan |= vm_any(vm_nan(x));
        most = vf_max(most, x);
        vf_store(p + s, x);
    }
    float lanes[16], largest = -INFINITY;
    vf_store(lanes, most);
    for (int l = 0; l < 16; l++)
        largest = lanes[l] > largest ? lanes[l] : largest;
    return nan ? NAN : largest;
}

/* sink: one more score, which takes weight and gives nothing; NULL for none. */
OP void soft_max(float largest, const float *sink, ptrdiff_t from, ptrdiff_t end, float *p)
{
    if (sink && !(*sink <= largest || largest != largest))
        largest = *sink; /* a NaN too */
    vf sum = vf_set1(0);
    for (ptrdiff_t s = from / 16 * 16; s < end; s += 16) {
        vf e = vf_exp(vf_sub(vf_load(p + s), vf_set1(largest)));
        sum = vf_add(sum, e);
        vf_store(p + s, e);
    }
    float total = lane_fold(sum);
    if (sink) {
        float of_sink[16];
        vf_store(of_sink, vf_exp(vf_set1(*sink - largest)));
        total += of_sink[0];
    }
    float inverse = 1.0f / total;
    for (ptrdiff_t s = from / 16 * 16; s < end; s += 16)
        vf_store(p + s, vf_mul(vf_load(p + s), vf_set1(inverse)));
}

/* acc = acc + p[s] * v[s] for n queries, 16 * vectors features at v, keys from .. end - 1 */
OP void weigh(int kind, int n, int vectors, const float *p, ptrdiff_t p_stride, const uint8_t *v, ptrdiff_t stride,
              ptrdiff_t from, ptrdiff_t end, float *out, ptrdiff_t out_stride)
{
    vf acc[QUERIES][4];
    UNROLL for (int t = 0; t < n; t++)
        UNROLL for (int i = 0; i < vectors; i++) acc[t][i] = vf_load(out + t * out_stride + 16 * i);
    for (ptrdiff_t s = from; s < end; s++) {
        vf value[4];
        UNROLL for (int i = 0; i < vectors; i++) value[i] = load16(kind, v + s * stride + 16 * i * item_bytes(kind));
        UNROLL for (int t = 0; t < n; t++)
        {
            vf weight = vf_set1(p[t * p_stride + s]);
            UNROLL for (int i = 0; i < vectors; i++) acc[t][i] = vf_add(acc[t][i], vf_mul(weight, value[i]));
        }
    }
    UNROLL for (int t = 0; t < n; t++)
        UNROLL for (int i = 0; i < vectors; i++) vf_store(out + t * out_stride + 16 * i, acc[t][i]);
}

/* All features of a head for n queries over the same keys. */
OP void weigh_head(int kind, int n, ptrdiff_t Vd, const float *p, ptrdiff_t p_stride, const uint8_t *v,
                   ptrdiff_t stride, ptrdiff_t from, ptrdiff_t end, float *out, ptrdiff_t out_stride)
{
    ptrdiff_t i = 0;
    for (; i + 64 <= Vd; i += 64)
        weigh(kind, n, 4, p, p_stride, v + i * item_bytes(kind), stride, from, end, out + i, out_stride);
    for (; i + 16 <= Vd; i += 16)
        weigh(kind, n, 1, p, p_stride, v + i * item_bytes(kind), stride, from, end, out + i, out_stride);
    if (i < Vd)
        for (int t = 0; t < n; t++) {
            float *y = out + t * out_stride + i;
            vf acc = load_some(P_F32, (const uint8_t *)y, Vd - i);
            for (ptrdiff_t s = from; s < end; s++)
                acc = vf_add(acc, vf_mul(vf_set1(p[t * p_stride + s]),
                                         load_some(kind, v + s * stride + i * item_bytes(kind), Vd - i)));
            store_rows(y, acc, (int)(Vd - i));
        }
}

/* Up to QUERIES queries of one head. */
OP void attend_tile(const attend_args *a, int kind, const uint8_t *k, const uint8_t *v, ptrdiff_t t0, ptrdiff_t h,
                    float *p)
{
    const int converted = kind == P_F32 && a->half;
    const ptrdiff_t stride = converted ? a->K * a->Vd * 4 : a->v_key, head = converted ? a->Vd * 4 : a->v_head;
    const ptrdiff_t keys = PADDED_KEYS(a), out_stride = a->H * a->Vd;
    const float *sink = a->sinks ? a->sinks + h : NULL;
    const int n = a->T - t0 < QUERIES ? (int)(a->T - t0) : QUERIES;
    const uint8_t *vh = v + h / (a->H / a->K) * head;
    float *out = a->out + (t0 * a->H + h) * a->Vd;
    ptrdiff_t from[QUERIES], end[QUERIES], all_from = 0, all_end = a->S;
    for (int t = 0; t < n; t++) {
        from[t] = first_key(a, t0 + t);
        end[t] = end_key(a, t0 + t);
        all_from = from[t] > all_from ? from[t] : all_from;
        all_end = end[t] < all_end ? end[t] : all_end;
        float largest = scores(a, kind, k, t0 + t, h, from[t], end[t], p + t * keys);
        soft_max(largest, sink, from[t], end[t], p + t * keys);
        memset(out + t * out_stride, 0, (size_t)a->Vd * 4);
    }
    if (n < QUERIES || all_from >= all_end) {
        for (int t = 0; t < n; t++)
            weigh_head(kind, 1, a->Vd, p + t * keys, 0, vh, stride, from[t], end[t], out + t * out_stride, 0);
        return;
    }
    for (int t = 0; t < QUERIES; t++)
        weigh_head(kind, 1, a->Vd, p + t * keys, 0, vh, stride, from[t], all_from, out + t * out_stride, 0);
    weigh_head(kind, QUERIES, a->Vd, p, keys, vh, stride, all_from, all_end, out, out_stride);
    for (int t = 0; t < QUERIES; t++)
        weigh_head(kind, 1, a->Vd, p + t * keys, 0, vh, stride, all_end, end[t], out + t * out_stride, 0);
}

static void attend_tile_f32(const attend_args *a, const void *k, const void *v, ptrdiff_t t0, ptrdiff_t h, float *p)
{
    attend_tile(a, P_F32, (const uint8_t *)k, (const uint8_t *)v, t0, h, p);
}
static void attend_tile_f16(const attend_args *a, const void *k, const void *v, ptrdiff_t t0, ptrdiff_t h, float *p)
{
    attend_tile(a, P_F16, (const uint8_t *)k, (const uint8_t *)v, t0, h, p);
}

OP void to_float(const uint16_t *from, ptrdiff_t n, float *to)
{
    ptrdiff_t i = 0;
    for (; i + 16 <= n; i += 16)
        vf_store(to + i, vf_load_half(from + i));
    for (; i < n; i++)
        to[i] = half_to_float(from[i]);
}

static void attend(const attend_args *a, int threads)
{
    const ptrdiff_t row = a->K * a->Hd, v_row = a->K * a->Vd;
    const ptrdiff_t tiles = (a->T + QUERIES - 1) / QUERIES, keys = PADDED_KEYS(a);
    const int converts = CONVERTS(a);
    float *k32 = a->scratch, *v32 = k32 + (converts ? a->S * row : 0), *p = v32 + (converts ? a->S * v_row : 0);
    ptrdiff_t from = a->S;
    for (ptrdiff_t t = 0; t < a->T; t++)
        from = first_key(a, t) < from ? first_key(a, t) : from;
    from = from / 16 * 16;
    (void)threads;
    if (converts) {
#pragma omp parallel for num_threads(threads) schedule(static)
        for (ptrdiff_t s = from; s < a->S; s++) {
            to_float((const uint16_t *)a->k + s * row, row, k32 + s * row);
            for (ptrdiff_t h = 0; h < a->K; h++)
                to_float((const uint16_t *)((const uint8_t *)a->v + s * a->v_key + h * a->v_head), a->Vd,
                         v32 + s * v_row + h * a->Vd);
        }
    }
#pragma omp parallel for num_threads(threads) schedule(dynamic) if (a->T * a->S * a->H * a->Hd >= WORTH_THREADS)
    for (ptrdiff_t i = tiles * a->H - 1; i >= 0; i--) { /* the longest first */
        float *mine = p + thread_number() * QUERIES * keys;
        ptrdiff_t t0 = i / a->H * QUERIES, h = i % a->H;
        if (converts)
            attend_tile_f32(a, k32, v32, t0, h, mine);
        else if (a->half)
            attend_tile_f16(a, a->k, a->v, t0, h, mine);
        else
            attend_tile_f32(a, a->k, a->v, t0, h, mine);
    }
}
