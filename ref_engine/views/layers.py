"""The logit lens: what each layer would say if it were the last one (nostalgebraist 2020).

The stream that leaves a layer goes through the model's own final norm, output matrix, scale and soft cap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ref_engine.errors import RefEngineError
from ref_engine.model import Model
from ref_engine.reference.sums import F32
from ref_engine.views.passes import Steps, finished, passes, shown_name, window
from ref_engine.views.ranking import Ranked, ranked, stacked

_ROWS = 16  # tokens whose streams are kept at once
_LOGITS = 8_000_000  # numbers of logits at once: 32 MB


@dataclass(frozen=True)
class LogitLens:
    """Distributions after each layer, and the model's own.

    ids (T,): the tokens of the positions start .. start + T - 1. layers: whose streams could be read.
    rows: one for each of `layers`, each of T distributions, and a last one: the model's output. `logprob` and `rank`
    are those of the token that came next.
    """

    start: int
    ids: tuple[int, ...]
    layers: tuple[int, ...]
    rows: tuple[Ranked, ...]


def layers_steps(
    model: Model, ids: Sequence[int], top: int = 5, start: int | None = None, stop: int | None = None
) -> Steps[LogitLens]:
    """As `layers`. Raises RefEngineError where no layer shows what leaves it."""
    known = model.checked_ids(ids).tolist()
    first, last = window(len(known), start, stop)
    names = {i: shown_name(layer, i, "l_out") for i, layer in enumerate(model.spec.layers)}
    shown = {i: name for i, name in names.items() if name is not None}
    following = [*known[1:], None] if model.spec.causal else [None] * len(known)
    parts: list[list[Ranked]] = [[] for _ in range(len(shown) + 1)]
    for piece in passes(
        model, known if not model.spec.causal else known[:last], shown.values(), logits=True, most=_ROWS
    ):
        yield
        begin, end = max(first, piece.start), min(last, piece.stop)
        if begin >= end:
            continue
        rows, given = slice(begin - piece.start, end - piece.start), following[begin:end]
        for part, name in zip(parts, shown.values(), strict=False):
            if name not in piece.seen:
                raise RefEngineError(f"this model does not show {name}, the stream that leaves a layer")
            part.append(_read(model, piece.seen[name][rows], top, given))
            yield
        assert piece.logits is not None
        parts[-1].append(ranked(piece.logits[rows], top, given))
    return LogitLens(first, tuple(known[first:last]), tuple(shown), tuple(stacked(part) for part in parts))


def _read(model: Model, x: F32, top: int, given: Sequence[int | None]) -> Ranked:
    """Streams (n, D) or (n, N, D) to distributions, as many logits at once as memory should hold."""
    most = max(1, _LOGITS // model.spec.n_vocab)
    with model.ops.scope():
        states = model.normalised(x)
        return stacked(
            [ranked(model.head(states[i : i + most]), top, given[i : i + most]) for i in range(0, len(states), most)]
        )


def layers(
    model: Model, ids: Sequence[int], top: int = 5, start: int | None = None, stop: int | None = None
) -> LogitLens:
    """ids (T,): a text. top: tokens to name. start, stop: the positions wanted; none after them is computed."""
    return finished(layers_steps(model, ids, top, start, stop))
