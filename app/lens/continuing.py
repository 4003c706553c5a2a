"""A text that goes on from exactly the tokens that were given, told token by token."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ..messages import Done, Event, Failed, Request, TextDelta, TokenInfo
from .incoming import Look
from .outgoing import Json, number

_MOST = 128
_TOP = 5
_SAMPLING = ("temperature", "top_p", "top_k", "seed")


def request_of(look: Look) -> Request:
    """The neutral request: the likeliest token each time, unless the request or the model says otherwise."""
    assert look.text is not None
    values = look.values
    sampling: dict[str, Any] = {name: values[name] for name in _SAMPLING if name in values}
    return replace(
        look.text,
        sampling=sampling,
        defaults={"temperature": 0.0},
        max_tokens=values.get("max_tokens", _MOST),
        logprobs=values.get("top", _TOP),
        stream=True,
    )


def lines(events: Iterator[Event]) -> Iterator[Json]:
    """One for each token, and one at the end. `delta`: the text that is certain by then; all of them are the answer."""
    late, n = "", 0
    for event in events:
        if isinstance(event, TextDelta):
            for info in event.tokens:
                n += 1
                last = info is event.tokens[-1]
                yield {**_token(info), "delta": event.text if last else "", "top": [_token(t) for t in info.top]}
            late += "" if event.tokens else event.text
        elif isinstance(event, Done):
            yield {"done": True, "reason": event.reason, "delta": late, "tokens": n}
        elif isinstance(event, Failed):
            yield {"error": event.error.message}


def _token(info: TokenInfo) -> Json:
    text = info.raw.decode("utf-8", "replace")
    whole = {} if text.encode() == info.raw else {"bytes": list(info.raw)}
    return {"id": info.id, "text": text, **whole, "logprob": number(info.logprob)}
