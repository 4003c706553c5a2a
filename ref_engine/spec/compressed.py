"""Attention to recent tokens, and to groups of all tokens that are compressed to one key each, as a feature."""

from __future__ import annotations

from dataclasses import dataclass

from ref_engine.spec.norm import NormSpec
from ref_engine.spec.parts import Memory, Rules, TensorRule, linear, tensor
from ref_engine.spec.rope import RopeSpec


@dataclass(frozen=True)
class CompressorSpec:
    """One vector for each group of `ratio` neighbouring tokens: a mean of the members' vectors, feature by feature,
    weighted by softmax over the members j of gate(j) + place(j); then normalised and turned by the position of the
    first member.

    overlap: the mean is over this group and the one before it, and a token has a vector and a gate of its own for each
    of the two roles. name: of the tensors, without `_kv.weight`, `_gate.weight` and `_ape.weight`.
    """

    name: str
    width: int
    ratio: int
    overlap: bool
    norm: NormSpec

    @property
    def wide(self) -> int:
        """Features that a token contributes."""
        return (2 if self.overlap else 1) * self.width

    @property
    def span(self) -> int:
        """Tokens that a vector is made of."""
        return (2 if self.overlap else 1) * self.ratio

    def rules(self, d_model: int) -> Rules:
        rules = linear(f"{self.name}_kv", self.wide, d_model, "no")
        rules |= linear(f"{self.name}_gate", self.wide, d_model, "no")
        rules |= tensor(f"{self.name}_ape.weight", (self.ratio, self.wide))
        return rules | self.norm.rules(self.width)

    def memory(self) -> Memory:
        """The vectors of groups, each in the row of the group's last token, and the latest tokens' contributions."""
        late = (self.span - 1, self.wide)
        return Memory(rows={self.name: (self.width,)}, states={f"{self.name} kv": late, f"{self.name} gate": late})


@dataclass(frozen=True)
class GroupIndexSpec:
    """The lightning indexer over compressed keys: of the groups that have ended, the top_k with the highest score.

    The scores are those of IndexerSpec. spread: queries and keys are rotated by a Hadamard matrix, which changes none.
    """

    n_head: int
    head_dim: int
    top_k: int
    keys: CompressorSpec
    spread: bool

    def rules(self, d_model: int, q_rank: int) -> Rules:
        rules = linear("indexer.attn_q_b", self.n_head * self.head_dim, q_rank, "no")
        return rules | linear("indexer.proj", self.n_head, d_model, "no") | self.keys.rules(d_model)


@dataclass(frozen=True)
class CompressedAttentionSpec:
    """All heads share one vector kv of a token, which is key and value at once (DeepSeek-AI 2026, "DeepSeek-V4"):

        q = turned(normalised(W_qb norm(W_qa x))),  kv = turned(norm(W_kv x))
        y = W_b [W_a,g of the heads of group g, for each group],  of heads turned back by the token's own position

    A token attends to those of its window, and to the compressed keys of groups that have ended: all of them, or those
    that the indexer chooses. Only the last features of a head are turned.
    """

    n_head: int
    head_dim: int
    q_rank: int
    groups: int  # of heads, each with a low-rank map of its own
    group_rank: int
    window: int
    scale: float
    rope: RopeSpec
    q_norm: NormSpec  # of the low-rank queries
    head_norm: NormSpec  # of each query head
    kv_norm: NormSpec
    compressor: CompressorSpec | None = None
    index: GroupIndexSpec | None = None

    def rules(self, d_model: int) -> Rules:
        h, g = self.n_head * self.head_dim, self.groups
        rules = linear("attn_q_a", self.q_rank, d_model, "no") | self.q_norm.rules(self.q_rank)
        rules |= linear("attn_q_b", h, self.q_rank, "no")
        rules |= linear("attn_kv", self.head_dim, d_model, "no") | self.kv_norm.rules(self.head_dim)
        rules["attn_output_a.weight"] = TensorRule((g, self.group_rank, h // g), reshaped=True)
        rules |= linear("attn_output_b", d_model, g * self.group_rank, "no")
        rules |= tensor("attn_sinks.weight", (self.n_head,))
        rules |= {} if self.compressor is None else self.compressor.rules(d_model)
        return rules | ({} if self.index is None else self.index.rules(d_model, self.q_rank))

    def memory(self) -> Memory:
        memories = [Memory(rows={"k": (1, self.head_dim)})]
        memories += [] if self.compressor is None else [self.compressor.memory()]
        memories += [] if self.index is None else [self.index.keys.memory()]
        return Memory(
            rows={name: shape for m in memories for name, shape in m.rows.items()},
            states={name: shape for m in memories for name, shape in m.states.items()},
        )
