"""docs/convert.md lists the recipes that there are."""

import importlib.util
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_the_committed_text_is_in_step() -> None:
    spec = importlib.util.spec_from_file_location("make_convert", DOCS / "make_convert.py")
    assert spec is not None and spec.loader is not None
    make_convert = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_convert)
    assert (DOCS / "convert.md").read_text(encoding="utf-8") == make_convert.render(), "make docs"
