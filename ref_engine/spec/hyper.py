"""Several residual streams side by side as a feature: hyper-connections."""

from __future__ import annotations

from dataclasses import dataclass

from ref_engine.spec.hyper_gated import GatedHyperSpec
from ref_engine.spec.parts import Rules, tensor


@dataclass(frozen=True)
class HyperSpec:
    """Hyper-connections (Zhu et al. 2024; Xie et al. 2025, "mHC: Manifold-Constrained Hyper-Connections").

    The residual stream of a token is n streams x_i. Each half of a layer reads a weighted sum of them, and what it
    gives is written to all of them; the weights are made of the streams themselves (reference/hyper.py):

        h = sum over i of pre_i x_i,    x_j = post_j half(norm(h)) + sum over i of mix_ij x_i

    rounds: of the normalisation of `mix` to rows and columns with sum 1; 0: streams do not mix, mix is the identity.
    """

    n: int
    norm_eps: float  # of the RMS norm on all streams of a token together
    eps: float  # on top of `pre`, and of the entries and sums of `mix`
    magnitude: float = 2.0  # post = magnitude * sigmoid(...) + post_eps
    post_eps: float = 0.0
    rounds: int = 0

    def rules(self, d_model: int) -> Rules:
        """Of both halves of a layer."""
        parts, n_out = (3, (2 + self.n) * self.n) if self.rounds else (2, 2 * self.n)
        return self._map("hc_attn", n_out, parts, d_model) | self._map("hc_ffn", n_out, parts, d_model)

    def head_rules(self, d_model: int) -> Rules:
        """Of the weighted sum that ends the streams; names without a prefix."""
        return self._map("output_hc", self.n, 1, d_model)

    def _map(self, name: str, n_out: int, parts: int, d_model: int) -> Rules:
        rules = tensor(f"{name}_fn.weight", (n_out, self.n * d_model))
        return rules | tensor(f"{name}_base.weight", (n_out,)) | tensor(f"{name}_scale.weight", (parts,))


@dataclass(frozen=True)
class StreamsSpec:
    """The embedding is copied to n streams, and after the last layer they become one again: by a weighted sum (head),
    or by their mean."""

    n: int
    head: HyperSpec | GatedHyperSpec | None = None

    def rules(self, d_model: int) -> Rules:
        return {} if self.head is None else self.head.head_rules(d_model)
