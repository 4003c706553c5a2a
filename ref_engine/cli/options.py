"""What several commands accept, and how a MODEL argument becomes a file or a loaded model."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ref_engine.cli.progress import progress

if TYPE_CHECKING:
    from ref_engine.library import Store
    from ref_engine.model import Model

F = TypeVar("F", bound=Callable[..., Any])

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
quiet_option = click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")


def engine_options(command: F) -> F:
    """--backend, --activations, --threads, --n-ctx: arguments of `load_model`."""
    for option in (
        click.option("--n-ctx", type=int, metavar="N", help="Context length in tokens, instead of the model's own."),
        click.option("--threads", "n_threads", type=int, metavar="N", help="Threads; the numpy backend has NumPy's."),
        click.option("--activations", type=click.Choice(["f32", "q8"]), help="Exact products, or 8-bit ones (q8)."),
        click.option("--backend", type=click.Choice(["numpy", "native", "cupy"]), help="Who computes."),
    ):
        command = option(command)
    return command


def find_model(name: str, *, fetch: bool = False, quiet: bool = False) -> Path:
    """The GGUF file of a MODEL argument.

    fetch: a model of the catalog that is not in the store yet is pulled first. Raises StoreError.
    """
    from ref_engine.errors import StoreError
    from ref_engine.library import Store, catalog_model, pull

    store = Store()
    if fetch and catalog_model(name) is not None and not _is_here(name, store):
        with progress(quiet=quiet) as bar:
            try:
                return pull(name, store, bar).path
            except StoreError as error:
                raise StoreError(f"cannot pull {name}: {error}") from error
    return store.resolve(name)


def _is_here(name: str, store: Store) -> bool:
    from ref_engine.errors import StoreError

    try:
        store.locate(name)
    except StoreError:
        return False
    return True


def load_model(path: Path, **given: Any) -> Model:
    """The model, with those engine options that were given; the others keep the defaults of `ref_engine.load`."""
    from ref_engine.model import load

    return load(path, **{name: value for name, value in given.items() if value is not None})


def parse_ids(text: str) -> list[int]:
    """`1,2,3`, `1 2 3` or `[1, 2, 3]` -> [1, 2, 3]"""
    items = re.split(r"[\s,]+", text.strip().removeprefix("[").removesuffix("]").strip(" ,\n"))
    for item in items:
        if not re.fullmatch(r"[0-9]{1,10}", item):
            raise click.UsageError(f"{item[:50]!r} is not a token id; expected ids such as 1,2,3")
    return [int(item) for item in items]
