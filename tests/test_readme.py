"""The README's outputs are what its commands print: `console` blocks are run, `python` blocks are doctests."""

import doctest
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text()
CONSOLE = re.findall(r"```console\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module")
def store(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment whose store holds the default model under its own name."""
    from ref_engine.library import Store

    root = tmp_path_factory.mktemp("models")
    Store(root).add_file("smollm2:135m", smollm2)
    return {**os.environ, "REF_ENGINE_MODELS": str(root), "COLUMNS": "120"}


def test_there_is_something_to_check() -> None:
    assert len(CONSOLE) == 3 and README.count("```python") == 4


@pytest.mark.parametrize("block", CONSOLE, ids=lambda b: b.splitlines()[0])
def test_commands(block: str, store: dict[str, str]) -> None:
    command, _, want = block.partition("\n")
    words = shlex.split(command.removeprefix("$ "))
    assert words[0] == "ref-engine"
    command_line = [sys.executable, "-m", "ref_engine", *words[1:]]
    done = subprocess.run(command_line, env=store, capture_output=True, text=True, timeout=300, check=True)
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    assert lines == [line.rstrip() for line in want.splitlines()]


def test_python(smollm2: Path) -> None:
    found = doctest.DocTestParser().get_doctest(README, {"smollm2": smollm2}, "README.md", "README.md", 0)
    assert len(found.examples) > 10
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    assert runner.run(found).failed == 0


def test_commands_named_are_commands() -> None:
    from ref_engine.cli import main

    named = re.search(r"## Commands\n\n((?:`[\w-]+`:?\s)+)", README)
    assert named is not None
    assert set(re.findall(r"`([\w-]+)`", named[1])) == set(main.list_commands(None))  # type: ignore[arg-type, attr-defined]
