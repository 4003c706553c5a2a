# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, embedsignature=True
"""The C kernels for Python: every shape, index and option is checked here, then C runs without the interpreter lock.

Arrays are C-contiguous float32 unless said otherwise; Cython refuses others with a ValueError.
"""

from libc.stddef cimport ptrdiff_t, size_t
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t
from libc.stdlib cimport calloc, free
from libc.math cimport isfinite


cdef extern from "<stdlib.h>" nogil:
    void *aligned_alloc(size_t alignment, size_t size)


include "table.pxi"


# In the order of the C enums.
BLOCK_KINDS = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q8_1", "Q4_K", "Q5_K", "Q6_K", "Q2_K", "Q3_K", "IQ4_NL", "IQ4_XS",
               "MXFP4", "NVFP4", "Q1_0", "Q2_0", "TQ1_0", "TQ2_0", "IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S",
               "IQ3_XXS", "IQ3_S")
PLAIN_KINDS = ("F32", "F16", "BF16")
CACHE_KINDS = ("f32", "f16", "q8_0")
GLU_KINDS = ("silu", "gelu", "relu", "relu_sqr", "swiglu_oai", "swiglu_clamp", "swiglu_limit", "situ")
GATES = ("softmax", "sigmoid", "softmax_weight")
CHOICES = ("gate", "logits", "sigmoid")
ACTIVATION_KINDS = GLU_KINDS[:4]  # that need no gate
ALONE_KINDS = (*ACTIVATION_KINDS, "sigmoid")
cdef tuple _GLU_CONSTANTS = (0, 0, 0, 0, 2, 1, 1, 2)
ISAS = ("baseline", "avx2", "avx512", "avx512_vnni", "neon")
cdef tuple _PLAIN_BYTES = (4, 2, 2)
cdef int _MOST_THREADS = 1024
cdef ptrdiff_t _PART_BYTES = 8 << 20  # of a weight that are read before they may be given back


cdef int _checked_threads(int n) except -1:
    if not 1 <= n <= _MOST_THREADS:
        raise ValueError(f"n_threads is {n}, expected 1 to {_MOST_THREADS}")
    return n


cdef int _index(tuple names, name, str what) except -1:
    if name not in names:
        raise ValueError(f"{what} {name!r} has no kernel (known: {', '.join(names)})")
    return names.index(name)


cdef const block_type *_block_type(str name, ptrdiff_t columns) except NULL:
    """The block type of that name. Raises ValueError where columns are not whole blocks of it."""
    cdef const block_type *found = ref_engine_block_type(_index(BLOCK_KINDS, name, "weight type"))
    if columns < 1 or columns % found.size or (not in_blocks_of_32(found.kind) and columns % 256):
        raise ValueError(f"{columns} columns are not whole blocks of {found.size}")
    return found


cdef class Packed:
    """A weight of a block type in interleaved rows, in memory of its own."""

    cdef uint8_t *data
    cdef readonly int kind
    cdef readonly ptrdiff_t rows, columns
    cdef readonly size_t nbytes
    cdef ptrdiff_t blocks

    def __cinit__(self, str type, const uint8_t[::1] data, ptrdiff_t rows, ptrdiff_t columns, int n_threads,
                  const int8_t[:, ::1] points=None, read=None):
        """data: the rows' blocks as they lie in the file; points: the codebook of a type that has one. read(first, end):
        told of bytes that have been read, part by part, so that a large weight and its copy need not be in memory
        together. Raises ValueError for a type, length or count that do not fit, MemoryError."""
        cdef const block_type *block = _block_type(type, columns)
        cdef int index = BLOCK_KINDS.index(type)
        cdef const int8_t *codebook = NULL
        self.kind, self.rows, self.columns = block.kind, rows, columns
        self.blocks = columns // (32 if in_blocks_of_32(block.kind) else 256)
        _checked_threads(n_threads)
        cdef object want = int(rows) * int(columns // block.size) * block.bytes
        if rows < 1 or want != data.shape[0]:
            raise ValueError(f"{data.shape[0]} bytes, expected {want} for {rows} rows of {columns} {type} weights")
        if (0 if points is None else points.shape[0] * points.shape[1]) != block.points:
            raise ValueError(f"{type}: the codebook has {block.points} numbers")
        if points is not None:
            codebook = &points[0, 0]
        self.nbytes = ref_engine_packed_bytes(index, rows, columns)
        self.data = ref_engine_packed_space(self.nbytes)
        if self.data == NULL:
            raise MemoryError(f"{self.nbytes} bytes for repacked weights")
        cdef ptrdiff_t row = columns // block.size * block.bytes
        cdef ptrdiff_t part = max(1, _PART_BYTES // (16 * row)) * 16, first, count
        cdef uint8_t *to
        for first in range(0, rows, part):
            count = min(part, rows - first)
            to = self.data + (ref_engine_packed_bytes(index, first, columns) if first else 0)
            with nogil:
                ref_engine_pack(index, &data[first * row], codebook, count, columns, to, n_threads)
            if read is not None:
                read(first * row, (first + count) * row)

    def __dealloc__(self):
        free(self.data)


def packed_bytes(str type, ptrdiff_t rows, ptrdiff_t columns):
    """Bytes of a matrix in interleaved rows. Raises ValueError for a type without a kernel or broken blocks."""
    _block_type(type, columns)
    if rows < 1:
        raise ValueError(f"{rows} rows")
    return ref_engine_packed_bytes(BLOCK_KINDS.index(type), rows, columns)


def inside(const int32_t[:, ::1] ids, ptrdiff_t n):
    """Whether all ids are within 0 .. n - 1."""
    cdef ptrdiff_t t, r
    for t in range(ids.shape[0]):
        for r in range(ids.shape[1]):
            if not 0 <= ids[t, r] < n:
                return False
    return True


cdef int _unit(str name, tuple constants, bint gated, float *out) except -1:
    """The number of a gated unit, or of an activation without a gate; its constants into out."""
    cdef int kind = _index(GLU_KINDS if gated else ACTIVATION_KINDS, name, "activation")
    if len(constants) != (_GLU_CONSTANTS[kind] if gated else 0):
        raise ValueError(f"activation {name!r} does not take {len(constants)} constants")
    for i, c in enumerate(constants):
        out[i] = c
    return kind


cdef class Stack:
    """Where the matrices (rows, columns) of E experts are, those that were put here; all of one type."""

    cdef const uint8_t **data
    cdef list held
    cdef const uint8_t[::1] stored
    cdef readonly int kind
    cdef readonly ptrdiff_t experts, rows, columns

    def __cinit__(self, str type, ptrdiff_t experts, ptrdiff_t rows, ptrdiff_t columns):
        """Raises ValueError for a type without a kernel or columns that are not whole blocks, MemoryError."""
        if type in PLAIN_KINDS:
            self.kind = W_KINDS + PLAIN_KINDS.index(type)
        else:
            self.kind = _block_type(type, columns).kind
        if experts < 1 or rows < 1 or columns < 1:
            raise ValueError(f"a stack of {experts} experts of {rows} x {columns}")
        self.experts, self.rows, self.columns = experts, rows, columns
        self.held = [None] * experts
        self.data = <const uint8_t **>calloc(experts, sizeof(uint8_t *))
        if self.data == NULL:
            raise MemoryError(f"places of {experts} experts")

    def __dealloc__(self):
        free(self.data)

    def put(self, ptrdiff_t e, Packed w not None):
        """Expert e of a block type."""
        if not 0 <= e < self.experts or w.kind != self.kind or w.rows != self.rows or w.columns != self.columns:
            raise ValueError(f"expert {e} of {w.rows} x {w.columns} does not fit {self.experts} of "
                             f"{self.rows} x {self.columns}")
        self.held[e] = w
        self.data[e] = w.data

    def lay(self, const uint8_t[::1] data not None):
        """All experts of a plain type, as they lie in the file."""
        if self.kind < W_KINDS:
            raise ValueError("only plain weights are used as they lie in the file")
        cdef object size = int(self.rows) * int(self.columns) * _PLAIN_BYTES[self.kind - W_KINDS]
        if data.shape[0] != size * self.experts:
            raise ValueError(f"{data.shape[0]} bytes, expected {size * self.experts}")
        cdef ptrdiff_t e, step = size
        self.stored = data
        for e in range(self.experts):
            self.data[e] = &data[0] + e * step

    def missing(self, const int32_t[:, ::1] ids):
        """Those of the experts that are not here, in order of their numbers; ids are checked by `inside`."""
        cdef ptrdiff_t t, r, e
        wanted = set()
        for t in range(ids.shape[0]):
            for r in range(ids.shape[1]):
                e = ids[t, r]
                if not 0 <= e < self.experts:
                    raise ValueError(f"expert {e} is not one of 0..{self.experts - 1}")
                if self.data[e] == NULL:
                    wanted.add(e)
        return sorted(wanted)


cdef int _expert_map(expert_map *m, tuple part, ptrdiff_t E) except -1:
    """part: (Stack, bias (E, rows) or None, scale (E,) or None), which the caller holds."""
    cdef Stack stack = part[0]
    cdef const float[:, ::1] bias = part[1]
    cdef const float[::1] scale = part[2]
    m.kind, m.rows, m.columns, m.data, m.bias, m.scale = stack.kind, stack.rows, stack.columns, stack.data, NULL, NULL
    if stack.experts != E:
        raise ValueError(f"stacks of {E} and {stack.experts} experts")
    if bias is not None:
        if bias.shape[0] != E or bias.shape[1] != stack.rows:
            raise ValueError(f"a bias of {bias.shape[0]} x {bias.shape[1]} for {E} experts of {stack.rows} rows")
        m.bias = &bias[0, 0]
    if scale is not None:
        if scale.shape[0] != E:
            raise ValueError(f"{scale.shape[0]} factors for {E} experts")
        m.scale = &scale[0]
    return 0


cdef int _experts(moe_args *a, tuple up, tuple gate, tuple down, str activation, tuple constants, bint fused,
                  bint weigh_input) except -1:
    """What does not depend on the tokens; see Table.moe."""
    cdef ptrdiff_t E = (<Stack>up[0]).experts, F
    a.E, a.fused, a.gated, a.weigh_input = E, fused, fused or gate is not None, weigh_input
    a.gate.rows = a.gate.columns = a.gate.kind = 0
    if fused and gate is not None:
        raise ValueError("experts: a gate beside one that is fused")
    _expert_map(&a.up, up, E)
    _expert_map(&a.down, down, E)
    F = a.down.columns
    if a.up.rows != (2 * F if fused else F) or (fused and F % 16):
        raise ValueError(f"experts: {a.up.rows} rows up do not fit {F} columns down")
    if gate is not None:
        _expert_map(&a.gate, gate, E)
        if a.gate.rows != F or a.gate.columns != a.up.columns:
            raise ValueError(f"experts: gate of {a.gate.rows} x {a.gate.columns}, up of {F} x {a.up.columns}")
    a.unit = _unit(activation, constants, a.gated, a.constants)
    return 0


cdef bint _is_here(const moe_args *a, ptrdiff_t e) noexcept nogil:
    """Whether every matrix of an expert is in memory."""
    return a.up.data[e] != NULL and a.down.data[e] != NULL and (not a.gate.rows or a.gate.data[e] != NULL)


cdef int _routing(route_args *a, const float[::1] bias, tuple spec) except -1:
    """What does not depend on the tokens, for a.E experts; spec: as Table.route has it from gate to scale."""
    gate, select_by, groups, groups_used, cap, inverse_cap, normalise, least, scale = spec
    if groups < 1 or a.E % groups or not 1 <= groups_used <= groups:
        raise ValueError(f"{groups_used} of {groups} groups of {a.E} experts")
    a.groups, a.groups_used, a.bias = groups, groups_used, NULL
    if bias is not None:
        if bias.shape[0] != a.E:
            raise ValueError(f"a bias of {bias.shape[0]} for {a.E} experts")
        a.bias = &bias[0]
    a.gate, a.by = _index(GATES, gate, "gate"), _index(CHOICES, select_by, "choice")
    a.cap, a.inverse_cap, a.normalise, a.least = cap, inverse_cap, normalise, least
    a.scaled, a.scale = scale is not None, 1.0 if scale is None else scale
    return 0


cdef class Table:
    """The kernels of one instruction set, with scratch that grows and is kept. For one call at a time."""

    cdef const kernel_table *c
    cdef uint8_t *scratch
    cdef size_t held
    cdef bint busy
    cdef readonly str name

    def __cinit__(self, str isa):
        cdef int i = _index(ISAS, isa, "instruction set")
        self.c = ref_engine_table(i)
        if self.c == NULL or not ref_engine_cpu_has(i):
            raise ValueError(f"instruction set {isa} is not available")
        self.name = isa

    def __dealloc__(self):
        free(self.scratch)

    cdef int _reserve(self, size_t nbytes) except -1:
        """Scratch for this call, and the mark that one is running."""
        if self.busy:
            raise RuntimeError("kernels of one model were called by two threads at once")
        if nbytes > self.held:
            free(self.scratch)
            self.held = 0
            self.scratch = ref_engine_packed_space(nbytes + nbytes // 4)
            if self.scratch == NULL:
                raise MemoryError(f"{nbytes} bytes of scratch")
            self.held = nbytes + nbytes // 4
        self.busy = True
        return 0

    def linears(self, const float[:, ::1] x, list maps, int n_threads):
        """Products of x (T, columns) with several weights, as reference block_dot, from a list of (Packed, y (T, rows)).
        x is rounded once for all weights of blocks of 32, and once for all of 256."""
        cdef ptrdiff_t T = x.shape[0], columns = x.shape[1]
        cdef int side, done = -1
        cdef Packed w
        cdef float[:, ::1] y
        cdef ptrdiff_t blocks
        _checked_threads(n_threads)
        for w, y in maps:
            if w.columns != columns or y.shape[0] != T or y.shape[1] != w.rows:
                raise ValueError(f"input {T} x {columns}, weight {w.rows} x {w.columns}, output "
                                 f"{y.shape[0]} x {y.shape[1]} do not fit")
        if T == 0:
            return
        self._reserve(<size_t>T * max((<size_t>columns // 32 + 1) * X32_BYTES, (<size_t>columns // 256 + 1) * XK_BYTES))
        try:
            for w, y in maps:
                side = in_blocks_of_32(w.kind)
                blocks = w.blocks
                with nogil:
                    if side != done:
                        if side:
                            self.c.quantize32(&x[0, 0], T, blocks, self.scratch, n_threads)
                        else:
                            self.c.quantizek(&x[0, 0], T, blocks, self.scratch, n_threads)
                    self.c.linear(w.kind, w.data, self.scratch, T, w.rows, blocks, &y[0, 0], n_threads)
                done = side
        finally:
            self.busy = False

    def plain(self, const float[:, ::1] x, const uint8_t[::1] data, str type, float[:, ::1] y, int n_threads):
        """x (T, columns) times the rows of an F32, F16 or BF16 weight, its bytes, as reference plain_dot."""
        cdef int kind = _index(PLAIN_KINDS, type, "weight type")
        cdef ptrdiff_t T = x.shape[0], n = x.shape[1], rows = y.shape[1]
        _checked_threads(n_threads)
        if n < 1 or y.shape[0] != T or int(rows) * int(n) * _PLAIN_BYTES[kind] != data.shape[0]:
            raise ValueError(f"input {T} x {n}, output {y.shape[0]} x {rows}, weight of {data.shape[0]} bytes "
                             f"of {type} do not fit")
        if T == 0 or rows == 0:
            return
        self._reserve(<size_t>T * <size_t>n * sizeof(float))
        try:
            with nogil:
                self.c.round_plain(kind, &x[0, 0], T * n, <float *>self.scratch)
                self.c.plain(kind, &data[0], <float *>self.scratch, T, rows, n, &y[0, 0], n_threads)
        finally:
            self.busy = False

    def rms_norm(self, const float[:, ::1] x, const float[::1] weight, float eps, float[:, ::1] y, int n_threads):
        """x (rows, n) into y, as reference rms_norm; weight (n,) or None."""
        cdef ptrdiff_t rows = x.shape[0], n = x.shape[1]
        cdef const float *w = NULL
        _checked_threads(n_threads)
        if y.shape[0] != rows or y.shape[1] != n or n < 1 or (weight is not None and weight.shape[0] != n):
            raise ValueError(f"norm of {rows} x {n} into {y.shape[0]} x {y.shape[1]}: shapes do not fit")
        if rows == 0:
            return
        if weight is not None:
            w = &weight[0]
        with nogil:
            self.c.rms_norm(&x[0, 0], w, rows, n, eps, &y[0, 0], n_threads)

    def rope(self, const float[:, :, ::1] x, const float[:, ::1] cos, const float[:, ::1] sin, bint adjacent,
             float[:, :, ::1] y, int n_threads):
        """x (T, H, Hd), cos and sin (T, half) into y, as reference rope."""
        cdef ptrdiff_t T = x.shape[0], H = x.shape[1], Hd = x.shape[2], half = cos.shape[1]
        _checked_threads(n_threads)
        if cos.shape[0] != T or sin.shape[0] != T or sin.shape[1] != half or half < 1 or 2 * half > Hd:
            raise ValueError(f"rope of {T} x {H} x {Hd} by tables {cos.shape[0]} x {half}, "
                             f"{sin.shape[0]} x {sin.shape[1]}: shapes do not fit")
        if y.shape[0] != T or y.shape[1] != H or y.shape[2] != Hd:
            raise ValueError("rope: the output has another shape than the input")
        if T == 0 or H == 0:
            return
        with nogil:
            self.c.rope(&x[0, 0, 0], &cos[0, 0], &sin[0, 0], T, H, Hd, half, adjacent, &y[0, 0, 0], n_threads)

    def attend(self, const float[:, :, ::1] q, const uint8_t[:, :, ::1] k, const uint8_t[:, :, :] v, str kind,
               const int64_t[::1] positions, float scale, ptrdiff_t window, float cap, float inverse_cap,
               const float[::1] sinks, float[:, ::1] out, int n_threads):
        """q (T, H, Hd), positions (T,), bytes of keys (S, K, Hd) and values (S, K, Vd) of a kind (CACHE_KINDS), into
        out (T, H * Vd), as reference attend_ordered. Values may be a part of something wider. window 0: all keys;
        cap 0: none; sinks (H,) or None."""
        cdef attend_args a
        cdef ptrdiff_t t, aligned
        _checked_threads(n_threads)
        a.kind = _index(CACHE_KINDS, kind, "cache type")
        aligned = 4 if a.kind == C_F32 else 2
        a.T, a.H, a.Hd, a.S, a.K = q.shape[0], q.shape[1], q.shape[2], k.shape[0], k.shape[1]
        a.Vd = v.shape[2] // C_BLOCK_BYTES * 32 if a.kind == C_Q8_0 else v.shape[2] // aligned
        if a.K < 1 or a.Hd < 1 or a.S < 1 or a.H < 1 or a.H % a.K or not _is_row(a.kind, k.shape[2], a.Hd):
            raise ValueError(f"attention of {a.H} heads over {a.K} of width {a.Hd}, {a.S} keys of {k.shape[2]} bytes: "
                             "shapes do not fit")
        if v.shape[0] != a.S or v.shape[1] != a.K or a.Vd < 1 or not _is_row(a.kind, v.shape[2], a.Vd):
            raise ValueError("attention: keys and values differ in shape")
        if v.strides[2] != 1 or v.strides[0] % aligned or v.strides[1] % aligned:
            raise ValueError("attention: a key's values do not follow each other")
        if positions.shape[0] != a.T or out.shape[0] != a.T or out.shape[1] != a.H * a.Vd:
            raise ValueError("attention: queries, positions and output do not fit")
        a.sinks = NULL
        if sinks is not None:
            if sinks.shape[0] != a.H:
                raise ValueError(f"attention: {sinks.shape[0]} sinks for {a.H} heads")
            a.sinks = &sinks[0]
        if window < 0 or not isfinite(cap):
            raise ValueError(f"attention: window {window}, cap {cap}")
        for t in range(a.T):
            if positions[t] < 0 or (window and positions[t] - window + 1 >= a.S):
                raise ValueError(f"position {positions[t]} sees none of {a.S} keys")
        if a.T == 0:
            return
        a.scale, a.window, a.cap, a.inverse_cap = scale, window, cap, inverse_cap
        a.q, a.k, a.v = &q[0, 0, 0], &k[0, 0, 0], &v[0, 0, 0]
        a.v_key, a.v_head = v.strides[0], v.strides[1]
        a.positions, a.out = &positions[0], &out[0, 0]
        self._reserve(self.c.attend_scratch(&a, n_threads) * sizeof(float))
        a.scratch = <float *>self.scratch
        try:
            with nogil:
                self.c.attend(&a, n_threads)
        finally:
            self.busy = False

    def glu(self, str activation, tuple constants, const float[:, ::1] gate, const float[:, ::1] up, float[:, ::1] y,
            int n_threads):
        """activation(gate) * up, or the unit of that name, into y, all (T, F)."""
        cdef float c[2]
        cdef int kind = _unit(activation, constants, True, c)
        cdef ptrdiff_t T = gate.shape[0], F = gate.shape[1]
        _checked_threads(n_threads)
        if up.shape[0] != T or up.shape[1] != F or y.shape[0] != T or y.shape[1] != F:
            raise ValueError(f"glu of {T} x {F} and {up.shape[0]} x {up.shape[1]}: shapes do not fit")
        if T * F == 0:
            return
        with nogil:
            self.c.glu(kind, c, &gate[0, 0], &up[0, 0], T * F, &y[0, 0], n_threads)

    def moe(self, const float[:, ::1] x, const int32_t[:, ::1] ids, const float[:, ::1] weights, tuple up, tuple gate,
            tuple down, str activation, tuple constants, bint fused, bint weigh_input, float[:, ::1] out,
            int n_threads):
        """x (T, D), ids (T, k), weights (T, k) into out (T, D), as reference moe_ffn. up, gate, down: (Stack, bias,
        scale), gate None where there is none. fused: the first half of up's rows, whole groups of 16, is the gate."""
        cdef moe_args a
        cdef ptrdiff_t t, r
        _checked_threads(n_threads)
        a.T, a.k = x.shape[0], ids.shape[1]
        if ids.shape[0] != a.T or weights.shape[0] != a.T or weights.shape[1] != a.k or out.shape[0] != a.T:
            raise ValueError(f"experts: {a.T} tokens, {ids.shape[0]} x {a.k} ids, {weights.shape[0]} x "
                             f"{weights.shape[1]} weights, {out.shape[0]} outputs do not fit")
        if a.T == 0:
            return
        if a.k < 1:
            raise ValueError(f"experts: {a.k} for a token")
        _experts(&a, up, gate, down, activation, constants, fused, weigh_input)
        if x.shape[1] != a.up.columns or out.shape[1] != a.down.rows:
            raise ValueError(f"experts: input of {x.shape[1]}, output of {out.shape[1]} do not fit")
        for t in range(a.T):
            for r in range(a.k):
                if not 0 <= ids[t, r] < a.E or not _is_here(&a, ids[t, r]):
                    raise ValueError(f"expert {ids[t, r]} is not here")
        a.x, a.ids, a.weights, a.out, a.scratch = &x[0, 0], &ids[0, 0], &weights[0, 0], &out[0, 0], NULL
        self._reserve(self.c.moe_scratch(&a))
        a.scratch = self.scratch
        try:
            with nogil:
                self.c.moe(&a, n_threads)
        finally:
            self.busy = False

    def route(self, const float[:, ::1] logits, const float[::1] bias, str gate, str select_by, ptrdiff_t groups,
              ptrdiff_t groups_used, float cap, float inverse_cap, bint normalise, float least, scale,
              int32_t[:, ::1] ids, float[:, ::1] weights, int n_threads):
        """logits (T, E) into ids and weights (T, k), as reference route. bias (E,) or None, cap 0: none, scale: a number
        or None."""
        cdef route_args a
        _checked_threads(n_threads)
        a.T, a.E, a.k = logits.shape[0], logits.shape[1], ids.shape[1]
        if ids.shape[0] != a.T or weights.shape[0] != a.T or weights.shape[1] != a.k or not 1 <= a.k <= a.E:
            raise ValueError(f"routing {a.T} x {a.E} logits to {ids.shape[0]} x {a.k} experts of {weights.shape[0]} x "
                             f"{weights.shape[1]} weights: shapes do not fit")
        _routing(&a, bias, (gate, select_by, groups, groups_used, cap, inverse_cap, normalise, least, scale))
        if a.T == 0:
            return
        a.logits, a.ids, a.weights = &logits[0, 0], &ids[0, 0], &weights[0, 0]
        self._reserve(self.c.route_scratch(&a) * <size_t>n_threads * sizeof(float))
        a.scratch = <float *>self.scratch
        try:
            with nogil:
                self.c.route(&a, n_threads)
        finally:
            self.busy = False

    def soft_cap(self, const float[::1] x, float inverse_cap, float cap, float[::1] y, int n_threads):
        """tanh(x * inverse_cap) * cap into y, as reference soft_cap."""
        _checked_threads(n_threads)
        if y.shape[0] != x.shape[0]:
            raise ValueError(f"soft_cap of {x.shape[0]} numbers into {y.shape[0]}")
        if x.shape[0]:
            with nogil:
                self.c.soft_cap(&x[0], x.shape[0], inverse_cap, cap, &y[0], n_threads)


def compiled_isas():
    """Names of the instruction sets that were compiled in."""
    return tuple(name for i, name in enumerate(ISAS) if ref_engine_table(i) != NULL)


def cpu_isas():
    """Names of those that this processor and operating system can run."""
    return tuple(name for i, name in enumerate(ISAS) if ref_engine_table(i) != NULL and ref_engine_cpu_has(i))


HAS_OPENMP = bool(REF_ENGINE_OPENMP)


include "halves.pxi"
include "layers.pxi"
include "recurrent.pxi"
include "ceilings.pxi"
