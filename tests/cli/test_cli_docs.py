"""docs/cli.md says what --help says."""

import importlib.util
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from ref_engine.cli import main

DOCS = Path(__file__).parents[2] / "docs"


def test_the_committed_text_is_in_step() -> None:
    spec = importlib.util.spec_from_file_location("make_cli", DOCS / "make_cli.py")
    assert spec is not None and spec.loader is not None
    make_cli = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_cli)
    assert (DOCS / "cli.md").read_text(encoding="utf-8") == make_cli.render(), "make docs"


@pytest.mark.parametrize("name", list(main.commands))
def test_it_is_the_help_of_the_program(name: str) -> None:
    shown = (
        CliRunner()
        .invoke(main, [name, "--help"], prog_name="ref-engine", terminal_width=100, max_content_width=100)
        .stdout
    )
    assert f"```\n{shown}```\n" in (DOCS / "cli.md").read_text(encoding="utf-8")
    for parameter in main.commands[name].params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name}: {parameter.opts} is not explained"
