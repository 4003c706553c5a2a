"""The llama and gemma3 definitions in float64 over a zoo spec: whose rounding is it where two float32 engines differ?

zoo.py uses it to say how far llama.cpp is from exact arithmetic. ggml's GELU looks its result up in a table of
half-precision values; with `table_gelu` this definition does the same, and the remaining distance is plain rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import zoo_gguf

Double = npt.NDArray[np.float64]
Activation = Callable[[Double], Double]
_BETA_FAST, _BETA_SLOW = 32.0, 1.0


def silu(x: Double) -> Double:
    return x / (1 + np.exp(-x))


def gelu(x: Double) -> Double:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * x * (1 + 0.044715 * x * x)))


def table_gelu(x: Double) -> Double:
    """GELU as ggml's CPU backend has it: argument and result in half precision, identity and zero beyond ±10."""
    half = x.astype(np.float32).astype(np.float16).astype(np.float64)
    looked_up = gelu(half).astype(np.float16).astype(np.float64)
    return np.where(x <= -10, 0.0, np.where(x >= 10, x, looked_up))


class Float64Model:
    """A spec's weights and metadata, and `logits(ids)` in float64 (T, V)."""

    def __init__(self, spec: dict[str, Any], activation: Activation) -> None:
        keys = {key: value for key, _, value in spec["kv"]}
        self.arch = keys["general.architecture"]
        self._keys = {k.removeprefix(f"{self.arch}."): v for k, v in keys.items()}
        self._w = {n: zoo_gguf.weights(n, ne, t, spec["seed"]).astype(np.float64) for n, ne, t in spec["tensors"]}
        self._activation = activation
        self.layers, self.width = int(self._keys["block_count"]), int(self._keys["embedding_length"])
        self.heads = int(self._keys["attention.head_count"])
        self.kv_heads = int(self._keys.get("attention.head_count_kv", self.heads))
        self.head_width = int(self._keys.get("attention.key_length", self.width // self.heads))
        self.gemma = self.arch == "gemma3"
        self.window = int(self._keys.get("attention.sliding_window", 0)) if self.gemma else 0
        pattern = self._keys.get("attention.sliding_window_pattern", 6)
        flags = pattern if isinstance(pattern, list) else [i % pattern < pattern - 1 for i in range(self.layers)]
        self.windowed = [bool(self.window and flag) for flag in flags]

    def _norm(self, x: Double, name: str) -> Double:
        eps = self._keys["attention.layer_norm_rms_epsilon"]
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * self._w[f"{name}.weight"]

    def _linear(self, x: Double, name: str) -> Double:
        return x @ self._w[f"{name}.weight"].T + self._w.get(f"{name}.bias", np.float64(0))

    def _frequencies(self, windowed: bool) -> tuple[Double, float]:
        """Inverse frequencies of a layer and the factor on its rotated vectors."""
        n = self.head_width // 2
        base = self._keys.get("rope.freq_base_swa" if windowed else "rope.freq_base", 10000.0)
        freq = base ** (-np.arange(n) / n)
        kind = self._keys.get("rope.scaling.type", "linear")
        factor = self._keys.get("rope.scaling.factor") or self._keys.get("rope.scale_linear") or 1.0
        factor = 1.0 if windowed or kind == "none" else factor
        magnitude = self._keys.get("rope.scaling.attn_factor", 1.0)
        original = self._keys.get("rope.scaling.original_context_length", self._keys["context_length"])
        if kind == "longrope":
            which = "long" if self._keys["context_length"] > original else "short"
            return freq / self._w[f"rope_factors_{which}.weight"] / factor, magnitude
        freq = freq / self._w.get("rope_freqs.weight", np.float64(1))
        if kind != "yarn":
            return freq / factor, magnitude

        def pair_that_turns(times: float) -> float:
            return n * math.log(original / (times * 2 * math.pi)) / math.log(base)

        low = max(0.0, math.floor(pair_that_turns(_BETA_FAST)))
        high = min(2.0 * n - 1, math.ceil(pair_that_turns(_BETA_SLOW)))
        keep = 1 - np.clip((np.arange(n) - low) / max(0.001, high - low), 0, 1)
        magnitude *= 1 + 0.1 * math.log(factor)
        return freq / factor * (1 - keep) + freq * keep, magnitude

    def _rotate(self, x: Double, windowed: bool) -> Double:
        freq, magnitude = self._frequencies(windowed)
        angle = (np.arange(len(x))[:, None] * freq)[:, None]
        cos, sin = np.cos(angle) * magnitude, np.sin(angle) * magnitude
        half = self.head_width // 2
        first, second = (slice(0, half), slice(half, None)) if self.gemma else (slice(0, None, 2), slice(1, None, 2))
        out = np.empty_like(x)
        out[..., first] = x[..., first] * cos - x[..., second] * sin
        out[..., second] = x[..., first] * sin + x[..., second] * cos
        return out

    def _attention(self, x: Double, il: int) -> Double:
        t, prefix, windowed = len(x), f"blk.{il}.", self.windowed[il]
        heads = {"q": self.heads, "k": self.kv_heads, "v": self.kv_heads}
        q, k, v = (self._linear(x, f"{prefix}attn_{c}").reshape(t, heads[c], self.head_width) for c in ("q", "k", "v"))
        if self.gemma:
            q, k = self._norm(q, f"{prefix}attn_q_norm"), self._norm(k, f"{prefix}attn_k_norm")
        q, k = self._rotate(q, windowed), self._rotate(k, windowed)
        k, v = (np.repeat(c, self.heads // self.kv_heads, axis=1) for c in (k, v))
        is_27b = self.gemma and self.layers == 62
        scale = 1 / math.sqrt(self.width // self.heads if is_27b else self.head_width)
        age = np.arange(t)[:, None] - np.arange(t)
        hidden = (age < 0) | ((age >= self.window) if windowed else False)
        scores = np.where(hidden, -np.inf, np.einsum("thd,uhd->htu", q, k) * scale)
        p = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = np.einsum("htu,uhd->thd", p / p.sum(-1, keepdims=True), v)
        out = self._linear(mixed.reshape(t, -1), f"{prefix}attn_output")
        return self._norm(out, f"{prefix}post_attention_norm") if self.gemma else out

    def _feed_forward(self, x: Double, il: int) -> Double:
        gate, up = (self._linear(x, f"blk.{il}.ffn_{c}") for c in ("gate", "up"))
        out = self._linear(self._activation(gate) * up, f"blk.{il}.ffn_down")
        return self._norm(out, f"blk.{il}.post_ffw_norm") if self.gemma else out

    def logits(self, ids: Sequence[int]) -> Double:
        x = self._w["token_embd.weight"][list(ids)]
        if self.gemma:
            x = x * np.float32(math.sqrt(self.width))
        for il in range(self.layers):
            x = x + self._attention(self._norm(x, f"blk.{il}.attn_norm"), il)
            x = x + self._feed_forward(self._norm(x, f"blk.{il}.ffn_norm"), il)
        head = "output" if "output.weight" in self._w else "token_embd"
        out = self._linear(self._norm(x, "output_norm"), head)
        cap = self._keys.get("final_logit_softcapping", 0.0) if self.gemma else 0.0
        return np.tanh(out / cap) * cap if cap else out


def zoo_logits(spec: dict[str, Any], ids: Sequence[int]) -> dict[str, Double]:
    """Logits by activation: llama has one, gemma3 the exact GELU and ggml's."""
    arch = next(value for key, _, value in spec["kv"] if key == "general.architecture")
    kinds = {"exact": gelu, "table_gelu": table_gelu} if arch == "gemma3" else {"exact": silu}
    return {name: Float64Model(spec, activation).logits(ids) for name, activation in kinds.items()}
