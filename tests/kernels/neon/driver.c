/* Calls of kernels by request, for a processor that is emulated: requests from standard input, results to standard
   output. The Python side is tests/kernels/emulated.py; both follow one list of fields for each call. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "table.h"

typedef struct {
    char name[16];
    int32_t isa, threads;
    int64_t ints[48];
    float floats[16];
    int64_t sizes[32]; /* bytes of each array that follows, -1 for NULL */
} request;

static request r;
static uint8_t *arrays[32];
static void *held[4096]; /* freed after each call */
static int n_held;

static void *keep(void *p)
{
    if (!p || n_held == (int)(sizeof held / sizeof *held))
        exit(3);
    return held[n_held++] = p;
}
static void *aligned(size_t n) { return keep(aligned_alloc(64, (n + 64) / 64 * 64)); }

static int get(void *to, size_t n) { return n == 0 || fread(to, n, 1, stdin) == 1; }
static void put(const void *from, ptrdiff_t n)
{
    if (n && fwrite(from, (size_t)n, 1, stdout) != 1)
        exit(4);
}
/* Results begin as NaNs, so that what is not written shows. */
static void *result(ptrdiff_t n) { return memset(keep(malloc((size_t)n + 1)), 0xff, (size_t)n); }
static const float *floats(int i) { return (const float *)(void *)arrays[i]; }

/* E matrices from ints type, rows, columns, 0 and arrays data, biases, scales. type: its place in BLOCK_KINDS; < 0: plain,
   -1 - P_... A codebook that the type looks up comes before the data. */
static expert_map map_from(const int64_t *ints, int array, ptrdiff_t E)
{
    const int type = (int)ints[0];
    const block_type *block = type < 0 ? NULL : ref_engine_block_type(type);
    const ptrdiff_t points = block ? block->points : 0;
    expert_map m = {block ? block->kind : W_KINDS - 1 - type, ints[1], ints[2], NULL, NULL, NULL};
    if (!arrays[array])
        return m;
    const uint8_t **data = keep(malloc((size_t)E * sizeof *data));
    const ptrdiff_t stored = (r.sizes[array] - points) / E;
    for (ptrdiff_t e = 0; e < E; e++) {
        data[e] = arrays[array] + points + e * stored;
        if (block) {
            uint8_t *packed = aligned(ref_engine_packed_bytes(type, m.rows, m.columns));
            ref_engine_pack(type, data[e], (const int8_t *)arrays[array], m.rows, m.columns, packed, r.threads);
            data[e] = packed;
        }
    }
    m.data = data, m.bias = floats(array + 1), m.scale = floats(array + 2);
    return m;
}

/* ints: T, size of a block of activations, map. arrays: x, map */
static void linear(const kernel_table *t)
{
    const ptrdiff_t T = r.ints[0], blocks = r.ints[2 + 2] / r.ints[1];
    expert_map m = map_from(r.ints + 2, 1, 1);
    uint8_t *rounded = aligned((size_t)(T * blocks * XK_BYTES));
    float *y = result(T * m.rows * 4);
    if (r.ints[1] == 32)
        t->quantize32(floats(0), T, blocks, rounded, r.threads);
    else
        t->quantizek(floats(0), T, blocks, rounded, r.threads);
    t->linear(m.kind, m.data[0], rounded, T, m.rows, blocks, y, r.threads);
    put(y, T * m.rows * 4);
}

/* ints: kind, T, rows, n. arrays: x, weights */
static void plain(const kernel_table *t)
{
    const ptrdiff_t T = r.ints[1], rows = r.ints[2], n = r.ints[3];
    float *rounded = keep(malloc((size_t)(T * n * 4))), *y = result(T * rows * 4);
    t->round_plain((int)r.ints[0], floats(0), T * n, rounded);
    t->plain((int)r.ints[0], arrays[1], rounded, T, rows, n, y, r.threads);
    put(y, T * rows * 4);
}

/* ints: rows, n. floats: eps. arrays: x, weight */
static void rms_norm(const kernel_table *t)
{
    float *y = result(r.sizes[0]);
    t->rms_norm(floats(0), floats(1), r.ints[0], r.ints[1], r.floats[0], y, r.threads);
    put(y, r.sizes[0]);
}

/* ints: T, H, Hd, half, adjacent. arrays: x, cos, sin */
static void rope(const kernel_table *t)
{
    float *y = result(r.sizes[0]);
    t->rope(floats(0), floats(1), floats(2), r.ints[0], r.ints[1], r.ints[2], r.ints[3], (int)r.ints[4], y, r.threads);
    put(y, r.sizes[0]);
}

/* ints: kind, T, H, K, Hd, Vd, S, window. floats: scale, cap, inverse_cap. */
static attend_args attend_from(const int64_t *n, const float *f)
{
    attend_args a = {.kind = (int)n[0], .T = n[1], .H = n[2], .K = n[3], .Hd = n[4], .Vd = n[5], .S = n[6],
                     .scale = f[0], .window = n[7], .cap = f[1], .inverse_cap = f[2]};
    a.v_head = cached_bytes(a.kind, a.Vd), a.v_key = a.K * a.v_head;
    return a;
}

/* ints and floats as above. arrays: q, k, v, positions, sinks */
static void attend(const kernel_table *t)
{
    attend_args a = attend_from(r.ints, r.floats);
    const ptrdiff_t bytes = a.T * a.H * a.Vd * 4;
    a.q = floats(0), a.k = arrays[1], a.v = arrays[2], a.sinks = floats(4);
    a.positions = (const int64_t *)(void *)arrays[3];
    a.scratch = aligned(t->attend_scratch(&a, r.threads) * 4);
    a.out = result(bytes);
    t->attend(&a, r.threads);
    put(a.out, bytes);
}

/* ints: kind, n. floats: constants. arrays: gate, up */
static void glu(const kernel_table *t)
{
    float *y = result(r.sizes[0]);
    t->glu((int)r.ints[0], r.floats, floats(0), floats(1), r.ints[1], y, r.threads);
    put(y, r.sizes[0]);
}

/* ints: kind, n. arrays: x */
static void activate(const kernel_table *t)
{
    float *y = result(r.ints[1] * 4);
    t->activate((int)r.ints[0], floats(0), r.ints[1], y, r.threads);
    put(y, r.ints[1] * 4);
}

/* ints: T, C, W, step. arrays: x, before, weight */
static void conv(const kernel_table *t)
{
    float *y = result(r.sizes[0]);
    t->conv(floats(0), floats(1), floats(2), r.ints[0], r.ints[1], r.ints[2], r.ints[3], y, r.threads);
    put(y, r.sizes[0]);
}

/* ints: T, H, Hd, Vd, W. arrays: q, k, v, decay, beta, before. Results: after, out */
static void delta(const kernel_table *t)
{
    delta_args a = {.q = floats(0), .k = floats(1), .v = floats(2), .decay = floats(3), .beta = floats(4),
                    .T = r.ints[0], .H = r.ints[1], .Hd = r.ints[2], .Vd = r.ints[3], .W = r.ints[4],
                    .before = floats(5), .after = result(r.sizes[5]), .out = result(r.sizes[2])};
    a.scratch = aligned(t->delta_scratch(&a, r.threads) * 4);
    t->delta(&a, r.threads);
    put(a.after, r.sizes[5]);
    put(a.out, r.sizes[2]);
}

/* ints: T, H, P, N, G, W. arrays: x, dt, a, b, c, before. Results: after, out */
static void scan(const kernel_table *t)
{
    scan_args a = {.x = floats(0), .dt = floats(1), .a = floats(2), .b = floats(3), .c = floats(4),
                   .T = r.ints[0], .H = r.ints[1], .P = r.ints[2], .N = r.ints[3], .G = r.ints[4], .W = r.ints[5],
                   .before = floats(5), .after = result(r.sizes[5]), .out = result(r.sizes[0])};
    a.scratch = aligned(t->scan_scratch(&a, r.threads) * 4);
    t->scan(&a, r.threads);
    put(a.after, r.sizes[5]);
    put(a.out, r.sizes[0]);
}

/* ints: n. floats: inverse_cap, cap. arrays: x */
static void soft_cap(const kernel_table *t)
{
    float *y = result(r.sizes[0]);
    t->soft_cap(floats(0), r.ints[0], r.floats[0], r.floats[1], y, r.threads);
    put(y, r.sizes[0]);
}

/* ints: T, E, k, gate, choice, groups, groups_used, normalise, scaled. floats: cap, inverse_cap, least, scale.
   arrays: logits, bias. Results: ids, weights */
static void route(const kernel_table *t)
{
    route_args a = {.logits = floats(0), .bias = floats(1), .T = r.ints[0], .E = r.ints[1], .k = r.ints[2],
                    .gate = (int)r.ints[3], .by = (int)r.ints[4], .groups = r.ints[5], .groups_used = r.ints[6],
                    .normalise = (int)r.ints[7], .scaled = (int)r.ints[8], .cap = r.floats[0],
                    .inverse_cap = r.floats[1], .least = r.floats[2], .scale = r.floats[3]};
    const ptrdiff_t bytes = a.T * a.k * 4;
    a.ids = result(bytes), a.weights = result(bytes);
    a.scratch = aligned(t->route_scratch(&a) * (size_t)r.threads * 4);
    t->route(&a, r.threads);
    put(a.ids, bytes);
    put(a.weights, bytes);
}

/* ints: T, k, E, unit, gated, fused, weigh_input, maps of up, gate, down. floats: constants.
   arrays: x, weights, ids, maps */
static void moe(const kernel_table *t)
{
    const ptrdiff_t E = r.ints[2];
    moe_args a = {.x = floats(0), .weights = floats(1), .ids = (const int32_t *)(void *)arrays[2],
                  .T = r.ints[0], .k = r.ints[1], .E = E, .up = map_from(r.ints + 7, 3, E),
                  .gate = map_from(r.ints + 11, 6, E), .down = map_from(r.ints + 15, 9, E), .unit = (int)r.ints[3],
                  .gated = (int)r.ints[4], .fused = (int)r.ints[5], .weigh_input = (int)r.ints[6],
                  .constants = {r.floats[0], r.floats[1]}};
    const ptrdiff_t bytes = a.T * a.down.rows * 4;
    a.out = result(bytes);
    a.scratch = aligned(t->moe_scratch(&a));
    t->moe(&a, r.threads);
    put(a.out, bytes);
}

static norm_args norm_from(int64_t there, int array, float eps)
{
    norm_args norm = {(int)there, floats(array), eps};
    return norm;
}

/* ints: T, D, scaled, before, after. floats: scale, eps of both. arrays: x, weights of both */
static half_args half_from(void)
{
    half_args h = {.x = floats(0), .T = r.ints[0], .D = r.ints[1], .before = norm_from(r.ints[3], 1, r.floats[1]),
                   .after = norm_from(r.ints[4], 2, r.floats[2]), .scale = r.floats[0], .scaled = (int)r.ints[2]};
    h.out = result(h.T * h.D * 4);
    return h;
}

/* After the half's. ints: unit, gated, fused, maps of up, gate, down. floats: constants. arrays: maps */
static void ffn_half(const kernel_table *t)
{
    ffn_half_args a = {.half = half_from(), .up = map_from(r.ints + 8, 3, 1), .gate = map_from(r.ints + 12, 6, 1),
                       .down = map_from(r.ints + 16, 9, 1), .unit = (int)r.ints[5], .gated = (int)r.ints[6],
                       .fused = (int)r.ints[7], .constants = {r.floats[3], r.floats[4]}};
    a.half.scratch = aligned(t->ffn_half(&a, r.threads));
    t->ffn_half(&a, r.threads);
    put(a.half.out, a.half.T * a.half.D * 4);
}

/* After the half's. ints: turned, adjacent, norm of queries, of keys, how many sequences, attention, maps of q, k, v,
   output. floats: eps of both norms, query_scale, attention. arrays: weights of both norms, cos, sin, sinks,
   (row, T, S) of each sequence, all their positions, keys, values, maps. Results: out, keys, values */
static void attention_half(const kernel_table *t)
{
    attention_half_args a = {
        .half = half_from(), .q = map_from(r.ints + 18, 12, 1), .k = map_from(r.ints + 22, 15, 1),
        .v = map_from(r.ints + 26, 18, 1), .output = map_from(r.ints + 30, 21, 1),
        .q_norm = norm_from(r.ints[7], 3, r.floats[3]), .k_norm = norm_from(r.ints[8], 4, r.floats[4]),
        .cos = floats(5), .sin = floats(6), .turned = r.ints[5], .adjacent = (int)r.ints[6],
        .query_scale = r.floats[5], .attend = attend_from(r.ints + 10, r.floats + 6), .n_shares = r.ints[9]};
    const int64_t *sizes = (const int64_t *)(void *)arrays[8], *positions = (const int64_t *)(void *)arrays[9];
    const int kind = a.attend.kind;
    share_args *shares = keep(malloc((size_t)a.n_shares * sizeof *shares));
    uint8_t *k = arrays[10], *v = arrays[11];
    a.attend.sinks = floats(7);
    for (ptrdiff_t i = 0; i < a.n_shares; i++) {
        const ptrdiff_t row = sizes[3 * i], S = sizes[3 * i + 2];
        shares[i] = (share_args){row, sizes[3 * i + 1], S, positions + row, kind, k, v};
        k += cached_bytes(kind, S * a.attend.K * a.attend.Hd), v += cached_bytes(kind, S * a.attend.K * a.attend.Vd);
    }
    a.shares = shares;
    a.half.scratch = aligned(t->attention_half(&a, r.threads));
    t->attention_half(&a, r.threads);
    put(a.half.out, a.half.T * a.half.D * 4);
    put(arrays[10], r.sizes[10]);
    put(arrays[11], r.sizes[11]);
}

/* ints: n. arrays: bytes. Results: the sums of both ceilings' loops */
static void ceilings(const kernel_table *t)
{
    int32_t sums[2] = {t->dots_alone(r.ints[0]), t->read_alone(arrays[0], r.sizes[0])};
    put(sums, sizeof sums);
}

static const struct {
    const char *name;
    void (*run)(const kernel_table *);
} CALLS[] = {{"linear", linear}, {"plain", plain}, {"rms_norm", rms_norm}, {"rope", rope}, {"attend", attend},
             {"glu", glu}, {"soft_cap", soft_cap}, {"activate", activate}, {"conv", conv}, {"delta", delta},
             {"scan", scan}, {"route", route}, {"moe", moe},
             {"ffn_half", ffn_half}, {"attention_half", attention_half}, {"ceilings", ceilings}};

int main(void)
{
    while (get(&r, sizeof r)) {
        const kernel_table *table = ref_engine_cpu_has(r.isa) ? ref_engine_table(r.isa) : NULL;
        size_t call = 0, calls = sizeof CALLS / sizeof *CALLS;
        for (int i = 0; i < 32; i++) {
            arrays[i] = r.sizes[i] < 0 ? NULL : keep(malloc((size_t)r.sizes[i] + 1));
            if (arrays[i] && !get(arrays[i], (size_t)r.sizes[i]))
                return 1;
        }
        while (call < calls && strcmp(CALLS[call].name, r.name) != 0)
            call++;
        if (!table || call == calls) {
            fprintf(stderr, "no %s for instruction set %d\n", r.name, (int)r.isa);
            return 2;
        }
        CALLS[call].run(table);
        fflush(stdout);
        while (n_held)
            free(held[--n_held]);
    }
    return 0;
}
