"""Computing an importance matrix: run a text through a model, and square what enters each matrix.

The inputs are seen where all matrix products pass: a backend is a value (`ops.py`), and `watched` wraps it in one that
notes them and computes the same. Text, names and counts are llama-imatrix's: consecutive chunks of n_ctx tokens, each
from an empty cache and with BOS in place of its first token where the vocabulary adds one; what is left over is not
used. Sums are kept in float64 (llama-imatrix: float32, token by token, which loses some digits on long texts).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ref_engine.errors import ModelError, RefEngineError
from ref_engine.imatrix.matrix import Entry, ImportanceMatrix, whole_chunks
from ref_engine.model import Model
from ref_engine.ops import Ops
from ref_engine.place import to_host
from ref_engine.reference.linear import Map
from ref_engine.reference.moe import moe_ffn
from ref_engine.reference.sums import F32
from ref_engine.weights import Weight

F64 = NDArray[np.float64]
_OF_STACK = re.compile(r"(.+)\[(\d+)\]", re.DOTALL)  # the name that Weight.expert gives
# What a gate of the shared expert reads is what the expert reads; the gate is a vector and passes no matrix product.
_SHARED_GATE, _SHARED_EXPERT = "ffn_gate_inp_shexp.weight", "ffn_up_shexp.weight"


class Sums:
    """Sums of squares by weight name, of each matrix of a stack, and how many inputs were seen."""

    def __init__(self, wanted: Callable[[str], bool], shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._wanted, self._shapes = wanted, shapes
        self._sums: dict[str, F64] = {}
        self._counts: dict[str, NDArray[np.int64]] = {}
        self._by_expert: set[str] = set()

    def add(self, x: F32, weights: Sequence[Weight], by_expert: bool = False) -> None:
        """x (..., columns): what entered these weights. by_expert: experts of a stack, which count for themselves."""
        squares: F64 | None = None
        for weight in weights:
            name, index = self._place(weight.name)
            if not self._wanted(name):
                continue
            rows = to_host(x).reshape(-1, x.shape[-1])
            if squares is None:
                squares = np.einsum("tk,tk->k", rows, rows, dtype=np.float64)
            if name not in self._sums:
                stacked = self._shapes[name][:-2]
                n = int(np.prod(stacked, dtype=np.int64))
                self._sums[name] = np.zeros((n, x.shape[-1]))
                self._counts[name] = np.zeros(n, np.int64)
            self._sums[name][index] += squares
            self._counts[name][index] += len(rows)
            if by_expert:
                self._by_expert.add(name)

    def _place(self, name: str) -> tuple[str, int]:
        """`blk.0.ffn_up_exps.weight[3]` -> the stack's name and 3."""
        match = None if name in self._shapes else _OF_STACK.fullmatch(name)
        return (match[1], int(match[2])) if match and match[1] in self._shapes else (name, 0)

    def entries(self) -> dict[str, Entry]:
        """Raises ModelError for an input that was not finite."""
        found = {}
        for name, sums in self._sums.items():
            with np.errstate(over="ignore"):
                flat = sums.astype(np.float32).reshape(-1)
            if not np.isfinite(flat).all():
                raise ModelError(f"tensor {name}: what enters it is not finite, or its squares are no float32")
            counts = self._counts[name] if name in self._by_expert else self._counts[name][:1]
            found[name] = Entry(flat, counts.copy())
        for name in self._shapes:
            twin = name.replace(_SHARED_GATE, _SHARED_EXPERT)
            if twin != name and twin in found:
                found[name] = found[twin]
        return found


def watched(ops: Ops, sums: Sums) -> Ops:
    """The same backend, telling `sums` what enters each matrix. Experts run as the readable composition."""

    def linear(x: F32, weight: Weight, bias: F32 | None = None, *, by_expert: bool = False) -> F32:
        sums.add(x, [weight], by_expert)
        return ops.linear(x, weight, bias)

    def linears(x: F32, maps: Sequence[Map]) -> list[F32]:
        sums.add(x, [weight for weight, _ in maps])
        return ops.linears(x, maps)

    experts = partial(moe_ffn, linear=partial(linear, by_expert=True), glu=ops.glu)
    return replace(ops.composed(), linear=linear, linears=linears, moe_ffn=experts)


@contextmanager
def watching(model: Model, sums: Sums) -> Iterator[None]:
    """While open, the model's backend tells `sums`."""
    with model.computing(partial(watched, sums=sums)):
        yield


def chunks_of(
    ids: Sequence[int], n_ctx: int, bos: int | None, skip: int = 0, most: int | None = None
) -> list[list[int]]:
    """Whole chunks of n_ctx ids; BOS, if there is one, takes the place of the first. Raises RefEngineError for none."""
    whole = len(ids) // n_ctx
    last = whole if most is None else min(whole, skip + most)
    if last <= skip:
        raise RefEngineError(f"the text has {len(ids)} tokens, and chunk {skip + 1} of {n_ctx} would end after them")
    parts = [list(ids[i * n_ctx : (i + 1) * n_ctx]) for i in range(skip, last)]
    return [part if bos is None else [bos, *part[1:]] for part in parts]


def collect(
    model: Model,
    chunks: Sequence[Sequence[int]],
    *,
    dataset: str = "",
    process_output: bool = False,
    advance: Callable[[int], None] = lambda n: None,
) -> ImportanceMatrix:
    """The importance matrix of a model over chunks of one length.

    dataset: the text's name, for the file. process_output: of `output.weight`, too, where it is a matrix of its own.
    advance: called with a number of tokens after each chunk. Raises ModelError where inputs are not finite.
    """

    def wanted(name: str) -> bool:
        return name.startswith("blk.") or (process_output and name == "output.weight")

    sums = Sums(wanted, {name: weight.shape for name, weight in model.weights.items()})
    run = model.logits if process_output else model.embeddings
    with watching(model, sums):
        for chunk in chunks:
            run(chunk)
            advance(len(chunk))
    entries = sums.entries()
    n_ctx = len(chunks[0])
    return ImportanceMatrix(entries, [dataset] if dataset else [], whole_chunks(entries, n_ctx), n_ctx)
