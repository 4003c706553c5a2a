"""A model as features: what there is, how wide, and which variants, without the names of families.

`archs/` turns a file's metadata into a ModelSpec; the wiring in `block.py` and `model.py` reads nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Pairing = Literal["adjacent", "halves"]


@dataclass(frozen=True)
class RopeSpec:
    """Rotary position embedding. Angles: position * base**(-2i / n_rot), then scaled (see reference/rope.py)."""

    n_rot: int  # features of a head that are turned
    base: float
    pairing: Pairing
    freq_scale: float = 1.0  # linear interpolation: 1 / factor
    ext_factor: float = 0.0  # YaRN: 1, else 0
    magnitude: float = 1.0  # factor on cosines and sines
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    n_ctx_orig: int = 0  # context length before scaling
    factors: str | None = None  # name of the tensor with divisors of the frequencies
    long_factors: str | None = None  # the same for sequences with room for more than n_ctx_orig tokens

    def factors_at(self, n_ctx: int) -> str | None:
        """The tensor to divide the frequencies by in a sequence with room for n_ctx tokens."""
        return self.long_factors if n_ctx > self.n_ctx_orig else self.factors


@dataclass(frozen=True)
class AttentionSpec:
    """H query heads of width head_dim over K key/value heads. Biases are used where the file has them."""

    n_head: int
    n_head_kv: int
    head_dim: int
    scale: float  # of the scores, before the softmax
    rope: RopeSpec
    scale_queries: bool = False  # the scale goes onto the queries instead, before the products
    window: int | None = None  # keys that a token sees, itself included; None: all
    soft_cap: float | None = None
    qk_norm: bool = False  # RMS norm of each query and key head
    output_bias: bool = False  # attn_output.bias is allowed


@dataclass(frozen=True)
class FfnSpec:
    """down(activation(gate x) * (up x))"""

    width: int
    activation: str
    bias: bool = False  # biases are allowed


@dataclass(frozen=True)
class LayerSpec:
    attention: AttentionSpec
    ffn: FfnSpec
    post_attention_norm: bool = False  # a norm on what attention adds to the stream
    post_ffn_norm: bool = False  # a norm on what the FFN adds
    stream_name: str = "ffn_inp"  # llama.cpp's name for the stream between attention and FFN


@dataclass(frozen=True)
class ModelSpec:
    arch: str  # general.architecture, for display
    d_model: int
    n_vocab: int
    n_ctx_train: int
    n_ctx: int  # context length to run at
    n_ctx_most: int  # context length for a prompt that does not fit n_ctx
    norm_eps: float
    layers: tuple[LayerSpec, ...]
    tied: bool  # the embedding matrix is also the output matrix
    embedding_scale: float | None = None
    final_soft_cap: float | None = None

    @property
    def n_layer(self) -> int:
        return len(self.layers)

    @property
    def output(self) -> str:
        return "token_embd.weight" if self.tied else "output.weight"


@dataclass(frozen=True)
class TensorRule:
    """What a tensor must look like: shape with the slowest axis first, and whether the file may lack it."""

    shape: tuple[int, ...]
    required: bool = True


def tensor_rules(spec: ModelSpec) -> dict[str, TensorRule]:
    """Every tensor that the features ask for or allow, by GGUF name."""
    d = spec.d_model
    rules = {"token_embd.weight": TensorRule((spec.n_vocab, d)), "output_norm.weight": TensorRule((d,))}
    rules[spec.output] = TensorRule((spec.n_vocab, d))
    for i, layer in enumerate(spec.layers):
        rules |= {f"blk.{i}.{name}": rule for name, rule in layer_rules(layer, d).items()}
        rope = layer.attention.rope
        for factors in (rope.factors, rope.long_factors):
            if factors is not None:
                rules[factors] = TensorRule((rope.n_rot // 2,))
    return rules


def layer_rules(layer: LayerSpec, d: int) -> dict[str, TensorRule]:
    """The tensors of one layer, without the `blk.N.` prefix."""
    a, f = layer.attention, layer.ffn
    q, kv = a.n_head * a.head_dim, a.n_head_kv * a.head_dim
    need = {
        "attn_norm.weight": (d,),
        "attn_q.weight": (q, d),
        "attn_k.weight": (kv, d),
        "attn_v.weight": (kv, d),
        "attn_output.weight": (d, q),
        "ffn_norm.weight": (d,),
        "ffn_gate.weight": (f.width, d),
        "ffn_up.weight": (f.width, d),
        "ffn_down.weight": (d, f.width),
    }
    may = {"attn_q.bias": (q,), "attn_k.bias": (kv,), "attn_v.bias": (kv,)}
    if a.output_bias:
        may["attn_output.bias"] = (d,)
    if a.qk_norm:
        need |= {"attn_q_norm.weight": (a.head_dim,), "attn_k_norm.weight": (a.head_dim,)}
    if f.bias:
        may |= {"ffn_gate.bias": (f.width,), "ffn_up.bias": (f.width,), "ffn_down.bias": (d,)}
    if layer.post_attention_norm:
        need["post_attention_norm.weight"] = (d,)
    if layer.post_ffn_norm:
        need["post_ffw_norm.weight"] = (d,)
    rules = {name: TensorRule(shape) for name, shape in need.items()}
    return rules | {name: TensorRule(shape, required=False) for name, shape in may.items()}
