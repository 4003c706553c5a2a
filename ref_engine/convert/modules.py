"""modules.json of sentence-transformers: what follows the model, of which GGUF knows how one vector is made of all."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any

from ref_engine.checkpoint import read_json
from ref_engine.errors import ConvertError
from ref_engine.files.cursor import show, show_path


def read_pooling(folder: Path) -> dict[str, Any] | None:
    """The configuration of the module Pooling; None where there is none. Raises ConvertError."""
    path = folder / "modules.json"
    if not path.is_file():
        return None
    try:
        modules = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConvertError(f"{show_path(path)}: not JSON: {error}") from error
    for module in modules if isinstance(modules, list) else [None]:
        if not isinstance(module, dict) or not all(isinstance(module.get(k), str) for k in ("type", "path")):
            raise ConvertError(f"{show_path(path)}: not a list of modules with type and path")
        if module["type"].endswith("Pooling"):
            inner = PurePosixPath(module["path"])
            if inner.is_absolute() or ".." in inner.parts or "\\" in module["path"] or "\0" in module["path"]:
                raise ConvertError(f"{show_path(path)}: {show(module['path'])} is not a folder in this directory")
            return read_json(folder / inner / "config.json")
    return None
