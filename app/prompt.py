"""From a neutral request to the ids of a prompt: the model's own template, with what it does not know worked around."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ref_engine.errors import ContextFull
from ref_engine.library.modelfile import is_jinja
from ref_engine.text.chat import Capabilities, ChatTemplate, probe

from .errors import ApiError
from .library import Own
from .messages import ImageBlock, Message, Request, TextBlock, ThinkingBlock, ToolCall, ToolResult
from .resident import Resident

Json = dict[str, Any]
_FIM = (("fim_pre", "prefix"), ("fim_suf", "suffix"), ("fim_mid", "middle"))  # key of the file, and its older name


@dataclass(frozen=True)
class Prompt:
    """Token ids, and the text that they are of. `prefill`: what of the answer is in the prompt already."""

    ids: tuple[int, ...]
    text: str
    prefill: str = ""


def make_prompt(request: Request, resident: Resident, own: Own, room: int) -> Prompt:
    """The prompt of a request. room: tokens that it may have, for requests that ask to be truncated.

    Raises ApiError, and TemplateError where the template of the model refuses the conversation.
    """
    if request.prompt is not None:
        return _raw(request, resident)
    messages = _with_own(request, resident, own)
    prompt = _chat(request, resident, own, messages)
    if len(prompt.ids) <= room or not request.truncate:
        return prompt
    return _truncated(request, resident, own, messages, room)


# -- raw prompts ----------------------------------------------------------------------------------------------


def _raw(request: Request, resident: Resident) -> Prompt:
    prompt, tokenizer = request.prompt, resident.tokenizer
    if request.suffix is not None:
        return Prompt(_fill_in(resident, prompt if isinstance(prompt, str) else "", request.suffix), "")
    if isinstance(prompt, str):
        ids = tokenizer.encode(prompt, add_special=not request.context)
        text = prompt
    else:
        ids = list(prompt or ())
        for id in ids:
            if not 0 <= id < tokenizer.n_vocab:
                raise ApiError("invalid", f"token {id} is outside the vocabulary of {tokenizer.n_vocab}", "prompt")
        text = tokenizer.decode(ids) if request.echo else ""
    if not ids and not request.context:
        raise ApiError("invalid", "the prompt is empty, and this model needs a token to start from", "prompt")
    return Prompt((*_context(request, resident), *ids), text)


def _fill_in(resident: Resident, before: str, after: str) -> tuple[int, ...]:
    """Ids for a gap between two texts, as llama.cpp's `/infill` orders them: prefix, suffix, middle."""
    metadata, tokenizer = resident.model.metadata, resident.tokenizer
    marks = []
    for new, old in _FIM:
        id = metadata.get(f"tokenizer.ggml.{new}_token_id", metadata.get(f"tokenizer.ggml.{old}_token_id"))
        if not isinstance(id, int) or not 0 <= id < tokenizer.n_vocab:
            raise ApiError("unsupported", "this model does not fill in the middle: it has no tokens for that", "suffix")
        marks.append(id)
    first, second = (tokenizer.encode(text, add_special=False, parse_special=False) for text in (before, after))
    return (*resident.lead, marks[0], *first, marks[1], *second, marks[2])


def _context(request: Request, resident: Resident) -> tuple[int, ...]:
    for id in request.context:
        if not 0 <= id < resident.tokenizer.n_vocab:
            raise ApiError("invalid", f"token {id} is outside the vocabulary", "context")
    return request.context


# -- conversations --------------------------------------------------------------------------------------------


def _with_own(request: Request, resident: Resident, own: Own) -> list[Message]:
    """The conversation behind what the model's manifest begins every one with."""
    messages = list(request.messages)
    system = own.system
    if system is None and resident.preset is not None:
        system = resident.preset.system
    if request.context:  # it goes on, and has all that already
        return messages
    if system is not None and not any(message.role == "system" for message in messages):
        return [Message("system", (TextBlock(system),)), *own.messages, *messages]
    lead = sum(1 for _ in _leading(messages))
    return [*messages[:lead], *own.messages, *messages[lead:]]


def _leading(messages: Sequence[Message]) -> Sequence[Message]:
    n = next((i for i, message in enumerate(messages) if message.role != "system"), len(messages))
    return messages[:n]


def _chat(request: Request, resident: Resident, own: Own, messages: Sequence[Message]) -> Prompt:
    template, can = _template(request, resident, own)
    prefill = messages[-1].text if request.prefill else ""
    turns = as_template_messages(messages[:-1] if request.prefill else messages)
    tools = request.tools if request.tool_choice.mode != "none" else ()
    prepared = resident.format.prepare(turns, tools, can, template.source)
    turns = prepared.messages if can.system else _without_system(prepared.messages)
    text = template.render(turns, tools=prepared.tools, **{**prepared.extra, **_switches(request)})
    text = _thinking_settled(request, resident, text, bool(prefill)) + prefill
    ids = resident.tokenizer.encode(text, add_special=False)
    lead = resident.lead
    if request.context:
        ids = [*_context(request, resident), *(ids[len(lead) :] if lead and ids[: len(lead)] == lead else ids)]
    elif ids[: len(lead)] != lead:  # a template may write BOS itself
        ids = lead + ids
    return Prompt(tuple(ids), text, prefill)


def _template(request: Request, resident: Resident, own: Own) -> tuple[ChatTemplate, Capabilities]:
    source = request.template if request.template is not None else own.template
    if source is None or not is_jinja(source):
        if request.template is not None:
            raise ApiError("unsupported", "templates in Go's language are not read; write it in Jinja", "template")
        return resident.template, resident.capabilities
    template = ChatTemplate(source, resident.template.bos_token, resident.template.eos_token)
    return template, probe(template)


def _switches(request: Request) -> Json:
    """Variables by which templates turn thinking on and off (Qwen, DeepSeek, Granite; gpt-oss has degrees)."""
    switches: Json = dict(request.template_args)
    if request.thinking.enabled is not None:
        switches.setdefault("enable_thinking", request.thinking.enabled)
        switches.setdefault("thinking", request.thinking.enabled)
    if request.thinking.effort is not None:
        switches.setdefault("reasoning_effort", request.thinking.effort)
    for name in ("messages", "tools", "documents", "add_generation_prompt"):
        if name in switches:
            raise ApiError("invalid", f"the template's {name} cannot be set", "chat_template_kwargs")
    return switches


def _thinking_settled(request: Request, resident: Resident, text: str, prefilled: bool) -> str:
    """Thinking opened where an answer that must obey a grammar is to begin with it, closed where it is not wanted."""
    format, wanted = resident.format, request.thinking
    tags = format.thinking
    if tags is None or format.on_channels:  # on channels the grammar of the answer has thinking in it
        return text
    if format.thinking_open(text):
        unwanted = wanted.enabled is False or wanted.budget == 0 or prefilled
        return text + tags.end + tags.after if unwanted else text
    constrained = request.output is not None or request.tool_choice.mode in ("any", "tool")
    if wanted.enabled and wanted.budget != 0 and constrained and not prefilled:
        return text + tags.begin + ("\n" if tags.after else "")
    return text


def as_template_messages(messages: Sequence[Message]) -> list[Json]:
    """Messages in OpenAI's form, with the arguments of calls as mappings."""
    names = {b.id: b.name for m in messages for b in m.blocks if isinstance(b, ToolCall) and b.id}
    turns: list[Json] = []
    for message in messages:
        calls: list[Json] = []
        thoughts = ""
        for block in message.blocks:
            if isinstance(block, ImageBlock):
                raise ApiError("unsupported", f"{block.source}: images are not supported, no model here sees")
            if isinstance(block, ThinkingBlock):
                thoughts += block.text
            if isinstance(block, ToolCall):
                function = {"name": block.name, "arguments": dict(block.arguments)}
                calls.append({"id": block.id, "type": "function", "function": function})
            if isinstance(block, ToolResult):
                name = block.name or names.get(block.id, "")
                text = f"Error: {block.text}" if block.is_error else block.text
                turns.append({"role": "tool", "content": text, "tool_call_id": block.id, "name": name})
        turn: Json = {"role": message.role, "content": message.text}
        if calls:
            turn["tool_calls"] = calls
        if thoughts:
            turn["reasoning_content"] = thoughts
        only_results = all(isinstance(block, ToolResult) for block in message.blocks)
        if not (message.blocks and only_results):
            turns.append(turn)
    return turns


def _without_system(turns: Sequence[Json]) -> list[Json]:
    """For templates that have no system role: its text before that of the first user message."""
    texts = [turn["content"] for turn in turns if turn["role"] == "system" and turn["content"]]
    others = [turn for turn in turns if turn["role"] != "system"]
    if not texts:
        return others
    if not others or others[0]["role"] != "user":
        return [{"role": "user", "content": "\n\n".join(texts)}, *others]
    return [{**others[0], "content": "\n\n".join([*texts, others[0]["content"]])}, *others[1:]]


def _truncated(request: Request, resident: Resident, own: Own, messages: Sequence[Message], room: int) -> Prompt:
    """Without as many of the oldest turns as it takes. System messages stay, and so does the last turn of the user.

    Raises ContextFull where that is still too long.
    """
    lead = list(_leading(messages))
    rest = messages[len(lead) :]
    begins = [i for i, message in enumerate(rest) if message.role == "user"] or [0]

    def dropped(n: int) -> Prompt:
        return _chat(request, resident, own, [*lead, *rest[begins[n] :]])

    n = bisect_left(range(len(begins)), True, key=lambda i: len(dropped(i).ids) <= room)
    if n == len(begins):
        n_ids = len(dropped(n - 1).ids)
        raise ContextFull(f"the last message and the system prompt have {n_ids} tokens, there is room for {room}")
    return dropped(n)
