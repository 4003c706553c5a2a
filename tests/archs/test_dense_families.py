"""What the dense families say of themselves: numbers worked out by hand, or from their papers and configurations."""

import math
from typing import Any

import pytest

import ref_engine
from ref_engine.archs import read_spec
from ref_engine.spec import ModelSpec
from ref_engine.spec.projection import ProjectionSpec

COMMON: dict[str, Any] = {
    "block_count": 4,
    "context_length": 512,
    "embedding_length": 64,
    "feed_forward_length": 96,
    "attention.head_count": 4,
    "attention.head_count_kv": 2,
    "attention.layer_norm_rms_epsilon": 1e-5,
    "attention.layer_norm_epsilon": 1e-6,
    "vocab_size": 32,
    "logit_scale": 0.25,
    "use_parallel_residual": True,
}


def family(arch: str, tensors: tuple[str, ...] = (), **changes: Any) -> ModelSpec:
    """The spec of a family; changes with `__` for a dot, None to leave a key out."""
    keys = COMMON | {name.replace("__", "."): value for name, value in changes.items()}
    metadata = {f"{arch}.{name}": value for name, value in keys.items() if value is not None}
    return read_spec({"general.architecture": arch, **metadata}, tensors)


def turned(spec: ModelSpec) -> list[bool]:
    return [layer.mixer.rope is not None for layer in spec.layers]


def windows(spec: ModelSpec) -> list[int | None]:
    return [layer.mixer.window for layer in spec.layers]


def test_windows_by_period_by_list_and_by_default() -> None:
    assert windows(family("gemma2")) == [4096, None, 4096, None]
    assert windows(family("gemma2", attention__sliding_window=8)) == [8, None, 8, None]
    by_list = {"attention__sliding_window": 8, "attention__sliding_window_pattern": [False, True, True, False]}
    assert windows(family("gemma2", **by_list)) == [None, 8, 8, None]
    by_period = {"attention__sliding_window": 8, "attention__sliding_window_pattern": 3}
    assert windows(family("gemma2", **by_period)) == [8, 8, None, 8]
    assert windows(family("olmo2")) == [None] * 4
    assert windows(family("olmo2", attention__sliding_window=8)) == [8, 8, 8, None]
    assert windows(family("phi3", attention__sliding_window=8)) == [None] * 4


def test_which_layers_turn() -> None:
    """Command A and Muse turn where there is a window, SmolLM3 not in every fourth layer, Granite 4 by list."""
    pattern = {"attention__sliding_window": 8, "attention__sliding_window_pattern": [1, 0, 1, 1]}
    assert turned(family("cohere2", **pattern)) == [True, False, True, True]
    assert turned(family("muse-glimmer", **pattern)) == [True, False, True, True]
    assert turned(family("smollm3")) == [True, True, True, False]
    assert turned(family("granite_swa", **pattern, attention__rope_pattern=[0, 1, 0, 1])) == [False, True, False, True]
    assert turned(family("granite", rope__scaling__finetuned=False)) == [False] * 4
    assert not any(turned(family("baichuan"))) and all(turned(family("baichuan", block_count=32)))
    assert {layer.mixer.alibi for layer in family("baichuan", block_count=40).layers} == {8.0}


def test_exaone_of_64_layers_has_windows() -> None:
    spec = family("exaone4", block_count=64, attention__sliding_window=8)
    assert windows(spec)[:4] == [8, 8, 8, None] and turned(spec)[:4] == [True, True, True, False]
    spec = family("exaone4", attention__sliding_window=8)
    assert windows(spec) == [None] * 4 and turned(spec) == [True] * 4


def test_scales_of_scores() -> None:
    """Heads of 16: 1/4 by custom, 1/16 with muP, the model's width over its heads in the largest Gemma 2."""
    assert {arch: family(arch).layers[0].mixer.scale for arch in ("llama", "jais", "gemma2")} == {
        "llama": 0.25, "jais": 1 / 16, "gemma2": 0.25,
    }  # fmt: skip
    wide = {"attention__key_length": 32, "attention__value_length": 32}
    assert family("gemma2", block_count=46, **wide).layers[0].mixer.scale == 0.25
    assert family("gemma2", **wide).layers[0].mixer.scale == 1 / math.sqrt(32)
    assert family("granite", attention__scale=0.5).layers[0].mixer.scale == 0.5


def test_scales_of_granite_and_minicpm() -> None:
    spec = family("granite", residual_scale=0.5, embedding_scale=12.0)
    assert (spec.embedding_scale, spec.layers[0].residual_scale, spec.logit_scale) == (12.0, 0.5, 4.0)
    spec = family("minicpm", logit_scale=None)
    assert (spec.embedding_scale, spec.layers[0].residual_scale, spec.logit_scale) == (12.0, 0.7, 64 / 256)


def test_soft_caps_that_need_no_key() -> None:
    spec = family("gemma2")
    assert (spec.layers[0].mixer.soft_cap, spec.final_soft_cap) == (50.0, 30.0)
    pattern = {"attention__sliding_window": 8, "attention__sliding_window_pattern": 2}
    assert family("muse-glimmer", **pattern).final_soft_cap == 30.0
    assert family("muse-glimmer", **pattern, final_logit_softcapping=0.0).final_soft_cap is None


YARN = {"rope__scaling__type": "yarn", "rope__scaling__factor": 4.0, "rope__scaling__original_context_length": 64}


def test_yarn_as_ministral_reads_it() -> None:
    """The magnitude of 1 over that of 0.7, and bounds of its own."""
    more = {
        "rope__scaling__yarn_log_multiplier": 0.7,
        "rope__scaling__yarn_beta_fast": 16.0,
        "rope__scaling__yarn_beta_slow": 2.0,
        "rope__scaling__attn_factor": 3.0,
    }
    rope = family("mistral3", **YARN, **more).layers[0].mixer.rope
    assert (rope.beta_fast, rope.beta_slow) == (16.0, 2.0)
    assert rope.magnitude == pytest.approx(3 * (1 + 0.1 * math.log(4)) / (1 + 0.07 * math.log(4)))
    rope = family("llama", **YARN, **more).layers[0].mixer.rope
    assert (rope.beta_fast, rope.beta_slow) == (32.0, 1.0)
    assert rope.magnitude == pytest.approx(3 * (1 + 0.1 * math.log(4)))


def test_scaled_rope_beside_windows() -> None:
    """Gemma 2 stretches both kinds of layers, PLaMo 3 and OLMo 3 only those without a window."""
    pattern = {"attention__sliding_window": 8, "attention__sliding_window_pattern": [1, 0, 0, 0]}
    magnitude = 1 + 0.1 * math.log(4)
    wanted = {"gemma2": (1e6, 0.25, magnitude), "plamo3": (1e4, 1.0, 1.0), "olmo2": (1e6, 1.0, 1.0)}
    for arch, own in wanted.items():
        windowed, full = (layer.mixer.rope for layer in family(arch, **YARN, **pattern, rope__freq_base=1e6).layers[:2])
        assert (full.base, full.freq_scale, full.magnitude) == pytest.approx((1e6, 0.25, magnitude))
        assert (windowed.base, windowed.freq_scale, windowed.magnitude) == pytest.approx(own)


def test_sections() -> None:
    """M-RoPE for files that say so: GLM 4 pairs features differently then."""
    plain, seeing = (family("glm4", rope__dimension_sections=s).layers[0].mixer.rope for s in (None, [2, 3, 3, 0]))
    assert (plain.pairing, plain.sections) == ("adjacent", None)
    assert (seeing.pairing, seeing.sections, seeing.interleaved) == ("halves", (2, 3, 3, 0), False)
    assert family("qwen3vl", rope__dimension_sections=[2, 3, 3, 0]).layers[0].mixer.rope.interleaved
    assert family("glm4", rope__dimension_sections=[0, 3, 3, 0]).layers[0].mixer.rope.sections is None


def test_a_base_stretched_by_alpha() -> None:
    """Hunyuan's files give alpha 1000 for heads of 16 here: 10000 * 1000**(16/14)."""
    rope = family("hunyuan-dense", rope__scaling__alpha=1000.0).layers[0].mixer.rope
    assert rope.base == pytest.approx(10000 * 1000 ** (16 / 14))


def test_a_temperature_starts_at_the_original_length() -> None:
    spec = family("mistral3", **YARN, attention__temperature_scale=0.1)
    t = spec.layers[0].mixer.temperature
    assert (t.scale, t.step, t.offset) == (0.1, 64, 0.0)
    assert family("mistral3").layers[0].mixer.temperature is None


def test_side_by_side() -> None:
    """Falcon 40B and GPT-NeoX have a norm for each half, Phi 2 and Falcon 7B one for both."""
    both = ("blk.0.attn_norm_2.weight",)
    names = {
        "falcon": family("falcon").layers[0],
        "falcon 40B": family("falcon", both).layers[0],
        "phi2": family("phi2").layers[0],
        "gptneox": family("gptneox").layers[0],
    }
    assert all(layer.parallel for layer in names.values())
    norms = {name: (x.mixer_norm.name, x.ffn_norm and x.ffn_norm.name) for name, x in names.items()}
    assert norms == {
        "falcon": ("attn_norm", None),
        "falcon 40B": ("attn_norm_2", "attn_norm"),
        "phi2": ("attn_norm", None),
        "gptneox": ("attn_norm", "ffn_norm"),
    }
    assert not family("gptneox", use_parallel_residual=False).layers[0].parallel
    assert family("stablelm").layers[0].parallel
    assert not family("stablelm", ("blk.0.ffn_norm.weight",)).layers[0].parallel


def test_turns_of_two_stacks() -> None:
    """HRM with stacks of one layer, two slow and two fast turns: F F S F F S over tensors 0 0 1 0 0 1.

    The first starts from the embeddings and a learned vector. After that each adds what the turn before did not give:
    the embeddings as long as no slow turn was through, then the last fast state (after layer 1) or slow one (2).
    """
    spec = family("hrm_text", block_count=6, hrm__layers_per_stack=1, hrm__h_cycles=2, hrm__l_cycles=2)
    assert [layer.blk for layer in spec.layers] == [0, 0, 1, 0, 0, 1]
    assert [layer.recall for layer in spec.layers] == [None, -1, -1, 1, 2, 2]
    assert [layer.shift for layer in spec.layers] == ["hrm.z_l_init"] + [None] * 5
    assert all(layer.kept and layer.exit_norm.weight == "no" for layer in spec.layers)


def test_stacks_of_two_layers() -> None:
    spec = family("hrm_text", block_count=8, hrm__layers_per_stack=2, hrm__h_cycles=2, hrm__l_cycles=1)
    assert [layer.blk for layer in spec.layers] == [0, 1, 2, 3, 0, 1, 2, 3]
    assert [layer.recall for layer in spec.layers] == [None, None, -1, None, 1, None, 3, None]
    assert [layer.exit_norm is not None for layer in spec.layers] == [False, True] * 4


def test_loops_with_a_norm_between() -> None:
    spec = family("nanbeige", num_loops=3, block_count=2)
    assert [layer.blk for layer in spec.layers] == [0, 1] * 3
    assert [layer.exit_norm is not None for layer in spec.layers] == [False, True, False, True, False, False]
    spec = family("nanbeige", num_loops=2, block_count=2, skip_loop_final_norm=True)
    assert not any(layer.exit_norm for layer in spec.layers)


def test_layers_with_parts_cut_away() -> None:
    """DeciLM: a whole layer, one matrix in place of attention, none at all, and a layer that does nothing."""
    spec = family(
        "deci",
        attention__head_count=[4, 4, 0, 4],
        attention__head_count_kv=[2, 0, 0, 2],
        feed_forward_length=[96, 96, 96, 0],
        attention__key_length=16,
    )
    whole, matrix, bare, nothing = spec.layers
    assert (whole.mixer.n_head, whole.mixer.n_head_kv) == (4, 2)
    assert isinstance(matrix.mixer, ProjectionSpec) and matrix.ffn
    assert bare.mixer is None and bare.mixer_norm is None and bare.ffn
    assert nothing.mixer is None and nothing.ffn is None and spec.is_ignored("blk.3.attn_q.weight")


def test_heads_and_widths_of_their_own() -> None:
    spec = family(
        "openelm",
        attention__head_count=[4, 2, 4, 8],
        attention__head_count_kv=[1, 2, 2, 4],
        feed_forward_length=[32, 64, 96, 128],
    )
    assert [(x.mixer.n_head, x.mixer.n_head_kv) for x in spec.layers] == [(4, 1), (2, 2), (4, 2), (8, 4)]
    assert [x.ffn.width for x in spec.layers] == [32, 64, 96, 128]


def test_fused_maps_with_separate_biases() -> None:
    tensors = ("blk.0.attn_qkv.weight", "blk.0.attn_q.bias", "blk.1.attn_qkv.weight", "blk.1.attn_qkv.bias")
    first, second, third, _ = (layer.mixer for layer in family("qwen2", tensors).layers)
    assert (first.fused, first.split_bias) == (True, True)
    assert (second.fused, second.split_bias) == (True, False)
    assert not third.fused


def test_key_heads_that_are_not_used() -> None:
    """CogVLM's matrix has four heads each for queries, keys and values, whatever head_count_kv says."""
    mixer = family("cogvlm").layers[0].mixer
    assert mixer.rules(64)["attn_qkv.weight"].shape == (3 * 64, 64)
    assert mixer.memory().rows == {"k": (2, 16), "v": (2, 16)}


def test_matrices_in_each_others_place() -> None:
    """CodeShell's embedding may be its output matrix; Gemma's output matrix is always its embedding."""
    spec = family("codeshell", ("output.weight",))
    assert (spec.embedding, spec.output) == ("output.weight", "output.weight")
    spec = family("codeshell", ("output.weight", "token_embd.weight"))
    assert (spec.embedding, spec.output) == ("token_embd.weight", "output.weight")
    assert family("gemma", ("output.weight",)).output == "token_embd.weight"
    assert family("xverse").output == "output.weight"


def test_tokens_that_see_all_others() -> None:
    for spec in (family("dream"), family("llada"), family("llama", attention__causal=False)):
        assert not spec.causal and not any(layer.mixer.causal for layer in spec.layers)


@pytest.mark.parametrize(
    ("arch", "changes", "message"),
    [
        ("qwen2vl", {}, r"qwen2vl\.rope\.dimension_sections is missing"),
        (
            "qwen2vl",
            {"rope__dimension_sections": [1, 2]},
            r"sections is \[1, 2\], expected four whole numbers",
        ),
        ("qwen2vl", {"rope__dimension_sections": [0, 0, 0, 8]}, "expected a pair for time, height or width"),
        ("qwen2vl", {"rope__dimension_sections": [1, True, 1, 0]}, "expected four whole numbers"),
        ("qwen3tts", {"rope__dimension_sections": [8, 8, 0, 0]}, "vocabulary of qwen3tts has 32 tokens"),
        ("cohere2", {}, r"cohere2\.attention\.sliding_window is missing"),
        ("spark2_5", {"attention__sliding_window": 8}, r"sliding_window_pattern is missing"),
        (
            "spark2_5",
            {"attention__sliding_window": 8, "attention__sliding_window_pattern": 2},
            "sliding_window_pattern is 2, expected a list",
        ),
        (
            "spark2_5",
            {"attention__sliding_window": 8, "attention__sliding_window_pattern": [1, 0]},
            r"sliding_window_pattern is \[1, 0\], expected 4 whole numbers",
        ),
        ("granite", {"logit_scale": 0.0}, r"granite\.logit_scale is 0\.0"),
        ("granite", {"logit_scale": None}, r"granite\.logit_scale is missing"),
        ("falcon", {"rope__dimension_count": 8}, r"falcon\.rope\.dimension_count is 8, expected 16"),
        ("gptneox", {"use_parallel_residual": None}, r"gptneox\.use_parallel_residual is missing"),
        ("hrm_text", {}, r"hrm_text\.hrm\.layers_per_stack is missing"),
        (
            "hrm_text",
            {"hrm__layers_per_stack": 1, "hrm__h_cycles": 1, "hrm__l_cycles": 1},
            r"hrm_text\.block_count is 4, expected 2",
        ),
        ("nanbeige", {"num_loops": 0}, r"nanbeige\.num_loops is 0"),
        ("nanbeige", {"num_loops": 1 << 20}, r"nanbeige\.num_loops is 1048576, expected at most 512 layers"),
        ("qwen", {"feed_forward_length": 1}, r"qwen\.feed_forward_length is 1"),
        ("llama", {"attention__head_count_kv": 0}, r"llama\.attention\.head_count_kv is 0"),
        ("mistral3", {"rope__scaling__yarn_beta_fast": 0.0}, r"yarn_beta_fast is 0\.0, expected more than 0"),
        ("llama", {"attention__causal": 1}, r"llama\.attention\.causal is 1, expected true or false"),
    ],
)
def test_the_key_at_fault_is_named_for(arch: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ref_engine.ModelError, match=message):
        family(arch, **changes)
