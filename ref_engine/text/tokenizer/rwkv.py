"""RWKV "world" tokenizer: at every position the longest token of the vocabulary, over bytes (`rwkv`).

Source of the behaviour: llama.cpp `llm_tokenizer_rwkv`, `llama_unescape_rwkv_token`; the original is
`rwkv_tokenizer.py` of BlinkDL/RWKV-LM.
"""

import re
from collections.abc import Iterable, Mapping

from ref_engine.errors import TokenizerError
from ref_engine.text.tokenizer.base import Tokenizer
from ref_engine.text.tokenizer.lengths import candidate_lengths, lengths_by_head
from ref_engine.text.tokenizer.vocab import Vocab

_ESCAPE = re.compile(rb"\\(x[0-9a-f]{2}|[^x])|\\", re.DOTALL)
_NAMED = {b"t": b"\t", b"n": b"\n", b"r": b"\r"}


def unescape(text: str) -> bytes:
    r"""The bytes that a token's text stands for: `\t \n \r \xhh`, and a backslash before any other character.

    Raises TokenizerError for `\x` without two lower-case hexadecimal digits, and for a backslash at the end.
    """

    def one(match: re.Match[bytes]) -> bytes:
        body: bytes | None = match[1]
        if body is None:
            raise TokenizerError(f"bad escape in a token of the RWKV vocabulary: {text[:80]!r}")
        if len(body) == 3:
            return bytes([int(body[1:], 16)])
        return _NAMED.get(body, body)

    return _ESCAPE.sub(one, text.encode("utf-8", "surrogateescape"))


def longest_matches(
    data: bytes,
    token_to_id: Mapping[bytes, int],
    lengths: Mapping[bytes, tuple[int, ...]],
    unknown_id: int | None,
) -> list[int]:
    """Token ids of `data`, greedily the longest token first; `lengths` is `lengths_by_head(token_to_id)`.

    A byte at which no token matches gives `unknown_id`; raises TokenizerError where that is None.
    (llama.cpp hangs where only longer tokens begin with that byte and none matches.)
    """
    ids: list[int] = []
    at = 0
    while at < len(data):
        for length in candidate_lengths(data, at, lengths):
            id = token_to_id.get(data[at : at + length])
            if id is not None and at + length <= len(data):
                break
        else:
            if unknown_id is None:
                raise TokenizerError(f"no token for byte 0x{data[at]:02X} in the vocabulary, and no unknown token")
            id, length = unknown_id, 1
        ids.append(id)
        at += length
    return ids


class RwkvTokenizer(Tokenizer):
    """The tokenizer of the RWKV "world" models. It adds no token to a text."""

    def __init__(self, vocab: Vocab) -> None:
        """Raises TokenizerError for a token whose text is no valid escape."""
        super().__init__(vocab)
        self._token_to_id = {unescape(text): id for id, text in enumerate(vocab.tokens)}
        self._lengths = lengths_by_head(self._token_to_id)

    @property
    def added_before(self) -> tuple[int | None, ...]:
        return ()

    @property
    def added_after(self) -> tuple[int | None, ...]:
        return ()

    def encode_fragment(self, text: str, after_special: bool) -> list[int]:
        """Ids of plain text. Raises TokenizerError for a byte that has no token, where the model has no
        unknown one.
        """
        return longest_matches(text.encode(), self._token_to_id, self._lengths, self.vocab.unk_id)

    def spell_all(self, tokens: Iterable[tuple[str, int]]) -> Iterable[bytes]:
        return (unescape(text) for text, _ in tokens)
