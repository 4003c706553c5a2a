/* Attention (reference/attention.py, ordered): query t of head h sees keys from .. to - 1, in order of position.

   Masked keys add exact zeros to the sums of the softmax, and nothing to the weighted values: they are left out. Beside
   keys and values of float16 queries and weights are rounded to it: their products are exact, so that one rounding of
   product and sum is the same as two. */
#ifdef _OPENMP
#include <omp.h>
OP int thread_number(void) { return omp_get_thread_num(); }
#else
OP int thread_number(void) { return 0; }
#endif

#define QUERIES 4 /* that share the loads of keys and values */
#define FETCH_KEYS 32
#define MOST_ROWS 32         /* queries that pass over keys and values while a core's nearest cache holds them */
#define SOFT_ROWS 8          /* whose softmax is computed together, up to 16 */
#define MOST_SCORES (1 << 18) /* of those queries: what its second cache holds */

/* One query of one head: what it reads, its place for scores, what it writes. */
typedef struct {
    float *q, *p, *out;
    const float *sink; /* one more score, which takes weight and gives nothing; NULL for none */
    ptrdiff_t from, end;
} attend_row;

/* The keys and values of one head. */
typedef struct {
    const uint8_t *k, *v;
    const float *turned;    /* in place of k: blocks of sixteen keys, each (Hd, 16) */
    ptrdiff_t k_key, v_key; /* bytes from one key to the next */
    float *sixteen;         /* room for as many keys of float32 */
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

OP void to_half(const float *from, ptrdiff_t n, uint16_t *to)
{
    ptrdiff_t i = 0;
    for (; i + 16 <= n; i += 16)
        vf_store_half(to + i, vf_load(from + i));
    for (; i < n; i++)
        to[i] = float_to_half(from[i]);
}

OP void as_half(const float *from, ptrdiff_t n, float *to)
{
    ptrdiff_t i = 0;
    for (; i + 16 <= n; i += 16)
        vf_store(to + i, vf_as_half(vf_load(from + i)));
    for (; i < n; i++)
        to[i] = half_to_float(float_to_half(from[i]));
}

#define PADDED_KEYS(a) (((a)->S + 15) / 16 * 16)
#define SCORES_OF_ROW(a) (PADDED_KEYS(a) + 16 * TOGETHER)
#define TURNS(a) ((a)->T >= QUERIES) /* many queries: keys turned and values in float32 first */

/* Queries that a thread has in hand, a multiple of QUERIES. */
OP ptrdiff_t rows_in_hand(const attend_args *a)
{
    ptrdiff_t rows = TURNS(a) ? MOST_SCORES / SCORES_OF_ROW(a) / QUERIES * QUERIES : 0;
    return rows < QUERIES ? QUERIES : rows > MOST_ROWS ? MOST_ROWS : rows;
}

/* Floats of each thread: scores, queries, some keys. */
OP ptrdiff_t own_floats(const attend_args *a) { return rows_in_hand(a) * (SCORES_OF_ROW(a) + a->Hd) + 16 * a->Hd; }

static size_t attend_scratch(const attend_args *a, int threads)
{
    size_t turned = TURNS(a) ? (size_t)(a->K * (PADDED_KEYS(a) * a->Hd + a->S * a->Vd)) : 0;
    return turned + (size_t)(threads * own_floats(a));
}

OP int clip16(ptrdiff_t n) { return n < 0 ? 0 : n > 16 ? 16 : (int)n; }

/* Lanes of the sixteen keys at s that lie within from .. end - 1. */
OP vm seen_lanes(ptrdiff_t s, ptrdiff_t from, ptrdiff_t end)
{
    return vm_and_not(vm_below(clip16(end - s)), vm_below(clip16(from - s)));
}

/* Products of n queries with one or two blocks of sixteen keys that are turned, (Hd, 16), into their places. The sums are
   those of `lane_fold`, without moving anything between lanes: each vector here is one lane of sixteen dot products.
   Two blocks share the loads of the queries. */
OP void dots_of(int exact, int n, int blocks, const attend_row *row, ptrdiff_t Hd, const float *k, ptrdiff_t s)
{
    vf sums[2][2][QUERIES]; /* of even and of odd lanes */
    UNROLL for (int step = 0; step < 4; step++)
    {
        const int first = step == 1 ? 2 : step == 2 ? 1 : step; /* of eight: the order in which they are added up */
        vf four[2][QUERIES];
        UNROLL for (int quarter = 0; quarter < 2; quarter++)
        {
            const ptrdiff_t lane = first + 4 * quarter;
            vf acc[2][2][QUERIES]; /* of this lane and the one eight later */
            UNROLL for (int j = 0; j < 2; j++)
                UNROLL for (int b = 0; b < blocks; b++)
                    UNROLL for (int t = 0; t < n; t++) acc[j][b][t] = vf_set1(0);
            for (ptrdiff_t i = lane; i < Hd; i += 16)
                UNROLL for (int j = 0; j < 2; j++)
                {
                    const ptrdiff_t at = i + 8 * j;
                    if (at >= Hd)
                        break;
                    vf key[2];
                    UNROLL for (int b = 0; b < blocks; b++) key[b] = vf_load(k + 16 * (at + b * Hd));
                    UNROLL for (int t = 0; t < n; t++)
                    {
                        const vf q = vf_set1(row[t].q[at]);
                        UNROLL for (int b = 0; b < blocks; b++)
                            acc[j][b][t] = add_product(exact, acc[j][b][t], key[b], q);
                    }
                }
            UNROLL for (int b = 0; b < blocks; b++)
                UNROLL for (int t = 0; t < n; t++)
                {
                    vf two = vf_add(acc[0][b][t], acc[1][b][t]);
                    four[b][t] = quarter ? vf_add(four[b][t], two) : two;
                }
        }
        UNROLL for (int b = 0; b < blocks; b++)
            UNROLL for (int t = 0; t < n; t++)
                sums[step / 2][b][t] = step % 2 ? vf_add(sums[step / 2][b][t], four[b][t]) : four[b][t];
    }
    UNROLL for (int b = 0; b < blocks; b++)
        UNROLL for (int t = 0; t < n; t++) vf_store(row[t].p + s + 16 * b, vf_add(sums[0][b][t], sums[1][b][t]));
}

/* Loops whose ends a compiler knows need no tests inside. */
OP void dots_turned(int exact, int n, int blocks, const attend_row *row, ptrdiff_t Hd, const float *k, ptrdiff_t s)
{
    if (Hd == 64 && n > 1)
        dots_of(exact, n, blocks, row, 64, k, s);
    else if (Hd % 16 == 0)
        dots_of(exact, n, blocks, row, Hd / 16 * 16, k, s);
    else
        dots_of(exact, n, blocks, row, Hd, k, s);
}

/* `count` keys or values of all heads, some keys after those at p. */
OP void fetch_keys(const uint8_t *p, ptrdiff_t key, int count)
{
    for (ptrdiff_t i = 0; i < count * key; i += 64)
        __builtin_prefetch(p + FETCH_KEYS * key + i);
}

/* The keys that n queries see: any of them, and all of them (from == end: none that all see). */
typedef struct {
    ptrdiff_t from, end, all_from, all_end;
} attend_span;

OP attend_span span_of(const attend_args *a, const attend_row *row, int n)
{
    attend_span span = {a->S, 0, 0, a->S};
    for (int t = 0; t < n; t++) {
        span.from = row[t].from < span.from ? row[t].from : span.from;
        span.end = row[t].end > span.end ? row[t].end : span.end;
        span.all_from = row[t].from > span.all_from ? row[t].from : span.all_from;
        span.all_end = row[t].end < span.all_end ? row[t].end : span.all_end;
    }
    if (span.all_from >= span.all_end)
        span.all_from = span.all_end = a->S;
    return span;
}

/* q . k of the keys that any of n queries sees, which share a block of keys after the other. */
OP void products_turned(const attend_args *a, int exact, const attend_keys *keys, const attend_row *row, int n)
{
    attend_span span = span_of(a, row, n);
    for (ptrdiff_t s = span.from / 16 * 16; s < span.end; s += 32) {
        const float *k = keys->turned + s * a->Hd;
        int t = 0;
        for (; t + QUERIES <= n; t += QUERIES) {
            attend_span own = span_of(a, row + t, QUERIES);
            if (s + 32 <= own.from || s >= own.end)
                continue;
            if (s + 16 < own.end)
                dots_turned(exact, QUERIES, 2, row + t, a->Hd, k, s);
            else
                dots_turned(exact, QUERIES, 1, row + t, a->Hd, k, s);
        }
        for (; t < n; t++)
            for (ptrdiff_t at = s; at < s + 32 && at < row[t].end; at += 16)
                dots_turned(exact, 1, 1, row + t, a->Hd, keys->turned + at * a->Hd, at);
    }
}

/* The same of keys as they lie in the cache, for up to QUERIES. */
OP void products(const attend_args *a, int kind, int exact, const attend_keys *keys, const attend_row *row, int n)
{
    attend_span span = span_of(a, row, n);
    for (ptrdiff_t s = span.from / 16 * 16; s < span.end; s += 16) {
        const uint8_t *k = keys->k + s * keys->k_key;
        if (keys->fetch)
            fetch_keys(k, keys->k_key, 16);
        const int some = clip16(a->S - s), converted = kind != P_F32 && n > 1;
        if (converted)
            for (int l = 0; l < some; l++)
                to_float(1, k + l * keys->k_key, a->Hd, keys->sixteen + l * a->Hd);
        for (int t = 0; t < n; t++)
            if (converted)
                vf_store(row[t].p + s, dot16(P_F32, exact, row[t].q, a->Hd, (const uint8_t *)keys->sixteen, a->Hd * 4, some));
            else
                vf_store(row[t].p + s, dot16(kind, exact, row[t].q, a->Hd, k, keys->k_key, some));
    }
}

/* The scale is left to the softmax: minus infinity stays, and what is largest is largest. */
OP int scaled_later(const attend_args *a) { return a->cap == 0 && a->scale > 0; }

/* The products of a row made minus infinity where masked, up to a multiple of 16 * TOGETHER, and capped and scaled, unless
   that comes later. Returns the largest, of NaNs any. */
OP float masked(const attend_args *a, const attend_row *row)
{
    const ptrdiff_t first = row->from / 16 * 16, last = (row->end - 1) / 16 * 16;
    for (ptrdiff_t s = first; !scaled_later(a) && s <= last; s += 16) {
        vf x = vf_load(row->p + s);
        if (a->cap != 0)
            x = vf_soft_cap(x, a->inverse_cap, a->cap);
        vf_store(row->p + s, vf_mul(x, vf_set1(a->scale)));
    }
    const vf none = vf_set1(-INFINITY);
    vf_store(row->p + first, vf_select(seen_lanes(first, row->from, row->end), vf_load(row->p + first), none));
    vf_store(row->p + last, vf_select(seen_lanes(last, row->from, row->end), vf_load(row->p + last), none));
    for (ptrdiff_t s = last + 16; (s - first) % (16 * TOGETHER); s += 16)
        vf_store(row->p + s, none);
    vf most[TOGETHER];
    UNROLL for (int i = 0; i < TOGETHER; i++) most[i] = none;
    for (ptrdiff_t s = first; s <= last; s += 16 * TOGETHER)
        UNROLL for (int i = 0; i < TOGETHER; i++) most[i] = vf_max(vf_load(row->p + s + 16 * i), most[i]);
    UNROLL for (int i = 1; i < TOGETHER; i++) most[0] = vf_max(most[0], most[i]);
    return vf_largest(most[0]);
}

/* n vectors p to exp(p * scale - largest). Returns their sum, added to `sum` one by one. */
OP vf exps_above(int n, float scale, float largest, float *p, vf sum)
{
    vf e[TOGETHER];
    UNROLL for (int i = 0; i < n; i++) e[i] = vf_sub(vf_mul(vf_load(p + 16 * i), vf_set1(scale)), vf_set1(largest));
    exps(BELOW_ZERO, n, e);
    UNROLL for (int i = 0; i < n; i++)
    {
        sum = vf_add(sum, e[i]);
        vf_store(p + 16 * i, e[i]);
    }
    return sum;
}

/* Of n rows, step by step: a row alone would wait for its largest number and for its sum. A NaN makes the sum one, and so
   every weight. */
OP void soft_max(const attend_args *a, int exact, const attend_row *row, int n)
{
    const float scale = scaled_later(a) ? a->scale : 1;
    float largest[SOFT_ROWS], inverse[16];
    vf sums[16];
    for (int t = 0; t < n; t++) {
        largest[t] = masked(a, row + t) * scale;
        if (row[t].sink && !(*row[t].sink <= largest[t]))
            largest[t] = *row[t].sink; /* a NaN too */
    }
    for (int t = 0; t < 16; t++)
        sums[t] = vf_set1(0);
    for (int t = 0; t < n; t++) {
        vf sum = vf_set1(0);
        for (ptrdiff_t s = row[t].from / 16 * 16; s < row[t].end; s += 16 * TOGETHER)
            sum = exps_above(TOGETHER, scale, largest[t], row[t].p + s, sum);
        sums[FOLD_SLOT(t)] = sum;
    }
    vf totals = vf_fold16(sums);
    if (row->sink) {
        float of_sinks[16] = {0};
        for (int t = 0; t < n; t++)
            of_sinks[t] = *row[t].sink - largest[t];
        totals = vf_add(totals, vf_exp(vf_load(of_sinks)));
    }
    vf_store(inverse, vf_div(vf_set1(1.0f), totals));
    for (int t = 0; t < n; t++)
        for (ptrdiff_t s = row[t].from / 16 * 16; s < row[t].end; s += 16) {
            vf p = vf_mul(vf_load(row[t].p + s), vf_set1(inverse[t]));
            vf_store(row[t].p + s, exact ? vf_as_half(p) : p);
        }
}

/* acc = acc + p[s] * v[s] for n queries, 16 * vectors features from `at` on, keys from .. end - 1 */
OP void weigh(int kind, int exact, int n, int vectors, const attend_row *row, const attend_keys *keys, ptrdiff_t at,
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
            UNROLL for (int i = 0; i < vectors; i++) acc[t][i] = add_product(exact, acc[t][i], weight, value[i]);
        }
    }
    UNROLL for (int t = 0; t < n; t++)
        UNROLL for (int i = 0; i < vectors; i++) vf_store(row[t].out + at + 16 * i, acc[t][i]);
}

/* All features for n queries over the same keys. */
OP void weigh_head(int kind, int exact, int n, ptrdiff_t Vd, const attend_row *row, const attend_keys *keys,
                   ptrdiff_t from, ptrdiff_t end)
{
    ptrdiff_t i = 0;
    for (; i + 64 <= Vd; i += 64)
        weigh(kind, exact, n, 4, row, keys, i, from, end);
    for (; i + 16 <= Vd; i += 16)
        weigh(kind, exact, n, 1, row, keys, i, from, end);
    if (i < Vd)
        for (int t = 0; t < n; t++) {
            const uint8_t *v = keys->v + i * item_bytes(kind);
            vf acc = load_some(P_F32, (const uint8_t *)(row[t].out + i), Vd - i);
            for (ptrdiff_t s = from; s < end; s++)
                acc = add_product(exact, acc, vf_set1(row[t].p[s]), load_some(kind, v + s * keys->v_key, Vd - i));
            store_rows(row[t].out + i, acc, (int)(Vd - i));
        }
}

/* The same for any n up to QUERIES, which share what is loaded. */
OP void weigh_heads(int kind, int exact, int n, ptrdiff_t Vd, const attend_row *row, const attend_keys *keys,
                    ptrdiff_t from, ptrdiff_t end)
{
    if (n == QUERIES)
        weigh_head(kind, exact, QUERIES, Vd, row, keys, from, end);
    else if (n == 3)
        weigh_head(kind, exact, 3, Vd, row, keys, from, end);
    else if (n == 2)
        weigh_head(kind, exact, 2, Vd, row, keys, from, end);
    else
        weigh_head(kind, exact, 1, Vd, row, keys, from, end);
}

#define VALUES 4096 /* of one head, of as many keys as a core's nearest cache holds beside the queries' results */

/* n queries of heads that share keys and values. */
OP void attend_rows(const attend_args *a, int kind, int exact, const attend_keys *keys, const attend_row *row, int n)
{
    attend_span spans[MOST_ROWS / QUERIES + 1];
    ptrdiff_t from = a->S, end = 0;
    const ptrdiff_t together = a->Vd < VALUES / 16 ? VALUES / a->Vd : 16;
    if (keys->turned)
        products_turned(a, exact, keys, row, n);
    else
        products(a, kind, exact, keys, row, n);
    for (int t = 0; t < n; t += SOFT_ROWS)
        soft_max(a, exact, row + t, n - t < SOFT_ROWS ? n - t : SOFT_ROWS);
    for (int t = 0; t < n; t++)
        memset(row[t].out, 0, (size_t)a->Vd * 4);
    for (int t = 0; t < n; t += QUERIES) {
        const int some = n - t < QUERIES ? n - t : QUERIES;
        attend_span *span = spans + t / QUERIES;
        *span = span_of(a, row + t, some);
        if (span->all_from < span->all_end) {
            from = span->all_from < from ? span->all_from : from;
            end = span->all_end > end ? span->all_end : end;
        }
        for (int i = t; i < t + some; i++)
            weigh_head(kind, exact, 1, a->Vd, row + i, keys, row[i].from,
                       span->all_from < row[i].end ? span->all_from : row[i].end);
    }
    for (ptrdiff_t s = from; s < end; s += together)
        for (int t = 0; t < n; t += QUERIES) {
            const attend_span *span = spans + t / QUERIES;
            const ptrdiff_t first = s > span->all_from ? s : span->all_from;
            const ptrdiff_t last = s + together < span->all_end ? s + together : span->all_end;
            if (first < last)
                weigh_heads(kind, exact, n - t < QUERIES ? n - t : QUERIES, a->Vd, row + t, keys, first, last);
        }
    for (int t = 0; t < n; t++)
        weigh_head(kind, exact, 1, a->Vd, row + t, keys, spans[t / QUERIES].all_end, row[t].end);
}

static void attend_rows_f32(const attend_args *a, const attend_keys *keys, const attend_row *row, int n)
{
    attend_rows(a, P_F32, 0, keys, row, n);
}
static void attend_rows_f16(const attend_args *a, const attend_keys *keys, const attend_row *row, int n)
{
    attend_rows(a, P_F16, 1, keys, row, n);
}
/* Float16 that was made float32. */
static void attend_rows_turned(const attend_args *a, const attend_keys *keys, const attend_row *row, int n)
{
    attend_rows(a, P_F32, 1, keys, row, n);
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
                        int n, float *own)
{
    const ptrdiff_t group = a->H / a->K, item = a->half ? 2 : 4;
    attend_keys keys = {(const uint8_t *)a->k + h * a->Hd * item, (const uint8_t *)a->v + h * a->v_head, NULL,
                        a->K * a->Hd * item, a->v_key, own + rows_in_hand(a) * (SCORES_OF_ROW(a) + a->Hd),
                        a->T == 1 && h == 0};
    if (turned) {
        keys.turned = turned + h * PADDED_KEYS(a) * a->Hd;
        keys.v = (const uint8_t *)(v32 + h * a->S * a->Vd), keys.v_key = a->Vd * 4;
    }
    attend_row row[MOST_ROWS];
    for (int i = 0; i < n; i++) {
        const ptrdiff_t t = (first + i) / group, head = h * group + (first + i) % group;
        row[i].q = own + i * (SCORES_OF_ROW(a) + a->Hd);
        row[i].p = row[i].q + a->Hd;
        row[i].out = a->out + (t * a->H + head) * a->Vd;
        if (a->half)
            as_half(a->q + (t * a->H + head) * a->Hd, a->Hd, row[i].q);
        else
            memcpy(row[i].q, a->q + (t * a->H + head) * a->Hd, (size_t)a->Hd * 4);
        row[i].sink = a->sinks ? a->sinks + head : NULL;
        row[i].from = first_key(a, t);
        row[i].end = end_key(a, t);
    }
    if (!a->half)
        attend_rows_f32(a, &keys, row, n);
    else if (turned)
        attend_rows_turned(a, &keys, row, n);
    else
        attend_rows_f16(a, &keys, row, n);
}

static void attend(const attend_args *a, int threads)
{
    const ptrdiff_t queries = a->T * (a->H / a->K);
    ptrdiff_t together = rows_in_hand(a); /* fewer where there would not be enough for all threads */
    while (together > 1 && (queries + together - 1) / together * a->K < threads)
        together /= 2;
    const ptrdiff_t tiles = (queries + together - 1) / together;
    const int turns = TURNS(a);
    float *turned = a->scratch, *v32 = turned + (turns ? PADDED_KEYS(a) * a->K * a->Hd : 0);
    float *own = v32 + (turns ? a->S * a->K * a->Vd : 0);
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
                    own + thread_number() * own_floats(a));
    }
}
