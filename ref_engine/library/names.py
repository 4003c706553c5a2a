"""Model names, `[host/][namespace/]model[:tag]`, under the rules of Ollama's model names.

A name becomes a path (`manifests/HOST/NAMESPACE/MODEL/TAG`), so every part is checked character by character
before it touches the disk: no `..`, no separators, no NUL, no leading dot or dash, nothing Windows reserves.
Source: `types/model/name.go` of Ollama (lengths, alphabets, case-insensitive equality).
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from urllib.parse import urlsplit

from ref_engine.errors import StoreError

LOCAL_HOST = "local"  # models that came from a file or a package, not from a registry
HUB_HOST = "hf"  # models that came from a model hub
NAMESPACE = "library"
TAG = "latest"

_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_NAMESPACE_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")
_HOST_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]*")
_WINDOWS = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.IGNORECASE)
_LONGEST = {"host": 350, "namespace": 80, "model": 80, "tag": 80}
_ALPHABET = {"host": _HOST_PART, "namespace": _NAMESPACE_PART, "model": _PART, "tag": _PART}


@dataclass(frozen=True)
class Name:
    """A name with every part filled in. Equality of two names on disk is that of `key`: case does not
    count."""

    host: str
    namespace: str
    model: str
    tag: str

    def __str__(self) -> str:
        return f"{self.host}/{self.namespace}/{self.model}:{self.tag}"

    @property
    def key(self) -> tuple[str, str, str, str]:
        return (self.host.lower(), self.namespace.lower(), self.model.lower(), self.tag.lower())


@dataclass(frozen=True)
class Query:
    """A name as typed: the host may be missing, and whether the tag was typed is kept."""

    host: str | None
    namespace: str
    model: str
    tag: str
    tag_given: bool

    def at(self, host: str) -> Name:
        """The full name, with `host` where none was typed."""
        return Name(self.host or host, self.namespace, self.model, self.tag)

    def matches(self, name: Name) -> bool:
        return self.at(name.host).key == name.key


def check_part(kind: str, text: str, whole: str) -> str:
    """Returns `text`, or raises StoreError that names the part of `whole` that is not allowed."""
    if not 1 <= len(text) <= _LONGEST[kind]:
        raise StoreError(f"model name {_quote(whole)}: the {kind} must have 1 to {_LONGEST[kind]} characters")
    if not _ALPHABET[kind].fullmatch(text):
        raise StoreError(f"model name {_quote(whole)}: {_quote(text)} is not a valid {kind}")
    if _WINDOWS.fullmatch(text) or text.endswith("."):
        raise StoreError(f"model name {_quote(whole)}: {_quote(text)} cannot be a file name on every system")
    return text


def parse_name(text: str) -> Query:
    """`model`, `model:tag`, `namespace/model[:tag]`, `host[:port]/namespace/model[:tag]`,
    `hf:owner/repo[:tag]`.

    A file on the hub, `hf:owner/repo/path/file.gguf`, has its path without the ending as the tag. Raises
    StoreError for anything else.
    """
    if "://" in text:
        raise StoreError(f"model name {_quote(text)}: leave out the scheme, write host/namespace/model:tag")
    rest = text
    host: str | None = None
    if text.startswith("hf:"):
        host, rest = HUB_HOST, text[3:]
        if rest.lower().endswith(".gguf") and rest.count("/") >= 2:
            owner, repo, path = rest.split("/", 2)
            rest = f"{owner}/{repo}:{re.sub(r'[^A-Za-z0-9_.-]+', '-', path[:-5])[-80:].lstrip('-.')}"
    head, slash, last = rest.rpartition("/")
    model, colon, tag = last.partition(":")
    parts = [*(head.split("/") if slash else []), model]
    if len(parts) > 3 or (host and len(parts) != 2):
        raise StoreError(f"model name {_quote(text)}: expected [host/][namespace/]model[:tag]")
    if len(parts) == 3:
        host = check_part("host", parts[0], text)
    namespace = check_part("namespace", parts[-2], text) if len(parts) > 1 else NAMESPACE
    check_part("model", model, text)
    if colon:
        check_part("tag", tag, text)
    return Query(host, namespace, model, tag if colon else TAG, bool(colon))


def full_name(text: str, host: str = LOCAL_HOST) -> Name:
    """The name to write under: `text` with the missing parts filled in."""
    return parse_name(text).at(host)


def find(query: Query, names: Iterable[Name], preferred: Iterable[str] = (LOCAL_HOST,)) -> Name | None:
    """The stored name that `query` means, or None.

    Without a host in the query, the `preferred` hosts come first, in order; after them the name must be
    the only one, else StoreError lists the hosts to choose from.
    """
    hits = sorted((name for name in names if query.matches(name)), key=lambda name: name.key)
    for host in preferred:
        for hit in hits:
            if hit.host.lower() == host.lower():
                return hit
    if len(hits) > 1:
        choices = ", ".join(str(hit) for hit in hits[:5])
        raise StoreError(f"model name {_quote(query.model)} is ambiguous, choose one of: {choices}")
    return hits[0] if hits else None


def display(name: Name, names: Iterable[Name], preferred: Iterable[str] = (LOCAL_HOST,)) -> str:
    """The shortest text that `find` would lead back to `name` among `names`."""
    known, order = list(names), list(preferred)
    short = f"{name.model}:{name.tag}"
    texts = [short] if name.namespace.lower() == NAMESPACE else []
    texts += [f"hf:{name.namespace}/{short}"] if name.host == HUB_HOST else [f"{name.namespace}/{short}"]
    for text in texts:
        try:
            if find(parse_name(text), known, order) == name:
                return text
        except StoreError:  # ambiguous: the next, longer form may not be
            continue
    return str(name)


def near(text: str, known: Iterable[str]) -> str:
    """`; did you mean a, b?`, or what there is, or a hint where there is nothing: the end of an error
    line."""
    names = sorted(set(known))
    bare = {name.rpartition("/")[2].partition(":")[0]: name for name in names}
    wanted = text.lower()
    close = get_close_matches(wanted, names, n=3, cutoff=0.5)
    close += [bare[hit] for hit in get_close_matches(wanted.partition(":")[0], bare, n=3, cutoff=0.6)]
    if close:
        return f"; did you mean {', '.join(dict.fromkeys(close))}?"
    if names:
        return f"; there are: {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}"
    return "; the store is empty, `ref-engine pull smollm2` fetches the default model"


def name_from_file(stem: str) -> str:
    """A model name made from a file's name: lower case, what a name may not hold becomes `-`."""
    text = re.sub(r"[^a-z0-9_.-]+", "-", stem.lower()).strip("-.")[:80].strip("-.")
    return check_part("model", text or "model", stem)


def host_of(registry: str) -> str:
    """The host part that names from this registry are stored under: `http://127.0.0.1:5000` ->
    `127.0.0.1:5000`."""
    netloc = urlsplit(registry if "://" in registry else f"//{registry}").netloc.rpartition("@")[2]
    return check_part("host", netloc, registry)


def _quote(text: str) -> str:
    """A one-line, bounded form of hostile text."""
    return repr(text if len(text) <= 100 else text[:97] + "...")
