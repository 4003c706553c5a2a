"""Which types the parts of a mixture get by default, and what comes before that."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import ref_engine
from ref_engine.expert_types import ExpertWish
from ref_engine.files import open_gguf
from ref_engine.files.types import GGMLType
from ref_engine.mixture import Chooser, Wishes, file_order, file_type_named, fitted, read_facts
from ref_engine.quantize_file import quantize_file
from ref_engine.quantize_plan import make_plan

T = GGMLType
SPECS = Path(__file__).parents[1] / "golden" / "architectures" / "specs"


def types(spec: str, file_type: str, wish: ExpertWish = "auto", **wishes: object) -> dict[str, str]:
    """By the names of the layers' tensors without `blk.N.` and `.weight`, where all layers agree."""
    made = json.loads((SPECS / f"{spec}.json").read_text())
    shapes = {name: tuple(reversed(ne)) for name, ne, _ in made["tensors"]}
    names = sorted(shapes, key=file_order)
    facts = read_facts({key: value for key, _, value in made["kv"]})
    chooser = Chooser(file_type_named(file_type), facts, names, Wishes(experts=wish, **wishes))  # type: ignore[arg-type]
    found: dict[str, set[str]] = {}
    for name in names:
        short = re.sub(r"^blk\.\d+\.|\.weight$", "", name)
        found.setdefault(short, set()).add(chooser.choose(name, shapes[name], T.F32).name)
    return {name: kinds.pop() if len(kinds) == 1 else "mixed" for name, kinds in found.items()}


@pytest.mark.parametrize("file_type", ["Q2_K", "Q4_0", "Q4_K_M", "Q6_K", "Q8_0", "IQ2_XXS"])
def test_the_default(file_type: str) -> None:
    """8 experts of 256 x 384: rows of 256 are Q5_K, those of 384 what stands in for it. The rest as without."""
    auto, same = types("qwen2moe-moe", file_type), types("qwen2moe-moe", file_type, "same")
    assert (auto["ffn_gate_exps"], auto["ffn_up_exps"], auto["ffn_down_exps"]) == ("Q5_K", "Q5_K", "Q5_1")
    assert {auto[f"ffn_{name}_shexp"] for name in ("gate", "up", "down")} == {"Q8_0"}
    assert auto["ffn_gate_inp"] == "F32"
    rest = {name for name in auto if not re.search(r"_exps|_shexp|gate_inp$", name)}
    assert len(rest) > 5 and {n: auto[n] for n in rest} == {n: same[n] for n in rest}


def test_merged_stacks() -> None:
    assert types("cohere2moe-moe", "Q3_K_M")["ffn_gate_up_exps"] == "Q5_K"


def test_fewer_than_eight_experts(zoo_model: Callable[..., Path]) -> None:
    with open_gguf(zoo_model("llama-dense")) as file:
        names = {n: i.shape for n, i in file.tensors.items()}
        metadata = {**file.metadata, "llama.expert_count": 7}
    stack = {"blk.0.ffn_up_exps.weight": (7, 4, 256)}
    for wish, want in (("auto", T.Q4_K), ("same", T.Q4_K), (T.Q6_K, T.Q6_K)):
        wishes = Wishes(experts=wish)  # type: ignore[arg-type]
        chooser = Chooser(file_type_named("Q4_K_M"), read_facts(metadata), [*names, *stack], wishes)
        assert chooser.choose("blk.0.ffn_up_exps.weight", (7, 4, 256), T.F32) is want


@pytest.mark.parametrize("file_type", ["F16", "BF16", "F32", "MXFP4_MOE"])
def test_file_types_that_say_what_experts_get(file_type: str) -> None:
    assert types("qwen2moe-moe", file_type) == types("qwen2moe-moe", file_type, "same")


def test_what_comes_before_the_policy() -> None:
    """--pure, a pattern; a type that is named comes before pure, and before file types without blocks."""
    assert types("qwen2moe-moe", "Q4_K_M", pure=True)["ffn_up_exps"] == "Q4_K"
    assert types("qwen2moe-moe", "Q4_K_M", T.Q6_K, pure=True)["ffn_up_exps"] == "Q6_K"
    named = types("qwen2moe-moe", "Q4_K_M", patterns=((re.compile("ffn_up"), T.Q3_K),))
    assert (named["ffn_up_exps"], named["ffn_gate_exps"], named["ffn_up_shexp"]) == ("Q3_K", "Q5_K", "Q3_K")
    half = types("qwen2moe-moe", "F16", T.Q4_K)
    assert (half["ffn_up_exps"], half["ffn_up_shexp"], half["attn_q"]) == ("Q4_K", "F16", "F16")


def test_what_stands_in_is_told() -> None:
    assert fitted(T.Q5_K, 384).instead_of is T.Q5_K and fitted(T.Q5_K, 384).type is T.Q5_1
    assert fitted(T.Q5_K, 512).instead_of is None


def test_the_file_runs(zoo_model: Callable[..., Path], tmp_path: Path) -> None:
    """Q5_K, Q5_1 and Q8_0 lose little: logits within a fiftieth of their own size."""
    source = zoo_model("qwen2moe-moe", "architectures/specs")
    with open_gguf(source) as file:
        plan = make_plan(file, file_type_named("Q8_0"), Wishes(experts="auto"))
    quantize_file(source, tmp_path / "q.gguf", file_type_named("Q8_0"), Wishes(experts="auto"))
    with open_gguf(tmp_path / "q.gguf") as file:
        assert [info.type for info in file.tensors.values()] == [change.new_type for change in plan.changes]
    ids = np.arange(10)
    truth, got = (
        ref_engine.load(path, backend="numpy", activations="f32").logits(ids) for path in (source, tmp_path / "q.gguf")
    )
    assert 0 < ((got - truth) ** 2).sum() / (truth**2).sum() < 2e-2
