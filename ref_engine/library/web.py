"""HTTP for downloads: bounded, patient with bad lines, and careful about where it is sent.

Redirects are followed by hand so that each hop is checked: only http(s), plain http only to this machine or
where the caller allows it, no step down from https, none from the outside to this machine, and a token goes
to the server that it was meant for and to no other.
"""

import ipaddress
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import SplitResult, urljoin, urlsplit

import requests
import urllib3
from requests.auth import AuthBase

from ref_engine.errors import StoreError
from ref_engine.version import __version__

READ = 1 << 18  # bytes asked of the socket at once
HOPS = 10
TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
LONGEST_WAIT = 30.0  # seconds, whatever a server's Retry-After says


class Transient(StoreError):
    """A failure that may pass: the connection, or a server that is busy. `retry_after` is the server's wish
    in s."""

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NotFound(StoreError):
    """The server answered 404 or 410."""


class Anonymous(AuthBase):
    """Sends no credentials; without it, requests would put those of ~/.netrc in place of our own header."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


class Bearer(AuthBase):
    """Sends a token."""

    def __init__(self, token: str) -> None:
        self.token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self.token}"
        return request


@dataclass(frozen=True)
class Patience:
    """How long to put up with a server: seconds to connect, seconds of silence, `retries` in a row without
    gain, `backoff` seconds before the first retry (doubled each time), and at least `stall_bytes` in
    `stall_seconds`."""

    connect: float = 15.0
    silence: float = 60.0
    retries: int = 6
    backoff: float = 0.5
    stall_seconds: float = 60.0
    stall_bytes: int = 16 << 10

    def pause(self, failures: int, error: Transient) -> None:
        """Sleeps before retry number `failures` (from 1)."""
        time.sleep(min(LONGEST_WAIT, max(error.retry_after, self.backoff * 2.0 ** (failures - 1))))


class Client:
    """A session with one policy. `auth` None means what the URL or ~/.netrc says; `verify` is a CA bundle;
    `answer` makes credentials out of a WWW-Authenticate header when a server asks for them."""

    def __init__(
        self,
        *,
        insecure: bool = False,
        auth: AuthBase | None = None,
        verify: str | None = None,
        patience: Patience | None = None,
        answer: Callable[[str], AuthBase] | None = None,
    ) -> None:
        self.insecure, self.auth, self.patience = insecure, auth, patience or Patience()
        self._answer = answer
        self._verify = verify
        self._session = requests.Session()
        self._session.headers["User-Agent"] = f"ref-engine/{__version__}"
        self._session.headers["Accept-Encoding"] = "identity"  # ranges and sizes are those of the file itself

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session.close()

    def open(
        self, url: str, headers: Mapping[str, str] | None = None, accept: Collection[int] = ()
    ) -> requests.Response:
        """A streamed answer of status 2xx or one in `accept`, after redirects. The caller closes it.

        Raises NotFound, Transient, or StoreError for what will not pass.
        """
        origin = at = check_url(url, None, self.insecure)
        answered = False
        for _ in range(HOPS):
            home = _same_server(at, origin)
            response = self._get(at.geturl(), headers, self.auth if home else Anonymous())
            if response.status_code == 401 and home and self._answer and not answered:
                response.close()  # no token yet, or it ran out during a long download
                self.auth, answered = self._answer(response.headers.get("www-authenticate", "")), True
                continue
            if not response.is_redirect:
                return _judge(response, at.geturl(), accept)
            response.close()
            at = check_url(urljoin(at.geturl(), response.headers["location"]), at, self.insecure)
        raise StoreError(f"{public_url(url)}: more than {HOPS} redirects")

    def get_bytes(
        self, url: str, limit: int, headers: Mapping[str, str] | None = None, accept: Collection[int] = ()
    ) -> tuple[bytes, requests.Response]:
        """A small answer, whole, and its closed response (status, headers, final URL). StoreError above
        `limit`."""
        failures = 0
        while True:
            try:
                return self._get_bytes(url, limit, headers, accept)
            except Transient as error:
                failures += 1
                if failures > min(3, self.patience.retries):  # nothing is lost by starting over
                    raise StoreError(f"{error} (gave up after {failures} tries)") from error
                self.patience.pause(failures, error)

    def chunks(self, response: requests.Response) -> Iterator[bytes]:
        """The body as it comes. Transient when the line breaks or goes too slowly."""
        where = public_url(response.url)
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise StoreError(f"{where}: sent with a content encoding that was not asked for")
        since, got = time.monotonic(), 0
        try:
            while chunk := response.raw.read1(READ):
                yield chunk
                got += len(chunk)
                if time.monotonic() - since > self.patience.stall_seconds:
                    if got < self.patience.stall_bytes:
                        raise Transient(f"{where}: too slow, {got} bytes in {self.patience.stall_seconds:g} s")
                    since, got = time.monotonic(), 0
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Transient(f"{where}: the connection broke ({type(error).__name__})") from error

    def _get_bytes(
        self, url: str, limit: int, headers: Mapping[str, str] | None, accept: Collection[int]
    ) -> tuple[bytes, requests.Response]:
        with self.open(url, headers, accept) as response:
            body = bytearray()
            for chunk in self.chunks(response):
                body += chunk
                if len(body) > limit:
                    raise StoreError(f"{public_url(url)}: more than {limit} bytes")
            declared = response.headers.get("content-length")
            if declared is not None and declared != str(len(body)):
                raise Transient(f"{public_url(url)}: the connection closed after {len(body)} of {declared} bytes")
            return bytes(body), response

    def _get(self, url: str, headers: Mapping[str, str] | None, auth: AuthBase | None) -> requests.Response:
        try:
            return self._session.get(
                url,
                headers=dict(headers or {}),
                auth=auth,
                stream=True,
                allow_redirects=False,
                verify=self._verify,
                timeout=(self.patience.connect, self.patience.silence),
            )
        except (requests.exceptions.SSLError, requests.exceptions.InvalidURL) as error:
            raise StoreError(f"{public_url(url)}: {_reason(error)}") from error
        except requests.exceptions.RequestException as error:
            raise Transient(f"{public_url(url)}: {_reason(error)}") from error


def check_url(url: str, before: SplitResult | None, insecure: bool) -> SplitResult:
    """The parts of a URL that may be asked, `before` being the one that redirected here. StoreError
    otherwise."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port  # both raise on nonsense
    except ValueError as error:
        raise StoreError(f"{url[:200]!r}: not a URL") from error
    if parts.scheme not in ("http", "https") or not host:
        raise StoreError(f"{url[:200]!r}: not an http(s) URL")
    if before is not None and is_loopback(host) and not is_loopback(before.hostname or ""):
        raise StoreError(f"{public_url(before.geturl())}: redirects to this machine, refused")
    if before is not None and before.scheme == "https" and parts.scheme == "http" and not insecure:
        raise StoreError(f"{public_url(before.geturl())}: redirects from https to plain http, refused")
    if parts.scheme == "http" and not insecure and not is_loopback(host):
        raise StoreError(f"{public_url(url)}: plain http is refused (allowed for this machine, or when insecure)")
    return parts


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def public_url(url: str) -> str:
    """A URL as it may be shown: without credentials, and without the query, which may be a signature."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"[:300]


def _same_server(a: SplitResult, b: SplitResult) -> bool:
    return (a.scheme, a.hostname, a.port) == (b.scheme, b.hostname, b.port)


def _judge(response: requests.Response, url: str, accept: Collection[int]) -> requests.Response:
    """The response if its status is good; else closes it and raises what the status means."""
    status = response.status_code
    if 200 <= status < 300 or status in accept:
        return response
    response.close()
    message = f"{public_url(url)}: HTTP {status} {(response.reason or '')[:60]}".rstrip()
    if status in (404, 410):
        raise NotFound(message)
    if status in TRANSIENT_STATUS:
        after = response.headers.get("retry-after", "")
        raise Transient(message, float(after) if after.isascii() and after.isdigit() else 0.0)
    raise StoreError(message)


def _reason(error: Exception) -> str:
    """One short line out of the nested messages of requests."""
    if isinstance(error, requests.exceptions.Timeout):
        return "no answer in time"
    if isinstance(error, requests.exceptions.SSLError):
        return "TLS failed, the server's certificate is not trusted"
    return "cannot connect" if isinstance(error, requests.exceptions.ConnectionError) else type(error).__name__
