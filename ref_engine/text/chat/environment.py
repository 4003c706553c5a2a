"""Jinja2's immutable sandbox, configured as Hugging Face transformers does it, with every step and byte
counted.

Source of the configuration: `_cached_compile_jinja_template` of transformers (utils/chat_template_utils.py):
blocks trimmed, `break` and `continue`, `{% generation %}`, `raise_exception`, `strftime_now`, its `tojson`,
`dict` and `namespace`. Jinja2's other globals (lipsum, cycler, joiner) are left out.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import SecurityError
from jinja2.exceptions import TemplateError as JinjaTemplateError
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment, safe_range
from jinja2.utils import Namespace, pass_environment

from ref_engine.errors import TemplateError
from ref_engine.text.chat import operators
from ref_engine.text.chat.filters import metered_filters
from ref_engine.text.chat.formatting import format_text
from ref_engine.text.chat.limits import Limits, Meter
from ref_engine.text.chat.methods import call_method, is_public
from ref_engine.text.chat.predicates import metered_tests
from ref_engine.text.chat.rewrite import Rewriter, check
from ref_engine.text.chat.values import count_of, measure

MAX_DATE_FORMAT = 256  # characters
_METHODS = (types.BuiltinMethodType, types.MethodType)


@dataclass(frozen=True)
class Function:
    """A function that a template may call. Nothing else that is callable in Python is, to a template."""

    name: str
    run: Callable[..., Any]


class TemplateNamespace(Namespace):
    """`namespace(...)`: names that begin with an underscore are refused, as in transformers.

    Its reads go to the attributes alone (see Jinja2's class), so the meter beside them is out of a template's
    sight.
    """

    def __init__(self, meter: Meter, attributes: dict[Any, Any]) -> None:
        for name in attributes:
            _check_name(name)
        super().__init__(attributes)
        object.__setattr__(self, "meter", meter)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        attributes = object.__getattribute__(self, "_Namespace__attrs")
        if name in attributes and _references(attributes, name) == _ALONE:
            object.__getattribute__(self, "meter").refund(attributes[name])
        super().__setitem__(name, value)


def _references(attributes: dict[str, Any], name: str) -> int:
    return sys.getrefcount(attributes[name])


# What `_references` gives for a value that only its dictionary holds: Python versions count their own hold
# differently.
_ALONE = _references({"name": "".join(["fr", "esh"])}, "name")


def _check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace cannot have the attribute {name!r}")


class Generation(Extension):
    """`{% generation %}...{% endgeneration %}`: marks the assistant's words for training; here a scope."""

    tags = {"generation"}  # noqa: RUF012  (the name and type are Jinja2's)

    def parse(self, parser: Parser) -> nodes.Node:
        lineno = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(lineno)


class MeteredCode(CodeGenerator):
    """Compiles the calls that `rewrite` put in as plain calls of the environment's methods."""

    def visit_Call(self, node: nodes.Call, frame: Frame, forward_caller: bool = False) -> None:
        if not isinstance(node.node, nodes.EnvironmentAttribute):
            super().visit_Call(node, frame, forward_caller=forward_caller)
            return
        self.write(f"environment.{node.node.name}(")
        for arg in node.args:
            self.visit(arg, frame)
            self.write(", ")
        self.write(")")


@pass_environment
def _finalize(environment: MeteredEnvironment, value: Any) -> str:
    """The text of an expression in `{{ }}`, paid for."""
    meter = environment.meter
    meter.fits(measure(meter, value))
    return meter.text(value if isinstance(value, str) else str(value))


class MeteredEnvironment(ImmutableSandboxedEnvironment):
    """One environment for one rendering: it holds that rendering's meter."""

    code_generator_class = MeteredCode
    intercepted_binops = frozenset(operators.ARITHMETIC)

    def __init__(self, meter: Meter, clock: Callable[[], datetime]) -> None:
        # Not optimized: constants are then computed when rendering, by the metered operators, not when
        # compiling.
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,
            extensions=[Generation, LoopControlExtension],
            finalize=_finalize,
            cache_size=0,
        )
        self.meter = meter
        self.clock = clock
        self.filters = metered_filters()
        self.tests = metered_tests()  # type: ignore[assignment]  # declared as bare functions
        functions: dict[str, Callable[..., Any]] = {
            "range": safe_range,
            "dict": self._dict,
            "namespace": self._namespace,
            "raise_exception": self._raise,
            "strftime_now": self._strftime,
        }
        self.globals = {name: Function(name, run) for name, run in functions.items()}

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        check(tree, self.meter.limits)
        rewritten = Rewriter().visit(tree)
        assert isinstance(rewritten, nodes.Template)
        rewritten.set_environment(self)
        return rewritten

    # Called by compiled templates, at the places that `rewrite` names.

    def tick(self, steps: int, nbytes: int) -> bool:
        self.meter.charge(steps, nbytes)
        return True

    def compare(self, op: str, left: Any, right: Any) -> Any:
        return operators.compare(self.meter, op, left, right)

    def operand(self, value: Any) -> Any:
        return operators.operand(self.meter, value)

    def joined(self, *values: Any) -> str:  # not "concat": compiled templates use Jinja2's own of that name
        return operators.concat(self.meter, values)

    def cut(self, value: Any, start: Any, stop: Any, step: Any) -> Any:
        return operators.cut(self.meter, value, start, stop, step)

    def key(self, value: Any) -> Any:
        return operators.key(self.meter, value)

    # Jinja2's own hooks.

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        return operators.binary(self.meter, operator, left, right)

    def getitem(self, obj: Any, argument: Any) -> Any:
        return super().getitem(obj, operators.key(self.meter, argument))

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return is_public(obj, attr) and super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Any:
        """str.format and str.format_map as metered functions; None for anything else."""
        if not isinstance(value, _METHODS):
            return None
        text, name = value.__self__, value.__name__
        if not isinstance(text, str) or name not in ("format", "format_map"):
            return None
        self.meter.charge(4, 512)
        if name == "format":
            return Function(name, lambda *args, **kwargs: format_text(self, text, args, kwargs))
        return Function(name, lambda mapping: format_text(self, text, (), mapping))

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        meter = __self.meter
        meter.charge(8 + (len(args) + len(kwargs)) // 8, 8 * len(args) + 64 * len(kwargs))
        if isinstance(__obj, Macro | LoopContext):
            meter.enter()
            try:
                made = __context.call(__obj, *args, **kwargs)
                return meter.text(made) if isinstance(made, str) else made
            finally:
                meter.leave()
        kwargs.pop("_loop_vars", None)
        kwargs.pop("_block_vars", None)
        if isinstance(__obj, Function):
            return __obj.run(*args, **kwargs)
        if isinstance(__obj, _METHODS) and is_public(__obj.__self__, __obj.__name__):
            return call_method(meter, __obj, args, kwargs)
        if isinstance(__obj, Undefined):
            return __obj(*args, **kwargs)  # raises UndefinedError with the name
        raise SecurityError(f"a {type(__obj).__name__} cannot be called")

    # The functions of templates.

    def _dict(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        size = len(kwargs) + sum(count_of(arg) for arg in args)
        self.meter.charge(size, 240 + 100 * size)
        for arg in args:
            measure(self.meter, arg)  # keys can be tuples, and their hashes go deep
        return dict(*args, **kwargs)

    def _namespace(self, *args: Any, **kwargs: Any) -> TemplateNamespace:
        return TemplateNamespace(self.meter, self._dict(*args, **kwargs))

    def _raise(self, message: Any) -> None:
        measure(self.meter, message)
        raise JinjaTemplateError(message)

    def _strftime(self, format: str) -> str:
        if not isinstance(format, str) or len(format) > MAX_DATE_FORMAT:
            raise TemplateError(f"strftime_now needs a format of at most {MAX_DATE_FORMAT} characters")
        return self.meter.text(self.clock().strftime(format))


def compiling_environment(limits: Limits) -> MeteredEnvironment:
    """An environment that compiles and never renders."""
    return MeteredEnvironment(Meter(limits), datetime.now)
