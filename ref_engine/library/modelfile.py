"""Ollama's Modelfile: a model made of another one, with parameters, a system prompt, a template, first messages.

Source of the language: `parser/parser.go` and docs/modelfile.md of Ollama. A line begins with a command, in any case;
a value is the rest of the line, or what is between quotes, single or three at a time, which may span lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ref_engine.errors import RefEngineError, StoreError
from ref_engine.sample import SamplingParams

MAX_CHARS = 1 << 20
ROLES = ("system", "user", "assistant")
_COMMANDS = (
    "FROM",
    "PARAMETER",
    "TEMPLATE",
    "SYSTEM",
    "ADAPTER",
    "LICENSE",
    "MESSAGE",
    "RENDERER",
    "PARSER",
    "REQUIRES",
)
_OTHER_NUMBERS = frozenset(
    {"num_ctx", "num_predict", "num_keep", "num_batch", "num_gpu", "main_gpu", "num_thread", "num_gqa"}
)
_FLAGS = frozenset(
    {"penalize_newline", "numa", "low_vram", "f16_kv", "use_mmap", "use_mlock", "vocab_only", "logits_all"}
)
_SAMPLING = frozenset(SamplingParams.__dataclass_fields__)


@dataclass(frozen=True)
class Recipe:
    """What a new model is made of.

    source      FROM: a model of the store or the catalog, or a path to a GGUF file
    parameters  names and values; a value of "stop" is a list of strings
    messages    mappings with "role" and "content"
    quantize    a file type such as Q4_K_M, or None
    """

    source: str
    parameters: Mapping[str, object] = field(default_factory=dict)
    template: str | None = None
    system: str | None = None
    messages: Sequence[Mapping[str, str]] = ()
    licenses: Sequence[str] = ()
    adapters: Sequence[str] = ()
    quantize: str | None = None


def parse_modelfile(text: str) -> Recipe:
    """Raises StoreError, which names the line, for what is not a Modelfile."""
    if len(text) > MAX_CHARS:
        raise StoreError(f"a Modelfile of more than {MAX_CHARS} characters")
    found: dict[str, list[str]] = {}
    parameters: list[tuple[str, str]] = []
    messages: list[Mapping[str, str]] = []
    for number, command, value in _commands(text):
        if command == "PARAMETER":
            name, _, rest = value.partition(" ")
            parameters.append((name, unquoted(rest.strip()) or ""))
        elif command == "MESSAGE":
            role, _, rest = value.partition(" ")
            if role not in ROLES:
                raise StoreError(f"line {number}: MESSAGE of {role[:50]!r}, expected one of {', '.join(ROLES)}")
            messages.append({"role": role, "content": unquoted(rest.strip()) or ""})
        else:
            found.setdefault(command, []).append(unquoted(value) or "")
    for command in ("RENDERER", "PARSER"):
        if command in found:
            raise StoreError(f"{command} is not supported: templates and calls are those of the model's own template")
    if "FROM" not in found or not found["FROM"][-1]:
        raise StoreError("a Modelfile needs a line FROM")
    return Recipe(
        source=found["FROM"][-1],
        parameters=parameters_from_text(parameters),
        template=found.get("TEMPLATE", [None])[-1],
        system=found.get("SYSTEM", [None])[-1],
        messages=tuple(messages),
        licenses=tuple(found.get("LICENSE", ())),
        adapters=tuple(found.get("ADAPTER", ())),
    )


def _commands(text: str) -> Iterable[tuple[int, str, str]]:
    """Line number, command, value with its quotes."""
    lines = text.removeprefix("\ufeff").splitlines()
    at = 0
    while at < len(lines):
        number, line = at + 1, lines[at].strip()
        at += 1
        if not line or line.startswith("#"):
            continue
        command, _, value = line.partition(" ")
        if command.upper() not in _COMMANDS:
            raise StoreError(f"line {number}: {command[:50]!r} is not one of {', '.join(_COMMANDS)}")
        value = value.strip()
        while _is_open(command.upper(), value):
            if at == len(lines):
                raise StoreError(f"line {number}: the quotes of {command.upper()} are not closed")
            value += "\n" + lines[at]
            at += 1
        yield number, command.upper(), value.strip()


def _is_open(command: str, value: str) -> bool:
    """Whether a quoted value goes on in the next line."""
    if command in ("PARAMETER", "MESSAGE"):
        value = value.partition(" ")[2].strip()
    return value.startswith('"') and unquoted(value.strip()) is None


def unquoted(value: str) -> str | None:
    """What is between the quotes, or the value itself where it has none; None where they are not closed."""
    for quotes in ('"""', '"'):
        if value.startswith(quotes):
            inside = value[len(quotes) :]
            return inside.removesuffix(quotes) if inside.endswith(quotes) else None
    return value


def parameters_from_text(pairs: Iterable[tuple[str, str]]) -> dict[str, object]:
    """Parameters with values as text. Raises StoreError for a name or value that is not known."""
    parameters: dict[str, object] = {}
    for name, text in pairs:
        if name == "stop":
            stops = parameters.setdefault("stop", [])
            assert isinstance(stops, list)
            stops.append(text)
        else:
            parameters[name] = _value(text)
    return checked_parameters(parameters)


def _value(text: str) -> object:
    if re.fullmatch(r"[+-]?\d{1,20}", text):
        return int(text)
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return float(text)
    except ValueError:
        return text


def checked_parameters(parameters: Mapping[str, object]) -> dict[str, object]:
    """Raises StoreError naming a parameter that is not known, or whose value cannot be."""
    checked: dict[str, object] = {}
    for name, value in parameters.items():
        if name == "stop":
            stops = [value] if isinstance(value, str) else value
            if not isinstance(stops, list) or not all(isinstance(stop, str) and stop for stop in stops):
                raise StoreError("parameter stop: expected strings that are not empty")
            checked[name] = stops
        elif name in _OTHER_NUMBERS:
            if type(value) is not int or abs(value) > 2**31:
                raise StoreError(f"parameter {name}: expected an integer, not {value!r:.50}")
            checked[name] = value
        elif name in _FLAGS:
            checked[name] = value
        elif name in _SAMPLING:
            try:
                SamplingParams.from_options({name: value})
            except RefEngineError as error:
                raise StoreError(f"parameter {name}: {error}") from None
            checked[name] = value
        else:
            raise StoreError(f"no parameter is called {name[:50]!r}")
    return checked


def is_jinja(source: str) -> bool:
    """Whether a template is in Jinja, and not in Go's language, in which Ollama's are; plain text is both."""
    return "{%" in source or "{{" not in source or "messages" in source
