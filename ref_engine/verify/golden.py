"""The folder `golden/` of a checkout: what other programs computed, every file held to the hash in its manifest."""

from __future__ import annotations

import gzip
import hashlib
import json
from functools import cached_property
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ref_engine.errors import RefEngineError


class GoldenError(RefEngineError):
    """Golden data that is missing, damaged or not as its manifest says: no case can be judged by it."""


class Golden:
    """A folder with a `manifest.json`. Files are read by their names there, such as `ops/vec_dot.npz`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @cached_property
    def files(self) -> dict[str, dict[str, Any]]:
        """name -> its entry: sha256, producer, version, tolerance, perhaps measured and note. Raises GoldenError."""
        path = self.root / "manifest.json"
        try:
            files = json.loads(path.read_bytes())["files"]
        except OSError as error:
            raise GoldenError(f"{path}: {error.strerror}; --golden names the folder of golden data") from error
        except (ValueError, KeyError, TypeError) as error:
            raise GoldenError(f"{path}: not a manifest of golden data") from error
        if not isinstance(files, dict) or not all(isinstance(entry, dict) for entry in files.values()):
            raise GoldenError(f"{path}: not a manifest of golden data")
        return files

    def names(self, pattern: str) -> list[str]:
        """Names that match a glob in which `*` does not cross folders, sorted."""
        return sorted(name for name in self.files if PurePosixPath("/" + name).match("/" + pattern))

    def path(self, name: str) -> Path:
        """Where a file lies, once its bytes were found to be the manifest's."""
        self.read(name)
        return self.root / name

    def read(self, name: str) -> bytes:
        """Its bytes. Raises GoldenError where it is not listed, not there or changed."""
        if name not in self.files:
            raise GoldenError(f"{self.root / 'manifest.json'} lists no {name}: this is another version's golden data")
        try:
            data = (self.root / name).read_bytes()
        except OSError as error:
            raise GoldenError(f"{self.root / name}: {error.strerror}") from error
        found, listed = hashlib.sha256(data).hexdigest(), self.files[name].get("sha256")
        if found != listed:
            raise GoldenError(f"{self.root / name}: its sha256 is {found}, the manifest says {listed}")
        return data

    def npz(self, name: str) -> dict[str, np.ndarray[Any, np.dtype[Any]]]:
        with np.load(BytesIO(self.read(name)), allow_pickle=False) as arrays:
            return dict(arrays)

    def json(self, name: str) -> Any:
        """Of a .json or a .json.gz file."""
        data = self.read(name)
        return json.loads(gzip.decompress(data) if name.endswith(".gz") else data)

    def tolerance(self, name: str, key: str) -> float:
        """A limit from the manifest, such as the `nmse` of a file."""
        value = self.files[name].get("tolerance")
        if not isinstance(value, dict) or not isinstance(value.get(key), float | int):
            raise GoldenError(f"{self.root / 'manifest.json'}: {name} has no tolerance {key}")
        return float(value[key])

    def measured(self, name: str, key: str) -> float:
        """How far the producer is from itself, say; 0 where nothing was measured."""
        return float(self.files[name].get("measured", {}).get(key, 0.0))


def find_golden(given: Path | None = None) -> Golden:
    """The folder given, or the one beside the package (a checkout), or `golden` in the current folder.

    Raises GoldenError where there is none: a wheel does not carry the 20 MB of golden data.
    """
    if given is not None:
        golden = Golden(given)
        golden.files  # noqa: B018 - a folder that was named must be one
        return golden
    places = (Path(__file__).resolve().parents[2] / "golden", Path("golden"))
    for place in places:
        if (place / "manifest.json").is_file():
            return Golden(place)
    raise GoldenError(
        "no golden data: an installed package does not carry it; --golden DIR names the folder golden/ of a checkout"
    )
