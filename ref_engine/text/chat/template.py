"""ChatTemplate: messages -> the prompt text of a model, by the Jinja2 program in its file."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from types import CodeType
from typing import Any

from jinja2 import Template
from jinja2.exceptions import TemplateSyntaxError

from ref_engine.errors import TemplateError
from ref_engine.text.chat.environment import MeteredEnvironment, compiling_environment
from ref_engine.text.chat.limits import Limits, Meter
from ref_engine.text.chat.values import PlainData, with_reasoning

MAX_MESSAGE = 300  # characters of an error that quotes a template
_FILE = "<chat template>"


class ChatTemplate:
    """A compiled chat template; immutable, and safe to share between threads."""

    def __init__(
        self,
        source: str,
        bos_token: str = "",
        eos_token: str = "",
        *,
        limits: Limits | None = None,
        clock: Callable[[], datetime] = datetime.now,
    ) -> None:
        """Compile `source`; `clock` is what `strftime_now` reads.

        Raises TemplateError, one line, for a source that is too long, does not parse, or uses what is not
        allowed.
        """
        self.source = source
        self.bos_token = bos_token
        self.eos_token = eos_token
        self._limits = limits or Limits()
        self._clock = clock
        self._code = _compile(source, self._limits)

    def render(
        self,
        messages: Iterable[Mapping[str, object]],
        /,  # so that `extra` may come from a request as it is, whatever names it holds
        *,
        tools: Iterable[Mapping[str, object]] | None = None,
        documents: Iterable[Mapping[str, object]] | None = None,
        add_generation_prompt: bool = True,
        **extra: object,
    ) -> str:
        """The prompt for `messages`: mappings with "role" and "content", as the OpenAI API has them.

        `tools` are JSON schemas. `extra` are further variables of the template (`enable_thinking=False`); one
        named `bos_token` or `eos_token` takes the place of the file's. A tool call's `arguments` reach the
        template as the caller gives them, a JSON text or a mapping, as with transformers: some templates
        print them with `tojson`, which puts a text in quotes, and some call `.items()`, which only a mapping
        has.

        Raises TemplateError, one line, when the template raises, fails, or asks for more than its limits.
        """
        data = PlainData(self._limits)
        try:
            variables = {
                "bos_token": self.bos_token,
                "eos_token": self.eos_token,
                **{name: data.copy(value) for name, value in extra.items()},
                "messages": [with_reasoning(message) for message in data.mappings("messages", messages)],
                "tools": None if tools is None else data.mappings("tools", tools),
                "documents": None if documents is None else data.mappings("documents", documents),
                "add_generation_prompt": bool(add_generation_prompt),
            }
            return self._run(variables, Meter(self._limits, data.values, data.chars))
        except RecursionError as error:
            raise TemplateError("chat template: nested too deep") from error

    def _run(self, variables: dict[str, Any], meter: Meter) -> str:
        environment = MeteredEnvironment(meter, self._clock)
        template = Template.from_code(environment, self._code, environment.globals)
        pieces: list[str] = []
        length = 0
        try:
            for piece in template.root_render_func(template.new_context(variables)):
                length += len(piece)
                meter.fits(length)
                pieces.append(piece)
            text = "".join(pieces)
            text.encode()  # a lone surrogate is no text: a tokenizer could not take it
            return text
        except Exception as error:
            # Any exception: the program that raised it is the file's, not ours.
            raise TemplateError(f"chat template: {_where(template, error)}{_one_line(error)}") from error


def _compile(source: str, limits: Limits) -> CodeType:
    if len(source) > limits.source_chars:
        raise TemplateError(f"chat template: the source has more than {limits.source_chars} characters")
    try:
        code = compiling_environment(limits).compile(source, filename=_FILE)
    except TemplateSyntaxError as error:
        raise TemplateError(f"chat template: line {error.lineno}: {_one_line(error)}") from error
    except Exception as error:
        # Python's compiler and Jinja2's parser recurse: nesting shows as RecursionError, MemoryError or
        # SyntaxError.
        raise TemplateError(f"chat template: {_one_line(error)}") from error
    return code


def _where(template: Template, error: Exception) -> str:
    """The line of the template, where that is known, as "line 12: "."""
    frames = traceback.walk_tb(error.__traceback__)
    lines = [line for frame, line in frames if frame.f_code.co_filename == _FILE]
    return f"line {template.get_corresponding_lineno(lines[-1])}: " if lines else ""


def _one_line(error: Exception) -> str:
    """The error's message without line breaks, cut, and with its type unless that says nothing."""
    text = error.message if isinstance(error, TemplateSyntaxError) else str(error)
    text = " ".join((text or "")[: 4 * MAX_MESSAGE].split())
    if len(text) > MAX_MESSAGE:
        text = text[:MAX_MESSAGE] + "..."
    if isinstance(error, TemplateError) or (text and type(error).__module__.startswith("jinja2")):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
