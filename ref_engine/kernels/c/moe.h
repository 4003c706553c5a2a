/* A mixture of experts (reference/moe.py: moe_ffn) in one parallel region.

   A pair is a token and one of its choices. Pairs get places in order of their experts, so that an expert's weights are
   read once for all its tokens, which are tiled as in any product. Each pair's output keeps a place of its own, and
   they are weighted and added in the order of the token's ranking. */

typedef struct {
    ptrdiff_t *start; /* (E + 1) first place of each expert */
    ptrdiff_t *used, n_used; /* experts that have pairs */
    ptrdiff_t *pair, *place; /* the pair at a place, the place of a pair */
    uint8_t *once[2], *x[2]; /* x rounded, token by token, and in tiles of the experts' places; for up and for gate */
    float *h, *y;            /* (places, F), (places, D) */
    uint8_t *rounded_h;
    int ways;                /* of rounding x: 2 where gate asks for another than up */
    size_t bytes;
} moe_scratch_t;

OP int same_rounding(int a, int b)
{
    return a == b || (a < W_KINDS && b < W_KINDS && in_blocks_of_32(a) == in_blocks_of_32(b));
}

OP ptrdiff_t rounded_bytes(const expert_map *m)
{
    return m->kind >= W_KINDS           ? m->columns * 4
           : in_blocks_of_32(m->kind) ? m->columns / 32 * X32_BYTES
                                      : m->columns / 256 * XK_BYTES;
}

/* `count` tokens as they go into a product with m; see `round_some`. */
static void round_for(const expert_map *m, const float *x, ptrdiff_t t, ptrdiff_t count, ptrdiff_t T, uint8_t *out)
{
    if (m->kind >= W_KINDS)
        round_plain(m->kind - W_KINDS, x, count * m->columns, (float *)out + t * m->columns);
    else if (in_blocks_of_32(m->kind))
        round_some(32, x, t, count, T, m->columns / 32, out);
    else
        round_some(256, x, t, count, T, m->columns / 256, out);
}

/* One token that has been rounded alone, as a tile of one, into its place among T. */
static void place_rounded(const expert_map *m, const uint8_t *from, ptrdiff_t t, ptrdiff_t T, uint8_t *out)
{
    const ptrdiff_t bytes = rounded_bytes(m);
    if (m->kind >= W_KINDS) {
        memcpy(out + t * bytes, from, (size_t)bytes);
        return;
    }
    int n;
    const ptrdiff_t first = tile_of(t, T, &n), block = in_blocks_of_32(m->kind) ? X32_BYTES : XK_BYTES;
    uint8_t *to = out + first * bytes;
    t -= first;
    for (ptrdiff_t at = 0; at < bytes; at += block, from += block, to += n * block)
        if (in_blocks_of_32(m->kind)) {
            memcpy(to + 32 * t, from, 32);
            for (int i = 0; i < X32_WORDS; i++)
                memcpy(to + 32 * n + 4 * (i * n + t), from + 32 + 4 * i, 4);
        } else {
            memcpy(to + 256 * t, from, 256);
            memcpy(to + 256 * n + 4 * t, from + 256, 4);
            memcpy(to + 260 * n + 16 * t, from + 260, 16);
            memcpy(to + 276 * n + 64 * t, from + 276, 64);
            memcpy(to + 340 * n + 32 * t, from + 340, 32);
            memcpy(to + 372 * n + 128 * t, from + 372, 128);
        }
}

/* The next so many bytes of the scratch; NULL where it is only counted. */
OP uint8_t *take(uint8_t *scratch, size_t *at, ptrdiff_t bytes)
{
    uint8_t *here = scratch ? scratch + *at : NULL;
    *at += (size_t)ALIGN64(bytes);
    return here;
}

static moe_scratch_t moe_places(const moe_args *a)
{
    const ptrdiff_t pairs = a->T * a->k, item = sizeof(ptrdiff_t), D = a->up.columns;
    moe_scratch_t s;
    size_t at = 0;
    s.start = (ptrdiff_t *)take(a->scratch, &at, (a->E + 1) * item);
    s.used = (ptrdiff_t *)take(a->scratch, &at, (a->E < pairs ? a->E : pairs) * item);
    s.pair = (ptrdiff_t *)take(a->scratch, &at, pairs * item);
    s.place = (ptrdiff_t *)take(a->scratch, &at, pairs * item);
    s.ways = a->gate.rows && !same_rounding(a->up.kind, a->gate.kind) ? 2 : 1;
    for (int i = 0; i < s.ways; i++) {
        ptrdiff_t bytes = rounded_bytes(i ? &a->gate : &a->up);
        s.once[i] = take(a->scratch, &at, a->weigh_input ? 0 : a->T * bytes);
        s.x[i] = take(a->scratch, &at, pairs * bytes);
    }
    s.h = (float *)take(a->scratch, &at, pairs * a->down.columns * 4);
    s.y = (float *)take(a->scratch, &at, pairs * (D > a->down.rows ? D : a->down.rows) * 4); /* weighted x too */
    s.rounded_h = take(a->scratch, &at, pairs * rounded_bytes(&a->down));
    s.n_used = 0;
    s.bytes = at;
    return s;
}

static size_t moe_scratch(const moe_args *a) { return moe_places(a).bytes; }

/* Places in order of experts, pairs of the same one in their own order. */
static void sort_pairs(const moe_args *a, moe_scratch_t *s)
{
    const ptrdiff_t pairs = a->T * a->k;
    memset(s->start, 0, (size_t)(a->E + 1) * sizeof(ptrdiff_t));
    for (ptrdiff_t p = 0; p < pairs; p++)
        s->start[a->ids[p] + 1]++;
    for (ptrdiff_t e = 0; e < a->E; e++) {
        if (s->start[e + 1])
            s->used[s->n_used++] = e;
        s->start[e + 1] += s->start[e];
    }
    for (ptrdiff_t p = 0; p < pairs; p++) {
        s->place[p] = s->start[a->ids[p]]++; /* start runs ahead to the next expert's, and is put back */
        s->pair[s->place[p]] = p;
    }
    memmove(s->start + 1, s->start, (size_t)a->E * sizeof(ptrdiff_t));
    s->start[0] = 0;
}

/* The input of the pair at a place, into the tiles of its expert. */
static void enter(const moe_args *a, const moe_scratch_t *s, ptrdiff_t place)
{
    const ptrdiff_t p = s->pair[place], e = a->ids[p], D = a->up.columns;
    const ptrdiff_t from = s->start[e], T = s->start[e + 1] - from;
    const float *x = a->x + p / a->k * D;
    float *weighted = s->y + place * D;
    if (a->weigh_input)
        for (ptrdiff_t i = 0; i < D; i++)
            weighted[i] = x[i] * a->weights[p];
    for (int i = 0; i < s->ways; i++) {
        const expert_map *m = i ? &a->gate : &a->up;
        const ptrdiff_t bytes = rounded_bytes(m);
        if (a->weigh_input)
            round_for(m, weighted, place - from, 1, T, s->x[i] + from * bytes);
        else
            place_rounded(m, s->once[i] + p / a->k * bytes, place - from, T, s->x[i] + from * bytes);
    }
}

OP ptrdiff_t blocks_of(const expert_map *m) { return m->columns / (in_blocks_of_32(m->kind) ? 32 : 256); }

/* Group g of expert e unpacked for T tokens, or NULL. */
static const uint8_t *wide_group(const expert_map *m, ptrdiff_t e, ptrdiff_t g, ptrdiff_t T, int slot)
{
    const ptrdiff_t blocks = blocks_of(m);
    return m->kind >= W_KINDS ? NULL : widened(m->kind, m->data[e] + g * packed_group(m->kind, blocks), blocks, T, slot);
}

OP void fetch_group(const expert_map *m, ptrdiff_t e, ptrdiff_t g, ptrdiff_t t, int n, ptrdiff_t T)
{
    const ptrdiff_t bytes = m->kind < W_KINDS ? packed_group(m->kind, blocks_of(m)) : 0;
    fetch_part(m->data[e] + g * bytes, bytes, t, n, T);
}

/* Rows of group g of expert e, perhaps wide, times a tile of n tokens, scaled and biased: y (n, 16). */
static void expert_tile(const expert_map *m, ptrdiff_t e, ptrdiff_t g, const uint8_t *wide, const uint8_t *x, int n,
                        float *y)
{
    const ptrdiff_t left = m->rows - g * GROUP;
    const int here = left < GROUP ? (int)left : GROUP;
    const uint8_t *w = m->data[e];
    if (m->kind >= W_KINDS)
        plain_rows(m->kind - W_KINDS, w, g, (const float *)x, n, m->columns, y, GROUP, here);
    else
        tile(m->kind, n, w + g * packed_group(m->kind, blocks_of(m)), wide, x, blocks_of(m), y, GROUP, here);
    for (int t = 0; t < n && (m->scale || m->bias); t++) {
        vf v = vf_load(y + GROUP * t);
        if (m->scale)
            v = vf_mul(v, vf_set1(m->scale[e]));
        if (m->bias)
            v = vf_add(v, load_some(P_F32, (const uint8_t *)(m->bias + e * m->rows + g * GROUP), here));
        vf_store(y + GROUP * t, v);
    }
}

OP ptrdiff_t groups_of(ptrdiff_t rows) { return (rows + GROUP - 1) / GROUP; }

/* Sixteen hidden features of F, group g of gate and g_up of up, of expert e for T tokens; h: the first of them of the
   first token, others `stride` later. next: groups to where the thread goes on. */
static void hide_group(const expert_map *up_map, const expert_map *gate_map, ptrdiff_t e, ptrdiff_t g, ptrdiff_t g_up,
                       const uint8_t *x_up, const uint8_t *x_gate, ptrdiff_t T, ptrdiff_t F, int unit,
                       const float *constants, ptrdiff_t next, float *h, ptrdiff_t stride)
{
    const int here = F - g * GROUP < GROUP ? (int)(F - g * GROUP) : GROUP;
    const uint8_t *wide_up = wide_group(up_map, e, g_up, T, 0), *wide_gate = NULL;
    float up[GROUP * TILE] = {0}, gate[GROUP * TILE] = {0};
    int n;
    if (gate_map)
        wide_gate = wide_group(gate_map, e, g, T, 1);
    for (ptrdiff_t t = 0; t < T; t += n) {
        n = tile_at(T - t);
        fetch_group(up_map, e, g_up + next, t, n, T);
        if (gate_map)
            fetch_group(gate_map, e, g + next, t, n, T);
        if (gate_map)
            expert_tile(gate_map, e, g, wide_gate, x_gate + t * rounded_bytes(gate_map), n, gate);
        expert_tile(up_map, e, g_up, wide_up, x_up + t * rounded_bytes(up_map), n, up);
        hidden(unit, gate_map != NULL, constants, n, gate, up);
        for (int i = 0; i < n; i++)
            store_rows(h + (t + i) * stride, vf_load(up + GROUP * i), here);
    }
}

/* The same of the expert's own tokens. */
static void hide(const moe_args *a, const moe_scratch_t *s, ptrdiff_t e, ptrdiff_t g)
{
    const ptrdiff_t F = a->down.columns, from = s->start[e], T = s->start[e + 1] - from;
    const expert_map *gate = a->fused ? &a->up : a->gated ? &a->gate : NULL;
    hide_group(&a->up, gate, e, g, a->fused ? g + F / GROUP : g, s->x[0] + from * rounded_bytes(&a->up),
               gate ? s->x[s->ways - 1] + from * rounded_bytes(gate) : NULL, T, F, a->unit, a->constants, 1,
               s->h + from * F + g * GROUP, F);
}

/* Sixteen outputs of one expert for all its tokens, weighted. */
static void give(const moe_args *a, const moe_scratch_t *s, ptrdiff_t e, ptrdiff_t g)
{
    const expert_map *m = &a->down;
    const ptrdiff_t from = s->start[e], T = s->start[e + 1] - from, D = m->rows;
    const int here = D - g * GROUP < GROUP ? (int)(D - g * GROUP) : GROUP;
    const uint8_t *wide = wide_group(m, e, g, T, 0);
    float y[GROUP * TILE] = {0};
    int n;
    for (ptrdiff_t t = 0; t < T; t += n) {
        n = tile_at(T - t);
        expert_tile(m, e, g, wide, s->rounded_h + (from + t) * rounded_bytes(m), n, y);
        for (int i = 0; i < n; i++) {
            vf v = vf_load(y + GROUP * i);
            if (!a->weigh_input)
                v = vf_mul(v, vf_set1(a->weights[s->pair[from + t + i]]));
            store_rows(s->y + (from + t + i) * D + g * GROUP, v, here);
        }
    }
}

#define COLUMNS 256 /* outputs that a thread adds up at a time */

/* The choices of token t, one after the other, for COLUMNS outputs. */
static void add_up(const moe_args *a, const moe_scratch_t *s, ptrdiff_t t, ptrdiff_t column)
{
    const ptrdiff_t D = a->down.rows, n = D - column < COLUMNS ? D - column : COLUMNS;
    float *out = a->out + t * D + column;
    memcpy(out, s->y + s->place[t * a->k] * D + column, (size_t)n * 4);
    for (ptrdiff_t r = 1; r < a->k; r++) {
        const float *y = s->y + s->place[t * a->k + r] * D + column;
        for (ptrdiff_t i = 0; i < n; i++)
            out[i] += y[i];
    }
}

static void moe(const moe_args *a, int threads)
{
    moe_scratch_t s = moe_places(a);
    sort_pairs(a, &s);
    const ptrdiff_t pairs = a->T * a->k, F = a->down.columns, D = a->down.rows;
    const ptrdiff_t hidden = groups_of(F), outputs = groups_of(D), parts = (D + COLUMNS - 1) / COLUMNS;
    (void)threads;
#pragma omp parallel num_threads(threads)
    {
        if (!a->weigh_input) {
#pragma omp for schedule(static)
            for (ptrdiff_t t = 0; t < a->T; t++)
                for (int i = 0; i < s.ways; i++) {
                    const expert_map *m = i ? &a->gate : &a->up;
                    round_for(m, a->x + t * m->columns, 0, 1, 1, s.once[i] + t * rounded_bytes(m));
                }
        }
#pragma omp for schedule(static)
        for (ptrdiff_t p = 0; p < pairs; p++)
            enter(a, &s, p);
#pragma omp for schedule(dynamic, 4)
        for (ptrdiff_t i = 0; i < s.n_used * hidden; i++)
            hide(a, &s, s.used[i / hidden], i % hidden);
#pragma omp for schedule(static)
        for (ptrdiff_t p = 0; p < pairs; p++) {
            ptrdiff_t e = a->ids[s.pair[p]], from = s.start[e];
            round_for(&a->down, s.h + p * F, p - from, 1, s.start[e + 1] - from,
                      s.rounded_h + from * rounded_bytes(&a->down));
        }
#pragma omp for schedule(dynamic, 4)
        for (ptrdiff_t i = 0; i < s.n_used * outputs; i++)
            give(a, &s, s.used[i / outputs], i % outputs);
#pragma omp for schedule(static)
        for (ptrdiff_t i = 0; i < a->T * parts; i++)
            add_up(a, &s, i / parts, i % parts * COLUMNS);
    }
}
