"""Loading and calling a model: arguments, ids, caches, and what a trace records."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import ref_engine
from ref_engine.cache import Cache, cache_bytes
from ref_engine.spec import AttentionSpec
from ref_engine.weights import UnpackCache

Build = Callable[[str], Path]


@pytest.fixture(scope="module")
def model(zoo_model: Build) -> ref_engine.Model:
    return ref_engine.load(zoo_model("llama-gqa"), backend="numpy", activations="q8")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "abacus"}, "unknown backend 'abacus'"),
        ({"activations": "q4"}, "unknown activations 'q4'"),
        ({"n_ctx": 0}, "n_ctx is 0"),
        ({"n_threads": 0}, "n_threads is 0"),
    ],
)
def test_options_are_checked(options: dict[str, object], message: str, zoo_model: Build) -> None:
    with pytest.raises(ref_engine.RefEngineError, match=message):
        ref_engine.load(zoo_model("llama-gqa"), **options)  # type: ignore[arg-type]


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "notes.gguf"
    path.write_text("dear diary")
    with pytest.raises(ref_engine.GGUFError, match=r"notes\.gguf"):
        ref_engine.load(path)
    with pytest.raises(ref_engine.GGUFError, match=r"absent\.gguf"):
        ref_engine.load(tmp_path / "absent.gguf")


@pytest.mark.parametrize("ids", [[], [-1], [10**6], [1.5], [[1, 2]], ["a"]])
def test_ids_are_checked_before_anything_is_computed(ids: list[int], model: ref_engine.Model) -> None:
    cache = model.new_cache()
    with pytest.raises(ref_engine.RefEngineError):
        model.forward(ids, cache)
    assert cache.n_past == 0 and cache.nbytes == 0


def test_a_full_context_is_said_before_anything_is_computed(model: ref_engine.Model) -> None:
    cache = model.new_cache(5)
    model.forward([1, 2, 3], cache)
    with pytest.raises(ref_engine.ContextFull, match="3 tokens and 3 more do not fit a context of 5"):
        model.forward([4, 5, 6], cache)
    assert cache.n_past == 3
    assert (model.forward([4, 5], cache) == model.logits([1, 2, 3, 4, 5])[3:]).all()


def test_the_last_logits_are_the_last_row(model: ref_engine.Model) -> None:
    assert (model.last_logits([3, 1, 4, 1, 5], model.new_cache()) == model.logits([3, 1, 4, 1, 5])[-1]).all()


def test_a_pass_that_fails_leaves_the_cache_as_it_was(model: ref_engine.Model) -> None:
    cache = model.new_cache()
    model.forward([1, 2, 3], cache)
    with ref_engine.trace(model) as t:
        t.patch("l_out-1", lambda x: x[:, :1])
        with pytest.raises(ValueError, match="patch of l_out-1"):
            model.forward([4], cache)
    assert cache.n_past == 3
    assert (model.forward([4], cache) == model.logits([1, 2, 3, 4])[3:]).all()


def test_cache_memory_by_hand(model: ref_engine.Model) -> None:
    """Keys and values, float16 in q8 mode, over all layers of K heads."""
    a = model.spec.layers[0].mixer
    assert isinstance(a, AttentionSpec)
    per_token = 2 * 2 * model.spec.n_layer * a.n_head_kv * a.head_dim
    assert cache_bytes(model.spec, 300, "f16") == 300 * per_token
    cache = model.new_cache(300)
    model.forward(np.zeros(40, np.int64), cache)
    assert 0 < cache.nbytes <= 300 * per_token
    model.forward(np.zeros(260, np.int64), cache)
    assert cache.nbytes == 300 * per_token


def test_truncate_refuses_what_is_not_there(model: ref_engine.Model) -> None:
    cache = Cache(model.spec, 8, "f32")
    for n in (-1, 1):
        with pytest.raises(ValueError, match="cannot truncate"):
            cache.truncate(n)
        with pytest.raises(ValueError, match="cannot take"):
            cache.take(Cache(model.spec, 8, "f32"), n)


def test_trace_records_only_what_was_asked_for(model: ref_engine.Model) -> None:
    with ref_engine.trace(model, "l_out-*", "kq_soft_max-1") as t:
        model.logits([1, 2, 3])
    assert set(t) == {*(f"l_out-{i}" for i in range(model.spec.n_layer)), "kq_soft_max-1"}
    assert t["l_out-0"].shape == (3, model.spec.d_model)
    np.testing.assert_allclose(t["kq_soft_max-1"].sum(-1), 1, rtol=1e-6)
    before = dict(t)
    model.logits([4])
    assert {k: v.shape for k, v in before.items()} == {k: v.shape for k, v in t.items()}


def test_trace_joins_the_passes_of_one_sequence(model: ref_engine.Model) -> None:
    ids = list(range(9))
    with ref_engine.trace(model) as whole:
        logits = model.logits(ids)
    cache = model.new_cache()
    with ref_engine.trace(model) as split:
        for i in range(0, 9, 2):
            model.forward(ids[i : i + 2], cache)
    assert set(whole) == set(split) and len(split.calls("l_out-0")) == 5
    for name in whole:
        if name.startswith("kq-"):
            continue  # scores of keys that a later pass brought are not there in an earlier one
        assert (whole[name] == split[name]).all(), name
    assert (whole["result_output"] == logits).all()


def test_tracing_changes_no_bit(model: ref_engine.Model) -> None:
    plain = model.logits([5, 6, 7])
    with ref_engine.trace(model):
        traced = model.logits([5, 6, 7])
    assert (plain == traced).all()


def test_a_patch_goes_on_into_the_result(model: ref_engine.Model) -> None:
    """With the last layer's output replaced by another prompt's, the logits are that prompt's."""
    last = f"l_out-{model.spec.n_layer - 1}"
    with ref_engine.trace(model, last) as other:
        want = model.logits([9, 8, 7])
    with ref_engine.trace(model, last) as t:
        t.patch(last, lambda x: other[last])
        got = model.logits([1, 2, 3])
    assert (got == want).all() and (t[last] == other[last]).all()
    assert not (model.logits([1, 2, 3]) == want).all()


def test_unpacked_weights_stay_within_their_budget() -> None:
    cache, made = UnpackCache(100), []

    def make(n: int) -> Callable[[], tuple[int, int]]:
        return lambda: (made.append(n) or n, n)  # type: ignore[func-returns-value]

    for n in (40, 50, 40, 30, 50, 200, 200):
        assert cache.get((str(n), "f32"), make(n)) == n
        assert cache.held <= 100
    assert made == [40, 50, 30, 50, 200, 200]  # 30 drove out 50, the least recently used; 200 never fits


def test_weights_are_views_of_the_file(zoo_model: Build) -> None:
    model = ref_engine.load(zoo_model("llama-gqa"), backend="numpy")
    weight = model.weights["blk.0.attn_q.weight"]
    assert not weight.data.flags.owndata and not weight.data.flags.writeable
