"""pull, list, show, cp, rm on a store of the test's own."""

import json
from pathlib import Path

from commands import Invoke

from ref_engine.library import Store


def names(invoke: Invoke) -> list[str]:
    return sorted(entry["name"] for entry in json.loads(invoke("list", "--json").stdout))


def test_the_life_of_a_model(invoke: Invoke, bigram: str, tmp_path: Path) -> None:
    assert names(invoke) == []
    nbytes = Path(bigram).stat().st_size
    done = invoke("pull", bigram, "--as", "tiny")
    assert (done.exit_code, done.stdout) == (0, f"tiny:latest: {nbytes / 1e6:.1f} MB\n")
    assert f"{nbytes / 1e6:.1f} MB done" in done.stderr
    assert invoke("run", "tiny", "x").stdout == "yz\n"

    header, row = invoke("list").stdout.splitlines()
    assert header.split() == ["NAME", "ID", "SIZE", "PARAMETERS", "TYPE", "MODIFIED"]
    # six square matrices of 288, three of 32 x 288, three norms: 526176 numbers
    assert row.split()[0] == "tiny:latest"
    assert row.split()[4:6] == ["526.2K", "F32"]

    assert invoke("cp", "tiny", "second:v2").stdout == "copied tiny to second:v2\n"
    assert names(invoke) == ["second:v2", "tiny:latest"]
    assert len(list((tmp_path / "models" / "blobs").glob("sha256-*"))) == 2  # the file and its config, shared

    refused = invoke("rm", "tiny", "nosuch")
    assert refused.exit_code == 2 and "nosuch" in refused.stderr
    assert names(invoke) == ["second:v2", "tiny:latest"]  # nothing was removed
    assert invoke("rm", "tiny").stdout == "removed local/library/tiny:latest\n"
    assert invoke("run", "second:v2", "x").stdout == "yz\n"
    assert json.loads(invoke("rm", "second:v2", "--json").stdout) == {"removed": ["local/library/second:v2"]}
    assert names(invoke) == []
    assert list((tmp_path / "models" / "blobs").glob("sha256-*")) == []


def test_pull_quietly_and_as_json(invoke: Invoke, bigram: str) -> None:
    done = invoke("pull", bigram, "-q")
    assert (done.stdout, done.stderr) == ("", "")
    found = json.loads(invoke("pull", bigram, "--as", "other", "--json", "-q").stdout)
    assert (found["name"], found["family"]) == ("other:latest", "llama")
    assert Path(found["path"]).read_bytes() == Path(bigram).read_bytes()


def test_show(invoke: Invoke, bigram: str) -> None:
    invoke("pull", bigram, "--as", "tiny", "-q")
    for model in ("tiny", bigram):
        lines = [line.split(maxsplit=1) for line in invoke("show", model).stdout.splitlines()]
        assert ["architecture", "llama"] in lines
        assert ["llama.embedding_length", "288"] in lines
        assert ["tokenizer.ggml.tokens", "(288 items)"] in lines
        assert invoke("show", model, "--template").stdout == "{% for m in messages %}{{ m.content }}{% endfor %}\n"
    found = json.loads(invoke("show", "tiny", "--json").stdout)
    assert found["metadata"]["llama.block_count"] == 1
    assert found["metadata"]["tokenizer.ggml.tokens"] is None
    whole = json.loads(invoke("show", "tiny", "--json", "--all").stdout)
    assert whole["metadata"]["tokenizer.ggml.tokens"][:3] == ["<unk>", "<s>", "</s>"]
    modelfile = invoke("show", "tiny", "--modelfile").stdout
    assert modelfile == f"FROM {Store().resolve('tiny')}\n"
