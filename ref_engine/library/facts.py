"""What a list of models says about a model, read from its GGUF header; and Ollama's config blob, which
stores it."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ref_engine.errors import GGUFError, StoreError
from ref_engine.files.gguf import open_gguf
from ref_engine.library.manifest import Layer, parse_json_object

# `general.file_type`: llama.cpp's `enum llama_ftype`, under the names Ollama and llama.cpp print.
FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S",
    12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K",
    19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL",
    26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0",
    37: "TQ2_0", 38: "MXFP4", 39: "NVFP4", 40: "Q1_0", 41: "Q2_0",
}  # fmt: skip


@dataclass(frozen=True)
class Facts:
    """`family` is the architecture (`llama`), `parameters` a count for people (`134.52M`), then `Q4_1`."""

    family: str
    parameters: str
    quantisation: str


def gguf_facts(path: Path) -> Facts:
    """Facts from a file's header. StoreError if it is not a GGUF file."""
    try:
        with open_gguf(path) as file:
            metadata = file.metadata
            count = sum(math.prod(tensor.shape) for tensor in file.tensors.values())
            nbytes: Counter[str] = Counter()
            for tensor in file.tensors.values():
                nbytes[tensor.type.name] += tensor.nbytes
            family = metadata.get("general.architecture")
            quantisation = _file_type(metadata, nbytes)
    except GGUFError as error:
        raise StoreError(str(error)) from error
    return Facts(family if isinstance(family, str) else "", human_count(count), quantisation)


def gguf_metadata(path: Path) -> dict[str, object]:
    """The metadata of a file, as a dict that outlives it."""
    try:
        with open_gguf(path) as file:
            return dict(file.metadata)
    except GGUFError as error:
        raise StoreError(str(error)) from error


def config_bytes(facts: Facts, layers: Sequence[Layer]) -> bytes:
    """The config blob, with the fields that Ollama reads from it."""
    body = {
        "model_format": "gguf",
        "model_family": facts.family,
        "model_families": [facts.family],
        "model_type": facts.parameters,
        "file_type": facts.quantisation,
        "architecture": "amd64",  # of an image, always this one in Ollama's files
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer.sha256}" for layer in layers]},
    }
    return json.dumps(body, separators=(",", ":")).encode()


def config_facts(raw: bytes, what: str) -> Facts | None:
    """Facts from a config blob, or None where it lacks one (then the GGUF header is asked)."""
    body = parse_json_object(raw, what)
    fields = [body.get(key) for key in ("model_family", "model_type", "file_type")]
    texts = [field for field in fields if isinstance(field, str) and 1 <= len(field) <= 80 and field.isprintable()]
    return Facts(*texts) if len(texts) == 3 else None


def human_count(count: int) -> str:
    """134515008 -> `134.52M`, 7241732096 -> `7.2B`, as Ollama writes it."""
    for unit, letter, digits in ((10**9, "B", 1), (10**6, "M", 2), (10**3, "K", 1)):
        if count >= unit:
            return f"{count / unit:.{digits}f}{letter}"
    return str(count)


def _file_type(metadata: Mapping[str, object], nbytes: Counter[str]) -> str:
    """The declared file type, else the tensor type that most of the bytes have."""
    declared = metadata.get("general.file_type")
    if isinstance(declared, int) and declared in FILE_TYPES:
        return FILE_TYPES[declared]
    return nbytes.most_common(1)[0][0] if nbytes else ""
