"""Attention maps: how much each token, in each head of a layer, takes from the tokens before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ref_engine.errors import RefEngineError
from ref_engine.model import Model
from ref_engine.ops import Ops
from ref_engine.place import to_host
from ref_engine.reference.attention import Tap
from ref_engine.reference.sums import F32
from ref_engine.spec import AttentionSpec, CompressedAttentionSpec, LatentAttentionSpec, LayerSpec, ModelSpec
from ref_engine.views.passes import Steps, finished, parts_of, passes, window


@dataclass(frozen=True)
class AttentionMaps:
    """maps (heads, Q, S) float32: softmax(q k) of a layer, the largest value of each square of positions.

    heads: their numbers. queries (Q,), keys (S,): the first position of each row and column. n_queries, n_keys: how
    many positions they stand for. sinks: the heads may give weight to no token, so a row may sum to less than 1.
    """

    layer: int
    heads: tuple[int, ...]
    maps: F32
    queries: NDArray[np.int64]
    keys: NDArray[np.int64]
    n_queries: int
    n_keys: int
    sinks: bool

    @property
    def downsampled(self) -> bool:
        return self.maps.shape[1:] != (self.n_queries, self.n_keys)


def n_heads(layer: LayerSpec) -> int:
    """Heads whose attention is a map of tokens to tokens; 0 for a layer without any.

    None have recurrent layers, convolutions, and attention to compressed groups of tokens.
    """
    for part in parts_of(layer):
        if isinstance(part, AttentionSpec | LatentAttentionSpec):
            return part.n_head
        if isinstance(part, CompressedAttentionSpec) and part.compressor is None:
            return part.n_head
    return 0


def layers_with_attention(spec: ModelSpec) -> tuple[int, ...]:
    return tuple(i for i, layer in enumerate(spec.layers) if n_heads(layer))


def attention_steps(
    model: Model,
    ids: Sequence[int],
    layer: int,
    head: int | None = None,
    size: int | None = None,
    start: int | None = None,
    stop: int | None = None,
) -> Steps[AttentionMaps]:
    """As `attention`."""
    heads = _checked(model.spec, layer, head)
    known = model.checked_ids(ids).tolist()
    first, last = window(len(known), start, stop)
    n_keys = last if model.spec.causal else len(known)
    side = max(last - first, n_keys) if size is None else size
    queries, keys = starts(last - first, side), starts(n_keys, side)
    maps = np.zeros((len(heads), queries.size, keys.size), np.float32)
    sinks = f"blk.{_blk(model.spec, layer)}.attn_sinks.weight" in model.weights
    look = _Look(sum(_attends(other) for other in model.spec.layers[:layer]))
    for piece in passes(model, known[:last] if model.spec.causal else known, change=look.change):
        yield
        begin, end = max(first, piece.start), min(last, piece.stop)
        p = look.take()
        if begin < end:
            p = p[list(heads), begin - piece.start : end - piece.start]
            wide = np.zeros((*p.shape[:2], n_keys), np.float32)  # keys of later pieces get nothing
            wide[..., : p.shape[-1]] = p
            by_key = np.maximum.reduceat(wide, keys, axis=-1)
            rows = np.searchsorted(queries, np.arange(begin, end) - first, side="right") - 1
            for t, row in enumerate(rows):
                np.maximum(maps[:, row], by_key[:, t], out=maps[:, row])
    return AttentionMaps(layer, heads, maps, queries + first, keys, last - first, n_keys, sinks)


def attention(
    model: Model,
    ids: Sequence[int],
    layer: int,
    head: int | None = None,
    size: int | None = None,
    start: int | None = None,
    stop: int | None = None,
) -> AttentionMaps:
    """The maps of one head of a layer, or of all.

    ids (T,): a text. start, stop: the tokens that look; they are shown with all they can see. size: rows and columns
    at most, each the largest value of several positions; None: every position has its own.
    Raises RefEngineError for a layer that has no maps, naming those that have.
    """
    return finished(attention_steps(model, ids, layer, head, size, start, stop))


def starts(n: int, most: int) -> NDArray[np.int64]:
    """Where each of at most `most` parts of n positions begins, all parts as equal as they can be."""
    if most < 1:
        raise RefEngineError(f"a map has at least one row, not {most}")
    m = min(n, most)
    return np.arange(m, dtype=np.int64) * n // m


class _Look:
    """Operations of which one call of `attend` shows its softmax; the others, fused where they are, go as ever."""

    def __init__(self, call: int) -> None:
        """call: which of a pass, the first being 0."""
        self._call = call
        self._calls = 0
        self._seen: F32 | None = None

    def change(self, ops: Ops) -> Ops:
        def spied(*args: Any, tap: Tap | None, **more: Any) -> F32:
            self._calls += 1
            return ops.attend(*args, tap=self._show if self._calls == self._call + 1 else tap, **more)

        return replace(ops.composed(), attend=spied)

    def _show(self, name: str, value: F32) -> F32:
        if name == "kq_soft_max":
            self._seen = to_host(value)
        return value

    def take(self) -> F32:
        """What the pass has shown (H, T, S); then it is ready for the next one."""
        seen, self._seen, self._calls = self._seen, None, 0
        if seen is None:
            raise RefEngineError("this model does not show its attention")
        return seen


def _attends(layer: LayerSpec) -> int:
    """How often a layer calls `attend` in a pass over one sequence."""
    kinds = AttentionSpec | LatentAttentionSpec | CompressedAttentionSpec
    return sum(isinstance(part, kinds) for part in parts_of(layer))


def _checked(spec: ModelSpec, layer: int, head: int | None) -> tuple[int, ...]:
    """The numbers of the heads that are wanted."""
    have = layers_with_attention(spec)
    if not 0 <= layer < spec.n_layer:
        raise RefEngineError(f"there is no layer {layer}: this model has {spec.n_layer}")
    if layer not in have:
        others = f"layers {', '.join(map(str, have))} have" if have else "no layer of this model has"
        raise RefEngineError(f"layer {layer} has no attention map; {others}{'' if have else ' one'}")
    n = n_heads(spec.layers[layer])
    if head is None:
        return tuple(range(n))
    if not 0 <= head < n:
        raise RefEngineError(f"there is no head {head}: layer {layer} has {n}")
    return (head,)


def _blk(spec: ModelSpec, layer: int) -> int:
    blk = spec.layers[layer].blk
    return layer if blk is None else blk
