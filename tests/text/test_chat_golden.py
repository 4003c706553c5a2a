"""Rendered prompts equal to those of Hugging Face transformers, for our own templates and for real ones."""

from __future__ import annotations

import hashlib
import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from ref_engine.errors import TemplateError
from ref_engine.text.chat.template import ChatTemplate

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "chat"
CACHE = Path(os.environ.get("REF_ENGINE_CACHE", "~/.cache/ref-engine")).expanduser() / "templates"
ASKED: dict[str, Any] = json.loads((GOLDEN / "conversations.json").read_text(encoding="utf-8"))
OWN: dict[str, Any] = json.loads((GOLDEN / "own.json").read_text(encoding="utf-8"))
REAL: dict[str, Any] = json.loads((GOLDEN / "real.json").read_text(encoding="utf-8"))


def _outcome(template: ChatTemplate, name: str) -> str | TemplateError:
    conversation = dict(ASKED["conversations"][name])
    try:
        return template.render(conversation.pop("messages"), **conversation)
    except TemplateError as error:
        return error


def _compile(source: str) -> ChatTemplate:
    now = datetime.fromisoformat(ASKED["now"])
    return ChatTemplate(source, ASKED["bos_token"], ASKED["eos_token"], clock=lambda: now)


def _check(expected: dict[str, Any], outcome: str | TemplateError) -> None:
    if "error" in expected:
        assert isinstance(outcome, TemplateError), f"transformers raised {expected['error']}"
        assert "\n" not in str(outcome)
        return
    assert isinstance(outcome, str), outcome
    if "text" in expected:
        assert outcome == expected["text"]
    else:
        found = {"length": len(outcome), "sha256": hashlib.sha256(outcome.encode()).hexdigest()}
        assert found == expected, outcome


@pytest.mark.parametrize("name", sorted(OWN))
def test_own_template(name: str) -> None:
    template = _compile((GOLDEN / "templates" / name).read_text(encoding="utf-8"))
    assert sorted(OWN[name]) == sorted(ASKED["conversations"])
    for conversation, expected in OWN[name].items():
        _check(expected, _outcome(template, conversation))


@pytest.mark.parametrize("name", sorted(REAL))
def test_real_template(name: str) -> None:
    path = CACHE / name
    if not path.exists():
        pytest.skip(f"no {path}")
    source = path.read_bytes()
    if hashlib.sha256(source).hexdigest() != REAL[name]["sha256"]:
        pytest.skip(f"{path} is another version than the golden one")
    template = _compile(source.decode("utf-8"))
    for conversation, expected in REAL[name]["cases"].items():
        _check(expected, _outcome(template, conversation))
