"""The order of turns, as the Messages API has it: who speaks first, who answers whom, what is continued."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..fields import HONOURED, Anything, Field, Invalid, OneOf, join, kind, read, shown
from ..messages import Block, Message, TextBlock, ToolCall, ToolResult
from .blocks import ASSISTANT, SYSTEM, USER, Reader, blocks_of

MAX_MESSAGES = 100_000
MESSAGE = (
    Field("role", OneOf(("user", "assistant", "system")), HONOURED, "the first one is the user's", required=True),
    Field("content", Anything("string or list of blocks"), HONOURED, required=True),
)
_READERS: Mapping[str, Mapping[str, Reader]] = {"user": USER, "assistant": ASSISTANT, "system": SYSTEM}


@dataclass(frozen=True)
class Conversation:
    """`prefill`: the last message is the assistant's, to be continued."""

    messages: tuple[Message, ...]
    prefill: bool


@dataclass
class _Turn:
    role: Any
    where: str
    blocks: list[Block] = field(default_factory=list)


def system(value: object, where: str) -> tuple[Message, ...]:
    """The system prompt, a string or text blocks, as no message or one."""
    blocks = blocks_of(value, where, SYSTEM)
    return (Message("system", tuple(blocks)),) if blocks else ()


def turns(value: object, where: str) -> Conversation:
    """The messages, checked against each other: turns of one role are joined, each tool call has its result next."""
    if not isinstance(value, list):
        raise Invalid(where, f"must be a list, not {kind(value)}")
    if not 1 <= len(value) <= MAX_MESSAGES:
        raise Invalid(where, f"must have 1 to {MAX_MESSAGES} entries, not {len(value)}")
    joined: list[_Turn] = []
    for i, item in enumerate(value):
        _add(joined, item, join(where, i), last=i == len(value) - 1)
    first = next((turn for turn in joined if turn.role != "system"), None)
    if first is None or first.role != "user":
        raise Invalid(where if first is None else f"{first.where}.role", 'the first message must be the "user"\'s')
    prefill = _check_prefill(joined)
    _check_calls(joined)
    return Conversation(tuple(message for turn in joined for message in _messages(turn)), prefill)


def _add(joined: list[_Turn], item: object, where: str, last: bool) -> None:
    fields = read(item, MESSAGE, where)
    role = fields["role"]
    blocks = blocks_of(fields["content"], f"{where}.content", _READERS[role])
    if not blocks and not fields["content"]:
        if last and role == "assistant":
            return  # an empty prefill is none
        raise Invalid(f"{where}.content", "must not be empty")
    if joined and joined[-1].role == role:
        apart = [TextBlock("\n\n")] if _is_text(joined[-1].blocks[-1:]) and _is_text(blocks[:1]) else []
        joined[-1].blocks += [*apart, *blocks]
    else:
        joined.append(_Turn(role, where, blocks))


def _is_text(blocks: list[Block]) -> bool:
    return any(isinstance(block, TextBlock) for block in blocks)


def _check_prefill(joined: list[_Turn]) -> bool:
    turn = joined[-1]
    if turn.role != "assistant" or not _is_text(turn.blocks[-1:]):
        return False
    text = turn.blocks[-1]
    if isinstance(text, TextBlock) and text.text != text.text.rstrip():
        raise Invalid(f"{turn.where}.content", "the text to be continued must not end with white space")
    return True


def _check_calls(joined: list[_Turn]) -> None:
    """Every tool_use is answered in the very next turn, and every tool_result answers one of the turn before."""
    seen: set[str] = set()
    waiting: list[str] = []
    spoken = [turn for turn in joined if turn.role != "system"]
    for turn in spoken:
        results = [block for block in turn.blocks if isinstance(block, ToolResult)]
        for result in results:
            if result.id not in waiting:
                raise Invalid(
                    f"{turn.where}.content",
                    f"the tool_result for {shown(result.id)} has no tool_use in the message before, or is there twice",
                )
            waiting.remove(result.id)
        if waiting:
            raise Invalid(f"{turn.where}.content", f"lacks a tool_result for the tool_use {shown(waiting[0])}")
        for block in turn.blocks:
            if isinstance(block, ToolCall):
                if block.id in seen:
                    raise Invalid(f"{turn.where}.content", f"the tool_use id {shown(block.id)} is there twice")
                seen.add(block.id)
                waiting.append(block.id)
    if waiting:
        raise Invalid(f"{spoken[-1].where}.content", f"the tool_use {shown(waiting[0])} has no tool_result after it")


def _messages(turn: _Turn) -> list[Message]:
    """A user's turn may hold what tools answered: that is said first, by them."""
    results = tuple(block for block in turn.blocks if isinstance(block, ToolResult))
    rest = tuple(block for block in turn.blocks if not isinstance(block, ToolResult))
    messages = [Message("tool", results)] if results else []
    return [*messages, Message(turn.role, rest)] if rest else messages
