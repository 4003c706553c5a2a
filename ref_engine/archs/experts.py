"""Reading the metadata of a mixture of experts, which most families name alike.

Sources: llama_model_base::load_hparams (counts and groups, for every family) and the load_arch_hparams of each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from ref_engine.archs.keys import Keys
from ref_engine.errors import ModelError
from ref_engine.spec import FfnSpec, LayerSpec, MoeSpec, NormSpec, RoutingSpec
from ref_engine.spec.moe import Gate
from ref_engine.spec.parts import Part

GATES: tuple[Gate, ...] = ("softmax", "sigmoid", "softmax_weight", "sqrt_softplus")  # expert_gating_func 1, 2, 3, 4
SELECTION_BIAS = "exp_probs_b.bias"


def has_experts(keys: Keys) -> bool:
    return keys.integer("expert_count", 0, least=0) > 0


def moe(
    keys: Keys,
    i: int,
    *,
    width: int | None = None,
    activation: str = "silu",
    routing: RoutingSpec | None = None,
    merged: bool = False,
    **features: Any,
) -> MoeSpec:
    """The mixture of experts of layer i.

    width: of an expert, else expert_feed_forward_length. routing: as `routing` reads it. merged: gate and up may come
    as one tensor. features: of MoeSpec.
    """
    # layers without experts may have 0 for both
    n_expert, n_used = keys.integer("expert_count"), keys.per_layer("expert_used_count", least=0)[i]
    if not 0 < n_used <= n_expert:
        raise _error(keys, "expert_used_count", n_used, f"1 to expert_count {n_expert} for layer {i}")
    if width is None:
        width = keys.per_layer("expert_feed_forward_length", least=0)[i]
        if width == 0:
            raise _error(keys, "expert_feed_forward_length", width, f"at least 1 for layer {i}")
    return MoeSpec(
        n_expert,
        n_used,
        width,
        activation,
        routing or read_routing(keys),
        fused=merged and f"blk.{i}.ffn_gate_up_exps.weight" in keys.tensors,
        **features,
    )


def read_routing(
    keys: Keys,
    gate: Gate | Literal["file"] = "softmax",
    *,
    default_gate: Gate | None = None,
    normalise: bool | Literal["file"] = True,
    scale: bool | float = True,
    **features: Any,
) -> RoutingSpec:
    """How tokens are routed. "file": the metadata say so, in expert_gating_func and expert_weights_norm.

    default_gate: where the file may leave expert_gating_func out. scale: a number, or whether the family reads
    expert_weights_scale. features: of RoutingSpec.
    """
    groups, groups_used = read_groups(keys)
    factor = keys.real("expert_weights_scale", 0.0) if scale is True else float(scale)
    return RoutingSpec(
        gate=read_gate(keys, default_gate) if gate == "file" else gate,
        normalise=keys.boolean("expert_weights_norm", False) if normalise == "file" else normalise,
        scale=None if factor in (0.0, 1.0) else factor,
        groups=groups,
        groups_used=groups_used,
        **features,
    )


def read_gate(keys: Keys, default: Gate | None = None) -> Gate:
    """The gate by its number in the file; 0 stands for none, which is what the default is for."""
    key = "expert_gating_func"
    number = keys.integer(key, 0, least=0) if default is not None else keys.integer(key)
    if number > len(GATES):
        raise _error(keys, key, number, f"a number of 1 to {len(GATES)}")
    return GATES[number - 1] if number or default is None else default


def read_groups(keys: Keys) -> tuple[int, int]:
    """Groups of experts, and how many of them a token takes its experts from."""
    n_expert, groups = keys.integer("expert_count"), keys.integer("expert_group_count", 0, least=0)
    if groups <= 1:
        return 1, 1
    used = keys.integer("expert_group_used_count", 0, least=0)
    if groups >= n_expert or n_expert % groups:
        raise _error(keys, "expert_group_count", groups, f"a divisor of {n_expert} experts, less than that")
    if not 0 < used < groups:
        raise _error(keys, "expert_group_used_count", used, f"a number of 1 to {groups - 1}")
    return groups, used


def shared_ffn(width: int, activation: str = "silu", **features: Any) -> FfnSpec:
    """The expert that every token takes."""
    return FfnSpec(width, activation, up="ffn_up_shexp", gate="ffn_gate_shexp", down="ffn_down_shexp", **features)


def dense_ffn(keys: Keys, i: int, activation: str = "silu", **features: Any) -> FfnSpec:
    """The feed-forward network of a layer without experts."""
    return FfnSpec(keys.per_layer("feed_forward_length")[i], activation, **features)


def expert_width(keys: Keys, i: int, divided: bool = True) -> int:
    """The width of an expert where the file may leave it out: that of a dense layer, divided among the used experts."""
    width = keys.per_layer("expert_feed_forward_length", 0, least=0)[i]
    if width:
        return width
    return keys.per_layer("feed_forward_length")[i] // (keys.per_layer("expert_used_count")[0] if divided else 1)


def expert_layers(
    keys: Keys,
    mixer: Callable[[int], Part],
    ffn: Callable[[int], Part],
    norm: Callable[[str], NormSpec] | None = None,
    **features: Any,
) -> list[LayerSpec]:
    """One layer for each of the file's, of the halves that mixer(i) and ffn(i) give. features: of LayerSpec."""
    norm = norm or keys.rms
    features = {"mixer_norm": norm("attn_norm"), "ffn_norm": norm("ffn_norm")} | features
    return [LayerSpec(mixer(i), ffn(i), **features) for i in range(keys.n_layer)]


def dense_or_moe(
    keys: Keys, dense: Mapping[str, Any], *, shared: bool = False, **features: Any
) -> Callable[[int], Part]:
    """Feed-forward networks of families that have experts in all layers or in none, as wide as a dense network.

    dense: features of FfnSpec. shared: the file may ask for a shared expert. features: of MoeSpec.
    """
    width = keys.integer("expert_shared_feed_forward_length", 0, least=0) if shared else 0
    beside = shared_ffn(width) if width else None

    def ffn(i: int) -> Part:
        if not has_experts(keys):
            return dense_ffn(keys, i, **dense)
        gated = f"blk.{i}.ffn_gate_exps.weight" in keys.tensors
        routing = read_routing(keys, normalise=True, scale=False)
        return moe(keys, i, width=dense_ffn(keys, i).width, routing=routing, gated=gated, shared=beside, **features)

    return ffn


def leading_dense(keys: Keys, required: bool = False) -> int:
    """How many layers at the start have a dense feed-forward network."""
    key = "leading_dense_block_count"
    return keys.integer(key, least=0) if required else keys.integer(key, 0, least=0)


def _error(keys: Keys, key: str, value: object, wanted: str) -> ModelError:
    return ModelError(f"metadata key {keys.arch}.{key} is {value!r}, expected {wanted}")
