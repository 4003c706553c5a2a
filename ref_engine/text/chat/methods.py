"""The methods of texts, lists and mappings that a template may call, and what each costs.

An allow-list by exact type: what is not in it does not exist for a template. Mutating methods are left out as
in Jinja2's immutable sandbox, and so is everything that chat templates have no use for (str.encode,
int.to_bytes, ...).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from jinja2.runtime import LoopContext, Macro
from jinja2.utils import Namespace
from markupsafe import Markup

from ref_engine.text.chat.limits import Meter
from ref_engine.text.chat.operators import search_cost
from ref_engine.text.chat.values import count_of, is_text, measure

# Searches that are not linear in CPython: from the right, and against a set of characters.
_QUADRATIC = frozenset({"rfind", "rindex", "rsplit", "rpartition", "strip", "lstrip", "rstrip"})
_PADDING = frozenset({"center", "ljust", "rjust", "zfill"})
_SPLITTING = frozenset({"split", "rsplit", "splitlines", "partition", "rpartition"})
LINE_ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
TEXT_METHODS = (
    _QUADRATIC
    | _PADDING
    | _SPLITTING
    | {"capitalize", "casefold", "count", "endswith", "find", "format", "format_map", "index", "isalnum"}
    | {
        "isalpha",
        "isascii",
        "isdecimal",
        "isdigit",
        "islower",
        "isnumeric",
        "isprintable",
        "isspace",
        "istitle",
    }
    | {
        "isupper",
        "join",
        "lower",
        "removeprefix",
        "removesuffix",
        "replace",
        "startswith",
        "swapcase",
        "title",
    }
    | {"upper"}
)
_SEQUENCE = frozenset({"count", "index"})

METHODS: Mapping[type, frozenset[str]] = {
    str: TEXT_METHODS,
    Markup: TEXT_METHODS,
    dict: frozenset({"get", "keys", "values", "items", "copy"}),
    list: _SEQUENCE | {"copy"},
    tuple: _SEQUENCE,
    float: frozenset({"is_integer"}),
    LoopContext: frozenset({"index", "index0", "revindex", "revindex0", "first", "last", "length"})
    | {"depth", "depth0", "previtem", "nextitem", "cycle", "changed"},
    Macro: frozenset({"name", "arguments", "catch_kwargs", "catch_varargs", "caller"}),
}


def is_public(value: object, name: str) -> bool:
    """Whether a template may read this attribute of this value."""
    if name.startswith("_"):
        return False
    if isinstance(value, Namespace):
        return True
    if isinstance(value, tuple) and name in ("grouper", "list"):  # of the groupby filter
        return True
    return name in METHODS.get(type(value), ())


def call_method(meter: Meter, method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a bound method that `is_public` let through, after paying for it."""
    owner, name = method.__self__, method.__name__  # type: ignore[attr-defined]
    given = (*args, *kwargs.values())
    if is_text(owner):
        return _text_method(meter, owner, name, method, args, kwargs)
    for value in given:
        measure(meter, value)
    if isinstance(owner, list | tuple) and name in _SEQUENCE:
        measure(meter, owner)
    elif isinstance(owner, list | dict) and name == "copy":
        meter.charge(len(owner), 240 + 100 * len(owner))
    return method(*args, **kwargs)


def _text_method(
    meter: Meter,
    text: str,
    name: str,
    method: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    if name == "join":
        return _join(meter, text, method, *args, **kwargs)
    given = (*args, *kwargs.values())
    needle = sum(measure(meter, value) for value in given)
    meter.charge(search_cost(len(text), needle, linear=name not in _QUADRATIC))
    if name in _PADDING:
        width = args[0] if args else 0
        meter.fits(max(len(text), width if isinstance(width, int) else 0), ascii_only=False)
    elif name == "replace":
        meter.fits(_replaced_length(text, given))
    elif name in _SPLITTING:
        _pay_parts(meter, text, name, given)
    else:
        meter.fits(3 * len(text))  # "ß".upper() is "SS", "ΐ".upper() has three characters
    made = method(*args, **kwargs)
    return meter.text(made) if isinstance(made, str) else made


def _join(meter: Meter, text: str, method: Callable[..., Any], values: Any) -> str:
    meter.list_of(count_of(values))
    parts = list(values)
    chars = sum(measure(meter, part) for part in parts) + len(text) * len(parts)
    meter.fits(6 * chars if isinstance(text, Markup) else chars)
    made: str = method(parts)
    return meter.text(made)


def _replaced_length(text: str, given: tuple[Any, ...]) -> int:
    if len(given) < 2 or not (isinstance(given[0], str) and isinstance(given[1], str)):
        return len(text)  # Python will refuse it
    growth = len(given[1]) * (6 if isinstance(text, Markup) else 1) - len(given[0])
    return len(text) + max(growth, 0) * text.count(given[0])


def _pay_parts(meter: Meter, text: str, name: str, given: tuple[Any, ...]) -> None:
    separator = next((value for value in given if isinstance(value, str)), None)
    if name in ("partition", "rpartition"):
        parts = 3
    elif separator:
        parts = 1 + text.count(separator)
    else:
        parts = 1 + (sum(map(text.count, LINE_ENDS)) if name == "splitlines" else len(text) // 2)
    limit = next((value for value in given if isinstance(value, int) and not isinstance(value, bool)), -1)
    if limit >= 0:
        parts = min(parts, limit + 1)
    meter.fits(len(text), text.isascii())
    meter.list_of(parts)
    meter.charge(parts // 8, 64 * parts + len(text) * (1 if text.isascii() else 4))
