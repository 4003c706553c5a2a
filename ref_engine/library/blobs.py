"""The bytes of a store: blobs by the SHA-256 of their content, and the work in progress beside them.

`blobs/sha256-HEX` is only ever a whole, verified file. Unfinished work lives in `downloads/`:
`sha256-HEX.partial` is the beginning of a download, kept so that the next one resumes; `tmp-*` is anything
else. Each is guarded by a lock of its own, so a temporary file whose lock is free belongs to nobody and is
removed.
"""

import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ref_engine.errors import StoreError
from ref_engine.library.atomic import file_chunks, land, write_hashed
from ref_engine.library.lock import file_lock
from ref_engine.library.manifest import LAYER_LIMIT, Layer
from ref_engine.library.progress import Progress, Silent

PARTIAL_DAYS = 14  # a download that nobody resumed for so long is given up


class Blobs:
    """The content-addressed half of a store at `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.work = root / "downloads"

    def path(self, sha256: str) -> Path:
        return self.root / "blobs" / f"sha256-{sha256}"

    def partial(self, sha256: str) -> Path:
        return self.work / f"sha256-{sha256}.partial"

    def has(self, layer: Layer) -> bool:
        """Whether the blob is there in its full size. Its hash was checked before it got its name."""
        try:
            return self.path(layer.sha256).stat().st_size == layer.size
        except OSError:
            return False

    def read(self, layer: Layer, limit: int) -> bytes:
        """A small blob. StoreError if it is missing, or larger than `limit` bytes."""
        path = self.path(layer.sha256)
        try:
            with path.open("rb") as file:
                data = file.read(limit + 1)
        except OSError as error:
            raise StoreError(f"{path}: {error.strerror}") from error
        if len(data) > limit:
            raise StoreError(f"{path}: more than {limit} bytes of {layer.media_type}")
        return data

    @contextmanager
    def lock(self, what: str, progress: Progress | None = None) -> Iterator[None]:
        """One process at a time works on `what`: `sha256-HEX`, or `store` for manifests."""
        bar = progress or Silent()
        self.work.mkdir(parents=True, exist_ok=True)
        waiting = (lambda: bar.start(None, "waiting for another process to finish the same")) if progress else None
        with file_lock(self.work / f"{what}.lock", waiting):
            yield

    @contextmanager
    def temporary(self) -> Iterator[Path]:
        """A new path in `downloads/`, removed at the end if it is still there."""
        name = f"tmp-{uuid.uuid4().hex}"
        path = self.work / name
        with self.lock(name):
            try:
                yield path
            finally:
                path.unlink(missing_ok=True)

    def put_bytes(self, media_type: str, data: bytes) -> Layer:
        """A small blob, such as a config or a template."""
        with self.temporary() as path:
            sha256, size = write_hashed([data], path, len(data), media_type, lambda n: None)
            self._land(path, sha256, size)
        return Layer(media_type, sha256, size)

    def put_chunks(
        self,
        media_type: str,
        chunks: Iterable[bytes],
        progress: Progress,
        what: str,
        check: Callable[[Path], None] = lambda path: None,
        limit: int = LAYER_LIMIT,
        sha256: str | None = None,
    ) -> Layer:
        """A large blob from a stream. `check` sees the file before it becomes a blob, and may raise.

        StoreError when there are more than `limit` bytes, or the hash is not `sha256` where that is given.
        """
        with self.temporary() as path:
            found, size = write_hashed(chunks, path, limit, what, progress.advance)
            if sha256 is not None and found != sha256:
                raise StoreError(f"{what}: its sha256 is {found}, expected {sha256}")
            check(path)
            self._land(path, found, size)
        return Layer(media_type, found, size)

    def put_copy(self, source: Path, layer: Layer) -> None:
        """The blob `layer` out of another store's file."""
        if not self.has(layer):
            self.put_chunks(
                layer.media_type,
                file_chunks(source),
                Silent(),
                str(source),
                limit=layer.size,
                sha256=layer.sha256,
            )

    def land_partial(self, layer: Layer) -> None:
        """The verified download of `layer` becomes a blob."""
        partial = self.partial(layer.sha256)
        partial.with_suffix(".etag").unlink(missing_ok=True)  # first: alone it would stay for ever
        self._land(partial, layer.sha256, layer.size)

    def clean(self) -> None:
        """Removes temporaries that no living process holds, and partial downloads that nobody came back
        for."""
        if not self.work.is_dir():
            return
        old = time.time() - PARTIAL_DAYS * 86400
        for path in list(self.work.iterdir()):
            if path.name.startswith("tmp-"):
                self._remove_if_free(path.name.removesuffix(".lock"), [path])
            elif path.suffix == ".partial" and _modified(path) < old:
                self._remove_if_free(path.stem, [path.with_suffix(".etag"), path])

    def _remove_if_free(self, what: str, paths: list[Path]) -> None:
        lock = self.work / f"{what}.lock"
        try:
            with file_lock(lock, seconds=0):
                for path in paths:
                    if path != lock:  # which removes itself
                        path.unlink(missing_ok=True)
        except StoreError:
            return  # held: somebody is at work on it

    def _land(self, path: Path, sha256: str, size: int) -> None:
        target = self.path(sha256)
        if not self.has(Layer("", sha256, size)):
            land(path, target)


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # landed between the listing and now
        return time.time()
