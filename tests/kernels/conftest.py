"""Every instruction set that this processor has, weights of every type with awkward scales, and equality of bits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from ref_engine.files.types import GGMLType
from ref_engine.kernels import dispatch
from ref_engine.kernels.ops import Kernels
from ref_engine.quant.types import BLOCK_TYPES, PLAIN_TYPES
from ref_engine.weights import Weight

F32 = NDArray[np.float32]
SCALES = ("d", "m", "dmin")


@pytest.fixture(params=dispatch.available() or ("none",))
def isa(request: pytest.FixtureRequest) -> str:
    if request.param == "none":
        pytest.skip("the kernels were not compiled")
    return str(request.param)


@pytest.fixture(params=[1, 2, 3], ids="threads{}".format)
def kernels(isa: str, request: pytest.FixtureRequest) -> Kernels:
    return Kernels(dispatch.table(isa), request.param)


@pytest.fixture(scope="session")
def same_bits() -> Callable[[F32, F32], None]:
    """Fails unless all bits are equal; a NaN equals a NaN, whose other bits no arithmetic defines."""

    def check(got: F32, want: F32) -> None:
        assert got.shape == want.shape and got.dtype == want.dtype == np.float32
        nan = np.isnan(want)
        assert np.array_equal(np.isnan(got), nan)
        differ = (got.view(np.uint32) != want.view(np.uint32)) & ~nan
        assert not differ.any(), f"{differ.sum()} of {want.size} differ, first {got[differ][0]!r}, {want[differ][0]!r}"

    return check


@pytest.fixture(scope="session")
def make_weight() -> Callable[..., Weight]:
    """(type, rows, columns, seed, scales) -> a weight of random bits whose block scales are drawn from `scales`."""

    def make(type: GGMLType, rows: int, columns: int, seed: int, scales: tuple[float, ...] = ()) -> Weight:
        rng = np.random.default_rng(seed)
        if type in PLAIN_TYPES:
            values = rng.standard_normal((rows, columns)).astype(np.float32)
            if scales:
                values *= rng.choice(np.array(scales, np.float32), values.shape)
            return Weight("w", type, (rows, columns), PLAIN_TYPES[type].from_f32(values).reshape(-1).view(np.uint8))
        block = BLOCK_TYPES[type]
        raw = rng.integers(0, 256, (rows, columns // block.size, block.layout.itemsize), np.uint8)
        blocks = raw.view(block.layout)[..., 0]
        for name in SCALES:
            if name in (block.layout.names or ()):
                size = rng.standard_normal(blocks.shape) if not scales else rng.choice(scales, blocks.shape)
                blocks[name] = size.astype(np.float16)
        if "e" in (block.layout.names or ()):  # a power of two: zero and what is not finite are the ends
            size = rng.standard_normal(blocks.shape) if not scales else rng.choice(scales, blocks.shape)
            exponent = np.clip(127 + np.frexp(size)[1], 0, 255)
            blocks["e"] = np.where(size == 0, 0, np.where(np.isfinite(size), exponent, 255))
        return Weight("w", type, (rows, columns), raw.reshape(-1))

    return make
