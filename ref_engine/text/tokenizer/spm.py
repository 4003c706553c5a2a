"""SentencePiece byte-pair tokenizer (`llama`): neighbours merge while their concatenation is a token, the
best first.

Source of the behaviour: llama.cpp `llm_tokenizer_spm_session`; the original is `bpe_model.cc` of
google/sentencepiece. Every pair of neighbours whose concatenation is a token may merge; the highest score
goes first and among equal scores the leftmost. What is no token in the end is spelt in byte tokens.

The speed comes from two facts. A merge never crosses a pair of characters that no token holds (`words`), so
the text falls into short pieces whose ids can be kept. And a short piece is merged faster by plain scans
than with a heap.
"""

import heapq
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

from ref_engine.errors import TokenizerError
from ref_engine.text.tokenizer.base import Tokenizer
from ref_engine.text.tokenizer.vocab import Vocab
from ref_engine.text.tokenizer.words import SPACE_MARK, adjacent_pairs, word_splitter

_NO_MERGE = 1 << 62  # a rank behind all others
_SHORT = 64  # characters: up to here scans beat the heap
_KEPT = 1 << 15  # words and pieces whose ids are kept


def score_ranks(tokens: Sequence[str], scores: Sequence[float]) -> dict[str, int]:
    """Position of every token in the order of merging: 0 for the highest score, equal scores share one.

    Raises TokenizerError for a score that is not a number.
    """
    if any(map(math.isnan, scores)):
        raise TokenizerError("a score in the vocabulary is not a number")
    place = {score: rank for rank, score in enumerate(sorted(set(scores), reverse=True))}
    return {token: place[score] for token, score in zip(tokens, scores, strict=True)}


def merge_short(symbols: list[str], rank: Mapping[str, int]) -> list[str]:
    """Merge neighbours, best first, by scanning all pairs each time; quadratic in the number of symbols."""
    find = rank.get
    ranks = [find(left + right, _NO_MERGE) for left, right in pairwise(symbols)]
    while ranks and (best := min(ranks)) != _NO_MERGE:
        at = ranks.index(best)
        merged = symbols[at] = symbols[at] + symbols[at + 1]
        del symbols[at + 1], ranks[at]
        if at > 0:
            ranks[at - 1] = find(symbols[at - 1] + merged, _NO_MERGE)
        if at < len(ranks):
            ranks[at] = find(merged + symbols[at + 1], _NO_MERGE)
    return symbols


def merge_long(symbols: list[str], rank: Mapping[str, int]) -> list[str]:
    """The same merges as `merge_short` from a heap of pairs; n log n in the number of symbols."""
    n = len(symbols)
    current = [rank.get(left + right, _NO_MERGE) for left, right in pairwise(symbols)]
    current.append(_NO_MERGE)  # current[i]: rank of the pair that begins at symbol i, as it is now
    heap = [r << 32 | at for at, r in enumerate(current) if r != _NO_MERGE]
    heapq.heapify(heap)
    after, before = list(range(1, n + 1)), list(range(-1, n - 1))
    while heap:
        entry = heapq.heappop(heap)
        at = entry & 0xFFFFFFFF
        if current[at] != entry >> 32:
            continue  # one of the two symbols has changed since
        right = after[at]
        merged = symbols[at] = symbols[at] + symbols[right]
        symbols[right], current[right], current[at] = "", _NO_MERGE, _NO_MERGE
        following = after[at] = after[right]
        if following < n:
            before[following] = at
            if (r := rank.get(merged + symbols[following], _NO_MERGE)) != _NO_MERGE:
                current[at] = r
                heapq.heappush(heap, r << 32 | at)
        if (previous := before[at]) >= 0:
            r = current[previous] = rank.get(symbols[previous] + merged, _NO_MERGE)
            if r != _NO_MERGE:
                heapq.heappush(heap, r << 32 | previous)
    return [symbol for symbol in symbols if symbol]


class SpmTokenizer(Tokenizer):
    """The tokenizer of Llama 1 and 2, Mistral, Gemma and other models trained with SentencePiece's BPE."""

    def __init__(self, vocab: Vocab) -> None:
        """Raises TokenizerError for a score that is not a number."""
        super().__init__(vocab)
        self._rank = score_ranks(vocab.tokens, vocab.scores)
        self._pairs = adjacent_pairs(vocab.tokens)
        self._split = word_splitter(pair[0] for pair in self._pairs if pair[1] == SPACE_MARK)
        self._kept: dict[str, list[int]] = {}

    @property
    def space_prefix(self) -> bool:
        return self.vocab.add_space_prefix

    def encode_fragment(self, text: str, after_special: bool) -> list[int]:
        """Ids of plain text. Raises TokenizerError for a character that has neither a token nor byte
        tokens.
        """
        if self.space_prefix and after_special:
            text = " " + text
        ids: list[int] = []
        for word in self._split(text.replace(" ", SPACE_MARK)):
            known = self._kept.get(word)
            ids += self._encode_word(word) if known is None else known
        return ids

    def _encode_word(self, word: str) -> list[int]:
        pairs = self._pairs
        cuts = [at for at, pair in enumerate(pairwise(word), 1) if pair not in pairs]
        if not cuts:
            return self._encode_piece(word)
        ids: list[int] = []
        for start, end in pairwise([0, *cuts, len(word)]):
            piece = word[start:end]
            known = self._kept.get(piece)
            ids += self._encode_piece(piece) if known is None else known
        self._keep(word, ids)
        return ids

    def _encode_piece(self, piece: str) -> list[int]:
        merge = merge_short if len(piece) <= _SHORT else merge_long
        symbols = merge(list(piece), self._rank)
        ids: list[int] = []
        for symbol, id in zip(symbols, map(self.vocab.token_to_id.get, symbols), strict=True):
            if id is None:
                ids += map(self._byte_id, symbol.encode())
            else:
                ids.append(id)
        self._keep(piece, ids)
        return ids

    def _byte_id(self, byte: int) -> int:
        id = self.vocab.token_to_id.get(f"<0x{byte:02X}>")
        if id is None:  # or the bare byte, which no UTF-8 text can hold
            id = self.vocab.token_to_id.get(bytes([byte]).decode("utf-8", "surrogateescape"))
        if id is None:
            raise TokenizerError(f"the vocabulary has no token for byte 0x{byte:02X}")
        return id

    def _keep(self, text: str, ids: list[int]) -> None:
        if len(text) <= _SHORT:
            if len(self._kept) >= _KEPT:
                self._kept.clear()
            self._kept[text] = ids
