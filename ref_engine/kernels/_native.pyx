# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, embedsignature=True
"""The C kernels for Python: every shape, index and option is checked here, then C runs without the interpreter lock.

Arrays are C-contiguous float32 unless said otherwise; Cython refuses others with a ValueError.
"""

from libc.stddef cimport ptrdiff_t, size_t
from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport free
from libc.math cimport isfinite


cdef extern from "<stdlib.h>" nogil:
    void *aligned_alloc(size_t alignment, size_t size)


cdef extern from "table.h" nogil:
    int W_KINDS, W_Q8_0
    int X32_BYTES, XK_BYTES

    ctypedef struct attend_args:
        const float *q
        const void *k
        const void *v
        int half
        const int64_t *positions
        ptrdiff_t T, H, K, Hd, S
        float scale
        ptrdiff_t window
        float cap, inverse_cap
        float *out
        float *scratch

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
        void (*glu)(int, const float *, const float *, ptrdiff_t, float *, int) noexcept nogil
        void (*soft_cap)(const float *, ptrdiff_t, float, float, float *, int) noexcept nogil

    const kernel_table *ref_engine_table(int isa)
    int ref_engine_cpu_has(int isa)
    int REF_ENGINE_OPENMP  # whether the units were compiled with it
    size_t ref_engine_packed_bytes(int kind, ptrdiff_t rows, ptrdiff_t blocks)
    void ref_engine_pack(int kind, const uint8_t *rows_of_blocks, ptrdiff_t rows, ptrdiff_t blocks, uint8_t *out,
                         int threads)


# In the order of the C enums.
BLOCK_KINDS = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K")
PLAIN_KINDS = ("F32", "F16", "BF16")
GLU_KINDS = ("silu", "gelu", "relu")
ISAS = ("baseline", "avx2", "avx512", "avx512_vnni")
cdef tuple _BLOCK_BYTES = (18, 20, 22, 24, 34, 144, 176, 210)
cdef tuple _PLAIN_BYTES = (4, 2, 2)
cdef int _MOST_THREADS = 1024


cdef int _checked_threads(int n) except -1:
    if not 1 <= n <= _MOST_THREADS:
        raise ValueError(f"n_threads is {n}, expected 1 to {_MOST_THREADS}")
    return n


cdef int _index(tuple names, name, str what) except -1:
    if name not in names:
        raise ValueError(f"{what} {name!r} has no kernel (known: {', '.join(names)})")
    return names.index(name)


cdef ptrdiff_t _blocks(int kind, ptrdiff_t columns) except -1:
    cdef ptrdiff_t size = 32 if kind <= W_Q8_0 else 256
    if columns < 1 or columns % size:
        raise ValueError(f"{columns} columns are not whole blocks of {size}")
    return columns // size


cdef class Packed:
    """A weight of a block type in interleaved rows, in memory of its own."""

    cdef uint8_t *data
    cdef readonly int kind
    cdef readonly ptrdiff_t rows, columns
    cdef readonly size_t nbytes
    cdef ptrdiff_t blocks

    def __cinit__(self, str type, const uint8_t[::1] data, ptrdiff_t rows, ptrdiff_t columns, int n_threads):
        """data: the rows' blocks as they lie in the file. Raises ValueError for a type, length or count that do not
        fit, MemoryError."""
        self.kind = _index(BLOCK_KINDS, type, "weight type")
        self.blocks = _blocks(self.kind, columns)
        self.rows, self.columns = rows, columns
        _checked_threads(n_threads)
        cdef object want = int(rows) * int(self.blocks) * _BLOCK_BYTES[self.kind]
        if rows < 1 or want != data.shape[0]:
            raise ValueError(f"{data.shape[0]} bytes, expected {want} for {rows} rows of {columns} {type} weights")
        self.nbytes = ref_engine_packed_bytes(self.kind, rows, self.blocks)
        self.data = <uint8_t *>aligned_alloc(64, (self.nbytes + 63) // 64 * 64)
        if self.data == NULL:
            raise MemoryError(f"{self.nbytes} bytes for repacked weights")
        with nogil:
            ref_engine_pack(self.kind, &data[0], rows, self.blocks, self.data, n_threads)

    def __dealloc__(self):
        free(self.data)


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
            self.scratch = <uint8_t *>aligned_alloc(64, (nbytes + nbytes // 4 + 63) // 64 * 64)
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
        self._reserve(<size_t>T * (<size_t>columns // 32 + 1) * X32_BYTES)
        try:
            for w, y in maps:
                side = w.kind <= W_Q8_0
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

    def attend(self, const float[:, :, ::1] q, const uint8_t[:, :, ::1] k, const uint8_t[:, :, ::1] v, bint half,
               const int64_t[::1] positions, float scale, ptrdiff_t window, float cap, float inverse_cap,
               float[:, ::1] out, int n_threads):
        """q (T, H, Hd), positions (T,), bytes of keys and values (S, K, Hd), float16 if `half`, else float32, into
        out (T, H * Hd), as reference attend_ordered. window 0: all keys; cap 0: none."""
        cdef attend_args a
        cdef ptrdiff_t t, width = q.shape[2] * (2 if half else 4)
        _checked_threads(n_threads)
        a.T, a.H, a.Hd, a.S, a.K = q.shape[0], q.shape[1], q.shape[2], k.shape[0], k.shape[1]
        if a.K < 1 or a.Hd < 1 or a.S < 1 or a.H < 1 or a.H % a.K or k.shape[2] != width:
            raise ValueError(f"attention of {a.H} heads over {a.K} of width {a.Hd}, {a.S} keys of {k.shape[2]} bytes: "
                             "shapes do not fit")
        if v.shape[0] != a.S or v.shape[1] != a.K or v.shape[2] != width:
            raise ValueError("attention: keys and values differ in shape")
        if positions.shape[0] != a.T or out.shape[0] != a.T or out.shape[1] != a.H * a.Hd:
            raise ValueError("attention: queries, positions and output do not fit")
        if window < 0 or not isfinite(cap):
            raise ValueError(f"attention: window {window}, cap {cap}")
        for t in range(a.T):
            if positions[t] < 0 or (window and positions[t] - window + 1 >= a.S):
                raise ValueError(f"position {positions[t]} sees none of {a.S} keys")
        if a.T == 0:
            return
        a.half, a.scale, a.window, a.cap, a.inverse_cap = half, scale, window, cap, inverse_cap
        a.q, a.k, a.v = &q[0, 0, 0], &k[0, 0, 0], &v[0, 0, 0]
        a.positions, a.out = &positions[0], &out[0, 0]
        self._reserve(self.c.attend_scratch(&a, n_threads) * sizeof(float))
        a.scratch = <float *>self.scratch
        try:
            with nogil:
                self.c.attend(&a, n_threads)
        finally:
            self.busy = False

    def glu(self, str activation, const float[:, ::1] gate, const float[:, ::1] up, float[:, ::1] y, int n_threads):
        """activation(gate) * up into y, all (T, F)."""
        cdef int kind = _index(GLU_KINDS, activation, "activation")
        cdef ptrdiff_t T = gate.shape[0], F = gate.shape[1]
        _checked_threads(n_threads)
        if up.shape[0] != T or up.shape[1] != F or y.shape[0] != T or y.shape[1] != F:
            raise ValueError(f"glu of {T} x {F} and {up.shape[0]} x {up.shape[1]}: shapes do not fit")
        if T * F == 0:
            return
        with nogil:
            self.c.glu(kind, &gate[0, 0], &up[0, 0], T * F, &y[0, 0], n_threads)

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
