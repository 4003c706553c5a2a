"""PLaMo 2: a Mamba with one step and one decay for each head, or attention with norms of each head's own.

llama.cpp: src/models/plamo2.cpp. Norms after both halves; many norms' weights are named without `.weight`.
"""

from __future__ import annotations

from ref_engine.archs.keys import Heads, Keys
from ref_engine.archs.recurrent import attention, divides, mamba
from ref_engine.spec import FfnSpec, LayerSpec, ModelSpec
from ref_engine.spec.parts import Part


def spec(keys: Keys) -> ModelSpec:
    widths = keys.per_layer("feed_forward_length")
    return keys.model(
        LayerSpec(
            _mixer(keys, i, heads),
            FfnSpec(width, "silu", fused=True),
            mixer_norm=keys.rms("attn_norm"),
            mixer_post_norm=keys.rms("post_attention_norm", suffix=""),
            ffn_norm=keys.rms("ffn_norm"),
            ffn_post_norm=keys.rms("post_ffw_norm", suffix=""),
            stream_name="attn_residual",
            ffn_norm_name="ffn_pre_norm",
        )
        for i, (heads, width) in enumerate(zip(keys.heads(recurrent=True), widths, strict=True))
    )


def _mixer(keys: Keys, layer: int, heads: Heads) -> Part:
    if heads.n_head_kv == 0:
        n_head = keys.integer("ssm.time_step_rank")
        divides(keys, "ssm.time_step_rank", n_head, keys.integer("ssm.inner_size"))
        norms = {f"{part}_norm": keys.rms(f"ssm_{part}_norm", suffix="") for part in ("dt", "b", "c")}
        return mamba(keys, rank=max(64, keys.d_model // 16), n_head=n_head, conv_bias="no", **norms)
    return attention(
        keys,
        layer,
        heads,
        keys.rope(heads.head_dim, "halves", factors="none"),
        q_norm=keys.rms("attn_q_norm"),
        k_norm=keys.rms("attn_k_norm"),
        norm_over="heads",
        bias="no",
    )
