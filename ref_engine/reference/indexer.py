"""Choosing the tokens that sparse attention looks at. Everything is row by row and in a fixed order of additions, so a
token's choice depends on nothing but itself and the tokens before it, in every backend."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ref_engine.reference.elementary import exp, relu
from ref_engine.reference.sums import F32, lane_matmul

Mask = NDArray[np.bool_]
Ranks = NDArray[np.int64]


def index_scores(q: F32, k: F32, weights: F32) -> F32:
    """sum over heads of weight * max(0, q . k), one head after the other (ggml_lightning_indexer).

    q: (T, H, Hd), k: (S, Hd), weights: (T, H), all float32 -> (T, S) float32.
    """
    score = np.zeros((q.shape[0], k.shape[0]), np.float32, like=q)
    for h in range(q.shape[1]):
        score = score + relu(lane_matmul(q[:, h], k)) * weights[:, h, None]
    return score


def ranked(scores: F32, visible: Mask, n: int) -> Ranks:
    """The n entries with the highest scores in each row, best first: (T, S) -> (T, n).

    Which of equal ones are among them, `highest` says. Where fewer are visible, invisible ones follow.
    """
    scores = np.where(visible, scores, np.float32(-np.inf))
    chosen = np.where(highest(scores, n), scores, np.float32(-np.inf))
    ranks: Ranks = np.argsort(-chosen, axis=-1, kind="stable")[:, :n]
    return ranks


def marked(ranks: Ranks, visible: Mask) -> Mask:
    """The visible ones among the entries of those numbers: (..., n), (..., S) -> (..., S) bool.

    Raises ValueError for a number outside 0 .. S - 1.
    """
    if ranks.size and not 0 <= ranks.min() <= ranks.max() < visible.shape[-1]:
        raise ValueError(f"top_k: {ranks.min()} to {ranks.max()}, expected numbers of {visible.shape[-1]} keys")
    chosen = np.zeros((*ranks.shape[:-1], visible.shape[-1]), np.bool_, like=visible)
    np.put_along_axis(chosen, ranks, True, axis=-1)
    return chosen & visible


def highest(scores: F32, n: int) -> Mask:
    """The n highest scores of each row, where minus infinity stands for an invisible entry: (T, S) -> (T, S) bool.

    Where equal scores compete for the last places, those win that ggml_top_k leaves in its heap.
    """
    visible = scores > np.float32(-np.inf)
    if n >= scores.shape[1]:
        return visible
    least = np.partition(scores, -n, axis=-1)[:, -n, None]
    chosen: Mask = (scores >= least) & visible
    for t in np.nonzero(chosen.sum(axis=-1) > n)[0].tolist():
        chosen[t] = False
        chosen[t, heap_select(scores[t].tolist(), n)] = True
    return chosen


def heap_select(scores: list[float], n: int) -> list[int]:
    """Numbers of the n highest scores, n up to their number, in the order of the heap.

    The first n are made a heap with the lowest on top; each later one that is higher than the top takes its place.
    Which of equal ones stay follows from how items sink, so this is written as std::partial_sort of GNU's C++ library
    does it, which ggml_top_k calls: an item sinks to the bottom along the lower children, then rises.
    """
    heap = list(range(n))

    def sink(hole: int, item: int) -> None:
        top = hole
        while (child := 2 * hole + 2) < n:
            child -= scores[heap[child]] > scores[heap[child - 1]]
            heap[hole], hole = heap[child], child
        if child == n:
            heap[hole], hole = heap[child - 1], child - 1
        while hole > top and scores[heap[(hole - 1) // 2]] > scores[item]:
            heap[hole], hole = heap[(hole - 1) // 2], (hole - 1) // 2
        heap[hole] = item

    for i in reversed(range(n // 2)):
        sink(i, heap[i])
    for i in range(n, len(scores)):
        if scores[i] > scores[heap[0]]:
            sink(0, i)
    return heap


def pooled_keys(k: F32, gate: F32, place: F32) -> F32:
    """The key of each complete pool: sum over its members j of softmax_j(gate + place) * k, feature by feature.

    k, gate: (S, Hd); place: (W, Hd), of the W members of a pool -> (S // W, Hd).
    """
    width = place.shape[0]
    n = k.shape[0] // width
    k, gate = (x[: n * width].reshape(n, width, -1) for x in (k, gate))
    logits = gate + place
    e = exp(logits - logits.max(axis=1, keepdims=True))
    total, mixed = e[:, 0], e[:, 0] * k[:, 0]
    for j in range(1, width):
        total, mixed = total + e[:, j], mixed + e[:, j] * k[:, j]
    return mixed / total


def block_means(k: F32, width: int) -> F32:
    """The mean key of each complete block: (S, Hd) -> (S // width, Hd)."""
    n = k.shape[0] // width
    members = k[: n * width].reshape(n, width, -1)
    total = members[:, 0]
    for j in range(1, width):
        total = total + members[:, j]
    return total * np.float32(1 / width)


def with_tail(chosen: Mask, positions: NDArray[np.int64], width: int, n_keys: int) -> Mask:
    """The tokens of chosen groups of `width`, and those behind the last complete group, up to each token's own.

    chosen: (T, groups), complete ones alone; positions: (T,) -> (T, n_keys) bool.
    """
    s, own = np.arange(n_keys), positions[:, None]
    tail: Mask = np.asarray((s >= (own + 1) // width * width) & (s <= own), like=chosen)
    inside = np.repeat(chosen, width, axis=-1)
    tail[:, : inside.shape[1]] |= inside
    return tail


def token_scores(blocks: F32, positions: NDArray[np.int64], width: int, n_keys: int) -> F32:
    """The score of each visible token: that of its block where it is complete, else plus infinity.

    blocks: (T, complete blocks of all keys); positions: (T,) -> (T, n_keys), minus infinity for invisible ones.
    """
    s, own = np.arange(n_keys), positions[:, None]
    scores = np.asarray(np.full((blocks.shape[0], n_keys), np.inf, np.float32), like=blocks)
    inside = np.repeat(blocks, width, axis=-1)
    scores[:, : inside.shape[1]] = inside
    late, seen = (np.asarray(mask, like=blocks) for mask in (s >= (own + 1) // width * width, s <= own))
    scores = np.where(late, np.float32(np.inf), scores)
    return np.where(seen, scores, np.float32(-np.inf))


def complete(positions: NDArray[np.int64], width: int, n_groups: int) -> Mask:
    """Which groups of `width` tokens have ended at each position: (T,) -> (T, n_groups) bool."""
    ended: Mask = (np.arange(n_groups) + 1) * width <= positions[:, None] + 1
    return ended


def highest_blocks(q: F32, k: F32, visible: Mask, positions: NDArray[np.int64], block: int, n: int, local: int) -> Mask:
    """The tokens of the n best blocks of each group: q (T, G, Hd), k (S, Hd), visible (T, S) -> (G, T, S) bool.

    A block's score is the largest q . k of its visible tokens; the `local` latest blocks up to the token's own come
    first. positions: (T,) of the queries.
    """
    s = np.arange(k.shape[0])
    n_blocks = -(-k.shape[0] // block)
    missing = n_blocks * block - k.shape[0]
    own = (positions // block)[:, None]
    blocks = np.arange(n_blocks)
    known = np.asarray(blocks <= own, like=q)
    is_local = known & np.asarray(blocks > own - local, like=q)
    chosen = []
    for g in range(q.shape[1]):
        scores = np.where(visible, lane_matmul(q[:, g], k), np.float32(-np.inf))
        padded = np.pad(scores, [(0, 0), (0, missing)], constant_values=-np.inf)
        best = padded.reshape(q.shape[0], n_blocks, block).max(axis=-1)
        best = np.where(is_local, np.float32(np.inf), best)
        chosen.append(marked(ranked(best, known, n), known)[:, s // block] & visible)
    return np.stack(chosen)
