"""What one rendering of a chat template may spend: steps, memory, nesting. Counted, never timed.

A template comes with a model file, so it is a program written by a stranger. Wall clocks and signals do not
work in threads, nor on Windows, and give another answer on every machine; a count gives the same answer
everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

from ref_engine.errors import TemplateError


@dataclass(frozen=True)
class Limits:
    """Bounds on a template's source and on one rendering.

    - `source_chars`, `nodes`, `nesting`: the source text, its syntax nodes and how deep they nest.
    - `steps`: syntax nodes run, values walked, items looped over; a step takes some 0.1 to 1 µs.
    - `memory`: bytes of all strings and containers made, freed or not: the most that can live at once.
      Only what a namespace lets go is given back, so that `ns.out = ns.out ~ more` can build a long prompt.
    - `text`: characters of any one string, the output included. `items`: length of any one list.
    - `calls`: macro calls inside one another. `data_nesting`: containers inside one another.

    Long conversations need more: every character and every value of the caller's data adds `..._per_...`.
    """

    source_chars: int = 65_536
    nodes: int = 10_000
    nesting: int = 60
    steps: int = 5_000_000
    steps_per_value: int = 1_000
    memory: int = 32 << 20
    memory_per_char: int = 128
    text: int = 4 << 20
    text_per_char: int = 16
    items: int = 1_000_000
    calls: int = 64
    data_nesting: int = 100


LONG_TEXT = 4096  # characters
LONG_LIST = 64  # items


def text_bytes(chars: int, ascii_only: bool) -> int:
    """Bytes that a string of so many characters can take in CPython: 1 or at most 4 each, and a header."""
    return 64 + (chars if ascii_only else 4 * chars)


class Meter:
    """The account of one rendering. Every method raises `TemplateError` when something has run out."""

    def __init__(self, limits: Limits, values: int = 0, chars: int = 0) -> None:
        """`values` and `chars`: the size of the caller's data, which the limits grow with."""
        self.limits = limits
        self.steps = limits.steps + limits.steps_per_value * values
        self.memory = limits.memory + limits.memory_per_char * chars
        self.max_text = limits.text + limits.text_per_char * chars
        self.calls = 0

    def charge(self, steps: int, nbytes: int = 0) -> None:
        """Spend steps and bytes."""
        self.steps -= steps
        self.memory -= nbytes
        if self.steps < 0:
            raise TemplateError("takes too many steps")
        if self.memory < 0:
            raise TemplateError("uses too much memory")

    def fits(self, chars: int, ascii_only: bool = True) -> None:
        """Refuse, before it is made, a string that would be too long. Nothing is spent."""
        if chars > self.max_text:
            raise TemplateError(f"makes a text of more than {self.max_text} characters")
        if text_bytes(chars, ascii_only) > self.memory:
            raise TemplateError("uses too much memory")

    def text(self, made: str) -> str:
        """Pay for a string that was made, and return it."""
        chars = len(made)
        self.fits(chars)
        self.charge(1 + chars // 1024, text_bytes(chars, made.isascii()))
        return made

    def refund(self, value: object) -> None:
        """Give back what a text or a list cost, when it is known that it will be freed now.

        Only long ones: all of them were paid by `text` or at 8 bytes an item at least, which short ones need
        not be.
        """
        if isinstance(value, str) and len(value) >= LONG_TEXT:
            self.memory += text_bytes(len(value), value.isascii())
        elif type(value) is list and len(value) >= LONG_LIST:
            self.memory += 8 * len(value)

    def list_of(self, count: int) -> None:
        """Pay for a list of `count` items before it is made (8 bytes each)."""
        if count > self.limits.items:
            raise TemplateError(f"makes a list of more than {self.limits.items} items")
        self.charge(1 + count // 8, 64 + 8 * count)

    def enter(self) -> None:
        """A macro call begins; `leave` ends it."""
        if self.calls >= self.limits.calls:
            raise TemplateError(f"calls macros more than {self.limits.calls} deep")
        self.calls += 1

    def leave(self) -> None:
        self.calls -= 1
