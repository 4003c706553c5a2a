"""Features of dense layers by hand: gates, temperatures, scaled maps, loops and skips, both ends of a model."""

import math
from collections.abc import Mapping

import numpy as np
import pytest

from ref_engine.backends import numpy_ops
from ref_engine.blocks.attention import gated, tempered
from ref_engine.blocks.ends import enter, output
from ref_engine.blocks.ffn import ffn
from ref_engine.blocks.layer import entering, leaving
from ref_engine.blocks.projection import projection
from ref_engine.blocks.site import Pass, Site, stream_after
from ref_engine.errors import ContextFull
from ref_engine.files.types import GGMLType
from ref_engine.reference.attention import temperatures
from ref_engine.spec import AttentionSpec, FfnSpec, LayerSpec, ModelSpec, NormSpec
from ref_engine.spec.attention import Temperature
from ref_engine.spec.projection import ProjectionSpec
from ref_engine.weights import Weight, Weights

Arrays = Mapping[str, list]


def weights(arrays: Arrays) -> Weights:
    made = {}
    for name, values in arrays.items():
        array = np.array(values, np.float32)
        made[name] = Weight(name, GGMLType.F32, array.shape, array.reshape(-1).view(np.uint8))
    return Weights(made)


def pass_over(*positions: int) -> Pass:
    p = Pass(numpy_ops("f32"), (), np.zeros(len(positions), np.int64), {}, lambda name, layer, x: x, tracing=False)
    p.__dict__["positions"] = np.array(positions)  # a cached property that would ask the sequences
    return p


def site(arrays: Arrays, *positions: int) -> Site:
    return Site(weights(arrays), 0, 0, pass_over(*positions or (0,)))  # type: ignore[arg-type]


def heads(**features: object) -> AttentionSpec:
    return AttentionSpec(2, 2, 2, 1.0, None, **features)  # type: ignore[arg-type]


def test_a_gate_for_each_head() -> None:
    """Maps of the input [1, 0] give 0 and ln 3: gates 1/2 and 3/4."""
    at = site({"blk.0.attn_gate.weight": [[0, 5], [math.log(3), 0]]})
    y = gated(np.float32([[8, 16, 4, 8]]), np.float32([[1, 0]]), None, heads(gate="head"), at)
    assert y == pytest.approx(np.array([[4, 8, 3, 6]]))


def test_a_gate_for_each_feature() -> None:
    at = site({"blk.0.attn_gate.weight": [[0, 0], [math.log(3), 0], [-math.log(3), 0], [0, 1]]})
    y = gated(np.float32([[8, 16, 4, 8]]), np.float32([[1, 0]]), None, heads(gate="feature"), at)
    assert y == pytest.approx(np.array([[4, 12, 1, 4]]))


def test_queries_grow_with_their_position() -> None:
    """Steps of 8: positions 0 to 7 are as they were, 8 and 15 are times 1 + 0.5 ln 2, 16 is times 1 + 0.5 ln 3."""
    t = Temperature(0.5, 8)
    want = [1, 1, 1 + 0.5 * math.log(2), 1 + 0.5 * math.log(2), 1 + 0.5 * math.log(3)]
    assert temperatures(np.array([0, 7, 8, 15, 16]), t).tolist() == np.float32(want).tolist()
    assert temperatures(np.array([0, 7]), Temperature(0.5, 8, offset=1.0)).tolist() == np.float32(want[1:3]).tolist()
    q = np.ones((2, 2, 2), np.float32)
    turned = tempered(q, heads(temperature=t), site({}, 3, 9))
    assert turned[0] == pytest.approx(np.ones((2, 2))) and turned[1] == pytest.approx(np.full((2, 2), want[2]))


def test_a_map_is_scaled_before_its_bias() -> None:
    """(2 * 3) * 0.5 + 1 = 4, and the map beside it as it is."""
    at = site({"blk.0.a.weight": [[3]], "blk.0.a.scale": [0.5], "blk.0.a.bias": [1], "blk.0.b.weight": [[7]]})
    a, b = at.linears(np.float32([[2]]), ["a", "b"])
    assert (a.tolist(), b.tolist()) == ([[4.0]], [[14.0]])


def test_a_matrix_in_place_of_attention_leaves_the_bias_out() -> None:
    at = site({"blk.0.attn_output.weight": [[0, 1], [1, 0]], "blk.0.attn_output.bias": [9, 9]})
    assert projection(np.float32([[1, 2]]), ProjectionSpec("attn_output"), at).tolist() == [[2.0, 1.0]]


def test_a_layer_recalls_and_shifts() -> None:
    at = site({"shift": [10, 20]})
    at.p.kept[stream_after(3)] = np.float32([[1, 2]])
    layer = LayerSpec(None, None, recall=3, shift="shift")
    assert entering(np.float32([[100, 200]]), layer, at).tolist() == [[111.0, 222.0]]


def test_a_layer_adds_the_embeddings_and_ends_in_a_norm() -> None:
    """[1, 1] + 2 * [1, 3] = [3, 7]; rms sqrt(29), times the model's weights [1, 2]."""
    at = site({"blk.0.layer_output_scale.weight": [2], "last.weight": [1, 2]})
    at.p.kept[stream_after(-1)] = np.float32([[1, 3]])
    plain = LayerSpec(None, None, embedding_skip=True)
    assert leaving(np.float32([[1, 1]]), plain, at).tolist() == [[3.0, 7.0]]
    normed = LayerSpec(None, None, embedding_skip=True, exit_norm=NormSpec("last", 0.0))
    assert leaving(np.float32([[1, 1]]), normed, at) == pytest.approx(np.array([[3, 14]]) / math.sqrt(29))


def model(**features: object) -> ModelSpec:
    layer = LayerSpec(heads(), FfnSpec(4, "silu"))
    return ModelSpec("any", 2, 5, 4, 4, 4, (layer,), None, tied=False, **features)  # type: ignore[arg-type]


def test_an_output_matrix_for_the_last_tokens_only() -> None:
    spec = model(n_output=2)
    y = output(np.float32([[1, 2]]), spec, weights({"output.weight": [[1, 0], [0, 1]]}), numpy_ops("f32"))  # type: ignore[arg-type]
    assert y.tolist() == [[-math.inf] * 3 + [1.0, 2.0]]


def test_a_position_beyond_the_learned_ones_is_an_error() -> None:
    table = {"token_embd.weight": [[1, 1]] * 5, "position_embd.weight": [[0, 0], [1, 0], [2, 0], [3, 0]]}
    spec = model(position_embedding=True)
    p = pass_over(2, 3)
    assert enter(p.ids, spec, weights(table), p).tolist() == [[3.0, 1.0], [4.0, 1.0]]  # type: ignore[arg-type]
    p = pass_over(3, 4)
    with pytest.raises(ContextFull, match=r"position 4 has no row in position_embd\.weight, which has 4"):
        enter(p.ids, spec, weights(table), p)  # type: ignore[arg-type]


def test_an_activation_is_divided() -> None:
    """relu([4, 6]) / [2, 3] = [2, 2], summed by the map down."""
    at = site({"blk.0.ffn_up.weight": [[4], [6]], "blk.0.ffn_down.weight": [[1, 1]], "blk.0.ffn.act.scales": [2, 3]})
    assert ffn(np.float32([[1]]), FfnSpec(2, "relu", gated=False, divisors="may"), at).tolist() == [[4.0]]
