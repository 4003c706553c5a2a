"""Attention to the residual streams of earlier layers as a feature."""

from __future__ import annotations

from dataclasses import dataclass

from ref_engine.spec.parts import Rules, TensorRule, tensor

_LAST = "output_res_score.weight"  # of the model, not of a layer


@dataclass(frozen=True)
class DepthSpec:
    """Attention over depth (Moonshot 2026, "Attention Residuals"): each half of a layer reads a mean of the stream x
    and of the streams s that earlier layers banked, weighted by

        softmax over s of (score . s / rms(s)),    score: attn_res_score and ffn_res_score

    and adds what it gives to x. In a layer that banks, x is put aside before the mixer; what the mixer gives begins a
    new stream. last: what leaves the layer is mixed in the same way, by output_res_score.
    """

    eps: float
    banks: bool
    last: bool = False

    def rules(self, d_model: int) -> Rules:
        return tensor("attn_res_score.weight", (d_model,)) | tensor("ffn_res_score.weight", (d_model,))

    def model_rules(self, d_model: int) -> Rules:
        """Tensors without the `blk.N.` prefix."""
        return {_LAST: TensorRule((d_model,))} if self.last else {}
