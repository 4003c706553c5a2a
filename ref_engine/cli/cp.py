"""ref-engine cp"""

from __future__ import annotations

import click

from ref_engine.cli.options import json_option
from ref_engine.cli.output import emit_json, say
from ref_engine.cli.pull import entry_json


@click.command()
@click.argument("source")
@click.argument("target")
@json_option
def cp(source: str, target: str, as_json: bool) -> None:
    """Give the model SOURCE a second name, TARGET. The bytes are shared."""
    from ref_engine.library import Store

    entry = Store().copy(source, target)
    if as_json:
        emit_json(entry_json(entry))
    else:
        say(f"copied {source} to {entry.name}")
