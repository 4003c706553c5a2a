"""Importance matrices, pruned layers, metadata put in place, patterns: whole files are llama-quantize's."""

import hashlib
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from ref_engine.cli.root import main
from ref_engine.errors import ModelError
from ref_engine.files import GGMLType, open_gguf, write_gguf
from ref_engine.files.types import GGUFValueType
from ref_engine.imatrix import Entry, ImportanceMatrix, read_imatrix
from ref_engine.mixture import FILE_TYPES, Chooser, file_order, file_type_named, guessed_file_type, read_facts
from ref_engine.quantize_file import quantize_file
from ref_engine.quantize_plan import Extras, Override, make_plan

GOLDEN = Path(__file__).parents[1] / "golden"
OPTIONS = json.loads((GOLDEN / "imatrix" / "options.json").read_text())
RUNS = [(model, run) for model, runs in OPTIONS["sha256"].items() for run in runs]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models, and beside each its matrices under the names that the golden files tell."""
    spec = importlib.util.spec_from_file_location("zoo_gguf", GOLDEN / "make" / "zoo_gguf.py")
    assert spec is not None and spec.loader is not None
    zoo_gguf = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(zoo_gguf)
    root = tmp_path_factory.mktemp("options")
    for name, made in OPTIONS["models"].items():
        (root / name).mkdir()
        zoo_gguf.build(made, root / name / "in.gguf")
        (root / name / "types.txt").write_text(OPTIONS["patterns"])
        for kind in ("gguf", "dat"):
            (root / name / f"imatrix.{kind}").write_bytes((GOLDEN / "imatrix" / f"{name}.{kind}").read_bytes())
    return root


@pytest.mark.parametrize(("model", "run"), RUNS, ids=lambda v: str(v))
def test_files_are_llama_quantizes(model: str, run: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Metadata, order, padding and all: the hash is of the file."""
    monkeypatch.chdir(folder / model)
    *options, kind = OPTIONS["more"].get(run, ["--imatrix", "imatrix.gguf", run])
    args = ["quantize", "in.gguf", "out.gguf", kind, *options, "--expert-type", "same", "--quiet"]
    result = CliRunner().invoke(main, args, standalone_mode=False)
    assert result.exception is None, result.output
    assert hashlib.sha256(Path("out.gguf").read_bytes()).hexdigest() == OPTIONS["sha256"][model][run]


@pytest.mark.parametrize("model", OPTIONS["types"])
def test_types_with_an_importance_matrix(model: str) -> None:
    """Some rules ask whether there is one; the types are those of llama-quantize's dry run."""
    spec = OPTIONS["models"][model]
    shapes = {name: tuple(reversed(ne)) for name, ne, _ in spec["tensors"]}
    names = sorted(shapes, key=file_order)
    facts = read_facts({key: value for key, _, value in spec["kv"]})
    for kind, want in OPTIONS["types"][model].items():
        chooser = Chooser(file_type_named(kind), facts, names, has_importance=True)
        assert [chooser.choose(name, shapes[name], GGMLType.F32).name for name in names] == want, kind


def test_a_split_model_stays_split(folder: Path, tmp_path: Path) -> None:
    """The first file has the metadata, each the split's own; together they hold what one file would."""
    with open_gguf(folder / "dense" / "in.gguf") as file:
        names = list(file.tensors)
        for number, part in enumerate((names[:20], names[20:50], names[50:])):
            split = {"split.no": number, "split.count": 3, "split.tensors.count": len(names)}
            kept = {**(file.metadata if number == 0 else {}), **split}
            tensors = [(n, file.tensors[n].shape, file.tensors[n].type, file.data(n).copy()) for n in part]
            write_gguf(tmp_path / f"in-{number + 1:05d}-of-00003.gguf", kept, tensors)
    source = tmp_path / "in-00001-of-00003.gguf"
    quantize_file(source, tmp_path / "one.gguf", FILE_TYPES["Q8_0"])
    quantize_file(source, tmp_path / "out.gguf", FILE_TYPES["Q8_0"], extras=Extras(keep_split=True))
    written = sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("out"))
    assert written == [f"out-{i:05d}-of-00003.gguf" for i in (1, 2, 3)]
    with open_gguf(tmp_path / "one.gguf") as one, open_gguf(tmp_path / written[0]) as split:
        assert [one.metadata.get("split.count"), split.metadata["split.count"]] == [None, 3]
        assert [split.tensors[name].shard for name in names] == [0] * 20 + [1] * 30 + [2] * (len(names) - 50)
        for name in names:
            assert one.tensors[name].type is split.tensors[name].type
            assert np.array_equal(one.data(name), split.data(name))


def matrix(name: str, size: int, count: int = 4) -> Extras:
    entry = Entry(np.full(size, count, np.float32), np.array([count]))
    return Extras(ImportanceMatrix({name: entry}, ["text"], 1, count), "m.gguf")


def test_a_matrix_of_another_model(folder: Path, tmp_path: Path) -> None:
    """As in llama.cpp: another size is an error, but not for the embedding; what is missing is missed by some types."""
    source = folder / "dense" / "in.gguf"
    with pytest.raises(ModelError, match=r"blk\.0\.attn_q\.weight of shape \[2, 256\]: the importance matrix has 128"):
        quantize_file(source, tmp_path / "out.gguf", FILE_TYPES["Q4_K_M"], extras=matrix("blk.0.attn_q.weight", 128))
    with pytest.raises(ModelError, match=r"IQ2_XS is of no use without an importance matrix"):
        quantize_file(source, tmp_path / "out.gguf", FILE_TYPES["IQ2_XS"], extras=matrix("blk.0.attn_q.weight", 256))
    assert not list(tmp_path.iterdir())
    quantize_file(source, tmp_path / "out.gguf", FILE_TYPES["Q4_K_M"], extras=matrix("token_embd.weight", 128))
    with open_gguf(source) as file:
        plan = make_plan(file, FILE_TYPES["IQ2_XS"], extras=matrix("blk.0.attn_q.weight", 256))
        assert "blk.0.attn_q.weight" not in plan.needs_importance and "blk.0.attn_k.weight" in plan.needs_importance


def test_values_that_are_not_finite(folder: Path, tmp_path: Path) -> None:
    extras = matrix("blk.0.attn_q.weight", 256)
    assert extras.importance is not None
    extras.importance.entries["blk.0.attn_q.weight"].sums[7] = np.inf
    with pytest.raises(ModelError, match=r"entry 'blk\.0\.attn_q\.weight' has a value that is negative or not finite"):
        quantize_file(folder / "dense" / "in.gguf", tmp_path / "out.gguf", FILE_TYPES["Q4_K_M"], extras=extras)
    assert not list(tmp_path.iterdir())


def test_a_layer_that_is_not_there(folder: Path) -> None:
    with open_gguf(folder / "dense" / "in.gguf") as file, pytest.raises(ModelError, match="layer 8 cannot be pruned"):
        make_plan(file, FILE_TYPES["Q8_0"], extras=Extras(prune={1, 8}))


def test_overrides_steer_the_rules(folder: Path) -> None:
    """A model that says it has eight experts gets Q8_0 for attn_v, as Mixtral does."""
    said = Override("llama.expert_count", 8, GGUFValueType.UINT32)
    with open_gguf(folder / "dense" / "in.gguf") as file:
        plan = make_plan(file, FILE_TYPES["Q4_K_M"], extras=Extras(overrides=(said,)))
    assert {c.new_type.name for c in plan.changes if "attn_v" in c.name} == {"Q8_0"}


def test_the_type_of_a_file_that_does_not_say() -> None:
    """1024 marks a guess; of two types that are as frequent, the first to get there; none for MXFP4."""
    assert guessed_file_type([GGMLType.F32, GGMLType.F32, GGMLType.Q4_K]) == 1024
    assert guessed_file_type([GGMLType.Q4_K, GGMLType.Q6_K, GGMLType.Q6_K, GGMLType.Q4_K]) == 1024 + 18
    assert guessed_file_type([GGMLType.MXFP4]) == 1024


def test_golden_matrices_are_for_these_models(folder: Path) -> None:
    for name in OPTIONS["models"]:
        with open_gguf(folder / name / "in.gguf") as file:
            plan = make_plan(file, FILE_TYPES["Q4_K_M"], extras=Extras(read_imatrix(folder / name / "imatrix.gguf")))
        assert all(c.weighted for c in plan.changes if c.name.startswith("blk.") and c.new_type is not c.old_type)
