"""Which type each tensor gets, against llama.cpp's choices for seven shapes of model and every file type."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ref_engine.errors import ModelError
from ref_engine.files.types import GGMLType
from ref_engine.mixture import (
    FILE_TYPES,
    Chooser,
    Wishes,
    file_order,
    file_type_named,
    fitting,
    needs_importance,
    read_facts,
)

FILES = json.loads((Path(__file__).parents[1] / "golden" / "quant" / "files.json").read_text())
RUNS = [(model, run) for model, runs in FILES["types"].items() for run in runs if not run.startswith("COPY")]
OPTIONS = {
    "pure": Wishes(pure=True),
    "output=Q8_0": Wishes(output=GGMLType.Q8_0),
    "embedding=Q5_K": Wishes(embedding=GGMLType.Q5_K),
    "keep-output": Wishes(keep_output=True),
    "attn_v=Q6_K": Wishes(patterns=((re.compile("attn_v"), GGMLType.Q6_K),)),
}


def metadata(spec: dict[str, Any]) -> dict[str, object]:
    return {key: value for key, _, value in spec["kv"]}


def wishes(run: str) -> Wishes:
    return OPTIONS[run.split(":")[1]] if ":" in run else Wishes()


@pytest.mark.parametrize(("model", "run"), RUNS, ids=lambda v: str(v))
def test_types_are_llama_cpps(model: str, run: str) -> None:
    spec = FILES["models"][model]
    shapes = {name: tuple(reversed(ne)) for name, ne, _ in spec["tensors"]}
    names = sorted(shapes, key=file_order)
    chooser = Chooser(file_type_named(run.split(":")[0]), read_facts(metadata(spec)), names, wishes(run))
    got = [chooser.choose(name, shapes[name], GGMLType.F32) for name in names]
    assert got == FILES["types"][model][run]


def test_a_row_that_no_type_fits() -> None:
    """llama.cpp refuses Q1_0 for rows of 288; rows that are not even whole blocks of 32 become F16."""
    with pytest.raises(ModelError, match=r"288.*Q1_0"):
        fitting(GGMLType.Q1_0, 288)
    assert fitting(GGMLType.Q6_K, 288) is GGMLType.Q8_0
    assert fitting(GGMLType.Q6_K, 40) is GGMLType.F16
    assert fitting(GGMLType.Q4_0, 40) is GGMLType.F16


def test_what_needs_an_importance_matrix() -> None:
    """As `tensor_requires_imatrix`: very low types, Q2_K in a Q2_K_S file, but never embedding and output."""
    assert needs_importance("blk.0.attn_q.weight", GGMLType.IQ2_XS, FILE_TYPES["IQ2_XS"])
    assert needs_importance("blk.0.attn_q.weight", GGMLType.Q2_K, FILE_TYPES["Q2_K_S"])
    assert not needs_importance("blk.0.attn_q.weight", GGMLType.Q2_K, FILE_TYPES["Q2_K"])
    assert not needs_importance("token_embd.weight", GGMLType.IQ2_XS, FILE_TYPES["IQ2_XS"])


def test_names_of_file_types() -> None:
    assert file_type_named("q4_k") is FILE_TYPES["Q4_K_M"]
    assert FILE_TYPES["Q4_K_M"].number == 15
    with pytest.raises(ModelError, match="'Q4_K_XL' is not a file type"):
        file_type_named("Q4_K_XL")


@pytest.mark.parametrize("bad", [None, "16", -1, True, 2**40])
def test_a_count_that_is_none(bad: object) -> None:
    with pytest.raises(ModelError, match=r"llama\.block_count"):
        read_facts({"general.architecture": "llama", "llama.block_count": bad, "llama.attention.head_count": 4})
