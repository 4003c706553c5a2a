"""run with a prompt: templates, pipes, options; the bigram model's answers are known beforehand."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from bigram import write_bigram
from commands import Invoke, Process, environment

from ref_engine.cli.presets import preset_of
from ref_engine.errors import StoreError
from ref_engine.library import Entry, Progress, Store
from ref_engine.library.manifest import PARAMS, SYSTEM


def test_one_answer(invoke: Invoke, bigram: str) -> None:
    result = invoke("run", bigram, "x")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "yz\n", "")


@pytest.mark.parametrize(
    ("args", "answer"),
    [
        (["w", "--temperature", "0"], "xyz"),
        (["a", "--max-tokens", "3"], "bcd"),
        (["a", "--stop", "q", "--stop", "ef"], "bcd"),
        (["a", "w"], "xyz"),  # words are joined by a space
        (["x", "--max-tokens", "0"], ""),
        (["x", "--system", "abc"], "yz"),
        (["x", "--top-k", "1", "--top-p", "0.5", "--min-p", "0.5", "--seed", "7"], "yz"),
        (["x", "--activations", "f32", "--backend", "numpy", "--n-ctx", "20"], "yz"),
    ],
)
def test_options(invoke: Invoke, bigram: str, args: list[str], answer: str) -> None:
    assert invoke("run", bigram, *args).stdout == answer + "\n"


@pytest.mark.parametrize(
    ("piped", "words", "answer"),
    [("x\n", [], "yz"), ("x", [], "yz"), ("x\r\n", [], "yz"), ("a", ["x"], "yz"), ("", ["x"], "yz")],
)
def test_pipes(process: Process, bigram: str, piped: str, words: list[str], answer: str) -> None:
    done = process("run", bigram, *words, input=piped.encode())
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{answer}\n".encode(), b"")


def test_piped_text_comes_before_the_prompt(invoke: Invoke, bigram: str) -> None:
    """Seven tokens: BOS, the two of the pipe, a space (U+2581, three bytes of UTF-8), the one of the prompt."""
    found = json.loads(invoke("run", bigram, "x", "--json", input="ab").stdout)
    assert (found["text"], found["timing"]["prompt_tokens"]) == ("yz", 7)


def test_nothing_to_answer(invoke: Invoke, bigram: str) -> None:
    result = invoke("run", bigram)
    assert result.exit_code == 2
    assert "no prompt" in result.stderr


def test_waiting_for_a_silent_pipe_is_said(bigram: str) -> None:
    command = [sys.executable, "-m", "ref_engine", "run", bigram, "x"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    ) as running:
        assert running.stderr is not None
        assert b"reading standard input" in running.stderr.readline()
        out, _ = running.communicate(timeout=60)
        assert (running.returncode, out) == (0, b"yz\n")


def test_json(invoke: Invoke, bigram: str) -> None:
    result = invoke("run", bigram, "w", "--json", "--seed", "5")
    found = json.loads(result.stdout)
    assert (found["text"], found["finish_reason"], found["seed"]) == ("xyz", "stop", 5)
    assert found["timing"]["prompt_tokens"] == 2
    assert found["timing"]["new_tokens"] == 4  # x y z and the end
    assert result.stderr == ""
    assert json.loads(invoke("run", bigram, "a", "--json", "--stop", "e").stdout)["stop_sequence"] == "e"
    assert json.loads(invoke("run", bigram, "a", "--json", "--max-tokens", "1").stdout)["finish_reason"] == "length"


def test_context_ends_an_answer(invoke: Invoke, bigram: str) -> None:
    """A context of 8: BOS and 0, six answers forwarded, the seventh needs no room."""
    found = json.loads(invoke("run", bigram, "0", "--json", "--n-ctx", "8").stdout)
    assert (found["text"], found["finish_reason"]) == ("1234567", "context")
    result = invoke("run", bigram, "0" * 20, "--n-ctx", "8")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "21 tokens does not fit a context of 8" in result.stderr


def test_verbose_goes_to_stderr(invoke: Invoke, bigram: str) -> None:
    result = invoke("run", bigram, "x", "-v")
    assert result.stdout == "yz\n"
    assert "prompt  2 tokens, 0 of them cached" in result.stderr
    assert "answer  3 tokens" in result.stderr


def test_a_base_model_continues(invoke: Invoke, base: str) -> None:
    assert invoke("run", base, "x").stdout == "yz\n"
    assert invoke("run", base, "0").stdout == ("1234567890" * 26)[:256] + "\n"
    assert invoke("run", base, "0", "--max-tokens", "12").stdout == "123456789012\n"
    assert "--system needs a chat template" in invoke("run", base, "x", "--system", "y").stderr


def test_template_and_raw(invoke: Invoke, tmp_path: Path) -> None:
    path = str(
        write_bigram(tmp_path / "m.gguf", template="{{ bos_token }}{% for m in messages %}{{ m.role }}w{% endfor %}")
    )
    found = json.loads(invoke("run", path, "0", "--json").stdout)
    assert found["text"] == "xyz"
    assert found["timing"]["prompt_tokens"] == 6  # BOS once, though the template writes it and the model adds it
    assert invoke("run", path, "x", "--raw").stdout == "yz\n"


def test_a_broken_template_is_one_line(invoke: Invoke, tmp_path: Path) -> None:
    path = str(write_bigram(tmp_path / "m.gguf", template="{{ raise_exception('no\nroles') }}"))
    result = invoke("run", path, "x")
    assert result.exit_code == 2
    assert result.stderr.startswith("ref-engine: error: chat template: ") and result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "args", [["--temperature", "nan"], ["--top-p", "2"], ["--n-ctx", "0"], ["--threads", "0"], ["--backend", "cupy"]]
)
def test_values_out_of_range(invoke: Invoke, bigram: str, args: list[str]) -> None:
    result = invoke("run", bigram, "x", *args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("ref-engine: error: ") and result.stderr.count("\n") == 1


def test_what_a_manifest_sets(invoke: Invoke, bigram: str) -> None:
    """Parameters and system prompt of a Modelfile hold until an option says otherwise."""
    store = Store()
    plain = store.add_file("plain", bigram)
    layers = list(store.find("plain")[2].layers)
    texts = [(PARAMS, json.dumps({"stop": ["e", "q"], "num_predict": 5, "num_ctx": 64})), (SYSTEM, "abc")]
    layers += [store.blobs.put_bytes(kind, text.encode()) for kind, text in texts]
    store.add_model(plain.full_name, layers)
    found = json.loads(invoke("run", "plain", "a", "--json").stdout)
    assert (found["text"], found["stop_sequence"]) == ("bcd", "e")
    assert found["timing"]["prompt_tokens"] == 5  # BOS, a b c, a
    assert invoke("run", "plain", "f").stdout == "ghijk\n"
    assert invoke("run", "plain", "a", "--stop", "d", "--system", "").stdout == "bc\n"
    assert invoke("show", "plain", "--system").stdout == "abc\n"
    assert invoke("show", "plain", "--parameters").stdout.splitlines() == [
        'stop "e"',
        'stop "q"',
        "num_predict 5",
        "num_ctx 64",
    ]


def test_a_catalog_model_is_pulled_first(invoke: Invoke, bigram: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pulled: list[str] = []

    def fake(name: str, store: Store, progress: Progress) -> Entry:
        pulled.append(name)
        progress.start(10, "downloading")
        progress.advance(10)
        progress.done()
        return store.add_file("smollm2:135m", bigram)

    monkeypatch.setattr("ref_engine.library.pull", fake)
    result = invoke("run", "smollm2", "x")
    assert (result.exit_code, result.stdout) == (0, "yz\n")
    assert result.stderr == "downloading: 10 B\ndownloading: 10 B done\n"
    assert invoke("run", "smollm2:135m", "x").stderr == ""  # now it is here
    assert pulled == ["smollm2"]


def test_a_pull_that_fails_is_one_line(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(name: str, store: Store, progress: Progress) -> Entry:
        raise StoreError("the index is out of reach")

    monkeypatch.setattr("ref_engine.library.pull", fake)
    result = invoke("run", "smollm2", "x")
    assert result.exit_code == 2
    assert result.stderr == "ref-engine: error: cannot pull smollm2: the index is out of reach\n"


def test_only_the_catalogs_own_file_has_its_preset(smollm2: Path, tmp_path: Path, bigram: str) -> None:
    preset = preset_of(smollm2)
    assert preset is not None and preset.system == ""
    assert preset.parameters == {"temperature": 0.2, "top_p": 0.9}  # as the model's card has them
    other = tmp_path / "other.gguf"
    with other.open("wb") as file:  # the right size, other bytes
        os.truncate(file.fileno(), smollm2.stat().st_size)
    assert preset_of(other) is None
    assert preset_of(Path(bigram)) is None


def test_smollm2_knows_the_capital_of_france(process: Process, smollm2: Path) -> None:
    done = process("run", str(smollm2), "The capital of France is", "--temperature", "0", "--max-tokens", "12")
    assert done.returncode == 0, done.stderr
    assert b"Paris" in done.stdout
    done = process(
        "run", str(smollm2), "--raw", "--temperature", "0", "--max-tokens", "1", input=b"The capital of France is\n"
    )
    assert done.stdout == b" Paris\n"


def test_an_answer_that_must_obey_a_grammar(invoke: Invoke, bigram: str, tmp_path: Path) -> None:
    """The model would say yz; the grammar asks for more, and ends the text where it is met."""
    gbnf, lark = tmp_path / "g.gbnf", tmp_path / "g.lark"
    gbnf.write_text('root ::= [yz]{2} "q" [0-4]')
    lark.write_text("start: /[a-z]/ /[0-9]{3}/")
    assert invoke("run", bigram, "x", "--grammar", str(gbnf), "--temperature", "0").stdout in [
        f"yzq{i}\n" for i in range(5)
    ]
    shown = json.loads(invoke("run", bigram, "x", "--grammar", str(lark), "--temperature", "0", "--json").stdout)
    assert shown["text"].startswith("y") and shown["text"][1:].isdigit() and len(shown["text"]) == 4
    assert shown["finish_reason"] == "stop"


def test_an_answer_that_must_meet_a_schema(invoke: Invoke, bigram: str, tmp_path: Path) -> None:
    schema = tmp_path / "s.json"
    schema.write_text('{"type": "object", "properties": {"n": {"enum": [12, 17]}}, "required": ["n"]}')
    answer = invoke("run", bigram, "x", "--json-schema", str(schema), "--temperature", "0").stdout
    assert json.loads(answer) == {"n": 12}  # 2 follows 1 in this model


@pytest.mark.parametrize(
    ("option", "text", "error"),
    [
        ("--json-schema", "{", "file: "),
        ("--json-schema", '{"type": "nonsense"}', "nonsense"),
        ("--json-schema", b"\xff", "file: "),
        ("--grammar", "root ::= x", "rule 'x' is not defined"),
        ("--grammar", b"\xff", "file: "),
    ],
)
def test_a_grammar_that_is_none(
    invoke: Invoke, bigram: str, tmp_path: Path, option: str, text: str | bytes, error: str
) -> None:
    file = tmp_path / "file"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    result = invoke("run", bigram, "x", option, str(file))
    assert result.exit_code == 2 and error in result.stderr and result.stderr.count("\n") == 1


def test_one_grammar_at_most(invoke: Invoke, bigram: str, tmp_path: Path) -> None:
    file = tmp_path / "g"
    file.write_text('root ::= "a"')
    result = invoke("run", bigram, "x", "--grammar", str(file), "--json-schema", str(file))
    assert result.exit_code == 2 and "either" in result.stderr
