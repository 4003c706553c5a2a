"""Asking a server that is running."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit

from ref_engine.errors import RefEngineError

_PORT = 11434


class ServerError(RefEngineError):
    """There is no server, or it refuses."""


def address() -> tuple[str, int]:
    """Host and port: $REF_ENGINE_HOST, else $OLLAMA_HOST, else 127.0.0.1:11434. Raises ServerError for nonsense."""
    text = (os.environ.get("REF_ENGINE_HOST") or os.environ.get("OLLAMA_HOST") or "").strip().strip("\"'")
    try:
        parts = urlsplit(text if "://" in text else f"//{text}")
        default = {"http": 80, "https": 443}.get(parts.scheme, _PORT)
        return parts.hostname or "127.0.0.1", parts.port if parts.port is not None else default
    except ValueError:
        raise ServerError(f"REF_ENGINE_HOST {text[:100]!r} is not an address") from None


def ask(method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """The JSON answer of the server. Raises ServerError with what went wrong."""
    import requests

    host, port = address()
    host = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    key = os.environ.get("REF_ENGINE_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    session = requests.Session()
    session.trust_env = False  # a proxy is not the way to a server of one's own
    try:
        response = session.request(method, f"{url}{path}", json=body, headers=headers, timeout=60)
        answer = response.json()
    except requests.ConnectionError:
        raise ServerError(f"no server at {url}: `ref-engine serve` starts one") from None
    except (requests.RequestException, ValueError) as error:
        raise ServerError(f"{url}: {type(error).__name__}") from None
    if not response.ok or not isinstance(answer, dict):
        raise ServerError(str(answer.get("error", response.reason)) if isinstance(answer, dict) else response.reason)
    return answer
