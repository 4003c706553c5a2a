"""ref-engine bench: the same work in turns, what is printed of it, and what an operation is said to have done."""

import json
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from commands import Invoke

import ref_engine
from ref_engine.bench.profile import profile
from ref_engine.bench.turns import warm_tokens
from ref_engine.bench.works import Work, works_named
from ref_engine.compat import has_kernels
from ref_engine.errors import RefEngineError
from ref_engine.files import open_gguf

WORKS = ("prefill=8", "decode=3@5", "batch=2x3", "first=4")


@pytest.fixture
def source_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes that bench starts find the package that is tested."""
    monkeypatch.setenv("PYTHONPATH", str(Path(ref_engine.__file__).parents[1]))


def test_a_mixture_is_warmed_until_all_experts_were_chosen(zoo_model: Callable[..., Path]) -> None:
    assert warm_tokens(zoo_model("qwen3moe-moe", "architectures/specs")) == 512
    assert warm_tokens(zoo_model("llama-gqa")) == 32


def test_names_of_works() -> None:
    assert works_named(WORKS) == (Work("prefill", 8), Work("decode", 5, 3), Work("batch", 16, 2, 3), Work("first", 4))
    assert [work.counted for work in works_named(WORKS)] == [8, 3, 6, 0]
    assert works_named([])[0].name == "prefill 512"
    for wrong in ("prefill", "prefill=0", "prefill=8x2", "decode=x", "batch=4", "batch=4x0", "first=-1", "sleep=3", "",
                  "decode=3@", "prefill=99999999", "prefill=³"):  # fmt: skip
        with pytest.raises(RefEngineError, match="is no work"):
            works_named([wrong])


@pytest.mark.usefixtures("source_tree")
def test_two_backends_in_turn(invoke: Invoke, bigram: str) -> None:
    result = invoke("bench", bigram, *WORKS, "--against", "numpy", "--runs", "2", "--json", "-q")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    ours, other = told["engines"]["ref-engine"], told["engines"]["numpy"]
    for work in told["works"]:
        times = [np.median(engine["seconds"][work["name"]]) for engine in (ours, other)]
        assert len(ours["seconds"][work["name"]]) == 2 and min(times) > 0
        assert work["ratios"]["numpy"] == pytest.approx(times[1] / times[0])
    assert min(ours["load_seconds"]) > 0 and min(ours["peak_bytes"], other["peak_bytes"]) > 10 << 20


@pytest.mark.usefixtures("source_tree")
def test_the_table(invoke: Invoke, bigram: str) -> None:
    result = invoke("bench", bigram, "prefill=8", "--runs", "1", "-q")
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[0] == ["WORK", "ref-engine"] and lines[1][:2] == ["prefill", "8"]
    assert float(lines[1][2]) > 0 and lines[2][0] == "load" and lines[3][:2] == ["peak", "memory"]


def test_an_engine_that_is_not_there(invoke: Invoke, bigram: str, tmp_path: Path) -> None:
    """One line that names the package, or what the process said."""
    fake = tmp_path / "python"
    for said, expected in (("No module named 'llama_cpp'", "llama-cpp-python"), ("out of luck", "out of luck")):
        fake.write_text(f'#!/bin/sh\necho "{said}" >&2\nexit 1\n')
        fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
        result = invoke("bench", bigram, "prefill=4", "--against", "llama-cpp", "--peer-python", str(fake), "-q")
        assert result.exit_code == 2 and expected in result.stderr and result.stderr.count("\n") == 1


def test_what_a_profile_counts(bigram: str) -> None:
    """Multiply-adds and bytes of the whole pass, from the shapes and types in the file's header."""
    model = ref_engine.load(bigram, backend="numpy")
    tokens = 5
    found = {o.name: o for o in profile(model, tokens, repeat=1).operations}
    with open_gguf(bigram) as file:
        matrices = [t for name, t in file.tensors.items() if len(t.shape) == 2 and name.startswith("blk.")]
        output = file.tensors.get("output.weight") or file.tensors["token_embd.weight"]
    products = [found[name] for name in ("linear", "linears") if name in found]
    macs = sum(tokens * int(np.prod(t.shape)) for t in matrices) + int(
        np.prod(output.shape)
    )  # logits of the last alone
    assert sum(o.macs for o in products) == macs
    assert sum(o.nbytes for o in products) == sum(t.nbytes for t in matrices) + output.nbytes
    assert all(o.seconds > 0 and o.calls > 0 for o in found.values())


def test_a_profile_of_the_kernels(invoke: Invoke, bigram: str) -> None:
    if not has_kernels:
        pytest.skip("does not apply: the kernels were not compiled")
    result = invoke("bench", bigram, "prefill=4", "decode=1@3", "--profile", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["ceilings"]["bytes_per_second"] > 1e8 and told["ceilings"]["macs_per_second"] > 1e9
    assert [(p["tokens"], p["past"]) for p in told["passes"]] == [(4, 0), (1, 3)]
    for p in told["passes"]:
        assert 0 < sum(o["seconds"] for o in p["operations"]) <= p["seconds"]
    refused = invoke("bench", bigram, "--profile", "--against", "numpy")
    assert refused.exit_code == 2 and "this engine alone" in refused.stderr
