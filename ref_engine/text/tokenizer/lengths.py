"""Which lengths a token may have, by how it begins: the index behind every longest-match search here."""

from collections.abc import Iterable, Mapping
from typing import AnyStr

from ref_engine.errors import TokenizerError

LONGEST_TOKEN = 1024  # real vocabularies stay below 300; a search tries every length there is, at every position


def lengths_by_head(tokens: Iterable[AnyStr]) -> dict[AnyStr, tuple[int, ...]]:
    """The lengths of the tokens that begin with one or two given units (bytes or characters), the longest
    first.

    An entry of two units counts the token of its first unit alone too. Raises TokenizerError for a token of
    more than LONGEST_TOKEN units.
    """
    found: dict[AnyStr, set[int]] = {}
    for token in tokens:
        if len(token) > LONGEST_TOKEN:
            raise TokenizerError(
                f"a token of {len(token)} units in the vocabulary; at most {LONGEST_TOKEN} are allowed"
            )
        found.setdefault(token[:2], set()).add(len(token))
    return {head: tuple(sorted(lengths | found.get(head[:1], set()), reverse=True)) for head, lengths in found.items()}


def candidate_lengths(text: AnyStr, at: int, lengths: Mapping[AnyStr, tuple[int, ...]]) -> tuple[int, ...]:
    """The lengths that a token beginning at `text[at]` may have, the longest first."""
    return lengths.get(text[at : at + 2]) or lengths.get(text[at : at + 1], ())
