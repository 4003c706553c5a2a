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
    const float *turned;    /* in place of k: blocks of sixteen keys, each (Hd, 16) */
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
#define TURNS(a) ((a)->T >= QUERIES) /* many queries: keys turned and values in float32 first */

static size_t attend_scratch(const attend_args *a, int threads)
{
    size_t turned = TURNS(a) ? (size_t)(a->K * (PADDED_KEYS(a) * a->Hd + a->S * a->Vd)) : 0;
    return turned + (size_t)(threads * QUERIES * PADDED_KEYS(a));
}

OP int clip16(ptrdiff_t n) { return n < 0 ? 0 : n > 16 ? 16 : (int)n; }

/* Lanes of the sixteen keys at s that lie within from .. end - 1. */
OP vm seen_lanes(ptrdiff_t s, ptrdiff_t from, ptrdiff_t end)
{
    return vm_and_not(vm_below(clip16(end - s)), vm_below(clip16(from - s)));
}

/* Products of n queries with a block of sixteen keys that is turned, (Hd, 16), into their places. The sums are those of
   `lane_fold`, without moving anything between lanes: each vector here is one lane of sixteen dot products. */
OP void dots_turned(int n, const attend_row *row, ptrdiff_t Hd, const float *k, ptrdiff_t s)
{
    vf even[QUERIES], odd[QUERIES];
    UNROLL for (int step = 0; step < 4; step++)
    {
        const int lane = step == 1 ? 2 : step == 2 ? 1 : step; /* of eight: the order in which they are added up */
        vf acc[4][QUERIES];
        UNROLL for (int j = 0; j < 4; j++)
        {
            const ptrdiff_t i = lane + 4 * j;
            UNROLL for (int t = 0; t < n; t++)
                acc[j][t] = i < Hd ? vf_mul(vf_load(k + 16 * i), vf_set1(row[t].q[i])) : vf_set1(0);
        }
        for (ptrdiff_t i = 16 + lane; i < Hd; i += 16)
            UNROLL for (int j = 0; j < 4; j++)
            {
                if (i + 4 * j >= Hd)
                    break;
                vf key = vf_load(k + 16 * (i + 4 * j));
                UNROLL for (int t = 0; t < n; t++)
                    acc[j][t] = vf_add(acc[j][t], vf_mul(key, vf_set1(row[t].q[i + 4 * j])));
            }
        UNROLL for (int t = 0; t < n; t++)
        {
            vf four = vf_add(vf_add(acc[0][t], acc[2][t]), vf_add(acc[1][t], acc[3][t]));
            if (step < 2)
                even[t] = step ? vf_add(even[t], four) : four;
            else
                odd[t] = step == 3 ? vf_add(odd[t], four) : four;
        }
    }
    UNROLL for (int t = 0; t < n; t++) vf_store(row[t].p + s, vf_add(even[t], odd[t]));
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
        if (keys->turned && n == QUERIES)
            dots_turned(QUERIES, row, a->Hd, keys->turned + s * a->Hd, s);
        else if (keys->turned)
            for (int t = 0; t < n; t++)
                dots_turned(1, row + t, a->Hd, keys->turned + s * a->Hd, s);
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

OP void to_float(int half, const void *from, ptrdiff_t n, float *to)
{
    ptrdiff_t i = 0;
    if (!half) {
        memcpy(to, from, (size_t)n * 4);
        return;
    }
    for (; i + 16 <= n; i += 16)
        vf_store(to + i, vf_load_half((const uint16_t *)from + i));
    for (; i < n; i++)
        to[i] = half_to_float(((const uint16_t *)from)[i]);
}

/* Sixteen keys of each head at s, those from S on zeros, as (Hd, 16) each; their values as (S, Vd) of each head. */
static void turn_keys(const attend_args *a, ptrdiff_t s, float *turned, float *v32)
{
    const ptrdiff_t item = a->half ? 2 : 4;
    for (ptrdiff_t h = 0; h < a->K; h++) {
        float *block = turned + (h * PADDED_KEYS(a) + s) * a->Hd;
        for (ptrdiff_t l = 0; l < 16; l++) {
            const ptrdiff_t key = s + l;
            if (key < a->S) {
                const uint8_t *v = (const uint8_t *)a->v + key * a->v_key + h * a->v_head;
                to_float(a->half, v, a->Vd, v32 + (h * a->S + key) * a->Vd);
            }
            for (ptrdiff_t i = 0; i < a->Hd; i += 16) {
                const ptrdiff_t n = a->Hd - i < 16 ? a->Hd - i : 16;
                const uint8_t *k = (const uint8_t *)a->k + ((key * a->K + h) * a->Hd + i) * item;
                float some[16] = {0};
                if (key < a->S)
                    to_float(a->half, k, n, some);
                for (ptrdiff_t j = 0; j < n; j++)
                    block[16 * (i + j) + l] = some[j];
            }
        }
    }
}

/* Queries `first` .. of the group of heads that shares key head h, counted token by token. */
static void attend_some(const attend_args *a, const float *turned, const float *v32, ptrdiff_t h, ptrdiff_t first,
                        int n, float *p)
{
    const ptrdiff_t group = a->H / a->K, item = a->half ? 2 : 4;
    attend_keys keys = {(const uint8_t *)a->k + h * a->Hd * item, (const uint8_t *)a->v + h * a->v_head, NULL,
                        a->K * a->Hd * item, a->v_key, a->T == 1 && h == 0};
    if (turned) {
        keys.turned = turned + h * PADDED_KEYS(a) * a->Hd;
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
    if (turned || !a->half)
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
    const int turns = TURNS(a);
    float *turned = a->scratch, *v32 = turned + (turns ? PADDED_KEYS(a) * a->K * a->Hd : 0);
    float *p = v32 + (turns ? a->S * a->K * a->Vd : 0);
    if (turns) {
        ptrdiff_t from = a->S;
        for (ptrdiff_t t = 0; t < a->T; t++)
            from = first_key(a, t) < from ? first_key(a, t) : from;
#pragma omp parallel for num_threads(threads) schedule(static) if (a->T * a->S * a->H * a->Hd >= WORTH_THREADS)
        for (ptrdiff_t s = from / 16; s < PADDED_KEYS(a) / 16; s++)
            turn_keys(a, s * 16, turned, v32);
    }
#pragma omp parallel for num_threads(threads) schedule(dynamic) if (a->T * a->S * a->H * a->Hd >= WORTH_THREADS)
    for (ptrdiff_t i = tiles * a->K - 1; i >= 0; i--) { /* the longest first */
        const ptrdiff_t first = i / a->K * together, left = queries - first;
        attend_some(a, turns ? turned : NULL, v32, i % a->K, first, (int)(left < together ? left : together),
                    p + thread_number() * QUERIES * PADDED_KEYS(a));
    }
}
