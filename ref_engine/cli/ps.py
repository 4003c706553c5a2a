"""ref-engine ps"""

from __future__ import annotations

from datetime import UTC, datetime

import click

from ref_engine.cli.options import json_option
from ref_engine.cli.output import emit_json, size, table
from ref_engine.cli.remote import ask


@click.command()
@json_option
def ps(as_json: bool) -> None:
    """Show the models that a server has in memory, most recently used first."""
    models = ask("GET", "/api/ps")["models"]
    if as_json:
        emit_json(models)
        return
    rows = [
        (m["name"], m["digest"][:12], size(m["size"]), str(m["context_length"]), until(m["expires_at"])) for m in models
    ]
    table(("NAME", "ID", "MEMORY", "CONTEXT", "UNTIL"), rows, right=(2, 3))


def until(text: str) -> str:
    """When a model goes, from now."""
    seconds = (datetime.fromisoformat(text.replace("Z", "+00:00")) - datetime.now(UTC)).total_seconds()
    if seconds > 10 * 365 * 86400:
        return "for good"
    if seconds <= 0:
        return "now"
    for unit, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} seconds"
