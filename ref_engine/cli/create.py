"""ref-engine create"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from ref_engine.cli.options import json_option, quiet_option
from ref_engine.cli.output import emit_json, read_text, say, size
from ref_engine.cli.progress import progress
from ref_engine.cli.pull import entry_json


@click.command()
@click.argument("name")
@click.option("-f", "--file", "modelfile", default="Modelfile", show_default=True, metavar="FILE", help='"-": stdin.')
@click.option("--quantize", metavar="TYPE", help="Quantise the weights, such as to Q4_K_M.")
@quiet_option
@json_option
def create(name: str, modelfile: str, quantize: str | None, quiet: bool, as_json: bool) -> None:
    """Make the model NAME after a Modelfile, in the store.

    FROM names a model of the store or the catalog, or a .gguf file, as seen from the Modelfile. PARAMETER, SYSTEM,
    TEMPLATE (in Jinja), MESSAGE and LICENSE go with it.
    """
    from ref_engine.library import Store
    from ref_engine.library.create import create as make
    from ref_engine.library.layout import is_path
    from ref_engine.library.modelfile import parse_modelfile

    recipe = parse_modelfile(read_text(modelfile))
    folder = Path() if modelfile == "-" else Path(modelfile).parent
    if is_path(recipe.source) and not recipe.source.startswith("~"):
        recipe = replace(recipe, source=str((folder / recipe.source).absolute()))
    with progress(quiet=quiet) as bar:
        entry = make(Store(), name, replace(recipe, quantize=quantize), bar)
    if as_json:
        emit_json(entry_json(entry))
    elif not quiet:
        say(f"{entry.name}: {size(entry.size)}")
