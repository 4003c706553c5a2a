"""Manifests: the JSON that names a model's blobs, as Docker registries and Ollama write it.

Source: Docker's image manifest, version 2, schema 2; media types of Ollama's `server/manifest.go`,
`server/layer.go`.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ref_engine.errors import StoreError

MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"
_OLLAMA = "application/vnd.ollama.image."
MODEL, PROJECTOR, ADAPTER = _OLLAMA + "model", _OLLAMA + "projector", _OLLAMA + "adapter"
TEMPLATE, SYSTEM, PARAMS = _OLLAMA + "template", _OLLAMA + "system", _OLLAMA + "params"
LICENSE, MESSAGES = _OLLAMA + "license", _OLLAMA + "messages"

MANIFEST_LIMIT = 1 << 20  # bytes; real ones have under 10 kB
TEXT_LIMIT = 8 << 20  # bytes of a template, licence or config blob
LAYER_LIMIT = 1 << 44  # bytes; 16 TiB, so that sums of sizes stay sane
_LAYERS = 256
_DIGEST = re.compile(r"sha256[:-]([0-9a-f]{64})")


@dataclass(frozen=True)
class Layer:
    """One blob: what it is, the SHA-256 of its bytes in hex, and how many there are."""

    media_type: str
    sha256: str
    size: int

    def to_json(self) -> dict[str, object]:
        return {"mediaType": self.media_type, "digest": f"sha256:{self.sha256}", "size": self.size}


@dataclass(frozen=True)
class Manifest:
    """A model: its config and layers. `raw` are the bytes as stored, whose SHA-256 is the model's digest."""

    config: Layer
    layers: tuple[Layer, ...]
    raw: bytes

    @property
    def all_layers(self) -> tuple[Layer, ...]:
        return (self.config, *self.layers)

    @property
    def size(self) -> int:
        return sum(layer.size for layer in self.all_layers)

    def layer(self, media_type: str) -> Layer | None:
        return next((layer for layer in self.layers if layer.media_type == media_type), None)

    def model(self, what: str) -> Layer:
        """The one GGUF layer; StoreError that names `what` where there is none or more than one."""
        found = [layer for layer in self.layers if layer.media_type == MODEL]
        if len(found) != 1:
            raise StoreError(f"{what}: {len(found)} GGUF model layers, expected 1")
        return found[0]


def make_manifest(config: Layer, layers: Sequence[Layer]) -> Manifest:
    body = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": config.to_json(),
        "layers": [layer.to_json() for layer in layers],
    }
    return Manifest(config, tuple(layers), json.dumps(body, separators=(",", ":")).encode())


def parse_manifest(raw: bytes, what: str) -> Manifest:
    """Checks every field of hostile JSON. StoreError names `what` (a path or URL)."""
    if len(raw) > MANIFEST_LIMIT:
        raise StoreError(f"{what}: a manifest of {len(raw)} bytes, more than {MANIFEST_LIMIT}")
    body = parse_json_object(raw, what)
    if body.get("schemaVersion") != 2:
        raise StoreError(f"{what}: not a version 2 manifest")
    layers = body.get("layers")
    if not isinstance(layers, list) or not 1 <= len(layers) <= _LAYERS:
        raise StoreError(f"{what}: a manifest needs 1 to {_LAYERS} layers")
    config = _parse_layer(body.get("config"), f"{what}: config")
    return Manifest(config, tuple(_parse_layer(entry, f"{what}: layer {i}") for i, entry in enumerate(layers)), raw)


def parse_json_object(raw: bytes, what: str) -> dict[str, object]:
    """A JSON object from bytes that may be anything; StoreError names `what`."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{what}: not JSON") from error
    if not isinstance(body, dict):
        raise StoreError(f"{what}: not a JSON object")
    return body


def parse_digest(text: object, what: str) -> str:
    """`sha256:HEX` (or `sha256-HEX`, as older Ollama wrote it) -> HEX, which is safe as part of a path."""
    match = _DIGEST.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise StoreError(f"{what}: not a sha256 digest")
    return match[1]


def _parse_layer(entry: object, what: str) -> Layer:
    if not isinstance(entry, dict):
        raise StoreError(f"{what}: not an object")
    media_type, size = entry.get("mediaType"), entry.get("size")
    if not isinstance(media_type, str) or not 1 <= len(media_type) <= 255:
        raise StoreError(f"{what}: no media type")
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= LAYER_LIMIT:
        raise StoreError(f"{what}: not a size in bytes")
    return Layer(media_type, parse_digest(entry.get("digest"), what), size)
