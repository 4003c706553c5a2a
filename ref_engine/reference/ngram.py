"""Hashes of a few tokens in a row, and the gate of what a table says of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ref_engine.reference.elementary import sigmoid
from ref_engine.reference.sums import F32, lane_sum
from ref_engine.spec.ngram import NgramSpec

Ids = NDArray[np.int64]
_LEAST = np.float32(1e-6)


def latest(ids: Ids, n: int, size: int, eos: int) -> Ids:
    """The last `size` tokens at each of the last n places of a sequence (S,), the newest first: (n, size).

    What lies before the sequence, or at or before an `eos` that is not the newest, is `eos`.
    """
    padded = np.concatenate([np.full(size - 1, eos, np.int64), ids])
    columns = [padded[padded.size - n - back : padded.size - back] for back in range(size)]
    cut = np.zeros(n, np.bool_)
    for back in range(1, size):
        cut |= columns[back] == eos
        columns[back] = np.where(cut, eos, columns[back])
    return np.stack(columns, axis=-1)


def table_rows(grams: Ids, s: NgramSpec) -> Ids:
    """(T, size) tokens -> (T, heads) rows of the table.

    Head by head: (t_0 m_0 xor t_1 m_1 xor ... xor t_j m_j) modulo its rows, plus its first row, in whole numbers modulo
    2**64. The heads fall into size - 1 equal groups, of j = 1, 2, ....
    """
    products = grams.astype(np.uint64) * np.array(s.multipliers, np.uint64)
    mixed = np.bitwise_xor.accumulate(products, axis=-1)[:, 1:]  # (T, size - 1)
    mixed = np.repeat(mixed, len(s.sizes) // (s.size - 1), axis=-1)
    return (mixed % np.array(s.sizes, np.uint64)).astype(np.int64) + np.array(s.offsets, np.int64)


def gates(key: F32, query: F32) -> F32:
    """sigmoid(sign(s) sqrt(max(|s|, 1e-6))) with s = key . query / sqrt(D): twice (T, N, D) -> (T, N)."""
    s = lane_sum(key * query) * np.float32(1 / np.sqrt(key.shape[-1]))
    return sigmoid(np.sign(s) * np.sqrt(np.maximum(np.abs(s), _LEAST)))
