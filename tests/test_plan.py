"""Memory plans, every figure worked out by hand from shapes and block sizes."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from ref_engine import load
from ref_engine.errors import ModelError
from ref_engine.files import BLOCK, GGMLType, TensorInfo, open_gguf, row_bytes, write_gguf
from ref_engine.plan import Plan, layer_of, make_plan, part_of

F32, F16, Q4_0, Q4_K, Q6_K, Q8_0 = (GGMLType[name] for name in ("F32", "F16", "Q4_0", "Q4_K", "Q6_K", "Q8_0"))
Table = Mapping[str, tuple[Sequence[int], GGMLType]]


def infos(table: Table) -> dict[str, TensorInfo]:
    """A tensor table without a file: the plan reads nothing else."""
    return {
        name: TensorInfo(name, tuple(shape), type, row_bytes(type, shape[-1]) * math.prod(shape[:-1]), 0)
        for name, (shape, type) in table.items()
    }


def metadata(arch: str = "llama", **keys: object) -> dict[str, object]:
    known = {
        "context_length": 4096,
        "embedding_length": 256,
        "attention__head_count": 4,
        "block_count": 1,
        "vocab_size": 1000,
    }
    values = {f"{arch}.{key.replace('__', '.')}": value for key, value in (known | keys).items()}
    return {"general.architecture": arch, **values}


def part(plan: Plan, name: str) -> tuple[int, int, int]:
    found = next(part for part in plan.parts if part.name == name)
    return found.n_tensors, found.n_weights, found.nbytes


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("token_embd.weight", "embeddings"),
        ("token_embd_norm.weight", "norms"),
        ("per_layer_token_embd.weight", "embeddings"),
        ("position_embd.weight", "embeddings"),
        ("output.weight", "output"),
        ("output_norm.weight", "norms"),
        ("blk.0.attn_norm.weight", "norms"),
        ("blk.11.attn_q_norm.weight", "norms"),
        ("blk.0.post_ffw_norm.weight", "norms"),
        ("blk.0.attn_q.bias", "attention"),
        ("blk.0.attn_kv_a_mqa.weight", "attention"),
        ("blk.0.attn_sinks.weight", "attention"),
        ("blk.0.indexer.proj.weight", "attention"),
        ("blk.0.ffn_up.weight", "ffn"),
        ("blk.0.channel_mix_key.weight", "ffn"),
        ("blk.0.ffn_gate_inp.weight", "router"),
        ("blk.0.exp_probs_b.bias", "router"),
        ("blk.0.ffn_gate_exps.weight", "experts"),
        ("blk.0.ffn_down_exps.bias", "experts"),
        ("blk.0.ffn_gate_up_exps.weight", "experts"),
        ("blk.0.ffn_down.7.weight", "experts"),
        ("blk.0.ffn_down_shexp.weight", "shared experts"),
        ("blk.0.ffn_gate_inp_shexp.weight", "shared experts"),
        ("blk.0.ssm_in.weight", "recurrent"),
        ("blk.0.time_mix_key.weight", "recurrent"),
        ("blk.0.shortconv.conv.weight", "recurrent"),
        ("rope_freqs.weight", "other"),
        ("mm.0.weight", "other"),
    ],
)
def test_names_tell_parts(name: str, part: str) -> None:
    assert part_of(name) == part


def test_names_tell_layers() -> None:
    assert [layer_of(name) for name in ("blk.0.x", "blk.123.attn_q.weight", "output.weight", "blk.x.y")] == [
        0,
        123,
        None,
        None,
    ]


DENSE: Table = {
    "token_embd.weight": ((1000, 256), Q6_K),
    "output_norm.weight": ((256,), F32),
    "output.weight": ((1000, 256), F16),
    "blk.0.attn_norm.weight": ((256,), F32),
    "blk.0.attn_q.weight": ((256, 256), Q4_K),
    "blk.0.attn_k.weight": ((128, 256), Q4_K),
    "blk.0.attn_v.weight": ((64, 256), Q4_K),
    "blk.0.attn_output.weight": ((256, 256), Q4_K),
    "blk.0.ffn_up.weight": ((512, 256), Q8_0),
}


def test_a_dense_layer() -> None:
    """Rows of 256: 210 bytes of Q6_K, 512 of F16, 144 of Q4_K, 8 x 34 = 272 of Q8_0."""
    plan = make_plan(metadata(), infos(DENSE), n_ctx=100)
    assert part(plan, "embeddings") == (1, 256_000, 210_000)
    assert part(plan, "output") == (1, 256_000, 512_000)
    assert part(plan, "attention") == (4, 704 * 256, 704 * 144)
    assert part(plan, "ffn") == (1, 512 * 256, 512 * 272)
    assert part(plan, "norms") == (2, 512, 2048)
    assert plan.nbytes == 210_000 + 512_000 + 704 * 144 + 512 * 272 + 2048
    assert plan.active == plan.nbytes - 999 * 210  # a token looks up one row of the embeddings
    assert plan.n_active == plan.n_weights - 999 * 256
    assert plan.cache == {"f16": 100 * 192 * 2, "f32": 100 * 192 * 4, "q8_0": 100 * 192 // 32 * 34}
    assert plan.layers[0].cache_width == 128 + 64
    assert plan.layers[0].nbytes == plan.layers[0].active == 704 * 144 + 512 * 272 + 1024
    assert plan.parts[0].types == {"Q6_K": 210_000}
    # unpacked for f32: four bytes a weight; for q8 a Q4_K block of 256 becomes 256 float64, two float32 scales and
    # 8 float64 minima, a Q8_0 block of 32 becomes 32 float32 and a scale; F16 becomes float32 in both
    assert plan.unpacked["f32"] == 4 * (704 * 256 + 512 * 256 + 256_000)
    assert plan.unpacked["q8"] == 704 * (2048 + 8 + 64) + 512 * 8 * (128 + 4) + 4 * 256_000


def test_the_unpacked_size_is_what_the_engine_holds(smollm2: Path) -> None:
    with open_gguf(smollm2) as file:
        plan = make_plan(file.metadata, file.tensors)
    for activations in ("f32", "q8"):
        model = load(smollm2, backend="numpy", activations=activations, unpack_budget=1 << 33)
        model.logits([1])
        assert model.weights["token_embd.weight"].cache.held == plan.unpacked[activations]


def test_tied_embeddings_are_read_in_full() -> None:
    table = {name: row for name, row in DENSE.items() if name != "output.weight"}
    plan = make_plan(metadata(), infos(table))
    assert plan.active == plan.nbytes
    assert plan.n_ctx == 4096
    assert plan.unpacked["f32"] == 4 * (704 * 256 + 512 * 256 + 256_000)


def test_384_experts() -> None:
    """A layer as Kimi K2's: 384 experts of 3 x 2048 x 7168, 8 chosen, one shared, latent attention."""
    d, f = 7168, 2048
    table: Table = {
        "token_embd.weight": ((163_840, d), Q4_K),
        "output.weight": ((163_840, d), Q6_K),
        "blk.0.attn_kv_a_mqa.weight": ((576, d), Q8_0),
        "blk.0.ffn_gate_inp.weight": ((384, d), F32),
        "blk.0.exp_probs_b.bias": ((384,), F32),
        "blk.0.ffn_gate_exps.weight": ((384, f, d), Q4_K),
        "blk.0.ffn_up_exps.weight": ((384, f, d), Q4_K),
        "blk.0.ffn_down_exps.weight": ((384, d, f), Q6_K),
        "blk.0.ffn_gate_shexp.weight": ((f, d), Q4_K),
    }
    keys = {"expert_used_count": 8, "attention__key_length_mla": 192, "embedding_length": d}
    plan = make_plan(metadata("deepseek2", **keys), infos(table), n_ctx=1000)
    gate = f * (d // 256) * 144  # 28 blocks a row
    down = d * (f // 256) * 210
    assert (gate, down) == (8_257_536, 12_042_240)
    layer = plan.layers[0]
    assert (layer.n_expert, layer.n_used) == (384, 8)
    assert layer.expert == 2 * gate + down == 28_557_312
    assert layer.parts["experts"] == 384 * 28_557_312
    router, attention = 384 * d * 4 + 384 * 4, 576 * (d // 32) * 34
    assert layer.parts["router"] == router
    assert layer.active == 8 * 28_557_312 + router + attention + gate
    assert layer.nbytes - layer.active == 376 * 28_557_312
    assert plan.active == plan.nbytes - 376 * 28_557_312 - 163_839 * 28 * 144
    assert plan.n_weights - plan.n_active == 376 * 3 * f * d + 163_839 * d
    assert plan.cache["f16"] == 1000 * 576 * 2  # one latent vector a token
    assert plan.obstacle is not None and "deepseek2" in plan.obstacle


def test_a_file_with_384_experts(tmp_path: Path) -> None:
    """The same from a real file: 384 experts of 8 x 32 in Q4_0, 18 bytes a row."""
    shape, rows = (384, 8, 32), 384 * 8
    tensors = [
        ("token_embd.weight", (10, 32), F32, np.zeros((10, 32), np.float32)),
        *((f"blk.{i}.ffn_up_exps.weight", shape, Q4_0, np.zeros(rows * 18, np.uint8)) for i in range(2)),
        ("blk.1.ffn_gate_inp.weight", (384, 32), F32, np.zeros((384, 32), np.float32)),
    ]
    path = tmp_path / "experts.gguf"
    keys = metadata("qwen3moe", block_count=2, embedding_length=32, expert_used_count=6)
    write_gguf(path, keys, tensors)
    with open_gguf(path) as file:
        plan = make_plan(file.metadata, file.tensors)
    assert plan.nbytes == 10 * 128 + 2 * rows * 18 + 384 * 128
    assert [layer.expert for layer in plan.layers] == [8 * 18, 8 * 18]
    assert [layer.active for layer in plan.layers] == [6 * 8 * 18, 6 * 8 * 18 + 384 * 128]


def test_experts_in_tensors_of_their_own() -> None:
    """Old Mixtral files: ffn_up.0 to ffn_up.3, here 10 rows of 32 F32 each, two chosen."""
    table: Table = {f"blk.0.ffn_up.{i}.weight": ((10, 32), F32) for i in range(4)}
    plan = make_plan(metadata(expert_used_count=2), infos(table))
    layer = plan.layers[0]
    assert (layer.n_expert, layer.n_used, layer.expert) == (4, 2, 1280)
    assert (layer.nbytes, layer.active) == (5120, 2560)


def test_more_experts_used_than_there_are() -> None:
    table: Table = {"blk.0.ffn_up_exps.weight": ((4, 10, 32), F32)}
    with pytest.raises(ModelError, match="expert_used_count is 5, layer 0 has 4 experts"):
        make_plan(metadata(expert_used_count=5), infos(table))
    with pytest.raises(ModelError, match="expert_used_count is missing"):
        make_plan(metadata(), infos(table))


def test_layers_that_predict_further_ahead_are_idle() -> None:
    table: Table = {**DENSE, "blk.1.ffn_up.weight": ((512, 256), F32), "blk.1.nextn.eh_proj.weight": ((256, 512), F32)}
    plan = make_plan(metadata(block_count=2), infos(table))
    assert plan.layers[1].active == 0
    assert plan.active == plan.nbytes - 2 * 512 * 256 * 4 - 999 * 210


def test_fused_projections_and_recurrent_layers() -> None:
    """Layer 0 has fused q, k, v: two key heads of 64 keys and 32 values. Layer 1 keeps a state instead: a convolution
    of 3 x (512 + 2 x 1 x 16) and 16 x 512 numbers."""
    table: Table = {
        "blk.0.attn_qkv.weight": ((512, 256), F32),
        "blk.1.ssm_in.weight": ((1024, 256), F32),
        "blk.1.attn_qkv.weight": ((512, 256), F32),
    }
    keys = {
        "block_count": 2,
        "attention__head_count_kv": [2, 0],
        "attention__key_length": 64,
        "attention__value_length": 32,
        "ssm__conv_kernel": 4,
        "ssm__inner_size": 512,
        "ssm__state_size": 16,
        "ssm__group_count": 1,
    }
    plan = make_plan(metadata("hybrid", **keys), infos(table), n_ctx=10)
    assert [layer.cache_width for layer in plan.layers] == [2 * (64 + 32), 0]
    assert plan.cache["f16"] == 10 * 192 * 2
    assert plan.state == 4 * (3 * (512 + 32) + 16 * 512)


def test_keys_that_are_also_values() -> None:
    plan = make_plan(metadata(), infos({"blk.0.attn_k.weight": ((128, 256), F32)}))
    assert plan.layers[0].cache_width == 256


def test_what_cannot_be_run_is_said() -> None:
    assert "'mamba9' is not supported" in (make_plan(metadata("mamba9"), infos({})).obstacle or "")
    keys = {"feed_forward_length": 512, "attention__layer_norm_rms_epsilon": 1e-5}
    table: Table = {"output.weight": ((3, 256), GGMLType.I32), "token_embd.weight": ((3, 256), GGMLType.F64)}
    assert make_plan(metadata(**keys), infos(table)).obstacle == "weights of type F64, I32 are not supported yet"
    with pytest.raises(ModelError, match=r"general\.architecture is missing"):
        make_plan({}, infos({}))
    with pytest.raises(ModelError, match="context_length"):
        make_plan({"general.architecture": "llama"}, infos({}))


def test_a_real_model(smollm2: Path) -> None:
    """SmolLM2-135M: 30 layers, 3 key heads of 64, 8192 tokens; the bytes of all tensors end the file."""
    with open_gguf(smollm2) as file:
        plan = make_plan(file.metadata, file.tensors)
        assert plan.nbytes == sum(
            row_bytes(t.type, t.shape[-1]) * math.prod(t.shape[:-1]) for t in file.tensors.values()
        )
        assert 0 <= smollm2.stat().st_size - plan.nbytes < 2_000_000  # the header
    assert plan.n_weights == 134_515_008  # as its card counts them
    assert plan.cache["f16"] == 30 * 2 * 3 * 64 * 8192 * 2
    assert plan.obstacle is None
    assert plan.active == plan.nbytes


@pytest.mark.parametrize("n_ctx", [256, 1024])
def test_scratch_is_about_what_a_pass_takes(tmp_path: Path, n_ctx: int) -> None:
    """Measured: the peak of a pass at the end of a full context, within a quarter below and a half above."""
    path = tmp_path / "wide.gguf"
    random = np.random.default_rng(1)
    d, f, heads = 64, 128, 8
    table = {
        "token_embd.weight": (100, d), "output_norm.weight": (d,), "blk.0.attn_norm.weight": (d,),
        "blk.0.attn_q.weight": (d, d), "blk.0.attn_k.weight": (d, d), "blk.0.attn_v.weight": (d, d),
        "blk.0.attn_output.weight": (d, d), "blk.0.ffn_norm.weight": (d,), "blk.0.ffn_gate.weight": (f, d),
        "blk.0.ffn_up.weight": (f, d), "blk.0.ffn_down.weight": (d, f),
    }  # fmt: skip
    keys = {
        **metadata(
            embedding_length=d, feed_forward_length=f, attention__head_count=heads, context_length=n_ctx, vocab_size=100
        ),
        "llama.attention.layer_norm_rms_epsilon": np.float32(1e-5),
    }
    rows = [(name, shape, F32, random.standard_normal(shape).astype(np.float32)) for name, shape in table.items()]
    write_gguf(path, keys, rows)
    model = load(path, backend="numpy", activations="f32")
    planned = make_plan(model.metadata, model.file.tensors).scratch
    cache = model.new_cache()
    if n_ctx > 512:
        model.last_logits([1] * (n_ctx - 512), cache)
    tracemalloc.start()
    before = cache.nbytes
    model.last_logits([1] * min(512, n_ctx), cache)
    peak = tracemalloc.get_traced_memory()[1] - (cache.nbytes - before)
    tracemalloc.stop()
    assert 0.75 * peak < planned < 1.5 * peak


def test_every_block_type_has_a_size() -> None:
    """A plan can be made for a tensor of any type that a file may hold."""
    for type, (weights, nbytes) in BLOCK.items():
        plan = make_plan(metadata(), infos({"output.weight": ((3, weights), type)}))
        assert plan.nbytes == 3 * nbytes
