"""The tokenizer's files of a checkpoint, each read once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ref_engine.checkpoint import Config, read_json
from ref_engine.errors import ConvertError
from ref_engine.files.cursor import show, show_path


@dataclass(frozen=True)
class AddedToken:
    """A token beside the model's own vocabulary.

    normalized: found in text after normalisation; special: not part of the text, such as an end of turn
    """

    id: int
    content: str
    special: bool
    normalized: bool


@dataclass(frozen=True)
class VocabFiles:
    """config: of the model, normalised. pre: name of the pre-tokenizer, where it is given."""

    folder: Path
    config: Config
    pre: str | None = None

    def has(self, name: str) -> bool:
        return (self.folder / name).is_file()

    def path(self, name: str) -> str:
        return show_path(self.folder / name)

    def _optional(self, name: str) -> Config | None:
        return Config(read_json(self.folder / name), self.path(name)) if self.has(name) else None

    @cached_property
    def tokenizer(self) -> Config | None:
        """tokenizer.json"""
        return self._optional("tokenizer.json")

    @cached_property
    def tokenizer_config(self) -> Config | None:
        return self._optional("tokenizer_config.json")

    @cached_property
    def own_config(self) -> Config:
        """config.json as it is."""
        return Config(read_json(self.folder / "config.json"), self.path("config.json"))

    @cached_property
    def generation_config(self) -> Config:
        return self._optional("generation_config.json") or Config({}, self.path("generation_config.json"))

    @property
    def n_tokens(self) -> int | None:
        """Tokens that the model's matrices have rows for."""
        return self.config.integer("vocab_size") if self.config.get("vocab_size") is not None else None

    @cached_property
    def added(self) -> dict[int, AddedToken]:
        """Added tokens of tokenizer.json, and of tokenizer_config.json those that are not there."""
        found = {}
        if self.tokenizer is not None:
            for entry in _objects(self.tokenizer, "added_tokens"):
                token = _added(entry.get("id"), entry, self.tokenizer.where)
                found[token.id] = token
        for token in self.decoder_tokens():
            found.setdefault(token.id, token)
        return found

    def decoder_tokens(self) -> list[AddedToken]:
        """`added_tokens_decoder` of tokenizer_config.json."""
        config = self.tokenizer_config
        if config is None:
            return []
        table = config.inner("added_tokens_decoder")
        tokens = []
        for key, entry in table.items():
            if not key.isdecimal() or not isinstance(entry, dict):
                raise ConvertError(f"{table.where}: {show(key)} is not a token's number with an object")
            tokens.append(_added(int(key), entry, table.where))
        return tokens


def _objects(config: Config, name: str) -> list[dict[str, Any]]:
    return config.list_of(name, dict) if config.get(name) else []


def _added(number: Any, entry: dict[str, Any], where: str) -> AddedToken:
    content = entry.get("content")
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 1 << 31:
        raise ConvertError(f"{where}: an added token has the number {show(str(number))}")
    if not isinstance(content, str):
        raise ConvertError(f"{where}: added token {number} has no text")
    special = bool(entry.get("special", False))
    return AddedToken(number, content, special, bool(entry.get("normalized", not special)))
