"""Embeddings of the last few tokens together as a feature."""

from __future__ import annotations

from dataclasses import dataclass

from ref_engine.spec.parts import Memory, Rules, TensorRule, linear, tensor

TABLE = "per_layer_token_embd.weight"  # of the model, not of a layer


@dataclass(frozen=True)
class NgramSpec:
    """Before its halves, a layer adds what a table says of the last 2 .. size tokens to its residual streams x_i.

    Each of the heads looks up a row by a hash of its tokens (reference/ngram.py); e is all rows in a row.

        g_i = sigmoid(signed root of norm(W_key e)_i . norm(x)_i / sqrt(D)),    v_i = g_i W_value e
        x_i = x_i + v_i + silu(convolution(norm(v)))_i

    The convolution goes over `conv` tokens that lie `size` apart. A token `eos` begins anew: what lies before it, and
    before the first token, counts as `eos`.
    """

    n: int  # streams
    d_model: int
    size: int
    conv: int
    multipliers: tuple[int, ...]  # (size,), of the hash
    offsets: tuple[int, ...]  # (heads,), the first row of each head; as many heads for each of 2 .. size
    sizes: tuple[int, ...]  # (heads,), rows of each head
    width: int  # of a row
    rows: int  # of the table
    eos: int
    eps: float  # of all three norms

    def rules(self, d_model: int) -> Rules:
        n_in, wide = self.width * len(self.offsets), self.n * d_model
        rules = linear("ple_key", wide, n_in, "no") | linear("ple_value", d_model, n_in, "no")
        for name in ("key", "query", "conv"):
            rules[f"ple_norm_{name}.weight"] = TensorRule((self.n, d_model), reshaped=True)
        return rules | tensor("ple_conv1d.weight", (wide, self.conv))

    def model_rules(self) -> Rules:
        """Tensors without the `blk.N.` prefix."""
        return tensor(TABLE, (self.rows, self.width))

    def memory(self) -> Memory:
        return Memory(states={"ngram": ((self.conv - 1) * self.size, self.n * self.d_model)})
