"""A mixture of experts as a feature: how tokens are routed, what the experts compute, what runs beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ref_engine.spec.ffn import ActivationSpec, FfnSpec
from ref_engine.spec.norm import NormSpec, norm_rules
from ref_engine.spec.parts import NOTHING, Memory, Presence, Rules, TensorRule, linear, tensor

Gate = Literal["softmax", "sigmoid", "softmax_weight", "sqrt_softplus"]


@dataclass(frozen=True)
class RoutingSpec:
    """From router logits (E,) to the k experts of a token and their weights; the formulas are in reference/moe.py.

    gate: what makes scores of logits. "softmax_weight" leaves the logits as they are, and takes the softmax of the
    chosen ones.
    select_by: what the experts are chosen by: the scores, the logits themselves, or their sigmoid.
    """

    gate: Gate = "softmax"
    normalise: bool = False  # the weights of a token are divided by their sum
    scale: float | None = None  # then multiplied by this
    bias: str | None = None  # tensor (E,), added to the scores for choosing, not for weighing
    bias_presence: Presence = "may"
    groups: int = 1  # experts lie in so many groups
    groups_used: int = 1  # and come from so many of them, those with the largest sum of their two best scores
    select_by: Literal["gate", "logits", "sigmoid"] = "gate"
    soft_cap: float | None = None  # of the logits
    router: str = "ffn_gate_inp"
    router_bias: Presence = "no"
    reads: Literal["ffn", "layer"] = "ffn"  # the router's input: the experts', or the stream that entered the layer
    table: str | None = None  # tensor (V, k) of whole numbers: the experts of each token id, in place of the choice
    n_vocab: int = 0  # rows of the table

    def rules(self, d_model: int, n_expert: int, n_used: int) -> Rules:
        rules = linear(self.router, n_expert, d_model, self.router_bias)
        if self.bias is not None:
            rules |= tensor(self.bias, (n_expert,), self.bias_presence)
        if self.table is not None:
            rules[self.table] = TensorRule((self.n_vocab, n_used), indices=True)
        return rules


@dataclass(frozen=True)
class LatentSpec:
    """Experts that read and write a narrower vector: up(norm(experts(down x)))."""

    width: int
    down: str = "ffn_routed_down"
    up: str = "ffn_routed_up"
    norm: NormSpec | None = None

    def rules(self, d_model: int) -> Rules:
        rules = linear(self.down, self.width, d_model, "no") | linear(self.up, d_model, self.width, "no")
        return rules | norm_rules(self.norm, self.width)


@dataclass(frozen=True)
class ChunkSpec:
    """Small experts that `of` neighbouring experts share (Wu et al. 2025, GroveMoE): y + scale * chunk_experts(y).

    They read what the experts gave. A token takes those of its best experts; see reference/moe.py `route_to_chunks`.
    """

    of: int
    width: int
    scale: float


@dataclass(frozen=True)
class MoeSpec:
    """sum over the k chosen experts e of weight_e * down_e(activation(gate_e x) * (up_e x)), plus what `shared` gives.

    gated: else activation(up_e x). fused: gate and up are the two halves of ffn_gate_up_exps. weigh_input: the weight
    multiplies x before the expert instead of what it gives.
    """

    n_expert: int
    n_used: int
    width: int
    activation: str
    routing: RoutingSpec
    gated: bool = True
    fused: bool = False
    constants: tuple[float, ...] = ()  # of the activation, see reference/ffn.py
    bias: Presence = "no"  # of each expert's three maps
    scales: Presence = "no"  # one factor for each expert's map, `ffn_up_exps.scale` (E,)
    weigh_input: bool = False
    shared: FfnSpec | ActivationSpec | None = None  # runs for every token beside the experts
    shared_gate: bool = False  # times sigmoid(ffn_gate_inp_shexp . x)
    shared_name: str = "ffn_shexp"  # llama.cpp's name for what it gives
    sum_scale: float | None = None  # factor on experts + shared
    latent: LatentSpec | None = None
    chunk: ChunkSpec | None = None
    reads: Literal["ffn", "layer"] = "ffn"  # what experts and router read: the FFN's input, or the layer's
    norm: NormSpec | None = None  # of what they read
    # llama.cpp's names for the shared expert's gate before and after the sigmoid, and for what it lets through
    shared_gate_names: tuple[str, str, str] = ("shared_expert_gate", "shared_expert_gate_sigmoid", "ffn_shexp_gated")

    def rules(self, d_model: int) -> Rules:
        width = d_model if self.latent is None else self.latent.width
        rules = self.routing.rules(d_model, self.n_expert, self.n_used) | norm_rules(self.norm, d_model)
        rules |= self.stacks("exps", self.n_expert, self.width, width)
        if self.latent is not None:
            rules |= self.latent.rules(d_model)
        if self.chunk is not None:
            rules |= self.stacks("chexps", self.n_expert // self.chunk.of, self.chunk.width, width)
        if self.shared is not None:
            rules |= self.shared.rules(d_model)
        if self.shared_gate:
            rules |= tensor("ffn_gate_inp_shexp.weight", (d_model,))
        return rules

    def stacks(self, suffix: str, n: int, width: int, d: int) -> Rules:
        """The matrices of n experts, one upon another, reading and writing vectors of width d."""
        shapes = {"down": (d, width)}
        if self.fused:
            shapes["gate_up"] = (2 * width, d)
        else:
            shapes |= {"up": (width, d), "gate": (width, d)} if self.gated else {"up": (width, d)}
        rules: Rules = {}
        for name, shape in shapes.items():
            rules |= tensor(f"ffn_{name}_{suffix}.weight", (n, *shape))
            rules |= tensor(f"ffn_{name}_{suffix}.bias", (n, shape[0]), self.bias)
            # the factors of a fused gate and up go by the name of up
            factors = "up" if name == "gate_up" else name
            rules |= tensor(f"ffn_{factors}_{suffix}.scale", (n,), self.scales)
        return rules

    def memory(self) -> Memory:
        return NOTHING
