"""Other numbers for the metadata of a small model, drawn so that what belongs together changes together.

Used by architectures.py. Metadata are lists of [key, types, value] as in a spec.
"""

from __future__ import annotations

import random
from typing import Any

Entries = list[list[Any]]

# Keys that change on their own, with the values to draw from.
_FREE: dict[str, list[Any]] = {
    "feed_forward_length": [64, 160, 224],
    "expert_feed_forward_length": [64, 96, 160],
    "expert_shared_feed_forward_length": [32, 96, 160],
    "expert_shared_count": [1, 2],
    "leading_dense_block_count": [0, 1, 2],
    "expert_gating_func": [1, 2, 3],
    "attention.sliding_window": [4, 12, 48],
    "rope.freq_base": [1e4, 5e5, 1e6],
    "rope.freq_base_swa": [1e4, 2e4],
    "logit_scale": [0.25, 2.0],
    "residual_scale": [0.5, 0.22],
    "embedding_scale": [2.0, 12.0],
    "attention.scale": [0.1, 0.25],
    "attention.max_alibi_bias": [4.0, 16.0],
    "attention.clamp_kqv": [0.3, 3.0],
    "attention.output_scale": [0.3],
    "attention.temperature_scale": [0.3],
    "attention.indexer.top_k": [8, 24],
    "final_logit_softcapping": [5.0, 12.0],
    "attn_logit_softcapping": [3.0, 20.0],
    "router_logit_softcapping": [2.0],
    "swiglu_clamp_exp": [0.5, 2.0],
    "swiglu_clamp_shexp": [0.7],
    "activation.situ_beta": [0.7, 2.0],
    "activation.situ_linear_beta": [0.8, 3.0],
    "kda.gate_lower_bound": [-3.0],
    "ssm.conv_kernel": [3, 4],
    "interleave_moe_layer_step": [1, 2],
    "use_parallel_residual": [True, False],
    "hyper_connection.sinkhorn_iterations": [3, 5],
}
_NOT_PER_LAYER = ("sections", "multipliers", "ple.layers")


class Draft:
    """Metadata of one architecture while they change; `changes` says what did."""

    def __init__(self, kv: Entries, rng: random.Random) -> None:
        self.entries = {key: [types, value] for key, types, value in kv}
        self.prefix = f"{kv[0][2]}."
        self.rng = rng
        self.changes: list[str] = []

    def get(self, key: str) -> Any:
        return self.entries.get(self.prefix + key, [None, None])[1]

    def number(self, key: str) -> int | None:
        value = self.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def put(self, key: str, value: Any, types: list[str] | None = None) -> None:
        """Change a key; only with `types` is one added that was not there."""
        if self.prefix + key in self.entries:
            self.entries[self.prefix + key][1] = value
        elif types is not None:
            self.entries[self.prefix + key] = [types, value]

    def chance(self, share: float) -> bool:
        return self.rng.random() < share

    def draw(self, key: str, values: list[Any]) -> None:
        old, new = self.get(key), self.rng.choice(values)
        self.put(key, [new] * len(old) if isinstance(old, list) else new)
        self.changes.append(f"{key} {new}")


def draw_metadata(kv: Entries, rng: random.Random) -> tuple[Entries, list[str]]:
    """New metadata and a list of what changed."""
    d = Draft([[key, types, value] for key, types, value in kv], rng)
    if d.chance(0.4):
        more_layers(d)
    if d.chance(0.8):
        latent_heads(d) if d.get("attention.kv_lora_rank") else plain_heads(d)
    if d.get("expert_count"):
        experts(d)
    for key, values in _FREE.items():
        if d.get(key) is not None and d.chance(0.5):
            d.draw(key, values)
    if d.get("rope.dimension_count") and d.chance(0.25):
        scaled_rope(d)
    return [[key, types, value] for key, (types, value) in d.entries.items()], d.changes


def more_layers(d: Draft) -> None:
    old = d.get("block_count")
    new = old + d.rng.choice([1, 2])
    for key, (_, value) in d.entries.items():
        per_layer = key.startswith(d.prefix) and isinstance(value, list) and len(value) == old
        if per_layer and not key.endswith(_NOT_PER_LAYER):
            d.entries[key][1] = value + (value * new)[: new - old]
    d.put("block_count", new)
    d.changes.append(f"{new} layers")


def plain_heads(d: Draft) -> None:
    """Other numbers and widths of heads, and a model width that fits them."""
    heads, kv, width = (
        d.number("attention.head_count"),
        d.number("attention.head_count_kv"),
        d.get("attention.key_length"),
    )
    if not heads or not kv or not width:
        return
    new, new_width = d.rng.choice([2, 4, 8]), d.rng.choice([16, 32])
    d.put("embedding_length", new * new_width)
    d.put("attention.head_count", new)
    shared = [k for k in (1, 2, 4, 8) if new % k == 0]
    d.put("attention.head_count_kv", 1 if kv == 1 else d.rng.choice(shared))
    for key in ("key_length", "value_length", "key_length_swa", "value_length_swa"):
        d.put(f"attention.{key}", new_width)
    for key in ("rope.dimension_count", "rope.dimension_count_swa"):
        if d.get(key) is not None:
            d.put(key, max(2, d.get(key) * new_width // width // 2 * 2))
    if isinstance(d.get("rope.dimension_sections"), list):
        q = new_width // 2
        d.put("rope.dimension_sections", d.rng.choice([[q // 4] * 4, [q // 2, q // 4, q // 4, 0]]))
    d.changes.append(f"{new} heads of {new_width}, {d.get('attention.head_count_kv')} for keys")


def latent_heads(d: Draft) -> None:
    """Other numbers of heads and ranks of multi-head latent attention."""
    if d.number("attention.head_count") is None:
        return
    new, rank, turned = d.rng.choice([2, 3, 4]), d.rng.choice([64, 128]), d.get("rope.dimension_count") or 0
    one = d.get("attention.head_count_kv") == 1
    d.put("attention.head_count", new)
    d.put("attention.head_count_kv", 1 if one else new)
    d.put("attention.q_lora_rank", d.rng.choice([32, 96]))
    d.put("attention.kv_lora_rank", rank)
    d.put("attention.key_length", rank + turned)
    d.put("attention.value_length", rank)
    d.changes.append(f"{new} heads, latent width {rank}")


def experts(d: Draft) -> None:
    n, used = d.rng.choice([4, 8, 12, 16]), d.rng.choice([1, 2, 3, 4])
    old = d.get("expert_used_count")
    d.put("expert_count", n)
    d.put("expert_used_count", [used] * len(old) if isinstance(old, list) else used)
    d.changes.append(f"{used} of {n} experts")
    if n >= 8 and used <= n // 2 and d.chance(0.35):
        d.put("expert_group_count", 4, ["UINT32"])
        d.put("expert_group_used_count", d.rng.choice([2, 3]), ["UINT32"])
        d.changes.append(f"{d.get('expert_group_used_count')} of 4 groups")
    for key, values, types in (
        ("expert_weights_norm", [True, False], ["BOOL"]),
        ("expert_weights_scale", [0.5, 2.827], ["FLOAT32"]),
    ):
        if d.chance(0.4):
            value = d.rng.choice(values)
            d.put(key, value, types)
            d.changes.append(f"{key} {value}")


def scaled_rope(d: Draft) -> None:
    kind = d.rng.choice(["linear", "yarn"])
    for key, types, value in (
        ("type", ["STRING"], kind),
        ("factor", ["FLOAT32"], 4.0),
        ("original_context_length", ["UINT32"], 16),
    ):
        d.put(f"rope.scaling.{key}", value, types)
    d.changes.append(f"RoPE {kind}")


def fewer_tensors(tensors: list[Any], rng: random.Random) -> list[Any]:
    """Without the biases of attention, or without an output matrix of its own; sometimes all of them."""
    what = rng.choice(["all", "no biases", "tied"])
    if what == "no biases":
        return [t for t in tensors if not (t[0].endswith(".bias") and ".attn_" in t[0] and "norm" not in t[0])]
    return [t for t in tensors if what == "all" or t[0] != "output.weight"]
