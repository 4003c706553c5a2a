"""GGUF files for the tests here: by the gguf package's writer, by hand, and real ones from the cache."""

import os
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFValueType, GGUFWriter

REAL = ("smollm2-135m-instruct-q4_1.gguf", "gemma-3-270m-q4_k_m.gguf")


def real_model(name: str) -> Path:
    """A model of the cache folder; the test is skipped where it is absent."""
    root = Path(os.environ.get("REF_ENGINE_CACHE") or Path.home() / ".cache" / "ref-engine")
    found = sorted(root.rglob(name)) if root.is_dir() else []
    if not found:
        pytest.skip(f"{name} is not in {root}")
    return found[0]


def package_file(path: Path, version: int = 3) -> dict[str, object]:
    """A file with every value type, by the gguf package's writer. Returns what must be read from it."""
    writer = GGUFWriter(None, "llama")
    expected: dict[str, object] = {"general.architecture": "llama"}

    def add(key: str, value: object, kind: GGUFValueType, item: GGUFValueType | None = None) -> None:
        writer.add_key_value(key, value, kind, item)
        expected[key] = value

    for bits in (8, 16, 32, 64):
        add(f"u{bits}", 2**bits - 1, GGUFValueType[f"UINT{bits}"])
        add(f"i{bits}", -(2 ** (bits - 1)), GGUFValueType[f"INT{bits}"])
        items = [0, 1, 2**bits - 1]
        add(f"u{bits}s", items, GGUFValueType.ARRAY, GGUFValueType[f"UINT{bits}"])
        add(f"i{bits}s", [-1, 2 ** (bits - 1) - 1], GGUFValueType.ARRAY, GGUFValueType[f"INT{bits}"])
    add("f32", -0.15625, GGUFValueType.FLOAT32)
    add("f64", 0.1, GGUFValueType.FLOAT64)
    add("f32s", [0.5, -2.0, float("inf")], GGUFValueType.ARRAY, GGUFValueType.FLOAT32)
    add("f64s", [0.1, 1e300], GGUFValueType.ARRAY, GGUFValueType.FLOAT64)
    add("yes", True, GGUFValueType.BOOL)
    add("no", False, GGUFValueType.BOOL)
    add("bools", [True, False, True], GGUFValueType.ARRAY, GGUFValueType.BOOL)
    add("text", "naïve 漢字 🙂\n", GGUFValueType.STRING)
    add("empty", "", GGUFValueType.STRING)
    words = ["", "a", "<0x00>", "\0" * 20, "x" * 300, "é" * 128, *(f"token{i}" for i in range(400)), "", ""]
    add("words", words, GGUFValueType.ARRAY, GGUFValueType.STRING)
    add("nested", [[1, 2], [3]], GGUFValueType.ARRAY)
    add("deep", [[["a", ""]], [["b"], ["c", "d"]]], GGUFValueType.ARRAY)
    rng = np.random.default_rng(7)
    writer.add_tensor("token_embd.weight", rng.standard_normal((5, 64)).astype(np.float32))
    writer.add_tensor("blk.0.attn_q.weight", rng.standard_normal((3, 2, 33)).astype(np.float16))
    packed = rng.integers(0, 256, (4, 36), np.uint8)  # two Q4_0 blocks of 18 bytes a row
    writer.add_tensor("blk.0.ffn_up.weight", packed, raw_dtype=GGMLQuantizationType.Q4_0)
    writer.write_header_to_file(path)
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    if version != 3:
        with open(path, "r+b") as file:
            file.seek(4)
            file.write(struct.pack("<I", version))
    return expected


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def pair(key: str | bytes, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def row(name: str | bytes, dims: Sequence[int], kind: int, offset: int) -> bytes:
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


def by_hand(
    pairs: Sequence[bytes] = (),
    rows: Sequence[bytes] = (),
    data: int = 0,
    alignment: int = 32,
    version: int = 3,
) -> bytes:
    """A file put together from the parts, with `data` bytes of tensor data: nothing is checked."""
    head = b"GGUF" + struct.pack("<IQQ", version, len(rows), len(pairs)) + b"".join(pairs) + b"".join(rows)
    return head + bytes(-len(head) % alignment + data) if rows else head
