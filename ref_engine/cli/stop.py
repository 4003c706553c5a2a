"""ref-engine stop"""

from __future__ import annotations

import click

from ref_engine.cli.output import say
from ref_engine.cli.remote import ask


@click.command()
@click.argument("model")
def stop(model: str) -> None:
    """Have a server let MODEL go, once nobody works with it."""
    ask("POST", "/api/generate", {"model": model, "keep_alive": 0, "stream": False})
    say(f"{model} goes")
