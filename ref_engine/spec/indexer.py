"""Sparse attention as a feature: a cheap look at all earlier tokens chooses which of them a token attends to."""

from __future__ import annotations

from dataclasses import dataclass

from ref_engine.spec.norm import NormSpec
from ref_engine.spec.parts import Memory, Rules, linear, tensor
from ref_engine.spec.rope import Pairing


@dataclass(frozen=True)
class IndexerSpec:
    """The lightning indexer (DeepSeek-AI 2025, "DeepSeek-V3.2"): the top_k visible tokens s with the highest

        score(t, s) = sum over heads h of w(t, h) * max(0, q(t, h) . k(s))

    The queries are made of the low-rank queries of the attention, the one key of a token and the weights of its input.
    Queries and keys are turned by position as in the attention, in pairs of their own kind, and rotated by a Hadamard
    matrix (spread), which changes no score.
    """

    n_head: int
    head_dim: int
    top_k: int
    pairing: Pairing
    k_norm: NormSpec
    turn_last: bool = False  # the last features of a head are turned, not the first
    spread: bool = True

    def rules(self, d_model: int, q_rank: int) -> Rules:
        return (
            linear("indexer.attn_q_b", self.n_head * self.head_dim, q_rank, "no")
            | linear("indexer.attn_k", self.head_dim, d_model, "no")
            | linear("indexer.proj", self.n_head, d_model, "no")
            | self.k_norm.rules(self.head_dim)
        )

    def memory(self) -> Memory:
        return Memory(rows={"index_k": (self.head_dim,)})


@dataclass(frozen=True)
class PoolIndexSpec:
    """The lightning indexer over pools of `pool` neighbouring tokens (GLM 5 Next): a token attends to the tokens of the
    top_k complete pools up to its position with the highest score, and to those behind the last complete one.

    The scores are those of IndexerSpec, without position. The key of a pool is a mean of its members', feature by
    feature, weighted by softmax over the members j of gate(j) + place(j).
    """

    n_head: int
    head_dim: int
    pool: int
    top_k: int  # pools
    k_norm: NormSpec

    def rules(self, d_model: int, q_rank: int) -> Rules:
        return (
            linear("indexer.attn_q_b", self.n_head * self.head_dim, q_rank, "no")
            | linear("indexer.attn_k", self.head_dim, d_model, "no")
            | linear("indexer.proj", self.n_head, d_model, "no")
            | linear("indexer_compressor_gate", self.head_dim, d_model, "no")
            | tensor("indexer_compressor_ape.weight", (self.pool, self.head_dim))
            | self.k_norm.rules(self.head_dim)
        )

    def memory(self) -> Memory:
        return Memory(rows={"index_k": (self.head_dim,), "index_gate": (self.head_dim,)})


@dataclass(frozen=True)
class MeanIndexSpec:
    """Tokens in blocks of `block` positions (Qwen 4 preview): a token attends to those behind the last complete block
    and to as many others as make up top_k + block - 1, by the score of their block

        score(t, b) = sum over heads of max(0, q(t, head) . norm(mean over tokens s of block b of k(s)))

    Queries are normalised too, and both are turned by position, a block by that of its first token.
    """

    n_head: int
    head_dim: int
    block: int
    top_k: int  # tokens
    q_norm: NormSpec
    k_norm: NormSpec

    def rules(self, d_model: int) -> Rules:
        return (
            linear("indexer.q_proj", self.n_head * self.head_dim, d_model, "no")
            | linear("indexer.k_proj", self.head_dim, d_model, "no")
            | self.q_norm.rules(self.head_dim)
            | self.k_norm.rules(self.head_dim)
        )

    def memory(self) -> Memory:
        return Memory(rows={"index_k": (self.head_dim,)})


@dataclass(frozen=True)
class BlockIndexSpec:
    """Tokens in blocks of `block` positions (MiniMax-M3): each of n_head groups of heads attends to the top_k blocks
    with the highest score

        score(t, b) = max over visible tokens s of block b of q(t, group) . k(s)

    The `local` latest blocks, the token's own included, come before all others.
    """

    n_head: int
    head_dim: int
    block: int
    top_k: int  # blocks
    local: int
    q_norm: NormSpec
    k_norm: NormSpec

    def rules(self, d_model: int) -> Rules:
        return (
            linear("indexer.q_proj", self.n_head * self.head_dim, d_model, "no")
            | linear("indexer.k_proj", self.head_dim, d_model, "no")
            | self.q_norm.rules(self.head_dim)
            | self.k_norm.rules(self.head_dim)
        )

    def memory(self) -> Memory:
        return Memory(rows={"index_k": (self.head_dim,)})
