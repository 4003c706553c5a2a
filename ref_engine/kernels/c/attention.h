/* Attention (reference/attention.py, ordered): query t of head h sees keys from .. to - 1, in order of position.

   Masked keys add exact zeros to the sums of the softmax, and nothing to the weighted values: they are left out. Beside
   keys and values of float16 queries and weights are rounded to it: their products are exact, so that one rounding of
   product and sum is the same as two. Keys in blocks of 8 bits are a matrix like any other (linear.h), values in blocks are
   read as float16. */
#ifdef _OPENMP
#include <omp.h>
OP int thread_number(void) { return omp_get_thread_num(); }
#else
OP int thread_number(void) { return 0; }
#endif

static size_t attend_scratch(const attend_args *a, int threads)
{
    size_t turned = TURNS(a) ? (size_t)(a->K * (PADDED_KEYS(a) / 16 * turned_floats(a) + a->S * a->Vd)) : 0;
    return turned + (size_t)(threads * own_floats(a));
}

/* The scale is left to the softmax: minus infinity stays, and what is largest is largest. */
OP int scaled_later(const attend_args *a) { return a->cap == 0 && a->scale > 0; }

/* Lanes of the sixteen keys at s that lie within from .. end - 1. */
OP vm seen_lanes(ptrdiff_t s, ptrdiff_t from, ptrdiff_t end)
{
    return vm_and_not(vm_below(clip16(end - s)), vm_below(clip16(from - s)));
}

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
    const uint8_t *v = keys->v + at * item_bytes(kind) + (from - keys->first) * keys->v_key;
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
                acc = add_product(exact, acc, vf_set1(row[t].p[s]),
                                  load_some(kind, v + (s - keys->first) * keys->v_key, Vd - i));
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

/* Of blocks the values of keys s .. end - 1, up to sixteen, as float32. */
OP attend_keys unpacked(const attend_args *a, const attend_keys *keys, ptrdiff_t s, ptrdiff_t end)
{
    attend_keys some = *keys;
    const uint8_t *v = keys->v + s * keys->v_key;
    if (keys->fetch)
        fetch_keys(v, keys->v_key, (int)(end - s));
    for (ptrdiff_t i = 0; i < end - s; i++)
        from_blocks(v + i * keys->v_key, a->Vd / 32, keys->sixteen + i * a->Vd);
    some.v = (const uint8_t *)keys->sixteen, some.v_key = a->Vd * 4, some.first = s, some.fetch = 0;
    return some;
}

#define VALUES 4096 /* of one head, of as many keys as a core's nearest cache holds beside the queries' results */

/* n queries of heads that share keys and values. */
OP void attend_rows(const attend_args *a, int kind, int exact, const attend_keys *keys, const attend_row *row, int n)
{
    attend_span spans[MOST_ROWS / QUERIES + 1];
    ptrdiff_t from = a->S, end = 0;
    const int blocks = kind == C_Q8_0 && !keys->turned, numbers = kind == C_Q8_0 ? C_F32 : kind;
    const ptrdiff_t together = !blocks && a->Vd < VALUES / 16 ? VALUES / a->Vd : 16;
    if (kind == C_Q8_0)
        products_blocks(a, keys, row, n, row_floats(a));
    else if (keys->turned)
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
            weigh_head(numbers, exact, 1, a->Vd, row + i, keys, row[i].from,
                       span->all_from < row[i].end ? span->all_from : row[i].end);
    }
    for (ptrdiff_t s = from; s < end; s += together) {
        const ptrdiff_t until = s + together < end ? s + together : end;
        const attend_keys some = blocks ? unpacked(a, keys, s, until) : *keys;
        for (int t = 0; t < n; t += QUERIES) {
            const attend_span *span = spans + t / QUERIES;
            const ptrdiff_t first = s > span->all_from ? s : span->all_from;
            const ptrdiff_t last = until < span->all_end ? until : span->all_end;
            if (first < last)
                weigh_heads(numbers, exact, n - t < QUERIES ? n - t : QUERIES, a->Vd, row + t, &some, first, last);
        }
    }
    for (int t = 0; t < n; t++)
        weigh_head(numbers, exact, 1, a->Vd, row + t, keys, spans[t / QUERIES].all_end, row[t].end);
}

static void attend_rows_f32(const attend_args *a, const attend_keys *keys, const attend_row *row, int n)
{
    attend_rows(a, C_F32, 0, keys, row, n);
}
static void attend_rows_f16(const attend_args *a, const attend_keys *keys, const attend_row *row, int n)
{
    attend_rows(a, C_F16, 1, keys, row, n);
}
static void attend_rows_blocks(const attend_args *a, const attend_keys *keys, const attend_row *row, int n)
{
    attend_rows(a, C_Q8_0, 1, keys, row, n);
}
/* Float16 as float32. */
static void attend_rows_turned(const attend_args *a, const attend_keys *keys, const attend_row *row, int n)
{
    attend_rows(a, C_F32, 1, keys, row, n);
}

/* Sixteen keys of each head at s, those from S on zeros, as (Hd, 16) each or in blocks; their values as (S, Vd) of each
   head. */
static void turn_keys(const attend_args *a, ptrdiff_t s, float *turned, float *v32)
{
    const ptrdiff_t k_head = cached_bytes(a->kind, a->Hd);
    for (ptrdiff_t h = 0; h < a->K; h++) {
        float *block = turned + (h * PADDED_KEYS(a) + s) / 16 * turned_floats(a);
        if (a->kind == C_Q8_0)
            turn_blocks((const uint8_t *)a->k + (s * a->K + h) * k_head, a->K * k_head, clip16(a->S - s), a->Hd / 32,
                        (uint8_t *)block);
        for (ptrdiff_t l = 0; l < 16; l++) {
            const ptrdiff_t key = s + l;
            if (key < a->S) {
                const uint8_t *v = (const uint8_t *)a->v + key * a->v_key + h * a->v_head;
                to_float(a->kind, v, a->Vd, v32 + (h * a->S + key) * a->Vd);
            }
            for (ptrdiff_t i = 0; i < a->Hd && a->kind != C_Q8_0; i += 16) {
                const ptrdiff_t n = a->Hd - i < 16 ? a->Hd - i : 16;
                const uint8_t *k = (const uint8_t *)a->k + (key * a->K + h) * k_head + cached_bytes(a->kind, i);
                float some[16] = {0};
                if (key < a->S)
                    to_float(a->kind, k, n, some);
                for (ptrdiff_t j = 0; j < n; j++)
                    block[16 * (i + j) + l] = some[j];
            }
        }
    }
}

/* n queries of the group of heads that shares key head h, counted token by token from `first`, in tiles. */
static void round_queries(const attend_args *a, ptrdiff_t h, ptrdiff_t first, int n, uint8_t *out)
{
    const ptrdiff_t group = a->H / a->K, blocks = a->Hd / 32;
    float some[TILE * 32];
    int m;
    for (int t = 0; t < n; t += m) {
        m = tile_at(n - t);
        for (ptrdiff_t b = 0; b < blocks; b++) {
            for (int i = 0; i < m; i++) {
                const ptrdiff_t at = first + t + i;
                memcpy(some + 32 * i, a->q + ((at / group * a->H + h * group + at % group) * blocks + b) * 32, 128);
            }
            round_tile32(m, some, 32, out + (t * blocks + b * m) * X32_BYTES);
        }
    }
}

/* Queries `first` .. of the group of heads that shares key head h, counted token by token. */
static void attend_some(const attend_args *a, const float *turned, const float *v32, ptrdiff_t h, ptrdiff_t first,
                        int n, float *own)
{
    const ptrdiff_t group = a->H / a->K, k_head = cached_bytes(a->kind, a->Hd);
    attend_keys keys = {(const uint8_t *)a->k + h * k_head, (const uint8_t *)a->v + h * a->v_head, NULL, a->K * k_head,
                        a->v_key, 0, own + rows_in_hand(a) * (row_floats(a) + rounded_floats(a)),
                        a->T == 1 && h == 0};
    if (turned) {
        keys.turned = turned + h * PADDED_KEYS(a) / 16 * turned_floats(a);
        keys.v = (const uint8_t *)(v32 + h * a->S * a->Vd), keys.v_key = a->Vd * 4;
    }
    attend_row row[MOST_ROWS];
    for (int i = 0; i < n; i++) {
        const ptrdiff_t t = (first + i) / group, head = h * group + (first + i) % group;
        row[i].q = own + i * row_floats(a);
        row[i].p = row[i].q + a->Hd;
        if (a->kind == C_Q8_0)
            row[i].q = own + rows_in_hand(a) * row_floats(a) + i * rounded_floats(a);
        row[i].out = a->out + (t * a->H + head) * a->Vd;
        if (a->kind == C_F16)
            as_half(a->q + (t * a->H + head) * a->Hd, a->Hd, row[i].q);
        else if (a->kind == C_F32)
            memcpy(row[i].q, a->q + (t * a->H + head) * a->Hd, (size_t)a->Hd * 4);
        row[i].sink = a->sinks ? a->sinks + head : NULL;
        row[i].from = first_key(a, t);
        row[i].end = end_key(a, t);
    }
    if (a->kind == C_Q8_0)
        round_queries(a, h, first, n, (uint8_t *)row->q);
    if (a->kind == C_F32)
        attend_rows_f32(a, &keys, row, n);
    else if (a->kind == C_Q8_0)
        attend_rows_blocks(a, &keys, row, n);
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
    float *turned = a->scratch, *v32 = turned + (turns ? PADDED_KEYS(a) / 16 * a->K * turned_floats(a) : 0);
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
