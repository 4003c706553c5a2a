"""The caller's data as a template may see it, and how large a value is.

Source of the conversion: `_plain_template_data` and `_alias_reasoning_fields` of Hugging Face transformers
(utils/chat_template_utils.py): a template gets JSON types only, never an object with methods of its own.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from jinja2.runtime import LoopContext, Macro, Undefined
from jinja2.utils import Namespace
from markupsafe import Markup

from ref_engine.errors import TemplateError
from ref_engine.text.chat.limits import Limits, Meter

VIEWS: tuple[type, ...] = (type({}.keys()), type({}.values()), type({}.items()))
CONTAINERS: tuple[type, ...] = (list, tuple, dict, Namespace, *VIEWS)
REASONING_FIELDS = ("reasoning_content", "thinking", "reasoning")


class PlainData:
    """Copies a caller's data into plain JSON types and counts it; `values` and `chars` add up."""

    def __init__(self, limits: Limits) -> None:
        self._deepest = limits.data_nesting
        self.values = 0
        self.chars = 0

    def copy(self, value: object, depth: int = 0) -> Any:
        """`value` with every str, int, float subclass reduced to its base, anything foreign to "<type name>".

        Raises TemplateError for data nested deeper than the limit (a list inside itself included).
        """
        if depth > self._deepest:
            raise TemplateError(f"chat data is nested deeper than {self._deepest}")
        self.values += 1
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            self.chars += len(value)
            return str.__str__(value)
        if isinstance(value, int):
            return int.__int__(value)
        if isinstance(value, float):
            return float.__float__(value)
        if isinstance(value, Mapping):
            return {self.copy(key, depth + 1): self.copy(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list | tuple):
            items = [self.copy(item, depth + 1) for item in value]
            return items if isinstance(value, list) else tuple(items)
        if isinstance(value, np.generic):
            return self.copy(value.item(), depth + 1)
        return f"<{type(value).__name__}>"

    def mappings(self, name: str, values: Iterable[object]) -> list[dict[str, Any]]:
        """A list of mappings (messages, tools, documents); TemplateError names what else it holds."""
        if isinstance(values, str | bytes | Mapping) or not isinstance(values, Sequence):
            raise TemplateError(f"{name} must be a list of mappings, not {type(values).__name__}")
        for index, value in enumerate(values):
            if not isinstance(value, Mapping):
                raise TemplateError(f"{name}[{index}] must be a mapping, not {type(value).__name__}")
        return [self.copy(value) for value in values]


def with_reasoning(message: dict[str, Any]) -> dict[str, Any]:
    """Reasoning under every name that templates read: `reasoning_content`, and `thinking` for gpt-oss."""
    reasoning = next((message[key] for key in REASONING_FIELDS if message.get(key) is not None), None)
    if reasoning is None:
        return message
    return {"thinking": reasoning, **message, "reasoning_content": reasoning}


def count_of(value: object) -> int:
    """How many items iterating over `value` gives; 0 for what cannot be iterated."""
    try:
        return operator.length_hint(value)
    except TypeError:
        return 0


def measure(meter: Meter, value: object) -> int:
    """An upper bound of the characters of `str(value)`, and of its JSON without indentation. Pays per value.

    Shared parts count as often as they are reached: `[x, x]` nested 40 times takes 40 lists and 2**40
    characters. Raises TemplateError if that is more than a text may have, if it nests too deep (or in itself),
    or if it is a function or an iterator, whose text would be an address in memory.
    """
    if isinstance(value, str):
        return len(value)
    chars = 0
    levels: list[Iterator[object]] = [iter((value,))]
    while levels:
        for item in levels[-1]:
            chars += _own_size(item)
            if chars > meter.max_text:
                meter.fits(chars)
            if isinstance(item, CONTAINERS):
                if len(levels) > meter.limits.data_nesting:
                    raise TemplateError(f"nests a value deeper than {meter.limits.data_nesting}")
                levels.append(_children(meter, item))
                break
        else:
            levels.pop()
    meter.charge(1 + chars // 256)
    return chars


def _own_size(item: object) -> int:
    if isinstance(item, str):
        # repr and JSON write an unprintable character as \U0010ffff or a pair of \ud83d.
        return 16 + len(item) * (2 if item.isprintable() else 12)
    if isinstance(item, int):
        return 8 + item.bit_length() // 3
    if isinstance(item, float | complex | range | Macro | LoopContext):
        return 128
    if item is None or isinstance(item, (Undefined, *CONTAINERS)):
        return 24
    raise TemplateError(f"writes a {type(item).__name__} as text")


def _children(meter: Meter, item: object) -> Iterator[object]:
    """What a container holds, paid for: to look at one value takes as long as four steps."""
    if isinstance(item, Namespace):
        item = object.__getattribute__(item, "_Namespace__attrs")
    if isinstance(item, dict):
        meter.charge(4 + 8 * len(item))
        return chain(item.keys(), item.values())
    assert isinstance(item, Collection)
    meter.charge(4 + 4 * len(item))
    return iter(item)


def is_text(value: object) -> bool:
    """A str whose methods are str's or Markup's."""
    return type(value) in (str, Markup)
