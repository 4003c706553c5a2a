"""A mixture of experts made out of a real dense model must give the dense model's logits.

upcycled: each feed-forward network copied into E experts that are all the same, of which a drawn router takes k.
split:    its neurons divided over E experts that are all taken. The router is zero, so each weighs 1/E, and
          their down matrices are E times the dense ones (a power of two: exact).
Both keep the packed bytes of the dense file's matrices, so the activations and the quantisation are real.
"""

from pathlib import Path

import numpy as np
import pytest

import ref_engine
from ref_engine.compat import has_kernels
from ref_engine.files import GGMLType, GGUFFile, open_gguf, write_gguf
from ref_engine.mixture import FILE_TYPES
from ref_engine.quantize_file import quantize_file

E, USED, LAYERS = 4, 2, 6
TEXT = "The capital of France is Paris. def main():\n    return 42\n"
Table = list[tuple[str, tuple[int, ...], GGMLType, np.ndarray]]


def nmse(got: np.ndarray, want: np.ndarray) -> float:
    got, want = got.astype(np.float64), want.astype(np.float64)
    return float(((got - want) ** 2).sum() / (want**2).sum())


def first_layers(file: GGUFFile) -> Table:
    return [
        (name, t.shape, t.type, file.data(name))
        for name, t in file.tensors.items()
        if not name.startswith("blk.") or int(name.split(".")[1]) < LAYERS
    ]


def is_ffn(name: str) -> bool:
    return name.endswith((".ffn_gate.weight", ".ffn_up.weight", ".ffn_down.weight"))


def write(path: Path, file: GGUFFile, table: Table, **keys: object) -> Path:
    metadata = {**file.metadata, "llama.block_count": LAYERS, **{f"llama.{k}": v for k, v in keys.items()}}
    write_gguf(path, metadata, table, types=file.types)
    return path


def upcycled(table: Table) -> Table:
    """E copies of each matrix, and a drawn router."""
    random = np.random.default_rng(0)
    rows: Table = []
    for name, shape, type, data in table:
        if is_ffn(name):
            rows.append((name.replace(".weight", "_exps.weight"), (E, *shape), type, np.concatenate([data] * E)))
        else:
            rows.append((name, shape, type, data))
        if name.endswith("ffn_norm.weight"):
            router = random.standard_normal((E, shape[0])).astype(np.float32)
            rows.append((name.replace("ffn_norm", "ffn_gate_inp"), router.shape, GGMLType.F32, router))
    return rows


def split(table: Table) -> Table:
    """Rows of gate and up, columns of down in whole blocks, divided over the experts; a router of zeros."""
    rows: Table = []
    for name, shape, type, data in table:
        stacked = name.replace(".weight", "_exps.weight")
        if name.endswith("ffn_down.weight"):
            parts = np.concatenate(np.split(times_e(data.reshape(shape[0], -1)), E, axis=1))
            rows.append((stacked, (E, shape[0], shape[1] // E), type, parts.reshape(-1)))
        elif is_ffn(name):
            rows.append((stacked, (E, shape[0] // E, shape[1]), type, data))
        else:
            rows.append((name, shape, type, data))
        if name.endswith("ffn_norm.weight"):
            router = np.zeros((E, shape[0]), np.float32)
            rows.append((name.replace("ffn_norm", "ffn_gate_inp"), router.shape, GGMLType.F32, router))
    return rows


def times_e(rows: np.ndarray) -> np.ndarray:
    """Rows of Q4_1 blocks with scale and minimum (half precision, the first four bytes of 20) times E."""
    blocks = np.ascontiguousarray(rows).reshape(-1, 20).copy()
    blocks[:, :4] = (blocks[:, :4].copy().view(np.float16) * np.float16(E)).view(np.uint8)
    return blocks.reshape(rows.shape)


@pytest.fixture(scope="module")
def models(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("moe")
    with open_gguf(smollm2) as file:
        table = first_layers(file)
        assert {t for n, _, t, _ in table if is_ffn(n)} == {GGMLType.Q4_1}
        return {
            "dense": write(folder / "dense.gguf", file, table),
            "upcycled": write(folder / "up.gguf", file, upcycled(table), expert_count=E, expert_used_count=USED),
            "split": write(
                folder / "split.gguf", file, split(table),
                expert_count=E, expert_used_count=E, feed_forward_length=1536 // E,
            ),
        }  # fmt: skip


@pytest.mark.parametrize("kind", ["upcycled", "split"])
def test_logits_are_the_dense_models(models: dict[str, Path], kind: str) -> None:
    dense = ref_engine.load(models["dense"], backend="numpy", activations="f32")
    ids = dense.tokenize(TEXT)
    mixture = ref_engine.load(models[kind], backend="numpy", activations="f32")
    assert nmse(mixture.logits(ids), dense.logits(ids)) < 1e-9


@pytest.mark.skipif(not has_kernels, reason="without kernels this does not apply")
@pytest.mark.parametrize("kind", ["upcycled", "split"])
def test_kernels_give_the_same_bits(models: dict[str, Path], kind: str) -> None:
    numpy, native = (ref_engine.load(models[kind], backend=backend, n_threads=1) for backend in ("numpy", "native"))
    ids = numpy.tokenize(TEXT)
    assert (numpy.logits(ids) == native.logits(ids)).all()


def test_through_quantisation(models: dict[str, Path], tmp_path: Path) -> None:
    """Experts that are the same are the same in any type, so the upcycled model follows the dense one there too."""
    for kind in ("dense", "upcycled"):
        quantize_file(models[kind], tmp_path / f"{kind}.gguf", FILE_TYPES["Q8_0"], allow_requantize=True)
    dense, mixture = (
        ref_engine.load(tmp_path / f"{kind}.gguf", backend="numpy", activations="f32") for kind in ("dense", "upcycled")
    )
    ids = dense.tokenize(TEXT)
    assert nmse(mixture.logits(ids), dense.logits(ids)) < 1e-9


def test_the_router_of_the_upcycled_model_chooses(models: dict[str, Path]) -> None:
    """The drawn router sends tokens to more than the two experts that one token takes, in every layer."""
    model = ref_engine.load(models["upcycled"], backend="numpy", activations="f32")
    with ref_engine.trace(model, "ffn_moe_topk-*") as t:
        model.logits(model.tokenize(TEXT))
    loads = [np.bincount(t[name].astype(int).ravel(), minlength=E) for name in t]
    assert len(loads) == LAYERS and all((load > 0).sum() >= 3 for load in loads)
