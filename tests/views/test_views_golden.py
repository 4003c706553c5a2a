"""The views against llama.cpp's own tensors, transformers' and arithmetic by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ref_engine
from ref_engine import views
from ref_engine.errors import ContextFull, RefEngineError
from ref_engine.model import Model
from ref_engine.spec import RoutingSpec
from ref_engine.views.attention import starts
from ref_engine.views.experts import distribution, entropy
from ref_engine.views.ranking import ranked

ZooModel = Callable[..., Path]


@pytest.fixture(scope="module")
def moe(golden: Path) -> Model:
    return ref_engine.load(golden / "models" / "tiny-moe.gguf", activations="f32", n_threads=1)


@pytest.mark.parametrize("name", ["llama-dense", "gemma3-dense"])
def test_attention_and_norms_are_llama_cpps(name: str, zoo_model: ZooModel, golden: Path, ggml_gelu: None) -> None:
    theirs = np.load(golden / "zoo" / "nodes" / f"{name}.npz")
    model = ref_engine.load(zoo_model(name), backend="numpy", activations="f32")
    ids = theirs["tokens"].tolist()
    n = len(ids)
    for layer in (0, 1):
        want = theirs[f"kq_soft_max-{layer}"].reshape(-1, n, theirs[f"kq_soft_max-{layer}"].shape[-1])[..., :n]
        maps = views.attention(model, ids, layer)
        np.testing.assert_allclose(maps.maps, want, atol=1e-5)
        one = views.attention(model, ids, layer, head=1, start=3, stop=7)
        np.testing.assert_allclose(one.maps[0], want[1, 3:7, :7], atol=1e-5)
        small = views.attention(model, ids, layer, size=4).maps
        assert small.shape == (want.shape[0], 4, 4)
        np.testing.assert_allclose(small, want.reshape(-1, 4, n // 4, 4, n // 4).max(axis=(2, 4)), atol=1e-5)
    norms = views.norms(model, ids).values["l_out"]
    want = np.sqrt((theirs["l_out-0"].astype(np.float64) ** 2).mean(-1))
    np.testing.assert_allclose(norms[0], want, rtol=1e-5)


@pytest.mark.parametrize("kind", ["python", "verse", "russian"])
def test_routing_is_llama_cpps(kind: str, moe: Model, golden: Path) -> None:
    with np.load(golden / "models" / "tiny-moe.npz") as data:
        ids = data[f"{kind}/ids"].tolist()
        for r in views.experts(moe, ids):
            probs, topk = data[f"{kind}/probs-{r.layer}"].astype(np.float64), data[f"{kind}/topk-{r.layer}"]
            clear = np.sort(probs, axis=-1)[:, -2] - np.sort(probs, axis=-1)[:, -3] > 1e-2  # the file is quantised
            assert clear.sum() >= 5 and r.most_entropy == math.log(8) and not r.shared
            same = (np.sort(r.ids, axis=-1) == np.sort(topk, axis=-1)).all(axis=-1)
            assert same[clear].all()
            np.testing.assert_allclose(r.entropy, -(probs * np.log(probs)).sum(-1), atol=0.05)
            best = (r.ids[:, 0] == topk[:, 0]) & clear
            np.testing.assert_allclose(r.weights[best], data[f"{kind}/weights-{r.layer}"][best], atol=0.03)
            assert r.load.tolist() == [int((r.ids == e).sum()) for e in range(8)]


def test_logits_of_the_lens_are_llama_cpps(zoo_model: ZooModel, golden: Path, ggml_gelu: None) -> None:
    """The last row of the lens, and of the layers' rows the last one, which needs soft cap and scale to be right."""
    theirs = np.load(golden / "zoo" / "logits" / "gemma3-softcap.npz")
    model = ref_engine.load(zoo_model("gemma3-softcap"), backend="numpy", activations="f32")
    ids, logits = theirs["tokens"].tolist(), theirs["logits"].astype(np.float64)
    want = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    lens, tokens = views.layers(model, ids, top=3), views.tokens(model, ids, top=3)
    for row in (lens.rows[-1], lens.rows[-2], tokens.after):
        np.testing.assert_allclose(row.logprobs, -np.sort(-want, axis=-1)[:, :3], atol=1e-4)
        np.testing.assert_allclose(row.logprob[:-1], want[np.arange(len(ids) - 1), ids[1:]], atol=1e-4)
        np.testing.assert_allclose(row.entropy, -(np.exp(want) * want).sum(-1), atol=1e-4)


def test_distribution_by_hand() -> None:
    """Logits ln 1, ln 2, ln 4, ln 1: probabilities 1/8, 1/4, 1/2, 1/8; entropy 1.75 ln 2."""
    logits = np.log(np.array([[1, 2, 4, 1], [1, 0.5, 0.25, 0.25]], np.float32))
    r = ranked(logits, 3, [3, None])
    assert r.ids.tolist() == [[2, 1, 0], [0, 1, 2]]
    np.testing.assert_allclose(r.logprobs[0], np.log([1 / 2, 1 / 4, 1 / 8]), atol=1e-7)
    np.testing.assert_allclose(r.entropy, [1.75 * math.log(2)] * 2, atol=1e-6)
    assert r.rank.tolist() == [4, 0]  # of the two with 1/8, the first has rank 3
    np.testing.assert_allclose(r.logprob[0], math.log(1 / 8), atol=1e-7)
    assert math.isnan(r.logprob[1])
    removed = ranked(np.array([[0, -np.inf, 0]], np.float32), 3, [1])
    assert removed.entropy[0] == pytest.approx(math.log(2)) and removed.logprob[0] == -math.inf


def test_router_distributions_by_hand() -> None:
    """Scores 0.2, 0.6, 0.8 of sigmoids are shares of 1/8, 3/8, 1/2; a late softmax knows only the chosen."""
    scores, chosen = np.array([[0.2, 0.6, 0.8]]), np.array([[2, 1]], np.int32)
    p = distribution(scores, chosen, RoutingSpec(gate="sigmoid"))
    np.testing.assert_allclose(p, [[1 / 8, 3 / 8, 1 / 2]])
    np.testing.assert_allclose(distribution(scores, chosen, RoutingSpec(gate="sqrt_softplus")), p)
    np.testing.assert_allclose(entropy(p), [math.log(8) / 8 + 3 / 8 * math.log(8 / 3) + math.log(2) / 2])
    logits = np.log(np.array([[7.0, 1.0, 3.0]]))
    late = distribution(logits, chosen, RoutingSpec(gate="softmax_weight"))
    np.testing.assert_allclose(late, [[3 / 4, 1 / 4]])
    assert entropy(np.array([1.0, 0.0])) == 0


def test_parts_of_a_map() -> None:
    assert starts(10, 4).tolist() == [0, 2, 5, 7] and starts(3, 8).tolist() == [0, 1, 2]
    with pytest.raises(RefEngineError, match="at least one row"):
        starts(3, 0)


def test_pieces_and_company_change_nothing(golden: Path) -> None:
    """A text of three pieces: the same numbers as in one, and nobody else's trace or load is touched."""
    model = ref_engine.load(golden / "models" / "tiny-moe.gguf", n_threads=1)
    ids = (model.tokenize("And the king said unto his servants, Go ye up.") * 12)[:150]
    with ref_engine.trace(model, "kq_soft_max-2", "ffn_moe_topk-1", "l_out-3") as t:
        model.logits(ids)
    before = model.expert_load.counts[1].copy()
    maps = views.attention(model, ids, 2)
    assert (maps.maps == t["kq_soft_max-2"]).all()  # q8 mode: the same bits for any split
    routed = views.experts(model, ids, start=100, stop=140)[1]
    assert (routed.ids == t["ffn_moe_topk-1"][100:140]).all()
    norms = views.norms(model, ids, ["l_out", "nothing"], start=60, stop=70)
    np.testing.assert_allclose(
        norms.values["l_out"][3], np.sqrt((t["l_out-3"][60:70].astype(float) ** 2).mean(-1)), rtol=1e-6
    )
    assert norms.names == ("l_out",)
    assert model.taps == [] and (model.expert_load.counts[1] == before).all() and model.ops.name == "native"


def test_between_steps_the_model_is_free(moe: Model) -> None:
    steps = views.layers_steps(moe, moe.tokenize("a b c d e f g h i j k l m n o p q r s t"))
    ops, n = moe.ops, 0
    for _ in steps:
        assert moe.taps == [] and moe.ops is ops
        n += 1
    assert n >= 2 * (1 + 4)  # two pieces of 16: a pass each, and a step for each layer


def test_times_name_what_ran(moe: Model) -> None:
    ids = moe.tokenize("And the king")
    found = views.times(moe, ids, repeat=2)
    calls = {(op.name, op.tensors): op.calls for op in found.operations}
    assert calls["moe_ffn", "ffn_gate_exps ffn_up_exps ffn_down_exps"] == calls["attend", ""] == 4
    assert calls["linears", "attn_q attn_k attn_v"] == 4 and found.operations[-1].name == "between operations"
    assert sum(op.seconds for op in found.operations) == pytest.approx(found.seconds)
    token = views.times(moe, ids, "token", repeat=2)
    assert (token.n_tokens, token.phase) == (1, "token")
    kernels = {op.runs for op in views.times(moe, ids).operations if op.name == "attend"}
    assert kernels == {"kernel" if moe.ops.name == "native" else "numpy"}


def test_memory_counts_the_file_and_the_caches(moe: Model) -> None:
    parts = {part.name: part for part in views.memory(moe, sequences=3, n_ctx=100)}
    # 4 layers, keys and values of 2 heads of 32 numbers, 4 bytes in f32 mode
    assert parts["keys and values"].nbytes == 3 * 100 * 4 * 2 * 2 * 32 * 4
    assert parts["router"].nbytes == 4 * 8 * 192 * 4


def test_what_cannot_be_seen_is_an_error(moe: Model, smollm2: Path) -> None:
    ids = [1, 2, 3]
    dense = ref_engine.load(smollm2, n_ctx=8)
    wrong: list[tuple[str, Callable[[], Any]]] = [
        ("this model has no experts", lambda: views.experts(dense, ids)),
        ("there is no layer 4: this model has 4", lambda: views.attention(moe, ids, 4)),
        ("there is no layer -1", lambda: views.attention(moe, ids, -1)),
        ("there is no head 6: layer 0 has 6", lambda: views.attention(moe, ids, 0, head=6)),
        ("positions 2 to 2 are not within the 3 tokens", lambda: views.layers(moe, ids, 1, 2, 2)),
        ("positions 0 to 4 are not within", lambda: views.norms(moe, ids, stop=4)),
        ("called nothing", lambda: views.norms(moe, ids, ["nothing"])),
        ("at least once", lambda: views.times(moe, ids, repeat=0)),
        ("two tokens at least", lambda: views.times(moe, [1], "token")),
        ("at least one token id", lambda: views.tokens(moe, [])),
        ("token id 2048 is outside", lambda: views.tokens(moe, [2048])),
    ]
    for message, look in wrong:
        with pytest.raises(RefEngineError, match=message):
            look()
    with pytest.raises(ContextFull):
        views.tokens(dense, ids * 3)
