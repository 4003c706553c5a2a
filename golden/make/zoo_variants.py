"""Specs of small llama and gemma3 models, each with one feature that the two zoo models leave out.

`VARIANTS[name]` is (what it shows, the spec). zoo.py writes the specs down and records llama.cpp's logits for them.
"""

from __future__ import annotations

from typing import Any

Spec = dict[str, Any]
_TYPE = {bool: "BOOL", int: "UINT32", float: "FLOAT32", str: "STRING"}
VOCAB = 128


def _entry(key: str, value: Any) -> list[Any]:
    if isinstance(value, list):
        return [key, ["ARRAY", _TYPE[type(value[0])]], value]
    return [key, [_TYPE[type(value)]], value]


def _metadata(arch: str, shape: dict[str, int], keys: dict[str, Any]) -> list[list[Any]]:
    own = {
        "context_length": 256,
        "embedding_length": shape["D"],
        "block_count": shape["L"],
        "feed_forward_length": shape["F"],
        "attention.head_count": shape["H"],
        "attention.head_count_kv": shape["K"],
        "attention.layer_norm_rms_epsilon": 1e-5,
        "attention.key_length": shape["Hd"],
        "attention.value_length": shape["Hd"],
        "rope.dimension_count": shape["Hd"],
        **keys,
    }
    return [
        _entry("general.architecture", arch),
        *(_entry(f"{arch}.{key}", value) for key, value in own.items() if value is not None),
        _entry("tokenizer.ggml.model", "test"),
        _entry("tokenizer.ggml.tokens", [f"tok_{i}" for i in range(VOCAB)]),
        ["tokenizer.ggml.token_type", ["ARRAY", "INT32"], [1] * VOCAB],
    ]


def _layer(arch: str, il: int, s: dict[str, int], bias: bool) -> list[list[Any]]:
    q, kv = s["H"] * s["Hd"], s["K"] * s["Hd"]
    shapes = {
        "attn_norm": [s["D"]],
        "attn_q": [s["D"], q],
        "attn_k": [s["D"], kv],
        "attn_v": [s["D"], kv],
        "attn_output": [q, s["D"]],
        "ffn_norm": [s["D"]],
        "ffn_gate": [s["D"], s["F"]],
        "ffn_up": [s["D"], s["F"]],
        "ffn_down": [s["F"], s["D"]],
    }
    if arch == "gemma3":
        shapes |= {"attn_q_norm": [s["Hd"]], "attn_k_norm": [s["Hd"]]}
        shapes |= {"post_attention_norm": [s["D"]], "post_ffw_norm": [s["D"]]}
    tensors = [[f"blk.{il}.{name}.weight", ne, "F32"] for name, ne in shapes.items()]
    if bias:
        tensors += [[f"blk.{il}.{n}.bias", ne[1:], "F32"] for n, ne in shapes.items() if len(ne) == 2]
    return tensors


def make_spec(
    arch: str,
    *,
    shape: dict[str, int] | None = None,
    tied: bool = False,
    bias: bool = False,
    extra: tuple[str, ...] = (),
    **keys: Any,
) -> Spec:
    """shape overrides D H K Hd F L; extra names rotary factor tensors; keys are metadata with "__" for "."."""
    s = {"D": 96, "H": 4, "K": 2, "Hd": 32, "F": 160, "L": 2, **(shape or {})}
    tensors = [["token_embd.weight", [s["D"], VOCAB], "F32"], ["output_norm.weight", [s["D"]], "F32"]]
    if not tied:
        tensors.append(["output.weight", [s["D"], VOCAB], "F32"])
    tensors += [[name, [s["Hd"] // 2], "F32"] for name in extra]
    for il in range(s["L"]):
        tensors += _layer(arch, il, s, bias)
    metadata = _metadata(arch, s, {key.replace("__", "."): value for key, value in keys.items()})
    return {"seed": 1, "token_seed": 7, "kv": metadata, "tensors": tensors}


_YARN = {
    "rope__scaling__type": "yarn",
    "rope__scaling__factor": 4.0,
    "rope__scaling__original_context_length": 64,
}
_LONG = ("rope_factors_long.weight", "rope_factors_short.weight")
_LONGROPE = {
    "rope__scaling__type": "longrope",
    "rope__scaling__original_context_length": 512,
    "rope__scaling__attn_factor": 1.19,
    "extra": _LONG,
}
_WINDOW = {"attention__sliding_window": 8}

VARIANTS: dict[str, tuple[str, Spec]] = {
    "llama-gqa": ("4 query heads on 2 key/value heads, head width 32 of 128/96", make_spec("llama")),
    "llama-mqa": ("one key/value head", make_spec("llama", shape={"K": 1})),
    "llama-default-keys": (
        "head width, rotary width, key/value heads and rotary base left to their defaults",
        make_spec(
            "llama",
            shape={"D": 128, "K": 4},
            attention__key_length=None,
            attention__value_length=None,
            rope__dimension_count=None,
            attention__head_count_kv=None,
        ),
    ),
    "llama-tied": ("no output.weight: the embedding serves", make_spec("llama", tied=True)),
    "llama-bias": ("biases on every projection", make_spec("llama", bias=True)),
    "llama-attn-scale": (
        "attention.scale is present and this architecture does not read it",
        make_spec("llama", attention__scale=0.5),
    ),
    "llama-softcap": (
        "soft-cap keys are present and this architecture does not read them",
        make_spec("llama", final_logit_softcapping=2.0, attn_logit_softcapping=2.0),
    ),
    "llama-base-eps": (
        "rotary base 500000, epsilon 0.01",
        make_spec("llama", rope__freq_base=500000.0, attention__layer_norm_rms_epsilon=0.01),
    ),
    "llama-rope-linear": (
        "linear scaling, factor 4",
        make_spec("llama", rope__scaling__type="linear", rope__scaling__factor=4.0),
    ),
    "llama-rope-linear-old": (
        "the old key rope.scale_linear, no scaling type",
        make_spec("llama", rope__scale_linear=4.0),
    ),
    "llama-rope-none": (
        "scaling type none: the factor is not used",
        make_spec("llama", rope__scaling__type="none", rope__scaling__factor=4.0),
    ),
    "llama-rope-yarn": ("YaRN, factor 4 over an original context of 64", make_spec("llama", **_YARN)),
    "llama-rope-yarn-attn": (
        "YaRN with an attention factor of its own",
        make_spec("llama", **_YARN, rope__scaling__attn_factor=1.3),
    ),
    "llama-rope-yarn-betas": (
        "YaRN with beta and ext_factor keys that this architecture does not read",
        make_spec(
            "llama",
            **_YARN,
            rope__scaling__yarn_ext_factor=0.5,
            rope__scaling__yarn_beta_fast=8.0,
            rope__scaling__yarn_beta_slow=2.0,
        ),
    ),
    "llama-rope-freqs": (
        "Llama-3 factors in rope_freqs.weight",
        make_spec("llama", extra=("rope_freqs.weight",)),
    ),
    "llama-rope-freqs-linear": (
        "rope_freqs.weight and linear scaling together",
        make_spec("llama", extra=("rope_freqs.weight",), rope__scaling__type="linear", rope__scaling__factor=2.0),
    ),
    "llama-longrope-short": (
        "longrope, context 256 within the original 512: short factors",
        make_spec("llama", **_LONGROPE),
    ),
    "llama-longrope-long": (
        "longrope, context 1024 beyond the original 512: long factors",
        make_spec("llama", **_LONGROPE, context_length=1024),
    ),
    "gemma3-default-pattern": (
        "window 8, no pattern key: five windowed layers, then a full one; tied; two bases",
        make_spec("gemma3", shape={"D": 64, "L": 7}, tied=True, **_WINDOW, rope__freq_base=1000000.0),
    ),
    "gemma3-pattern-scalar": (
        "sliding_window_pattern = 2",
        make_spec(
            "gemma3",
            shape={"L": 4},
            **_WINDOW,
            attention__sliding_window_pattern=2,
            rope__freq_base=1000000.0,
            rope__freq_base_swa=5000.0,
        ),
    ),
    "gemma3-pattern-array": (
        "sliding_window_pattern as one flag per layer",
        make_spec(
            "gemma3",
            shape={"L": 4},
            **_WINDOW,
            attention__sliding_window_pattern=[True, True, False, True],
            rope__freq_base=1000000.0,
            rope__freq_base_swa=10000.0,
        ),
    ),
    "gemma3-no-window": ("no sliding_window key", make_spec("gemma3", rope__freq_base=1000000.0)),
    "gemma3-softcap": (
        "final_logit_softcapping = 2",
        make_spec("gemma3", **_WINDOW, final_logit_softcapping=2.0),
    ),
    "gemma3-linear": (
        "linear scaling, factor 8, on the full layers only",
        make_spec(
            "gemma3",
            shape={"L": 3},
            **_WINDOW,
            attention__sliding_window_pattern=2,
            rope__freq_base=1000000.0,
            rope__scaling__type="linear",
            rope__scaling__factor=8.0,
        ),
    ),
    "gemma3-yarn": (
        "YaRN, factor 4, beside windowed layers",
        make_spec(
            "gemma3",
            shape={"L": 3},
            **_WINDOW,
            attention__sliding_window_pattern=2,
            rope__freq_base=1000000.0,
            **_YARN,
        ),
    ),
    "gemma3-62-layers": (
        "62 layers, which llama.cpp takes for the 27B model: queries scaled by D/H",
        make_spec(
            "gemma3",
            shape={"D": 32, "H": 2, "K": 1, "F": 48, "L": 62},
            tied=True,
            **_WINDOW,
            rope__freq_base=1000000.0,
        ),
    ),
}
