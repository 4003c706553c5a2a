"""Bytes on disk: the GGUF container, read over mmap and written as a stream; no idea of what a model is."""

from ref_engine.files.gguf import GGUFFile, open_gguf
from ref_engine.files.header import TensorInfo
from ref_engine.files.types import BLOCK, ArrayType, GGMLType, GGUFValueType, ValueType, row_bytes
from ref_engine.files.writer import write_gguf

__all__ = [
    "BLOCK",
    "ArrayType",
    "GGMLType",
    "GGUFFile",
    "GGUFValueType",
    "TensorInfo",
    "ValueType",
    "open_gguf",
    "row_bytes",
    "write_gguf",
]
