"""PLaMo-2 tokenizer: the best-scored split of the text, found from its end backwards over a table of
suffixes.

The vocabulary becomes an Aho-Corasick automaton over reversed text, laid out as one table. A state is a
suffix of some token (the longest one that the text read so far begins with); its rows list the prefixes of
that suffix which are suffixes of tokens themselves, the longest first, and end with a row that stands for
"one character as bytes".

Source of the behaviour: llama.cpp `llm_tokenizer_plamo2`; the original is `tokenization_plamo.py` of
pfnet/plamo-2-1b.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ref_engine.errors import TokenizerError
from ref_engine.text.tokenizer.base import Tokenizer, utf8
from ref_engine.text.tokenizer.lengths import LONGEST_TOKEN
from ref_engine.text.tokenizer.special import BYTE
from ref_engine.text.tokenizer.vocab import Vocab

_INVALID = -20_000_000  # the score of a suffix that is no token
_UNKNOWN = -10_000_000  # the score of a character that is written as bytes; it also ends the rows of a state
_BYTE_TYPE = 6  # token type of the file
_BYTE_TEXT = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_FAR = 1 << 60  # the cost of a position that nothing reaches
_SUFFIX_CHARACTERS = 10_000_000  # of all suffixes together; PLaMo-2 itself has about 2 million


@dataclass(frozen=True)
class SuffixTable:
    """The automaton. The four columns have one entry per row; a state is the number of its first row.

    next_state: state after reading a character to the left, by (character, state of the row that it extends).
    """

    length: list[int]
    token: list[int]
    score: list[int]
    piece: list[int]
    next_state: dict[tuple[str, int], int]


def fixed_point(score: float) -> int:
    """A token's score in units of 1e-4, rounded half away from zero; an infinite one or NaN bars the token.

    Raises TokenizerError where the result needs more than 32 bits.
    """
    if not math.isfinite(score):
        return _INVALID
    if abs(score) * 1e4 >= 2**31 - 1:
        raise TokenizerError(f"a score of {score} in the PLaMo-2 vocabulary")
    return int(math.copysign(math.floor(abs(score) * 1e4 + 0.5), score))


def build_table(tokens: Sequence[str], scores: Sequence[float], is_byte: Sequence[bool]) -> SuffixTable:
    """The automaton of a vocabulary; all three have one entry per token id. Byte tokens are no part of it.

    Raises TokenizerError if the suffixes of all tokens together would not fit in memory, or for a score out
    of range.
    """
    plain = [(text, score) for text, score, byte in zip(tokens, scores, is_byte, strict=True) if not byte]
    longest = max((len(text) for text, _ in plain), default=0)
    total = sum(len(text) * (len(text) + 1) // 2 for text, _ in plain)
    if longest > LONGEST_TOKEN or total > _SUFFIX_CHARACTERS:
        raise TokenizerError(
            f"the PLaMo-2 vocabulary is too long: a token of {longest} characters, {total} in suffixes"
        )
    value: dict[str, int] = {text[i:]: _INVALID for text, _ in plain for i in range(1, len(text))}
    value.update((text, fixed_point(score)) for text, score in plain)
    token_to_id = {text: id for id, text in enumerate(tokens)}

    # Reversed order puts every suffix behind its own suffixes, so the state that it extends is known already.
    table = SuffixTable([], [], [], [], {})
    state: dict[str, int] = {}
    pieces_of: list[list[str]] = []
    rows = 0
    for suffix in ["", *sorted(value, key=lambda text: text.encode("utf-8", "surrogateescape")[::-1])]:
        state[suffix] = rows
        if suffix:
            table.next_state[suffix[0], state[suffix[1:]]] = rows
        pieces = [suffix[:n] for n in range(len(suffix), 0, -1) if suffix[:n] in value]
        pieces_of.append(pieces)
        rows += len(pieces) + 1
    for pieces in pieces_of:
        for piece in pieces:
            _add_row(table, len(piece), token_to_id.get(piece, -1), value[piece], state[piece])
        _add_row(table, 1, -1, _UNKNOWN, 0)
    return table


def _add_row(table: SuffixTable, length: int, token: int, score: int, piece: int) -> None:
    table.length.append(length)
    table.token.append(token)
    table.score.append(score)
    table.piece.append(piece)


def best_split(text: str, table: SuffixTable, byte_ids: Mapping[int, int]) -> list[int]:
    """Token ids of the split with the highest sum of scores; a character outside the vocabulary becomes its
    bytes.

    One U+FEFF at the start is dropped. Ties go to the longer token. byte_ids: token id of each of the 256
    bytes.
    """
    text = text.removeprefix("\ufeff")
    size = len(text)
    cost = [0] * (size + 1)  # of the best split of text[i:], lower is better
    step = [1] * size  # its first token's length in characters ...
    chosen = [-1] * size  # ... and id, or -1 for bytes
    state = 0
    for i in range(size - 1, -1, -1):
        state = _extend(text[i], state, table)
        best, row = _FAR, state
        while True:
            score, length = table.score[row], table.length[row]
            if score > _INVALID and cost[i + length] - score < best:
                best, step[i], chosen[i] = cost[i + length] - score, length, table.token[row]
            if score == _UNKNOWN:
                break
            row += 1
        cost[i] = best

    ids: list[int] = []
    i = 0
    while i < size:
        if chosen[i] >= 0:
            ids.append(chosen[i])
        else:
            ids.extend(byte_ids[byte] for byte in text[i].encode("utf-8", "surrogatepass"))
        i += step[i]
    return ids


def _extend(character: str, state: int, table: SuffixTable) -> int:
    """The state after one more character to the left: of the longest row of `state` that it extends, else
    0.
    """
    row = state
    while True:
        following = table.next_state.get((character, table.piece[row]), 0)
        if following > 0 or table.score[row] == _UNKNOWN:
            return following
        row += 1


class Plamo2Tokenizer(Tokenizer):
    """The tokenizer of the PLaMo-2 models. It adds no token to a text."""

    def __init__(self, vocab: Vocab) -> None:
        """Raises TokenizerError where one of the 256 byte tokens is missing, or the tokens are too long."""
        super().__init__(vocab)
        is_byte = [kind == _BYTE_TYPE for kind in vocab.types]
        self._byte_ids: dict[int, int] = {}
        for id, text in enumerate(vocab.tokens):
            if is_byte[id] and (match := _BYTE_TEXT.fullmatch(text)):
                self._byte_ids[int(match[1], 16)] = id
        for byte in range(256):
            if not self._byte_ids.get(byte):
                raise TokenizerError(
                    f"the PLaMo-2 vocabulary has no token <0x{byte:02X}> of type byte with an id above 0"
                )
        self._table = build_table(vocab.tokens, vocab.scores, is_byte)

    @property
    def added_before(self) -> tuple[int | None, ...]:
        return ()

    @property
    def added_after(self) -> tuple[int | None, ...]:
        return ()

    def encode_fragment(self, text: str, after_special: bool) -> list[int]:
        """Ids of plain text. A U+FEFF that opens it is dropped."""
        return best_split(text, self._table, self._byte_ids)

    def spell_all(self, tokens: Iterable[tuple[str, int]]) -> Iterable[bytes]:
        for text, attr in tokens:
            byte = _BYTE_TEXT.fullmatch(text) if attr & BYTE else None
            yield bytes([int(byte[1], 16)]) if byte else utf8(text)
