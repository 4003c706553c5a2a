/* Which experts a token takes and how it weighs them (reference/moe.py, route). */

OP int ranks_before(float a, float b) { return a > b || (b != b && a == a); } /* a NaN comes last */

/* The k first of n scores in order of size, of equals the first first: their numbers -> ids. */
OP void first_k(const float *score, ptrdiff_t n, ptrdiff_t k, int32_t *ids)
{
    ptrdiff_t have = 0;
    for (ptrdiff_t e = 0; e < n; e++) {
        ptrdiff_t at = have;
        if (have == k && !ranks_before(score[e], score[ids[k - 1]]))
            continue;
        have += have < k;
        for (at = have - 1; at > 0 && ranks_before(score[e], score[ids[at - 1]]); at--)
            ids[at] = ids[at - 1];
        ids[at] = (int32_t)e;
    }
}

#define PADDED_SCORES(n) (((n) + 15) / 16 * 16)

/* n numbers, filled up with minus infinity to whole vectors, to their softmax. */
OP void soft_max_of(float *x, ptrdiff_t n)
{
    float largest = -INFINITY;
    for (ptrdiff_t i = 0; i < n; i++)
        largest = x[i] > largest || x[i] != x[i] ? x[i] : largest; /* than a NaN nothing is larger */
    vf sum = vf_set1(0);
    for (ptrdiff_t i = 0; i < n; i += 16)
        sum = exps_above(1, 1, largest, x + i, sum);
    for (ptrdiff_t i = n; i < PADDED_SCORES(n); i++)
        x[i] = 0;
    const float inverse = 1.0f / lane_fold(sum);
    for (ptrdiff_t i = 0; i < n; i += 16)
        vf_store(x + i, vf_mul(vf_load(x + i), vf_set1(inverse)));
}

/* Minus infinity to the scores of all groups but those with the largest sums of two scores. */
OP void only_best_groups(const route_args *a, float *score, float *totals, int32_t *ids)
{
    const ptrdiff_t size = a->E / a->groups;
    for (ptrdiff_t g = 0; g < a->groups; g++) {
        const float *of_group = score + g * size;
        int32_t two[2];
        first_k(of_group, size, size < 2 ? 1 : 2, two);
        totals[g] = size < 2 ? of_group[two[0]] : of_group[two[0]] + of_group[two[1]];
    }
    first_k(totals, a->groups, a->groups_used, ids);
    for (ptrdiff_t g = 0; g < a->groups; g++) {
        int used = 0;
        for (ptrdiff_t i = 0; i < a->groups_used; i++)
            used |= ids[i] == g;
        for (ptrdiff_t e = g * size; e < (g + 1) * size && !used; e++)
            score[e] = -INFINITY;
    }
}

/* w (k) as the spec has it: their softmax, divided by their sum, times a factor. */
OP void weigh_choices(const route_args *a, float *w)
{
    const ptrdiff_t k = a->k;
    if (a->gate == GATE_SOFTMAX_WEIGHT) {
        for (ptrdiff_t i = k; i < PADDED_SCORES(k); i++)
            w[i] = -INFINITY;
        soft_max_of(w, k);
    }
    if (a->normalise) {
        vf sum = vf_set1(0);
        for (ptrdiff_t i = k; i < PADDED_SCORES(k); i++)
            w[i] = 0;
        for (ptrdiff_t i = 0; i < k; i += 16)
            sum = vf_add(sum, vf_load(w + i));
        float total = lane_fold(sum);
        total = total < a->least ? a->least : total; /* a NaN stays one */
        for (ptrdiff_t i = 0; i < k; i++)
            w[i] /= total;
    }
    for (ptrdiff_t i = 0; i < k && a->scaled; i++)
        w[i] *= a->scale;
}

static size_t route_scratch(const route_args *a)
{
    return (size_t)(2 * PADDED_SCORES(a->E) + PADDED_SCORES(a->k) + 2 * a->groups);
}

/* own: route_scratch() numbers of this thread. */
static void route_token(const route_args *a, ptrdiff_t t, float *own)
{
    const ptrdiff_t E = a->E, room = PADDED_SCORES(E);
    float *p = own, *score = p + room, *w = score + room, *totals = w + PADDED_SCORES(a->k);
    int32_t *ids = a->ids + t * a->k, *groups = (int32_t *)(totals + a->groups);
    memcpy(p, a->logits + t * E, (size_t)E * 4);
    for (ptrdiff_t i = E; i < room; i++)
        p[i] = -INFINITY;
    for (ptrdiff_t i = 0; i < E && a->cap != 0; i += 16)
        store_rows(p + i, vf_soft_cap(vf_load(p + i), a->inverse_cap, a->cap), E - i < 16 ? (int)(E - i) : 16);
    memcpy(score, p, (size_t)room * 4);
    if (a->gate == GATE_SOFTMAX)
        soft_max_of(p, E);
    for (ptrdiff_t i = 0; i < E; i += 16) {
        vf sigmoid = vf_load(score + i);
        if (a->gate == GATE_SIGMOID || a->by == BY_SIGMOID)
            sigmoids(1, &sigmoid);
        if (a->gate == GATE_SIGMOID)
            vf_store(p + i, sigmoid);
        if (a->by != BY_LOGITS)
            vf_store(score + i, a->by == BY_SIGMOID ? sigmoid : vf_load(p + i));
    }
    for (ptrdiff_t i = 0; i < E && a->bias; i++)
        score[i] += a->bias[i];
    if (a->groups > 1)
        only_best_groups(a, score, totals, groups);
    first_k(score, E, a->k, ids);
    for (ptrdiff_t i = 0; i < a->k; i++)
        w[i] = p[ids[i]];
    weigh_choices(a, w);
    memcpy(a->weights + t * a->k, w, (size_t)a->k * 4);
}

static void route(const route_args *a, int threads)
{
    (void)threads;
#pragma omp parallel for num_threads(threads) schedule(static) if (a->T * a->E >= WORTH_THREADS)
    for (ptrdiff_t t = 0; t < a->T; t++)
        route_token(a, t, a->scratch + (size_t)thread_number() * route_scratch(a));
}
