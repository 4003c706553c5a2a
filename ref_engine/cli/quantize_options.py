"""What the commands about quantising read from their arguments: types, patterns, metadata, layers."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ref_engine.expert_types import ExpertWish
    from ref_engine.files import GGMLType
    from ref_engine.imatrix import ImportanceMatrix
    from ref_engine.kernels.quantisers import Backend, Quantize
    from ref_engine.quantize_plan import Override

Pattern = tuple[re.Pattern[str], "GGMLType"]
_PATTERNS = "ref_engine.quantize.patterns"


def tensor_type(name: str | None) -> GGMLType | None:
    """The tensor type of this name, in any case."""
    from ref_engine.files import GGMLType
    from ref_engine.quant.quantize import can_quantize

    if name is None:
        return None
    found = GGMLType.__members__.get(name.upper())
    if found is None or not can_quantize(found):
        known = ", ".join(t.name for t in GGMLType if can_quantize(t))
        raise click.UsageError(f"{name[:50]!r} is not a type to quantise to (known: {known})")
    return found


def quantiser_of(backend: Backend | None, n_threads: int | None) -> Quantize:
    """What packs rows; says so once where it is slow because nothing was compiled."""
    from ref_engine.compat import why_no_quantisers
    from ref_engine.kernels.quantisers import quantiser

    if backend is None and why_no_quantisers:
        click.echo(f"quantising in NumPy, which is slow: {why_no_quantisers}", err=True)
    return quantiser(backend, n_threads)


def expert_type(name: str) -> ExpertWish:
    """auto, same or a tensor type."""
    lower = name.lower()
    if lower == "auto" or lower == "same":
        return "auto" if lower == "auto" else "same"
    found = tensor_type(name)
    assert found is not None
    return found


def add_patterns(ctx: click.Context, param: click.Parameter, given: Sequence[str] | str | None) -> None:
    """--tensor-type and --tensor-type-file: the one that comes first on the command line comes first."""
    listed = _text(given).split() if isinstance(given, str) else given or ()
    ctx.meta.setdefault(_PATTERNS, []).extend(_pattern(text) for text in listed)


def patterns(ctx: click.Context) -> tuple[Pattern, ...]:
    return tuple(ctx.meta.get(_PATTERNS, ()))


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"--tensor-type-file {path}: {getattr(error, 'strerror', None) or error}") from error


def _pattern(text: str) -> Pattern:
    pattern, _, name = text.partition("=")
    found = tensor_type(name) if pattern and name else None
    if found is None:
        raise click.UsageError(f"--tensor-type {text[:80]!r}: expected PATTERN=TYPE, such as attn_v=Q6_K")
    try:
        return re.compile(pattern.lower()), found
    except re.error as error:
        raise click.UsageError(f"--tensor-type {text[:80]!r}: {error}") from error


def override(text: str) -> Override:
    """KEY=int:N, float:X, bool:true|false or str:TEXT."""
    from ref_engine.files.types import GGUFValueType
    from ref_engine.quantize_plan import Override

    key, _, typed = text.partition("=")
    kind, _, value = typed.partition(":")
    try:
        if key and kind == "int" and abs(int(value)) < 1 << 32:  # stored without its sign, as llama.cpp does
            return Override(key, abs(int(value)), GGUFValueType.UINT32)
        if key and kind == "float" and math.isfinite(float(value)):
            return Override(key, float(value), GGUFValueType.FLOAT32)
        if key and kind == "bool" and value in ("true", "false"):
            return Override(key, value == "true", GGUFValueType.BOOL)
        if key and kind == "str" and len(value.encode("utf-8", "surrogateescape")) < 128:
            return Override(key, value, GGUFValueType.STRING)
    except ValueError:
        pass
    expected = "KEY=int:N, float:X, bool:true, bool:false or str:TEXT of at most 127 bytes"
    raise click.UsageError(f"--override-kv {text[:80]!r}: expected {expected}")


def layers(text: str | None) -> frozenset[int]:
    """`3,4,5`"""
    items = [] if text is None else text.split(",")
    for item in items:
        if not re.fullmatch(r"\s*[0-9]{1,6}\s*", item):
            raise click.UsageError(
                f"--prune-layers: {item[:50]!r} is not the number of a layer; expected such as 3,4,5"
            )
    return frozenset(int(item) for item in items)


def importance(file: str | None, include: Sequence[str], exclude: Sequence[str]) -> ImportanceMatrix | None:
    """The importance matrix in a file, without what is not asked for."""
    from ref_engine.imatrix import read_imatrix

    if include and exclude:
        raise click.UsageError("--include-weights and --exclude-weights cannot be used together")
    if file is None:
        if include or exclude:
            raise click.UsageError("--include-weights and --exclude-weights choose from an --imatrix")
        return None
    return read_imatrix(file).chosen(include, exclude)
