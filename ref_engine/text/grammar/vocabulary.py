"""A vocabulary as llguidance takes it: the bytes of every token, which of them are special, which end a text."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from ref_engine.compat import llguidance
from ref_engine.errors import GrammarError
from ref_engine.text.tokenizer.base import Tokenizer
from ref_engine.text.tokenizer.special import CONTROL, UNKNOWN, UNUSED

if TYPE_CHECKING:
    from llguidance import LLTokenizer


class _Tokens:
    """What llguidance reads of a tokenizer (the attributes of its TokenizerWrapper)."""

    def __init__(self, tokenizer: Tokenizer, eos: int) -> None:
        attrs = tokenizer.vocab.attrs
        ids = range(tokenizer.n_vocab)
        self.eos_token_id = eos
        self.bos_token_id = tokenizer.vocab.bos_id
        # a token without bytes is never allowed; so are those that a model was never shown
        self.tokens = [b"" if attrs[i] & UNUSED else _text(tokenizer.token_bytes(i)) for i in ids]
        self.special_token_ids = [i for i in ids if attrs[i] & (CONTROL | UNKNOWN)]
        self._encode = tokenizer.encode_fragment

    def __call__(self, text: str | bytes) -> list[int]:
        """The tokens of a text that the grammar leaves no choice about, as the model would have it cut.

        llguidance needs tokens whose bytes are exactly the text's; a tokenizer that normalises has others, and then
        the longest tokens do, from left to right.
        """
        raw = text if isinstance(text, bytes) else text.encode(errors="replace")
        plain = raw.decode(errors="replace")
        ids = self._encode(plain, False) if plain else []
        return ids if b"".join(self.tokens[id] for id in ids) == raw else self._longest(raw)

    def _longest(self, raw: bytes) -> list[int]:
        ids, at = [], 0
        while at < len(raw):
            ends = range(min(len(raw), at + self._max_length), at, -1)
            end = next((end for end in ends if raw[at:end] in self._by_bytes), None)
            if end is None:
                break  # no token spells the rest; llguidance takes what there is
            ids.append(self._by_bytes[raw[at:end]])
            at = end
        return ids

    @cached_property
    def _by_bytes(self) -> dict[bytes, int]:
        special = set(self.special_token_ids)
        return {piece: id for id, piece in enumerate(self.tokens) if piece and id not in special}

    @cached_property
    def _max_length(self) -> int:
        return max(map(len, self._by_bytes), default=0)


def token_trie(tokenizer: Tokenizer) -> LLTokenizer:
    """The trie of all tokens, 0.3 s for 49,000 of them and 2 s for 262,000: see `Tokenizer.trie`, which keeps it.

    Text matches the bytes of normal, byte and user-defined tokens, however it falls into them; control tokens match
    nothing but their own name. Raises GrammarError where llguidance is not installed, and for a vocabulary in which
    nothing ends a text.
    """
    if llguidance is None:
        raise GrammarError("grammars and JSON schemas need llguidance: pip install 'ref-engine[server]'")
    ends = sorted(tokenizer.vocab.eog_ids)
    if not ends:
        raise GrammarError("the vocabulary has no end-of-generation token, so no grammar could end a text")
    first = tokenizer.vocab.eos_id if tokenizer.vocab.eos_id in tokenizer.vocab.eog_ids else ends[0]
    wrapper = llguidance.TokenizerWrapper(_Tokens(tokenizer, first))
    return llguidance.LLTokenizer(wrapper, n_vocab=tokenizer.n_vocab, eos_token=ends)


def _text(piece: bytes) -> bytes:
    """llguidance takes a token that begins with the byte 255, which no UTF-8 has, for a special one."""
    return b"" if piece.startswith(b"\xff") else piece
