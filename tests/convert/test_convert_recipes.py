"""What recipes do to tensors and configurations, by hand and against transformers."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from checkpoints import FAMILIES

from ref_engine.archs.hf import RECIPES, normalised, stack_experts
from ref_engine.archs.hf.gpt import RECIPES as GPT
from ref_engine.archs.hf.gpt_oss import repacked
from ref_engine.archs.hf.rotary import interleaved
from ref_engine.checkpoint import Config, given
from ref_engine.convert import plan_conversion, write_plan
from ref_engine.convert.outtype import OUT_TYPES, type_of
from ref_engine.errors import ConvertError
from ref_engine.files import open_gguf
from ref_engine.files.types import GGMLType
from ref_engine.quant.types import dequantize

GOLDEN = Path(__file__).parents[2] / "golden" / "convert"
PROBES = json.loads(gzip.decompress((GOLDEN / "configs.json.gz").read_bytes()))
READ = (
    "rope_parameters", "head_dim", "num_key_value_heads", "hidden_size", "num_attention_heads", "intermediate_size",
    "num_hidden_layers", "max_position_embeddings", "rms_norm_eps", "layer_norm_eps", "vocab_size", "logit_scale",
)  # fmt: skip
# transformers leaves a latent model's rotated width in head_dim; its recipe writes the widths itself
OWN = {"deepseek_v2": {"head_dim"}, "deepseek_v3": {"head_dim"}, "nemotron": {"num_key_value_heads"},
       "gpt_neox": {"rope_parameters"}, "gpt_bigcode": {"num_key_value_heads"}}  # fmt: skip


@pytest.mark.parametrize("raw", [pytest.param(p, id=f"{p[0]['model_type']}-{i}") for i, p in enumerate(PROBES)])
def test_configurations_are_completed_as_transformers_does(raw: tuple[dict[str, Any], dict[str, Any]]) -> None:
    given_values, want = raw
    got = normalised(Config(given_values))
    kind = given_values["model_type"]
    for name in READ:
        if name in want and name in got and name not in OWN.get(kind, ()):
            expected = want[name]
            if name == "rope_parameters":
                expected = {**expected, **{k: v for k, v in got[name].items() if k not in expected}}
            assert got[name] == expected, name
        elif name in want and name not in OWN.get(kind, ()) and name != "rope_parameters":
            pytest.fail(f"{name} is missing")


def test_rows_of_pairs() -> None:
    """One head of four rows: halves (a, b), (c, d) to pairs a, c, b, d."""
    turned = interleaved(given("w", np.array([[0.0], [1.0], [2.0], [3.0]])), 1)
    assert turned.whole().ravel().tolist() == [0, 2, 1, 3]


def test_mxfp4_blocks_keep_their_values() -> None:
    """Weight i of a block is nibble i of the checkpoint; GGML's dequantiser must give the same."""
    values = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
    codes = np.random.default_rng(3).integers(0, 16, (2, 3, 32)).astype(np.uint8)
    blocks = codes[..., ::2] | codes[..., 1::2] << 4
    scales = np.random.default_rng(4).integers(120, 130, (2, 3)).astype(np.uint8)
    want = values[codes] * np.exp2(scales.astype(np.float32) - 127)[..., None]
    got = dequantize(repacked(blocks, scales), GGMLType.MXFP4)
    np.testing.assert_array_equal(got.reshape(want.shape), want)


def test_gpt_oss_as_it_is_published(checkpoint: Callable[..., Path], tool: Any) -> None:
    """Packed experts: gate and up alternate by rows, and every value survives."""
    folder = checkpoint("gpt-oss", quantization_config={"quant_method": "mxfp4"})
    tensors = {}
    for key, (dtype, shape) in FAMILIES["gpt-oss"]["listing"].items():
        if key.endswith(("gate_up_proj", "down_proj")):  # (E, inputs, outputs) in the plain form
            rows, blocks = shape[2], shape[1] // 32
            tensors[f"{key}_blocks"] = ("U8", [4, rows, blocks, 16])
            tensors[f"{key}_scales"] = ("U8", [4, rows, blocks])
        else:
            tensors[key] = (dtype, shape)
    encoded = {key: (dtype, shape, tool.encode(key, dtype, shape)) for key, (dtype, shape) in tensors.items()}
    tool.write_safetensors(folder / "model.safetensors", encoded)
    plan = plan_conversion(folder, pre="gpt-2")
    write_plan(plan, folder / "out.gguf")
    name = "model.layers.1.mlp.experts.gate_up_proj"
    raw = {part: np.frombuffer(encoded[f"{name}_{part}"][2], np.uint8) for part in ("blocks", "scales")}
    whole = repacked(raw["blocks"].reshape(4, 64, 2, 16), raw["scales"].reshape(4, 64, 2))
    with open_gguf(folder / "out.gguf") as file:
        assert file.metadata["general.file_type"] == 38
        for start, part in ((0, "gate"), (1, "up")):
            info = file.tensors[f"blk.1.ffn_{part}_exps.weight"]
            assert (info.type, info.shape) == (GGMLType.MXFP4, (4, 32, 64))
            assert file.data(info.name).tobytes() == whole[:, start::2].tobytes()


def test_experts_are_stacked_in_order() -> None:
    tensors = {
        f"l.experts.{e}.{p}.weight": given(f"{p}{e}", np.full((1, 2), e + 10 * k))
        for e in (2, 0, 1)
        for k, p in enumerate(("down", "up"))
    }
    made = stack_experts({"a": given("a", np.zeros(1)), **tensors, "z": given("z", np.zeros(1))}, ("down", "up"), 3)
    assert list(made) == ["a", "l.experts.down.weight", "l.experts.up.weight", "z"]
    assert made["l.experts.up.weight"].whole()[:, 0, 0].tolist() == [10, 11, 12]


def test_norms_of_single_heads_become_a_matrix() -> None:
    """StableLM 2 12B; llama.cpp's converter stops at them."""
    config = Config({"num_attention_heads": 2, "num_key_value_heads": 1})
    prefix = "model.layers.0.self_attn"
    tensors = {
        f"{prefix}.q_layernorm.norms.1.weight": given("q1", np.array([3.0, 4.0])),
        f"{prefix}.q_layernorm.norms.0.weight": given("q0", np.array([1.0, 2.0])),
        f"{prefix}.k_layernorm.norms.0.weight": given("k0", np.array([5.0, 6.0])),
    }
    made = GPT["StableLmForCausalLM"].gather(config, tensors)
    assert made[f"{prefix}.q_layernorm.weight"].whole().tolist() == [[1, 2], [3, 4]]
    assert made[f"{prefix}.k_layernorm.weight"].whole().tolist() == [[5, 6]]
    with pytest.raises(ConvertError, match="fewer than there are heads"):
        GPT["StableLmForCausalLM"].gather(config, dict(list(tensors.items())[:1]))


@pytest.mark.parametrize(
    ("name", "shape", "out", "want"),
    [
        ("blk.0.attn_q.weight", (64, 64), "q8_0", GGMLType.Q8_0),
        ("blk.0.attn_q.weight", (64, 48), "q8_0", GGMLType.F16),
        ("blk.0.attn_norm.weight", (2, 64), "f16", GGMLType.F32),
        ("blk.0.attn_q.bias", (64,), "bf16", GGMLType.F32),
        ("blk.0.ffn_gate_inp.weight", (8, 64), "f16", GGMLType.F32),
        ("blk.0.ffn_gate_exps.bias", (8, 64), "f16", GGMLType.F32),
        ("blk.0.ssm_conv1d.weight", (64, 4), "bf16", GGMLType.F32),
        ("token_embd.weight", (320, 256), "tq1_0", GGMLType.F16),
        ("blk.0.ffn_up.weight", (64, 256), "tq2_0", GGMLType.TQ2_0),
    ],
)
def test_types(name: str, shape: tuple[int, ...], out: str, want: GGMLType) -> None:
    assert type_of(name, given(name, np.zeros(shape)), OUT_TYPES[out]) is want


def test_every_key_is_one_of_gguf(checkpoint: Callable[..., Path]) -> None:
    """Names that the gguf package does not list are llama.cpp's newer ones."""
    known = {
        value
        for group in vars(gguf.Keys).values()
        if isinstance(group, type)
        for value in vars(group).values()
        if isinstance(value, str)
    }
    newer = {"tokenizer.ggml.normalizer.lowercase", "{arch}.attention.recurrent_layers"}
    for name, entry in FAMILIES.items():
        arch = entry["metadata"]["general.architecture"]
        keys = {
            key.replace(f"{arch}.", "{arch}.", 1) if key.startswith(f"{arch}.") else key for key in entry["metadata"]
        }
        assert keys - known <= newer, name


def test_recipes_name_gguf_architectures() -> None:
    assert {recipe.arch for recipe in RECIPES.values()} <= set(gguf.MODEL_ARCH_NAMES.values())
