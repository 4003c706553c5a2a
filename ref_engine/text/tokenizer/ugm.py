"""Unigram tokenizer (`t5`): the text is normalised, then split into the tokens with the highest sum of
scores.

Source of the behaviour: llama.cpp `llm_tokenizer_ugm`; the original is `unigram_model.cc` and
`normalizer.cc` of google/sentencepiece. Everything works on bytes of UTF-8, because the normaliser of a
file may cut characters apart.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ref_engine.errors import TokenizerError
from ref_engine.text.tokenizer.base import Tokenizer, utf8
from ref_engine.text.tokenizer.charsmap import parse_charsmap
from ref_engine.text.tokenizer.lengths import candidate_lengths, lengths_by_head
from ref_engine.text.tokenizer.normaliser import Normaliser
from ref_engine.text.tokenizer.special import USER_DEFINED
from ref_engine.text.tokenizer.vocab import Vocab
from ref_engine.text.tokenizer.words import mark_leads, word_splitter

_NORMAL, _USER_DEFINED, _UNUSED = 1, 4, 5  # token types of the file
_WIDTH = (
    1,
    1,
    1,
    1,
    1,
    1,
    1,
    1,
    1,
    1,
    1,
    1,
    2,
    2,
    3,
    4,
)  # of a UTF-8 sequence, by the high half of its first byte
_UNKNOWN_PENALTY = np.float32(10)
_KEPT = 1 << 16  # words whose split is kept ...
_SHORT = 64  # ... if they have at most this many characters


@dataclass(frozen=True)
class Lexicon:
    """What `best_split` needs of a vocabulary.

    token_to_id: the tokens that text can match, and lengths: `lengths_by_head` of them. scores: one per
    token id. unknown_id stands for a character that is no token, at the cost of unknown_score.
    """

    token_to_id: Mapping[bytes, int]
    lengths: Mapping[bytes, tuple[int, ...]]
    scores: Sequence[float]
    unknown_id: int
    unknown_score: float


def best_split(text: bytes, lexicon: Lexicon) -> tuple[list[int], float]:
    """Token ids of the best split of a non-empty text by Viterbi's algorithm, and the sum of their scores.

    Among equal sums the split whose last token is longer wins. Unknown characters in a row become one
    unknown id.
    """
    size = len(text)
    best = [-np.inf] * (size + 1)  # of all splits of text[:i]
    best[0] = 0.0
    start, chosen = [0] * (size + 1), [lexicon.unknown_id] * (size + 1)  # the last token of that split
    at = 0
    while at < size:
        width = min(_WIDTH[text[at] >> 4], size - at)
        is_token = False
        for length in candidate_lengths(text, at, lexicon.lengths):
            end = at + length
            id = lexicon.token_to_id.get(text[at:end])
            if id is None or end > size:
                continue
            is_token = is_token or length == width
            if (score := best[at] + lexicon.scores[id]) > best[end]:
                best[end], start[end], chosen[end] = score, at, id
        if not is_token and (score := best[at] + lexicon.unknown_score) > best[at + width]:
            best[at + width], start[at + width], chosen[at + width] = score, at, lexicon.unknown_id
        at += width

    ids: list[int] = []
    at = size
    while at > 0:
        ids.append(chosen[at])
        at = start[at]
    return merge_unknown(ids[::-1], lexicon.unknown_id), best[size]


def merge_unknown(ids: Sequence[int], unknown_id: int) -> list[int]:
    """`ids` with every run of unknown ids reduced to one."""
    return [id for i, id in enumerate(ids) if id != unknown_id or i == 0 or ids[i - 1] != unknown_id]


class UgmTokenizer(Tokenizer):
    """The tokenizer of T5, XLM-RoBERTa and other models trained with SentencePiece's unigram model."""

    def __init__(self, vocab: Vocab) -> None:
        """Raises TokenizerError for a score that is infinite or no number, or a charsmap or token out of
        bounds.
        """
        super().__init__(vocab)
        if vocab.unk_id is None:
            raise TokenizerError("the unigram vocabulary has no unknown token")
        matchable = [id for id, kind in enumerate(vocab.types) if kind in (_NORMAL, _USER_DEFINED, _UNUSED)]
        for id in matchable:
            if not math.isfinite(vocab.scores[id]):
                raise TokenizerError(f"token {id} of the vocabulary has the score {vocab.scores[id]}")
        token_to_id = {utf8(vocab.tokens[id]): id for id in matchable}
        self._lexicon = Lexicon(
            token_to_id=token_to_id,
            lengths=lengths_by_head(token_to_id),
            scores=[
                0.0 if attr & USER_DEFINED else score for attr, score in zip(vocab.attrs, vocab.scores, strict=True)
            ],
            unknown_id=vocab.unk_id,
            unknown_score=unknown_score(
                score for score, kind in zip(vocab.scores, vocab.types, strict=True) if kind == _NORMAL
            ),
        )
        self._normalise = Normaliser(
            charsmap=parse_charsmap(vocab.precompiled_charsmap),
            kept=[utf8(text) for text, kind in zip(vocab.tokens, vocab.types, strict=True) if kind == _USER_DEFINED],
            add_space=vocab.add_space_prefix,
            space_last=vocab.treat_whitespace_as_suffix,
            merge_spaces=vocab.remove_extra_whitespaces,
        )
        self._words = word_splitter(mark_leads(vocab.tokens[id] for id in matchable))
        used = [self._lexicon.scores[id] for id in matchable]
        self._exact_below = exact_range([*used, self._lexicon.unknown_score])
        self._worst = max(map(abs, [*used, self._lexicon.unknown_score]))
        self._kept: dict[str, tuple[list[int], float]] = {}

    @property
    def space_prefix(self) -> bool:
        return self.vocab.add_space_prefix or self.vocab.remove_extra_whitespaces

    def encode_fragment(self, text: str, after_special: bool) -> list[int]:
        """Ids of plain text. Raises TokenizerError where the file's normaliser points outside itself."""
        normal = self._normalise(text.encode())
        try:
            words = [word for word in self._words(normal.decode()) if word]
        except UnicodeDecodeError:
            words = []  # a normaliser that cuts characters apart: where a word begins is then not certain
        ids: list[int] = []
        total, longest = 0.0, 0
        for word in words:
            known, score = self._kept.get(word) or self._split_word(word)
            ids += known
            total += score
            longest = max(longest, len(word))
        # Sums of scores that are exact are the same from any starting point, and so are the ties among
        # them. Otherwise the rounding of the sum over the whole text is part of the definition.
        if normal and (not words or abs(total) + 4 * longest * self._worst >= self._exact_below):
            return best_split(normal, self._lexicon)[0]
        return merge_unknown(ids, self._lexicon.unknown_id)

    def _split_word(self, word: str) -> tuple[list[int], float]:
        split = best_split(word.encode(), self._lexicon)
        if len(word) <= _SHORT:
            if len(self._kept) >= _KEPT:
                self._kept.clear()
            self._kept[word] = split
        return split


def unknown_score(scores: Iterable[float]) -> float:
    """The score of an unknown character: 10 below the worst normal token, in float32."""
    worst = np.float32(min(scores, default=np.finfo(np.float32).max))
    return float(worst - _UNKNOWN_PENALTY)


def exact_range(scores: Sequence[float]) -> float:
    """Below this magnitude every sum of these scores is exact in float64: 2**53 of their common binary
    unit.
    """
    values = np.array(scores)
    for bits in range(64):
        scaled = np.ldexp(values, bits)
        if np.array_equal(scaled, np.floor(scaled)):
            return math.ldexp(1.0, 53 - bits)
    return 0.0
