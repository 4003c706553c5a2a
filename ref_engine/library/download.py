"""One file of known size and hash, fetched so that nothing is fetched twice and nothing wrong is kept.

The beginning of a file stays on disk between runs and the next run asks for the rest (RFC 9110: Range,
If-Range). What the server says about sizes is compared with what was promised, and in the end the SHA-256
decides.
"""

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import requests

from ref_engine.errors import StoreError
from ref_engine.library.atomic import CHUNK, file_chunks, file_sha256
from ref_engine.library.progress import Progress
from ref_engine.library.web import Client, Transient, public_url

_CONTENT_RANGE = re.compile(r"bytes (\d{1,20})-(\d{1,20})/(\d{1,20})")
_GAIN = 64 << 10  # bytes that make a failed attempt worth repeating without counting it
_SPARE = 32 << 20  # bytes to leave free on the disk


@dataclass(frozen=True)
class Remote:
    """A file to fetch: where, how many bytes, their SHA-256 in hex, and a word for the progress bar."""

    url: str
    size: int
    sha256: str
    label: str


def fetch(remote: Remote, path: Path, client: Client, bar: Progress) -> None:
    """Makes `path` hold exactly the bytes of `remote`, going on from what is there.

    A leftover that turns out wrong is dropped and fetched once more from the start. Raises StoreError; then
    `path` either holds a beginning that can be resumed or is gone. The caller holds the lock.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        resumed = path.exists()
        _complete(remote, path, client, bar)
        found = _verify(remote, path, bar)
        if found != remote.sha256 and resumed:
            forget(path)
            _complete(remote, path, client, bar)
            found = _verify(remote, path, bar)
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror or error}") from error
    finally:
        bar.done()
    if found != remote.sha256:
        forget(path)
        raise StoreError(f"{public_url(remote.url)}: its sha256 is {found}, expected {remote.sha256}")


def copy_local(source: Path, remote: Remote, path: Path, bar: Progress) -> None:
    """As `fetch`, from a file on this machine (an index may be a directory)."""
    bar.start(remote.size, remote.label)
    try:
        if source.stat().st_size != remote.size:
            raise StoreError(f"{source}: {source.stat().st_size} bytes, expected {remote.size}")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            for chunk in file_chunks(source):
                file.write(chunk)
                bar.advance(len(chunk))
        found = file_sha256(path)
    except OSError as error:
        raise StoreError(f"{source}: {error.strerror or error}") from error
    finally:
        bar.done()
    if found != remote.sha256:
        path.unlink()
        raise StoreError(f"{source}: its sha256 is {found}, expected {remote.sha256}")


def _complete(remote: Remote, path: Path, client: Client, bar: Progress) -> None:
    """Transfers until the file has its size, through failures that may pass."""
    if path.exists():
        os.utime(path)  # in use: not to be cleaned away as forgotten
    have = _size(path)
    if have > remote.size:
        forget(path)
        have = 0
    if shutil.disk_usage(path.parent).free < remote.size - have + _SPARE:
        raise StoreError(f"{path.parent}: not enough room for {remote.size} bytes")
    bar.start(remote.size, remote.label)
    bar.advance(have)
    failures = 0
    while have < remote.size or not path.exists():
        try:
            _transfer(remote, path, client, bar)
        except Transient as error:
            failures = 1 if _size(path) - have >= _GAIN else failures + 1
            if failures > client.patience.retries:
                raise StoreError(f"{error} (gave up after {failures} tries; the next one resumes)") from error
            client.patience.pause(failures, error)
        have = _size(path)


def _transfer(remote: Remote, path: Path, client: Client, bar: Progress) -> None:
    """One request for what is missing."""
    have = _size(path)
    headers = {}
    if have:
        headers["Range"] = f"bytes={have}-"
        tag = _etag_path(path)
        if tag.exists():
            headers["If-Range"] = tag.read_text("latin-1")
    with client.open(remote.url, headers, accept=(416,)) as response:
        start = _start_of(response, have, remote, path)
        if start != have:  # the server begins anew, so does the bar
            bar.start(remote.size, remote.label)
        _remember_etag(response, path)
        _receive(remote, path, client, bar, response, start)


def _start_of(response: requests.Response, have: int, remote: Remote, path: Path) -> int:
    """The offset of the answer's first byte: `have` or 0. Transient, and nothing kept, if the range is not
    right."""
    where, start = public_url(remote.url), 0
    if response.status_code == 416:
        forget(path)
        raise Transient(f"{where}: the server does not have the range that was asked for")
    if response.status_code == 206:
        match = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
        numbers = tuple(map(int, match.groups())) if match else ()
        if not have or numbers != (have, remote.size - 1, remote.size):
            forget(path)
            raise Transient(f"{where}: the server sent another range than was asked for")
        start = have
    elif response.status_code != 200:
        raise StoreError(f"{where}: HTTP {response.status_code} instead of a file")
    declared = response.headers.get("content-length")
    if declared is not None and declared != str(remote.size - start):
        raise StoreError(f"{where}: {declared[:20]} bytes declared, expected {remote.size - start}")
    return start


def _receive(
    remote: Remote, path: Path, client: Client, bar: Progress, response: requests.Response, start: int
) -> None:
    at = start
    with path.open("r+b" if start else "wb") as file:
        file.seek(start)
        for chunk in client.chunks(response):
            at += len(chunk)
            if at > remote.size:
                raise StoreError(f"{public_url(remote.url)}: more than the expected {remote.size} bytes")
            file.write(chunk)
            bar.advance(len(chunk))
    if at < remote.size:
        raise Transient(f"{public_url(remote.url)}: the connection closed after {at} of {remote.size} bytes")


def _verify(remote: Remote, path: Path, bar: Progress) -> str:
    if remote.size > 64 * CHUNK:  # long enough to be noticed
        bar.start(remote.size, f"verifying {remote.label}")
        return file_sha256(path, bar.advance)
    return file_sha256(path)


def _remember_etag(response: requests.Response, path: Path) -> None:
    """Keeps a strong ETag for the next If-Range; without one the hash alone tells whether the pieces fit."""
    tag = response.headers.get("etag", "")
    if re.fullmatch(r'"[\x21\x23-\x7e]{1,200}"', tag):
        _etag_path(path).write_text(tag, "latin-1")
    else:
        _etag_path(path).unlink(missing_ok=True)


def _etag_path(path: Path) -> Path:
    return path.with_suffix(".etag")


def forget(path: Path) -> None:
    """Removes a download and what is noted about it."""
    _etag_path(path).unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
