"""A program as what is verified: a good one passes, and each way of being bad is named as that case's failure."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ref_engine.errors import RefEngineError
from ref_engine.verify.engines.command import CommandEngine, parse_command
from ref_engine.verify.golden import Golden, find_golden
from ref_engine.verify.run import Result, choose, run_cases
from ref_engine.verify.suite import command_suite

SCRIPT = Path(__file__).with_name("engines.py")
CASE = "hf/llama-untied/logits"


@pytest.fixture(scope="module")
def data(golden: Path) -> Golden:
    return find_golden(golden)


def engine(how: str, timeout: float = 120, tokens: str = "{tokens}") -> CommandEngine:
    return parse_command(f"'{sys.executable}' '{SCRIPT}' {how} {{model}} {tokens} {{logits}}", timeout)


def only(data: Golden, made: CommandEngine, scratch: Path, *patterns: str) -> list[Result]:
    return list(run_cases(choose(command_suite(data, made, scratch), patterns)))


@pytest.mark.parametrize(("how", "tokens"), [("good", "{tokens}"), ("npy", "{tokens}"), ("text", "{ids}")])
def test_a_good_program_passes(how: str, tokens: str, data: Golden, tmp_path: Path) -> None:
    (result,) = only(data, engine(how, tokens=tokens), tmp_path, CASE)
    assert result.status == "passed", result.finding.message
    figures = result.finding.figures
    assert figures["worst row's nmse"] < 1e-9 and figures["top1"] == 1 and figures["kl"] < 1e-9


def test_a_rebuilt_model_passes_too(data: Golden, tmp_path: Path) -> None:
    (result,) = only(data, engine("good"), tmp_path, "zoo/llama-dense/logits")
    assert result.status == "passed", result.finding.message


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("wrong", r"worst row's nmse .* > 1e-09; worst at \[5, \d+\]"),
        ("swapped", r"worst row's nmse .* > 1e-09"),
        ("short", r"wrote \d+ bytes of logits, expected \d+ \(\d+ tokens x \d+ float32\)"),
        ("nan", r"^1 logits are not finite"),
        ("crash", r"ended with status 3: cannot allocate 12 GB"),
        ("kill", r"was ended by SIGSEGV"),
        ("silent", r"wrote no logits"),
    ],
)
def test_each_fault_is_named(how: str, message: str, data: Golden, tmp_path: Path) -> None:
    import re

    (result,) = only(data, engine(how), tmp_path, CASE)
    assert result.status == "failed" and re.search(message, result.finding.message), result.finding.message


def test_a_program_that_hangs_is_ended_and_the_others_go_on(data: Golden, tmp_path: Path) -> None:
    results = only(data, engine("hang", timeout=0.5), tmp_path, CASE, "hf/llama-linear/logits")
    assert [r.finding.message for r in results] == ["the command was still running after 0.5 s"] * 2


def test_fail_fast_stops(data: Golden, tmp_path: Path) -> None:
    cases = choose(command_suite(data, engine("crash"), tmp_path), ["hf/*"])
    assert len(cases) > 3 and len(list(run_cases(cases, fail_fast=True))) == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("python {model} {tokens}", r"no \{logits\}"),
        ("python {tokens} {logits}", r"no \{model\}"),
        ("python {model} {logits}", r"no \{tokens or ids\}"),
        ("python {model} {tokens} {logits} {vocab}", r"\{vocab\} is not a placeholder"),
        ("no-such-engine {model} {tokens} {logits}", "there is no program 'no-such-engine'"),
        ("'python {model}", "No closing quotation"),
        ("", r"no \{model\}"),
    ],
)
def test_a_command_line_that_cannot_work(line: str, message: str) -> None:
    with pytest.raises(RefEngineError, match=message):
        parse_command(line, 1)
