"""A running server, as what is verified: plain completions through Ollama's or OpenAI's API, at temperature 0.

Every answer has a time limit and a size limit as a whole, and every field is checked before it is used: what a server
says is input like any other.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from typing import Any, Literal

import requests

from ref_engine.errors import RefEngineError


class Refused(RefEngineError):
    """A status that says that the request is at fault."""


Dialect = Literal["ollama", "openai"]
_LARGEST = 8 << 20  # bytes of an answer
_TOP = 5


@dataclass(frozen=True)
class Said:
    """A token of an answer: its bytes as far as the server tells, ln of its probability, and of others there."""

    raw: bytes
    logprob: float
    top: tuple[tuple[bytes, float], ...]
    id: int | None = None


@dataclass(frozen=True)
class Reply:
    """What a server answered. None is what it did not tell."""

    text: str
    reason: str | None  # why it ended: stop, length
    said: tuple[Said, ...] | None
    n_prompt: int | None
    n_tokens: int | None


@dataclass(frozen=True)
class Server:
    url: str  # without a slash at its end
    dialect: Dialect
    model: str
    timeout: float  # seconds for a whole answer

    def complete(self, prompt: str, n: int) -> Reply:
        """Continue a text by n tokens, the best at each step. Raises RefEngineError for whatever goes wrong."""
        if self.dialect == "ollama":
            options = {"temperature": 0, "num_predict": n, "seed": 1, "repeat_penalty": 1.0}
            body = {"prompt": prompt, "raw": True, "stream": False, "options": options}
            body |= {"logprobs": True, "top_logprobs": _TOP}
            return _ollama_reply(self._post("/api/generate", body))
        body = {"prompt": prompt, "max_tokens": n, "temperature": 0, "seed": 1, "logprobs": _TOP}
        try:  # llama-cpp-python's default penalises repetition at temperature 0, too
            found = self._post("/v1/completions", {**body, "repeat_penalty": 1.0})
        except Refused:  # OpenAI has no such field
            found = self._post("/v1/completions", body)
        return _openai_reply(found)

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return fetch("POST", self.url + path, self.timeout, {"model": self.model, **body})


def find_server(url: str, dialect: str, model: str, timeout: float) -> Server:
    """The server at an address; with dialect "auto" it is asked what it speaks. Raises RefEngineError."""
    url = url.rstrip("/").removesuffix("/v1")
    if not url.startswith(("http://", "https://")):
        raise RefEngineError(f"--server {url!r}: an address begins with http:// or https://")
    if dialect in ("ollama", "openai"):
        return Server(url, "ollama" if dialect == "ollama" else "openai", model, timeout)
    faults = []
    for path, field, name in (("/api/version", "version", "ollama"), ("/v1/models", "data", "openai")):
        try:
            if field in fetch("GET", url + path, timeout):
                return Server(url, "ollama" if name == "ollama" else "openai", model, timeout)
            faults.append(f"{path} says nothing of {field}")
        except RefEngineError as error:
            faults.append(str(error))
    raise RefEngineError(f"{url} speaks neither Ollama's nor OpenAI's dialect: {'; '.join(faults)}")


def fetch(method: str, url: str, timeout: float, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """A JSON object. Raises RefEngineError for no answer in time, a status that is not 200, and what is no object."""
    until = time.monotonic() + timeout
    try:
        with requests.request(method, url, json=body, timeout=timeout, stream=True, allow_redirects=False) as answer:
            data = b""
            for piece in answer.iter_content(65536):
                data += piece
                if len(data) > _LARGEST:
                    raise RefEngineError(f"{url} answered with more than {_LARGEST >> 20} MB")
                if time.monotonic() > until:
                    raise RefEngineError(f"{url} had not answered in full after {timeout:g} s")
    except requests.Timeout:
        raise RefEngineError(f"{url} gave no answer within {timeout:g} s") from None
    except requests.RequestException as error:
        raise RefEngineError(f"{url} cannot be reached: {_reason(error)}") from None
    text = data.decode("utf-8", "replace")
    if answer.status_code != 200:
        kind = Refused if answer.status_code in (400, 422) else RefEngineError
        raise kind(f"{url} answered {answer.status_code}: {' '.join(text.split())[:200]}")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise RefEngineError(f"{url} answered with what is no JSON object: {' '.join(text.split())[:100]!r}")
    return found


def _reason(error: Exception) -> str:
    """The innermost cause, which says it in the fewest words."""
    inner: BaseException = error
    while inner.__cause__ or inner.__context__:
        inner = inner.__cause__ or inner.__context__ or inner
    return " ".join(str(inner).split())[:200] or type(inner).__name__


# -- answers ------------------------------------------------------------------------------------------------------


def _ollama_reply(body: dict[str, Any]) -> Reply:
    said = body.get("logprobs")
    return Reply(
        text=_text(body.get("response"), "response"),
        reason=_word(body.get("done_reason")),
        said=tuple(_one(entry) for entry in said) if isinstance(said, list) and said else None,
        n_prompt=_count(body.get("prompt_eval_count"), "prompt_eval_count"),
        n_tokens=_count(body.get("eval_count"), "eval_count"),
    )


def _openai_reply(body: dict[str, Any]) -> Reply:
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise RefEngineError("the server's answer has no choices")
    choice, usage = choices[0], body.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    return Reply(
        text=_text(choice.get("text"), "choices[0].text"),
        reason=_word(choice.get("finish_reason")),
        said=_openai_said(choice.get("logprobs")),
        n_prompt=_count(usage.get("prompt_tokens"), "usage.prompt_tokens"),
        n_tokens=_count(usage.get("completion_tokens"), "usage.completion_tokens"),
    )


def _openai_said(logprobs: Any) -> tuple[Said, ...] | None:
    """The older form of parallel lists (OpenAI, vLLM), or a list under `content` as of chats (llama-server)."""
    if not isinstance(logprobs, dict):
        return None
    if isinstance(logprobs.get("content"), list):
        return tuple(_one(entry) for entry in logprobs["content"]) or None
    tokens, values, tops = (logprobs.get(key) for key in ("tokens", "token_logprobs", "top_logprobs"))
    if not isinstance(tokens, list) or not isinstance(values, list) or len(tokens) != len(values) or not tokens:
        return None
    said = []
    for i, (token, value) in enumerate(zip(tokens, values, strict=True)):
        top = tops[i] if isinstance(tops, list) and i < len(tops) and isinstance(tops[i], dict) else {}
        others = tuple((str(text).encode(), _number(each, "top_logprobs")) for text, each in top.items())
        said.append(Said(_text(token, "a token").encode(), _number(value, "token_logprobs"), others))
    return tuple(said)


def _one(entry: Any) -> Said:
    """{"token", "logprob", "bytes"?, "id"?, "top_logprobs"?: [the same]}"""
    if not isinstance(entry, dict):
        raise RefEngineError("the server's logprobs are no list of objects")
    top = entry.get("top_logprobs")
    others = [_one(each) for each in top] if isinstance(top, list) else []
    id = entry.get("id")
    return Said(
        _bytes(entry),
        _number(entry.get("logprob"), "logprob"),
        tuple((other.raw, other.logprob) for other in others),
        id if isinstance(id, int) and not isinstance(id, bool) else None,
    )


def _bytes(entry: dict[str, Any]) -> bytes:
    """Of a token: half a character cannot be told as text, so its bytes count where they are given."""
    raw = entry.get("bytes")
    if isinstance(raw, list) and all(isinstance(b, int) and 0 <= b < 256 for b in raw):
        return bytes(raw)
    return _text(entry.get("token"), "a token").encode()


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise RefEngineError(f"the server's answer has no text as {what}")
    return value


def _word(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _count(value: Any, what: str) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise RefEngineError(f"the server's {what} is {str(value)[:50]}, which is no count")
    return value


def _number(value: Any, what: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or math.isnan(value):
        raise RefEngineError(f"the server's {what} holds {str(value)[:50]}, which is no number")
    return float(value)
