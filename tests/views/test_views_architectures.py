"""Every view of every architecture: it works, or it says in a line why not; and what it says adds up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import ref_engine
from ref_engine import views
from ref_engine.errors import RefEngineError

SPECS = Path(__file__).parents[2] / "golden" / "architectures" / "specs"
NAMES = sorted(path.stem for path in SPECS.glob("*.json"))
N = 9
# Compressed keys are no positions, so such layers have no maps; after their last layer some models go on.
COMPRESSED = {"deepseek4-moe": (2, 3)}
GO_ON = {"hrm_text-dense", "kimi-k3-moe"}


@pytest.mark.parametrize("name", NAMES)
def test_all_views(name: str, zoo_model: Callable[..., Path]) -> None:
    model = ref_engine.load(zoo_model(name, "architectures/specs"), n_threads=1)
    ids = np.load(SPECS.parent / "logits" / f"{name}.npz")["tokens"][:N].tolist()
    with ref_engine.trace(model, "kq_soft_max-*", "ffn_moe_topk-*") as t:
        logits = model.logits(ids)
    shape = views.shape(model)

    lens = views.layers(model, ids, top=2)
    x = logits.astype(np.float64)
    log_p = x - np.log(np.exp(x - x.max(-1, keepdims=True)).sum(-1, keepdims=True)) - x.max(-1, keepdims=True)
    np.testing.assert_allclose(lens.rows[-1].logprobs, np.sort(log_p, axis=-1)[:, :-3:-1], atol=1e-9)
    assert lens.layers == tuple(range(shape.n_layers))
    is_output = np.allclose(lens.rows[-2].logprobs, lens.rows[-1].logprobs, atol=1e-5)
    assert is_output == (name not in GO_ON)

    traced = {int(n.rpartition("-")[2]) for n in t if n.startswith("kq_soft_max")}
    assert traced - set(COMPRESSED.get(name, ())) == set(shape.with_attention)
    for layer in range(shape.n_layers):
        if layer not in shape.with_attention:
            with pytest.raises(RefEngineError, match=f"^layer {layer} has no attention map; "):
                views.attention(model, ids, layer)
            continue
        maps = views.attention(model, ids, layer)
        assert maps.maps.shape == (shape.n_heads[layer], N, N) and not maps.downsampled
        total = maps.maps.sum(-1)
        assert total.max() < 1 + 1e-4 and (maps.sinks or total.min() > 1 - 1e-4)
        assert not shape.causal or not np.triu(maps.maps, 1).any()

    assert {int(n.rpartition("-")[2]) for n in t if n.startswith("ffn_moe_topk")} == set(shape.with_experts)
    for r in views.experts(model, ids) if shape.with_experts else ():
        assert r.load.sum() == N * shape.n_used[r.layer] == r.ids.size
        assert r.entropy.min() > -1e-6 and r.entropy.max() < r.most_entropy + 1e-5

    norms = views.norms(model, ids)
    assert "l_out" in norms.names and not np.isnan(norms.values["l_out"]).any()
    times = views.times(model, ids, repeat=1)
    assert abs(sum(op.seconds for op in times.operations) - times.seconds) < 1e-6
    weights = sum(part.nbytes for part in views.memory(model) if part.kind == "weights")
    assert weights == sum(info.nbytes for info in model.file.tensors.values())
    if not shape.causal:
        with pytest.raises(RefEngineError, match="sees the whole text at once"):
            views.tokens(model, ids)
    else:
        np.testing.assert_array_equal(views.tokens(model, ids, 2).after.logprobs, lens.rows[-1].logprobs)
