"""Weights unpacked on the device: the bits of the host, for every type, and packed bytes are all that stays."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest
import standin

import ref_engine
from ref_engine import compat
from ref_engine.files.types import BLOCK, GGMLType
from ref_engine.gpu import unpacked
from ref_engine.quant.types import BLOCK_TYPES, PLAIN_TYPES, dequantize

TYPES = sorted([*BLOCK_TYPES, *PLAIN_TYPES], key=lambda t: t.name)


@pytest.mark.parametrize("type", TYPES, ids=lambda t: t.name)
def test_every_type(type: GGMLType, cupy: standin.Cupy) -> None:
    """Any bytes at all: infinite and NaN scales too."""
    per_block, size = BLOCK[type]
    n_bytes = size * (8 if per_block > 1 else 64)
    data = np.random.default_rng(type.value).integers(0, 256, (5, n_bytes), np.uint8)
    want = dequantize(data, type)
    got = dequantize(cupy.asarray(data), type)
    assert isinstance(got, standin.Array) and got.dtype == np.float32
    np.testing.assert_array_equal(got.get(), want)


def test_only_packed_bytes_stay_where_unpacked_ones_do_not_fit(golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mixture in Q8_0 on a device with room for a quarter more than its bytes."""
    path = golden / "models" / "tiny-moe.gguf"
    truth = ref_engine.load(path, backend="numpy", activations="f32")
    small = standin.make(memory=10_000_000)
    monkeypatch.setattr(compat, "cupy", small)
    monkeypatch.setattr(unpacked, "_PIECE", 1 << 12)
    model = ref_engine.load(path, backend="cupy", activations="f32")
    assert model.ops.place.budget == 0
    ids = [1, 2, 3, 4]
    np.testing.assert_allclose(model.logits(ids), truth.logits(ids), rtol=1e-3, atol=1e-4)
    gc.collect()
    packed = sum(w.nbytes for w in model.weights.values())
    assert small.pool.used_bytes() < 1.05 * packed  # the cache was let go
    assert small.pool.most < packed + 3_000_000  # the caches' and the pass's own
    standin.Array.module = None
