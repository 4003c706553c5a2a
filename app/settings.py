"""How a server is set up: what `ref-engine serve` and its environment say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MIB = 1 << 20


@dataclass(frozen=True)
class Settings:
    """host, port     where to listen; port 0: any that is free
    origins           further web origins that may call, besides those of this machine; "*": all
    api_key           what clients must send, as a bearer token or in x-api-key; None: nothing
    max_body          bytes of a JSON body
    max_upload        bytes of a model's file (POST /api/blobs)
    parallel          sequences that a model generates at once
    max_queue         requests that may wait for a model; one more is told to come later
    n_ctx             tokens of prompt and answer; None: 8192, or the model's own where that is less
    keep_alive        seconds that a model stays loaded after its last request; inf: for good
    memory            bytes for models; None: four fifths of the machine's
    log_prompts       prompts and answers go into the log
    gzip              compress answers that are not streamed, where the client can take it
    grace             seconds that open streams have at shutdown
    engine            further arguments of `ref_engine.load`: backend, activations, n_threads, ...
    """

    host: str = "127.0.0.1"
    port: int = 11434
    origins: tuple[str, ...] = ()
    api_key: str | None = None
    max_body: int = 32 * MIB
    max_upload: int = 1 << 40
    parallel: int = 4
    max_queue: int = 64
    n_ctx: int | None = None
    keep_alive: float = 300.0
    memory: int | None = None
    log_prompts: bool = False
    gzip: bool = True
    grace: float = 10.0
    engine: Mapping[str, Any] = field(default_factory=dict)
