"""How likely each token of a text was, and what else could have stood there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ref_engine.errors import RefEngineError
from ref_engine.model import Model
from ref_engine.views.passes import PIECE, Steps, finished, passes
from ref_engine.views.ranking import Ranked, ranked, stacked

_LOGITS = 8_000_000  # numbers of a piece: 32 MB


@dataclass(frozen=True)
class TokenView:
    """ids (T,). Row t of `after` is the distribution after token t: what token t + 1 was drawn from.

    Its `logprob` and `rank` are those of token t + 1; the last row has none.
    """

    ids: tuple[int, ...]
    after: Ranked


def tokens_steps(model: Model, ids: Sequence[int], top: int = 5) -> Steps[TokenView]:
    """Raises RefEngineError, for a model that sees later tokens too: there, no token is drawn after the others."""
    if not model.spec.causal:
        raise RefEngineError("this model sees the whole text at once: no token of it was drawn after those before")
    known, parts = model.checked_ids(ids).tolist(), []
    most = min(PIECE, max(1, _LOGITS // model.spec.n_vocab))
    for piece in passes(model, known, logits=True, most=most):
        assert piece.logits is not None
        following = [known[t + 1] if t + 1 < len(known) else None for t in range(piece.start, piece.stop)]
        parts.append(ranked(piece.logits, top, following))
        yield
    return TokenView(tuple(known), stacked(parts))


def tokens(model: Model, ids: Sequence[int], top: int = 5) -> TokenView:
    """ids (T,): a text. top: alternatives to name."""
    return finished(tokens_steps(model, ids, top))
