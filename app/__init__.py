"""The server: dialects of HTTP over one engine. Installed as `ref_engine_app`.

messages.py  what a request and an answer are, in no dialect's words      errors.py   what can go wrong with them
service.py   what the dialects ask of the rest                            fields.py   checks of a request's fields
pipeline.py  Request -> prompt -> job -> events                           models.py   models in memory
anthropic, openai, ollama   the dialects; they import nothing of each other
web.py       from exceptions to responses, request ids                    security.py Host, Origin, API key
stream.py    SSE and NDJSON, and noticing that a client has left          serve.py    sockets, threads, shutdown
metrics.py   /metrics                                                     logs.py     one line for each request

`create_app` is the whole composition root.
"""

from __future__ import annotations

from .factory import create_app

__all__ = ["create_app"]
