"""The simple repository API of package indexes: from a project and a file name to a URL.

Sources: PEP 503 (HTML pages), PEP 691 and 700 (the same in JSON, with sizes). An index may also be a local
directory, as for pip.
"""

import re
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit
from urllib.request import url2pathname

from ref_engine.errors import StoreError
from ref_engine.library.catalog import PackageFile
from ref_engine.library.manifest import parse_json_object
from ref_engine.library.sources.pip_settings import IndexSettings
from ref_engine.library.web import Client, NotFound, public_url

_JSON = "application/vnd.pypi.simple.v1+json"
_ACCEPT = f"{_JSON}, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
_PAGE_LIMIT = 64 << 20  # bytes; projects with thousands of files have pages of some MB
_SHA256 = re.compile(r"sha256=([0-9a-f]{64})")


@dataclass(frozen=True)
class Link:
    """One file that a page offers; `sha256` in hex where the page tells it, else None."""

    filename: str
    url: str
    sha256: str | None


def locate(wanted: PackageFile, settings: IndexSettings, client: Client) -> str:
    """The URL (http, https or file) of a package file. StoreError that tells what was asked and why it
    failed."""
    reasons = []
    for page, is_index in [(url, True) for url in settings.indexes] + [(url, False) for url in settings.find_links]:
        try:
            links = project_links(page, wanted.project, client) if is_index else page_links(page, client)
        except StoreError as error:
            reasons.append(str(error))
            continue
        for link in links:
            if link.filename == wanted.filename:
                if link.sha256 in (None, wanted.sha256):
                    return link.url
                reasons.append(f"{public_url(page)}: its {link.filename} has another sha256, {link.sha256}")
    why = "; ".join(reasons) or "not found on any index that pip is set up for"
    raise StoreError(f"{wanted.filename}: {why}")


def project_links(index: str, project: str, client: Client) -> list[Link]:
    """The files of a project on one index; none where the index does not know it."""
    name = re.sub(r"[-_.]+", "-", project).lower()
    return page_links(f"{index.rstrip('/')}/{name}/", client)


def page_links(page: str, client: Client) -> list[Link]:
    """The files that a page, given by URL or path, links to. A directory stands for a page of its files."""
    local = _local_path(page)
    if local is not None:
        return _local_links(local)
    try:
        body, response = client.get_bytes(page, _PAGE_LIMIT, {"Accept": _ACCEPT})
    except NotFound:
        return []
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == _JSON:
        links = parse_json_page(body, response.url, public_url(page))
    else:
        links = parse_html_page(body.decode("utf-8", "replace"), response.url)
    return [Link(link.filename, _with_login(link.url, page), link.sha256) for link in links if _is_web(link.url)]


def parse_json_page(body: bytes, base: str, what: str) -> list[Link]:
    """PEP 691: `{"files": [{"filename", "url", "hashes": {"sha256"}}]}`. StoreError for another shape."""
    files = parse_json_object(body, what).get("files")
    if not isinstance(files, list):
        raise StoreError(f"{what}: no list of files")
    links = []
    for file in files:
        filename, url, hashes = (
            (file.get(key) for key in ("filename", "url", "hashes")) if isinstance(file, dict) else (None, None, None)
        )
        if not isinstance(filename, str) or not isinstance(url, str):
            raise StoreError(f"{what}: a file without name or URL")
        sha256 = hashes.get("sha256") if isinstance(hashes, dict) else None
        links.append(Link(filename, urljoin(base, url), sha256 if isinstance(sha256, str) else None))
    return links


def parse_html_page(text: str, base: str) -> list[Link]:
    """PEP 503: anchors whose `href` ends in the file name and may carry `#sha256=HEX`."""
    reader = _Anchors()
    reader.feed(text)
    reader.close()
    base = urljoin(base, reader.base) if reader.base else base
    links = []
    for href in reader.hrefs:
        url, fragment = urldefrag(urljoin(base, href))
        match = _SHA256.search(fragment)
        links.append(Link(unquote(urlsplit(url).path.rpartition("/")[2]), url, match[1] if match else None))
    return links


class _Anchors(HTMLParser):
    """Collects the `href` of every anchor, and that of `<base>`."""

    def __init__(self) -> None:
        super().__init__()
        self.hrefs: list[str] = []
        self.base: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        href = dict(attrs).get("href")
        if href and tag == "a":
            self.hrefs.append(href)
        elif href and tag == "base" and self.base is None:
            self.base = href


def _local_links(path: Path) -> list[Link]:
    try:
        page = path / "index.html" if path.is_dir() else path
        if page.is_file():
            return parse_html_page(page.read_text("utf-8", "replace"), page.resolve().as_uri())
        files = sorted(path.iterdir()) if path.is_dir() else []
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from error
    return [Link(file.name, file.resolve().as_uri(), None) for file in files]


def local_file(url: str) -> Path | None:
    """The path of a `file:` URL, or None."""
    parts = urlsplit(url)
    return Path(url2pathname(parts.path)) if parts.scheme == "file" else None


def _local_path(page: str) -> Path | None:
    """The path that an index or find-links setting means, or None where it is a web address."""
    return local_file(page) or (None if "://" in page else Path(page).expanduser())


def _is_web(url: str) -> bool:
    return urlsplit(url).scheme in (
        "http",
        "https",
    )  # a web page has no business naming files of this machine


def _with_login(url: str, index: str) -> str:
    """Puts the index's user and password into a URL on the same server, as pip does."""
    ours, theirs = urlsplit(index), urlsplit(url)
    login, at, _ = ours.netloc.rpartition("@")
    same = (ours.scheme, ours.hostname, ours.port) == (theirs.scheme, theirs.hostname, theirs.port)
    return (
        theirs._replace(netloc=f"{login}@{theirs.netloc}").geturl() if at and same and "@" not in theirs.netloc else url
    )
