"""ref-engine pull"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from ref_engine.cli.options import json_option, quiet_option
from ref_engine.cli.output import emit_json, say, size
from ref_engine.cli.progress import progress

if TYPE_CHECKING:
    from ref_engine.library import Entry


@click.command()
@click.argument("name")
@click.option("--as", "rename", metavar="NAME", help="Store it under this name.")
@click.option("--registry", metavar="URL", help="Registry to ask, instead of $REF_ENGINE_REGISTRY.")
@click.option("--insecure", is_flag=True, help="Allow plain http to a registry on another machine.")
@quiet_option
@json_option
def pull(name: str, rename: str | None, registry: str | None, insecure: bool, quiet: bool, as_json: bool) -> None:
    """Fetch a model into the store.

    NAME is a model of the built-in catalog (smollm2, gemma3:270m), a path to a .gguf file, a file on a model hub
    (hf:OWNER/REPO/FILE.gguf, hf:OWNER/REPO:QUANT), or a model of an Ollama registry
    ([[HOST/]NAMESPACE/]MODEL[:TAG]). A download that was interrupted goes on where it stopped.
    """
    from ref_engine.library import Store
    from ref_engine.library import pull as fetch

    with progress(quiet=quiet) as bar:
        entry = fetch(name, Store(), bar, rename=rename, registry=registry, insecure=insecure)
    if as_json:
        emit_json(entry_json(entry))
    elif not quiet:
        say(f"{entry.name}: {size(entry.size)}")


def entry_json(entry: Entry) -> dict[str, object]:
    """A stored model as JSON."""
    return {
        "name": entry.name,
        "full_name": str(entry.full_name),
        "size": entry.size,
        "digest": entry.digest,
        "modified": entry.modified,
        **asdict(entry.facts),
        "path": str(entry.path),
        "read_only": entry.read_only,
    }
