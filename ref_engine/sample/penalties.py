"""Filters that look at token ids: biases, and penalties for what the text already holds.

They move logits and (short of overflow) remove no candidate, except for a bias of -inf, which bans a token.
Semantics of the samplers `logit_bias`, `penalties` and `dry` of llama.cpp (`src/llama-sampler.cpp`).
"""

import math
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate

import numpy as np

from ref_engine.sample.distribution import Logits

Breakers = Mapping[int, tuple[tuple[int, ...], ...]]
"""Sequence breakers as tokens: first token -> possible rests (an empty one: the token alone breaks)."""

MAX_BREAKER_BYTES = 40
MAX_TAIL_TOKENS = 20
FLOAT32_MAX = float(np.finfo(np.float32).max)


def logit_bias(logits: Logits, bias: Mapping[int, float]) -> Logits:
    """Add bias[id] to the logit of each id (0 <= id < V); -inf bans the token."""
    if not bias:
        return logits
    biased = logits.copy()
    ids = np.fromiter(bias.keys(), dtype=np.intp, count=len(bias))
    with np.errstate(over="ignore"):
        biased[ids] += np.fromiter(bias.values(), dtype=np.float32, count=len(bias))
    return biased


def penalties(
    logits: Logits,
    last_tokens: Sequence[int],
    repeat: float = 1.0,
    frequency: float = 0.0,
    presence: float = 0.0,
) -> Logits:
    """Make every token in last_tokens less likely (for repeat > 1, frequency > 0, presence > 0).

    repeat: a positive logit is divided by it, any other multiplied, so that both sink
    (https://arxiv.org/abs/1909.05858 only divides). Then frequency * occurrences + presence is subtracted.
    """
    if not last_tokens or (repeat == 1 and frequency == 0 and presence == 0):
        return logits
    ids, counts = np.unique(np.asarray(last_tokens, dtype=np.intp), return_counts=True)
    seen, factor = logits[ids], np.float32(repeat)
    with np.errstate(over="ignore"):
        seen = np.where(seen <= 0, seen * factor, seen / factor)
        seen = seen - (counts.astype(np.float32) * np.float32(frequency) + np.float32(presence))
    penalized = logits.copy()
    penalized[ids] = seen
    return penalized


def dry(
    logits: Logits,
    last_tokens: Sequence[int],
    multiplier: float,
    base: float,
    allowed_length: int,
    breakers: Breakers,
) -> Logits:
    """Don't Repeat Yourself: penalise the token that would continue a repetition, more the longer that is.

    Where the last n tokens, n >= allowed_length, also stand earlier, the token that followed them there loses
    multiplier * base ** (n - allowed_length). A repetition reaches back to the last sequence breaker at
    most, and a token that is itself a breaker is never penalised. multiplier 0 or base < 1 disables.
    O(len(last_tokens)). https://github.com/oobabooga/text-generation-webui/pull/5677
    """
    n = len(last_tokens)
    if multiplier == 0 or base < 1 or n <= allowed_length:
        return logits
    limit = tokens_since_breaker(last_tokens, breakers)
    if limit < allowed_length:
        return logits
    longest: dict[int, int] = {}
    for i, length in enumerate(repeat_lengths(last_tokens)):
        follower, length = last_tokens[i + 1], min(length, limit)
        if length >= allowed_length and length > longest.get(follower, -1):
            longest[follower] = length
    max_exponent = int(math.log(FLOAT32_MAX) / math.log(base)) if base > 1.000001 else n
    penalized = logits.copy()
    for token, length in longest.items():
        if () not in breakers.get(token, ()):
            penalty = multiplier * base ** min(length - allowed_length, max_exponent)
            with np.errstate(over="ignore"):
                penalized[token] -= np.float32(min(penalty, FLOAT32_MAX))
    return penalized


def repeat_lengths(tokens: Sequence[int]) -> list[int]:
    """For each i < n - 1: how many tokens ending at i equal the tokens at the very end.

    Example: a b c c b c y a b c  ->  0 0 3 1 0 2 0 0 0. It is the Z-function of the reversed text: Gusfield,
    Algorithms on Strings, Trees, and Sequences, section 1.4. O(n), because `right` only grows.
    """
    text = list(reversed(tokens))
    n = len(text)
    z = [0] * n
    left = right = 0  # text[left:right] is the match that reaches furthest; it equals text[: right - left]
    for k in range(1, n):
        length = min(z[k - left], right - k) if k < right else 0
        while k + length < n and text[length] == text[k + length]:
            length += 1
        z[k] = length
        if k + length > right:
            left, right = k, k + length
    return z[:0:-1]


def tokens_since_breaker(tokens: Sequence[int], breakers: Breakers) -> int:
    """How many tokens follow the last complete sequence breaker; all of them where there is none."""
    n = len(tokens)
    for start in range(n - 1, -1, -1):
        fitting = [
            len(tail)
            for tail in breakers.get(tokens[start], ())
            if tuple(tokens[start + 1 : start + 1 + len(tail)]) == tail
        ]
        if fitting:
            return n - (start + 1 + max(fitting))
    return n


def dry_breakers(
    strings: Iterable[str], pieces: Sequence[bytes], encode: Callable[[str], Sequence[int]]
) -> dict[int, tuple[tuple[int, ...], ...]]:
    """Which tokens, or runs of tokens, contain each breaker string.

    pieces[id] is the token's text in UTF-8; `encode` turns the rest of a breaker that begins at the end of a
    token into ids, with no special tokens added. As llama.cpp does, only the first 40 bytes of a breaker
    count and 20 tokens of its rest.
    """
    found: dict[int, dict[tuple[int, ...], None]] = {}  # dict as an ordered set
    text = b"\xff".join([*pieces, b""])  # one string to search; no UTF-8 contains the byte between the tokens
    ends = list(accumulate(len(piece) + 1 for piece in pieces))
    for string in strings:
        breaker = string.encode()[:MAX_BREAKER_BYTES]
        if not breaker:
            continue
        inside = {bisect_right(ends, match.start()) for match in re.finditer(re.escape(breaker), text)}
        for token in inside:
            found.setdefault(token, {})[()] = None
        for n in range(1, len(breaker)):
            if breaker[n] & 0xC0 == 0x80:
                continue  # a rest that begins inside a character is no text to encode
            tail = tuple(encode(breaker[n:].decode(errors="replace"))[:MAX_TAIL_TOKENS])
            for match in re.finditer(re.escape(breaker[:n] + b"\xff"), text):
                token = bisect_right(ends, match.start())
                if ends[token] == match.end() and token not in inside:
                    found.setdefault(token, {})[tail] = None
    return {token: tuple(tails) for token, tails in found.items()}
