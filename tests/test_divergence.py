"""KL divergence: llama-perplexity's figures and file (golden/kl), arithmetic by hand, windows, and what is refused."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ref_engine
from ref_engine.divergence import (
    ModelBase,
    Rows,
    compare_rows,
    diverge,
    half_windows,
    log_softmax,
    percentiles,
    spans,
    summary,
    text_windows,
)
from ref_engine.errors import RefEngineError
from ref_engine.kld_file import KldWriter, packed_row, read_kld
from ref_engine.mixture import FILE_TYPES
from ref_engine.perplexity import perplexity
from ref_engine.quantize_file import quantize_file

F32 = np.float32


@pytest.fixture(scope="module")
def small(golden: Path) -> ref_engine.Model:
    return ref_engine.load(golden / "models" / "tiny-moe.gguf", activations="f32", n_threads=1)


@pytest.fixture(scope="module")
def coarse(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> ref_engine.Model:
    """The Q4_0 file of golden/make/kl.py; tests/test_quantize_file.py holds our quantiser to llama.cpp's bytes."""
    path = tmp_path_factory.mktemp("kl") / "q4_0.gguf"
    quantize_file(golden / "models" / "tiny-moe.gguf", path, FILE_TYPES["Q4_0"], allow_requantize=True)
    return ref_engine.load(path, activations="f32", n_threads=1)


@pytest.fixture(scope="module")
def stats(golden: Path) -> dict[str, Any]:
    return dict(json.loads((golden / "kl" / "stats.json").read_text()))


@pytest.fixture(scope="module")
def text_ids(golden: Path, small: ref_engine.Model) -> list[int]:
    return small.tokenize((golden / "real" / "page.txt").read_text())


def bos(model: ref_engine.Model) -> int | None:
    return next((id for id in model.tokenizer.added_before if id is not None), None)


# -- llama-perplexity ---------------------------------------------------------------------------------------------


def test_figures_are_llama_perplexitys(golden: Path, coarse: ref_engine.Model, stats: dict[str, Any]) -> None:
    """From its own file of log-probabilities, every line that it prints."""
    kept = read_kld(golden / "kl" / "base.kld")
    found = summary(diverge(kept, coarse, kept.windows(bos(coarse))))
    want, seen = stats["printed"], 0
    named = {
        "Mean PPL(Q)": found.perplexity,
        "Mean PPL(base)": found.perplexity_base,
        "Mean ln(PPL(Q)/PPL(base))": found.ln_ratio,
        "Mean PPL(Q)/PPL(base)": found.ratio,
        "Mean PPL(Q)-PPL(base)": found.difference,
    }
    for label, ours in named.items():
        assert [ours.value, ours.error] == pytest.approx(want[label], rel=1e-6, abs=1e-4), label  # float32 sums there
        seen += 1
    assert 100 * found.correlation == pytest.approx(want["Cor(ln(PPL(Q)), ln(PPL(base)))"][0], abs=0.011)
    assert [found.kl.value, found.kl.error] == pytest.approx(want["Mean KLD"], abs=2e-6)
    for name, mine, scale, near in (
        ("KLD", found.kl_percentiles, 1, 2e-6),
        ("Δp", found.p_change_percentiles, 100, 2e-3),
    ):
        for p, value in mine.items():
            label = {0.0: "Minimum", 50.0: "Median", 100.0: "Maximum"}.get(p, f"{p:.1f}%") + f" {name}"
            if label in want:
                assert scale * value == pytest.approx(want[label][0], abs=near), label
                seen += 1
    for label, ours in (("Mean Δp", found.p_change), ("RMS Δp", found.p_change_rms), ("Same top p", found.same_top)):
        assert [100 * ours.value, 100 * ours.error] == pytest.approx(want[label], abs=2e-3), label
        seen += 1
    assert seen == len(want) - 2  # all but the mean KLD and the correlation, which are above


def test_our_file_is_theirs(
    golden: Path, small: ref_engine.Model, text_ids: list[int], tmp_path: Path, stats: dict[str, Any]
) -> None:
    """The same header and ids byte for byte, and rows that mean the same within half a step."""
    ctx, n = stats["ctx"], stats["chunks"]
    theirs = read_kld(golden / "kl" / "base.kld")
    ids = text_ids[: ctx * n]
    windows = half_windows(ids, ctx, bos(small))
    with KldWriter(tmp_path / "ours.kld", ids, ctx, small.spec.n_vocab) as writer:
        rows = diverge(ModelBase(small, writer.write), small, windows)
    assert rows.kl.max() == 0 and rows.same_top.all()
    ours = read_kld(tmp_path / "ours.kld")
    header = 20 + 4 * ctx * n
    raw = (tmp_path / "ours.kld").read_bytes()
    assert raw[:header] == (golden / "kl" / "base.kld").read_bytes()[:header]
    assert (ours.ids == theirs.ids).all() and ours.packed.shape == theirs.packed.shape == (8, 15, 2052)
    for number, window in enumerate(windows):
        pieces = spans(window, ours.n_vocab)
        a, b = (next(iter(kept.log_probs(number, window, pieces))) for kept in (ours, theirs))
        assert np.abs(a - b).max() < 3e-4
    final = summary(rows).perplexity
    assert [final.value, final.error] == pytest.approx(stats["PPL"], rel=2e-6)


# -- by hand ------------------------------------------------------------------------------------------------------


def test_one_row_by_hand() -> None:
    """P = 1/2, 1/4, 1/4; Q = 1/4, 1/4, 1/2; y = 0. KL = 1/2 ln 2 + 0 + 1/4 ln 1/2 = 1/4 ln 2, both ways."""
    base, other = (np.log(np.array([row], F32)) for row in ([2, 1, 1], [1, 1, 2]))
    found = compare_rows(np.stack([log_softmax(base[0])]), other, [0])
    assert found.kl[0] == pytest.approx(math.log(2) / 4, rel=1e-7)
    assert found.kl_reverse[0] == pytest.approx(math.log(2) / 4, rel=1e-7)
    assert found.p_change[0] == pytest.approx(-0.25, rel=1e-7)
    assert (found.nll_base[0], found.nll[0]) == pytest.approx((math.log(2), math.log(4)), rel=1e-7)
    assert not found.same_top[0]


def test_removed_tokens() -> None:
    """What P has removed adds nothing; what Q has removed and P has not is infinitely far."""
    p, q = np.array([[0, -np.inf, 0]], F32), np.array([[0, 0, 0]], F32)
    assert compare_rows(log_softmax(p[0])[None], q, [0]).kl[0] == pytest.approx(math.log(1.5), rel=1e-12)
    assert compare_rows(log_softmax(q[0])[None], p, [0]).kl[0] == math.inf
    rows = compare_rows(log_softmax(q[0])[None], p, [0])
    found = summary(Rows(*(np.repeat(getattr(rows, name), 3) for name in Rows.__dataclass_fields__)))
    assert found.kl.value == math.inf and math.isnan(found.kl.error)
    assert found.kl_percentiles[50.0] == math.inf


def test_small_divergences_are_exact() -> None:
    """Two rows a little apart in one logit: KL = p (1 - p) d² / 2 to first order. In float32 it would be lost."""
    p = np.zeros((1, 1000), F32)
    q = p.copy()
    q[0, 7] = 1e-6
    share = 1 / 1000
    want = share * (1 - share) * float(F32(1e-6)) ** 2 / 2
    assert compare_rows(log_softmax(p[0])[None], q, [7]).kl[0] == pytest.approx(want, rel=2e-3)


def test_summary_by_hand() -> None:
    """Two tokens: p(y) 1/2 and 1/8 under the base, 1/4 and 1/8 under the other."""
    nll_base, nll = np.log([2.0, 8]), np.log([4.0, 8])
    rows = Rows(nll_base, nll, np.array([0.1, 0.3]), np.zeros(2), np.array([-0.25, 0]), np.array([True, False]))
    found = summary(rows)
    assert found.perplexity_base.value == pytest.approx(4) and found.perplexity.value == pytest.approx(math.sqrt(32))
    assert found.ratio.value == pytest.approx(math.sqrt(2)) and found.correlation == pytest.approx(1)
    assert found.ln_ratio.error == pytest.approx(math.log(2) / 2)  # differences ln 2 and 0: deviation ln 2 / sqrt 2
    assert (found.kl.value, found.kl.error) == pytest.approx((0.2, 0.1))
    assert found.kl_percentiles[25.0] == pytest.approx(0.15) and found.kl_percentiles[99.9] == pytest.approx(0.2998)
    assert found.p_change_rms.value == pytest.approx(0.25 / math.sqrt(2))
    assert (found.same_top.value, found.same_top.error) == (0.5, 0.5)


def test_percentiles_of_one_value() -> None:
    assert set(percentiles(np.array([3.0])).values()) == {3.0}


# -- windows ------------------------------------------------------------------------------------------------------


def test_halves_are_llama_cpps() -> None:
    """7 is BOS, put in place; the incomplete last window goes; of 5 tokens rows 2 and 3 score tokens 3 and 4."""
    found = half_windows(range(100, 112), 5, 7)
    assert [list(window.ids) for window in found] == [[7, 101, 102, 103, 104], [7, 106, 107, 108, 109]]
    assert [spans(window, 50) for window in found] == [[(2, 4)], [(2, 4)]]
    assert [window.ids[0] for window in half_windows(range(100, 112), 5, None)] == [100, 105]


def test_pieces_bound_the_logits() -> None:
    (window,) = text_windows(range(300), 300)
    assert spans(window, 32_000) == [(0, 128), (128, 256), (256, 299)]
    assert max(b - a for a, b in spans(window, 262_144)) * 262_144 * 4 <= 64 << 20
    assert all(b - a == 1 for a, b in spans(window, 1 << 25))


@pytest.mark.parametrize("skip", [1, 9])
def test_perplexities_are_those_of_perplexity(
    skip: int, small: ref_engine.Model, coarse: ref_engine.Model, text_ids: list[int]
) -> None:
    prefix = [id for id in small.tokenizer.added_before if id is not None]
    ids = text_ids[:40]
    found = summary(diverge(ModelBase(small), coarse, text_windows(ids, 25, prefix, skip)))
    for model, ours in ((small, found.perplexity_base), (coarse, found.perplexity)):
        want = perplexity(model, ids, 25, prefix=prefix, skip=skip)
        assert (ours.value, ours.error) == pytest.approx((want.value, want.error), rel=1e-6)
        assert found.n_tokens == want.n_tokens


def test_too_short_a_text_is_refused() -> None:
    for make in (lambda: half_windows([1, 2, 3], 4, None), lambda: text_windows([5], 8)):
        with pytest.raises(RefEngineError, match="too short"):
            make()
    with pytest.raises(RefEngineError, match="no second half"):
        half_windows(range(9), 2, None)


# -- files that are not in order ----------------------------------------------------------------------------------


def test_packing_by_hand() -> None:
    """16 nats over 65,535 steps; what lies lower, and the lowest itself, is 0; the largest is 65,535."""
    row = packed_row(np.array([0, -1, -16, -40, 0], F32))
    scale, lowest = row[:4].view("<f4")
    assert scale == F32(16) / F32(65535)
    total = math.log(2 + math.exp(-1) + math.exp(-16) + math.exp(-40))
    assert lowest == pytest.approx(-16 - total, rel=1e-6)
    assert row[4:].tolist() == [65535, 61439, 0, 0, 65535, 0]  # 15 / 16 * 65535 = 61439.06; one more for an even count
    assert packed_row(np.zeros(4, F32))[4:].tolist() == [0, 0, 0, 0]


def edited(golden: Path, tmp_path: Path, change: Callable[[bytearray], object]) -> Path:
    raw = bytearray((golden / "kl" / "base.kld").read_bytes())
    replaced = change(raw)
    path = tmp_path / "edited.kld"
    path.write_bytes(replaced if isinstance(replaced, bytes) else raw)
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: bytes(raw[:-2]), "has 493522 bytes, expected 493524"),
        (lambda raw: bytes(raw) + b"x", "has 493525 bytes"),
        (lambda raw: bytes(raw[:15]), "ends within its header"),
        (lambda raw: b"GGUF" + bytes(raw[4:]), "not a file of log-probabilities"),
        (lambda raw: struct.pack_into("<i", raw, 8, -5), "n_ctx is -5"),
        (lambda raw: struct.pack_into("<i", raw, 12, 0), "n_vocab is 0"),
        (lambda raw: struct.pack_into("<i", raw, 16, 2**30), "n_chunk is 1073741824"),
        (lambda raw: struct.pack_into("<i", raw, 20, 5000), "token id 5000 is outside"),
    ],
)
def test_a_damaged_file_is_refused(
    change: Callable[[bytearray], object], message: str, golden: Path, tmp_path: Path
) -> None:
    with pytest.raises(RefEngineError, match=message):
        read_kld(edited(golden, tmp_path, change))


def test_a_scale_that_is_no_number_is_refused(golden: Path, tmp_path: Path) -> None:
    at = 20 + 4 * 32 * 8
    kept = read_kld(edited(golden, tmp_path, lambda raw: struct.pack_into("<f", raw, at, math.nan)))
    windows = kept.windows(0)
    with pytest.raises(RefEngineError, match="chunk 0 has a row whose scale is no number"):
        next(iter(kept.log_probs(0, windows[0], spans(windows[0], kept.n_vocab))))


def test_a_broken_off_writer_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyError), KldWriter(tmp_path / "x.kld", range(8), 4, 10) as writer:
        writer.write(0, np.zeros((1, 10), F32))
        raise KeyError
    with (
        pytest.raises(ValueError, match="1 rows are missing"),
        KldWriter(tmp_path / "x.kld", range(8), 4, 10) as writer,
    ):
        writer.write(0, np.zeros((1, 10), F32))
    assert list(tmp_path.iterdir()) == []


def test_logits_that_are_not_finite_are_named(small: ref_engine.Model, text_ids: list[int]) -> None:
    def spoil(logits: np.ndarray) -> np.ndarray:
        if len(logits) > 2:
            logits[2, 5] = np.nan
        return logits

    with ref_engine.trace(small, "none") as t:
        t.patch("result_output", spoil)
        with pytest.raises(RefEngineError, match="the base's logits after token 4 of the window are not finite"):
            diverge(ModelBase(small), small, text_windows(text_ids[:12], 12, (), 3))
