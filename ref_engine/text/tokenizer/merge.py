"""Byte-pair merging: the pair of neighbours with the best rank becomes one symbol, until no pair has a rank."""

from collections.abc import Iterable, Mapping, Sequence
from heapq import heapify, heappop, heappush
from itertools import pairwise
from operator import methodcaller

from tokenizers import models

Pair = tuple[str, str]


def read_merges(merges: Iterable[str]) -> dict[Pair, int]:
    """Ranks of pairs from lines "left right", the first line being the best; of a repeated pair the first
    counts.

    The space that separates the two is the first one after the first character. A line without one names no
    pair.
    """
    ranks: dict[Pair, int] = {}
    for rank, line in enumerate(merges):
        cut = line.find(" ", 1)
        if cut > 0:
            ranks.setdefault((line[:cut], line[cut + 1 :]), rank)
    return ranks


def merge(word: str, ranks: Mapping[Pair, int]) -> list[str]:
    """The symbols that `word` ends as, in O(n log n) steps for n characters.

    Among pairs of the same rank the leftmost merges first, as in llama.cpp (`llm_tokenizer_bpe_session`).
    `ranks` may name symbols that are no tokens.
    """
    symbols = list(word)  # a symbol that was merged into its left neighbour is ""
    before = list(range(-1, len(symbols) - 1))
    after = list(range(1, len(symbols) + 1))
    heap = [(ranks[pair], left, left + 1, 2) for left, pair in enumerate(pairwise(symbols)) if pair in ranks]
    heapify(heap)

    def offer(left: int, right: int) -> None:
        rank = ranks.get((symbols[left], symbols[right]))
        if rank is not None:
            heappush(heap, (rank, left, right, len(symbols[left]) + len(symbols[right])))

    while heap:
        _, left, right, size = heappop(heap)
        if not symbols[left] or not symbols[right] or len(symbols[left]) + len(symbols[right]) != size:
            continue  # one of the two has changed since
        symbols[left] += symbols[right]
        symbols[right] = ""
        after[left] = after[right]
        if after[left] < len(symbols):
            before[after[left]] = left
            offer(left, after[left])
        if before[left] >= 0:
            offer(before[left], left)
    return [symbol for symbol in symbols if symbol]


_HALVES = methodcaller("partition", " ")


def compiled_merger(token_to_id: Mapping[str, int], merges: Sequence[str], byte_fallback: bool) -> models.BPE | None:
    """The same merging in Rust, straight to ids, or None for a vocabulary where that one would give others.

    It identifies symbols by their ids, so both sides and the result of each merge must be tokens. A character
    that is no token it spells in tokens "<0x00>" to "<0xFF>" with `byte_fallback`, and loses without.
    """
    pairs = [(left, right) for left, _, right in map(_HALVES, merges)]
    tokens = token_to_id.keys()
    if not tokens >= {symbol for pair in pairs for symbol in pair} or not tokens >= {a + b for a, b in pairs}:
        return None
    if len(set(merges)) < len(merges):  # of a repeated pair, Rust would count the last
        return None
    try:
        "".join(token_to_id).encode()
    except UnicodeEncodeError:  # bytes that are no UTF-8, which Rust's strings cannot hold
        return None
    return models.BPE(dict(token_to_id), pairs, byte_fallback=byte_fallback)
