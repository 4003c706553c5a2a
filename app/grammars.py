"""What the text of an answer must obey, compiled once for each model and kept for the next request that asks for it."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeVar

from ref_engine.text.grammar import (
    Grammar,
    compile_gbnf,
    compile_json,
    compile_json_schema,
    compile_lark,
    compile_regex,
)
from ref_engine.text.grammar.schema import schema_text
from ref_engine.text.grammar.triggered import TriggeredGrammar

from .messages import AnyJson, Gbnf, JsonSchema, Lark, Output, Regex, Request
from .resident import Resident

G = TypeVar("G", Grammar, TriggeredGrammar)
_KEPT = 64


class Grammars:
    """Compiled grammars, least recently used ones forgotten. Safe for many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[int, str], tuple[Any, Any]] = OrderedDict()

    def of(self, request: Request, resident: Resident, prompt: str) -> Grammar | TriggeredGrammar | None:
        """The grammar of an answer to `prompt`, or None. A call that must be comes before a form of the text, and that
        before strict tools that may be called.

        Raises GrammarError for what cannot be held to.
        """
        choice, format, tokenizer = request.tool_choice, resident.format, resident.tokenizer
        begins = prompt[-100:] if format.on_channels else str(format.thinking_open(prompt))
        may_think = request.thinking.enabled is not False and request.thinking.budget != 0
        if request.tools and choice.mode in ("any", "tool"):
            tools = [[tool.name, dict(tool.parameters), tool.strict] for tool in request.tools]
            return self._get(
                resident,
                ("call", tools, choice.name, choice.parallel, begins, may_think),
                lambda: format.call_grammar(
                    request.tools,
                    tokenizer,
                    name=choice.name,
                    parallel=choice.parallel,
                    prompt=prompt,
                    may_think=may_think,
                ),
            )
        output = request.output
        if output is None:
            return self._open(request, resident, prompt)
        if format.on_channels and isinstance(output, AnyJson | JsonSchema):
            schema = schema_text({"type": "object"} if isinstance(output, AnyJson) else output.schema)
            return self._get(
                resident,
                ("channels", schema, begins, may_think),
                lambda: format.answer_grammar(f"%json {schema}", tokenizer, prompt=prompt, may_think=may_think),
            )
        return self._get(resident, (type(output).__name__, dict(vars(output))), lambda: _compile(output, tokenizer))

    def _open(self, request: Request, resident: Resident, prompt: str) -> TriggeredGrammar | None:
        """Calls obey their schemas where a tool is strict, once they have begun."""
        choice, tools = request.tool_choice, request.tools
        if choice.mode == "none" or not any(tool.strict for tool in tools):
            return None
        wanted = ("open", [[tool.name, dict(tool.parameters), tool.strict] for tool in tools], prompt[-100:])
        return self._get(
            resident,
            (*wanted, choice.parallel),
            lambda: resident.format.open_grammar(tools, resident.tokenizer, parallel=choice.parallel, prompt=prompt),
        )

    def _get(self, resident: Resident, wanted: tuple[object, ...], make: Callable[[], G]) -> G:
        key = (id(resident), json.dumps(wanted, sort_keys=True, default=str))
        with self._lock:
            found = self._kept.get(key)
            if found is not None and found[0] is resident:
                self._kept.move_to_end(key)
                kept: G = found[1]
                return kept
        grammar = make()
        with self._lock:
            self._kept[key] = (resident, grammar)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return grammar


def _compile(output: Output, tokenizer: Any) -> Grammar:
    if isinstance(output, AnyJson):
        return compile_json(tokenizer)
    if isinstance(output, JsonSchema):
        return compile_json_schema(output.schema, tokenizer, lenient=not output.strict)
    if isinstance(output, Regex):
        return compile_regex(output.pattern, tokenizer)
    if isinstance(output, Lark):
        return compile_lark(output.grammar, tokenizer)
    assert isinstance(output, Gbnf)
    return compile_gbnf(output.grammar, tokenizer)
