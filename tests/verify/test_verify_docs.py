"""docs/verify.md: its `console` blocks print what they say, its `python` block runs, its tables are complete."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from ref_engine.backends import numpy_ops
from ref_engine.compat import has_kernels
from ref_engine.verify.engines.command import _NAMES
from ref_engine.verify.engines.ours import backend_of
from ref_engine.verify.golden import find_golden
from ref_engine.verify.suite import backend_suite

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "verify.md").read_text()
CONSOLE = re.findall(r"```console\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.skipif(not has_kernels, reason="the default backend is native there: without kernels it does not apply")
@pytest.mark.parametrize("block", CONSOLE, ids=lambda b: b.splitlines()[0][:60])
def test_commands(block: str) -> None:
    line, _, want = block.partition("\n")
    command, _, shortened = line.removeprefix("$ ").partition(" | ")
    words = shlex.split(command)
    assert words[0] == "ref-engine" and len(CONSOLE) == 3
    run = [sys.executable, "-m", "ref_engine", *words[1:]]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(run, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300, check=True)
    lines = done.stdout.splitlines()
    if shortened:
        how, count = shortened.split(" -")
        lines = lines[: int(count)] if how == "head" else lines[-int(count) :]
    assert lines == want.splitlines()


def test_python(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    exec(block, {"my_ops": lambda mode: numpy_ops(mode, 1), "scratch": tmp_path})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 40 and all(line.split()[1] == "passed" for line in lines)


def test_every_pack_and_placeholder_is_told(tmp_path: Path) -> None:
    packs = {case.id.split("/")[0] for case in backend_suite(find_golden(), backend_of("numpy", ("f32",)), tmp_path)}
    assert {name for name in packs if f"`{name}`" not in TEXT} == set()
    assert {name for name in _NAMES if f"`{{{name}}}`" not in TEXT} == set()
