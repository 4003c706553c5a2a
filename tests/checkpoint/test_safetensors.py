"""Reading safetensors: what the package writes is read, what it refuses is refused."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from ref_engine.checkpoint import open_checkpoint
from ref_engine.errors import ConvertError


def test_values_come_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    arrays = {
        "b.weight": rng.standard_normal((7, 5)).astype(np.float32),
        "a.weight": rng.standard_normal((3, 4, 2)).astype(np.float16),
        "c": np.array(3.5, np.float32),
        "d": np.zeros((0, 4), np.float32),
    }
    save_file(arrays, tmp_path / "model.safetensors")
    tensors = open_checkpoint(tmp_path)
    assert list(tensors) == ["a.weight", "b.weight", "c", "d"]
    for name, array in arrays.items():
        whole = tensors[name].whole()
        assert whole.dtype == array.dtype and whole.shape == array.shape
        np.testing.assert_array_equal(whole, array)


def test_large_tensors_come_in_parts(tmp_path: Path) -> None:
    array = np.arange(5 << 20, dtype=np.float32).reshape(-1, 1 << 10)
    save_file({"w": array}, tmp_path / "model.safetensors")
    parts = list(open_checkpoint(tmp_path)["w"].parts())
    assert len(parts) > 1
    np.testing.assert_array_equal(np.concatenate(parts), array)
    np.testing.assert_array_equal(open_checkpoint(tmp_path)["w"].rows(4000, 4100).whole(), array[4000:4100])


def write(folder: Path, header: Any, data: bytes = b"", length: int | None = None) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = struct.pack("<Q", len(text) if length is None else length)
    (folder / "model.safetensors").write_bytes(size + text + data)


def entry(dtype: str = "F32", shape: list[int] | None = None, offsets: tuple[int, int] = (0, 8)) -> dict[str, Any]:
    return {"w": {"dtype": dtype, "shape": [2] if shape is None else shape, "data_offsets": list(offsets)}}


@pytest.mark.parametrize(
    ("header", "data", "length"),
    [
        (b"", b"", None),
        (b"{", b"", None),
        (b"[]", b"", None),
        (entry(), bytes(4), None),  # shorter than it says
        (entry(), bytes(12), None),  # longer
        (entry(shape=[3]), bytes(8), None),
        (entry(offsets=(8, 0)), bytes(8), None),
        (entry(shape=[-2]), bytes(8), None),
        (entry(shape=[1 << 62, 1 << 62]), bytes(8), None),
        (entry(dtype="F31"), bytes(8), None),
        (
            {**entry(), "v": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}},
            bytes(8),
            None,
        ),  # twice the same bytes
        (entry(), bytes(8), 1 << 60),
        (entry(), bytes(8), 3),
    ],
)
def test_headers_that_lie(tmp_path: Path, header: Any, data: bytes, length: int | None) -> None:
    write(tmp_path, header, data, length)
    with pytest.raises(ConvertError, match=r"model\.safetensors: not a sound safetensors file") as caught:
        open_checkpoint(tmp_path)
    assert "\n" not in str(caught.value)


def test_types_that_are_not_read(tmp_path: Path) -> None:
    write(tmp_path, entry("C64", [1]), bytes(8))
    with pytest.raises(ConvertError, match="tensor 'w' has type C64"):
        open_checkpoint(tmp_path)


def index(folder: Path, weight_map: Any) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


@pytest.mark.parametrize("file", ["../evil.safetensors", "/etc/passwd", "a/b.safetensors", "..", "", "a\\b", "a\0b"])
def test_an_index_cannot_leave_the_directory(tmp_path: Path, file: str) -> None:
    (tmp_path / "inner").mkdir()
    save_file({"w": np.zeros(2, np.float32)}, tmp_path / "evil.safetensors")
    index(tmp_path / "inner", {"w": file})
    with pytest.raises(ConvertError, match="is not the name of a file in this directory"):
        open_checkpoint(tmp_path / "inner")


def test_shards_and_index_must_agree(tmp_path: Path) -> None:
    save_file({"w": np.zeros(2, np.float32)}, tmp_path / "model-1.safetensors")
    save_file({"v": np.ones(2, np.float32)}, tmp_path / "model-2.safetensors")
    index(tmp_path, {"w": "model-1.safetensors", "v": "model-2.safetensors"})
    assert list(open_checkpoint(tmp_path)) == ["w", "v"]
    index(tmp_path, {"w": "model-1.safetensors", "v": "model-3.safetensors"})
    with pytest.raises(ConvertError, match=r"model-3\.safetensors: this part of the model is missing"):
        open_checkpoint(tmp_path)
    index(tmp_path, {"w": "model-1.safetensors", "v": "model-1.safetensors"})
    with pytest.raises(ConvertError, match="tensor 'v' is in none of the files"):
        open_checkpoint(tmp_path)
    index(tmp_path, {"w": "model-1.safetensors", "u": "model-2.safetensors"})
    with pytest.raises(ConvertError, match=r"tensor 'v' is not in model\.safetensors\.index\.json"):
        open_checkpoint(tmp_path)
    for wrong in ([], {"w": 1}, None):
        index(tmp_path, wrong)
        with pytest.raises(ConvertError, match="weight_map"):
            open_checkpoint(tmp_path)


def test_a_tensor_in_two_files(tmp_path: Path) -> None:
    for k in (1, 2):
        save_file({"w": np.zeros(2, np.float32)}, tmp_path / f"model-{k}.safetensors")
    with pytest.raises(ConvertError, match="tensor 'w' is in another file, too"):
        open_checkpoint(tmp_path)


def test_no_weights(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ConvertError, match=r"no model\*\.safetensors here"):
        open_checkpoint(tmp_path)
