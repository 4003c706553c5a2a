"""What a request may hold, said once: the table that checks a request is the table that docs/api.md prints.

    FIELDS = (Field("seed", Integer(), HONOURED, "the same seed gives the same answer"), ...)
    values = read(body, FIELDS)

A check takes a value and where it stands, and gives the value back in a form that the rest of the server can trust,
or raises Invalid. A field that no table names is refused by its name.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, Protocol

from .errors import ApiError, ErrorKind

MAX_DEPTH = 100  # of lists and objects in each other: beyond any schema in use, within every recursion that follows
INT_MAX = 2**31 - 1
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")

Use = Literal["honoured", "ignored", "refused"]
HONOURED: Use = "honoured"
IGNORED: Use = "ignored"
REFUSED: Use = "refused"


class Invalid(ApiError):
    """A request that cannot be meant. `where` is the path of the field, such as messages.0.role; "" for the body."""

    def __init__(self, where: str, what: str, kind: ErrorKind = "invalid") -> None:
        super().__init__(kind, f"{where}: {what}" if where else what, where or None)


class Check(Protocol):
    """`says` describes the values in a few words."""

    @property
    def says(self) -> str: ...
    def __call__(self, value: object, where: str, /) -> Any: ...


@dataclass(frozen=True)
class Field:
    """One field of a request: what it may hold, what becomes of it, and a word on it. null is as good as absent."""

    name: str
    check: Check
    use: Use
    note: str = ""
    required: bool = False


def read(body: object, fields: Sequence[Field], where: str = "") -> dict[str, Any]:
    """The checked values of the fields that are there and not null. Raises Invalid, also for an unknown field."""
    if not isinstance(body, dict):
        raise Invalid(where, f"must be an object, not {kind(body)}")
    known = {field.name: field for field in fields}
    values = {}
    for name, value in body.items():
        field = known.get(name)
        if field is None:
            raise Invalid(join(where, name), "no such field here; docs/api.md lists those there are")
        if value is not None:
            values[name] = field.check(value, join(where, name))
    for field in fields:
        if field.required and field.name not in values:
            raise Invalid(join(where, field.name), "is required")
    return values


def join(where: str, name: str | int) -> str:
    """The path of a part. Names come from the client, so they are cut and shown on one line."""
    text = str(name)
    if not (text.isascii() and text.isprintable()) or len(text) > 60:
        text = ascii(text[:60])
    return f"{where}.{text}" if where else text


def kind(value: object) -> str:
    """What a JSON value is, in words."""
    if value is None:
        return "null"
    names: dict[type, str] = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list"}
    return names.get(type(value), "an object")


def parse_json(data: bytes, where: str = "body") -> Any:
    """The value of JSON text. Raises Invalid for what is not JSON, not UTF-8, or nested too deep to be handled."""
    if not data:
        raise Invalid(where, "is empty, JSON is expected")
    try:
        value = json.loads(data.decode("utf-8"), parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise Invalid(where, f"is not UTF-8: byte {error.start} is wrong") from None
    except RecursionError:
        raise Invalid(where, f"is nested deeper than {MAX_DEPTH}") from None
    except ValueError as error:  # JSONDecodeError, and integers of thousands of digits
        raise Invalid(where, f"is not JSON: {str(error)[:200]}") from None
    _check_tree(value, where, escapes=b"\\u" in data)
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _check_tree(value: object, where: str, escapes: bool) -> None:
    """Depth, and strings that are no text: half of a surrogate pair can be written in JSON only as an escape."""
    level = [value]
    for _ in range(MAX_DEPTH):
        below: list[object] = []
        for item in level:
            if isinstance(item, dict):
                below += item.values()
                below += item.keys() if escapes else ()
            elif isinstance(item, list):
                below += item
            elif escapes and isinstance(item, str) and _LONE_SURROGATE.search(item):
                raise Invalid(where, "holds half of a surrogate pair, which is no text")
        if not below:
            return
        level = below
    raise Invalid(where, f"is nested deeper than {MAX_DEPTH}")


@dataclass(frozen=True)
class Text:
    """A string. `low` and `high`: characters."""

    low: int = 0
    high: int = 0  # 0: any
    pattern: str = ""

    @property
    def says(self) -> str:
        return "string"

    def __call__(self, value: object, where: str) -> str:
        if not isinstance(value, str):
            raise Invalid(where, f"must be a string, not {kind(value)}")
        if len(value) < self.low:
            raise Invalid(where, "must not be empty" if self.low == 1 else f"must have at least {self.low} characters")
        if self.high and len(value) > self.high:
            raise Invalid(where, f"must have at most {self.high} characters, not {len(value)}")
        if self.pattern and not re.fullmatch(self.pattern, value):
            raise Invalid(where, f"must match {self.pattern}")
        return value


@dataclass(frozen=True)
class Integer:
    low: int = -(2**63)
    high: int = 2**64 - 1

    @property
    def says(self) -> str:
        return f"integer{_span(self.low, self.high)}"

    def __call__(self, value: object, where: str) -> int:
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # JSON has one kind of number: 5.0 is 5
        if type(value) is not int:
            raise Invalid(where, f"must be an integer, not {kind(value) if type(value) is not float else value}")
        if not self.low <= value <= self.high:
            raise Invalid(where, f"must be{_span(self.low, self.high) or ' of 64 bits'}")
        return value


@dataclass(frozen=True)
class Number:
    low: float = -math.inf
    high: float = math.inf

    @property
    def says(self) -> str:
        return f"number{_span(self.low, self.high)}"

    def __call__(self, value: object, where: str) -> float:
        if type(value) is not int and type(value) is not float:
            raise Invalid(where, f"must be a number, not {kind(value)}")
        if not self.low <= value <= self.high or abs(value) > 1e30:  # of what float32 can hold, and 1e999 is infinite
            raise Invalid(where, f"must be{_span(self.low, self.high) or ' a number of ordinary size'}")
        return float(value)


def _span(low: float, high: float) -> str:
    few = {-(2**63), 2**64 - 1, -math.inf, math.inf, INT_MAX}
    if low in few and high in few:
        return ""
    return f" from {low:g}" if high in few else f" to {high:g}" if low in few else f" {low:g} to {high:g}"


@dataclass(frozen=True)
class Flag:
    @property
    def says(self) -> str:
        return "boolean"

    def __call__(self, value: object, where: str) -> bool:
        if not isinstance(value, bool):
            raise Invalid(where, f"must be true or false, not {kind(value)}")
        return value


@dataclass(frozen=True)
class OneOf:
    """One of these strings (or booleans)."""

    values: tuple[str | bool, ...]

    @property
    def says(self) -> str:
        return ", ".join(f"`{json.dumps(value)}`" for value in self.values)

    def __call__(self, value: object, where: str) -> Any:
        for known in self.values:
            if type(value) is type(known) and value == known:
                return known
        listed = ", ".join(json.dumps(known) for known in self.values)
        raise Invalid(where, f"must be {'one of ' if len(self.values) > 1 else ''}{listed}, not {shown(value)}")


@dataclass(frozen=True)
class ListOf:
    item: Check
    low: int = 0
    high: int = 100_000

    @property
    def says(self) -> str:
        return f"list of {self.item.says}"

    def __call__(self, value: object, where: str) -> list[Any]:
        if not isinstance(value, list):
            raise Invalid(where, f"must be a list, not {kind(value)}")
        if not self.low <= len(value) <= self.high:
            raise Invalid(where, f"must have{_span(self.low, self.high)} entries, not {len(value)}")
        return [self.item(item, join(where, i)) for i, item in enumerate(value)]


@dataclass(frozen=True)
class Record:
    """An object with these fields; `read` of them."""

    fields: tuple[Field, ...]

    @property
    def says(self) -> str:
        return "object"

    def __call__(self, value: object, where: str) -> dict[str, Any]:
        return read(value, self.fields, where)


@dataclass(frozen=True)
class Mapped:
    """An object with any keys, and values of one kind."""

    item: Check

    @property
    def says(self) -> str:
        return "object"

    def __call__(self, value: object, where: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise Invalid(where, f"must be an object, not {kind(value)}")
        return {name: self.item(item, join(where, name)) for name, item in value.items()}


@dataclass(frozen=True)
class Anything:
    """Passed on as it is, such as a JSON schema."""

    says: str = "any"

    def __call__(self, value: object, where: str) -> Any:
        return value


@dataclass(frozen=True)
class ByType:
    """A check for each JSON type that the value may have."""

    checks: tuple[tuple[type, Check], ...]

    @property
    def says(self) -> str:
        return " or ".join(check.says for _, check in self.checks)

    def __call__(self, value: object, where: str) -> Any:
        for json_type, check in self.checks:
            if type(value) is json_type:
                return check(value, where)
        raise Invalid(where, f"must be {self.says.replace('`', '')}, not {kind(value)}")


@dataclass(frozen=True)
class Never:
    """A field of the real service that this server does not have."""

    why: str
    says: str = "any"

    def __call__(self, value: object, where: str) -> NoReturn:
        raise Invalid(where, f"is not supported: {self.why}", "unsupported")


@dataclass(frozen=True)
class Only:
    """The one value that asks for nothing which is missing here."""

    value: object
    why: str

    @property
    def says(self) -> str:
        return f"`{json.dumps(self.value)}`"

    def __call__(self, value: object, where: str) -> Any:
        if type(value) is type(self.value) and value == self.value:
            return value
        raise Invalid(where, f"can only be {json.dumps(self.value)}: {self.why}", "unsupported")


@dataclass(frozen=True)
class By:
    """A check written as a function."""

    says: str
    run: Callable[[object, str], Any]

    def __call__(self, value: object, where: str) -> Any:
        return self.run(value, where)


OBJECT = Mapped(Anything())


def choose(value: object, where: str, key: str, variants: Mapping[str, Callable[[dict[str, Any], str], Any]]) -> Any:
    """The reading of an object by the variant that its `key` names. Raises Invalid for a name that is not there."""
    if not isinstance(value, dict):
        raise Invalid(where, f"must be an object, not {kind(value)}")
    name = value.get(key)
    if not isinstance(name, str) or name not in variants:
        raise Invalid(join(where, key), f"must be one of {', '.join(variants)}, not {shown(name)}")
    return variants[name](value, where)


def shown(value: object) -> str:
    """A client's value in an error message: short, on one line, ASCII."""
    if isinstance(value, dict | list):
        return kind(value)
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
