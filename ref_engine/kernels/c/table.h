/* What every instruction set offers: one table of functions, filled by each unit_*.c from the same bodies.

   Axis letters as in the Python sources: T tokens, H query heads, K key/value heads, Hd head width, S keys. All arrays
   are C-contiguous; the caller has checked every shape. `threads` divides outputs, never a sum. */
#ifndef REF_ENGINE_TABLE_H
#define REF_ENGINE_TABLE_H

#include <stddef.h>
#include <stdint.h>

/* How repacked weights lie (pack.h): those in blocks of 32, then those in blocks of 256. */
enum {
    W_Q4_0, W_Q4_1, W_Q5_0, W_Q5_1, W_Q8_0, W_LEVELS32, W_MXFP4, W_NVFP4,
    W_Q4_K, W_Q5_K, W_Q6_K, W_Q2_K, W_Q3_K, W_LEVELS2, W_LEVELS3, W_LEVELS4, W_KINDS
};
static inline int in_blocks_of_32(int kind) { return kind <= W_NVFP4; }
enum { P_F32, P_F16, P_BF16 };
/* What a cache holds: numbers, or blocks of 32 in 8 bits with a float16 scale, which are read as float16. */
enum { C_F32 = P_F32, C_F16 = P_F16, C_Q8_0 };
#define C_BLOCK_BYTES 34
static inline ptrdiff_t cached_bytes(int kind, ptrdiff_t n) /* of n numbers; blocks are whole */
{
    return kind == C_Q8_0 ? n / 32 * C_BLOCK_BYTES : n * (kind == C_F16 ? 2 : 4);
}
/* Activations, then gated units with constants of their own. */
enum { GLU_SILU, GLU_GELU, GLU_RELU, GLU_RELU_SQR, GLU_SWIGLU_OAI, GLU_SWIGLU_CLAMP, GLU_SWIGLU_LIMIT, GLU_SITU };
enum { ACT_SIGMOID = GLU_RELU_SQR + 1 }; /* an activation that gates nothing here */

/* Rounded activations: bytes for one token's block. Tokens come in tiles; see activations.h. */
#define X32_WORDS 5   /* d, s, and -8, -16, -128 times the sum of the integers */
#define X32_BYTES 52  /* 32 integers and those */
#define XK_BYTES 500  /* 256 integers, d, 4 pairs of sums of 32, 16 times -32 * sum of 16, 8 pairs of sums of 16,
                         32 times -32 * sum of 8 */

typedef struct {
    const float *q;          /* (T, H, Hd) */
    const void *k, *v;       /* (S, K, Hd), (S, K, Vd) */
    ptrdiff_t v_key, v_head; /* bytes from one key's values to the next's, from one head's to the next's */
    const float *sinks;      /* (H,) or NULL */
    int kind;                /* C_..: of k and v */
    const int64_t *positions; /* (T,) each sees at least one key */
    ptrdiff_t T, H, K, Hd, Vd, S;
    float scale;
    ptrdiff_t window;        /* 0: all keys */
    float cap, inverse_cap;  /* cap 0: none */
    float *out;              /* (T, H, Vd) */
    float *scratch;          /* attend_scratch() floats */
} attend_args;

/* See reference/delta.py; W: 1 or Hd. */
typedef struct {
    const float *q, *k, *v, *decay, *beta; /* (T, H, Hd), (T, H, Hd), (T, H, Vd), (T, H, W), (T, H) */
    ptrdiff_t T, H, Hd, Vd, W;
    const float *before; /* (Hd, H, Vd) */
    float *after, *out;  /* (Hd, H, Vd), (T, H, Vd) */
    float *scratch;      /* delta_scratch() floats */
} delta_args;

/* See reference/ssm.py; W: 1 or N. Sixteen columns of (H, P) that follow each other belong to one group. */
typedef struct {
    const float *x, *dt, *a, *b, *c; /* (T, H, P), (T, H), (H, W), (T, G, N), (T, G, N) */
    ptrdiff_t T, H, P, N, G, W;
    const float *before; /* (N, H, P) */
    float *after, *out;  /* (N, H, P), (T, H, P) */
    float *scratch;      /* scan_scratch() floats */
} scan_args;

/* A matrix (rows, columns) of one kind for each of E experts. */
typedef struct {
    int kind;                   /* W_..: packed; W_KINDS + P_..: as stored */
    ptrdiff_t rows, columns;    /* rows 0: there is none */
    const uint8_t *const *data; /* (E,) those of the chosen experts */
    const float *bias, *scale;  /* (E, rows), (E,), or NULL */
} expert_map;

typedef struct {
    const float *x, *weights; /* (T, D), (T, k) */
    const int32_t *ids;       /* (T, k) each within 0 .. E - 1 */
    ptrdiff_t T, k, E;
    expert_map up, gate, down; /* (F, D), or fused (2 F, D) with F whole groups and no gate; (F, D); (D, F) */
    int unit, gated, fused, weigh_input;
    float constants[2];
    float *out;               /* (T, D) */
    uint8_t *scratch;         /* moe_scratch() bytes, aligned to 64; NULL to ask how many */
} moe_args;

enum { GATE_SOFTMAX, GATE_SIGMOID, GATE_SOFTMAX_WEIGHT };
enum { BY_GATE, BY_LOGITS, BY_SIGMOID };

/* See RoutingSpec. groups divides E; cap 0: none. */
typedef struct {
    const float *logits, *bias; /* (T, E); (E,) or NULL */
    ptrdiff_t T, E, k, groups, groups_used;
    int gate, by, normalise, scaled;
    float cap, inverse_cap, least, scale; /* weights are divided by no less than `least` */
    int32_t *ids;                         /* (T, k) */
    float *weights;                       /* (T, k) */
    float *scratch;                       /* route_scratch() numbers for each thread */
} route_args;

#define MOST_HEAD 1024 /* numbers in a key that the halves can turn */

/* A norm over the last axis, if there is one. */
typedef struct {
    int there;
    const float *weight; /* or NULL */
    float eps;
} norm_args;

/* One sequence's rows of the stream, and what the cache holds of it: S keys and values, the last T to be written. */
typedef struct {
    ptrdiff_t row, T, S;
    const int64_t *positions; /* (T,) */
    int kind;                 /* C_..: of k and v */
    void *k, *v;              /* (S, K, Hd), (S, K, Vd) */
} share_args;

/* What both halves of a layer do: out = x + scale * after(half(before(x))). */
typedef struct {
    const float *x; /* (T, D) */
    float *out;     /* (T, D); may be x */
    ptrdiff_t T, D;
    norm_args before, after;
    float scale;
    int scaled;
    uint8_t *scratch; /* aligned to 64; NULL to ask how many bytes */
} half_args;

typedef struct {
    half_args half;
    expert_map q, k, v, output; /* of one "expert" */
    norm_args q_norm, k_norm;   /* of each head */
    const float *cos, *sin;     /* (T, turned); NULL: no rotation */
    ptrdiff_t turned;
    int adjacent;
    float query_scale; /* onto the queries, where it is not 1 */
    attend_args attend; /* H, K, Hd, Vd, scale, window, cap, sinks; the rest is filled in */
    const share_args *shares;
    ptrdiff_t n_shares;
    int last_only; /* of each share only the last token's stream goes on: out (n_shares, D) */
} attention_half_args;

typedef struct {
    half_args half;
    expert_map up, gate, down; /* as in moe_args */
    int unit, gated, fused;
    float constants[2];
} ffn_half_args;

/* A mixture's half, in two calls: which experts, then what they give. In between the caller sees to it that those are
   there, whose numbers (T, k) the scratch begins with. */
typedef struct {
    half_args half;
    expert_map router; /* (E, D), of one "expert" */
    route_args route;  /* T, E, k and what the spec says; the rest is filled in */
    moe_args moe;      /* the same */
    int64_t *counts;   /* (E,) to count tokens in, or NULL */
} moe_half_args;

typedef struct {
    const char *name;
    void (*quantize32)(const float *x, ptrdiff_t T, ptrdiff_t blocks, uint8_t *out, int threads);
    void (*quantizek)(const float *x, ptrdiff_t T, ptrdiff_t blocks, uint8_t *out, int threads);
    /* packed weights (see pack.c) times rounded activations -> y (T, rows) */
    void (*linear)(int kind, const uint8_t *w, const uint8_t *x, ptrdiff_t T, ptrdiff_t rows, ptrdiff_t blocks,
                   float *y, int threads);
    /* x (T, n) rounded to `kind` -> out, as float32 */
    void (*round_plain)(int kind, const float *x, ptrdiff_t n, float *out);
    /* w (rows, n) as stored, x (T, n) rounded -> y (T, rows) */
    void (*plain)(int kind, const void *w, const float *x, ptrdiff_t T, ptrdiff_t rows, ptrdiff_t n, float *y,
                  int threads);
    void (*rms_norm)(const float *x, const float *weight, ptrdiff_t rows, ptrdiff_t n, float eps, float *y,
                     int threads);
    void (*rope)(const float *x, const float *cos, const float *sin, ptrdiff_t T, ptrdiff_t H, ptrdiff_t Hd,
                 ptrdiff_t half, int adjacent, float *y, int threads);
    size_t (*attend_scratch)(const attend_args *a, int threads);
    void (*attend)(const attend_args *a, int threads);
    void (*glu)(int kind, const float *constants, const float *gate, const float *up, ptrdiff_t n, float *y,
                int threads);
    /* an activation: GLU_SILU .. ACT_SIGMOID */
    void (*activate)(int kind, const float *x, ptrdiff_t n, float *y, int threads);
    /* x (T, C), before ((W - 1) step, C), weight (W, C) -> y (T, C), as reference causal_conv */
    void (*conv)(const float *x, const float *before, const float *weight, ptrdiff_t T, ptrdiff_t C, ptrdiff_t W,
                 ptrdiff_t step, float *y, int threads);
    void (*soft_cap)(const float *x, ptrdiff_t n, float inverse_cap, float cap, float *y, int threads);
    size_t (*route_scratch)(const route_args *a);
    void (*route)(const route_args *a, int threads);
    size_t (*moe_scratch)(const moe_args *a);
    void (*moe)(const moe_args *a, int threads);
    size_t (*attention_half)(const attention_half_args *a, int threads); /* bytes of scratch that it needs */
    size_t (*ffn_half)(const ffn_half_args *a, int threads);
    size_t (*moe_half_route)(const moe_half_args *a, int threads); /* the scratch of both */
    void (*moe_half_give)(const moe_half_args *a, int threads);
    size_t (*delta_scratch)(const delta_args *a, int threads);
    void (*delta)(const delta_args *a, int threads);
    size_t (*scan_scratch)(const scan_args *a, int threads);
    void (*scan)(const scan_args *a, int threads);
    /* the machine's ceilings: n times 8 dots of 64 products on registers alone; n bytes (of 256) read once */
    int32_t (*dots_alone)(ptrdiff_t n);
    int32_t (*read_alone)(const uint8_t *p, ptrdiff_t n);
} kernel_table;

/* The table of an instruction set, or NULL if it was not compiled in. */
const kernel_table *ref_engine_table(int isa);
/* Whether this processor and operating system can run it. */
int ref_engine_cpu_has(int isa);
enum { ISA_BASELINE, ISA_AVX2, ISA_AVX512, ISA_AVX512_VNNI, ISA_NEON };

#ifdef _OPENMP
#define REF_ENGINE_OPENMP 1
#else
#define REF_ENGINE_OPENMP 0
#endif

/* A block type of files: how its weights lie when repacked, how many a block has, in how many bytes, and how many bytes
   the codebook has that it looks points up in (quant/codebooks.py: int8, point after point). */
typedef struct {
    int kind, size, bytes, points;
} block_type;
/* Types by their place in BLOCK_KINDS of _native.pyx; NULL behind the last. */
const block_type *ref_engine_block_type(int type);

/* Repacking, the same bytes for all instruction sets. columns: whole blocks of the type. */
uint8_t *ref_engine_packed_space(size_t nbytes);
size_t ref_engine_packed_bytes(int type, ptrdiff_t rows, ptrdiff_t columns);
void ref_engine_pack(int type, const uint8_t *rows_of_blocks, const int8_t *points, ptrdiff_t rows, ptrdiff_t columns,
                     uint8_t *out, int threads);

#endif
