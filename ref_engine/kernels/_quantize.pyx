# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, embedsignature=True
"""The compiled quantisers for Python: every length and index is checked here, then C runs without the interpreter lock.

Arrays are C-contiguous; Cython refuses others with a ValueError.
"""

from libc.stddef cimport ptrdiff_t
from libc.stdint cimport int32_t, uint8_t, uint16_t

import numpy as np


cdef extern from "table.h" nogil:
    int ref_engine_cpu_has(int isa)


cdef extern from "quantize.h" nogil:
    enum: QUANTIZED_ "QUANTIZED"

    ctypedef struct codebook:
        int bits, width, top
        const int32_t *index_of
        const int32_t *start
        const int32_t *count
        const uint16_t *near
        const uint16_t *points

    ctypedef struct value_table:
        float value[16]
        float middle[15]

    ctypedef struct quantize_job:
        const float *x
        const float *importance
        const float *spread
        const codebook *grid
        const value_table *values
        ptrdiff_t blocks_in_row
        uint8_t *out

    ctypedef struct quantize_kind:
        int weights, bytes, by_row, needs_grid, needs_values

    ctypedef struct quantize_table:
        const quantize_kind *kinds

    const quantize_table *ref_engine_quantize_table(int isa)
    ptrdiff_t ref_engine_quantize(const quantize_table *table, int kind, quantize_job job, ptrdiff_t rows, float *spread,
                                  int threads)


# In the order of the C enums.
KINDS = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ1_S", "IQ1_M", "IQ2_XXS",
         "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_NL", "IQ4_XS", "TQ1_0", "TQ2_0", "MXFP4", "NVFP4", "Q1_0", "Q2_0",
         "F16", "BF16")
ISAS = ("baseline", "avx2", "avx512", "avx512_vnni", "neon")
QUANTIZED = QUANTIZED_
cdef int _MOST_THREADS = 1024
cdef ptrdiff_t _PADDING = 16


cdef class Codebook:
    """A codebook prepared for searching; the arrays are those of `quant.lattice.Lattice`, copied.

    Raises ValueError for arrays that do not fit together: every number that C looks up is checked here, once.
    """

    cdef codebook c
    cdef tuple _arrays
    cdef readonly int width

    def __cinit__(self, ranks, index_of, start, count, near, int bits):
        cdef ptrdiff_t width = ranks.shape[1]
        if (bits, width) not in ((2, 8), (3, 4)):
            raise ValueError(f"points of {width} coordinates with {bits} bits")
        top = 2 if bits == 2 else 7
        size = 1 << bits * width
        if not (index_of.shape == start.shape == count.shape == (size,)):
            raise ValueError(f"a codebook's maps have {size} entries")
        if ranks.min() < 0 or ranks.max() > top or near.min() < 0 or near.max() >= len(ranks):
            raise ValueError("ranks or neighbours of a codebook are out of range")
        points = np.bitwise_or.reduce(ranks << bits * np.arange(width), axis=1)
        if not (np.flatnonzero(index_of >= 0) == np.sort(points)).all() or (index_of[points] != np.arange(len(points))).any():
            raise ValueError("a codebook's points and their numbers differ")
        digits = np.arange(size)[:, None] >> bits * np.arange(width) & (1 << bits) - 1
        missing = (index_of < 0) & (digits <= top).all(axis=1)
        if (count[missing] < 1).any() or (start < 0).any() or (start[missing] + count[missing] > len(near)).any():
            raise ValueError("a codebook's lists of neighbours are empty or too long")
        numbers = np.concatenate([points[near], np.zeros(_PADDING, np.int64)]).astype(np.uint16)
        cdef const int32_t[::1] a = np.array(index_of, np.int32)
        cdef const int32_t[::1] b = np.array(start, np.int32)
        cdef const int32_t[::1] n = np.array(count, np.int32)
        cdef const uint16_t[::1] m = numbers
        cdef const uint16_t[::1] p = points.astype(np.uint16)
        self._arrays = (a, b, n, m, p)
        self.width = width
        self.c = codebook(bits, width, top, &a[0], &b[0], &n[0], &m[0], &p[0])


cdef const quantize_table *_table(str isa) except NULL:
    if isa not in ISAS:
        raise ValueError(f"unknown instruction set {isa!r}")
    cdef int i = ISAS.index(isa)
    cdef const quantize_table *table = ref_engine_quantize_table(i)
    if table == NULL or not ref_engine_cpu_has(i):
        raise ValueError(f"instruction set {isa} is not available")
    return table


def quantize(str kind, const float[:, ::1] rows, const float[::1] importance, Codebook grid, const float[::1] values,
             uint8_t[:, ::1] out, str isa, int n_threads):
    """rows (R, K) -> records out (R, bytes), by the definition of `quant.quantize`.

    importance: (K,), finite and not negative, or None; grid and values: of types that have a codebook or a table of
    sixteen values, else None. Returns QUANTIZED, or what is wrong: the number of the first weight that is not finite, or
    another negative number where an error in a search was not.
    Raises ValueError for a kind or an instruction set that is not there and for lengths that do not fit.
    """
    if kind not in KINDS:
        raise ValueError(f"{kind!r} has no compiled quantiser")
    if not 1 <= n_threads <= _MOST_THREADS:
        raise ValueError(f"n_threads is {n_threads}, expected 1 to {_MOST_THREADS}")
    cdef int number = KINDS.index(kind), i
    cdef const quantize_table *table = _table(isa)
    cdef quantize_kind k = table.kinds[number]
    cdef ptrdiff_t R = rows.shape[0], K = rows.shape[1], blocks = K // k.weights
    if K % k.weights:
        raise ValueError(f"{K} columns are not whole blocks of {k.weights}")
    if out.shape[0] != R or out.shape[1] != blocks * k.bytes:
        raise ValueError(f"room of {out.shape[0]} x {out.shape[1]} bytes for {R} rows of {blocks * k.bytes}")
    if importance is not None and importance.shape[0] != K:
        raise ValueError(f"{importance.shape[0]} importances for rows of {K}")
    if k.needs_grid and (grid is None or grid.width != (4 if kind.startswith("IQ3") else 8)):
        raise ValueError(f"{kind} needs its codebook")
    if k.needs_values and (values is None or values.shape[0] != 16):
        raise ValueError(f"{kind} needs its table of sixteen values")
    if R == 0 or K == 0:
        return QUANTIZED
    cdef value_table table16
    if k.needs_values:
        for i in range(16):
            table16.value[i] = values[i]
        for i in range(15):
            table16.middle[i] = (values[i] + values[i + 1]) / 2
    cdef float[::1] spread = np.empty(R if k.by_row and importance is not None else 1, np.float32)
    cdef quantize_job job = quantize_job(&rows[0, 0], NULL, NULL, NULL, &table16, blocks, &out[0, 0])
    if importance is not None:
        job.importance = &importance[0]
    if k.needs_grid:
        job.grid = &grid.c
    cdef ptrdiff_t status
    with nogil:
        status = ref_engine_quantize(table, number, job, R, &spread[0], n_threads)
    return status
