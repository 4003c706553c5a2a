"""ref-engine serve"""

from __future__ import annotations

import math
import os
import re
import sys
from typing import TYPE_CHECKING, Any

import click

from ref_engine.cli.options import CACHE_TYPES, engine_options
from ref_engine.cli.output import say
from ref_engine.cli.remote import address

if TYPE_CHECKING:
    from types import ModuleType

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
_SIZES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


@click.command()
@click.option("--host", metavar="ADDRESS", help="Where to listen ($REF_ENGINE_HOST, $OLLAMA_HOST, else 127.0.0.1).")
@click.option("--port", type=click.IntRange(0, 65535), metavar="N", help="11434; 0: any that is free.")
@click.option(
    "--parallel", type=click.IntRange(1, 256), default=4, show_default=True, help="Answers of a model at once."
)
@click.option(
    "--max-queue", type=click.IntRange(0, 4096), default=64, show_default=True, help="Requests that may wait."
)
@click.option(
    "--keep-alive", default="5m", show_default=True, metavar="TIME", help="How long models stay; -1: for good."
)
@click.option("--memory", metavar="SIZE", help="What models may take, such as 8G (four fifths of the machine's).")
@click.option("--api-key", metavar="KEY", help="What clients must send ($REF_ENGINE_API_KEY).")
@click.option(
    "--origin", "origins", multiple=True, metavar="ORIGIN", help="Web pages that may call ($REF_ENGINE_ORIGINS)."
)
@click.option("--max-body", default="32M", show_default=True, metavar="SIZE", help="Of a request.")
@click.option(
    "--grace", type=click.FloatRange(0), default=10.0, show_default=True, help="Seconds for open answers at the end."
)
@click.option("--gzip/--no-gzip", default=True, help="Compress answers that are not streamed.")
@click.option("--log-prompts", is_flag=True, help="Prompts go into the log.")
@engine_options
@click.option("-q", "--quiet", is_flag=True, help="No log on stderr.")
def serve(
    host: str | None,
    port: int | None,
    parallel: int,
    max_queue: int,
    keep_alive: str,
    memory: str | None,
    api_key: str | None,
    origins: tuple[str, ...],
    max_body: str,
    grace: float,
    gzip: bool,
    log_prompts: bool,
    quiet: bool,
    **engine: Any,
) -> None:
    """Serve models over HTTP, in the dialects of Ollama, OpenAI and Anthropic.

    Models of the store are loaded when they are first asked for, with 8192 tokens of context or the model's own where
    that is less, unless --n-ctx says otherwise; $OLLAMA_KV_CACHE_TYPE stands for --cache-type. Ctrl-C and SIGTERM end
    it; open answers have a grace to be finished. The log is one JSON object a line, on stderr.
    """
    app, settings = _app("serve"), _app("settings")
    _app("malloc").share_pools()
    default_host, default_port = address()
    engine["cache_type"] = engine["cache_type"] or _cache_type()
    wanted = settings.Settings(
        host=host if host is not None else default_host,
        port=port if port is not None else default_port,
        origins=(*origins, *_listed("REF_ENGINE_ORIGINS"), *_listed("OLLAMA_ORIGINS")),
        api_key=api_key or os.environ.get("REF_ENGINE_API_KEY") or None,
        max_body=_size(max_body),
        parallel=parallel,
        max_queue=max_queue,
        n_ctx=engine.pop("n_ctx"),
        keep_alive=_seconds(keep_alive),
        memory=None if memory is None else _size(memory),
        log_prompts=log_prompts,
        gzip=gzip,
        grace=grace,
        engine={name: value for name, value in engine.items() if value is not None},
    )
    log = _app("logs").Log(None if quiet else sys.stderr, prompts=log_prompts)
    try:
        server = app.Server(wanted, log=log)
    except OSError as error:
        raise click.ClickException(
            f"cannot listen on {wanted.host}:{wanted.port}: {error.strerror or error}"
        ) from error
    app.serve_until_signal(server, ready=lambda: say(f"listening on {server.url}"))


def _app(module: str) -> ModuleType:
    """A module of the server, which is a stage behind this one and may not be installed."""
    from importlib import import_module

    try:
        return import_module(f"ref_engine_app.{module}")
    except ModuleNotFoundError as error:
        raise click.ClickException(f"the server needs {error.name}: install ref-engine[server]") from error


def _cache_type() -> str | None:
    """$OLLAMA_KV_CACHE_TYPE, if it is set."""
    asked = os.environ.get("OLLAMA_KV_CACHE_TYPE", "").strip().lower()
    if asked and asked not in CACHE_TYPES:
        raise click.UsageError(f"OLLAMA_KV_CACHE_TYPE is {asked[:50]!r}, expected {', '.join(CACHE_TYPES)} or nothing")
    return asked or None


def _listed(variable: str) -> list[str]:
    return [item.strip() for item in os.environ.get(variable, "").split(",") if item.strip()]


def _seconds(text: str) -> float:
    """`90`, `90s`, `5m`, `1h`; negative: for good."""
    match = re.fullmatch(r"(-?)(\d{1,9}(?:\.\d+)?)([smh]?)", text.strip().lower())
    if match is None:
        raise click.UsageError(f"{text[:50]!r} is not a time such as 300, 5m or -1")
    return math.inf if match[1] else float(match[2]) * _UNITS[match[3]]


def _size(text: str) -> int:
    """`8G`, `500MB`, `1048576`"""
    match = re.fullmatch(r"(\d{1,15}(?:\.\d+)?)([kmgt]?)i?b?", text.strip().lower())
    if match is None:
        raise click.UsageError(f"{text[:50]!r} is not a size such as 8G or 500M")
    return int(float(match[1]) * _SIZES[match[2]])
