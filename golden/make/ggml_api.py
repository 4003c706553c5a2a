"""ggml's type traits, quantisers and one-operation graphs through ctypes, on NumPy arrays."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from llamacpp import GGMLTensor, base_library, cpu_library, tensor_array

FloatArray = npt.NDArray[np.float32]
ByteArray = npt.NDArray[np.uint8]

TYPES = {
    "F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q5_0": 6, "Q5_1": 7, "Q8_0": 8, "Q8_1": 9, "Q2_K": 10, "Q3_K": 11,
    "Q4_K": 12, "Q5_K": 13, "Q6_K": 14, "Q8_K": 15, "IQ2_XXS": 16, "IQ2_XS": 17, "IQ3_XXS": 18, "IQ1_S": 19,
    "IQ4_NL": 20, "IQ3_S": 21, "IQ2_S": 22, "IQ4_XS": 23, "IQ1_M": 29, "BF16": 30, "TQ1_0": 34, "TQ2_0": 35,
    "MXFP4": 39, "NVFP4": 40, "Q1_0": 41, "Q2_0": 42,
}  # fmt: skip
_NAMES = {number: name for name, number in TYPES.items()}
_FROM_FLOAT = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
_VEC_DOT = ctypes.CFUNCTYPE(
    None, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p,
    ctypes.c_size_t, ctypes.c_int,
)  # fmt: skip
_GRAPH_BYTES = 64 << 20


class _Traits(ctypes.Structure):
    _fields_ = [
        ("type_name", ctypes.c_char_p),
        ("blck_size", ctypes.c_int64),
        ("blck_size_interleave", ctypes.c_int64),
        ("type_size", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", _FROM_FLOAT),
        ("from_float_ref", _FROM_FLOAT),
    ]


class _CpuTraits(ctypes.Structure):
    _fields_ = [
        ("from_float", _FROM_FLOAT),
        ("vec_dot", _VEC_DOT),
        ("vec_dot_type", ctypes.c_int),
        ("nrows", ctypes.c_int64),
    ]


class _InitParams(ctypes.Structure):
    _fields_ = [("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool)]


class Ggml:
    """The CPU backend that llama.cpp runs on this machine, function by function."""

    def __init__(self) -> None:
        self.base, self.cpu = base_library(), cpu_library()
        self.base.ggml_get_type_traits.restype = ctypes.POINTER(_Traits)
        self.cpu.ggml_get_type_traits_cpu.restype = ctypes.POINTER(_CpuTraits)
        self.base.ggml_quantize_chunk.restype = ctypes.c_size_t
        self.base.ggml_init.argtypes = [_InitParams]
        self.base.ggml_init.restype = ctypes.c_void_p
        self.base.ggml_new_graph.restype = ctypes.c_void_p
        self.base.ggml_new_tensor.restype = ctypes.c_void_p

    def row_bytes(self, kind: str, n: int) -> int:
        traits = self.base.ggml_get_type_traits(TYPES[kind]).contents
        if n % traits.blck_size:
            raise ValueError(f"{n} weights are not whole blocks of {kind}")
        return int(n // traits.blck_size * traits.type_size)

    def block_size(self, kind: str) -> int:
        return int(self.base.ggml_get_type_traits(TYPES[kind]).contents.blck_size)

    def dot_kind(self, kind: str) -> str:
        """The type that activations are rounded to before a dot product with weights of `kind`."""
        return _NAMES[self.cpu.ggml_get_type_traits_cpu(TYPES[kind]).contents.vec_dot_type]

    def quantize(self, kind: str, rows: FloatArray, importance: FloatArray | None = None) -> ByteArray:
        """Weights as ggml's file quantiser packs them: (R, K) float32, (K,) importances -> (R, bytes)."""
        rows = np.ascontiguousarray(rows, np.float32)
        column = None if importance is None else np.ascontiguousarray(importance, np.float32)
        self.base.ggml_quantize_init(TYPES[kind])
        out = np.zeros((len(rows), self.row_bytes(kind, rows.shape[1])), np.uint8)
        i64 = ctypes.c_int64
        written = self.base.ggml_quantize_chunk(
            TYPES[kind], ctypes.c_void_p(rows.ctypes.data), ctypes.c_void_p(out.ctypes.data), i64(0),
            i64(len(rows)), i64(rows.shape[1]), None if column is None else ctypes.c_void_p(column.ctypes.data),
        )  # fmt: skip
        if written != out.nbytes:
            raise RuntimeError(f"ggml_quantize_chunk wrote {written} of {out.nbytes} bytes of {kind}")
        return out

    def round_activations(self, kind: str, rows: FloatArray) -> ByteArray:
        """Activations as the CPU backend's from_float packs them: (R, K) float32 -> (R, bytes)."""
        rows = np.ascontiguousarray(rows, np.float32)
        if kind == "F32":
            return rows.view(np.uint8)
        out = np.zeros((len(rows), self.row_bytes(kind, rows.shape[1])), np.uint8)
        from_float = self.cpu.ggml_get_type_traits_cpu(TYPES[kind]).contents.from_float
        for row, packed in zip(rows, out, strict=True):
            from_float(row.ctypes.data, packed.ctypes.data, len(row))
        return out

    def dequantize(self, kind: str, rows: ByteArray) -> FloatArray:
        """to_float of ggml's base library: (R, bytes) -> (R, K)."""
        traits = self.base.ggml_get_type_traits(TYPES[kind]).contents
        n = rows.shape[1] // traits.type_size * traits.blck_size
        out = np.zeros((len(rows), n), np.float32)
        for packed, row in zip(np.ascontiguousarray(rows), out, strict=True):
            traits.to_float(packed.ctypes.data, row.ctypes.data, n)
        return out

    def dots(self, kind: str, weights: ByteArray, activations: ByteArray, n: int) -> FloatArray:
        """vec_dot of every activation row (already rounded) with every weight row: float32 (X, R)."""
        vec_dot = self.cpu.ggml_get_type_traits_cpu(TYPES[kind]).contents.vec_dot
        out = np.zeros((len(activations), len(weights)), np.float32)
        for i, x in enumerate(activations):
            for j, w in enumerate(weights):
                vec_dot(n, out[i:, j:].ctypes.data, 0, w.ctypes.data, 0, x.ctypes.data, 0, 1)
        return out

    def compute(
        self, inputs: list[npt.NDArray[Any] | None], build: Callable[[ctypes.CDLL, int, list[Any]], int]
    ) -> FloatArray:
        """Run one operation on one thread: build(library, context, input tensors) returns the result tensor."""
        context = self.base.ggml_init(_InitParams(_GRAPH_BYTES, None, False))
        handle = ctypes.c_void_p(context)
        try:
            tensors = [None if x is None else self._tensor(handle, x) for x in inputs]
            result = ctypes.c_void_p(build(self.base, handle, tensors))
            graph = ctypes.c_void_p(self.base.ggml_new_graph(handle))
            self.base.ggml_build_forward_expand(graph, result)
            status = self.cpu.ggml_graph_compute_with_ctx(handle, graph, 1)
            if status != 0:
                raise RuntimeError(f"ggml_graph_compute_with_ctx returned {status}")
            return tensor_array(GGMLTensor.from_address(result.value)).astype(np.float32)
        finally:
            self.base.ggml_free(handle)

    def _tensor(self, context: ctypes.c_void_p, array: npt.NDArray[Any]) -> ctypes.c_void_p:
        kind = {"float32": TYPES["F32"], "float16": TYPES["F16"], "int32": 26}[array.dtype.name]
        ne = (ctypes.c_int64 * array.ndim)(*reversed(array.shape))
        pointer = ctypes.c_void_p(self.base.ggml_new_tensor(context, kind, array.ndim, ne))
        data = np.ascontiguousarray(array)
        ctypes.memmove(GGMLTensor.from_address(pointer.value).data, data.ctypes.data, data.nbytes)
        return pointer


def as_float(value: float) -> ctypes.c_float:
    if math.isnan(value):
        raise ValueError("a parameter of an operation is NaN")
    return ctypes.c_float(value)
