"""The filters of the template language with a bound on what they make.

Each one pays and checks, then runs Jinja2's own filter, so that the results are Jinja2's. A filter that is
lazy there is run at once here and gives an iterator over the finished list, which is as true, as unsized and
as single-use as Jinja2's generator. Left out, as no chat template needs them: attr, filesizeformat,
forceescape, pprint, random, striptags, urlencode, urlize, wordwrap, xmlattr.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from jinja2.filters import FILTERS
from jinja2.runtime import Context
from jinja2.utils import _PassArg, pass_context

from ref_engine.errors import TemplateError
from ref_engine.text.chat.formatting import percent
from ref_engine.text.chat.limits import Meter
from ref_engine.text.chat.methods import LINE_ENDS, call_method
from ref_engine.text.chat.operators import binary, bounded_int, search_cost
from ref_engine.text.chat.values import count_of, measure

if TYPE_CHECKING:
    from ref_engine.text.chat.environment import MeteredEnvironment

Filter = Callable[..., Any]
PAID = "a set block"  # name of the filter that pays for a captured block; not a name a template can write after |
MAX_COUNT = 100_000  # of batch and slice
MAX_PRECISION = 300  # of round; a float has no more digits
MAX_PATH = 256  # characters of an attribute path such as "function.name"
_WORDS = frozenset({"title", "wordcount"})  # they make a list of the words first
MAX_JSON_PART = 64  # indentation or separator of tojson


def _meter(context: Context) -> Meter:
    environment: MeteredEnvironment = context.environment  # type: ignore[assignment]
    return environment.meter


def _jinja(context: Context, name: str, value: Any, *args: Any, **kwargs: Any) -> Any:
    """Jinja2's filter of this name, with the hidden first argument that it asks for."""
    function = FILTERS[name]
    wanted = _PassArg.from_obj(function)
    hidden: tuple[Any, ...] = ()
    if wanted is _PassArg.context:
        hidden = (context,)
    elif wanted is _PassArg.eval_context:
        hidden = (context.eval_ctx,)
    elif wanted is _PassArg.environment:
        hidden = (context.environment,)
    return function(*hidden, value, *args, **kwargs)


def _free(name: str) -> Filter:
    """A filter that looks at no more than one item and makes nothing."""
    return pass_context(partial(_jinja_named, name))


def _jinja_named(name: str, context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
    return _jinja(context, name, value, *args, **kwargs)


def _text(name: str, growth: int = 3) -> Filter:
    """A filter from the text of a value to a text at most `growth` times as long."""

    def run(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
        meter = _meter(context)
        chars = measure(meter, value)
        needle = sum(measure(meter, arg) for arg in (*args, *kwargs.values()))
        meter.fits(growth * chars + needle, ascii_only=False)
        meter.charge(search_cost(chars, needle, linear=False), 32 * chars if name in _WORDS else 0)
        made = _jinja(context, name, value, *args, **kwargs)
        return meter.text(made) if isinstance(made, str) else made

    return pass_context(run)


@pass_context
def _items(context: Context, value: Any) -> Iterator[Any]:
    meter = _meter(context)
    meter.list_of(count_of(value))
    return _drain(meter, _jinja(context, "items", value))


@pass_context
def _reverse(context: Context, value: Any) -> Any:
    meter = _meter(context)
    meter.list_of(count_of(value))
    made = _jinja(context, "reverse", value)
    return meter.text(made) if isinstance(made, str) else made


def _drain(meter: Meter, values: Iterator[Any]) -> Iterator[Any]:
    made = []
    for value in values:
        meter.charge(1, 48)
        made.append(value)
    return iter(made)


def _ordered(name: str, lazy: bool = False) -> Filter:
    """A filter that compares or hashes its items: sort, unique, min, max, groupby, dictsort."""

    def run(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
        meter = _meter(context)
        if name == "dictsort" and not isinstance(value, dict):
            raise TypeError(f"dictsort needs a mapping, not {type(value).__name__}")
        items = value if isinstance(value, dict) else list(_walk(meter, value))
        path = sum(_path_cost(arg) for arg in (*args, *kwargs.values()))
        size = sum(measure(meter, item) for item in (items.items() if isinstance(items, dict) else items))
        meter.fits(size, ascii_only=False)  # the keys may all be copies, in lower case
        meter.charge((len(items) * (4 + path) + size // 64) * (1 + len(items).bit_length()), 128 * len(items))
        made = _jinja(context, name, items, *args, **kwargs)
        return _drain(meter, made) if lazy else made

    return pass_context(run)


def _path_cost(value: Any) -> int:
    if isinstance(value, str) and len(value) > MAX_PATH:
        raise TemplateError(f"uses an attribute path of more than {MAX_PATH} characters")
    return 4 * (value.count(".") + value.count(",")) if isinstance(value, str) else 0


def _walk(meter: Meter, values: Any) -> Any:
    count = count_of(values)
    meter.list_of(count)
    if isinstance(values, range):
        meter.charge(0, 32 * count)  # its numbers are made one by one
    return values


@pass_context
def _list(context: Context, value: Any) -> list[Any]:
    meter = _meter(context)
    if isinstance(value, str):
        meter.fits(len(value))
        meter.charge(len(value) // 8, 0 if value.isascii() else 80 * len(value))
    return list(_walk(meter, value))


@pass_context
def _map(context: Context, value: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
    meter = _meter(context)
    path = _path_cost(kwargs.get("attribute"))
    meter.charge(1 + count_of(value) * (1 + path))
    return _drain(meter, _jinja(context, "map", value, *args, **kwargs))


def _select(name: str, by_attribute: bool) -> Filter:
    def run(context: Context, value: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        meter = _meter(context)
        path = _path_cost(args[0]) if by_attribute and args else 0
        meter.charge(1 + count_of(value) * (1 + path))
        return _drain(meter, _jinja(context, name, value, *args, **kwargs))

    return pass_context(run)


@pass_context
def _sum(context: Context, value: Any, attribute: str | int | None = None, start: Any = 0) -> Any:
    meter = _meter(context)
    if attribute is not None:
        _path_cost(attribute)
        value = _map(context, value, attribute=attribute)
    total = start
    for item in _walk(meter, value):
        meter.charge(1)
        total = binary(meter, "+", total, item)
    return total


@pass_context
def _join(context: Context, value: Any, d: Any = "", attribute: str | int | None = None) -> str:
    meter = _meter(context)
    if attribute is not None:
        value = _map(context, value, attribute=attribute)
    items = list(_walk(meter, value))
    chars = sum(measure(meter, item) for item in items) + measure(meter, d) * len(items)
    meter.fits(chars)
    return meter.text(str(d).join([str(item) for item in items]))


@pass_context
def _replace(context: Context, s: Any, old: Any, new: Any, count: int | None = None) -> Any:
    meter = _meter(context)
    for value in (s, old, new):
        meter.fits(measure(meter, value))
    args = (str(old), str(new), -1 if count is None else count)
    return call_method(meter, str(s).replace, args, {})


@pass_context
def _center(context: Context, value: Any, width: int = 80) -> Any:
    meter = _meter(context)
    meter.fits(measure(meter, value))
    text = value if isinstance(value, str) else str(value)
    return call_method(meter, text.center, (width,), {})


@pass_context
def _indent(context: Context, s: Any, width: Any = 4, first: bool = False, blank: bool = False) -> Any:
    meter = _meter(context)
    if isinstance(s, str):
        step = len(width) if isinstance(width, str) else width if isinstance(width, int) else 0
        lines = 2 + sum(map(s.count, LINE_ENDS))
        meter.fits(len(s) + lines * (1 + max(step, 0)))
        meter.charge(lines, 128 * lines)
    made = _jinja(context, "indent", s, width, first, blank)
    return meter.text(made) if isinstance(made, str) else made


@pass_context
def _format(context: Context, value: Any, *args: Any, **kwargs: Any) -> str:
    if args and kwargs:
        raise TypeError("format takes positional or keyword values, not both")
    meter = _meter(context)
    meter.fits(measure(meter, value))
    text = value if isinstance(value, str) else str(value)
    return percent(meter, text, kwargs or args)


@pass_context
def _round(context: Context, value: Any, precision: int = 0, method: str = "common") -> Any:
    if isinstance(value, int | float) and isinstance(precision, int):
        if abs(precision) > MAX_PRECISION:
            raise TemplateError(f"rounds to more than {MAX_PRECISION} digits")
        return bounded_int(_jinja(context, "round", bounded_int(value), precision, method))
    raise TypeError(f"round needs numbers, not {type(value).__name__} and {type(precision).__name__}")


def _number(name: str, context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
    if isinstance(value, str) and len(value) > 1024:
        raise TemplateError("reads a number from more than 1024 characters")
    return bounded_int(_jinja(context, name, value, *args, **kwargs))


def _counted(name: str) -> Filter:
    """batch and slice: the count they are given is also how much they make."""

    def run(context: Context, value: Any, count: Any, fill_with: Any = None) -> Iterator[Any]:
        meter = _meter(context)
        if not isinstance(count, int) or not 0 < count <= MAX_COUNT:
            raise TemplateError(f"{name} needs a count from 1 to {MAX_COUNT}")
        size = count_of(value) + count
        meter.list_of(size)
        meter.charge(size, 64 * size)
        return _drain(meter, _jinja(context, name, value, count, fill_with))

    return pass_context(run)


@pass_context
def _tojson(
    context: Context,
    x: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    """Hugging Face's tojson: json.dumps, nothing escaped for HTML."""
    meter = _meter(context)
    parts = [indent, *(separators if isinstance(separators, list | tuple) else [separators])]
    widths = [value if isinstance(value, int) else len(value) for value in parts if value is not None]
    if max(widths, default=0) > MAX_JSON_PART or len(parts) > 3:
        raise TemplateError(f"tojson with an indentation or separator of more than {MAX_JSON_PART} characters")
    chars = measure(meter, x)
    values, depth = _shape(x)
    meter.fits(chars + values * (sum(widths) + max(widths, default=0) * depth))
    meter.charge(4 * values)
    return meter.text(
        json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    )


@pass_context
def _paid(context: Context, value: Any) -> Any:
    return _meter(context).text(value) if isinstance(value, str) else value


def _shape(value: Any) -> tuple[int, int]:
    """How many values there are, and how deep they nest; `measure` has bounded both."""
    values, depth, level = 0, 0, [value]
    while level:
        values += len(level)
        depth += 1
        level = [
            child
            for item in level
            if isinstance(item, list | tuple | dict)
            for child in (item.values() if isinstance(item, dict) else item)
        ]
    return values, depth


def metered_filters() -> dict[str, Filter]:
    """Name -> filter, for a `MeteredEnvironment`."""
    texts: Mapping[str, int] = {
        "capitalize": 3, "e": 5, "escape": 5, "lower": 3, "safe": 1, "string": 1,
        "title": 3, "trim": 1, "truncate": 2, "upper": 3, "wordcount": 1,
    }  # fmt: skip
    return {
        **{name: _free(name) for name in ("count", "d", "default", "first", "last", "length")},
        **{name: _text(name, growth) for name, growth in texts.items()},
        **{name: _select(name, by_attribute=False) for name in ("select", "reject")},
        **{name: _select(name, by_attribute=True) for name in ("selectattr", "rejectattr")},
        **{name: _ordered(name) for name in ("dictsort", "groupby", "max", "min", "sort")},
        **{name: _counted(name) for name in ("batch", "slice")},
        **{name: pass_context(partial(_number, name)) for name in ("abs", "float", "int")},
        "center": _center,
        "format": _format,
        "indent": _indent,
        "items": _items,
        "join": _join,
        "list": _list,
        "map": _map,
        "replace": _replace,
        "reverse": _reverse,
        "round": _round,
        "sum": _sum,
        "tojson": _tojson,
        PAID: _paid,
        "unique": _ordered("unique", lazy=True),
    }
