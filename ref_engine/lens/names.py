"""Whose name for what: modules of transformers models, and other spellings, under llama.cpp's graph names.

A module's output is `model.layers.3.self_attn.o_proj`; `.input` behind it names what it was given. `.output` may stand
behind the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ref_engine.lens.selection import layer_of

_TOP = {
    "embed_tokens": "embd", "wte": "embd", "tok_embeddings": "embd", "embed_in": "embd",
    "embeddings": "embd", "hidden_states.0": "embd", "logits": "result_output",
    "norm": "result_norm", "ln_f": "result_norm", "final_layernorm": "result_norm", "final_layer_norm": "result_norm",
    "lm_head": "result_output", "embed_out": "result_output", "output": "result_output",
}  # fmt: skip
_INNER = {
    "": "l_out",
    "input_layernorm": "attn_norm", "ln_1": "attn_norm", "attention_norm": "attn_norm",
    "self_attn": "attn_out", "attn": "attn_out", "self_attn.o_proj": "attn_out", "attention.wo": "attn_out",
    "attn.c_proj": "attn_out", "self_attn.out_proj": "attn_out",
    "self_attn.o_proj.input": "kqv_out", "attn.c_proj.input": "kqv_out",
    "self_attn.q_norm": "Qcur_normed", "self_attn.k_norm": "Kcur_normed",
    "self_attn.query": "Qcur", "self_attn.key": "Kcur", "self_attn.value": "Vcur",
    "self_attn.weights": "kq_soft_max",
    "post_attention_layernorm.input": "ffn_inp", "pre_feedforward_layernorm.input": "ffn_inp", "ln_2.input": "ffn_inp",
    "post_attention_layernorm": "ffn_norm", "ln_2": "ffn_norm", "ffn_norm": "ffn_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "ffn_post_norm",
    "mlp": "ffn_out", "feed_forward": "ffn_out", "block_sparse_moe": "ffn_moe_out",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "mlp.down_proj.input": "ffn_swiglu", "mlp.fc1": "ffn_up", "mlp.c_fc": "ffn_up",
    "mlp.gate": "ffn_moe_logits", "mlp.router": "ffn_moe_logits", "block_sparse_moe.gate": "ffn_moe_logits",
    "mlp.experts": "ffn_moe_out", "mlp.shared_expert": "ffn_shexp", "mlp.shared_experts": "ffn_shexp",
}  # fmt: skip
_LAYER = re.compile(r"(?:^|.*\.)(?:layers|h|blocks|block)\.(\d{1,6})(?:\.(.*))?$")
_HIDDEN = re.compile(r"(?:.*\.)?hidden_states[._](\d{1,6})$")
_OURS = re.compile(r"([A-Za-z][A-Za-z0-9_]*?)[._](\d{1,6})$")
# The order of a layer's values, for dumps that have none of their own.
_ORDER = (
    "embd", "inp_scaled", "inpL", "inp_norm", "norm", "attn_norm", "Qcur_normed", "Kcur_normed", "Qcur", "Kcur", "Vcur",
    "kq", "kq_soft_max", "kqv", "kqv_out", "attn_out", "attn_post_norm", "sa_out", "ffn_inp", "ffn_norm",
    "ffn_moe_logits", "ffn_moe_logits_biased", "ffn_moe_probs", "ffn_moe_probs_biased", "ffn_moe_argsort",
    "ffn_moe_topk", "ffn_moe_weights", "ffn_moe_weights_softmax", "ffn_moe_weights_sum",
    "ffn_moe_weights_sum_clamped", "ffn_moe_weights_norm", "ffn_moe_weights_scaled", "ffn_gate", "ffn_up",
    "ffn_moe_gate", "ffn_moe_up", "ffn_silu", "ffn_gelu", "ffn_swiglu", "ffn_geglu", "ffn_moe_swiglu", "ffn_down",
    "ffn_moe_down", "ffn_moe_weighted", "ffn_moe_out", "ffn_shexp", "ffn_out", "ffn_post_norm", "l_out",
)  # fmt: skip


def llama_cpp_names(names: Iterable[str]) -> dict[str, str]:
    """The names that are somebody else's, with llama.cpp's for each; nothing for a name that says nothing here.

    hidden_states.i of transformers is what enters layer i; the last of them is already normalised.
    """
    all_names = list(names)
    hidden = [int(m[1]) for name in all_names if (m := _HIDDEN.match(name))]
    last = max(hidden, default=0)
    after = {_prefix(name) for name in all_names if ".post_feedforward_layernorm" in name}
    found: dict[str, str] = {}
    for name in all_names:
        new = _one(name, last, _prefix(name) in after)
        if new is not None and new != name and new not in found.values() and new not in all_names:
            found[name] = new
    return found


def _one(name: str, last: int, norm_after: bool) -> str | None:
    bare = name.removesuffix(".output")
    if match := _HIDDEN.match(bare):
        i = int(match[1])
        return "embd" if i == 0 else "result_norm" if i == last else f"l_out-{i - 1}"
    if match := _LAYER.match(bare):
        inner = match[2] or ""
        if inner.startswith("post_attention_layernorm") and norm_after:
            stem = "attn_post_norm" if inner == "post_attention_layernorm" else None
        else:
            stem = _INNER.get(inner)
        return None if stem is None else f"{stem}-{int(match[1])}"
    tail = bare.split(".")[-1]
    if tail in _TOP and layer_of(name) is None:
        return _TOP[tail]
    if match := _OURS.fullmatch(name):
        return f"{match[1]}-{int(match[2])}" if match[1] in _ORDER else None
    return None


def _prefix(name: str) -> str:
    match = _LAYER.match(name)
    return match[1] if match else ""


def in_graph_order(names: Iterable[str]) -> list[str]:
    """Names as a graph would compute them: by layer, and within it as most architectures go."""
    place = {stem: i for i, stem in enumerate(_ORDER)}

    def key(name: str) -> tuple[float, int, str]:
        layer = layer_of(name)
        stem = name if layer is None else name[: -len(str(layer)) - 1]
        if layer is None:
            early = stem in ("embd", "inp_embd", "inp_scaled", "inpL", "inp_norm")
            return (-1 if early else float("inf"), {"result_norm": 0, "result_output": 2}.get(stem, 1), name)
        return (layer, place.get(stem, len(place)), name)

    return sorted(names, key=key)
