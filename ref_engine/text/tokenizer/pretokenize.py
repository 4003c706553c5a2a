"""Splitting a text into the words that byte-pair merges stay within.

A scheme is a row of stages; each stage splits every piece that the stage before left. A stage is a regex
whose matches become pieces, and what lies between two matches becomes a piece as well. Patterns over
categories of characters run over the collapsed text of `codepoints.py`, patterns over particular characters
over the text. `schemes.py` holds the schemes.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ref_engine.text.tokenizer.codepoints import N, collapse, collapse_but_han, plain_spaces


@dataclass(frozen=True)
class Stage:
    """One cut. `split` cuts a piece into pieces that, joined, give it back; empty ones are allowed.

    view: what it sees of the text: "kinds" collapsed, "han" collapsed with Han apart, "text" the characters.
    beyond_ascii: it cuts nothing in ASCII text.
    """

    split: Callable[[str], Sequence[str]]
    view: str
    beyond_ascii: bool = False


@dataclass(frozen=True)
class Scheme:
    """Stages in order. `refining` ones come last, and see pieces so short that many come again and again."""

    cutting: tuple[Stage, ...]
    refining: tuple[Stage, ...] = ()


def split(text: str, stages: Sequence[Stage]) -> list[str]:
    """The pieces of `text` after all stages, in order; joined they give `text` back."""
    if text.isascii():  # all views are the text itself
        pieces = [text]
        for step in stages:
            if not step.beyond_ascii:
                pieces = [part for piece in pieces for part in step.split(piece) if part]
        return pieces
    views = {name: _VIEWS[name](text) for name in {step.view for step in stages}}
    lengths = [len(text)]
    for step in stages:
        parts = (part for piece in _cut(views[step.view], lengths) for part in step.split(piece))
        lengths = [len(part) for part in parts if part]
    return _cut(text, lengths)


_VIEWS: Mapping[str, Callable[[str], str]] = {"kinds": collapse, "han": collapse_but_han, "text": plain_spaces}


def _cut(text: str, lengths: Sequence[int]) -> list[str]:
    pieces = []
    start = 0
    for length in lengths:
        pieces.append(text[start : start + length])
        start += length
    return pieces


def stage(pattern: str, view: str, beyond_ascii: bool = False) -> Stage:
    """The stage of a regex without groups; `\\s` and `\\d` in it mean ASCII."""
    return Stage(re.compile(f"({pattern})", re.ASCII).split, view, beyond_ascii)


_NUMBER_RUN = re.compile(f"[{N}]+")
_DIGIT_RUN = re.compile("[0-9]+")


def digits_from_the_right(piece: str) -> list[str]:
    """Groups of three digits counted from the right, as in 1 234 567.

    What precedes a number goes with its first group, as in llama.cpp's `unicode_regex_split_custom_afmoe`.
    """
    parts = []
    start = 0
    for match in _NUMBER_RUN.finditer(piece):
        for end in range(match.start() + (len(match[0]) % 3 or 3), match.end() + 1, 3):
            parts.append(piece[start:end])
            start = end
    return [*parts, piece[start:]]


def ascii_digits_from_the_right(piece: str) -> list[str]:
    """A cut wherever a multiple of three ASCII digits follows: `(?=(\\d{3})+(?!\\d))`."""
    parts = []
    start = 0
    for match in _DIGIT_RUN.finditer(piece):
        for cut in range(match.start() + len(match[0]) % 3, match.end(), 3):
            parts.append(piece[start:cut])
            start = cut
    return [*parts, piece[start:]]
