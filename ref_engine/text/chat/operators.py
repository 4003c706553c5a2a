"""The operators of the template language with a bound on what they make: + - * / // % **, ~, comparisons,
slices.

Python's own operators on small operands can ask for any amount of time or memory ("a" * 10**9, 2 ** 10**8,
"%1000000000d" % 1), so each one says what it will cost before it runs.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

from jinja2.runtime import Undefined
from markupsafe import Markup

from ref_engine.errors import TemplateError
from ref_engine.text.chat.formatting import percent
from ref_engine.text.chat.limits import Meter
from ref_engine.text.chat.values import CONTAINERS, count_of, is_text, measure

MAX_BITS = 4096  # of an integer; JSON and templates stay below 64

ARITHMETIC: Mapping[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
    "**": operator.pow,
}
COMPARISONS: Mapping[str, Callable[[Any, Any], Any]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "lteq": operator.le,
    "gt": operator.gt,
    "gteq": operator.ge,
    "in": lambda a, b: a in b,
    "notin": lambda a, b: a not in b,
}


def search_cost(chars: int, needle: int, linear: bool = True) -> int:
    """Steps to search `needle` characters in `chars`: CPython's search is linear but for short needles.

    `linear=False` for the searches that are not: from the right, and strip with a set of characters.
    """
    return 1 + chars // 1024 + chars * (min(needle, 128) if linear else needle) // 512


def binary(meter: Meter, op: str, left: Any, right: Any) -> Any:
    """`left op right` for numbers, texts and lists. TypeError and the like are Python's own."""
    function = ARITHMETIC[op]
    if op == "%" and is_text(left):  # first: a text formats an undefined value too
        return percent(meter, left, right)
    if isinstance(left, Undefined) or isinstance(right, Undefined):
        return function(left, right)  # raises UndefinedError with the name
    if isinstance(left, int | float | complex) and isinstance(right, int | float | complex):
        return _number(meter, op, left, right)
    if op == "+" and is_text(left) and is_text(right):
        meter.fits(len(left) + len(right), left.isascii() and right.isascii())
        return meter.text(left + right)
    if op == "+" and isinstance(left, list | tuple) and isinstance(right, list | tuple):
        meter.list_of(len(left) + len(right))
        return function(left, right)
    if op == "*":
        return _repeat(meter, left, right)
    raise TypeError(f"unsupported operand types for {op}: {type(left).__name__} and {type(right).__name__}")


def _number(meter: Meter, op: str, left: Any, right: Any) -> Any:
    for value in (left, right):
        bounded_int(value)
    power = op == "**" and isinstance(left, int) and isinstance(right, int)
    if power and left.bit_length() * right > MAX_BITS:
        raise TemplateError(f"makes an integer of more than {MAX_BITS} bits")
    made = bounded_int(ARITHMETIC[op](left, right))
    if isinstance(made, int):
        meter.charge(0, made.bit_length() // 8)
    return made


def bounded_int(value: Any) -> Any:
    """`value`, unless it is an integer of more than MAX_BITS bits."""
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise TemplateError(f"makes an integer of more than {MAX_BITS} bits")
    return value


def _repeat(meter: Meter, left: Any, right: Any) -> Any:
    sequence, times = (left, right) if isinstance(right, int) else (right, left)
    if not isinstance(times, int) or not (is_text(sequence) or isinstance(sequence, list | tuple)):
        raise TypeError(f"unsupported operand types for *: {type(left).__name__} and {type(right).__name__}")
    size = len(sequence) * max(times, 0)
    if is_text(sequence):
        meter.fits(size, sequence.isascii())
        return meter.text(sequence * times)
    meter.list_of(size)
    return sequence * times


def concat(meter: Meter, values: tuple[Any, ...]) -> str:
    """`a ~ b ~ c`: the texts of all values, joined."""
    meter.fits(sum(measure(meter, value) for value in values))
    return meter.text("".join([str(value) for value in values]))


def compare(meter: Meter, op: str, left: Any, right: Any) -> Any:
    """`left op right` for one comparison, paid by what Python may have to look at."""
    meter.charge(_compare_cost(meter, op, left, right))
    return COMPARISONS[op](left, right)


def _compare_cost(meter: Meter, op: str, left: Any, right: Any) -> int:
    if isinstance(right, str) and isinstance(left, str):
        if op in ("in", "notin"):
            return search_cost(len(right), len(left))
        return min(len(left), len(right)) // 1024
    both = isinstance(left, CONTAINERS) and isinstance(right, CONTAINERS)
    if isinstance(left, tuple) or both:
        # Equality and hashes go down shared parts again and again.
        measure(meter, left)
        if both:
            measure(meter, right)
    if op in ("in", "notin") and not isinstance(right, dict):
        items = count_of(right)
        return items + (items * len(left) // 1024 if isinstance(left, str) else 0)
    return 0


def operand(meter: Meter, value: Any) -> Any:
    """`value` as one of a chain (a < b < c): paid in full, as what it meets is not known."""
    meter.charge(1 + (measure(meter, value) if isinstance(value, (str, *CONTAINERS)) else count_of(value)))
    return value


def key(meter: Meter, value: Any) -> Any:
    """`value` as a subscript or a key: only the hash of a tuple goes deep."""
    if isinstance(value, tuple):
        measure(meter, value)
    return value


def cut(meter: Meter, value: Any, start: Any, stop: Any, step: Any) -> Any:
    """`value[start:stop:step]`."""
    part = slice(start, stop, step)
    if is_text(value):
        made = value[part]
        assert isinstance(made, str | Markup)
        return meter.text(made)
    if isinstance(value, list | tuple):
        meter.list_of(len(range(*part.indices(len(value)))))
    return value[part]
