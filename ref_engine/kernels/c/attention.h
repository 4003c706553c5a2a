/* Attention (reference/attention.py, ordered): query t of head h sees keys from .. to - 1, in order of position.

   Masked keys add exact zeros to the sums of the softmax, and nothing to the weighted values: they are left out. */
#ifdef _OPENMP
#include <omp.h>
OP int thread_number(void) { return omp_get_thread_num(); }
#else
OP int thread_number(void) { return 0; }
#endif

#define QUERIES 4 /* that share the loads of keys and values */
#define FETCH_KEYS 32

/* One query of one head: what it reads, its place for scores, what it writes. */
typedef struct {
    const float *q;
    float *p, *out;
    const float *sink; /* one more score, which takes weight and gives nothing; NULL for none */
    ptrdiff_t from, end;
} attend_row;

/* The keys and values of one head. */
typedef struct {
    const uint8_t *k, *v;
    ptrdiff_t k_key, v_key; /* bytes from one key to the next */
    int fetch;              /* ask for the keys and values of all heads ahead: nobody has read them yet */
} attend_keys;

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

/* Dot products of QUERIES queries with 16 keys from `s` on, into their places; n a multiple of 16. */
OP void dots_shared(int kind, const attend_row *row, ptrdiff_t n, const uint8_t *keys, ptrdiff_t stride, ptrdiff_t s)
{
    for (int four = 0; four < 16; four += 4) {
        vf acc[16];
        float sums[16];
        UNROLL for (int i = 0; i < 16; i++) acc[i] = vf_set1(0);
        for (ptrdiff_t i = 0; i < n; i += 16) {
            vf q[QUERIES];
            UNROLL for (int t = 0; t < QUERIES; t++) q[t] = vf_load(row[t].q + i);
            UNROLL for (int k = 0; k < 4; k++)
            {
                vf key = load16(kind, keys + (four + k) * stride + i * item_bytes(kind));
                UNROLL for (int t = 0; t < QUERIES; t++)
                    acc[FOLD_SLOT(4 * t + k)] = vf_add(acc[FOLD_SLOT(4 * t + k)], vf_mul(q[t], key));
            }
        }
        vf_store(sums, vf_fold16(acc));
        for (int t = 0; t < QUERIES; t++)
            memcpy(row[t].p + s + four, sums + 4 * t, 16);
    }
}

/* `count` keys or values of all heads, some keys after those at p. */
OP void fetch_keys(const uint8_t *p, ptrdiff_t key, int count)
{
    for (ptrdiff_t i = 0; i < count * key; i += 64)
        __builtin_prefetch(p + FETCH_KEYS * key + i);
}

/* q . k of all keys that any of n queries sees. */
OP void products(const attend_args *a, int kind, const attend_keys *keys, const attend_row *row, int n)
{
    ptrdiff_t from = a->S, end = 0;
    for (int t = 0; t < n; t++) {
        from = row[t].from < from ? row[t].from : from;
        end = row[t].end > end ? row[t].end : end;
    }
    for (ptrdiff_t s = from / 16 * 16; s < end; s += 16) {
        const uint8_t *k = keys->k + s * keys->k_key;
        if (keys->fetch)
            fetch_keys(k, keys->k_key, 16);
        if (n == QUERIES && a->S - s >= 16 && a->Hd % 16 == 0)
            dots_shared(kind, row, a->Hd, k, keys->k_key, s);
        else
            for (int t = 0; t < n; t++)
                vf_store(row[t].p + s, dot16(kind, row[t].q, a->Hd, k, keys->k_key, clip16(a->S - s)));
    }
}

/* Capped, scaled, minus infinity where masked. Returns the largest, NaN if there is one. */
OP float scores(const attend_args *a, const attend_row *row)
{
    vf most = vf_set1(-INFINITY);
    int nan = 0;
    for (ptrdiff_t s = row->from / 16 * 16; s < row->end; s += 16) {
        vf x = vf_load(row->p + s);
        if (a->cap != 0)
            x = vf_soft_cap(x, a->inverse_cap, a->cap);
        x = vf_select(seen_lanes(s, row->from, row->end), vf_mul(x, vf_set1(a->scale)), vf_set1(-INFINITY));
        nan |= vm_any(vm_nan(x));
        most = vf_max(most, x);
        vf_store(row->p + s, x);
    }
    float lanes[16], largest = -INFINITY;
    vf_store(lanes, most);
    for (int l = 0; l < 16; l++)
        largest = lanes[l] > largest ? lanes[l] : largest;
    return nan ? NAN : largest;
}

OP void soft_max(float largest, const attend_row *row)
{
    const float *sink = row->sink;
    if (sink && !(*sink <= largest || largest != largest))
        largest = *sink; /* a NaN too */
    vf sum = vf_set1(0);
    for (ptrdiff_t s = row->from / 16 * 16; s < row->end; s += 16) {
        vf e = vf_exp(vf_sub(vf_load(row->p + s), vf_set1(largest)));
        sum = vf_add(sum, e);
        vf_store(row->p + s, e);
    }
    float total = lane_fold(sum);
    if (sink) {
        float of_sink[16];
        vf_store(of_sink, vf_exp(vf_set1(*sink - largest)));
        total += of_sink[0];
    }
    float inverse = 1.0f / total;
    for (ptrdiff_t s = row->from / 16 * 16; s < row->end; s += 16)
        vf_store(row->p + s, vf_mul(vf_load(row->p + s), vf_set1(inverse)));
}

/* acc = acc + p[s] * v[s] for n queries, 16 * vectors features from `at` on, keys from .. end - 1 */
OP void weigh(int kind, int n, int vectors, const attend_row *row, const attend_keys *keys, ptrdiff_t at,
              ptrdiff_t from, ptrdiff_t end)
{
    vf acc[QUERIES][4];
    UNROLL for (int t = 0; t < n; t++)
        UNROLL for (int i = 0; i < vectors; i++) acc[t][i] = vf_load(row[t].out + at + 16 * i);
    const uint8_t *v = keys->v + at * item_bytes(kind) + from * keys->v_key;
    for (ptrdiff_t s = from; s < end; s++, v += keys->v_key) {
        vf value[4];
        if (keys->fetch && at == 0)
            fetch_keys(v, keys->v_key, 1);
        UNROLL for (int i = 0; i < vectors; i++) value[i] = load16(kind, v + 16 * i * item_bytes(kind));
        UNROLL for (int t = 0; t < n; t++)
        {
            vf weight = vf_set1(row[t].p[s]);
            UNROLL for (int i = 0; i < vectors; i++) acc[t][i] = vf_add(acc[t][i], vf_mul(weight, value[i]));
        }
    }
    UNROLL for (int t = 0; t < n; t++)
        UNROLL for (int i = 0; i < vectors; i++) vf_store(row[t].out + at + 16 * i, acc[t][i]);
}

/* All features for n queries over the same keys. */
OP void weigh_head(int kind, int n, ptrdiff_t Vd, const attend_row *row, const attend_keys *keys, ptrdiff_t from,
                   ptrdiff_t end)
{
    ptrdiff_t i = 0;
    for (; i + 64 <= Vd; i += 64)
        weigh(kind, n, 4, row, keys, i, from, end);
    for (; i + 16 <= Vd; i += 16)
        weigh(kind, n, 1, row, keys, i, from, end);
    if (i < Vd)
        for (int t = 0; t < n; t++) {
            const uint8_t *v = keys->v + i * item_bytes(kind);
            vf acc = load_some(P_F32, (const uint8_t *)(row[t].out + i), Vd - i);
            for (ptrdiff_t s = from; s < end; s++)
                acc = vf_add(acc, vf_mul(vf_set1(row[t].p[s]), load_some(kind, v + s * keys->v_key, Vd - i)));
            store_rows(row[t].out + i, acc, (int)(Vd - i));
        }
}

/* n queries, up to QUERIES, of heads that share keys and values. */
OP void attend_rows(const attend_args *a, int kind, const attend_keys *keys, const attend_row *row, int n)
{
    ptrdiff_t all_from = 0, all_end = a->S;
    products(a, kind, keys, row, n);
    for (int t = 0; t < n; t++) {
        all_from = row[t].from > all_from ? row[t].from : all_from;
        all_end = row[t].end < all_end ? row[t].end : all_end;
        soft_max(scores(a, row + t), row + t);
        memset(row[t].out, 0, (size_t)a->Vd * 4);
    }
    if (n < QUERIES || all_from >= all_end) {
        for (int t = 0; t < n; t++)
            weigh_head(kind, 1, a->Vd, row + t, keys, row[t].from, row[t].end);
        return;
    }
    for (int t = 0; t < QUERIES; t++)
        weigh_head(kind, 1, a->Vd, row + t, keys, row[t].from, all_from);
    weigh_head(kind, QUERIES, a->Vd, row, keys, all_from, all_end);
    for (int t = 0; t < QUERIES; t++)
        weigh_head(kind, 1, a->Vd, row + t, keys, all_end, row[t].end);
}

static void attend_rows_f32(const attend_args *a, const attend_keys *keys, const attend_row *row, int n)
{
    attend_rows(a, P_F32, keys, row, n);
}
static void attend_rows_f16(const attend_args *a, const attend_keys *keys, const attend_row *row, int n)
{
    attend_rows(a, P_F16, keys, row, n);
}

OP void to_float(const uint16_t *from, ptrdiff_t n, float *to)
{
    ptrdiff_t i = 0;
    for (; i + 16 <= n; i += 16)
        vf_store(to + i, vf_load_half(from + i));
    for (; i < n; i++)
        to[i] = half_to_float(from[i]);
}

/* Keys and values from `from` on as float32, those of a head one after the other: (K, S, Hd), (K, S, Vd). */
static void convert_keys(const attend_args *a, ptrdiff_t from, float *k32, float *v32, int threads)
{
    (void)threads;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (ptrdiff_t s = from; s < a->S; s++)
        for (ptrdiff_t h = 0; h < a->K; h++) {
            const uint8_t *v = (const uint8_t *)a->v + s * a->v_key + h * a->v_head;
            to_float((const uint16_t *)a->k + (s * a->K + h) * a->Hd, a->Hd, k32 + (h * a->S + s) * a->Hd);
            to_float((const uint16_t *)v, a->Vd, v32 + (h * a->S + s) * a->Vd);
        }
}

/* Queries `first` .. of the group of heads that shares key head h, counted token by token. */
static void attend_some(const attend_args *a, const float *k32, const float *v32, ptrdiff_t h, ptrdiff_t first, int n,
                        float *p)
{
    const ptrdiff_t group = a->H / a->K, item = a->half ? 2 : 4;
    attend_keys keys = {(const uint8_t *)a->k + h * a->Hd * item, (const uint8_t *)a->v + h * a->v_head,
                        a->K * a->Hd * item, a->v_key, a->T == 1 && h == 0};
    if (k32) {
        keys.k = (const uint8_t *)(k32 + h * a->S * a->Hd), keys.k_key = a->Hd * 4;
        keys.v = (const uint8_t *)(v32 + h * a->S * a->Vd), keys.v_key = a->Vd * 4;
    }
    attend_row row[QUERIES];
    for (int i = 0; i < n; i++) {
        const ptrdiff_t t = (first + i) / group, head = h * group + (first + i) % group;
        row[i].q = a->q + (t * a->H + head) * a->Hd;
        row[i].out = a->out + (t * a->H + head) * a->Vd;
        row[i].p = p + i * PADDED_KEYS(a);
        row[i].sink = a->sinks ? a->sinks + head : NULL;
        row[i].from = first_key(a, t);
        row[i].end = end_key(a, t);
    }
    if (k32 || !a->half)
        attend_rows_f32(a, &keys, row, n);
    else
        attend_rows_f16(a, &keys, row, n);
}

static void attend(const attend_args *a, int threads)
{
    const ptrdiff_t queries = a->T * (a->H / a->K);
    /* fewer together where there would not be enough for all threads */
    const ptrdiff_t together = queries / QUERIES * a->K >= 2 * threads || threads == 1 ? QUERIES : 1;
    const ptrdiff_t tiles = (queries + together - 1) / together;
    const int converts = CONVERTS(a);
    float *k32 = a->scratch, *v32 = k32 + (converts ? a->S * a->K * a->Hd : 0);
    float *p = v32 + (converts ? a->S * a->K * a->Vd : 0);
    if (converts) {
        ptrdiff_t from = a->S;
        for (ptrdiff_t t = 0; t < a->T; t++)
            from = first_key(a, t) < from ? first_key(a, t) : from;
        convert_keys(a, from / 16 * 16, k32, v32, threads);
    }
#pragma omp parallel for num_threads(threads) schedule(dynamic) if (a->T * a->S * a->H * a->Hd >= WORTH_THREADS)
    for (ptrdiff_t i = tiles * a->K - 1; i >= 0; i--) { /* the longest first */
        const ptrdiff_t first = i / a->K * together, left = queries - first;
        attend_some(a, converts ? k32 : NULL, v32, i % a->K, first, (int)(left < together ? left : together),
                    p + thread_number() * QUERIES * PADDED_KEYS(a));
    }
}
