"""The tests of the template language (`x is y`) with a bound on what they cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from jinja2.tests import TESTS
from jinja2.utils import _PassArg, pass_environment

from ref_engine.text.chat.operators import binary, compare, key
from ref_engine.text.chat.values import measure

if TYPE_CHECKING:
    from ref_engine.text.chat.environment import MeteredEnvironment

Test = Callable[..., bool]
_COMPARISONS = {
    "in": "in",
    "==": "eq", "eq": "eq", "equalto": "eq",
    "!=": "ne", "ne": "ne",
    ">": "gt", "gt": "gt", "greaterthan": "gt",
    ">=": "gteq", "ge": "gteq",
    "<": "lt", "lt": "lt", "lessthan": "lt",
    "<=": "lteq", "le": "lteq",
}  # fmt: skip


def _comparison(op: str) -> Test:
    def run(environment: MeteredEnvironment, left: Any, right: Any) -> bool:
        return bool(compare(environment.meter, op, left, right))

    return pass_environment(run)


def _remainder(divisor: int | None, wanted: int) -> Test:
    def run(environment: MeteredEnvironment, value: Any, num: Any = divisor) -> bool:
        if isinstance(value, str):  # "%1000000000d" is odd
            raise TypeError("a text has no remainder")
        return bool(binary(environment.meter, "%", value, num) == wanted)

    return pass_environment(run)


def _checked(name: str) -> Test:
    """Jinja2's own test; upper, lower, filter and test write the value or take its hash first."""
    function: Callable[..., Any] = TESTS[name]  # type: ignore[assignment]  # declared as a bare function
    hidden = _PassArg.from_obj(function) is _PassArg.environment

    def run(environment: MeteredEnvironment, value: Any, *args: Any) -> bool:
        if name in ("lower", "upper"):
            environment.meter.fits(measure(environment.meter, value))
        key(environment.meter, value)
        return bool(function(environment, value, *args) if hidden else function(value, *args))

    return pass_environment(run)


def metered_tests() -> dict[str, Test]:
    """Name -> test, for a `MeteredEnvironment`."""
    return {
        **{name: _checked(name) for name in TESTS},
        **{name: _comparison(op) for name, op in _COMPARISONS.items()},
        "odd": _remainder(2, 1),
        "even": _remainder(2, 0),
        "divisibleby": _remainder(None, 0),
    }
