"""Traces: what is promised before the run is what is written, patches, and what nobody who looks costs."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import ref_engine
from ref_engine.cli import main
from ref_engine.compat import has_kernels
from ref_engine.lens.selection import Selection, numbers
from ref_engine.lens.sizes import planned

Build = Callable[..., Path]
Tiny = Callable[[str], ref_engine.Model]
IDS = [5, 17, 42, 3, 88, 64, 9, 23, 71, 50, 12, 31]
BACKENDS = ["numpy", pytest.param("native", marks=pytest.mark.skipif(not has_kernels, reason="does not apply"))]
# Between them: dense, windows, experts with groups and a bias, latent attention, recurrences, indexers, streams.
KINDS = ["llama-dense", "gemma3-dense"]
ARCHITECTURES = ["deepseek32-moe", "qwen3next-moe", "jamba-dense", "gpt-oss-moe"]


def command(*words: str) -> int:
    """The exit status of `ref-engine WORDS`."""
    with pytest.raises(SystemExit) as stop:
        main(list(words))
    return int(str(stop.value.code or 0))


@pytest.fixture(scope="module")
def tiny(golden: Path) -> Tiny:
    """A small mixture of experts by backend, each loaded once."""
    models: dict[str, ref_engine.Model] = {}

    def load(backend: str) -> ref_engine.Model:
        path = golden / "models" / "tiny-moe.gguf"
        return models.setdefault(backend, models.get(backend) or ref_engine.load(path, backend=backend, n_threads=1))

    return load


def model_of(name: str, zoo_model: Build) -> Path:
    return zoo_model(name) if name in KINDS else zoo_model(name, "architectures/specs")


@pytest.mark.parametrize("name", [*KINDS, *ARCHITECTURES])
def test_the_plan_is_what_a_trace_holds(name: str, zoo_model: Build) -> None:
    """Names, shapes and types, of passes of five tokens, worked out without computing."""
    model = ref_engine.load(model_of(name, zoo_model), backend="numpy")
    plan = planned(model, IDS, Selection(), 5)
    cache = model.new_cache()
    with ref_engine.trace(model) as t:
        for start in (0, 5, 10):
            model.forward(IDS[start : start + 5], cache)
    assert [(p.name, p.shape, p.dtype) for p in plan] == [(n, v.shape, str(v.dtype)) for n, v in t.items()]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_a_trace_file_holds_what_a_trace_sees(backend: str, suffix: str, golden: Path, tmp_path: Path) -> None:
    """In q8 mode to the last bit, though it was made in passes of four tokens."""
    path = golden / "hf" / "llama-untied.gguf"
    model = ref_engine.load(path, backend=backend, n_threads=1)
    with ref_engine.trace(model) as t:
        model.logits(IDS)
    target = tmp_path / f"t.{suffix}"
    ids = ",".join(map(str, IDS))
    status = command(
        "trace", str(path), "--tokens", ids, "-o", str(target), "--backend", backend, "--chunk", "4", "--positions",
        "0,3-5,-1", "-q",
    )  # fmt: skip
    assert status == 0 and [p.name for p in tmp_path.iterdir()] == [target.name]
    arrays = dict(np.load(target)) if suffix == "npz" else load_file(target)
    arrays.pop("__trace__", None)
    assert set(arrays) == set(t)
    rows = [0, 3, 4, 5, 11]
    for name, value in t.items():
        expected = value[:, rows] if name.startswith(("kq-", "kq_soft_max-", "kqv-")) else value[rows]
        if name.startswith("kq-"):  # scores of later keys are computed or not, and never used
            seen = np.arange(12) <= np.array(rows)[:, None]
            assert np.array_equal(arrays[name][:, seen], expected[:, seen])
        else:
            assert np.array_equal(arrays[name], expected), name


def test_the_header_says_how_it_was_made(golden: Path, tmp_path: Path) -> None:
    path = golden / "hf" / "llama-untied.gguf"
    target = tmp_path / "t.npz"
    words = ["trace", str(path), "--tokens", "1,2,3", "-o", str(target), "--backend", "numpy", "--activations", "f32"]
    assert command(*words, "--names", "l_out-*,result_norm", "--layers", "-1", "-q") == 0
    header = json.loads(str(np.load(target)["__trace__"]))
    assert header["order"] == ["l_out-1", "result_norm"]
    assert (header["backend"], header["activations"], header["path"]) == ("numpy", "f32", "composition")
    assert header["tokens"] == [1, 2, 3] and header["model"].startswith("llama-untied.gguf")
    assert header["turns"]["tables"][0]["pairing"] == "adjacent"


@pytest.mark.skipif(not has_kernels, reason="without kernels this does not apply")
def test_a_fused_trace_has_no_inner_steps(golden: Path, tmp_path: Path) -> None:
    """And the same bits everywhere else."""
    path, whole, fused = str(golden / "models" / "tiny-moe.gguf"), tmp_path / "whole.npz", tmp_path / "fused.npz"
    for target, extra in ((whole, []), (fused, ["--fused"])):
        assert command("trace", path, "--tokens", "7,8,9", "-o", str(target), "--backend", "native", "-q", *extra) == 0
    a, b = np.load(whole), np.load(fused)
    inner = {n.rsplit("-", 1)[0] for n in set(a) - set(b)}
    assert {"kq", "kq_soft_max", "kqv", "ffn_moe_up", "ffn_moe_down"} <= inner
    assert json.loads(str(b["__trace__"]))["path"] == "fused"
    assert all(np.array_equal(a[name], b[name]) for name in b if name != "__trace__")


def test_a_dry_run_shows_the_table_and_writes_nothing(
    golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(golden / "hf" / "llama-untied.gguf")
    target = tmp_path / "t.npz"
    assert (
        command("trace", path, "--tokens", "1,2,3", "-n", "-o", str(target), "--names", "kq-*", "--names", "l_out-0")
        == 0
    )
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[1:4]] == [["kq-0", "4x3x3"], ["l_out-0", "3x64"], ["kq-1", "4x3x3"]]
    assert lines[4].endswith("1.1 kB") and not target.exists()  # (2 * 36 + 192) * 4 bytes


REFUSED = [
    (["--tokens", "1,2", "-o", "t.txt"], "must end in .npz or .safetensors"),
    (["--tokens", "1,2"], "give -o FILE"),
    (["-o", "t.npz"], "give one of --prompt"),
    (["--tokens", "1,2", "-p", "x", "-o", "t.npz"], "give one of --prompt"),
    (["--tokens", "1,96", "-o", "t.npz"], "token id 96 is outside the vocabulary"),
    (["--tokens", "1,2", "-o", "t.npz", "--names", "nothing*"], "no value has such a name"),
    (["--tokens", "1,2", "-o", "t.npz", "--layers", "0,2"], "layer 2 is not one of 0..1"),
    (["--tokens", "1,2", "-o", "t.npz", "--positions", "2"], "position 2 is not one of 0..1"),
    (["--tokens", "1,2", "-o", "t.npz", "--positions", "1-0"], "run backwards"),
    (["--tokens", "1,2", "-o", "t.npz", "--positions", "x"], "is not a position"),
    (["--tokens", "1,2", "-o", "t.npz", "--limit", "1K"], "over --limit"),
    (["--tokens", "1,2", "-o", "no/such/folder/t.npz"], "No such file or directory"),
    (["--tokens", ",".join(["1"] * 300), "-o", "t.npz"], "300 tokens do not fit"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "message"), REFUSED)
def test_bad_input_is_one_line(
    words: list[str], message: str, golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert command("trace", str(golden / "hf" / "llama-untied.gguf"), "-q", *words) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1 and message in errors[0]
    assert list(tmp_path.iterdir()) == []


def test_lists_of_numbers() -> None:
    assert numbers("0,5-9,-1", 12, "position") == (0, 5, 6, 7, 8, 9, 11)
    assert numbers("-3--1", 12, "position") == (9, 10, 11)
    assert numbers("1 1,0", 2, "layer") == (0, 1)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["kq-1", "kqv-1", "ffn_moe_down-1", "ffn_moe_swiglu-0", "ffn_moe_logits-0", "l_out-1"])
def test_patches_reach_inside_fused_operations(backend: str, name: str, tiny: Tiny) -> None:
    """What comes after goes on with the new value: zero gives zero, and the logits move."""
    model = tiny(backend)
    plain = model.logits(IDS)
    with ref_engine.trace(model, name) as t:
        t.patch(name, lambda x: x * np.float32(0.5))
        patched = model.logits(IDS)
    with ref_engine.trace(model, name) as untouched:
        model.logits(IDS)
    assert np.array_equal(model.logits(IDS), plain) and not np.array_equal(patched, plain)
    assert np.array_equal(t[name], untouched[name] * np.float32(0.5))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_patch_of_some_positions(backend: str, tiny: Tiny) -> None:
    """Only those rows are given to the function; tokens before them are not changed by it, whatever the passes."""
    model = tiny(backend)
    plain, shapes, cache = model.logits(IDS), [], model.new_cache()

    def gone(x: Any) -> Any:
        shapes.append(x.shape)
        return x * 0

    with ref_engine.trace(model, "l_out-2", "result_output") as t:
        t.patch("l_out-2", gone, positions=[6, 7])
        t.patch("kq_soft_max-1", gone, positions=[7])
        patched = np.concatenate([model.forward(IDS[a:b], cache) for a, b in ((0, 5), (5, 7), (7, 12))])
    width = t["l_out-2"].shape[1]
    heads = model.spec.layers[1].mixer.n_head
    assert shapes == [(1, width), (heads, 1, 12), (1, width)]
    assert not t["l_out-2"][6:8].any() and t["l_out-2"][[0, 1, 2, 3, 4, 5, 8]].any(axis=1).all()
    assert np.array_equal(patched[:6], plain[:6]) and not np.array_equal(patched[8:], plain[8:])


@pytest.mark.parametrize("backend", BACKENDS)
def test_patched_experts_are_the_ones_that_compute(backend: str, tiny: Tiny) -> None:
    model = tiny(backend)
    with ref_engine.trace(model, "ffn_moe_topk-0", "ffn_moe_weights-0", "ffn_moe_probs-0") as t:
        t.patch("ffn_moe_topk-0", lambda ids: np.full(ids.shape, [3, 5]))
        model.logits(IDS)
    assert t["ffn_moe_topk-0"].dtype == np.int32 and (t["ffn_moe_topk-0"] == [3, 5]).all()
    assert np.array_equal(t["ffn_moe_weights-0"], t["ffn_moe_probs-0"][:, [3, 5]])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("new", "error", "message"),
    [
        (lambda ids: ids + 0.5, ValueError, "is not an int32 number"),
        (lambda ids: ids * np.nan, ValueError, "nan is not an int32 number"),
        (lambda ids: ids + 2.0**40, ValueError, "is not an int32 number"),
        (lambda ids: ids[:1], ValueError, "expected \\(12, 2\\)"),
        (lambda ids: ids + 100, ref_engine.ModelError, "expert 10\\d is not one of 0..7"),
        (lambda ids: ids - 100, ref_engine.ModelError, "expert -\\d+ is not one of 0..7"),
    ],
)
def test_experts_that_are_none_are_refused(
    backend: str, new: Callable[[Any], Any], error: type[Exception], message: str, tiny: Tiny
) -> None:
    model = tiny(backend)
    with ref_engine.trace(model) as t, pytest.raises(error, match=message):
        t.patch("ffn_moe_topk-2", new)
        model.logits(IDS)
    assert model.taps == []


def test_nobody_looking_costs_a_call_and_a_test(golden: Path) -> None:
    """Counted, not timed: of each named value one call is left, in which no Python function is called.

    Some twenty per layer, 60 ns each, where a layer takes a hundred microseconds and more.
    """
    model = ref_engine.load(golden / "models" / "tiny-moe.gguf", backend="numpy")
    cache = model.new_cache()
    model.forward(IDS, cache)
    calls: list[tuple[str, str]] = []

    def note(frame: Any, event: str, arg: Any) -> None:
        if event == "call":
            back = frame.f_back
            calls.append((frame.f_code.co_qualname, back.f_code.co_qualname if back is not None else ""))

    sys.setprofile(note)
    try:
        model.forward([1], cache)
    finally:
        sys.setprofile(None)
    assert sum(name == "Site.tap" for name, _ in calls) <= 24 * len(model.spec.layers)
    assert [call for call in calls if call[1] == "Site.tap"] == []
    assert not [name for name, _ in calls if name.startswith(("Trace.", "Spool."))]
    assert sum(name == "Model._tap" for name, _ in calls) <= 4
