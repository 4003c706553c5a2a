"""Whole files: every byte of every tensor as llama.cpp writes it, and nothing left behind where something is wrong."""

import hashlib
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import ref_engine
from ref_engine.errors import GGUFError, ModelError
from ref_engine.files import GGMLType, open_gguf, write_gguf
from ref_engine.mixture import FILE_TYPES, Wishes, file_type_named
from ref_engine.quantize_file import quantize_file
from ref_engine.quantize_plan import make_plan

GOLDEN = Path(__file__).parents[1] / "golden"
FILES = json.loads((GOLDEN / "quant" / "files.json").read_text())
SMALL = ["dense", "sixteen-experts", "odd-rows"]  # the others differ in types only: tests/test_mixture.py
RUNS = [(model, run) for model in SMALL for run in FILES["sha256"][model] if ":" not in run or run == "COPY:"]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    spec = importlib.util.spec_from_file_location("zoo_gguf", GOLDEN / "make" / "zoo_gguf.py")
    assert spec is not None and spec.loader is not None
    zoo_gguf = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(zoo_gguf)
    folder = tmp_path_factory.mktemp("sources")
    for name in SMALL:
        zoo_gguf.build(FILES["models"][name], folder / f"{name}.gguf")
    return {name: folder / f"{name}.gguf" for name in SMALL}


@pytest.mark.parametrize(("model", "run"), RUNS, ids=lambda v: str(v))
def test_tensors_are_llama_cpps(model: str, run: str, sources: dict[str, Path], tmp_path: Path) -> None:
    file_type = None if run == "COPY:" else file_type_named(run)
    changes = quantize_file(sources[model], tmp_path / "out.gguf", file_type)
    digest = hashlib.sha256()
    with open_gguf(tmp_path / "out.gguf") as file:
        assert [info.type for info in file.tensors.values()] == FILES["types"][model][run]
        assert [info.nbytes for info in file.tensors.values()] == [change.new_bytes for change in changes]
        for name in file.tensors:
            digest.update(file.data(name))
        if file_type is not None:
            assert file.metadata["general.file_type"] == file_type.number
            assert file.metadata["general.quantization_version"] == 2
    assert digest.hexdigest() == FILES["sha256"][model][run]


def test_a_quantised_model_runs(zoo_model: Callable[[str], Path], tmp_path: Path) -> None:
    """Q8_0 loses little: the logits stay within a hundredth of their own size. The metadata are carried over."""
    source = zoo_model("llama-dense")
    quantize_file(source, tmp_path / "q8.gguf", FILE_TYPES["Q8_0"])
    ids = np.arange(12)
    before = ref_engine.load(source, backend="numpy", activations="f32")
    after = ref_engine.load(tmp_path / "q8.gguf", backend="numpy", activations="f32")
    truth = before.logits(ids)
    assert ((after.logits(ids) - truth) ** 2).sum() / (truth**2).sum() < 1e-2
    assert set(before.metadata) <= set(after.metadata)


def test_a_quantised_source_needs_leave(sources: dict[str, Path], tmp_path: Path) -> None:
    once, twice = tmp_path / "once.gguf", tmp_path / "twice.gguf"
    quantize_file(sources["dense"], once, FILE_TYPES["Q8_0"])
    with pytest.raises(ModelError, match=r"is Q8_0 already.*--allow-requantize"):
        quantize_file(once, twice, FILE_TYPES["Q4_0"])
    assert sorted(tmp_path.iterdir()) == [once]
    quantize_file(once, twice, FILE_TYPES["Q4_0"], allow_requantize=True)
    with open_gguf(twice) as file:
        assert file.tensors["blk.0.attn_q.weight"].type is GGMLType.Q4_0


def bad_model(path: Path, value: float) -> None:
    weights = np.ones((4, 256), np.float32)
    weights[2, 9] = value
    metadata = {"general.architecture": "llama", "llama.block_count": 1, "llama.attention.head_count": 1}
    write_gguf(path, metadata, [("blk.0.ffn_up.weight", (4, 256), GGMLType.F32, weights)])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_leave_no_file(value: float, tmp_path: Path) -> None:
    source, target = tmp_path / "in.gguf", tmp_path / "out.gguf"
    bad_model(source, value)
    with pytest.raises(ModelError, match=r"blk\.0\.ffn_up\.weight.*row 2, column 9"):
        quantize_file(source, target, FILE_TYPES["Q4_K_M"])
    assert list(tmp_path.iterdir()) == [source]


def test_an_older_target_survives_an_error(tmp_path: Path) -> None:
    source, target = tmp_path / "in.gguf", tmp_path / "out.gguf"
    bad_model(source, np.nan)
    target.write_bytes(b"older")
    with pytest.raises(ModelError):
        quantize_file(source, target, FILE_TYPES["Q4_K_M"])
    assert target.read_bytes() == b"older"


def test_the_source_is_not_overwritten(sources: dict[str, Path]) -> None:
    before = sources["dense"].read_bytes()
    with pytest.raises(GGUFError, match="the file that is read"):
        quantize_file(sources["dense"], sources["dense"], FILE_TYPES["Q8_0"])
    assert sources["dense"].read_bytes() == before


@pytest.mark.parametrize("name", ["IQ2_XXS", "IQ1_S", "IQ3_XXS", "Q2_K_S"])
def test_a_type_that_needs_an_importance_matrix(name: str, sources: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="importance matrix"):
        quantize_file(sources["dense"], tmp_path / "out.gguf", FILE_TYPES[name])
    assert list(tmp_path.iterdir()) == []


def test_wishes_reach_the_file(sources: dict[str, Path], tmp_path: Path) -> None:
    wishes = Wishes(output=GGMLType.Q8_0, embedding=GGMLType.F16)
    with open_gguf(sources["dense"]) as file:
        new = {change.name: change.new_type for change in make_plan(file, FILE_TYPES["Q4_0"], wishes).changes}
    assert new["output.weight"] is GGMLType.Q8_0
    assert new["token_embd.weight"] is GGMLType.F16
    assert new["blk.1.attn_q.weight"] is GGMLType.Q4_0


def test_progress_tells_every_byte(sources: dict[str, Path], tmp_path: Path) -> None:
    done: list[int] = []
    begun: list[str] = []
    changes = quantize_file(
        sources["dense"], tmp_path / "out.gguf", FILE_TYPES["Q4_0"],
        begin=lambda change: begun.append(change.name), advance=done.append,
    )  # fmt: skip
    assert begun == [change.name for change in changes]
    assert sum(done) == sum(change.old_bytes for change in changes)
