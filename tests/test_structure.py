"""The house rules that a machine can check: which way data flows, where names live, how long files get."""

import ast
import re
from pathlib import Path

import pytest

from ref_engine.archs import FAMILIES

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "ref_engine"
APP = ROOT / "app"
SOURCES = sorted([*PACKAGE.rglob("*.py"), *APP.rglob("*.py")])
DIALECTS = ("anthropic", "openai", "ollama")

# A module may import from its own stage and the stages before it.
STAGES = [
    {"errors", "version"},
    {"files"},
    {"quant"},
    {"expert_types", "place"},
    {"weights", "spec", "checkpoint"},
    {"reference"},
    {"archs", "cache", "ops", "compat", "kernels", "gpu"},
    {"backends", "blocks", "tracing"},
    {"sample", "stop", "text", "thinking"},
    {"generate", "replay"},
    {"model"},
    {"engine"},
    {
        "bench",
        "convert",
        "divergence",
        "kld_file",
        "lens",
        "library",
        "imatrix",
        "mixture",
        "perplexity",
        "plan",
        "plan_split",
        "quantize_file",
        "quantize_plan",
        "quantize_report",
        "verify",
    },
    {"views"},
    {"plot"},
    {"cli"},
    {"app"},  # `cli/serve.py` starts it by name: it may not be installed
]
STAGE = {name: i for i, names in enumerate(STAGES) for name in names}


def part(path: Path) -> str:
    if path.is_relative_to(APP):
        return "app"
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


def app_imports(path: Path) -> set[str]:
    """The modules of the server that a file imports, by their names under app/."""
    found = set()
    package = path.relative_to(APP).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            above = package[: len(package) - node.level + 1]
            names = [(node.module or "").split(".")] if node.module else [[alias.name] for alias in node.names]
            found |= {".".join((*above, *name)) for name in names}
    return found


def dialect_of(module: str) -> str | None:
    """`openai` of openai, openai.common and openai_models; None for what belongs to none."""
    first = module.split(".")[0]
    return next((name for name in DIALECTS if first == name or first.startswith(f"{name}_")), None)


def test_dialects_do_not_import_each_other() -> None:
    seen = set()
    for path in APP.rglob("*.py"):
        own = dialect_of(".".join(path.relative_to(APP).with_suffix("").parts))
        others = {dialect_of(module) for module in app_imports(path)} - {None, own}
        seen |= {own}
        if own is not None:
            assert not others, f"{path.relative_to(ROOT)} imports from {others}"
    assert set(DIALECTS) <= seen


def test_only_the_composition_roots_know_the_dialects() -> None:
    """What is neutral does not depend on what is not."""
    for path in APP.rglob("*.py"):
        if dialect_of(".".join(path.relative_to(APP).with_suffix("").parts)) is None and path.name != "serve.py":
            assert not {m for m in app_imports(path) if dialect_of(m)}, path.relative_to(ROOT)


def test_the_server_imports_itself_by_dots() -> None:
    """It is installed under another name than that of its folder."""
    for path in APP.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not [n for n in names if n.split(".")[0] in ("app", "ref_engine_app")], path.relative_to(ROOT)


@pytest.mark.parametrize("path", [p for p in SOURCES if part(p) not in ("__init__", "__main__")], ids=str)
def test_data_flows_one_way(path: Path) -> None:
    own = STAGE[part(path)]
    ahead = {name for name in imports(path) if name in STAGE and STAGE[name] > own}
    assert not ahead, f"{path.relative_to(ROOT)} imports from a later stage: {ahead}"


def test_every_part_has_a_stage() -> None:
    assert {part(p) for p in SOURCES} - {"__init__", "__main__"} <= set(STAGE)


def test_architecture_names_live_in_archs() -> None:
    """No other file compares or looks up the name of a family.

    The library's catalog names models; vocabularies, and formats of tool calls, are named after the models that had
    them first.
    """
    for path in SOURCES:
        vocabularies = {PACKAGE / "text", PACKAGE / "convert" / "vocab"} & set(path.parents)
        if part(path) in ("archs", "library") or vocabularies:
            continue
        strings = {n.value for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Constant)}
        named = strings & set(FAMILIES)
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
