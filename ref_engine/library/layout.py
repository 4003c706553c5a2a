"""Paths and files of a store's `manifests/` half, and what counts as a path to a model."""

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

from ref_engine.errors import StoreError
from ref_engine.library.manifest import MANIFEST_LIMIT, Manifest, parse_manifest
from ref_engine.library.names import LOCAL_HOST, Name, check_part, host_of

REGISTRY_VARIABLE = "REF_ENGINE_REGISTRY"
_MENTION = re.compile(rb"sha256[:-]([0-9a-f]{64})")


def is_path(text: str) -> bool:
    """Whether `text` means a file rather than a name: `x.gguf`, `./x`, `../x`, `~/x`, `/x`, `C:\\x`."""
    return (
        (text.lower().endswith(".gguf") and not text.startswith("hf:"))
        or text.startswith((".", "~"))
        or PurePosixPath(text).is_absolute()
        or (bool(PureWindowsPath(text).drive) and "\\" in text)
    )


def existing_file(path: str | os.PathLike[str]) -> Path:
    """The path, `~` expanded, of a regular file; StoreError if there is none."""
    found = Path(path).expanduser()
    if not found.is_file():  # False, too, for a path with NUL in it
        shown = str(found) if str(found).isprintable() else repr(str(found))
        raise StoreError(f"{shown}: no such file")
    return found


def check_gguf(path: Path, what: str) -> None:
    """StoreError that names `what` unless the file begins as GGUF files do."""
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise StoreError(f"{what}: not a GGUF file")


def preferred_hosts() -> tuple[str, ...]:
    """Whose models a name without a host means first: local ones, then those of the configured registry."""
    registry = os.environ.get(REGISTRY_VARIABLE, "")
    return (LOCAL_HOST, host_of(registry)) if registry else (LOCAL_HOST,)


def manifest_path(root: Path, name: Name) -> Path:
    return root / "manifests" / name.host / name.namespace / name.model / name.tag


def stored_names(root: Path) -> Iterator[Name]:
    """The names that have a manifest under `root`. What does not have the shape of a name is passed over."""
    manifests = root / "manifests"
    for path in sorted(manifests.glob("*/*/*/*")):
        host, namespace, model, tag = path.relative_to(manifests).parts
        try:
            for kind, part in (("host", host), ("namespace", namespace), ("model", model), ("tag", tag)):
                check_part(kind, part, part)
        except StoreError:  # .DS_Store and the like
            continue
        if path.is_file():
            yield Name(host, namespace, model, tag)


def read_manifest(root: Path, name: Name) -> Manifest:
    path = manifest_path(root, name)
    try:
        with path.open("rb") as file:
            raw = file.read(MANIFEST_LIMIT + 1)
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from error
    return parse_manifest(raw, str(path))


def mentioned(path: Path) -> set[str]:
    """Every hash that the file at `path` mentions, even where it is not a manifest that can be read."""
    try:
        return {match.decode() for match in _MENTION.findall(path.read_bytes())}
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from error


def remove_empty_parents(path: Path, top: Path) -> None:
    """Removes the directories between a removed file and `top` that are empty now."""
    for parent in path.parents:
        if parent == top or any(parent.iterdir()):
            return
        parent.rmdir()
