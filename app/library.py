"""The store of models as the server sees it: names, never paths; and what a model brings along besides its weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ref_engine.errors import StoreError
from ref_engine.library import Entry, Store
from ref_engine.library.blobs import Blobs
from ref_engine.library.layout import is_path
from ref_engine.library.manifest import MESSAGES, PARAMS, SYSTEM, TEMPLATE, TEXT_LIMIT, Manifest, parse_json_object
from ref_engine.sample import SamplingParams

from .errors import ApiError
from .messages import Message, Role, TextBlock
from .service import ModelCard

_SAMPLING = frozenset(SamplingParams.__dataclass_fields__)


@dataclass(frozen=True)
class Own:
    """What a model's manifest says (Ollama's Modelfile): defaults for everything that a request leaves open.

    `sampling` are fields of SamplingParams. `system` None: the manifest has none.
    """

    sampling: Mapping[str, object] = field(default_factory=dict)
    stop: tuple[str, ...] = ()
    max_tokens: int | None = None
    n_ctx: int | None = None
    system: str | None = None
    messages: tuple[Message, ...] = ()
    template: str | None = None


@dataclass(frozen=True)
class Found:
    """A name of the store. `digest`: SHA-256 of its manifest."""

    name: str
    path: Path
    digest: str
    own: Own


class Library:
    """Look-ups in a store. Every method raises ApiError."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def find(self, name: str) -> Found:
        """The model called `name`; "not_found" where there is none, "invalid" for what cannot be a name."""
        root, full, manifest = self._located(name)
        blobs = Blobs(root)
        layer = manifest.model(str(full))
        if not blobs.has(layer):
            raise ApiError("internal", f"model {full}: its file is missing or cut short")
        texts = {}
        for kind in (PARAMS, SYSTEM, MESSAGES, TEMPLATE):
            found = manifest.layer(kind)
            if found is not None:
                texts[kind] = blobs.read(found, TEXT_LIMIT).decode("utf-8", "replace")
        return Found(name, blobs.path(layer.sha256), hashlib.sha256(manifest.raw).hexdigest(), own_of(texts, str(full)))

    def _located(self, name: str) -> tuple[Path, Any, Manifest]:
        check_name(name)
        try:
            return self.store.find(name)
        except StoreError as error:
            raise ApiError("not_found", str(error), "model") from None

    def entry(self, name: str) -> Entry:
        """The row of the list for a name."""
        _, full, _ = self._located(name)
        for entry in self.store.list():
            if entry.full_name == full:
                return entry
        raise ApiError("not_found", f"no model {name[:100]!r}", "model")

    def cards(self) -> list[ModelCard]:
        return [ModelCard(entry.name, entry.modified, entry.full_name.namespace) for entry in self.store.list()]

    def card(self, name: str) -> ModelCard:
        entry = self.entry(name)
        return ModelCard(name, entry.modified, entry.full_name.namespace)


def check_name(name: str) -> None:
    """A server takes names of its store, and no paths of its disk."""
    if is_path(name) or not name.isprintable():
        raise ApiError("invalid", f"{name[:100]!a} is not a model name", "model")


def own_of(texts: Mapping[str, str], what: str) -> Own:
    """From the text layers of a manifest, by media type. What cannot be used is refused with its name."""
    parameters = parse_json_object(texts[PARAMS].encode(), f"{what}: parameters") if PARAMS in texts else {}
    stop = parameters.get("stop", ())
    stops = (stop,) if isinstance(stop, str) else tuple(stop) if isinstance(stop, list) else ()
    sampling = {name: value for name, value in parameters.items() if name in _SAMPLING}
    limit, n_ctx = parameters.get("num_predict"), parameters.get("num_ctx")
    return Own(
        sampling=sampling,
        stop=tuple(text for text in stops if isinstance(text, str) and text),
        max_tokens=limit if isinstance(limit, int) and limit >= 0 else None,
        n_ctx=n_ctx if isinstance(n_ctx, int) and n_ctx > 0 else None,
        system=texts.get(SYSTEM),
        messages=_messages(texts.get(MESSAGES, "[]"), what),
        template=texts.get(TEMPLATE),
    )


def _messages(text: str, what: str) -> tuple[Message, ...]:
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        raise StoreError(f"{what}: its messages are not JSON") from None
    roles: dict[str, Role] = {"system": "system", "user": "user", "assistant": "assistant"}
    messages = []
    for item in body if isinstance(body, list) else []:
        if not isinstance(item, dict) or item.get("role") not in roles or not isinstance(item.get("content"), str):
            raise StoreError(f"{what}: its messages are not a list of role and content")
        messages.append(Message(roles[item["role"]], (TextBlock(item["content"]),)))
    return tuple(messages)
