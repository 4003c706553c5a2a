"""The /commands of a chat: a line in, new settings or a text to show out. Nothing here touches model or terminal."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from ref_engine.cli.session import Settings
from ref_engine.errors import RefEngineError
from ref_engine.sample import SamplingParams

HELP = """\
/set parameter NAME VALUE   temperature, top_k, top_p, min_p, seed, max_tokens, stop, repeat_penalty, ...
/set system TEXT            the system prompt ("": an empty one); the conversation begins anew
/set seed N                 repeatable answers
/set verbose, /set quiet    timings after each answer, or none
/show info                  what model this is
/show parameters            what has been set
/show template, /show system
/clear                      forget the conversation
/bye                        leave, as does Ctrl-D
/?                          this help
\"\"\"                         begins and ends a message of several lines
Ctrl-C                      stops the answer"""

Action = Literal["none", "clear", "bye", "info", "template", "verbose", "quiet"]
_ALIASES = {"num_predict": "max_tokens", "temp": "temperature"}
_NUMBERS = {f.name: f.type for f in fields(SamplingParams) if f.type in (int, float, int | None)}


@dataclass(frozen=True)
class Outcome:
    """What a command asks for: settings to go on with, text to show, and something for the loop to do."""

    settings: Settings
    text: str = ""
    action: Action = "none"


def command(line: str, settings: Settings) -> Outcome:
    """Carry out one line that begins with "/". Raises RefEngineError for what is not understood."""
    word, _, rest = line.strip().partition(" ")
    rest = rest.strip()
    match word:
        case "/bye" | "/exit":
            return Outcome(settings, action="bye")
        case "/?" | "/help":
            return Outcome(settings, HELP)
        case "/clear":
            return Outcome(settings, "the conversation begins anew", "clear")
        case "/set":
            return _set(rest, settings)
        case "/show":
            return _show(rest, settings)
    raise RefEngineError(f"unknown command {word[:50]!r}; /? lists the commands")


def _set(rest: str, settings: Settings) -> Outcome:
    what, _, value = rest.partition(" ")
    value = value.strip()
    match what:
        case "system":
            changed = replace(settings, system=unquoted(value) if value else None)
            return Outcome(changed, "system prompt set" if value else "system prompt left to the template", "clear")
        case "seed":
            return _set(f"parameter seed {value}", settings)
        case "verbose" | "quiet":
            return Outcome(settings, action="verbose" if what == "verbose" else "quiet")
        case "parameter":
            name, _, text = value.partition(" ")
            if not name or not text.strip():
                raise RefEngineError("usage: /set parameter NAME VALUE")
            return Outcome(set_parameter(settings, name, text.strip()), f"{name} set to {text.strip()}")
    raise RefEngineError("usage: /set parameter NAME VALUE, /set system TEXT, /set seed N, /set verbose or quiet")


def _show(what: str, settings: Settings) -> Outcome:
    match what:
        case "info" | "template":
            return Outcome(settings, action="info" if what == "info" else "template")
        case "system":
            unset = "an empty system prompt" if settings.system == "" else "no system prompt is set"
            return Outcome(settings, settings.system or unset)
        case "parameters":
            return Outcome(settings, "\n".join(parameters(settings)))
    raise RefEngineError("usage: /show info, parameters, template or system")


def set_parameter(settings: Settings, name: str, text: str) -> Settings:
    """Settings with one parameter changed, by its name and value as typed. Raises RefEngineError naming it."""
    name = _ALIASES.get(name, name)
    if name == "stop":
        return replace(settings, stop=_words(text))
    if name == "max_tokens":
        n = _number("max_tokens", text, whole=True)
        return replace(settings, max_tokens=None if n < 0 else int(n))
    if name not in _NUMBERS:
        known = ", ".join(["stop", "max_tokens", *_NUMBERS])
        raise RefEngineError(f"no parameter {name[:50]!r}; there are: {known}")
    changed: dict[str, Any] = {name: _number(name, text, whole=_NUMBERS[name] is not float)}
    return replace(settings, params=replace(settings.params, **changed))


def from_model(settings: Settings, parameters: Mapping[str, object]) -> Settings:
    """Settings with the parameters that a model's manifest (its Modelfile) sets.

    Those that are not about sampling, such as num_ctx, are passed over. Raises RefEngineError for a bad value.
    """
    for name, value in parameters.items():
        if name == "stop":
            stops = value if isinstance(value, list) else [value]
            settings = replace(settings, stop=tuple(str(stop) for stop in stops))
        elif _ALIASES.get(name, name) in ("max_tokens", *_NUMBERS):
            settings = set_parameter(settings, name, str(value))
    return settings


def parameters(settings: Settings) -> list[str]:
    """`name value` for everything that differs from the defaults, and the most asked-for ones always."""
    default, shown = SamplingParams(), ("temperature", "top_k", "top_p", "min_p", "seed")
    lines = [
        f"{name} {getattr(settings.params, name)}"
        for name in _NUMBERS
        if name in shown or getattr(settings.params, name) != getattr(default, name)
    ]
    lines.append(f"max_tokens {settings.max_tokens}")
    return lines + [f"stop {stop!r}" for stop in settings.stop]


def unquoted(text: str) -> str:
    """Without the quotes around it, one or three."""
    for quote in ('"""', '"'):
        if len(text) >= 2 * len(quote) and text.startswith(quote) and text.endswith(quote):
            return text[len(quote) : -len(quote)].strip("\n")
    return text


def _number(name: str, text: str, whole: bool) -> int | float:
    try:
        return int(text) if whole else float(text)
    except ValueError:
        raise RefEngineError(f"{name} must be {'a whole number' if whole else 'a number'}, not {text[:50]!r}") from None


def _words(text: str) -> tuple[str, ...]:
    """Words as a shell splits them; `\\n` inside them is a line break."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise RefEngineError(f"stop: {error}") from None
    return tuple(word.replace("\\n", "\n") for word in words if word)
