"""Dumps of other programs against ours, layouts, tolerances, the command and its reports."""

import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

import ref_engine
from ref_engine.cli import main
from ref_engine.lens.compare import Comparison, compare
from ref_engine.lens.dump import Dump, Facts, of_arrays
from ref_engine.lens.foreign import open_dump
from ref_engine.lens.names import llama_cpp_names
from ref_engine.lens.record import as_dump, facts_of, record
from ref_engine.lens.selection import Selection

Build = Callable[..., Path]
Array = NDArray[Any]
HF = "hf/llama-untied.gguf"


def command(*words: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(list(words))
    return int(str(stop.value.code or 0))


def ours(path: Path, ids: tuple[int, ...] | None, folder: Path, activations: str = "f32") -> Dump:
    model = ref_engine.load(path, backend="numpy", activations=activations)
    assert ids is not None
    folder.mkdir()
    return as_dump(path.name, record(model, ids, Selection(), folder), facts_of(model, ids, Selection(), True))


@pytest.fixture(scope="module")
def llama(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Dump:
    """Ours of the small Llama of golden/hf, on the 16 tokens of the transformers dump."""
    ids = open_dump(golden / "lens" / "transformers-llama-untied.safetensors").facts.tokens
    return ours(golden / HF, ids, tmp_path_factory.mktemp("llama") / "ours")


def arrays_of(dump: Dump) -> dict[str, Array]:
    return {name: tensor.load() for name, tensor in dump.tensors.items() if tensor.load is not None}


def errors(found: Comparison) -> dict[str, float]:
    return {row.name: row.error for row in found.rows}


@pytest.mark.parametrize("name", ["llama-dense", "gemma3-dense"])
def test_the_log_of_eval_callback_is_ours(name: str, zoo_model: Build, golden: Path, tmp_path: Path) -> None:
    """llama.cpp with half-precision caches, the last layer for the last token alone; gemma3 with flash attention."""
    theirs = open_dump(golden / "lens" / f"{name}-eval-callback.txt")
    found = compare(ours(zoo_model(name), theirs.facts.tokens, tmp_path / "ours"), theirs)
    assert found.clean and len(found.rows) >= 35
    assert max(errors(found).values()) < 1e-5
    steps = {"norm", "ffn_gate", "ffn_up", "ffn_down"}  # llama.cpp's before a bias or a weight
    assert {n.rsplit("-", 1)[0] for n in found.only_b} <= steps


@pytest.mark.parametrize("name", ["llama-dense", "gemma3-dense"])
def test_nodes_of_llama_cpp_are_ours(name: str, zoo_model: Build, golden: Path, tmp_path: Path) -> None:
    theirs = open_dump(golden / "zoo" / "nodes" / f"{name}.npz")
    found = compare(ours(zoo_model(name), theirs.facts.tokens, tmp_path / "ours"), theirs)
    assert found.clean and len(found.rows) >= 35
    assert max(errors(found).values()) < (1e-9 if name == "llama-dense" else 1e-6)  # ggml's table of GELU


def test_a_number_changed_in_a_log_is_found(zoo_model: Build, golden: Path, tmp_path: Path) -> None:
    text = (golden / "lens" / "llama-dense-eval-callback.txt").read_text()
    head = text.index(" ffn_out-0 = ")
    place = text.index("[ ", text.index("[ ", head) + 1)
    sum_at = text.index("sum = ", head)
    changed = {
        "number": text[:place] + "[      9.1250" + text[place + 13 :],
        "sum": text[:sum_at] + "sum = 999.0" + text[text.index("\n", sum_at) :],
    }
    theirs = open_dump(golden / "lens" / "llama-dense-eval-callback.txt")
    own = ours(zoo_model("llama-dense"), theirs.facts.tokens, tmp_path / "ours")
    for what, log in changed.items():
        (tmp_path / "log.txt").write_text(log)
        found = compare(own, open_dump(tmp_path / "log.txt"))
        assert found.first is not None and found.first.name == "ffn_out-0", what
        if what == "number":
            assert found.first.distance is not None and found.first.distance.got == 9.125
        else:
            assert found.cause is not None and found.cause.kind == "elsewhere"


def test_what_llama_debug_saves_is_ours(zoo_model: Build, golden: Path, tmp_path: Path) -> None:
    """The folder, the binary and the text; the ids come from the file beside it."""
    lens = golden / "lens"
    for path in (lens / "llamacpp-llama-dense.bin", lens / "llamacpp-llama-dense.txt"):
        theirs = open_dump(path)
        assert theirs.facts.tokens is not None and len(theirs.facts.tokens) == 8
        folder = tmp_path / path.suffix
        found = compare(ours(zoo_model("llama-dense"), theirs.facts.tokens, folder), theirs)
        assert found.clean and [row.name for row in found.rows] == ["result_output"]
    assert open_dump(lens).tensors.keys() == {"result_output"}


def test_transformers_is_ours(llama: Dump, golden: Path) -> None:
    """Every module, and queries and keys, whose features lie in halves there."""
    theirs = open_dump(golden / "lens" / "transformers-llama-untied.safetensors")
    found = compare(llama, theirs)
    assert found.clean and found.only_b == () and len(found.rows) == 33
    assert max(errors(found).values()) < 1e-9
    notes = {row.name: row.note for row in found.rows}
    assert "in halves" in notes["Qcur-1"] and notes["Vcur-1"] == ""


LAYOUTS: list[tuple[str, Callable[[Array], Array]]] = [
    ("a batch of one", lambda x: x[None]),
    ("ggml's order of axes", lambda x: x.transpose(tuple(reversed(range(x.ndim)))).copy()),
    ("heads together", lambda x: x.reshape(len(x), -1) if x.ndim == 3 and x.shape[1] != 16 else x),
    ("heads first", lambda x: x.transpose(1, 0, 2)[None] if x.ndim == 3 and x.shape[1] != 16 else x),
    ("half of the tokens", lambda x: x[-8:] if x.shape[0] == 16 else x),
    ("float64", lambda x: x.astype(np.float64)),
]


@pytest.mark.parametrize(("what", "change"), LAYOUTS)
def test_layouts(what: str, change: Callable[[Array], Array], llama: Dump) -> None:
    other = {name: change(x) for name, x in arrays_of(llama).items()}
    found = compare(llama, of_arrays("other", other))
    assert found.clean, (found.first, what)
    assert max(errors(found).values()) == 0


def test_a_value_of_another_size_is_named(llama: Dump) -> None:
    other = arrays_of(llama) | {"ffn_norm-1": np.zeros((16, 63), np.float32)}
    found = compare(llama, of_arrays("other", other))
    assert found.first is not None
    assert (found.first.name, found.first.status) == ("ffn_norm-1", "shapes")
    assert "(16, 64) and (16, 63)" in found.first.note


def test_traces_of_other_positions_meet_where_they_can(llama: Dump) -> None:
    rows = (0, 3, 4, 11)
    other = {
        n: x[:, rows] if n.startswith("kq") and x.ndim == 3 else x[list(rows)] for n, x in arrays_of(llama).items()
    }
    facts = Facts(engine="ref-engine", activations="f32", positions=rows)
    found = compare(llama, of_arrays("other", other, facts))
    assert found.clean and max(errors(found).values()) == 0
    none = of_arrays("none", {"l_out-0": np.zeros((1, 64))}, Facts(positions=(40,)))
    assert compare(llama, none).rows[0].status == "shapes"


def test_names_of_transformers_modules() -> None:
    names = [
        "model.embed_tokens", "model.layers.0.input_layernorm", "model.layers.0.self_attn.o_proj",
        "model.layers.0.post_attention_layernorm.input", "model.layers.0.post_attention_layernorm",
        "model.layers.0.mlp.output", "model.layers.0", "model.norm", "lm_head",
        "model.layers.1.post_attention_layernorm", "model.layers.1.pre_feedforward_layernorm",
        "model.layers.1.post_feedforward_layernorm", "transformer.h.7.ln_1", "hidden_states.0", "hidden_states.3",
    ]  # fmt: skip
    found = llama_cpp_names(names)
    assert [found.get(name) for name in names] == [
        "embd", "attn_norm-0", "attn_out-0", "ffn_inp-0", "ffn_norm-0", "ffn_out-0", "l_out-0", "result_norm",
        "result_output", "attn_post_norm-1", "ffn_norm-1", "ffn_post_norm-1", "attn_norm-7", None, None,
    ]  # fmt: skip
    states = [f"hidden_states.{i}" for i in range(4)]
    assert [*llama_cpp_names(states).values()] == ["embd", "l_out-0", "l_out-1", "result_norm"]
    assert llama_cpp_names(["l_out-3", "weird", "model.layers.0.self_attn.rotary_emb"]) == {}


@pytest.fixture
def dumps(llama: Dump, tmp_path: Path) -> Path:
    """Ours as other people write it: a folder of .npy, an .npz, a safetensors file with transformers' names."""
    arrays = arrays_of(llama)
    (tmp_path / "folder").mkdir()
    for name, x in arrays.items():
        np.save(tmp_path / "folder" / f"{name}.npy", x)
    np.savez(tmp_path / "plain.npz", tokens=np.array(llama.facts.tokens), note=np.array("text"), **arrays)
    wrong = arrays | {"l_out-1": arrays["l_out-1"] * 2}
    np.savez(tmp_path / "wrong.npz", **wrong)
    theirs = {"model.layers.0": "l_out-0", "model.layers.1.mlp": "ffn_out-1", "my.final": "result_norm"}
    save_file(
        {name: np.ascontiguousarray(arrays[own][None]) for name, own in theirs.items()}, tmp_path / "hf.safetensors"
    )
    (tmp_path / "map.json").write_text('{"my.final": "result_norm"}')
    return tmp_path


def test_the_command_on_clean_dumps(dumps: Path, golden: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = f"{golden / HF}@numpy:f32"
    assert command("compare", model, str(dumps / "plain.npz"), "-q", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["clean"] and found["first"] is None and found["counts"] == {"same": 37}
    assert found["a"]["activations"] == "f32" and len(found["tensors"]) == 37
    ids = ",".join(map(str, open_dump(dumps / "plain.npz").facts.tokens or ()))
    assert command("compare", str(dumps / "folder"), model, "--tokens", ids, "-q") == 0
    assert command("compare", str(dumps / "folder"), str(dumps / "plain.npz")) == 0
    assert (
        command("compare", str(dumps / "plain.npz"), str(dumps / "hf.safetensors"), "--map", str(dumps / "map.json"))
        == 0
    )
    assert "3 tensors compared" in capsys.readouterr().out


def test_the_command_on_a_divergence(dumps: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = dumps / "report.html"
    words = ["compare", str(dumps / "folder"), str(dumps / "wrong.npz")]
    assert command(*words, "--html", str(report)) == 1
    shown = capsys.readouterr().out
    assert "first beyond tolerance: l_out-1" in shown and "likely cause: scale: B is A times 2" in shown
    assert "worst at token" in shown
    assert command(*words, "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert found["first"]["name"] == "l_out-1" and found["cause"]["kind"] == "scale"
    assert found["first"]["nmse"] == pytest.approx(1) and len(found["first"]["worst"]) == 2
    assert command(*words, "--tolerance", "2") == 0
    assert command(*words, "--layers", "0") == 0
    assert command(*words, "--names", "l_out-*") == 1
    page = report.read_text()
    assert page.count("<circle") == page.count("<tr ") == 37
    assert not [part for part in ("<script", "http:", "https:", "src=", "<link") if part in page]
    balanced(page)


def balanced(page: str) -> None:
    """Every element that is opened is closed, in order."""
    open_ones: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: Any) -> None:
            if tag != "meta":
                open_ones.append(tag)

        def handle_startendtag(self, tag: str, attrs: Any) -> None:
            """Closed at once."""

        def handle_endtag(self, tag: str) -> None:
            assert open_ones.pop() == tag

    Reader().feed(page)
    assert open_ones == []


def test_names_in_a_report_are_text(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>-0"
    np.savez(tmp_path / "a.npz", **{evil: np.ones((2, 3))})
    np.savez(tmp_path / "b.npz", **{evil: np.zeros((2, 3))})
    words = ["compare", str(tmp_path / "a.npz"), str(tmp_path / "b.npz"), "--html", str(tmp_path / "r.html")]
    assert command(*words) == 1
    assert "<script" not in (tmp_path / "r.html").read_text()


def spoilt(path: Path, kind: str) -> Path:
    """A damaged or hostile file."""
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    if kind == "npz cut":
        np.savez(path, x=x)
        path.write_bytes(path.read_bytes()[:-30])
    elif kind == "npy too large":
        np.save(path.with_suffix(".npy"), x)
        path.write_bytes(path.with_suffix(".npy").read_bytes().replace(b"(2, 3)", b"(2,99)"))
    elif kind == "pickled":
        np.save(path.with_suffix(".npy"), np.array([{}], dtype=object), allow_pickle=True)
        path.write_bytes(path.with_suffix(".npy").read_bytes())
    elif kind == "safetensors offsets":
        head = b'{"x":{"dtype":"F32","shape":[2,3],"data_offsets":[0,999]}}'
        path.write_bytes(len(head).to_bytes(8, "little") + head + bytes(24))
    elif kind == "safetensors length":
        path.write_bytes((1 << 60).to_bytes(8, "little") + b"{}")
    elif kind == "safetensors negative":
        head = b'{"x":{"dtype":"F32","shape":[-2,-3],"data_offsets":[0,24]}}'
        path.write_bytes(len(head).to_bytes(8, "little") + head + bytes(24))
    elif kind == "log cut":
        path.write_text("common_debug_cb_eval: x-0 = (f32) ADD(a{2, 2, 1, 1}, }) = {2, 2, 1, 1}\n [ 1.0, 2.0 ],\n" * 2)
    elif kind == "log of words":
        path.write_text("common_debug_cb_eval: x-0 = (f32) ADD(a{2, 1, 1, 1}, }) = {2, 1, 1, 1}\n [ one, 2.0 ],\n")
    elif kind == "floats cut":
        path.write_bytes(bytes(7))
    elif kind == "header":
        np.savez(path, __trace__=np.array('{"format": "ref-engine trace", "version": 1, "tokens": [-1], "order": []}'))
    elif kind == "empty":
        path.write_bytes(b"")
    return path


SPOILT = [
    ("npz cut", ".npz", "damaged .npz file"),
    ("npy too large", ".x", "the file ends before that"),
    ("pickled", ".x", "expected numbers"),
    ("safetensors offsets", ".safetensors", "do not fit shape"),
    ("safetensors length", ".safetensors", "damaged safetensors file"),
    ("safetensors negative", ".safetensors", "damaged safetensors header"),
    ("log cut", ".log", "has 2 numbers, not 4"),
    ("log of words", ".log", "'one' is not a number"),
    ("floats cut", ".bin", "no row of four-byte numbers"),
    ("header", ".npz", "damaged trace header"),
    ("empty", ".txt", "not a trace"),
]


@pytest.mark.parametrize(("kind", "suffix", "message"), SPOILT)
def test_hostile_files_are_one_line(
    kind: str, suffix: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = spoilt(tmp_path / f"bad{suffix}", kind)
    np.savez(tmp_path / "good.npz", **{"x-0": np.ones(3)})
    assert command("compare", str(path), str(tmp_path / "good.npz"), "-q") == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and message in lines[0], lines


REFUSED = [
    (["no/such.npz", "good.npz"], "no such file"),
    (["MODEL@gpu", "good.npz"], "'gpu' is no backend"),
    (["MODEL@numpy:f16", "good.npz"], "'f16' is no backend"),
    (["MODEL@numpy:f32", "good.npz"], "which tokens?"),
    (["MODEL@numpy:f32", "MODEL@numpy:q8"], "which tokens?"),
    (["MODEL@numpy:f32", "good.npz", "--tokens", "96"], "token id 96 is outside"),
    (["MODEL@numpy:f32", "good.npz", "--tokens", "1", "--limit", "1"], "over --limit"),
    (["good.npz", "other.npz"], "no name in common"),
    (["good.npz", "good.npz", "-p", "text"], "a text needs a model"),
    (["good.npz", "good.npz", "--tolerance", "nan"], "is no tolerance"),
    (["good.npz", "good.npz", "--tolerance", "-1"], "is no tolerance"),
    (["good.npz", "good.npz", "--map", "good.npz"], "not JSON"),
    (["a.npz", "b.npz"], "not the same prompt"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "message"), REFUSED)
def test_bad_input(
    words: list[str], message: str, golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    np.savez("good.npz", **{"l_out-0": np.ones((1, 3))})
    np.savez("other.npz", **{"l_out-1": np.ones((1, 3))})
    np.savez("a.npz", tokens=np.array([1, 2]), **{"l_out-0": np.ones((2, 3))})
    np.savez("b.npz", tokens=np.array([1, 3]), **{"l_out-0": np.ones((2, 3))})
    model = str(golden / HF)
    assert command("compare", *[word.replace("MODEL", model) for word in words], "-q") == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and message in lines[0], lines


def test_two_backends_of_one_model(golden: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same bits are due in q8 mode, and there."""
    path = golden / "models" / "tiny-moe.gguf"
    assert command("compare", f"{path}@numpy:q8", f"{path}@native:q8:fused", "--tokens", "3,1,4,1,5,9", "-q") == 0
    shown = capsys.readouterr().out
    assert "the same bits" in shown and "numpy q8 composition" in shown and "native q8 fused" in shown
