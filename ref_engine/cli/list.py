"""ref-engine list"""

from __future__ import annotations

from datetime import datetime

import click

from ref_engine.cli.options import json_option
from ref_engine.cli.output import emit_json, size, table
from ref_engine.cli.pull import entry_json


@click.command("list")
@json_option
def list_models(as_json: bool) -> None:
    """Show the models of the store, newest first.

    Models of an Ollama directory ($OLLAMA_MODELS, else ~/.ollama/models) are shown too; they are only read.
    """
    from ref_engine.library import Store

    entries = Store().list()
    if as_json:
        emit_json([entry_json(entry) for entry in entries])
        return
    rows = [
        (
            entry.name,
            entry.digest[:12],
            size(entry.size),
            entry.facts.parameters,
            entry.facts.quantisation,
            datetime.fromtimestamp(entry.modified).strftime("%Y-%m-%d %H:%M"),
        )
        for entry in entries
    ]
    table(("NAME", "ID", "SIZE", "PARAMETERS", "TYPE", "MODIFIED"), rows, right=(2, 3))
