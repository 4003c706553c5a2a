"""The compiled quantisers: ggml's bytes, the definition's bytes for drawn rows, and nothing else for wrong input."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ref_engine import compat
from ref_engine.errors import ModelError, RefEngineError
from ref_engine.files.types import BLOCK, GGMLType, row_bytes
from ref_engine.kernels import dispatch, quantisers
from ref_engine.kernels.quantisers import Compiled, has_quantiser, quantiser
from ref_engine.quant.lattice import lattice
from ref_engine.quant.quantize import NEEDS_IMPORTANCE, QUANTISERS, quantize

F32 = NDArray[np.float32]
TYPES = [*QUANTISERS, GGMLType.F16, GGMLType.BF16]
CASES = ("plain", "weighted", "some weigh nothing")
WIDTH = 512

pytestmark = pytest.mark.skipif(compat.native_quantize is None, reason="the quantisers were not compiled")


def draw_rows(rng: np.random.Generator) -> F32:
    """Rows of kinds that take different branches."""
    x = rng.standard_normal((18, WIDTH)).astype(np.float32)
    x[1, ::37] *= 100  # outliers
    x[2] = rng.standard_normal()  # all equal
    x[3] = rng.choice(np.array([0, -0.0], np.float32), WIDTH)
    x[4] *= np.float32(1e-38)
    x[5] *= np.float32(1e-42)  # denormal
    x[6] *= np.float32(1e7)
    x[7] = np.round(x[7] * 4) / 4  # ties
    x[8] = rng.choice(np.array([0, -0.0, 1, -1, 0.5], np.float32), WIDTH)
    x[9] = np.abs(x[9])
    x[10] = -np.abs(x[10])
    x[11].reshape(-1, 32)[rng.random(WIDTH // 32) < 0.5] = 0  # groups of zeros
    x[12].reshape(-1, 16)[rng.random(WIDTH // 16) < 0.5] *= np.float32(1e-16)
    x[13, rng.random(WIDTH) < 0.9] = 0
    x[14] *= np.float32(10) ** rng.integers(-9, 3, WIDTH).astype(np.float32)
    x[15, :255] = 0
    x[16] = np.linspace(-1, 1, WIDTH)
    return x


def draw_importance(rng: np.random.Generator, case: str) -> F32 | None:
    if case == "plain":
        return None
    importance = rng.chisquare(1, WIDTH).astype(np.float32)
    if case != "weighted":
        importance[rng.random(WIDTH) < 0.3] = 0
        importance[128:192] = 0
    return importance


@pytest.mark.parametrize("case", ["plain", "weighted"])
@pytest.mark.parametrize("type", list(QUANTISERS), ids=lambda t: t.name)
def test_bytes_are_ggmls(type: GGMLType, case: str, isa: str, golden: Path) -> None:
    data = np.load(golden / "quant" / "quantize.npz")
    if f"{type.name}/{case}" not in data:
        assert case == "plain" and type in NEEDS_IMPORTANCE
        return
    want = data[f"{type.name}/{case}"]
    importance = data["importance"] if case == "weighted" else None
    got = Compiled(isa, 1)(data["x"][: len(want)], type, importance)
    differ = [str(name) for name, a, b in zip(data["names"], got, want, strict=False) if (a != b).any()]
    assert got.shape == want.shape and differ == []


@pytest.mark.parametrize("type", TYPES, ids=lambda t: t.name)
def test_bytes_are_the_definitions(type: GGMLType) -> None:
    """Rows drawn anew for each type and case; on every instruction set, and with more threads than batches."""
    for number, case in enumerate(CASES):
        rng = np.random.default_rng([type.value, number])
        rows, importance = draw_rows(rng), draw_importance(rng, case)
        if importance is None and type in NEEDS_IMPORTANCE:
            continue
        want = quantize(rows, type, importance)
        for isa in dispatch.available():
            for n_threads in (1, 3, 40):
                got = Compiled(isa, n_threads)(rows, type, importance)
                where = np.argwhere(got != want)
                assert where.size == 0, f"{case}, {isa}, {n_threads} threads: row {where[0][0]}, byte {where[0][1]}"


def test_every_type_with_a_definition_is_compiled() -> None:
    assert [type.name for type in TYPES if not has_quantiser(type)] == []
    assert not has_quantiser(GGMLType.F32)  # nothing to compute: left to the definition
    rows = np.array([[1.5, -2.0]], np.float32)
    assert quantiser("native")(rows, GGMLType.F32, None).view(np.float32).tolist() == [[1.5, -2.0]]


@pytest.mark.parametrize("n_rows", [0, 1, 2, 17])
def test_any_number_of_rows_and_axes(n_rows: int, isa: str) -> None:
    rows = np.random.default_rng(5).standard_normal((n_rows, 3, 256)).astype(np.float32)
    for type in (GGMLType.Q4_0, GGMLType.Q6_K, GGMLType.IQ4_NL, GGMLType.F16):
        got = Compiled(isa, 2)(rows, type)
        assert got.shape == (n_rows, 3, row_bytes(type, 256))
        assert (got == quantize(rows, type)).all()


def test_rows_that_do_not_lie_together(isa: str) -> None:
    wide = np.random.default_rng(6).standard_normal((4, 1024))  # float64 too
    for rows in (wide[:, ::2], wide.astype(np.float16)[:, 512:], wide.astype(np.float32)[::-1, :512]):
        assert (Compiled(isa, 1)(rows, GGMLType.Q5_K) == quantize(rows, GGMLType.Q5_K)).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [(0, 0), (5, 300), (39, 511)])
def test_weights_that_are_not_finite(value: float, place: tuple[int, int], isa: str) -> None:
    rows = np.zeros((40, 512), np.float32)
    rows[place] = value
    rows[39, 511] = value  # the first one counts
    with pytest.raises(ModelError, match=rf"weight {value} in row {place[0]}, column {place[1]} cannot"):
        Compiled(isa, 2)(rows, GGMLType.Q8_0)


@pytest.mark.parametrize("type", [GGMLType.IQ2_S, GGMLType.IQ3_S, GGMLType.IQ1_M], ids=lambda t: t.name)
def test_weights_too_large_for_a_search(type: GGMLType, isa: str) -> None:
    rows = np.random.default_rng(7).standard_normal((2, 256)).astype(np.float32)
    rows[1] *= np.float32(1e18)
    for pack in (quantize, Compiled(isa, 1)):
        with pytest.raises(ModelError, match="too large for a search"):
            pack(rows, type, None)


def test_the_same_errors_as_the_definition(isa: str) -> None:
    rows = np.zeros((2, 256), np.float32)
    for pack in (quantize, Compiled(isa, 1)):
        with pytest.raises(ModelError, match="needs an importance matrix"):
            pack(rows, GGMLType.IQ1_S, None)
        with pytest.raises(ModelError, match="no quantiser to Q8_K"):
            pack(rows, GGMLType.Q8_K, None)
        with pytest.raises(ValueError, match="importances of shape"):
            pack(rows, GGMLType.Q4_K, np.ones(255, np.float32))
        with pytest.raises(ModelError, match="negative or not finite"):
            pack(rows, GGMLType.Q4_K, np.full(256, np.nan, np.float32))
        with pytest.raises(RefEngineError, match="250"):
            pack(rows[:, :250], GGMLType.Q4_K, None)


def test_the_compiled_module_checks_lengths_itself() -> None:
    compiled = compat.native_quantize
    rows, out = np.zeros((2, 256), np.float32), np.zeros((2, 144), np.uint8)
    values = np.zeros(16, np.float32)
    grid = compiled.Codebook(*_arrays("iq3_s"), 3)
    wrong = [
        ("Q9_K", rows, None, None, None, out, "baseline", 1),
        ("Q4_K", rows[:, :255].copy(), None, None, None, out, "baseline", 1),
        ("Q4_K", rows, None, None, None, out[:, :143].copy(), "baseline", 1),
        ("Q4_K", rows, None, None, None, out[:1], "baseline", 1),
        ("Q4_K", rows, np.zeros(128, np.float32), None, None, out, "baseline", 1),
        ("Q4_K", rows, None, None, None, out, "z80", 1),
        ("Q4_K", rows, None, None, None, out, "baseline", 0),
        ("IQ3_S", rows, None, None, None, np.zeros((2, 110), np.uint8), "baseline", 1),
        ("IQ2_S", rows, None, grid, None, np.zeros((2, 82), np.uint8), "baseline", 1),
        ("IQ4_XS", rows, None, None, values[:15], np.zeros((2, 136), np.uint8), "baseline", 1),
    ]
    for arguments in wrong:
        with pytest.raises(ValueError):
            compiled.quantize(*arguments)


def _arrays(name: str) -> list[NDArray[np.int32]]:
    grid = lattice(name, 1)
    return [getattr(grid, part).copy() for part in ("ranks", "index_of", "start", "count", "near")]


@pytest.mark.parametrize("part", range(5))
def test_codebooks_that_would_lead_astray(part: int) -> None:
    """C looks numbers up without checking: each array is damaged in turn."""
    arrays = _arrays("iq3_xxs")
    arrays[part][-1] = 1 << 20
    with pytest.raises(ValueError):
        compat.native_quantize.Codebook(*arrays, 3)


def test_who_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert quantiser("numpy") is quantize
    assert isinstance(quantiser(), Compiled) and isinstance(quantiser("native", 1), Compiled)
    monkeypatch.setattr(quantisers, "native_quantize", None)
    assert quantiser() is quantize
    with pytest.raises(RefEngineError):
        quantiser("native")


def test_blocks_have_the_sizes_of_the_format() -> None:
    """A row of one block: the compiled table of sizes against that of the files."""
    for type in QUANTISERS:
        weights, nbytes = BLOCK[type]
        rows = np.ones((1, weights), np.float32)
        assert quantiser("native")(rows, type, np.ones(weights, np.float32)).shape == (1, nbytes)
