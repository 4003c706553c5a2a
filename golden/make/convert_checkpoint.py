"""Small Hugging Face checkpoints from a list of names and shapes: the weights are drawn from the tensors' names.

Used by `convert.py`, which makes the golden data, and by the tests, which rebuild the same directories without
transformers. Only NumPy is needed.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Listing = Mapping[str, tuple[str, Sequence[int]]]  # name -> dtype as safetensors says it, shape


def draw(name: str, shape: Sequence[int]) -> npt.NDArray[np.float32]:
    """Weights of a size that lets every part of a model show in its logits."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")
    noise = np.random.RandomState(seed).standard_normal(tuple(shape))
    if name.endswith("A_log"):
        return np.log(1 + 3 * np.abs(noise)).astype(np.float32)
    if "norm" in name.lower() or ".ln_" in name or "LayerNorm" in name or name.endswith((".D", "layer_multiplier")):
        return np.asarray((0.0 if name.endswith("bias") else 1.0) + 0.2 * noise, np.float32)
    if len(shape) < 2 or name.endswith(("_bias", ".bias")):
        return np.asarray(0.2 * noise, np.float32)
    if "embed" in name or "wte" in name:
        return np.asarray(0.5 * noise, np.float32)
    return np.asarray(noise * 1.2 / np.sqrt(shape[-1]), np.float32)


def encode(name: str, dtype: str, shape: Sequence[int]) -> bytes:
    if dtype == "U8":  # scales and blocks of MXFP4: exponents near 1, any nibbles
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")
        low, high = (118, 124) if "scales" in name else (0, 256)
        return np.random.RandomState(seed).randint(low, high, tuple(shape)).astype(np.uint8).tobytes()
    if dtype == "F8_E4M3":  # any finite value of moderate size
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")
        bits = np.random.RandomState(seed).randint(0, 256, tuple(shape)).astype(np.uint8)
        return (bits & 0xBF).tobytes()
    values = draw(name, shape)
    if dtype == "BF16":
        return (np.ascontiguousarray(values).view(np.uint32) >> 16).astype("<u2").tobytes()
    return values.astype({"F32": "<f4", "F16": "<f2"}[dtype]).tobytes()


def write_safetensors(path: Path, tensors: Mapping[str, tuple[str, Sequence[int], bytes]]) -> None:
    header, blob = {}, b""
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [len(blob), len(blob) + len(data)]}
        blob += data
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + blob)


def write_checkpoint(folder: Path, config: Mapping[str, Any], listing: Listing, shards: int = 1) -> None:
    """config.json and the weights, in `shards` files with an index where there is more than one."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    tensors = {name: (dtype, shape, encode(name, dtype, shape)) for name, (dtype, shape) in listing.items()}
    if shards == 1:
        write_safetensors(folder / "model.safetensors", tensors)
        return
    names, weight_map = list(tensors), {}
    for k in range(shards):
        file = f"model-{k + 1:05d}-of-{shards:05d}.safetensors"
        part = names[k::shards]
        write_safetensors(folder / file, {name: tensors[name] for name in part})
        weight_map |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
