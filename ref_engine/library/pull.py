"""`pull`: one door to every place that models come from."""

from pathlib import Path

from ref_engine.errors import StoreError
from ref_engine.library.catalog import catalog_model
from ref_engine.library.entries import Entry
from ref_engine.library.layout import existing_file, is_path
from ref_engine.library.names import full_name, name_from_file, parse_name
from ref_engine.library.progress import Progress, Silent
from ref_engine.library.sources.builtin import pull_builtin
from ref_engine.library.sources.hub import pull_hub
from ref_engine.library.sources.registry import pull_registry
from ref_engine.library.store import Store


def pull(
    name: str,
    store: Store,
    progress: Progress | None = None,
    *,
    rename: str | None = None,
    registry: str | None = None,
    insecure: bool = False,
) -> Entry:
    """Fetches a model into `store` and returns its entry. Raises StoreError.

    `name` is one of: a name of the catalog (`smollm2`, `gemma3:270m`); a path to a GGUF file;
    `hf:OWNER/REPO/FILE.gguf` or `hf:OWNER/REPO:QUANT`; `[[HOST/]NAMESPACE/]MODEL[:TAG]` on a registry, which
    `registry` or $REF_ENGINE_REGISTRY names where the text does not. `rename` lists it under another name.
    `insecure` allows plain http to a registry elsewhere.

    What was fetched before is not fetched again: not after a kill, not by another name.
    """
    bar = progress or Silent()
    target = full_name(rename) if rename is not None else None
    builtin = catalog_model(name)
    try:
        store.blobs.clean()
        if builtin is not None:
            return pull_builtin(builtin, store, bar, rename or builtin.name)
        if is_path(name):
            path = existing_file(name)
            return store.add_file(rename or name_from_file(Path(path).stem), path, bar)
        if name.startswith("hf:"):
            return pull_hub(name, store, bar, target)
        return pull_registry(parse_name(name), store, bar, registry=registry, insecure=insecure, name=target)
    except OSError as error:
        raise StoreError(f"{error.filename or store.root}: {error.strerror or error}") from error
    finally:
        bar.done()
