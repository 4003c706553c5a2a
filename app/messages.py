"""What a dialect turns a request into, and what it makes its answer from. No dialect's words, no model's either.

    dialect request -> Request -> Service.run -> Event, Event, ... -> dialect response

All of it is frozen: a Request can be logged, compared and replayed, and an answer that is not streamed is `fold` of the
events of one that is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

from .errors import ApiError

Role = Literal["system", "user", "assistant", "tool"]
DoneReason = Literal["stop", "length", "stop_sequence", "tool_use", "cancelled"]
Json = Mapping[str, Any]
_NOTHING: Json = MappingProxyType({})


# -- what a conversation is made of ---------------------------------------------------------------------------


@dataclass(frozen=True)
class TextBlock:
    text: str


@dataclass(frozen=True)
class ImageBlock:
    """`source` says where it was in the request. The pipeline refuses it by name: no model here sees yet."""

    source: str


@dataclass(frozen=True)
class ThinkingBlock:
    """Reasoning of an earlier turn. `signature` is passed through and not checked."""

    text: str
    signature: str = ""


@dataclass(frozen=True)
class ToolCall:
    """`id` is the dialect's own; "" where it has none."""

    id: str
    name: str
    arguments: Json


@dataclass(frozen=True)
class ToolResult:
    """What a tool answered. `name` is that of the tool where the dialect says it; else the pipeline looks the id up."""

    id: str
    text: str
    is_error: bool = False
    name: str | None = None


Block = TextBlock | ImageBlock | ThinkingBlock | ToolCall | ToolResult


@dataclass(frozen=True)
class Message:
    role: Role
    blocks: tuple[Block, ...]

    @property
    def text(self) -> str:
        """All its text blocks, joined as they are."""
        return "".join(block.text for block in self.blocks if isinstance(block, TextBlock))


@dataclass(frozen=True)
class ToolDef:
    """`parameters` is a JSON schema. `strict`: calls must obey it (by a grammar), not only when one is forced."""

    name: str
    description: str
    parameters: Json
    strict: bool = False


@dataclass(frozen=True)
class ToolChoice:
    """auto: the model decides. any: it calls at least one. none: it calls none. tool: it calls `name`."""

    mode: Literal["auto", "any", "none", "tool"] = "auto"
    name: str | None = None
    parallel: bool = True


@dataclass(frozen=True)
class Thinking:
    """`enabled` None: as the model's template has it. `budget`: tokens of thinking at most, which is enforced.

    `effort` ("low", "medium", "high", ...) reaches the template as `reasoning_effort`.
    """

    enabled: bool | None = None
    budget: int | None = None
    effort: str | None = None


# -- what the text of the answer must be ----------------------------------------------------------------------


@dataclass(frozen=True)
class AnyJson:
    """Some JSON object."""


@dataclass(frozen=True)
class JsonSchema:
    schema: Json
    name: str = ""
    strict: bool = True


@dataclass(frozen=True)
class Regex:
    pattern: str


@dataclass(frozen=True)
class Lark:
    grammar: str


@dataclass(frozen=True)
class Gbnf:
    grammar: str


Output = AnyJson | JsonSchema | Regex | Lark | Gbnf


# -- the request ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Request:
    """One generation. Either `messages`, which go through the model's chat template, or `prompt`, which does not.

    sampling      those fields of ref_engine's SamplingParams that the request gave; the model's own parameters
                  (its Modelfile) stand behind them, then `defaults` (the dialect's), then those of SamplingParams
    max_tokens    None: the model's num_predict, else until the model ends or the context is full
    stop          strings; the answer ends before the first of them. The model's own stop strings are added
    logprobs      None: none. 0: of the chosen tokens. k: of the k likeliest besides
    n             how many answers; every event says of which one (`choice`)
    prefill       the last message is the assistant's and is to be continued, not answered
    suffix        text after the gap that a raw prompt is to fill; needs a model with fill-in-the-middle tokens
    echo          the prompt's text is part of the answer (raw prompts)
    context       token ids of an earlier answer (Done.context), which come before the prompt
    template      Jinja source to use instead of the model's chat template
    template_args further variables of the template
    n_ctx         tokens of prompt and answer at most, instead of the server's
    truncate      drop the oldest messages of a conversation that is too long, instead of refusing it
    keep_alive    seconds the model stays loaded after this; inf: for good; None: as the server is set
    """

    model: str
    messages: tuple[Message, ...] = ()
    prompt: str | tuple[int, ...] | None = None
    tools: tuple[ToolDef, ...] = ()
    tool_choice: ToolChoice = ToolChoice()
    sampling: Mapping[str, object] = field(default_factory=lambda: _NOTHING)
    defaults: Mapping[str, object] = field(default_factory=lambda: _NOTHING)
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    thinking: Thinking = Thinking()
    output: Output | None = None
    logprobs: int | None = None
    n: int = 1
    prefill: bool = False
    suffix: str | None = None
    echo: bool = False
    context: tuple[int, ...] = ()
    template: str | None = None
    template_args: Json = field(default_factory=lambda: _NOTHING)
    n_ctx: int | None = None
    truncate: bool = False
    keep_alive: float | None = None
    stream: bool = False

    def __post_init__(self) -> None:
        if bool(self.messages) == (self.prompt is not None):
            raise ApiError("invalid", "a request needs messages or a prompt, and not both", "messages")


@dataclass(frozen=True)
class EmbedRequest:
    """`inputs`: each a text or its token ids. `truncate`: cut what is too long, instead of refusing it.

    `dimensions`: keep only so many of the first numbers, normalised again.
    """

    model: str
    inputs: tuple[str | tuple[int, ...], ...]
    truncate: bool = True
    dimensions: int | None = None
    keep_alive: float | None = None


@dataclass(frozen=True)
class Embeddings:
    """One vector of length 1 for each input."""

    model: str
    vectors: tuple[tuple[float, ...], ...]
    prompt_tokens: int
    total_s: float
    load_s: float


# -- the answer -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Usage:
    """Tokens. `cached_tokens` of the prompt were in the slot already and have not been computed again;
    `thinking_tokens` are counted in `completion_tokens`, too."""

    prompt_tokens: int
    cached_tokens: int = 0
    completion_tokens: int = 0
    thinking_tokens: int = 0


@dataclass(frozen=True)
class Timings:
    """Seconds: all of it from the request's arrival, loading the model, waiting for a slot, prompt, answer."""

    total_s: float = 0.0
    load_s: float = 0.0
    queued_s: float = 0.0
    prompt_s: float = 0.0
    decode_s: float = 0.0


@dataclass(frozen=True)
class TokenInfo:
    """A token of the answer: its bytes may be a part of a character. `top`: the likeliest ones, best first."""

    id: int
    raw: bytes
    logprob: float
    top: tuple[TokenInfo, ...] = ()


@dataclass(frozen=True)
class Start:
    """The prompt has a slot. `cached_tokens` of its `prompt_tokens` need not be computed."""

    model: str
    prompt_tokens: int
    cached_tokens: int
    choice: int = 0


@dataclass(frozen=True)
class ThinkingDelta:
    text: str
    choice: int = 0


@dataclass(frozen=True)
class TextDelta:
    """`tokens` only where the request asked for logprobs; it may have tokens without text, and text without tokens."""

    text: str
    tokens: tuple[TokenInfo, ...] = ()
    choice: int = 0


@dataclass(frozen=True)
class ToolStart:
    """A call begins. `index` counts the calls of this answer; `id` is fresh and good for any dialect ([a-z0-9])."""

    index: int
    id: str
    name: str
    choice: int = 0


@dataclass(frozen=True)
class ToolDelta:
    """A piece of the arguments' JSON text; all pieces, joined, parse as an object."""

    index: int
    json: str
    choice: int = 0


@dataclass(frozen=True)
class ToolEnd:
    """`arguments`: what the pieces are, parsed."""

    index: int
    arguments: Json
    choice: int = 0


@dataclass(frozen=True)
class Done:
    """The last event of a choice. `context`: ids of the prompt and of the answer, for Request.context."""

    reason: DoneReason
    usage: Usage
    timings: Timings
    stop_sequence: str | None = None
    context: tuple[int, ...] = ()
    choice: int = 0


@dataclass(frozen=True)
class Failed:
    """The last event of all where something broke after the first. What breaks before it is raised as ApiError."""

    error: ApiError
    choice: int = 0


Event = Start | ThinkingDelta | TextDelta | ToolStart | ToolDelta | ToolEnd | Done | Failed


@dataclass(frozen=True)
class Answer:
    """A whole answer. `blocks` are ThinkingBlock, TextBlock and ToolCall in the order in which they came."""

    start: Start
    blocks: tuple[Block, ...]
    done: Done
    tokens: tuple[TokenInfo, ...] = ()

    @property
    def text(self) -> str:
        return "".join(block.text for block in self.blocks if isinstance(block, TextBlock))

    @property
    def thinking(self) -> str:
        return "".join(block.text for block in self.blocks if isinstance(block, ThinkingBlock))

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        return tuple(block for block in self.blocks if isinstance(block, ToolCall))


def fold(events: Iterable[Event]) -> tuple[Answer, ...]:
    """All events of a request as whole answers, in the order of their choices. Raises the error of Failed."""
    starts: dict[int, Start] = {}
    dones: dict[int, Done] = {}
    blocks: dict[int, list[Block]] = {}
    tokens: dict[int, list[TokenInfo]] = {}
    for event in events:
        if isinstance(event, Failed):
            raise event.error
        if isinstance(event, Start):
            starts[event.choice], blocks[event.choice], tokens[event.choice] = event, [], []
        elif isinstance(event, Done):
            dones[event.choice] = event
        else:
            _put(blocks[event.choice], event)
            tokens[event.choice] += event.tokens if isinstance(event, TextDelta) else ()
    return tuple(Answer(starts[i], tuple(blocks[i]), dones[i], tuple(tokens[i])) for i in sorted(dones))


def _put(blocks: list[Block], event: ThinkingDelta | TextDelta | ToolStart | ToolDelta | ToolEnd) -> None:
    """Add a piece to the last block, or begin a new one where it is of another kind."""
    last = blocks[-1] if blocks else None
    if isinstance(event, ThinkingDelta) and event.text:
        old = last.text if isinstance(last, ThinkingBlock) else ""
        blocks[len(blocks) - isinstance(last, ThinkingBlock) :] = [ThinkingBlock(old + event.text)]
    elif isinstance(event, TextDelta) and event.text:
        old = last.text if isinstance(last, TextBlock) else ""
        blocks[len(blocks) - isinstance(last, TextBlock) :] = [TextBlock(old + event.text)]
    elif isinstance(event, ToolStart):
        blocks.append(ToolCall(event.id, event.name, _NOTHING))
    elif isinstance(event, ToolEnd) and isinstance(last, ToolCall):
        blocks[-1] = replace(last, arguments=event.arguments)
