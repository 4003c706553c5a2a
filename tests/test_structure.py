"""The house rules that a machine can check: which way data flows, where names live, how long files get."""

import ast
import re
from pathlib import Path

import pytest

from ref_engine.archs import FAMILIES

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "ref_engine"
SOURCES = sorted(PACKAGE.rglob("*.py"))

# A module may import from its own stage and the stages before it.
STAGES = [
    {"errors", "version"},
    {"files"},
    {"quant"},
    {"weights", "spec"},
    {"reference"},
    {"archs", "cache", "ops", "compat", "kernels"},
    {"backends", "blocks", "tracing"},
    {"sample", "stop", "text", "thinking"},
    {"generate"},
    {"model"},
    {"engine"},
    {"library", "mixture", "perplexity", "plan", "quantize_file"},
    {"cli"},
]
STAGE = {name: i for i, names in enumerate(STAGES) for name in names}


def part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """The parts of this package that a file imports at run time, type checking aside."""
    found: set[str] = set()
    tree = ast.parse(path.read_text())
    guarded = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node not in guarded and (node.module or "").startswith("ref_engine"):
            parts = (node.module or "").split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        if isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("ref_engine.")}
    return found


@pytest.mark.parametrize("path", [p for p in SOURCES if part(p) not in ("__init__", "__main__")], ids=str)
def test_data_flows_one_way(path: Path) -> None:
    own = STAGE[part(path)]
    ahead = {name for name in imports(path) if name in STAGE and STAGE[name] > own}
    assert not ahead, f"{path.relative_to(ROOT)} imports from a later stage: {ahead}"


def test_every_part_has_a_stage() -> None:
    assert {part(p) for p in SOURCES} - {"__init__", "__main__"} <= set(STAGE)


def test_architecture_names_live_in_archs() -> None:
    """No other file compares or looks up the name of a family."""
    for path in SOURCES:
        if part(path) in ("archs", "library"):  # the library's catalog names models, not architectures
            continue
        strings = {n.value for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Constant)}
        named = strings & set(FAMILIES)
        if part(path) == "text":  # "llama" is also what the file format calls SentencePiece vocabularies
            named -= {"llama"}
        assert not named, f"{path.relative_to(ROOT)} names {named}"


def test_files_have_one_subject() -> None:
    lengths = sorted(len(p.read_text().splitlines()) for p in SOURCES if p.name != "__init__.py")
    assert lengths[-1] <= 500
    assert lengths[len(lengths) // 2] <= 170


def test_nothing_names_a_machine() -> None:
    """No home folder, no scratch folder, no registry's address in anything that is committed as text."""
    pattern = re.compile(r"/(root|work|home/\w+)/|pypi\.org|registry\.ollama\.ai|files\.pythonhosted")
    for path in [*SOURCES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")]:
        if path != Path(__file__):
            hit = pattern.search(path.read_text())
            assert hit is None, f"{path.relative_to(ROOT)}: {hit}"


def test_make_golden_names_generators_that_exist() -> None:
    named = re.findall(r"\$\(MAKE_GOLDEN\)/(\w+\.py)", (ROOT / "Makefile").read_text())
    assert len(named) > 10
    assert [name for name in named if not (ROOT / "golden" / "make" / name).exists()] == []
