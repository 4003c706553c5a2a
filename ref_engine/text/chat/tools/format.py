"""Everything that depends on how a model writes its answers, chosen from its chat template."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ref_engine.errors import GrammarError
from ref_engine.text.chat.capabilities import Capabilities
from ref_engine.text.chat.tools.channels import CHANNEL, MESSAGE, START, TAGS, ChannelParser, channel_lark
from ref_engine.text.chat.tools.formats import CHANNELS, GENERIC, ThinkingTags, syntax_of, thinking_of
from ref_engine.text.chat.tools.parser import Parser
from ref_engine.text.chat.tools.parts import Call, Part, Tool
from ref_engine.text.chat.tools.pythonic_calls import PythonicCalls
from ref_engine.text.chat.tools.recipient_calls import RecipientCalls
from ref_engine.text.chat.tools.render import Message, Prepared, in_words, prepare
from ref_engine.text.chat.tools.session import Syntax
from ref_engine.text.chat.tools.xml_calls import XmlCalls
from ref_engine.text.grammar.compile import lark_source
from ref_engine.text.grammar.constraint import Grammar
from ref_engine.text.grammar.lark import Literals
from ref_engine.text.grammar.triggered import Trigger, TriggeredGrammar
from ref_engine.text.tokenizer.base import Tokenizer

MAX_CALLS = 16  # of a forced choice that may be several: a small model that likes to call would never stop
_BARE = ("{", "[", "```json", "```{", "```[", "```\n{", "```\n[")  # what is read as a call where an answer begins
_RESPONSE = ("<response>", "</response>", "<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|START_TEXT|>", "<|END_TEXT|>")


class AnswerParser(Protocol):
    def push(self, text: str) -> list[Part]: ...
    def flush(self) -> list[Part]: ...


@dataclass(frozen=True)
class ToolFormat:
    """name       of the syntax of calls; "generic" where the template knows none, and calls are asked for in words
    syntax     how calls are written
    thinking   the tags around thinking; None: the model is not known to think
    dropped    tags around the answer that are no part of it
    """

    name: str
    syntax: Syntax
    thinking: ThinkingTags | None = None
    dropped: tuple[str, ...] = ()

    @property
    def on_channels(self) -> bool:
        return self.name == "harmony"

    @property
    def knows_tools(self) -> bool:
        """Whether the template itself writes tools and calls."""
        return self.name != GENERIC[0]

    @property
    def tags(self) -> tuple[str, ...]:
        """The texts that a parser looks for; where they are control tokens they must be shown."""
        if self.on_channels:
            return TAGS
        thinking = (self.thinking.begin.strip(), self.thinking.end.strip()) if self.thinking else ()
        return (*self.syntax.triggers, *self.syntax.dropped, *self.dropped, *thinking)

    def shown_ids(self, tokenizer: Tokenizer) -> frozenset[int]:
        """Control tokens that a parser needs to see, for `generate(special=...)`: those that occur in what it reads."""
        text = "\n".join((*self.tags, self.syntax.write(()), *_inner_tags(self.syntax)))
        vocab = tokenizer.vocab
        hidden = (id for id in range(tokenizer.n_vocab) if tokenizer.is_hidden(id) and id not in vocab.eog_ids)
        return frozenset(id for id in hidden if len(vocab.tokens[id]) > 2 and vocab.tokens[id] in text)

    def thinking_open(self, prompt: str) -> bool:
        """Whether the prompt ends inside thinking."""
        return self.thinking is not None and prompt.rstrip().endswith(self.thinking.begin.rstrip())

    def parser(self, tools: Sequence[Tool] = (), thinking: bool = True, prompt: str = "") -> AnswerParser:
        """A reader of one answer to `prompt` (its end is enough).

        tools: none means that nothing is taken for a call. thinking: take it apart; otherwise its tags stay text.
        """
        if self.on_channels:
            return ChannelParser(tools, thinking=thinking, prompt=prompt)
        return Parser(self.syntax, tools, self.thinking if thinking else None, prompt=prompt, dropped=self.dropped)

    def prepare(
        self, messages: Iterable[Message], tools: Sequence[Tool], can: Capabilities, source: str = ""
    ) -> Prepared:
        """What to give a template that can do `can`, so that messages and tools reach the prompt; see `render.prepare`.

        source: of the template; some have rules of their own, as Mistral's for the ids of calls.
        """
        return prepare(messages, tools, self.syntax, can, name=self.name, source=source)

    def render_fallback(
        self, messages: Iterable[Message], tools: Sequence[Tool], *, system: bool = True
    ) -> list[dict[str, Any]]:
        """Messages for a template that knows no tools: they are described in words, and so are calls and results."""
        return in_words(messages, tools, self.syntax, system=system)

    def call_grammar(
        self,
        tools: Sequence[Tool],
        tokenizer: Tokenizer,
        *,
        name: str | None = None,
        parallel: bool = True,
        prompt: str = "",
        may_think: bool = True,
    ) -> Grammar:
        """A grammar of at least one call, written as the model writes calls, whose arguments obey their schemas.

        name: that of the tool to call, exactly once; None: any of them, and several unless `parallel` is False.
        prompt, may_think: see `answer_grammar`. Keywords of a schema that cannot be enforced are ignored, unless the
        tool says that it is `strict`. Raises GrammarError, also for a name that no tool has.
        """
        chosen = [tool for tool in tools if name is None or tool.name == name]
        if not chosen:
            raise GrammarError("there is no tool to call" if name is None else f"there is no tool {name!r}")
        most = MAX_CALLS if parallel and name is None else 1
        literal = Literals(tokenizer.vocab)
        if self.on_channels:
            calls = channel_lark(chosen, most, literal)
        else:
            calls = self.syntax.lark(chosen, most, literal)
        start = self._start("calls", literal, prompt, may_think, calls=True)
        return Grammar(lark_source(f"{start}\n{calls}"), tokenizer, "tool call", self._endings)

    def open_grammar(
        self, tools: Sequence[Tool], tokenizer: Tokenizer, *, parallel: bool = True, prompt: str = ""
    ) -> TriggeredGrammar:
        """A grammar of any answer whose calls, if it has some, name a tool and obey its schema.

        prompt: what the answer continues; it may have begun a call.
        """
        literal = Literals(tokenizer.vocab)
        most = MAX_CALLS if parallel else 1
        calls = channel_lark(tools, most, literal) if self.on_channels else self.syntax.lark(tools, most, literal)
        grammar = Grammar(lark_source(f"start: calls\n{calls}"), tokenizer, "tool call", self._endings)
        triggers, end = self._triggers(tools, prompt), prompt.rstrip()
        begun = next((trigger.text for trigger in triggers if not trigger.bare and end.endswith(trigger.text)), "")
        skip = "" if self.thinking is None or self.on_channels else self.thinking.begin.strip()
        return TriggeredGrammar(grammar, triggers, begun=begun, skip=skip)

    def _triggers(self, tools: Sequence[Tool], prompt: str) -> list[Trigger]:
        """What begins calls, and how much of a call as this syntax writes it that is."""
        if self.on_channels:
            opening = f"{CHANNEL}commentary to="
            heads = [Trigger(f"{word} to=", opening) for word in ("commentary", "analysis", "assistant")]
            return [*heads, Trigger("to=", opening, bare=True)]
        if isinstance(self.syntax, RecipientCalls):
            lines = [f"{tool.name}\n" for tool in tools]
            bare = prompt.rstrip().endswith(self.syntax.begin)
            heads = [Trigger(line, line, bare=True) for line in lines if bare]
            return heads + [Trigger(self.syntax.begin + line, line) for line in lines]
        written = self.syntax.write([Call(tools[0].name, {})])
        heads = []
        for text in self.syntax.triggers:
            before, found, _ = written.partition(text)
            heads.append(Trigger(text, before + found if found else ""))
        if self.syntax.bare:
            texts = [f"[{tool.name}(" for tool in tools] if isinstance(self.syntax, PythonicCalls) else _BARE
            heads += [Trigger(text, bare=True) for text in texts]
        return heads

    @property
    def _endings(self) -> tuple[str, ...]:
        """What ends a text without quotes, for a call that has to come to its end."""
        return (self.syntax.value_end,) if isinstance(self.syntax, XmlCalls) else ()

    def answer_grammar(
        self, body: str, tokenizer: Tokenizer, *, prompt: str = "", may_think: bool = True, what: str = "answer"
    ) -> Grammar:
        """A grammar of an answer whose text, apart from thinking, is `body`: the right-hand side of a Lark rule.

        prompt: what the answer continues; where it has opened thinking, the grammar is of what follows that.
        may_think: the answer may begin with the tag of thinking; the grammar then waits until it is closed, which
        `generate` does with a ThinkingRule of the same tags.
        """
        start = self._start("answer", Literals(tokenizer.vocab), prompt, may_think, calls=False)
        return Grammar(lark_source(f"{start}\nanswer: {body}"), tokenizer, what)

    def _start(self, rule: str, literal: Literals, prompt: str, may_think: bool, *, calls: bool) -> str:
        space = r"/[ \n]{0,2}/"
        if self.on_channels:
            open_by_prompt = START in prompt and prompt.rpartition(START)[2].strip() in ("assistant", "")
            head = literal(f"{START}assistant")
            lead = f"({head})?" if not open_by_prompt else ""
            body = rule if calls else f"{literal(f'{CHANNEL}final{MESSAGE}')} {rule}"
            thought = f"({lead} {literal(CHANNELS.begin)} {head})" if may_think else ""
            return f"start: {thought}? {body}" if thought else f"start: {lead} {body}"
        if self.thinking_open(prompt):
            return f"start: {space} {rule}"
        if may_think and self.thinking is not None:
            return f"start: ({literal(self.thinking.begin.strip())} {space})? {rule}"
        return f"start: {rule}"


def _inner_tags(syntax: Syntax) -> list[str]:
    """All the fixed texts that a syntax is made of."""
    found: list[str] = []
    for value in vars(syntax).values():
        found += [item for item in (value if isinstance(value, tuple) else (value,)) if isinstance(item, str)]
    return found


def choose_format(template: str | None, tokenizer: Tokenizer | None = None) -> ToolFormat:
    """The format of a model with this chat template; one asked for in words where it has none that is known."""
    source = template or ""
    name, syntax = syntax_of(source)
    tokens = tokenizer.vocab.tokens if tokenizer is not None else ()
    return ToolFormat(name, syntax, thinking_of(source, tokens), tuple(tag for tag in _RESPONSE if tag in source))
