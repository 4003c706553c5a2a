"""Products of the I-quants, ternary and 4-bit float types with rounded activations, and a model made of each type."""

import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import ref_engine
from ref_engine.files.gguf import open_gguf
from ref_engine.files.types import BLOCK, GGMLType, row_bytes
from ref_engine.files.writer import write_gguf
from ref_engine.quant.activations import ROUNDINGS
from ref_engine.quant.types import BLOCK_TYPES
from ref_engine.reference.linear import linear_q8
from ref_engine.weights import Weight

NAMES = "IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ3_XXS IQ3_S TQ1_0 TQ2_0 NVFP4 Q1_0 Q2_0"


def packed(name: str, golden: Path) -> tuple[Weight, np.lib.npyio.NpzFile]:
    data = np.load(golden / "quant" / "vec_dot.npz")
    rows, columns = data[f"{name}/y"].shape[1], data["x"].shape[1]
    return Weight("w", GGMLType[name], (rows, columns), data[f"{name}/w"].reshape(-1)), data


@pytest.mark.parametrize("name", NAMES.split())
def test_activations_are_rounded_as_ggml_rounds_them(name: str, golden: Path) -> None:
    weight, data = packed(name, golden)
    got = ROUNDINGS[weight.activation](data["x"]).tobytes()
    assert got == data[f"{name}/xq"].tobytes()


@pytest.mark.parametrize("name", NAMES.split())
def test_q8_products_are_ggmls(name: str, golden: Path) -> None:
    weight, data = packed(name, golden)
    got, want = linear_q8(data["x"], weight).astype(np.float64), data[f"{name}/y"].astype(np.float64)
    assert ((got - want) ** 2).sum() / (want**2).sum() < 1e-12


@pytest.mark.parametrize("name", NAMES.split())
def test_one_row_or_many_give_the_same_bits(name: str, golden: Path) -> None:
    weight, data = packed(name, golden)
    whole = linear_q8(data["x"], weight)
    assert (np.concatenate([linear_q8(row[None], weight) for row in data["x"]]) == whole).all()


def block_bytes(type: GGMLType, golden: Path) -> np.ndarray:
    """Blocks with ordinary scales: (n, bytes of a block)."""
    for folder in ("ops", "quant"):
        data = np.load(golden / folder / "dequantize.npz")
        if f"{type.name}/blocks" in data:
            blocks = np.asarray(data[f"{type.name}/blocks"][: 24 if folder == "ops" else 12])
            return blocks[blocks[:, 0] < 124] if type is GGMLType.MXFP4 else blocks
    assert type is GGMLType.Q8_1
    blocks = np.zeros((12, 36), np.uint8)
    blocks[:, :2] = np.full((12, 1), 0.01, "<f2").view(np.uint8)
    blocks[:, 4:] = np.random.default_rng(1).integers(0, 256, (12, 32))
    return blocks


@pytest.mark.parametrize("type", list(BLOCK_TYPES), ids=lambda t: t.name)
def test_a_model_of_the_type(type: GGMLType, zoo_model: Callable[[str], Path], golden: Path, tmp_path: Path) -> None:
    """A small model, every matrix whose rows are whole blocks in this type: it loads, and in q8 mode the split of the
    work leaves no trace."""
    blocks = block_bytes(type, golden)
    tensors = []
    with open_gguf(zoo_model("llama-dense")) as source:
        for name, info in source.tensors.items():
            if len(info.shape) == 1 or info.shape[1] % BLOCK[type][0]:
                tensors.append((name, info.shape, info.type, source.data(name).copy()))
                continue
            n_blocks = info.shape[0] * row_bytes(type, info.shape[1]) // blocks.shape[1]
            pick = np.random.default_rng(zlib.crc32(name.encode())).integers(0, len(blocks), n_blocks)
            tensors.append((name, info.shape, type, blocks[pick].reshape(-1)))
        write_gguf(tmp_path / "m.gguf", source.metadata, tensors, types=source.types)
    model = ref_engine.load(tmp_path / "m.gguf", backend="numpy", activations="q8")
    ids = np.arange(9) * 5
    whole = model.logits(ids)
    assert np.isfinite(whole).all() and (whole.std(axis=-1) > 0).all()
    cache = model.new_cache()
    parts = [model.forward(ids[a:b], cache) for a, b in ((0, 4), (4, 5), (5, 9))]
    assert (np.concatenate(parts) == whole).all()
    single = model.new_cache()
    assert (np.concatenate([model.forward(ids[i : i + 1], single) for i in range(9)]) == whole).all()
