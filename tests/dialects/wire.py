"""What comes over the wire, taken apart: server-sent events, lines of JSON, and ids that differ each time."""

from __future__ import annotations

import json
import re
from typing import Any

from flask.testing import FlaskClient

_FRESH = re.compile(r"\b(msg|chatcmpl|cmpl|resp|rs|fc|req)([_-])[0-9a-f]{24}\b")
_TIMES = re.compile(r'"(created|created_at|completed_at)":(\d+(\.\d+)?|"[^"]*")')


def clean(text: str) -> str:
    """Fresh ids as msg_ID, times as 0."""
    return _TIMES.sub(r'"\1":0', _FRESH.sub(r"\1\2ID", text))


def post(client: FlaskClient, path: str, body: dict[str, Any]) -> str:
    """The whole text of an answer that must be a success, cleaned."""
    response = client.post(path, json=body)
    text = response.get_data(as_text=True)
    assert response.status_code == 200, text
    return clean(text)


def sse(text: str) -> list[tuple[str | None, Any]]:
    """Events as a reader of the WHATWG standard sees them: name, and data as JSON (or as it is, such as [DONE])."""
    assert text.endswith("\n\n")
    events = []
    for block in text[:-2].split("\n\n"):
        name, data = None, []
        for line in block.split("\n"):
            field, _, value = line.partition(": ")
            assert field in ("event", "data"), line
            if field == "event":
                name = value
            else:
                data.append(value)
        joined = "\n".join(data)
        events.append((name, json.loads(joined) if joined.startswith("{") else joined))
    return events


def ndjson(text: str) -> list[Any]:
    assert text.endswith("\n")
    return [json.loads(line) for line in text[:-1].split("\n")]
