"""Multi-head latent attention as a feature."""

from __future__ import annotations

from dataclasses import dataclass

from ref_engine.spec.attention import Temperature
from ref_engine.spec.indexer import IndexerSpec, PoolIndexSpec
from ref_engine.spec.norm import NormSpec
from ref_engine.spec.parts import Memory, Presence, Rules, linear, tensor
from ref_engine.spec.rope import RopeSpec


@dataclass(frozen=True)
class LatentAttentionSpec:
    """Multi-head latent attention (DeepSeek-AI 2024, "DeepSeek-V2"): keys and values of all heads are made of one
    short vector c of kv_rank features for each token, and rope_dim more features of a key are common to all heads.

        q = W_qb norm(W_qa x) or W_q x, each head [nope | rope];   [c | k_rope] = W_kva x, c normalised
        [k_nope | v] = W_kvb c, k = [k_nope | k_rope]

    absorbed: the file holds W_kvb in two parts for each head. Scores are then taken with c itself, (W_kb^T q_nope) . c
    + q_rope . k_rope, and W_vb is applied to the weighted sum of c, so only [c | k_rope] is kept of a token.
    """

    n_head: int
    nope_dim: int  # features of a query and key head that are not turned by position
    rope_dim: int
    v_dim: int
    kv_rank: int
    scale: float
    rope: RopeSpec | None  # None: the rope_dim features are not turned either
    kv_norm: NormSpec
    q_rank: int | None = None  # None: queries in one step, attn_q
    q_norm: NormSpec | None = None  # of the low-rank queries
    k_norm: NormSpec | None = None  # of the common features of a key, before they are turned
    absorbed: bool = True
    window: int | None = None
    gated: bool = False  # each head's output times sigmoid(attn_gate x)
    indexer: IndexerSpec | PoolIndexSpec | None = None
    follows: bool = False  # attends to the tokens that the nearest earlier layer with an indexer chose
    temperature: Temperature | None = None
    gate_features: bool = False  # the gate has a number for each feature of a head's output
    sinks: Presence = "no"  # attn_sinks.weight (H,): a score that takes weight and gives nothing

    @property
    def head_dim(self) -> int:
        return self.nope_dim + self.rope_dim

    def rules(self, d_model: int) -> Rules:
        h = self.n_head
        if self.q_rank is None:
            rules = linear("attn_q", h * self.head_dim, d_model, "no")
        else:
            rules = linear("attn_q_a", self.q_rank, d_model, "no")
            rules |= linear("attn_q_b", h * self.head_dim, self.q_rank, "no")
            rules |= {} if self.q_norm is None else self.q_norm.rules(self.q_rank)
        rules |= linear("attn_kv_a_mqa", self.kv_rank + self.rope_dim, d_model, "no")
        rules |= self.kv_norm.rules(self.kv_rank)
        rules |= {} if self.k_norm is None else self.k_norm.rules(self.rope_dim)
        if self.absorbed:
            rules |= tensor("attn_k_b.weight", (h, self.kv_rank, self.nope_dim))
            rules |= tensor("attn_v_b.weight", (h, self.v_dim, self.kv_rank))
        else:
            rules |= linear("attn_kv_b", h * (self.nope_dim + self.v_dim), self.kv_rank, "no")
        rules |= linear("attn_output", d_model, h * self.v_dim, "no")
        if self.gated:
            rules |= linear("attn_gate", h * self.v_dim if self.gate_features else h, d_model, "no")
        rules |= tensor("attn_sinks.weight", (h,), self.sinks)
        if self.indexer is not None and self.q_rank is not None:
            rules |= self.indexer.rules(d_model, self.q_rank)
        return rules

    def memory(self) -> Memory:
        if self.absorbed:
            rows: dict[str, tuple[int, ...]] = {"k": (1, self.kv_rank + self.rope_dim)}
        else:
            rows = {"k": (self.n_head, self.head_dim), "v": (self.n_head, self.v_dim)}
        if self.indexer is not None:
            rows |= self.indexer.memory().rows
        return Memory(rows)
