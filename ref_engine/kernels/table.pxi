"""What c/table.h declares."""


cdef extern from "table.h" nogil:
    int W_KINDS
    int in_blocks_of_32(int kind)
    int X32_BYTES, XK_BYTES
    int C_F32, C_Q8_0, C_BLOCK_BYTES
    ptrdiff_t cached_bytes(int kind, ptrdiff_t n)

    ctypedef struct attend_args:
        const float *q
        const void *k
        const void *v
        ptrdiff_t v_key, v_head
        const float *sinks
        int kind
        const int64_t *positions
        ptrdiff_t T, H, K, Hd, Vd, S
        float scale
        ptrdiff_t window
        float cap, inverse_cap
        float *out
        float *scratch

    ctypedef struct delta_args:
        const float *q
        const float *k
        const float *v
        const float *decay
        const float *beta
        ptrdiff_t T, H, Hd, Vd, W
        const float *before
        float *after
        float *out
        float *scratch

    ctypedef struct scan_args:
        const float *x
        const float *dt
        const float *a
        const float *b
        const float *c
        ptrdiff_t T, H, P, N, G, W
        const float *before
        float *after
        float *out
        float *scratch

    ctypedef struct expert_map:
        int kind
        ptrdiff_t rows, columns
        const uint8_t **data
        const float *bias
        const float *scale

    ctypedef struct moe_args:
        const float *x
        const float *weights
        const int32_t *ids
        ptrdiff_t T, k, E
        expert_map up, gate, down
        int unit, gated, fused, weigh_input
        float constants[2]
        float *out
        uint8_t *scratch

    ctypedef struct route_args:
        const float *logits
        const float *bias
        ptrdiff_t T, E, k, groups, groups_used
        int gate, by, normalise, scaled
        float cap, inverse_cap, least, scale
        int32_t *ids
        float *weights
        float *scratch

    int MOST_HEAD

    ctypedef struct norm_args:
        int there
        const float *weight
        float eps

    ctypedef struct share_args:
        ptrdiff_t row, T, S
        const int64_t *positions
        int kind
        void *k
        void *v

    ctypedef struct half_args:
        const float *x
        float *out
        ptrdiff_t T, D
        norm_args before, after
        float scale
        int scaled
        uint8_t *scratch

    ctypedef struct attention_half_args:
        half_args half
        expert_map q, k, v, output
        norm_args q_norm, k_norm
        const float *cos
        const float *sin
        ptrdiff_t turned
        int adjacent
        float query_scale
        attend_args attend
        const share_args *shares
        ptrdiff_t n_shares
        int last_only

    ctypedef struct ffn_half_args:
        half_args half
        expert_map up, gate, down
        int unit, gated, fused
        float constants[2]

    ctypedef struct moe_half_args:
        half_args half
        expert_map router
        route_args route
        moe_args moe
        int64_t *counts

    ctypedef struct kernel_table:
        const char *name
        void (*quantize32)(const float *, ptrdiff_t, ptrdiff_t, uint8_t *, int) noexcept nogil
        void (*quantizek)(const float *, ptrdiff_t, ptrdiff_t, uint8_t *, int) noexcept nogil
        void (*linear)(int, const uint8_t *, const uint8_t *, ptrdiff_t, ptrdiff_t, ptrdiff_t, float *, int) noexcept nogil
        void (*round_plain)(int, const float *, ptrdiff_t, float *) noexcept nogil
        void (*plain)(int, const void *, const float *, ptrdiff_t, ptrdiff_t, ptrdiff_t, float *, int) noexcept nogil
        void (*rms_norm)(const float *, const float *, ptrdiff_t, ptrdiff_t, float, float *, int) noexcept nogil
        void (*rope)(const float *, const float *, const float *, ptrdiff_t, ptrdiff_t, ptrdiff_t, ptrdiff_t, int,
                     float *, int) noexcept nogil
        size_t (*attend_scratch)(const attend_args *, int) noexcept nogil
        void (*attend)(const attend_args *, int) noexcept nogil
        void (*glu)(int, const float *, const float *, const float *, ptrdiff_t, float *, int) noexcept nogil
        void (*activate)(int, const float *, ptrdiff_t, float *, int) noexcept nogil
        void (*conv)(const float *, const float *, const float *, ptrdiff_t, ptrdiff_t, ptrdiff_t, ptrdiff_t, float *,
                     int) noexcept nogil
        void (*soft_cap)(const float *, ptrdiff_t, float, float, float *, int) noexcept nogil
        size_t (*route_scratch)(const route_args *) noexcept nogil
        void (*route)(const route_args *, int) noexcept nogil
        size_t (*moe_scratch)(const moe_args *) noexcept nogil
        void (*moe)(const moe_args *, int) noexcept nogil
        size_t (*attention_half)(const attention_half_args *, int) noexcept nogil
        size_t (*ffn_half)(const ffn_half_args *, int) noexcept nogil
        size_t (*moe_half_route)(const moe_half_args *, int) noexcept nogil
        void (*moe_half_give)(const moe_half_args *, int) noexcept nogil
        size_t (*delta_scratch)(const delta_args *, int) noexcept nogil
        void (*delta)(const delta_args *, int) noexcept nogil
        size_t (*scan_scratch)(const scan_args *, int) noexcept nogil
        void (*scan)(const scan_args *, int) noexcept nogil
        int32_t (*dots_alone)(ptrdiff_t) noexcept nogil
        int32_t (*read_alone)(const uint8_t *, ptrdiff_t) noexcept nogil

    const kernel_table *ref_engine_table(int isa)
    int ref_engine_cpu_has(int isa)
    int REF_ENGINE_OPENMP  # whether the units were compiled with it

    ctypedef struct block_type:
        int kind, size, bytes, points

    const block_type *ref_engine_block_type(int type)
    uint8_t *ref_engine_packed_space(size_t nbytes)
    size_t ref_engine_packed_bytes(int type, ptrdiff_t rows, ptrdiff_t columns)
    void ref_engine_pack(int type, const uint8_t *rows_of_blocks, const int8_t *points, ptrdiff_t rows,
                         ptrdiff_t columns, uint8_t *out, int threads)
