/* Half a layer in one call: a norm, products, what lies between them, and the sum with the stream.

   Every step has the bits of the kernel that does it alone. Nothing of it is written to fresh memory but the result. */
#define FFN_TOKENS 264 /* at a time, so that what is hidden stays in a core's cache */

/* T tokens, normalised into y where there is a norm, as they go into products with the maps: each into its own place, or
   once for all that are rounded alike and have the same. */
static void enter_tokens(const norm_args *norm, const float *x, ptrdiff_t T, float *y, const expert_map *const *maps,
                         uint8_t *const *out, int n_maps, int threads)
{
    const ptrdiff_t n = maps[0]->columns, step = tokens_at_a_time(T, threads);
#pragma omp parallel for num_threads(threads) schedule(static) if (T > 1)
    for (ptrdiff_t t = 0; t < T; t += step) {
        const ptrdiff_t count = T - t < step ? T - t : step;
        const float *rows = norm->there ? y + t * n : x + t * n;
        for (ptrdiff_t i = t; norm->there && i < t + count; i++)
            norm_row(x + i * n, norm->weight, n, norm->eps, y + i * n);
        for (int i = 0; i < n_maps; i++)
            if (i == 0 || out[i] != out[i - 1])
                round_for(maps[i], rows, t, count, T, out[i]);
    }
}

/* T tokens as they go into a product with m. */
static void round_tokens(const expert_map *m, const float *x, ptrdiff_t T, uint8_t *out, int threads)
{
    const norm_args none = {0, NULL, 0};
    enter_tokens(&none, x, T, NULL, &m, &out, 1, threads);
}

/* Rounded tokens times the matrix, and the bias -> y (T, rows); where there is `onto` (T, rows), which may be y, its sum
   with that. */
static void map_tokens(const expert_map *m, const uint8_t *x, ptrdiff_t T, const float *onto, float *y, int threads)
{
    const ptrdiff_t groups = groups_of(m->rows), chunk = groups_at_a_time(groups, T, threads);
    (void)chunk;
#pragma omp parallel for num_threads(threads) schedule(dynamic, chunk)
    for (ptrdiff_t g = 0; g < groups; g++) {
        const int here = m->rows - g * GROUP < GROUP ? (int)(m->rows - g * GROUP) : GROUP;
        const uint8_t *wide = wide_group(m, 0, g, T, 0);
        float of_tile[GROUP * TILE] = {0};
        int n;
        for (ptrdiff_t t = 0; t < T; t += n) {
            n = tile_at(T - t);
            expert_tile(m, 0, g, wide, x + t * rounded_bytes(m), n, of_tile);
            fetch_group(m, 0, g + threads, t, n, T);
            for (int i = 0; i < n; i++) {
                const ptrdiff_t at = (t + i) * m->rows + g * GROUP;
                vf v = vf_load(of_tile + GROUP * i);
                if (onto)
                    v = vf_add(here == GROUP ? vf_load(onto + at) : load_some(P_F32, (const uint8_t *)(onto + at), here), v);
                store_rows(y + at, v, here);
            }
        }
    }
}

/* out = x + scale * after(y) for T tokens from `first` on; y is overwritten. */
static void add_half(const half_args *a, ptrdiff_t first, ptrdiff_t T, float *y, int threads)
{
    const ptrdiff_t D = a->D;
    (void)threads;
#pragma omp parallel for num_threads(threads) schedule(static) if (T * D >= WORTH_THREADS)
    for (ptrdiff_t t = 0; t < T; t++) {
        const float *x = a->x + (first + t) * D;
        float *half = y + t * D, *out = a->out + (first + t) * D;
        const vf scale = vf_set1(a->scaled ? a->scale : 1);
        ptrdiff_t i = 0;
        if (a->after.there)
            norm_row(half, a->after.weight, D, a->after.eps, half);
        for (; i + 16 <= D; i += 16)
            vf_store(out + i, vf_add(vf_load(x + i), vf_mul(vf_load(half + i), scale)));
        for (; i < D; i++)
            out[i] = x[i] + half[i] * (a->scaled ? a->scale : 1);
    }
}

/* The same of a half's last product, whose rounded input is given. y: room for (T, D). */
static void give_half(const half_args *a, const expert_map *m, const uint8_t *rounded, ptrdiff_t first, ptrdiff_t T,
                      float *y, int threads)
{
    if (a->after.there || a->scaled) {
        map_tokens(m, rounded, T, NULL, y, threads);
        add_half(a, first, T, y, threads);
    } else
        map_tokens(m, rounded, T, a->x + first * a->D, a->out + first * a->D, threads);
}

/* One head's query or key: normalised in place, then turned into y. Returns where it is. */
OP float *prepared(const attention_half_args *a, const norm_args *norm, float *x, ptrdiff_t t, float *y)
{
    const ptrdiff_t Hd = a->attend.Hd;
    if (norm->there)
        norm_row(x, norm->weight, Hd, norm->eps, x);
    if (!a->cos)
        return x;
    turn_head(x, a->cos + t * a->turned, a->sin + t * a->turned, Hd, a->turned, a->adjacent, y);
    return y;
}

/* Tokens of a share that ask, its last ones, and the row of the first of them among all that do. */
typedef struct {
    ptrdiff_t row, T;
} asking;
OP asking asking_of(const attention_half_args *a, ptrdiff_t i)
{
    const asking last = {i, 1}, all = {a->shares[i].row, a->shares[i].T};
    return a->last_only ? last : all;
}

/* Queries of a share in place, keys and values into its cache. q, k, v: as the products gave them. */
static void prepare_share(const attention_half_args *a, const share_args *share, asking who, float *q, float *k,
                          float *v, int threads)
{
    const ptrdiff_t H = a->attend.H, K = a->attend.K, Hd = a->attend.Hd, Vd = a->attend.Vd, silent = share->T - who.T;
    const ptrdiff_t over_k = spread_over(share->kind, Hd, Hd), over_v = spread_over(share->kind, Vd, 64);
    (void)threads;
#pragma omp parallel for num_threads(threads) schedule(static) if (share->T * H * Hd >= WORTH_THREADS)
    for (ptrdiff_t i = 0; i < share->T; i++) {
        const ptrdiff_t t = share->row + i, s = share->S - share->T + i;
        for (ptrdiff_t h = 0; h < H && i >= silent; h++) {
            float *one = q + ((who.row + i - silent) * H + h) * Hd, room[MOST_HEAD];
            const float *turned = prepared(a, &a->q_norm, one, t, room);
            for (ptrdiff_t j = 0; j < Hd && (turned != one || a->query_scale != 1); j++)
                one[j] = turned[j] * a->query_scale; /* times 1 is a copy */
            spread(one, Hd, over_k);
        }
        for (ptrdiff_t h = 0; h < K; h++) {
            float *one = k + (t * K + h) * Hd, room[MOST_HEAD];
            float *turned = prepared(a, &a->k_norm, one, t, room);
            spread(turned, Hd, over_k);
            remember(share->kind, turned, Hd, share->k, (s * K + h) * Hd);
        }
        spread(v + t * K * Vd, K * Vd, over_v);
        remember(share->kind, v + t * K * Vd, K * Vd, share->v, s * K * Vd);
    }
}

static attend_args attend_of(const attention_half_args *a, const share_args *share, asking who)
{
    attend_args one = a->attend;
    one.kind = share->kind, one.k = share->k, one.v = share->v;
    one.v_head = cached_bytes(one.kind, one.Vd), one.v_key = one.K * one.v_head;
    one.positions = share->positions + share->T - who.T, one.T = who.T, one.S = share->S;
    return one;
}

static void attend_share(const attention_half_args *a, const share_args *share, asking who, const float *queries,
                         float *mixed, float *scratch, int threads)
{
    attend_args one = attend_of(a, share, who);
    one.q = queries + who.row * one.H * one.Hd;
    one.out = mixed + who.row * one.H * one.Vd;
    one.scratch = scratch;
    attend(&one, threads);
    const ptrdiff_t row = one.H * one.Vd, over = spread_over(one.kind, one.Vd, 64);
#pragma omp parallel for num_threads(threads) schedule(static) if (one.T * row >= WORTH_THREADS)
    for (ptrdiff_t t = 0; t < (over > 1 ? one.T : 0); t++)
        spread(one.out + t * row, row, over);
}

static size_t attention_half(const attention_half_args *a, int threads)
{
    half_args half = a->half;
    const expert_map *maps[] = {&a->q, &a->k, &a->v};
    const ptrdiff_t T = half.T, D = half.D, asked = a->last_only ? a->n_shares : T;
    const ptrdiff_t tokens[] = {asked, T, T};
    size_t at = 0, most = 0, own[3] = {0};
    float *x = (float *)take(half.scratch, &at, T * D * 4), *results[3];
    float *stream = (float *)take(half.scratch, &at, a->last_only ? asked * D * 4 : 0);
    uint8_t *rounded[3], *rounded_mixed = take(half.scratch, &at, asked * rounded_bytes(&a->output));
    for (int i = 0; i < 3; i++)
        results[i] = (float *)take(half.scratch, &at, tokens[i] * maps[i]->rows * 4);
    float *mixed = (float *)take(half.scratch, &at, asked * a->attend.H * a->attend.Vd * 4);
    for (ptrdiff_t i = 0; i < a->n_shares; i++) {
        const attend_args one = attend_of(a, a->shares + i, asking_of(a, i));
        size_t bytes = attend_scratch(&one, threads) * 4;
        most = bytes > most ? bytes : most;
    }
    size_t entered = 0; /* for the products and, when they are done, for the scores */
    for (int i = 0; i < 3; i++) {
        const int alike = i > a->last_only && same_rounding(maps[i]->kind, maps[i - 1]->kind);
        own[i] = alike ? own[i - 1] : entered;
        entered += alike ? 0 : (size_t)ALIGN64(tokens[i] * rounded_bytes(maps[i]));
    }
    uint8_t *room = take(half.scratch, &at, (ptrdiff_t)(entered > most ? entered : most));
    if (!half.scratch)
        return at;
    for (int i = 0; i < 3; i++)
        rounded[i] = room + own[i];
    if (a->last_only) {
        enter_tokens(&half.before, half.x, T, x, maps + 1, rounded + 1, 2, threads);
        for (ptrdiff_t i = 0; i < asked; i++)
            memcpy(stream + i * D, half.x + (a->shares[i].row + a->shares[i].T - 1) * D, (size_t)D * 4);
        half.x = stream, half.T = asked;
    }
    enter_tokens(&half.before, half.x, asked, x, maps, rounded, a->last_only ? 1 : 3, threads);
    for (int i = 0; i < 3; i++)
        map_tokens(maps[i], rounded[i], tokens[i], NULL, results[i], threads);
    for (ptrdiff_t i = 0; i < a->n_shares; i++) {
        const asking who = asking_of(a, i);
        prepare_share(a, a->shares + i, who, results[0], results[1], results[2], threads);
        attend_share(a, a->shares + i, who, results[0], mixed, (float *)room, threads);
    }
    round_tokens(&a->output, mixed, asked, rounded_mixed, threads);
    give_half(&half, &a->output, rounded_mixed, 0, asked, x, threads);
    return at;
}

/* What an FFN's half needs of the scratch: h (T, F), or where `down` reads blocks of 32 such a block of T tokens for each
   thread. */
typedef struct {
    float *x, *h;
    uint8_t *rounded[2], *rounded_h;
} ffn_places;

/* Block b of the hidden features of T tokens, rounded before another is begun. own: (T, 32). */
static void hide_block(const ffn_half_args *a, const expert_map *gate, ptrdiff_t b, const uint8_t *x_up,
                       const uint8_t *x_gate, ptrdiff_t T, float *own, uint8_t *rounded, int threads)
{
    const ptrdiff_t F = a->down.columns;
    int n;
    for (ptrdiff_t i = 0; i < 2; i++) {
        const ptrdiff_t g = 2 * b + i;
        hide_group(&a->up, gate, 0, g, a->fused ? g + F / GROUP : g, x_up, x_gate, T, F, a->unit, a->constants,
                   i ? 2 * threads - 1 : 1, own + GROUP * i, 32);
    }
    for (ptrdiff_t t = 0; t < T; t += n) {
        n = tile_at(T - t);
        round_tile32(n, own + 32 * t, 32, rounded + t * rounded_bytes(&a->down) + b * n * X32_BYTES);
    }
}

/* T tokens from `first` on. */
static void ffn_tokens(const ffn_half_args *a, ptrdiff_t first, ptrdiff_t T, const ffn_places *p, int threads)
{
    const half_args *half = &a->half;
    const ptrdiff_t F = a->down.columns, groups = groups_of(F);
    const expert_map *gate = a->fused ? &a->up : a->gated ? &a->gate : NULL;
    const int two_ways = gate && !same_rounding(a->up.kind, gate->kind);
    const expert_map *maps[] = {&a->up, gate};
    enter_tokens(&half->before, half->x + first * half->D, T, p->x, maps, p->rounded, 1 + two_ways, threads);
    const uint8_t *x_up = p->rounded[0], *x_gate = p->rounded[two_ways];
    if (in_blocks_of_32(a->down.kind)) {
        const ptrdiff_t chunk = groups_at_a_time(F / 32, T, threads);
        (void)chunk;
#pragma omp parallel for num_threads(threads) schedule(dynamic, chunk)
        for (ptrdiff_t b = 0; b < F / 32; b++)
            hide_block(a, gate, b, x_up, x_gate, T, p->h + thread_number() * T * 32, p->rounded_h, threads);
    } else {
        const ptrdiff_t chunk = groups_at_a_time(groups, T, threads);
        (void)chunk;
#pragma omp parallel for num_threads(threads) schedule(dynamic, chunk)
        for (ptrdiff_t g = 0; g < groups; g++)
            hide_group(&a->up, gate, 0, g, a->fused ? g + groups : g, x_up, x_gate, T, F, a->unit, a->constants,
                       threads, p->h + g * GROUP, F);
        round_tokens(&a->down, p->h, T, p->rounded_h, threads);
    }
    give_half(half, &a->down, p->rounded_h, first, T, p->x, threads);
}

static size_t ffn_half(const ffn_half_args *a, int threads)
{
    const half_args *half = &a->half;
    const ptrdiff_t together = half->T < FFN_TOKENS ? half->T : FFN_TOKENS;
    const ptrdiff_t hidden = in_blocks_of_32(a->down.kind) ? threads * 32 : a->down.columns;
    size_t at = 0;
    ffn_places p;
    p.x = (float *)take(half->scratch, &at, together * half->D * 4);
    p.h = (float *)take(half->scratch, &at, together * hidden * 4);
    p.rounded[0] = take(half->scratch, &at, together * rounded_bytes(&a->up));
    p.rounded[1] = take(half->scratch, &at, a->gated && !a->fused ? together * rounded_bytes(&a->gate) : 0);
    p.rounded_h = take(half->scratch, &at, together * rounded_bytes(&a->down));
    if (half->scratch)
        for (ptrdiff_t t = 0; t < half->T; t += together)
            ffn_tokens(a, t, half->T - t < together ? half->T - t : together, &p, threads);
    return at;
}

/* What the two calls of a mixture's half share, and room for what each needs by itself. */
typedef struct {
    int32_t *ids;
    float *in, *logits, *weights, *y;
    uint8_t *room;
    size_t bytes;
} moe_half_places_t;

static moe_half_places_t moe_half_places(const moe_half_args *a, int threads)
{
    const ptrdiff_t T = a->half.T, D = a->half.D, pairs = T * a->route.k;
    const size_t rounded = (size_t)(T * rounded_bytes(&a->router)), experts = moe_scratch(&a->moe);
    const size_t scores = route_scratch(&a->route) * (size_t)threads * 4;
    uint8_t *scratch = a->half.scratch;
    moe_half_places_t p;
    size_t at = 0, most = rounded > experts ? rounded : experts;
    p.ids = (int32_t *)take(scratch, &at, pairs * 4);
    p.weights = (float *)take(scratch, &at, pairs * 4);
    p.in = (float *)take(scratch, &at, T * D * 4);
    p.logits = (float *)take(scratch, &at, T * a->route.E * 4);
    p.y = (float *)take(scratch, &at, T * D * 4);
    p.room = take(scratch, &at, (ptrdiff_t)(most > scores ? most : scores));
    p.bytes = at;
    return p;
}

static size_t moe_half_route(const moe_half_args *a, int threads)
{
    const half_args *half = &a->half;
    const moe_half_places_t p = moe_half_places(a, threads);
    if (!half->scratch)
        return p.bytes;
    const expert_map *router = &a->router;
    enter_tokens(&half->before, half->x, half->T, p.in, &router, &p.room, 1, threads);
    map_tokens(&a->router, p.room, half->T, NULL, p.logits, threads);
    route_args choices = a->route;
    choices.logits = p.logits, choices.ids = p.ids, choices.weights = p.weights, choices.scratch = (float *)p.room;
    route(&choices, threads);
    return p.bytes;
}

static void moe_half_give(const moe_half_args *a, int threads)
{
    const half_args *half = &a->half;
    const moe_half_places_t p = moe_half_places(a, threads);
    moe_args experts = a->moe;
    experts.x = half->before.there ? p.in : half->x;
    experts.ids = p.ids, experts.weights = p.weights, experts.out = p.y, experts.scratch = p.room;
    moe(&experts, threads);
    for (ptrdiff_t i = 0; a->counts && i < half->T * a->route.k; i++)
        a->counts[p.ids[i]]++;
    add_half(half, 0, half->T, p.y, threads);
}
