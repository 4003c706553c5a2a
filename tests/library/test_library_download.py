"""The downloader against a server that misbehaves. What was asked of the server is the evidence."""

import hashlib
import random
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from loopback import Loopback, Recorder, Route

from ref_engine.errors import StoreError
from ref_engine.library.download import Remote, copy_local, fetch
from ref_engine.library.web import Anonymous, Bearer, Client, Patience, Transient, check_url, public_url

BODY = random.Random(1).randbytes(300_000)
SHA = hashlib.sha256(BODY).hexdigest()


class Case:
    """One file to fetch from `server` into `path`."""

    def __init__(self, server: Loopback, folder: Path, **route: object) -> None:
        self.server, self.path, self.bar = server, folder / "work" / "x.partial", Recorder()
        self.route = server.routes["/f"] = Route(BODY, {"ETag": '"one"'}, **route)  # type: ignore[arg-type]

    def fetch(self, sha: str = SHA, size: int = len(BODY), url: str = "", **patience: float) -> None:
        quick = Patience(retries=3, **patience)  # type: ignore[arg-type]
        with Client(patience=quick, auth=Anonymous()) as client:
            fetch(Remote(url or self.server.url + "/f", size, sha, "file"), self.path, client, self.bar)

    def begin(self, data: bytes, etag: str | None = '"one"') -> None:
        self.path.parent.mkdir(exist_ok=True)
        self.path.write_bytes(data)
        if etag:
            self.path.with_suffix(".etag").write_text(etag)

    @property
    def ranges(self) -> list[str | None]:
        return [asked.headers.get("range") for asked in self.server.log]


def test_a_whole_file(server: Loopback, tmp_path: Path) -> None:
    case = Case(server, tmp_path)
    case.fetch()
    assert case.path.read_bytes() == BODY and case.ranges == [None]
    assert case.bar.steps == [["file", 300_000, 300_000]] and case.bar.finished == 1
    case.fetch()  # nothing is asked again
    assert len(server.log) == 1


def test_an_empty_file(server: Loopback, tmp_path: Path) -> None:
    case = Case(server, tmp_path)
    case.route.body = b""
    case.fetch(hashlib.sha256(b"").hexdigest(), 0)
    assert case.path.read_bytes() == b""


def test_a_dropped_connection_is_resumed_where_it_broke(server: Loopback, tmp_path: Path) -> None:
    case = Case(server, tmp_path, drops=[100_000, 150_000])
    case.fetch()
    assert case.path.read_bytes() == BODY
    assert case.ranges == [None, "bytes=100000-", "bytes=250000-"]
    assert [asked.headers.get("if-range") for asked in server.log] == [None, '"one"', '"one"']
    assert server.sent("/f") == len(BODY)  # not a byte twice
    assert case.bar.steps == [["file", 300_000, 300_000]]


def test_a_second_run_resumes(server: Loopback, tmp_path: Path) -> None:
    case = Case(server, tmp_path)
    case.begin(BODY[:123_456])
    case.fetch()
    assert case.path.read_bytes() == BODY and case.ranges == ["bytes=123456-"]
    assert server.sent("/f") == len(BODY) - 123_456


def test_a_changed_file_is_fetched_anew(server: Loopback, tmp_path: Path) -> None:
    case = Case(server, tmp_path)
    case.begin(b"x" * 1000, '"older"')
    case.fetch()
    assert case.path.read_bytes() == BODY and [asked.status for asked in server.log] == [200]
    assert case.bar.steps[-1] == ["file", 300_000, 300_000]


def test_a_wrong_beginning_is_found_out_and_dropped(server: Loopback, tmp_path: Path) -> None:
    case = Case(server, tmp_path)
    case.begin(b"x" * 1000)
    case.fetch()
    assert case.path.read_bytes() == BODY and case.ranges == ["bytes=1000-", None]


def test_a_server_without_ranges(server: Loopback, tmp_path: Path) -> None:
    case = Case(server, tmp_path, ranges=False, drops=[1000])
    case.fetch()
    assert case.path.read_bytes() == BODY and [asked.status for asked in server.log] == [200, 200]


def test_a_leftover_longer_than_the_file(server: Loopback, tmp_path: Path) -> None:
    case = Case(server, tmp_path)
    case.begin(BODY + b"more")
    case.fetch()
    assert case.path.read_bytes() == BODY and case.ranges == [None]


def test_416_starts_over(server: Loopback, tmp_path: Path) -> None:
    case = Case(server, tmp_path, statuses=[416])
    case.begin(BODY[:1000])
    case.fetch()
    assert case.path.read_bytes() == BODY and case.ranges == ["bytes=1000-", None]


@pytest.mark.parametrize("lie", ["bytes 0-299999/300000", "bytes 1000-299999/*", "bytes 1000-1999/300000", "x", ""])
def test_another_range_than_asked_is_not_believed(server: Loopback, tmp_path: Path, lie: str) -> None:
    case = Case(server, tmp_path, content_range=lie or " ")
    case.begin(BODY[:1000])
    case.fetch()  # the second request is for the whole file
    assert case.path.read_bytes() == BODY and case.ranges == ["bytes=1000-", None]


@pytest.mark.parametrize("statuses", [[500], [503, 502, 429]])
def test_errors_that_pass_are_retried(server: Loopback, tmp_path: Path, statuses: list[int]) -> None:
    case = Case(server, tmp_path, statuses=list(statuses))
    case.fetch()
    assert case.path.read_bytes() == BODY
    assert [asked.status for asked in server.log] == [*statuses, 200]


def test_errors_that_do_not_pass_end_it_after_the_retries(server: Loopback, tmp_path: Path) -> None:
    case = Case(server, tmp_path, statuses=[500] * 100)
    with pytest.raises(StoreError, match=r"/f: HTTP 500 .*gave up after 4 tries"):
        case.fetch()
    assert len(server.log) == 4


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 451])
def test_refusals_are_not_retried(server: Loopback, tmp_path: Path, status: int) -> None:
    case = Case(server, tmp_path, statuses=[status] * 9)
    with pytest.raises(StoreError, match=f"HTTP {status}"):
        case.fetch()
    assert len(server.log) == 1 and not case.path.exists()


def test_a_crawl_of_tiny_gains_is_given_up(server: Loopback, tmp_path: Path) -> None:
    case = Case(server, tmp_path, drops=[10] * 1000)
    with pytest.raises(StoreError, match=r"the connection broke.*the next one resumes"):
        case.fetch()
    assert len(server.log) == 4
    assert case.path.read_bytes() == BODY[:40]  # kept for the next run


def test_large_gains_are_not_counted_as_failures(server: Loopback, tmp_path: Path) -> None:
    case = Case(server, tmp_path, drops=[66_000, 66_000, 66_000, 66_000])
    case.fetch()
    assert case.path.read_bytes() == BODY and len(server.log) == 5


def test_a_wrong_digest_is_refused_and_nothing_is_kept(server: Loopback, tmp_path: Path) -> None:
    case = Case(server, tmp_path)
    with pytest.raises(StoreError, match=f"sha256 is {SHA}, expected 0000"):
        case.fetch("0" * 64)
    assert len(server.log) == 1 and list(case.path.parent.iterdir()) == []


@pytest.mark.parametrize("declared", [299_999, 300_001, 1 << 62])
def test_a_declared_size_that_differs(server: Loopback, tmp_path: Path, declared: int) -> None:
    case = Case(server, tmp_path, declared=declared)
    with pytest.raises(StoreError, match=f"{declared} bytes declared, expected 300000"):
        case.fetch()
    assert len(server.log) == 1


def test_a_stream_that_does_not_end(server: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a Content-Length (it is not believed anyway) reading stops at the expected size."""
    case = Case(server, tmp_path)
    endless = iter(lambda: b"x" * 65536, b"")

    class Endless:
        status_code, headers, url = 200, {}, "http://x/"

        def __enter__(self) -> "Endless":
            return self

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(Client, "open", lambda *_, **__: Endless())
    monkeypatch.setattr(Client, "chunks", lambda *_: endless)
    with pytest.raises(StoreError, match="more than the expected 300000 bytes"):
        case.fetch()
    assert case.path.stat().st_size <= 300_000


def test_a_slow_drip_is_cut_off(server: Loopback, tmp_path: Path) -> None:
    case = Case(server, tmp_path, piece=1, delay=0.01)
    with pytest.raises(StoreError, match=r"too slow, \d+ bytes in 0.05 s"):
        case.fetch(stall_seconds=0.05, stall_bytes=10_000)


def test_silence_is_cut_off(server: Loopback, tmp_path: Path) -> None:
    case = Case(server, tmp_path, piece=1000, delay=0.4)
    with pytest.raises(StoreError, match="the connection broke"):
        case.fetch(silence=0.05)


def test_nobody_there(tmp_path: Path, server: Loopback) -> None:
    case = Case(server, tmp_path)
    with pytest.raises(StoreError, match=r"127.0.0.1:9/f: cannot connect"):
        case.fetch(url="http://127.0.0.1:9/f")


def test_an_encoding_that_was_not_asked_for(server: Loopback, tmp_path: Path) -> None:
    case = Case(server, tmp_path)
    case.route.headers["Content-Encoding"] = "gzip"
    with pytest.raises(StoreError, match="content encoding"):
        case.fetch()
    assert server.log[0].headers["accept-encoding"] == "identity"


def test_no_room(server: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(server, tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=200_000))
    with pytest.raises(StoreError, match="not enough room"):
        case.fetch()
    assert server.log == []


def test_redirects_are_followed_and_the_token_stays_at_home(server: Loopback, tmp_path: Path) -> None:
    case, other = Case(server, tmp_path), Loopback()
    try:
        server.routes["/r"] = Route(headers={"Location": "/s"}, statuses=[307])
        server.routes["/s"] = Route(headers={"Location": other.url + "/f?signature=1"}, statuses=[302])
        other.routes["/f"] = Route(BODY)
        with Client(auth=Bearer("secret")) as client:
            fetch(Remote(server.url + "/r", len(BODY), SHA, "file"), case.path, client, case.bar)
        assert [asked.headers.get("authorization") for asked in server.log] == ["Bearer secret"] * 2
        assert [asked.headers.get("authorization") for asked in other.log] == [None]
        assert case.path.read_bytes() == BODY
    finally:
        other.close()


@pytest.mark.parametrize(
    "target",
    ["file:///etc/passwd", "ftp://127.0.0.1/f", "https:///x", "http://example.invalid/f", "gopher://x", "data:,x"],
)
def test_redirects_that_are_refused(server: Loopback, tmp_path: Path, target: str) -> None:
    case = Case(server, tmp_path, statuses=[302])
    case.route.headers["Location"] = target
    with pytest.raises(StoreError) as caught:
        case.fetch()
    assert len(server.log) == 1 and not isinstance(caught.value, Transient) and "\n" not in str(caught.value)


def test_redirects_in_a_circle(server: Loopback, tmp_path: Path) -> None:
    case = Case(server, tmp_path, statuses=[302] * 50)
    case.route.headers["Location"] = "/f"
    with pytest.raises(StoreError, match="more than 10 redirects"):
        case.fetch()


def test_what_urls_may_be_asked() -> None:
    outside = check_url("https://example.com/x", None, False)
    assert check_url("http://localhost:1/x", None, False).port == 1
    assert check_url("http://[::1]/", None, False).hostname == "::1"
    assert check_url("http://example.com/", None, True).scheme == "http"
    for url in (
        "http://example.com/",
        "http://127.0.0.1.example.com/",
        "https:///x",
        "https://h:99999/",
        "x",
        "https://[/",
    ):
        with pytest.raises(StoreError):
            check_url(url, None, False)
    for url in ("https://127.0.0.1/", "https://localhost/", "http://example.com/", "http://[::1]:80/"):
        with pytest.raises(StoreError):
            check_url(url, outside, False)


def test_urls_are_shown_without_secrets() -> None:
    assert public_url("https://user:secret@example.com:8/a/b?signature=1#x") == "https://example.com:8/a/b"


def test_a_file_of_this_machine(tmp_path: Path) -> None:
    source, target, bar = tmp_path / "a", tmp_path / "work" / "b", Recorder()
    source.write_bytes(BODY)
    copy_local(source, Remote("", len(BODY), SHA, "file"), target, bar)
    assert target.read_bytes() == BODY and bar.steps == [["file", 300_000, 300_000]]
    for remote in (Remote("", 5, SHA, "x"), Remote("", len(BODY), "0" * 64, "x")):
        with pytest.raises(StoreError, match="expected"):
            copy_local(source, remote, target, bar)
    with pytest.raises(StoreError, match="No such file"):
        copy_local(tmp_path / "no", Remote("", 5, SHA, "x"), target, bar)
