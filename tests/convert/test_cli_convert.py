"""ref-engine convert: reports, options and refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoints import FAMILIES, TOOL
from click.testing import CliRunner, Result

from ref_engine import load
from ref_engine.cli import main

Checkpoint = Callable[..., Path]


def invoke(*args: str | Path) -> Result:
    return CliRunner().invoke(main, ["convert", *map(str, args)], prog_name="ref-engine")


def test_a_model_that_runs(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """2 layers of 64: 320 x 64 twice, and per layer 64 x 64 twice, 32 x 64 twice, 96 x 64 three times; norms 5 x 64."""
    out = tmp_path / "out.gguf"
    result = invoke(checkpoint("llama"), out, "--outtype", "q8_0", "--name", "Tiny Llama")
    assert result.exit_code == 0, result.output
    assert [line.split() for line in result.stdout.splitlines()] == [
        ["TYPE", "TENSORS", "NUMBERS", "BYTES"],
        ["F32", "5", "320", "1.3", "kB"],
        ["Q8_0", "16", "102.4K", "108.8", "kB"],
        ["LlamaForCausalLM:", "110.1", "kB"],
    ]
    model = load(out)
    assert model.metadata["general.name"] == "Tiny Llama"
    assert model.logits([1, 5, 9]).shape == (3, 320)


def test_a_dry_run_writes_nothing(checkpoint: Checkpoint, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    result = invoke(checkpoint("mixtral"), out, "--dry-run", "--outtype", "f16", "--json")
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert report["target"] is None and report["architecture"] == "MixtralForCausalLM"
    by_name = {tensor["name"]: tensor for tensor in report["tensors"]}
    stack = by_name["blk.1.ffn_gate_exps.weight"]
    assert (stack["shape"], stack["was"], stack["type"], stack["bytes"]) == ([4, 96, 64], "F32", "F16", 2 * 4 * 96 * 64)
    table = invoke(checkpoint("llama"), out, "--dry-run").stdout
    assert "model.layers.1.mlp.down_proj.weight" in table
    assert not out.exists()


def test_parts_of_other_senses_are_told(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = checkpoint("llama")
    tensors = {
        key: (dtype, shape, TOOL.encode(key, dtype, shape))
        for key, (dtype, shape) in FAMILIES["llama"]["listing"].items()
    }
    tensors = {f"language_model.{key}": value for key, value in tensors.items()}
    tensors["vision_tower.patch_embed.weight"] = ("F32", [2], bytes(8))
    TOOL.write_safetensors(folder / "model.safetensors", tensors)
    result = invoke(folder, tmp_path / "out.gguf")
    assert result.exit_code == 0, result.output
    assert "left out: 1 tensors of no text model, such as vision_tower.patch_embed.weight" in result.stdout


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--outtype", "q4_k"), "is not one of 'auto', 'f32'"),
        ((), "architecture 'NoSuchModel' has no recipe (docs/convert.md lists them)"),
    ],
)
def test_refusals(args: tuple[str, ...], message: str, checkpoint: Checkpoint, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    result = invoke(checkpoint("llama", architectures=["NoSuchModel"]), out, *args)
    assert result.exit_code == 2
    assert message in result.stderr and result.stderr.count("\n") == 1
    assert not out.exists()
