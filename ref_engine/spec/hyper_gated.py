"""Hyper-connections with a gate for each feature of each stream, as a feature."""

from __future__ import annotations

from dataclasses import dataclass

from ref_engine.spec.parts import Rules, TensorRule, linear


@dataclass(frozen=True)
class GatedHyperSpec:
    """Each half of a layer reads a gated mean of the n streams and is added to all of them (Qwen 4 preview).

        s = norm(x), stream by stream;    h = mean over i of sigmoid(W_up silu(W_down s / n))_i s_i
        x_i = x_i + 2 sigmoid((W_inject s)_i / n) half(h)

    What ends the streams is such a mean, too.
    """

    n: int
    rank: int  # rows of W_down
    eps: float  # of the norm of each stream

    def rules(self, d_model: int) -> Rules:
        """Of both halves of a layer."""
        rules: Rules = {}
        for name in ("hc_attn", "hc_ffn"):
            rules |= self._mean(name, d_model) | linear(f"{name}_inject", self.n, self.n * d_model, "no")
        return rules

    def head_rules(self, d_model: int) -> Rules:
        """Of the mean that ends the streams; names without a prefix."""
        return self._mean("output_hc", d_model)

    def _mean(self, name: str, d_model: int) -> Rules:
        rules = {f"{name}_norm.weight": TensorRule((self.n, d_model), reshaped=True)}
        rules |= linear(f"{name}_down", self.rank, self.n * d_model, "no")
        return rules | linear(f"{name}_up", self.n * d_model, self.rank, "no")
