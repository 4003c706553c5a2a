"""Files that the tests need, fetched into the cache: `python -m ref_engine.library.assets [--require]`.

    models/*.gguf                          the catalog's models
    vocabs/ggml-vocab-*.gguf{,.inp,.out}   llama.cpp's vocabularies, with texts and the ids it makes of them
    templates/*.jinja                      chat templates of many models

The last two come out of the source distribution of `llama-cpp-python`. Everything is pinned by SHA-256, what
is there and right is left alone, and what cannot be had is named in a warning: the tests that need it skip
by name.
"""

import argparse
import hashlib
import re
import sys
import tarfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from ref_engine.errors import StoreError
from ref_engine.library.atomic import file_sha256, land, write_atomic, write_hashed
from ref_engine.library.blobs import Blobs
from ref_engine.library.catalog import CATALOG, CatalogModel, PackageFile
from ref_engine.library.download import forget
from ref_engine.library.progress import Progress
from ref_engine.library.roots import cache_root
from ref_engine.library.sources.builtin import drop_wheels, model_chunks
from ref_engine.library.sources.packages import fetch_package
from ref_engine.library.store import Store

SDIST = PackageFile(
    "llama-cpp-python",
    "0.3.36",
    "llama_cpp_python-0.3.36.tar.gz",
    76_589_250,
    "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e",
)
LISTING = "llama.cpp.sha256"  # `HEX  path` for each file taken out of it, sorted by path; written last
LISTING_SHA256 = "a35f4f6deb1eecf207b3bd6051646d513264088ade72f044eff03fb5ab88d723"
_FOLDER = "llama_cpp_python-0.3.36/vendor/llama.cpp/models/"
_VOCAB = re.compile(r"ggml-vocab-[A-Za-z0-9_.-]+\.gguf(?:\.inp|\.out)?")
_TEMPLATE = re.compile(r"templates/[A-Za-z0-9_][A-Za-z0-9_.-]*\.jinja")
_MEMBER_LIMIT = 64 << 20  # bytes; the largest vocabulary has 16 MB


class Lines:
    """Progress as one line per step: enough for a log."""

    def start(self, total: int | None, label: str) -> None:
        size = "" if total is None else f" ({total / 1e6:.0f} MB)"
        print(f"  {label}{size}", flush=True)

    def advance(self, n: int) -> None: ...

    def done(self) -> None: ...


def fetch_model(model: CatalogModel, cache: Path, bar: Progress) -> bool:
    """`models/` gets one model; False if it was there. Raises StoreError."""
    target, work, store = cache / "models" / model.filename, Blobs(cache), Store()
    with work.lock(f"sha256-{model.sha256}", bar):
        if target.is_file() and target.stat().st_size == model.size and file_sha256(target) == model.sha256:
            return False
        copies = [Blobs(root).path(model.sha256) for root in (store.root, *store.read_only)]
        with work.temporary() as temporary:
            chunks = model_chunks(model, copies, work, bar, None)
            found, _ = write_hashed(chunks, temporary, model.size, model.filename, bar.advance)
            if found != model.sha256:
                raise StoreError(f"{model.filename}: its sha256 is {found}, expected {model.sha256}")
            land(temporary, target)
        drop_wheels(model, work)
    return True


def fetch_vocabs(cache: Path, bar: Progress) -> bool:
    """`vocabs/` and `templates/` get their files; False if they were there. Raises StoreError."""
    work = Blobs(cache)
    with work.lock(f"sha256-{SDIST.sha256}", bar):
        if listing_holds(cache):
            return False
        archive = work.partial(SDIST.sha256)
        fetch_package(SDIST, archive, bar)
        bar.start(None, "unpacking vocabularies and chat templates")
        lines = []
        for path, data in sdist_members(archive):
            with work.temporary() as temporary:
                write_atomic(cache / path, data, temporary)
            lines.append(f"{hashlib.sha256(data).hexdigest()}  {path}\n")
        with work.temporary() as temporary:
            write_atomic(cache / LISTING, "".join(sorted(lines, key=lambda line: line[66:])).encode(), temporary)
        forget(archive)
        if not listing_holds(cache):
            raise StoreError(f"{cache / LISTING}: not the files that were expected from {SDIST.filename}")
    return True


def listing_holds(cache: Path) -> bool:
    """Whether the listing is the pinned one and every file is as it says."""
    try:
        raw = (cache / LISTING).read_bytes()
        if hashlib.sha256(raw).hexdigest() != LISTING_SHA256:
            return False
        lines = raw.decode().splitlines()
        return all(file_sha256(cache / line[66:]) == line[:64] for line in lines)
    except FileNotFoundError:
        return False


def sdist_members(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Path in the cache and content of each wanted file of the source distribution. Raises StoreError."""
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                name = member.name.removeprefix(_FOLDER)
                wanted = _VOCAB.fullmatch(name) or _TEMPLATE.fullmatch(name)
                if name == member.name or not wanted or not member.isreg():
                    continue
                file = tar.extractfile(member)
                if file is None or member.size > _MEMBER_LIMIT:
                    raise StoreError(f"{archive.name}: {member.name}: {member.size} bytes, refused")
                yield (name if "/" in name else f"vocabs/{name}"), file.read()
    except (tarfile.TarError, zlib.error, EOFError) as error:
        raise StoreError(f"{SDIST.filename}: damaged ({error})") from error


def fetch_all(cache: Path, bar: Progress) -> list[str]:
    """Fetches everything that is missing, prints a line for each, and returns the warnings."""
    jobs: list[tuple[str, Callable[[], bool]]] = [
        *((f"models/{model.filename}", partial(fetch_model, model, cache, bar)) for model in CATALOG),
        ("vocabs/ and templates/", partial(fetch_vocabs, cache, bar)),
    ]
    Blobs(cache).clean()
    warnings = []
    for what, job in jobs:
        try:
            print(f"{what}: {'fetched' if job() else 'present'}", flush=True)
        except (StoreError, OSError) as error:
            warnings.append(f"{what}: not available, tests that need it are skipped: {error}")
    return warnings


def main(arguments: list[str] | None = None) -> int:
    """0, or 1 if something is missing and `--require` was given."""
    parser = argparse.ArgumentParser(prog="ref_engine.library.assets", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--require", action="store_true", help="fail if something cannot be had")
    options = parser.parse_args(arguments)
    cache = cache_root()
    print(f"test assets in {cache}")
    warnings = fetch_all(cache, Lines())
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return 1 if warnings and options.require else 0


if __name__ == "__main__":
    sys.exit(main())
