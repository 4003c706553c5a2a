"""What `list` and `show` say about a model."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

from ref_engine.errors import StoreError
from ref_engine.library.blobs import Blobs
from ref_engine.library.facts import Facts, config_facts, gguf_facts, gguf_metadata
from ref_engine.library.manifest import (
    LICENSE,
    MESSAGES,
    PARAMS,
    SYSTEM,
    TEMPLATE,
    TEXT_LIMIT,
    Manifest,
    parse_json_object,
)
from ref_engine.library.names import Name


@dataclass(frozen=True)
class Entry:
    """One row of the list. `size` is in bytes, `digest` the SHA-256 of the manifest, `modified` in Unix
    seconds."""

    name: str
    full_name: Name
    size: int
    digest: str
    modified: float
    facts: Facts
    path: Path
    read_only: bool


@dataclass(frozen=True)
class ModelInfo:
    """A model in full. `template` and `system` are the manifest's own, None where it has none; the chat
    template of the GGUF file is in `metadata` under `tokenizer.chat_template`."""

    name: str
    path: Path
    size: int
    facts: Facts
    metadata: dict[str, object]
    template: str | None = None
    system: str | None = None
    parameters: dict[str, object] = field(default_factory=dict)
    messages: tuple[dict[str, object], ...] = ()
    licenses: tuple[str, ...] = ()


def entry_of(shown: str, name: Name, manifest: Manifest, blobs: Blobs, modified: float, read_only: bool) -> Entry:
    """The row of a stored model; its facts come from the config blob, else from the GGUF header."""
    layer = manifest.model(str(name))
    path = blobs.path(layer.sha256)
    facts = config_facts(blobs.read(manifest.config, TEXT_LIMIT), str(name)) or gguf_facts(path)
    digest = hashlib.sha256(manifest.raw).hexdigest()
    return Entry(shown, name, manifest.size, digest, modified, facts, path, read_only)


def describe(shown: str, path: Path, manifest: Manifest | None, blobs: Blobs | None) -> ModelInfo:
    """Everything about the GGUF file at `path`, and the text layers of its manifest where it has one."""
    metadata, facts = gguf_metadata(path), gguf_facts(path)
    if manifest is None or blobs is None:
        return ModelInfo(shown, path, path.stat().st_size, facts, metadata)
    texts: dict[str, list[str]] = {}
    for layer in manifest.layers:
        if layer.media_type in (TEMPLATE, SYSTEM, PARAMS, LICENSE, MESSAGES):
            raw = blobs.read(layer, TEXT_LIMIT)
            texts.setdefault(layer.media_type, []).append(raw.decode("utf-8", "replace"))
    params = texts.get(PARAMS)
    return ModelInfo(
        name=shown,
        path=path,
        size=manifest.size,
        facts=facts,
        metadata=metadata,
        template=texts.get(TEMPLATE, [None])[0],
        system=texts.get(SYSTEM, [None])[0],
        parameters=parse_json_object(params[0].encode(), f"{shown}: parameters") if params else {},
        messages=_messages(texts.get(MESSAGES, ["[]"])[0], shown),
        licenses=tuple(texts.get(LICENSE, ())),
    )


def _messages(text: str, shown: str) -> tuple[dict[str, object], ...]:
    try:
        body = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{shown}: messages: not JSON") from error
    if not isinstance(body, list) or not all(isinstance(message, dict) for message in body):
        raise StoreError(f"{shown}: messages: not a list of objects")
    return tuple(body)
