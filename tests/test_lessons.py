"""The lessons in docs/lessons are doctests: what they print is what comes out."""

import doctest
from pathlib import Path

import pytest

LESSONS = Path(__file__).parents[1] / "docs" / "lessons"


def run(name: str, least: int, **given: object) -> None:
    text = (LESSONS / name).read_text(encoding="utf-8")
    found = doctest.DocTestParser().get_doctest(text, given, name, name, 0)
    assert len(found.examples) >= least
    assert doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(found).failed == 0
    for picture in {line.partition("](")[2].rstrip(")") for line in text.splitlines() if line.startswith("![")}:
        assert (LESSONS / picture).stat().st_size < 200_000


@pytest.mark.filterwarnings("ignore:Glyph:UserWarning")  # a font without some sign draws a box
def test_one_token(smollm2: Path, tmp_path: Path) -> None:
    run("one-token.md", 60, smollm2=smollm2, folder=tmp_path)


@pytest.mark.filterwarnings("ignore:Glyph:UserWarning")
def test_experts(golden: Path, tmp_path: Path) -> None:
    run("experts.md", 40, tiny_moe=golden / "models" / "tiny-moe.gguf", folder=tmp_path)
