"""Metadata in the making: GGUF keys, each with its type, held to its range."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ref_engine.errors import ConvertError
from ref_engine.files.cursor import show
from ref_engine.files.types import ArrayType, GGUFValueType, ValueType


class KeyWriter:
    """Collects keys and values in order; a key given twice keeps its place and takes the later value.

    Names without a dot before them ("attention.head_count") stand under the architecture's own name; `full=True` says
    that a name is complete.
    """

    def __init__(self, arch: str, file_type: int) -> None:
        self.arch = arch
        self.file_type = file_type
        self.values: dict[str, Any] = {}
        self.types: dict[str, ValueType] = {}

    def _put(self, name: str, value: Any, kind: ValueType, full: bool) -> None:
        key = name if full else f"{self.arch}.{name}"
        self.values[key], self.types[key] = value, kind

    def _refuse(self, name: str, value: Any, what: str) -> ConvertError:
        return ConvertError(f"config.json gives {name} the value {show(str(value))}, which is not {what}")

    def u32(self, name: str, value: Any, *, full: bool = False) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 32:
            raise self._refuse(name, value, "a whole number that fits")
        self._put(name, value, GGUFValueType.UINT32, full)

    def f32(self, name: str, value: Any, *, full: bool = False) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self._refuse(name, value, "a finite number")
        self._put(name, float(value), GGUFValueType.FLOAT32, full)

    def boolean(self, name: str, value: Any, *, full: bool = False) -> None:
        if not isinstance(value, bool):
            raise self._refuse(name, value, "true or false")
        self._put(name, value, GGUFValueType.BOOL, full)

    def string(self, name: str, value: Any, *, full: bool = False) -> None:
        if not isinstance(value, str | bytes):
            raise self._refuse(name, value, "a text")
        self._put(name, value, GGUFValueType.STRING, full)

    def array(self, name: str, values: Sequence[Any], kind: GGUFValueType, *, full: bool = False) -> None:
        """A list of values of one type; an empty one is left out."""
        if len(values):
            self._put(name, list(values), ArrayType(kind), full)

    def ints(self, name: str, values: Sequence[int], *, full: bool = False) -> None:
        self.array(name, values, GGUFValueType.INT32, full=full)

    def booleans(self, name: str, values: Sequence[bool]) -> None:
        self.array(name, values, GGUFValueType.BOOL)

    def count(self, name: str, value: Any) -> None:
        """One number for all layers, or a list with one for each."""
        if isinstance(value, list):
            if not all(isinstance(v, int) and not isinstance(v, bool) and 0 <= v < 1 << 31 for v in value):
                raise self._refuse(name, value, "a list of whole numbers")
            self.ints(name, value)
        else:
            self.u32(name, value)

    def take(self, name: str, value: Any) -> None:
        """u32 where there is a value."""
        if value is not None:
            self.u32(name, value)

    def finish(self) -> None:
        self.u32("general.file_type", self.file_type, full=True)
