"""Where a text can be cut so that no token lies across the cut: its parts are then tokenized one by one,
and kept.

A token can be built or matched across two characters only if they stand side by side in some token of the
vocabulary.
"""

import re
from collections.abc import Callable, Iterable

import numpy as np

SPACE_MARK = "\u2581"


def adjacent_pairs(tokens: Iterable[str]) -> frozenset[tuple[str, str]]:
    """All pairs of characters that stand side by side in a token. No token holds a NUL."""
    codes = np.frombuffer("\0".join(tokens).encode("utf-32-le", "surrogatepass"), "<u4").astype(np.int64)
    pairs = np.unique(codes[:-1] << 32 | codes[1:]).tolist()
    return frozenset((chr(pair >> 32), chr(pair & 0xFFFFFFFF)) for pair in pairs if pair >> 32 and pair & 0xFFFFFFFF)


def mark_leads(tokens: Iterable[str]) -> frozenset[str]:
    """The characters that stand before U+2581 in a token. No token holds a NUL."""
    return frozenset(re.findall(f"([^\0])(?={SPACE_MARK})", "\0".join(tokens)))


def word_splitter(leads: Iterable[str]) -> Callable[[str], list[str]]:
    """A function that cuts a text before every U+2581, but not where one of `leads` stands before it."""
    inside = re.escape("".join(sorted(leads)))
    return re.compile(f"(?<![{inside}])(?={SPACE_MARK})" if inside else f"(?={SPACE_MARK})").split
