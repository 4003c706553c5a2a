"""The way out of a text that has grown too long: tokens that complete it, few of them.

A small model can write one string for ever. Where its text must obey a grammar, a text that is cut off obeys nothing;
so when the tokens run out, what is still open is closed the shortest way that is easily found.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ref_engine.text.tokenizer.base import Tokenizer

if TYPE_CHECKING:
    from ref_engine.text.grammar.constraint import GrammarConstraint

MOST = 400  # tokens of a way that is looked for at all
_FREE = 0.2  # share of the vocabulary above which a text can say anything: the inside of a string
_CLOSING = (b"}", b"]", b")", b'"', b">")
_NEXT = (b",", b":", b"@", b"a", b".", b"0", b"1", b"n", b"null", b"t", b"true", b"false", b"-", b"2", b" ", b"[", b"{")


def way_out(state: GrammarConstraint, tokenizer: Tokenizer, most: int, endings: Sequence[bytes]) -> list[int] | None:
    """Tokens that lead from this state to where the text may end; None where no more than `most` of them do.

    Greedy: it closes what it can, and says as little as it must where something is required. `state` is changed.
    endings: what closes a value, besides a quotation mark.
    """
    way: list[int] = []
    closing, filling = _ids(tokenizer, _CLOSING), _ids(tokenizer, _NEXT)
    used: Counter[int] = Counter()  # what has been used least comes next: an address needs its @ and its dot
    while not state.is_accepting:
        mask = state.mask()
        free = _is_free(mask)
        ways = (_ending(state, tokenizer, ending) for ending in ((*endings, b'"') if free else endings))
        step = next((tokens for tokens in ways if tokens), None)
        if step is None:
            known = [id for id in closing if mask[id] and not free][:1] or [id for id in filling if mask[id]]
            step = [min(known, key=lambda id: used[id]) if known else _shortest(mask, tokenizer)]
            used.update(step)
        way += step
        if len(way) > min(most, MOST):
            return None
        for token in step:
            state.accept(token)
    return way


def _ids(tokenizer: Tokenizer, pieces: Sequence[bytes]) -> list[int]:
    found = [tokenizer.trie.tokenize_bytes(piece) for piece in pieces]
    return [tokens[0] for tokens in found if len(tokens) == 1]


def _is_free(mask: npt.NDArray[np.bool_]) -> bool:
    return int(np.count_nonzero(mask)) > _FREE * mask.size


def _ending(state: GrammarConstraint, tokenizer: Tokenizer, ending: bytes) -> list[int] | None:
    """Tokens that begin with these bytes, if they may come and no free text follows them.

    The last token may reach further: where the grammar leaves no choice, only the usual tokens of a text are allowed.
    """
    trial, tokens, rest = state.copy(), list[int](), ending
    while rest:
        mask = trial.mask()
        token = tokenizer.trie.tokenize_bytes(rest)[0]
        if not mask[token]:
            allowed: list[int] = np.flatnonzero(mask)[:64].tolist()
            fitting = (id for id in allowed if _overlap(tokenizer.token_bytes(id), rest))
            if (found := next(fitting, None)) is None:
                return None
            token = found
        trial.accept(token)
        tokens.append(token)
        rest = rest[len(tokenizer.token_bytes(token)) :]
    return tokens if trial.is_accepting or not _is_free(trial.mask()) else None


def _overlap(a: bytes, b: bytes) -> bool:
    return a.startswith(b) or (a != b"" and b.startswith(a))


def _shortest(mask: npt.NDArray[np.bool_], tokenizer: Tokenizer) -> int:
    allowed: list[int] = np.flatnonzero(mask)[:2000].tolist()
    return min(allowed, key=lambda id: len(tokenizer.token_bytes(id)))
