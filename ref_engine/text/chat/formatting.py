"""printf-style and str.format formatting with bounded widths.

"%1000000000d" and "{:>1000000000}" make a gigabyte from a few characters, and "{0.__class__}" walks from a
text to the whole of Python: attribute access goes through the sandbox, widths are read before the format is
run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jinja2.sandbox import SandboxedFormatter
from markupsafe import EscapeFormatter, Markup

from ref_engine.errors import TemplateError
from ref_engine.text.chat.limits import Meter
from ref_engine.text.chat.values import measure

if TYPE_CHECKING:
    from ref_engine.text.chat.environment import MeteredEnvironment

MAX_FORMAT = 16_384  # characters of a format text
MAX_WIDTH = 4_096  # of one field
NUMBER = 400  # characters that a float or a bounded integer takes without a width, and more

_CONVERSION = re.compile(
    r"%(?:\([^()]*\)|(?P<nested>\())?[#0\- +]*(?P<width>\*|\d+)?(?:\.(?P<precision>\*|\d+)?)?[hlL]?.?",
    re.DOTALL,
)
_DIGITS = re.compile(r"\d+")


def percent(meter: Meter, template: str, values: Any) -> str:
    """`template % values`, as Python does it, with widths up to MAX_WIDTH and none from `*`."""
    _check_length(meter, template)
    fields, widest = 0, 0
    for match in _CONVERSION.finditer(template):
        fields += 1
        if match["nested"]:  # Python balances parentheses inside the key; a pattern cannot
            raise TemplateError("formats with a parenthesis in a key")
        for width in match.group("width", "precision"):
            if width == "*":
                raise TemplateError("formats with a width taken from the values")
            widest = max(widest, _width(width or "0"))
    given: Sequence[Any] = values if isinstance(values, tuple) else [values]
    if isinstance(values, Mapping):
        given = list(values.values())
    # %r and %a write up to 10 characters for one, Markup up to 5 when it escapes; a mapping's value can be
    # used twice.
    largest = max([10 * measure(meter, value) + NUMBER for value in given], default=0)
    meter.fits(len(template) + fields * (largest + 2 * widest))
    return meter.text(template % values)


def _check_length(meter: Meter, template: str) -> None:
    if len(template) > MAX_FORMAT:
        raise TemplateError(f"formats with a text of more than {MAX_FORMAT} characters")
    meter.charge(1 + len(template) * len(template) // 1024)  # _CONVERSION may look ahead to the end for a ")"


def _width(digits: str) -> int:
    if len(digits) > len(str(MAX_WIDTH)) or int(digits) > MAX_WIDTH:
        raise TemplateError(f"formats to a width of more than {MAX_WIDTH}")
    return int(digits)


class MeteredFormatter(SandboxedFormatter):
    """str.format whose attribute access is the sandbox's and whose fields are paid for."""

    def __init__(self, environment: MeteredEnvironment, **kwargs: Any) -> None:
        super().__init__(environment, **kwargs)
        self.meter = environment.meter

    def convert_field(self, value: Any, conversion: Any) -> Any:
        """`!r`, `!s`, `!a`."""
        self.meter.fits(10 * measure(self.meter, value))
        converted = super().convert_field(value, conversion)
        return self.meter.text(converted) if isinstance(converted, str) else converted

    def format_field(self, value: Any, format_spec: str) -> Any:
        """One field. Numbers in the format are its width, its precision or part of the fill."""
        self.meter.charge(1 + len(format_spec))
        for digits in _DIGITS.findall(format_spec):
            _width(digits)
        measure(self.meter, value)
        return self.meter.text(super().format_field(value, format_spec))


class MeteredEscapeFormatter(MeteredFormatter, EscapeFormatter):
    """The same for Markup, which escapes what it formats."""


def format_text(environment: MeteredEnvironment, template: str, args: Sequence[Any], kwargs: Any) -> str:
    """`template.format(*args, **kwargs)`; `kwargs` may be any mapping, for format_map."""
    meter = environment.meter
    _check_length(meter, template)
    if isinstance(template, Markup):
        escaping = MeteredEscapeFormatter(environment, escape=template.escape)
        return meter.text(type(template)(escaping.vformat(template, args, kwargs)))
    return meter.text(MeteredFormatter(environment).vformat(template, args, kwargs))
