"""Models from a Hugging Face hub: `hf:owner/repo/file.gguf`, or `hf:owner/repo:Q4_K_M` to pick by
quantisation.

The `huggingface_hub` package tells the endpoint, the user's token and the URL of a file; the bytes come
through our own downloader, which resumes into the store and checks the SHA-256 that the hub keeps for each
large file.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ref_engine.errors import StoreError
from ref_engine.library.download import Remote, fetch
from ref_engine.library.entries import Entry
from ref_engine.library.layout import check_gguf
from ref_engine.library.manifest import LAYER_LIMIT, MODEL, Layer, parse_json_object
from ref_engine.library.names import HUB_HOST, Name, near, parse_name
from ref_engine.library.progress import Progress
from ref_engine.library.store import Store
from ref_engine.library.web import Anonymous, Bearer, Client, NotFound, public_url

_SPEC = re.compile(r"hf:([A-Za-z0-9_][A-Za-z0-9_-]{0,79})/([A-Za-z0-9_][A-Za-z0-9_.-]{0,79})(?:/([^:]+)|:([^/:]+))?")
_SPLIT = re.compile(r"-\d{5}-of-\d{5}\.gguf$", re.IGNORECASE)
_FAVOURITE = "Q4_K_M"  # where neither a file nor a quantisation is named
_PAGE_LIMIT = 32 << 20


@dataclass(frozen=True)
class HubFile:
    """A GGUF file in a repository: its path there, size in bytes, SHA-256 in hex."""

    path: str
    size: int
    sha256: str


def pull_hub(spec: str, store: Store, bar: Progress, name: Name | None = None) -> Entry:
    """Fetches one GGUF file of a repository. Raises StoreError, also where `huggingface_hub` is not
    installed."""
    try:
        import huggingface_hub
        from huggingface_hub import constants
    except ImportError as error:
        raise StoreError(f"{spec}: needs the extra `hf`: pip install 'ref-engine[hf]'") from error
    repo, path, tag = parse_spec(spec)
    target = name or parse_name(spec).at(HUB_HOST)
    base = (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")
    token = huggingface_hub.get_token()
    with Client(auth=Bearer(token) if token else Anonymous()) as client:
        files, commit = list_files(client, f"{base}/api/models/{repo}?blobs=true", repo)
        file = choose(files, path, tag, repo)
        url = huggingface_hub.hf_hub_url(repo, file.path, revision=commit, endpoint=base)
        layer, blobs = Layer(MODEL, file.sha256, file.size), store.blobs
        with blobs.lock(f"sha256-{file.sha256}", bar):
            if not blobs.has(layer):
                partial = blobs.partial(file.sha256)
                fetch(Remote(url, file.size, file.sha256, file.path.rpartition("/")[2]), partial, client, bar)
                check_gguf(partial, public_url(url))
                blobs.land_partial(layer)
    return store.add_model(target, [layer])


def parse_spec(spec: str) -> tuple[str, str | None, str | None]:
    """`hf:owner/repo[/path/file.gguf | :QUANT]` -> (`owner/repo`, path, quant). Raises StoreError."""
    match = _SPEC.fullmatch(spec)
    path = match[3] if match else None
    if match is None or (path is not None and not _is_gguf_path(path)):
        raise StoreError(f"{spec[:200]!r}: expected hf:OWNER/REPO, hf:OWNER/REPO:QUANT or hf:OWNER/REPO/FILE.gguf")
    return f"{match[1]}/{match[2]}", path, match[4]


def list_files(client: Client, url: str, repo: str) -> tuple[list[HubFile], str]:
    """The GGUF files of a repository that have a hash, and the commit they belong to."""
    try:
        raw, _ = client.get_bytes(url, _PAGE_LIMIT)
    except NotFound as error:
        raise StoreError(f"hf:{repo}: the hub has no such repository") from error
    body = parse_json_object(raw, public_url(url))
    siblings, commit = body.get("siblings"), body.get("sha")
    if not isinstance(siblings, list) or not isinstance(commit, str) or not re.fullmatch(r"[0-9a-f]{40}", commit):
        raise StoreError(f"{public_url(url)}: not a description of a repository")
    files = []
    for entry in siblings:
        path = entry.get("rfilename") if isinstance(entry, dict) else None
        lfs = entry.get("lfs") if isinstance(entry, dict) else None
        if not isinstance(path, str) or not isinstance(lfs, dict) or not _is_gguf_path(path):
            continue
        size, sha256 = lfs.get("size"), lfs.get("sha256")
        good = isinstance(size, int) and not isinstance(size, bool) and 0 < size <= LAYER_LIMIT
        if good and isinstance(sha256, str) and re.fullmatch(r"[0-9a-f]{64}", sha256):
            files.append(HubFile(path, int(size or 0), sha256))
    return files, commit


def choose(files: Sequence[HubFile], path: str | None, tag: str | None, repo: str) -> HubFile:
    """The file meant by a path, by a quantisation in its name, or the only one. StoreError lists the
    choices."""
    known = [file.path for file in files]
    if path is not None:
        hits = [file for file in files if file.path == path]
        if not hits:
            raise StoreError(f"hf:{repo}: no file {path!r}{near(path, known) if known else '; it has no GGUF files'}")
    else:
        models = [file for file in files if "mmproj" not in file.path.lower()]
        hits = models if tag is None and len(models) == 1 else _with_quant(models, tag or _FAVOURITE)
        if len(hits) != 1 and not all(_SPLIT.search(file.path) for file in hits):
            hits = [file for file in hits if not _SPLIT.search(file.path)]
    if hits and _SPLIT.search(hits[0].path):
        raise StoreError(f"hf:{repo}: {hits[0].path} is split; download its parts and give the path of the first")
    if len(hits) != 1:
        choices = ", ".join(known[:8]) + (", ..." if len(known) > 8 else "")
        wanted = f"match {tag!r}" if tag else "could be meant"
        raise StoreError(f"hf:{repo}: {len(hits)} files {wanted}; it has: {choices or 'no GGUF files'}")
    return hits[0]


def _with_quant(files: Sequence[HubFile], tag: str) -> list[HubFile]:
    """Files with `tag` as a word of their name: `Q4_K` is in `x-Q4_K.gguf`, not in `x-Q4_K_M.gguf`."""
    word = re.compile(rf"(?:^|[-./]){re.escape(tag)}(?:$|[-./])", re.IGNORECASE)
    return [file for file in files if word.search(file.path[:-5])]


def _is_gguf_path(path: str) -> bool:
    parts = path.split("/")
    return (
        path.lower().endswith(".gguf")
        and path.isprintable()
        and len(path) <= 500
        and "\\" not in path
        and not any(part in ("", ".", "..") for part in parts)
    )
