"""Write docs/api.md: every field of every request, from the tables that check it.

    python docs/make_api.py           # writes the file (`make docs`)
    python docs/make_api.py --check   # exit status 1 where it is out of step

tests/dialects/test_docs_api.py holds the committed file to this, and the tables to what the code does.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from ref_engine_app import ollama_models
from ref_engine_app.anthropic import LIST_FIELDS, blocks, incoming, turns
from ref_engine_app.fields import MAX_DEPTH, Field, ListOf, Record
from ref_engine_app.ollama import embed, options
from ref_engine_app.ollama import incoming as ollama
from ref_engine_app.openai import (
    chat_request,
    common,
    completions,
    embeddings,
    responses_items,
    responses_request,
)
from ref_engine_app.pipeline import HELD_PENALTY

TARGET = Path(__file__).with_name("api.md")
Table = tuple[str, tuple[Field, ...]]

ANTHROPIC: tuple[Table, ...] = (
    ("POST /v1/messages", incoming.FIELDS),
    ("POST /v1/messages/count_tokens", incoming.COUNT_FIELDS),
    ("GET /v1/models (query)", LIST_FIELDS),
    ("A message", turns.MESSAGE),
    *((f"A block `{name}`", fields) for name, fields in blocks.BLOCKS.items()),
    ("`source` of a document: `text`", blocks.PLAIN_SOURCE),
    ("`source` of a document: `content`", blocks.CONTENT_SOURCE),
    ("A tool", incoming.TOOL),
    ("`tool_choice`: `auto`, `any`, `none`", incoming.CHOICE),
    ("`tool_choice`: `tool`", incoming.NAMED_CHOICE),
    ("`thinking`: `enabled`", incoming.THINKING_ENABLED),
    ("`thinking`: `adaptive`", incoming.THINKING_ADAPTIVE),
)
OPENAI: tuple[Table, ...] = (
    ("POST /v1/chat/completions", chat_request.FIELDS),
    *((f"A message of role `{role}`", fields) for role, fields in chat_request.MESSAGES.items()),
    *((f"A part `{name}`", fields) for name, fields in chat_request.PARTS.items()),
    ("`function` of a call in the history", chat_request.CALLED),
    ("A tool", chat_request.TOOL),
    ("`json_schema` of a response_format", common.JSON_SCHEMA),
    ("POST /v1/completions", completions.FIELDS),
    ("POST /v1/embeddings", embeddings.FIELDS),
    ("POST /v1/responses", responses_request.FIELDS),
    *((f"An item `{name}`", fields) for name, fields in responses_items.ITEMS.items()),
    *((f"A part `{name}` of an item", fields) for name, fields in responses_items.PARTS.items()),
    ("A tool of a response", responses_request.TOOL),
)
OLLAMA: tuple[Table, ...] = (
    ("POST /api/generate", ollama.GENERATE_FIELDS),
    ("POST /api/chat", ollama.CHAT_FIELDS),
    ("A message of /api/chat", ollama.MESSAGE),
    ("A tool of /api/chat", ollama.TOOL),
    ("`options`", options.OPTIONS),
    ("POST /api/embed", embed.EMBED_FIELDS),
    ("POST /api/embeddings", embed.EMBEDDINGS_FIELDS),
    ("POST /api/show", ollama_models.SHOW_FIELDS),
    ("POST /api/copy", ollama_models.COPY_FIELDS),
    ("DELETE /api/delete", ollama_models.NAMED_FIELDS),
    ("POST /api/pull", ollama_models.PULL_FIELDS),
    ("POST /api/create", ollama_models.CREATE_FIELDS),
)

_INTRODUCTION = """\
# The API

Written by `docs/make_api.py` (`make docs`) from the tables that check the requests; do not edit it by hand.

`ref-engine serve` speaks three dialects over one engine. A request becomes a neutral one, and neutral events become the
answer; an answer that is not streamed is the fold of one that is. So temperature 0 gives the same text in each.

Every field is **honoured**, **ignored** (accepted, checked, without effect) or **refused** (an error that names it).
A field that no table names is refused, too. `null` is as good as absent. A value of a wrong type or out of range, a
body that is not JSON in UTF-8 or is nested deeper than {depth}: an error of status 400 in the dialect's own form.

What a request leaves open is taken from the model (its Modelfile's parameters), then from the dialect: Ollama's
temperature is {ollama[temperature]} with top_k {ollama[top_k]} and top_p {ollama[top_p]}, that of the others
{openai[temperature]} with top_k {openai[top_k]} and top_p {openai[top_p]}. Where a grammar holds an answer (a format, a
forced tool), repeat_penalty is {held}, or a small model would fill an open list with one word for ever; else it is 1.
"""
_ANTHROPIC = """\
## Anthropic

Client: `Anthropic(base_url="http://localhost:11434", api_key="any")`. The SDK's `anthropic-version` header is accepted;
with it, `/v1/models` answers in this dialect.

- **Turns**: the first is the user's; turns of one role in a row are joined by an empty line; every `tool_use` is
  answered by a `tool_result` in the very next turn. A last turn of the assistant is continued (prefill): not together
  with thinking or a format, and not ending in white space.
- **Events**: `message_start`, then for each block `content_block_start`, `content_block_delta`s, `content_block_stop`
  (after the first start a `ping`), then `message_delta` and `message_stop`; what breaks in between is an `error` event.
- **usage**: `input_tokens + cache_creation_input_tokens + cache_read_input_tokens` is what `count_tokens` says.
  `cache_read_input_tokens` were in the cache of an earlier request and have not been computed again, with or without
  `cache_control`; where a request has a `cache_control`, the others count as `cache_creation_input_tokens`.
- **thinking**: a `signature` holds the thinking itself, packed, so that it survives `display: "omitted"`. It is no
  proof of anything and is not checked.
- **stop_reason**: `end_turn`, `max_tokens` (also at the end of the context), `stop_sequence`, `tool_use`.
- **Errors**: `invalid_request_error` 400, `authentication_error` 401, `permission_error` 403, `not_found_error` 404,
  `request_too_large` 413, `api_error` 500, `overloaded_error` 503 (with `Retry-After`).
- Blocks of tools that run on Anthropic's servers are refused by their type: {elsewhere}.
"""
_OPENAI = """\
## OpenAI

Client: `OpenAI(base_url="http://localhost:11434/v1", api_key="any")`.

- **Chat**: a last message of the assistant is continued, as Ollama does. Thinking comes as `reasoning`, in messages
  and in deltas. A call's arguments come in pieces.
- **Completions**: the prompt is raw: no chat template.
- **Embeddings**: the last hidden states as the model's file says they are pooled (their mean, the first or the last
  of them), the last one where it does not say; of length 1.
- **Responses**: without state: nothing is stored, so `previous_response_id` and `conversation` are refused. Reasoning
  is an item of its own, as `reasoning_text`, or as its summary where one is asked for.
- **finish_reason**: `stop`, `length` (also at the end of the context), `tool_calls`.
- **Errors**: `invalid_request_error` 400 and 404, `authentication_error` 401, `permission_error` 403, `server_error`
  500, `overloaded_error` 503 (with `Retry-After`); `param` names the field.
- Items of tools that are not functions are refused by their type: {items}.
"""
_OLLAMA = """\
## Ollama

Client: `ollama.Client("http://localhost:11434")`, or `OLLAMA_HOST`. Streams are lines of JSON, durations nanoseconds.

- **Templates** are Jinja, as in model files; Ollama's are Go templates.
- `think` on a model that does not think has no effect (Ollama: an error).
- An answer ends with done_reason `length` where the context ends; nothing is shifted.
- Errors are `{{"error": "..."}}` with the status; in a stream a line of that form.
- Without fields: `GET /`, `/api/version`, `/api/tags`, `/api/ps`; `HEAD` and `POST /api/blobs/sha256:...` (the body is
  the file). `POST /api/push` is refused: this server uploads models nowhere.

## Operations

`GET /healthz` says that the server is there, `GET /metrics` gives figures for Prometheus. With `--api-key` every
address but `/` and `/healthz` needs it, as `Authorization: Bearer` or `x-api-key`. A browser's foreign `Origin`, and a
`Host` that is not this machine's, are refused with 403 as Ollama does. Every answer has a `request-id`.
"""


def render() -> str:
    """The whole of docs/api.md."""
    defaults = {"ollama": options.DEFAULTS, "openai": common.DEFAULTS, "held": HELD_PENALTY}
    head = _INTRODUCTION.format(depth=MAX_DEPTH, **defaults)
    names = ", ".join(f"`{name}`" for name in blocks.ELSEWHERE)
    items = ", ".join(f"`{name}`" for name in responses_items.ELSEWHERE)
    parts = [
        head,
        _ANTHROPIC.format(elsewhere=names),
        *map(_section, ANTHROPIC),
        _OPENAI.format(items=items),
        *map(_section, OPENAI),
        _OLLAMA.format(),
        *map(_section, OLLAMA),
    ]
    return "\n".join(parts)


def _section(table: Table) -> str:
    title, fields = table
    lines = [f"### {title}", "", "| field | takes | | |", "|---|---|---|---|", *_rows(fields, "")]
    return "\n".join(lines) + "\n"


def _rows(fields: tuple[Field, ...], before: str) -> Iterator[str]:
    for field in fields:
        note = f"{'required; ' if field.required else ''}{field.note}".removesuffix("; ")
        yield f"| `{before}{field.name}` | {field.check.says} | {field.use} | {note} |"
        if isinstance(field.check, Record):
            yield from _rows(field.check.fields, f"{before}{field.name}.")
        elif isinstance(field.check, ListOf) and isinstance(field.check.item, Record):
            yield from _rows(field.check.item.fields, f"{before}{field.name}[].")


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        if not TARGET.exists() or TARGET.read_text(encoding="utf-8") != render():
            sys.exit("docs/api.md is out of step: make docs")
    else:
        temporary = TARGET.with_suffix(".tmp")
        temporary.write_text(render(), encoding="utf-8")
        temporary.replace(TARGET)
