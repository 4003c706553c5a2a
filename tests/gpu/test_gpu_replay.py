"""Tokens one by one from a recording: the same logits, over a stand-in that records as a device does."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import standin

import ref_engine
from ref_engine.gpu import experts, products
from ref_engine.gpu.packed import has_kernel

Build = Callable[..., Path]
Nmse = Callable[[np.ndarray, np.ndarray], np.ndarray]


@pytest.fixture(autouse=True)
def all_by_kernels(cupy: standin.Cupy, monkeypatch: pytest.MonkeyPatch) -> None:
    """What no kernel knows waits for the device, see `what CUDA refuses`."""
    for user in (products, experts):
        monkeypatch.setattr(user, "has_kernel", has_kernel)


def both(path: Path, **options: Any) -> tuple[ref_engine.Model, ref_engine.Model, list[int]]:
    truth = ref_engine.load(path, backend="numpy", activations="f32")
    ids = np.random.default_rng(1).integers(0, truth.spec.n_vocab, 20).tolist()
    return truth, ref_engine.load(path, backend="cupy", activations="f32", **options), ids


def one_by_one(model: ref_engine.Model, ids: list[int], first: int, cache: Any) -> np.ndarray:
    return np.array([model.last_logits(ids[:first], cache), *(model.last_logits([i], cache) for i in ids[first:])])


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("llama-gqa", ""),
        ("gemma3-softcap", ""),
        ("gemma3-pattern-scalar", ""),
        ("gpt-oss-moe", "architectures/variants"),
        ("minicpm3-dense", "architectures/specs"),
        ("mistral4-moe", "architectures/variants"),
        ("hy_v4-moe", "architectures/specs"),
    ],
)
def test_recorded_tokens(name: str, folder: str, zoo_model: Build, cupy: standin.Cupy, error: Nmse) -> None:
    """Windows, caps, sinks, a mixture, both kinds of latent attention, an indexer that need not choose yet: every token
    but the first goes through the recording."""
    truth, model, ids = both(zoo_model(name, folder) if folder else zoo_model(name))
    if name in ("minicpm3-dense", "mistral4-moe", "hy_v4-moe"):
        ids = ids[:9]  # they take the emulator longer
    want, launched = truth.logits(ids), cupy.graphs
    got = one_by_one(model, ids, 5, model.new_cache())
    assert model.why_not_recorded is None
    assert cupy.graphs - launched == len(ids) - 5  # once to compare, and all tokens but one of the prompt's
    assert error(got, want[4:]).max() < 1e-9


def test_room_is_taken_anew(zoo_model: Build, cupy: standin.Cupy, error: Nmse, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that move are recorded where they are then; going back changes nothing of it."""
    monkeypatch.setattr("ref_engine.cache._FIRST_ROWS", 4)
    truth, model, ids = both(zoo_model("llama-gqa"))
    want, cache, launched = truth.logits(ids), model.new_cache(), cupy.graphs
    assert error(one_by_one(model, ids, 2, cache), want[1:]).max() < 1e-9
    assert cupy.graphs - launched == 18  # all that were not first in their rows, and one for each rows
    cache.truncate(7)
    got = [model.last_logits([i], cache) for i in ids[7:]]
    assert error(np.array(got), want[7:]).max() < 1e-9


def test_several_caches_and_larger_steps_between(zoo_model: Build, cupy: standin.Cupy, error: Nmse) -> None:
    truth, model, ids = both(zoo_model("llama-gqa"))
    want, caches = truth.logits(ids), [model.new_cache(), model.new_cache()]
    for cache in caches:
        model.last_logits(ids[:3], cache)
    for t in range(3, 9):
        for cache in caches:
            assert error(model.last_logits([ids[t]], cache), want[t]) < 1e-9
    both_at_once = model.step([([ids[9]], cache) for cache in caches])
    assert error(np.array(both_at_once), want[[9, 9]]).max() < 1e-9
    assert error(model.last_logits(ids[10:14], caches[0]), want[13]) < 1e-9
    assert error(model.last_logits([ids[14]], caches[0]), want[14]) < 1e-9
    assert len(model._recorded) == 2
    del cache, caches
    gc.collect()
    assert len(model._recorded) == 0  # and with them the device's arrays


def test_experts_are_counted_and_looked_at(zoo_model: Build, cupy: standin.Cupy) -> None:
    truth, model, ids = both(zoo_model("gpt-oss-moe", "architectures/variants"))
    for one in (truth, model):
        one_by_one(one, ids, 5, one.new_cache())
    want = truth.expert_load.counts

    def held() -> None:
        got = model.expert_load.counts
        assert want.keys() == got.keys()
        for layer, counts in want.items():
            np.testing.assert_array_equal(got[layer], counts)

    held()
    gc.collect()  # the cache is gone, what it counted is not
    assert len(model._recorded) == 0
    held()
    model.expert_load.reset()
    assert sum(int(c.sum()) for c in model.expert_load.counts.values()) == 0
    cache = model.new_cache()
    model.last_logits(ids[:4], cache)
    model.last_logits([ids[4]], cache)
    launched = cupy.graphs
    with ref_engine.trace(model) as seen:
        model.last_logits([ids[5]], cache)
    assert cupy.graphs == launched and "l_out-0" in seen


@pytest.mark.parametrize("name", ["mamba2-dense", "llama4-moe", "hy_v4-moe"])
def test_what_cannot_be_recorded(name: str, zoo_model: Build, cupy: standin.Cupy, error: Nmse) -> None:
    """A state, numbers and choices that the host makes of positions: they go on as before, and the model says why."""
    truth, model, ids = both(
        zoo_model(name, "architectures/specs" if name == "mamba2-dense" else "architectures/variants")
    )
    want = truth.logits(ids[:9])
    assert error(one_by_one(model, ids[:9], 5, model.new_cache()), want[4:]).max() < 1e-9
    assert model.why_not_recorded and cupy.graphs == 0


def test_what_cuda_refuses(zoo_model: Build, cupy: standin.Cupy, error: Nmse, monkeypatch: pytest.MonkeyPatch) -> None:
    """Something that waits for the device while a stream records."""
    truth, model, ids = both(zoo_model("llama-gqa"))
    plain = model.ops.rms_norm

    def waits(x: Any, weight: Any, eps: float) -> Any:
        y = plain(x, weight, eps)
        return y if float(y[0].max()) < 1e30 else plain(x, weight, eps)

    monkeypatch.setattr(model, "ops", replace(model.ops, rms_norm=waits))
    got = one_by_one(model, ids[:9], 5, model.new_cache())
    assert error(got, truth.logits(ids[:9])[4:]).max() < 1e-9
    assert "float while a stream records" in str(model.why_not_recorded)


def test_a_copy_from_the_host_is_refused(zoo_model: Build, cupy: standin.Cupy) -> None:
    """It would be done again from where the bytes are no more; afterwards copies are possible as before."""
    _, model, ids = both(zoo_model("llama-gqa"))
    plain = model.ops.rms_norm

    def copies(x: Any, weight: Any, eps: float) -> Any:
        return plain(x, weight, eps) * np.asarray(np.ones(1, np.float32), like=x)

    model.ops = replace(model.ops, rms_norm=copies)
    one_by_one(model, ids[:8], 5, model.new_cache())
    assert model.why_not_recorded == "a copy from the host"
    assert cupy.asarray(np.arange(3)).get().tolist() == [0, 1, 2]


def test_another_result_is_not_taken(zoo_model: Build, cupy: standin.Cupy) -> None:
    """What differs from one time to the next shows before it is used."""
    _, model, ids = both(zoo_model("llama-gqa"))
    plain, calls = model.ops.rms_norm, []

    def changes(x: Any, weight: Any, eps: float) -> Any:
        calls.append(1)
        return plain(x, weight, eps) * np.float32(1 + len(calls) * 1e-6)

    model.ops = replace(model.ops, rms_norm=changes)
    one_by_one(model, ids[:8], 5, model.new_cache())
    assert "another result" in str(model.why_not_recorded)
