"""Where thinking is open, by hand."""

from __future__ import annotations

import pytest

from ref_engine.thinking import ThinkingRule, ThinkingState

RULE = ThinkingRule("<think>", "</think>", close=(1, 2, 3), budget=4)


def run(rule: ThinkingRule, *texts: str) -> str:
    """One letter for each token: t for one of thinking, a dot for the others; and F where one is forced next."""
    state = ThinkingState(rule)
    marks = ""
    for text in texts:
        marks += "t" if state.push(text) else "."
        marks += "F" if state.forced else ""
    return marks


def test_a_text_may_begin_with_a_thought() -> None:
    assert run(RULE, "<think>", "a", "</think>", "b") == "ttt."
    assert run(RULE, "\n", "<th", "ink>", "a", "</th", "ink>", "b") == "..tttt."
    assert run(RULE, "\n<think>a</think>b", "c") == "t."


@pytest.mark.parametrize("first", ["a", "< think>", "<thin", "<b>"])
def test_a_tag_later_on_is_text(first: str) -> None:
    assert run(RULE, first, " <think>", "a") == "..."


def test_what_the_prompt_has_opened() -> None:
    rule = ThinkingRule("<think>", "</think>", is_open=True)
    assert run(rule, "a", "b", "</", "think>", "c", "<think>", "d") == "tttt..."


def test_the_budget() -> None:
    rule = ThinkingRule("<think>", "</think>", is_open=True, budget=3, close=(1, 2, 3))
    state = ThinkingState(rule)
    assert [state.push(text) for text in ("a", "b")] == [True, True]
    assert state.take_forced() is None
    assert state.push("c")
    assert state.take_forced() == 1
    assert state.push("\n")
    assert state.take_forced() == 2
    assert state.push("</think>")
    assert state.take_forced() == 3  # what follows the tag belongs to the rule, too
    assert not state.push("\n\n")
    assert state.take_forced() is None
    assert not state.push("answer")
    assert state.tokens == 5


def test_a_thought_that_ends_in_time_is_not_cut() -> None:
    rule = ThinkingRule("<think>", "</think>", is_open=True, budget=2, close=(1, 2, 3))
    assert run(rule, "a", "</think>", "b") == "tt."
