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
CACHE_TYPES = ("f32", "f16", "q8_0")  # as in quant/rows.py, which takes longer to import than --help may
cache_option = click.option(
    "--cache-type", type=click.Choice(CACHE_TYPES), help="Of keys and values (f16; f32 with exact products)."
)
quiet_option = click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")


class Size(click.ParamType):  # type: ignore[type-arg]  # generic only in some versions of click
    """Bytes: a whole number, or one with K, M, G or T (powers of 1024) behind it."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        match = re.fullmatch(r"([0-9]{1,15})([KMGT]?)(i?B)?", str(value).strip(), re.IGNORECASE)
        if match is None:
            self.fail(f"{value!r} is not a size; expected bytes, or such as 512M or 2G", param, ctx)
        return int(match[1]) << 10 * "KMGT".find(match[2].upper()) + 10 if match[2] else int(match[1])


def expert_cache_report(model: Model) -> str | None:
    """What the bounded cache of experts did, for stderr; None for a model without one."""
    cache = model.weights.expert_cache
    if cache is None or not cache.hits + cache.misses:
        return None
    share = cache.hits / (cache.hits + cache.misses)
    read, held = cache.bytes_read / 2**20, cache.held / 2**20
    return f"experts: {share:.1%} found in the cache, {read:.1f} MiB read, {held:.1f} MiB held"


def engine_options(command: F) -> F:
    """--backend, --activations, --cache-type, --threads, --n-ctx, --expert-cache and `gpu_options`: arguments of
    `load_model`."""
    command = gpu_options(command)
    for option in (
        click.option("--expert-cache", type=Size(), metavar="SIZE", help="Memory for a mixture's experts, such as 2G."),
        click.option("--n-ctx", type=int, metavar="N", help="Context length in tokens, instead of the model's own."),
        click.option("--threads", "n_threads", type=int, metavar="N", help="Threads; the numpy backend has NumPy's."),
        cache_option,
        click.option("--activations", type=click.Choice(["f32", "q8"]), help="Exact products, or 8-bit ones (q8)."),
        click.option("--backend", type=click.Choice(["numpy", "native", "cupy"]), help="Who computes."),
    ):
        command = option(command)
    return command


def gpu_options(command: F) -> F:
    """--gpu-layers, --experts-on: how the cupy backend divides a model."""
    for option in (
        click.option("--experts-on", type=click.Choice(["cpu", "gpu"]), help="Who computes a mixture's experts (gpu)."),
        click.option("--gpu-layers", type=int, metavar="N", help="Layers on the GPU, the output first, then the last."),
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
