"""config.json and its siblings, read with checks."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ref_engine.errors import ConvertError
from ref_engine.files.cursor import show, show_path

_LARGEST_FILE = 1 << 28  # a tokenizer.json of 500,000 tokens has 40 MB
_LARGEST = 1 << 31


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises ConvertError for a file that is missing, huge, or not a JSON object."""
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise ConvertError(f"{show_path(path)}: larger than {_LARGEST_FILE} bytes")
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConvertError(f"{show_path(path)}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ConvertError(f"{show_path(path)}: not JSON: {error}") from error
    if not isinstance(found, dict):
        raise ConvertError(f"{show_path(path)}: not a JSON object")
    return found


@dataclass(frozen=True)
class Config(Mapping[str, Any]):
    """The values of config.json, or of an object inside it. `where` begins every error."""

    entries: Mapping[str, Any]
    where: str = "config.json"

    def __getitem__(self, name: str) -> Any:
        if name not in self.entries:
            raise ConvertError(f"{self.where}: {name} is missing")
        return self.entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self.entries

    def get(self, name: str, default: Any = None) -> Any:
        return self.entries.get(name, default)

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def changed(self, **values: Any) -> Config:
        return Config({**self.entries, **values}, self.where)

    def without(self, *names: str) -> Config:
        return Config({key: value for key, value in self.entries.items() if key not in names}, self.where)

    def first(self, *names: str) -> Any:
        """The value of the first of these names that is there (it may be null); None where none is."""
        return next((self.entries[name] for name in names if name in self.entries), None)

    def integer(self, *names: str, default: int | None = None, at_least: int = 0) -> int:
        """The first of these names that is there and not null, as an integer."""
        for name in names:
            value = self.entries.get(name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not at_least <= value < _LARGEST:
                raise ConvertError(f"{self.where}: {name} cannot be {show(str(value))}")
            return value
        if default is None:
            raise ConvertError(f"{self.where}: {names[0]} is missing")
        return default

    def number(self, *names: str, default: float | None = None) -> float:
        """The first of these names that is there and not null, as a finite number."""
        for name in names:
            value = self.entries.get(name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ConvertError(f"{self.where}: {name} cannot be {show(str(value))}")
            return float(value)
        if default is None:
            raise ConvertError(f"{self.where}: {names[0]} is missing")
        return default

    def list_of(self, name: str, kind: type, length: int | None = None) -> list[Any]:
        value = self[name]
        if not isinstance(value, list) or not all(isinstance(v, kind) for v in value):
            raise ConvertError(f"{self.where}: {name} must be a list of {kind.__name__}")
        if length is not None and len(value) != length:
            raise ConvertError(f"{self.where}: {name} has {len(value)} entries, not {length}")
        return value

    def inner(self, name: str) -> Config:
        """An object inside this one; empty where it is not there."""
        value = self.entries.get(name)
        if value is None:
            return Config({}, f"{self.where}: {name}")
        if not isinstance(value, dict):
            raise ConvertError(f"{self.where}: {name} must be an object")
        return Config(value, f"{self.where}: {name}")

    @property
    def n_layers(self) -> int:
        return self.integer("n_layers", "num_hidden_layers", "n_layer", "num_layers", at_least=1)

    @property
    def n_heads(self) -> int:
        return self.integer("n_heads", "num_attention_heads", "n_head", at_least=1)

    @property
    def n_kv_heads(self) -> int:
        return self.integer("n_kv_heads", "num_key_value_heads", default=self.n_heads, at_least=1)

    @property
    def width(self) -> int:
        return self.integer("hidden_size", "n_embd", "d_model", "dim", at_least=1)

    @property
    def head_width(self) -> int:
        """head_dim, or the model's width over its heads."""
        return self.integer("head_dim", default=self.width // self.n_heads, at_least=1)

    @property
    def rope(self) -> Config:
        """rope_parameters; where they differ between kinds of layers, those of full attention."""
        both = self.inner("rope_parameters")
        return both.inner("full_attention") if "full_attention" in both else both


def read_config(folder: Path) -> Config:
    """config.json of a directory. Raises ConvertError."""
    if not folder.is_dir():
        raise ConvertError(f"{show_path(folder)}: not a directory")
    return Config(read_json(folder / "config.json"), show_path(folder / "config.json"))
