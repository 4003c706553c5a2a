"""Where a text can be cut so that no token lies across the cut: its parts are then tokenized one by one,
and kept.

A token can be built or matched across two characters only if they stand side by side in some token of the
vocabulary.
"""

import re
from collections.abc import Callable, Iterable
from itertools import pairwise

SPACE_MARK = "\u2581"


def adjacent_pairs(tokens: Iterable[str]) -> frozenset[str]:
    """All pairs of characters that stand side by side in a token."""
    pairs: set[tuple[str, str]] = set()
    for token in tokens:
        pairs.update(pairwise(token))
    return frozenset(map("".join, pairs))


def mark_leads(tokens: Iterable[str]) -> frozenset[str]:
    """The characters that stand before U+2581 in a token."""
    return frozenset(
        token[found.start() - 1]
        for token in tokens
        for found in re.finditer(SPACE_MARK, token)
        if found.start()
    )


def word_splitter(leads: Iterable[str]) -> Callable[[str], list[str]]:
    """A function that cuts a text before every U+2581, but not where one of `leads` stands before it."""
    inside = re.escape("".join(sorted(leads)))
    return re.compile(f"(?<![{inside}])(?={SPACE_MARK})" if inside else f"(?={SPACE_MARK})").split
