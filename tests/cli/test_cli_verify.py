"""`verify` and `kl` as a user calls them: reports, exit statuses, bad input."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from commands import Invoke, Process

TINY = "models/tiny-moe.gguf"


@pytest.fixture
def text(tmp_path: Path, golden: Path) -> str:
    path = tmp_path / "page.txt"
    path.write_text((golden / "real" / "page.txt").read_text()[:400])
    return str(path)


# -- verify -----------------------------------------------------------------------------------------------------------


def test_table_json_and_junit(process: Process, tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    asked = ("verify", "--backend", "numpy", "--only", "ops/rope*", "--only", "quant/Q4_K/dequantize", "--quiet")
    done = process(*asked, "--junit", str(report))
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode().splitlines()[-1] == "backend numpy: 23 passed, 0 failed, 0 skipped"
    root = ElementTree.parse(report).getroot()
    suite = root[0]
    assert (root.tag, suite.tag) == ("testsuites", "testsuite")
    assert [suite.get(k) for k in ("tests", "failures", "errors", "skipped")] == ["23", "0", "0", "0"]
    names = {(case.get("classname"), case.get("name")) for case in suite.iter("testcase")}
    assert ("quant.Q4_K", "dequantize") in names and ("ops.rope_neox", "q8") in names and len(names) == 23

    data = json.loads(process(*asked, "--json").stdout)
    assert (data["verified"], data["passed"], data["failed"], data["not_run"]) == ("backend numpy", 23, 0, 0)
    case = next(case for case in data["cases"] if case["id"] == "quant/Q4_K/dequantize")
    assert (case["operation"], case["type"], case["limit"]) == ("embed", "Q4_K", "the same bits")
    assert case["figures"]["nmse"] == 0 and case["figures"]["max_ulp"] == 0


def test_a_failure_is_exit_status_1(invoke: Invoke, tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    line = f"'{sys.executable}' -c 'import sys; sys.exit(\"out of \\x07memory\")' {{model}} {{tokens}} {{logits}}"
    done = invoke("verify", "--command", line, "--only", "hf/*", "--fail-fast", "-q", "--junit", str(report))
    assert done.exit_code == 0 or done.exit_code == 1
    last = done.output.splitlines()[-1]
    assert last.endswith("0 passed, 1 failed, 0 skipped, 5 not run")
    assert "hf/gemma3-window/logits: the command ended with status 1: out of" in done.output
    failure = next(ElementTree.parse(report).getroot().iter("failure"))
    assert "out of \ufffdmemory" in str(failure.get("message")) and "id: hf/gemma3-window/logits" in str(failure.text)


def test_the_process_ends_with_1(process: Process) -> None:
    line = f"'{sys.executable}' -c pass {{model}} {{tokens}} {{logits}}"
    done = process("verify", "--command", line, "--only", "hf/llama-untied/*", "-q")
    assert done.returncode == 1 and b"wrote no logits" in done.stdout


def test_list_names_and_runs_nothing(invoke: Invoke) -> None:
    done = invoke("verify", "--list", "--only", "zoo/*", "--backend", "numpy", "--activations", "f32")
    lines = done.output.splitlines()
    assert done.exit_code == 0 and lines[0].split() == ["ID", "OPERATION", "TYPE"]
    assert "zoo/llama-dense/logits" in {line.split()[0] for line in lines} and "bits" not in done.output
    assert len(json.loads(invoke("verify", "--list", "--only", "zoo/*/logits", "--json").output)) == 28


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--only", "nothing/*"), "no case matches 'nothing/*'"),
        (("--golden", "/nowhere"), "--golden names the folder"),
        (("--backend", "numpy", "--command", "x {model} {tokens} {logits}"), "different things to verify"),
        (("--command", "x {model} {tokens} {logits}"), "there is no program 'x'"),
        (("--server", "http://127.0.0.1:9"), "--server needs --model NAME"),
        (("--model", "m"), "go with --server"),
        (("--command", "true {model} {tokens} {logits}", "--threads", "2"), "are of a backend"),
        (("--server", "http://127.0.0.1:9", "--model", "m", "--model-file", "x@fast"), "cannot be reached"),
    ],
)
def test_bad_input_is_exit_status_2(args: tuple[str, ...], message: str, process: Process) -> None:
    done = process("verify", *args, "-q")
    assert done.returncode == 2 and message in done.stderr.decode(), done.stderr
    assert len(done.stderr.decode().splitlines()) == 1


# -- kl ---------------------------------------------------------------------------------------------------------------


def test_kl_of_a_model_against_itself_otherwise_computed(invoke: Invoke, golden: Path, text: str) -> None:
    model = str(golden / TINY)
    done = invoke("kl", f"{model}@native:f32", "--against", f"{model}@numpy:f32", text, "--ctx", "40", "--json", "-q")
    data = json.loads(done.output)
    assert data["model_computed"] == "native:f32" and data["base"].endswith("(numpy:f32)")
    assert 0 <= data["kl"]["value"] < 1e-9 and data["same_top"]["value"] == 1
    plain = json.loads(invoke("perplexity", model, text, "--activations", "f32", "--ctx", "40", "--json", "-q").output)
    for name in ("perplexity", "perplexity_base"):
        assert data[name]["value"] == pytest.approx(plain["perplexity"], rel=1e-5)
    assert data["tokens"] == plain["tokens"] and data["windows"] == plain["windows"]
    other = json.loads(invoke("kl", f"{model}@q8", "--against", f"{model}@f32", text, "--json", "-q").output)
    assert 1e-7 < other["kl"]["value"] < 1e-2 and other["kl"]["percentiles"]["100"] > other["kl"]["percentiles"]["50"]


def test_kl_from_a_file_is_kl_from_the_model(invoke: Invoke, golden: Path, text: str, tmp_path: Path) -> None:
    model, kept = str(golden / TINY), str(tmp_path / "base.kld")
    asked = ("--against", f"{model}@f32", text, "--halves", "--ctx", "32", "--save-logits", kept)
    first = json.loads(invoke("kl", f"{model}@q8", *asked, "--json", "-q").output)
    second = json.loads(invoke("kl", f"{model}@q8", "--base", kept, "--json", "-q").output)
    assert second["tokens"] == first["tokens"] == 15 * first["windows"]
    assert second["perplexity"] == first["perplexity"]
    assert second["kl"]["value"] == pytest.approx(first["kl"]["value"], abs=1e-4)
    assert second["kl_reverse"]["value"] is None  # a file does not hold the base's small probabilities
    shown = invoke("kl", f"{model}@q8", "--base", kept, "-q").output
    assert "mean KL(base || model)" in shown and "mean KL(model || base)" not in shown


def test_kl_refuses_other_vocabularies_by_name(process: Process, bigram: str, golden: Path) -> None:
    done = process("kl", bigram, "--against", str(golden / TINY), "-p", "abc", "-q")
    assert done.returncode == 2
    assert "the vocabularies differ: bigram.gguf has" in done.stderr.decode()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("-p", "x"), "give either --against MODEL or --base FILE"),
        (("--against", "{m}"), "give either a FILE or --prompt TEXT"),
        (("--against", "{m}@fast", "-p", "x"), "'fast' after the @ is no backend or mode"),
        (("--against", "{m}@native:q4", "-p", "x"), "'q4' is no mode of activations"),
        (("--against", "{m}", "-p", "x", "--halves"), "no token is left to score"),
        (("--against", "{m}", "-p", "x", "--ctx", "100000"), "are more than the context length"),
        (("--against", "{m}", "-p", "x", "--save-logits", "f"), "--save-logits needs --halves"),
        (("--base", "{m}"), "not a file of log-probabilities"),
        (("--base", "{m}", "--ctx", "5"), "no text, window or --against options"),
        (("--against", "{m}", "none.txt"), "No such file"),
    ],
)
def test_kl_bad_input(args: tuple[str, ...], message: str, process: Process, golden: Path) -> None:
    model = str(golden / TINY)
    done = process("kl", model, *(arg.replace("{m}", model) for arg in args), "-q")
    assert done.returncode == 2 and message in done.stderr.decode(), done.stderr
