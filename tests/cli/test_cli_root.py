"""Exit statuses, error lines, start-up, pipes: what holds for every command."""

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import Result
from commands import Invoke, Process, environment

from ref_engine.cli import main
from ref_engine.errors import RefEngineError
from ref_engine.version import __version__

COMMANDS = (
    "run", "serve", "pull", "list", "show", "cp", "rm", "create", "ps", "stop", "tokenize", "logits", "perplexity",
    "trace", "compare", "kl", "verify", "plan", "convert", "quantize", "quantize-report", "imatrix", "bench",
)  # fmt: skip


def only_line(result: Result) -> str:
    """The one line of an error: nothing on stdout, one line on stderr."""
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1 and result.stderr.endswith("\n")
    return result.stderr


def test_help_names_every_command(invoke: Invoke) -> None:
    assert tuple(main.commands) == COMMANDS
    for args in (["--help"], []):
        result = invoke(*args)
        assert result.exit_code == 0
        assert all(f"\n  {name} " in result.stdout for name in COMMANDS)


def test_version(invoke: Invoke) -> None:
    assert invoke("--version").stdout == f"ref-engine {__version__}\n"


def test_start_up_imports_nothing_heavy() -> None:
    code = "import sys, ref_engine.cli; print([m for m in ('numpy', 'rich', 'jinja2', 'requests') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True)
    assert found.stdout == "[]\n"


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["frob"], "No such command"),
        (["--frob"], "No such option"),
        (["run"], "Missing argument 'MODEL'"),
        (["tokenize", "x.gguf"], "--decode"),
        (["tokenize", "x.gguf", "text", "--decode", "1"], "--decode"),
        (["logits", "x.gguf"], "--prompt"),
        (["logits", "x.gguf", "-p", "a", "-o", "x.txt"], "x.txt"),
        (["perplexity", "x.gguf", "-", "--ctx", "1"], "--ctx"),
        (["run", "x.gguf", "hi"], "x.gguf: no such file"),
        (["run", "x.gguf", "hi", "--backend", "abacus"], "abacus"),
        (["tokenize", "nosuchmodel", "hi"], "nosuchmodel"),
        (["show", "../x"], "../x: no such file"),
        (["perplexity", "x.gguf", "nosuchfile.txt"], "nosuchfile.txt: No such file or directory"),
        (["rm", "nosuchmodel"], "nosuchmodel"),
        (["cp", "nosuchmodel", "other"], "nosuchmodel"),
        (["pull", "a://b"], "a://b"),
        (["plan", "/"], "/"),
    ],
)
def test_bad_input_is_one_line_and_status_2(invoke: Invoke, args: list[str], expected: str) -> None:
    result = invoke(*args)
    line = only_line(result)
    assert result.exit_code == 2
    assert line.startswith("ref-engine: error: ")
    assert expected in line


def test_a_file_that_is_not_a_model(invoke: Invoke, tmp_path: Path) -> None:
    path = tmp_path / "text.gguf"
    path.write_text("not a model\n" * 100)
    for command in (["plan"], ["run", "hi"], ["tokenize", "hi"], ["logits", "-p", "hi"], ["show"]):
        result = invoke(command[0], str(path), *command[1:])
        assert result.exit_code == 2
        assert "text.gguf: not a GGUF file" in only_line(result)


def test_a_name_with_control_characters_stays_on_one_line(invoke: Invoke) -> None:
    line = only_line(invoke("run", "a\nb\x1b[2J.gguf", "hi"))
    assert "\x1b" not in line and r"\x1b[2J.gguf" in line


def test_real_processes_give_the_same(process: Process, bigram: str) -> None:
    done = process("run", "nosuch.gguf", "hi")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == b"ref-engine: error: nosuch.gguf: no such file\n"
    done = process("tokenize", bigram, "ab", "--ids")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"1,100,101\n", b"")


def test_debug_shows_the_traceback(process: Process) -> None:
    done = process("run", "nosuch.gguf", "hi", REF_ENGINE_DEBUG="1")
    assert done.returncode == 1
    assert b"Traceback" in done.stderr and b"StoreError: nosuch.gguf" in done.stderr


def test_a_defect_is_one_line_and_status_1(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise ZeroDivisionError("division\nby zero")

    monkeypatch.setattr(main.commands["list"], "callback", broken)
    result = invoke("list")
    assert result.exit_code == 1
    line = only_line(result)
    assert line.startswith("ref-engine: internal error: ZeroDivisionError: division by zero; REF_ENGINE_DEBUG=1")


def test_ctrl_c_is_130(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(main.commands["list"], "callback", interrupted)
    result = invoke("list")
    assert (result.exit_code, result.stdout, result.stderr.strip()) == (130, "", "")


def test_errors_of_the_engine_keep_their_text(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*args: object, **kwargs: object) -> None:
        raise RefEngineError("tensor blk.0.x is missing")

    monkeypatch.setattr(main.commands["list"], "callback", refuses)
    assert only_line(invoke("list")) == "ref-engine: error: tensor blk.0.x is missing\n"


def test_a_reader_that_goes_away_is_no_error(bigram: str) -> None:
    """More output than a pipe holds, and nobody reads it to the end."""
    script = (
        f'"{sys.executable}" -m ref_engine logits "{bigram}" -p "{"0" * 400}" -k 200 2>err | head -n 1; cat err >&2'
    )
    done = subprocess.run(
        ["sh", "-c", script], capture_output=True, env=environment(), timeout=120, cwd=Path(bigram).parent
    )
    assert done.stdout.count(b"\n") == 1
    assert done.stderr == b""


def test_output_survives_a_terminal_that_is_not_utf_8(process: Process, bigram: str) -> None:
    for encoding, shown in (("ascii", b"?\n"), ("cp437", b"\x82\n"), ("utf-8", b"\xc3\xa9\n")):
        done = process("tokenize", bigram, "--decode", "198,172", PYTHONIOENCODING=encoding)
        assert (done.returncode, done.stdout) == (0, shown)
        done = process(
            "run", bigram, "--raw", "--temperature", "0", "--max-tokens", "1", PYTHONIOENCODING=encoding, input=b"\xc3"
        )
        assert (done.returncode, done.stderr) == (0, b"")
