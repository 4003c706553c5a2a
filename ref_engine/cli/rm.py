"""ref-engine rm"""

from __future__ import annotations

import click

from ref_engine.cli.options import json_option
from ref_engine.cli.output import emit_json, one_line, say


@click.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@json_option
def rm(names: tuple[str, ...], as_json: bool) -> None:
    """Remove models from the store.

    The bytes go with the last name that uses them. Nothing is removed unless every NAME is known.
    """
    from ref_engine.library import Store

    store = Store()
    for name in names:
        store.locate(name)
    removed = [str(store.remove(name)) for name in dict.fromkeys(names)]
    if as_json:
        emit_json({"removed": removed})
    else:
        for name in removed:
            say(f"removed {one_line(name)}")
