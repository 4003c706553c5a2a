"""Small checkpoints, rebuilt from golden/convert."""

from __future__ import annotations

import gzip
import importlib.util
import json
import shutil
import sys
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parents[2] / "golden"


def load_tool(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, GOLDEN / "make" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


TOOL = load_tool("convert_checkpoint")
FAMILIES: dict[str, Any] = json.loads(gzip.decompress((GOLDEN / "convert" / "families.json.gz").read_bytes()))


def write_family(name: str, folder: Path, **config: Any) -> Path:
    """The checkpoint of one family; config: values other than the golden's."""
    entry = FAMILIES[name]
    listing = {key: tuple(value) for key, value in entry["listing"].items()}
    TOOL.write_checkpoint(folder, {**entry["config"], **config}, listing, entry["shards"])
    for file in (GOLDEN / "convert" / "tokenizers" / entry["tokenizer"]).iterdir():
        shutil.copy(file, folder / file.name)
    return folder
