"""A mixture of experts with a bounded cache of what a backend makes of its experts: the same results."""

from collections.abc import Callable
from pathlib import Path

import pytest

import ref_engine
from ref_engine.compat import has_kernels
from ref_engine.errors import RefEngineError
from ref_engine.mixture import FILE_TYPES
from ref_engine.quantize_file import quantize_file

Build = Callable[[str, str], Path]
BACKENDS = ["numpy", *(["native"] if has_kernels else [])]


@pytest.fixture
def mixture(zoo_model: Build, tmp_path: Path) -> Path:
    """8 experts of three matrices of 384 x 256 in each of two layers, Q8_0: 104,448 bytes a matrix."""
    path = tmp_path / "moe.gguf"
    quantize_file(zoo_model("qwen3moe-moe", "architectures/specs"), path, FILE_TYPES["Q8_0"])
    return path


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_bounded_cache_changes_no_bit(mixture: Path, backend: str) -> None:
    ids = list(range(0, 120, 7))
    plain = ref_engine.load(mixture, backend=backend, n_threads=1)
    assert plain.weights.expert_cache is None
    want = plain.logits(ids)
    budget = 1 << 20
    small = ref_engine.load(mixture, backend=backend, n_threads=1, expert_cache=budget)
    assert (small.logits(ids) == want).all()
    cache = small.weights.expert_cache
    assert cache is not None and 0 < cache.held <= budget
    assert cache.bytes_read == cache.misses * 104_448
    assert cache.misses > budget // 104_448  # more were needed than fit


def test_a_cache_that_holds_all_reads_each_expert_once(mixture: Path) -> None:
    model = ref_engine.load(mixture, backend=BACKENDS[-1], n_threads=1, expert_cache=1 << 30)
    ids = list(range(0, 120, 7))
    model.logits(ids)
    cache = model.weights.expert_cache
    assert cache is not None
    first = cache.misses
    assert 0 < first <= 2 * 3 * 8
    model.logits(ids)
    assert cache.misses == first and cache.hits >= first


def test_no_room_at_all_still_works(mixture: Path) -> None:
    model = ref_engine.load(mixture, backend=BACKENDS[-1], n_threads=1, expert_cache=0)
    assert (model.logits([1, 2]) == ref_engine.load(mixture, backend=BACKENDS[-1], n_threads=1).logits([1, 2])).all()
    assert model.weights.expert_cache is not None and model.weights.expert_cache.held == 0


def test_a_negative_size_is_refused(mixture: Path) -> None:
    with pytest.raises(RefEngineError, match="expert_cache is -1"):
        ref_engine.load(mixture, expert_cache=-1)
