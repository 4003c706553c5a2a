"""Golden data of chat templates: what Hugging Face transformers renders.

    python golden/make/chat.py --templates FOLDER [--out golden/chat]

FOLDER holds the .jinja templates of real models, `models/templates` of llama.cpp's source; they are not kept
here, so their results are keyed by the template's sha256. The templates in golden/chat/templates are our own.
Every template is rendered for every conversation; `strftime_now` reads a fixed clock.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import transformers
from transformers.utils import chat_template_utils

NOW = datetime(2025, 3, 4, 5, 6, 7)
TOKENS = {"bos_token": "<bos>", "eos_token": "<eos>"}
KEEP = 300  # characters of a real template's result that are kept as text; longer ones as length and sha256

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city, now & later: <b>°C</b> or °F.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": 'Name, e.g. "Köln"'},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"], "default": "celsius"},
                "days": {"type": "array", "items": {"type": "integer"}, "description": "Days ahead"},
            },
            "required": ["city"],
        },
    },
}
CLOCK = {
    "type": "function",
    "function": {
        "name": "clock",
        "description": "Time of day",
        "parameters": {"type": "object", "properties": {}, "required": []},
    },
}


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


def call(number: int, name: str, arguments: Any) -> dict[str, Any]:
    return {"id": f"call{number:05d}", "type": "function", "function": {"name": name, "arguments": arguments}}


def result(number: int, name: str, content: Any) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": f"call{number:05d}", "name": name, "content": content}


SYSTEM = {"role": "system", "content": "You are a pirate.\nAnswer in rhyme."}
COLOGNE = {"city": "Köln", "unit": "celsius", "days": [1, 2]}


def asked(arguments: Any) -> list[dict[str, Any]]:
    """A question, a call of a tool, its result and the answer."""
    return [
        SYSTEM,
        user("Weather in Köln?"),
        assistant("", tool_calls=[call(1, "get_weather", arguments)]),
        result(1, "get_weather", '{"temp": 21.5}'),
        assistant("Arr, 21.5 degrees."),
        user("And the time?"),
    ]


CONVERSATIONS: dict[str, dict[str, Any]] = {
    "user": {"messages": [user("Hello, who are you?")]},
    "user-no-prompt": {"messages": [user("Hello, who are you?")], "add_generation_prompt": False},
    "system": {"messages": [SYSTEM, user("  Hi there!\n")]},
    "turns": {"messages": [SYSTEM, user("1+1?"), assistant("2"), user("2+2?"), assistant("4"), user("So?")]},
    "finished": {"messages": [user("1+1?"), assistant("2")], "add_generation_prompt": False},
    "empty": {"messages": []},
    "two-users": {"messages": [user("one"), user("two")]},
    "unknown-role": {"messages": [user("one"), {"role": "critic", "content": "no"}]},
    "unicode": {
        "messages": [
            user("日本語 ключ 😀 \u00a0 <|im_end|> {{ 7 * 7 }} &<>'\""),
            assistant("naïve\r\n\tx"),
            user("é"),
        ]
    },
    "parts": {
        "messages": [
            {"role": "system", "content": [{"type": "text", "text": "Look."}]},
            user([{"type": "text", "text": "What is "}, {"type": "text", "text": "this?"}]),
        ]
    },
    "image": {"messages": [user([{"type": "image"}, {"type": "text", "text": "Describe."}])]},
    "thinking": {
        "messages": [
            user("1+1?"),
            assistant("2", reasoning_content="One and one.\n"),
            user("Sure?"),
        ],
        "enable_thinking": True,
    },
    "think-tags": {
        "messages": [user("a"), assistant("<think>\nhm\n</think>\n\nb"), user("c")],
        "enable_thinking": False,
    },
    "thinking-off": {"messages": [SYSTEM, user("1+1?")], "enable_thinking": False, "thinking": False},
    "effort": {"messages": [user("1+1?")], "reasoning_effort": "high", "thinking": True},
    "tools": {"messages": [user("Weather?")], "tools": [WEATHER, CLOCK]},
    "tool-turn": {"messages": asked(COLOGNE), "tools": [WEATHER, CLOCK]},
    "tool-turn-text": {"messages": asked(json.dumps(COLOGNE)), "tools": [WEATHER]},
    "tool-result-last": {"messages": asked(COLOGNE)[:4], "tools": [WEATHER]},
    "tool-parallel": {
        "messages": [
            user("Weather and time?"),
            assistant(
                None,
                reasoning="Two calls.",
                tool_calls=[call(1, "get_weather", {"city": "Oslo"}), call(2, "clock", {})],
            ),
            result(1, "get_weather", "rain"),
            result(2, "clock", "12:00"),
        ],
        "tools": [WEATHER, CLOCK],
    },
    "documents": {
        "messages": [user("What grows?")],
        "documents": [
            {"title": "Trees", "text": "Oaks\ngrow.", "doc_id": "1"},
            {"title": "Stones", "text": "They <do> not.", "doc_id": "2"},
        ],
    },
}


class PinnedDatetime(datetime):
    @classmethod
    def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
        return NOW


def render(source: str, conversation: dict[str, Any]) -> dict[str, Any]:
    """{"text": ...} or {"error": type of the exception}."""
    variables = {**TOKENS, "add_generation_prompt": True, **conversation}
    messages = variables.pop("messages")
    try:
        texts, _ = chat_template_utils.render_jinja_template([messages], chat_template=source, **variables)
    except Exception as error:  # noqa: BLE001  (what a template raises is the result)
        return {"error": type(error).__name__}
    return {"text": texts[0]}


def shortened(outcome: dict[str, Any]) -> dict[str, Any]:
    text = outcome.get("text")
    if text is None or len(text) <= KEEP:
        return outcome
    return {"length": len(text), "sha256": hashlib.sha256(text.encode()).hexdigest()}


def write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--templates", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent.parent / "chat")
    args = parser.parse_args()
    chat_template_utils.datetime = PinnedDatetime
    own = {
        path.name: {name: render(path.read_text(encoding="utf-8"), c) for name, c in CONVERSATIONS.items()}
        for path in sorted((args.out / "templates").glob("*.jinja"))
    }
    real = {}
    for path in sorted(args.templates.glob("*.jinja")):
        source = path.read_bytes().decode("utf-8")
        cases = {name: shortened(render(source, c)) for name, c in CONVERSATIONS.items()}
        real[path.name] = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "cases": cases}
    write(args.out / "conversations.json", {"now": NOW.isoformat(), **TOKENS, "conversations": CONVERSATIONS})
    write(args.out / "own.json", own)
    write(args.out / "real.json", real)
    exact = {"seed": None, "tolerance": "exact"}
    facts = {
        "made_by": "golden/make/chat.py",
        "producer": "transformers",
        "version": f"{transformers.__version__} (jinja2 {jinja2.__version__})",
        "files": {
            "conversations.json": {
                **exact,
                "note": "messages, tools and variables; the clock of strftime_now",
            },
            "own.json": {**exact, "note": "our templates, results in full"},
            "real.json": {
                **exact,
                "note": f"llama.cpp's models/templates by sha256; results over {KEEP} characters as sha256",
            },
            "templates/*.jinja": {
                **exact,
                "producer": "ref-engine",
                "version": "1",
                "note": "templates written for these tests",
            },
        },
    }
    write(args.out / "facts.json", facts)


if __name__ == "__main__":
    main()
