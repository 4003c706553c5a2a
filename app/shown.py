"""Everything about a model for /api/show."""

from __future__ import annotations

import math
from typing import Any

from ref_engine.cli.show import modelfile
from ref_engine.errors import RefEngineError
from ref_engine.library import ModelInfo, Store
from ref_engine.text.chat import probe, template_for
from ref_engine.text.chat.tools import choose_format

_LONG = 16  # an array of the metadata with more items is told only in full


def show(store: Store, name: str, verbose: bool) -> dict[str, Any]:
    """Ollama's fields, but for those that come from the list of models."""
    info = store.show(name)
    return {
        "license": "\n".join(info.licenses) or str(info.metadata.get("general.license", "")),
        "modelfile": modelfile(info),
        "parameters": _parameters(info),
        "template": info.template or str(info.metadata.get("tokenizer.chat_template", "")),
        "system": info.system or "",
        "messages": [dict(message) for message in info.messages],
        "model_info": {key: _plain(value, verbose) for key, value in info.metadata.items()},
        "capabilities": capabilities(info.metadata),
    }


def capabilities(metadata: dict[str, object]) -> list[str]:
    """What a model can be asked for, in Ollama's words."""
    arch = str(metadata.get("general.architecture", ""))
    if metadata.get(f"{arch}.pooling_type"):
        return ["embedding"]
    found = ["completion"]
    if "tokenizer.chat_template" in metadata:
        try:
            template = template_for(metadata)
            can, format = probe(template), choose_format(template.source)
        except RefEngineError:  # it can still complete raw prompts
            return found
        found += ["tools"] if can.tools else []
        found += ["thinking"] if can.thinking and format.thinking is not None else []
    if any(f"tokenizer.ggml.{key}_token_id" in metadata for key in ("fim_mid", "middle")):
        found.append("insert")
    return found


def _parameters(info: ModelInfo) -> str:
    lines = []
    for name, value in info.parameters.items():
        for item in value if isinstance(value, list) else [value]:
            lines.append(f"{name:<30} {_quoted(item) if isinstance(item, str) else item}")
    return "\n".join(lines)


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '\\"') + '"'


def _plain(value: object, verbose: bool) -> object:
    """As JSON has it; null for a long array that was not asked for, and for numbers that JSON has not."""
    if not isinstance(value, str) and hasattr(value, "__len__") and len(value) > _LONG and not verbose:
        return None
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(item, verbose=True) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return value
