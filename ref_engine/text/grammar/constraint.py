"""A compiled grammar, which any number of texts may share, and its state in one text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ref_engine.compat import llguidance
from ref_engine.errors import GrammarError
from ref_engine.text.grammar.closing import way_out
from ref_engine.text.tokenizer.base import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher

MAX_MESSAGE = 200  # characters of llguidance's own words in an error


class Grammar:
    """A grammar that has been found sound, over one vocabulary. Immutable, and safe to share between threads."""

    def __init__(self, source: str, tokenizer: Tokenizer, what: str = "grammar", endings: Sequence[str] = ()) -> None:
        """source: what LLMatcher's grammar_from_* give; `what` names it in errors; endings: see `way_out`.

        Raises GrammarError, one line, for a grammar that does not parse, cannot be met, or is too large.
        """
        trie = tokenizer.trie
        self.tokenizer = tokenizer
        self.what = what
        self.endings = tuple(ending.encode() for ending in endings)
        self._matcher = llguidance.LLMatcher(trie, source, log_level=0)
        _check(self._matcher, what)
        self.constraint().mask()  # some grammars show only now that no text fits them

    def constraint(self) -> GrammarConstraint:
        """The state before the first token of a new text."""
        return GrammarConstraint(self._matcher.deep_copy(), self.tokenizer, self.what, self.endings)


class GrammarConstraint:
    """The state of one text. For one thread at a time."""

    def __init__(self, matcher: LLMatcher, tokenizer: Tokenizer, what: str, endings: tuple[bytes, ...] = ()) -> None:
        self._endings = endings
        self._matcher = matcher
        self._tokenizer = tokenizer
        self._what = what
        self._mask: npt.NDArray[np.bool_] | None = None

    def mask(self) -> npt.NDArray[np.bool_]:
        """Which tokens may come next, (V,), at least one; end-of-generation tokens exactly where the text may end.

        Raises GrammarError where the grammar turns out to be too hard, or to lead nowhere.
        """
        if self._mask is None:
            packed = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
            _check(self._matcher, self._what)
            n_vocab = self._tokenizer.n_vocab
            mask = np.unpackbits(packed, count=n_vocab, bitorder="little").view(np.bool_)
            if not mask.any():
                raise GrammarError(f"{self._what}: no token of this vocabulary can go on with the text")
            self._mask = mask
        return self._mask

    def allows(self, token: int) -> bool:
        """Whether the token may come next. A few microseconds, where a mask takes up to milliseconds.

        Raises GrammarError where the grammar turns out to be too hard.
        """
        allowed: int = self._matcher.validate_tokens([self._tokenizer.check_id(token)])
        _check(self._matcher, self._what)
        return allowed == 1

    def accept(self, token: int) -> None:
        """The token has been chosen. Raises GrammarError for one that is not allowed here."""
        self._mask = None
        if not self._matcher.consume_token(self._tokenizer.check_id(token)):
            piece = self._tokenizer.token_bytes(token).decode(errors="replace")
            raise GrammarError(f"{self._what}: token {token} ({piece!r}) is not allowed here")

    def copy(self) -> GrammarConstraint:
        """The same state, which then goes its own way."""
        return GrammarConstraint(self._matcher.deep_copy(), self._tokenizer, self._what, self._endings)

    def way_out(self, most: int, after: int | None = None) -> list[int] | None:
        """At most so many tokens that complete the text, from here or from behind the token `after`; None for no way.

        The way is short, not the shortest; the state stays as it is. See closing.py.
        """
        state = self.copy()
        if after is not None:
            state.accept(after)
        return way_out(state, self._tokenizer, most, self._endings)

    @property
    def is_accepting(self) -> bool:
        """Whether the text may end here."""
        return self._matcher.is_accepting()

    @property
    def is_complete(self) -> bool:
        """Whether the text may end here, and nothing else may follow."""
        return self._matcher.is_stopped() and not self._matcher.is_error()


def _check(matcher: LLMatcher, what: str) -> None:
    if matcher.is_error():
        raise GrammarError(f"{what}: {one_line(matcher.get_error())}")


def one_line(message: str) -> str:
    """llguidance's message without its dump of the parser's state, in one line of bounded length."""
    text = " ".join(message.partition("<state>")[0].split())
    if text in ("", "NoExtension", "NoExtensionBias"):
        return "no token of this vocabulary can go on with the text"
    return text if len(text) <= MAX_MESSAGE else text[:MAX_MESSAGE] + "..."
