"""docs/lens.md: its tables are those that check requests, and its examples say what a server says."""

from __future__ import annotations

import doctest
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import requests
from running import Running

from ref_engine.library import Store
from ref_engine_app.fields import Field
from ref_engine_app.lens.incoming import ENDPOINTS, MAX_NUMBERS, MAX_TOKENS

PAGE = (Path(__file__).parents[2] / "docs" / "lens.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## POST /api/lens/(\w+)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))
NAMED = '{"model": "smollm2", "prompt": "The capital of France is"}'


def table(fields: tuple[Field, ...]) -> str:
    """As docs/api.md has them."""
    rows = [
        f"| `{f.name}` | {f.check.says} | {f.use} | {'; '.join(['required'] * f.required + [f.note] * bool(f.note))} |"
        for f in fields
    ]
    return "\n".join(["| field | takes | | |", "|---|---|---|---|", *rows])


@pytest.mark.parametrize("view", ENDPOINTS)
def test_tables_are_in_step(view: str) -> None:
    assert table(tuple(ENDPOINTS[view])) in SECTIONS[view]


def test_every_endpoint_has_a_section_and_the_limits_are_told() -> None:
    assert list(SECTIONS) == list(ENDPOINTS)
    assert f"a text of {MAX_TOKENS} tokens, an answer of {MAX_NUMBERS:,} numbers" in PAGE


def test_examples(serve: Callable[..., Running], store: Store, smollm2: Path) -> None:
    store.add_file("smollm2", smollm2)
    server = serve(n_ctx=512)
    found = doctest.DocTestParser().get_doctest(PAGE, {"server": server.url}, "lens.md", "lens.md", 0)
    assert len(found.examples) == 12
    assert doctest.DocTestRunner().run(found).failed == 0
    assert NAMED in PAGE  # what the curl command sends; it says no content type, so nor do we
    answer = requests.post(f"{server.url}/api/lens/tokens", data=NAMED.encode(), timeout=60)
    assert answer.json()["tokens"][1]["rank"] == 2751 and json.loads(NAMED)["model"] == "smollm2"
