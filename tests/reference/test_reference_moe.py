"""Routing and experts, worked out by hand; 384 experts against a plain loop in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ref_engine.backends import get_ops
from ref_engine.errors import ModelError
from ref_engine.files.types import GGMLType
from ref_engine.reference.moe import (
    GATES,
    Experts,
    Stack,
    best_groups,
    checked,
    moe_ffn_f32,
    moe_ffn_q8,
    ranking,
    route,
    route_to_chunks,
    weigh,
)  # fmt: skip
from ref_engine.spec import RoutingSpec
from ref_engine.weights import Weight


def rows(*values: object) -> np.ndarray:
    return np.array(values, np.float32)


def stack(values: np.ndarray, bias: np.ndarray | None = None, scale: np.ndarray | None = None) -> Stack:
    """(E, rows, columns) as float32 weights."""
    data = np.ascontiguousarray(values, np.float32)
    return Stack(
        Weight("blk.0.ffn_up_exps.weight", GGMLType.F32, data.shape, data.reshape(-1).view(np.uint8)), bias, scale
    )


def scaled_identities(factors: list[float], width: int = 2) -> Stack:
    """Expert e multiplies by factors[e]."""
    return stack(np.stack([np.eye(width) * f for f in factors]))


# -- gates --------------------------------------------------------------------------------------------------------


def test_gates_by_hand() -> None:
    ln = np.log
    np.testing.assert_allclose(GATES["softmax"](rows([ln(1), ln(3), ln(4)])), [[0.125, 0.375, 0.5]], rtol=1e-6)
    np.testing.assert_allclose(GATES["sigmoid"](rows([0, ln(3), -ln(3)])), [[0.5, 0.75, 0.25]], rtol=1e-6)
    np.testing.assert_array_equal(GATES["softmax_weight"](rows([5, -2])), [[5, -2]])
    # softplus(ln(e**4 - 1)) = 4, and the root of that is 2
    np.testing.assert_allclose(GATES["sqrt_softplus"](rows([math.log(math.e**4 - 1), 100])), [[2, 10]], rtol=1e-6)


# -- choosing -----------------------------------------------------------------------------------------------------


def test_of_equal_scores_the_first_is_first() -> None:
    np.testing.assert_array_equal(
        ranking(rows([1, 3, 3, 1, 3], [0, 0, -0.0, 0, 0])), [[1, 2, 4, 0, 3], [0, 1, 2, 3, 4]]
    )
    ids, weights = route(np.zeros((2, 200), np.float32), 4, RoutingSpec(normalise=True))
    np.testing.assert_array_equal(ids, [[0, 1, 2, 3]] * 2)
    np.testing.assert_allclose(weights, np.full((2, 4), 0.25), rtol=1e-6)


def test_the_bias_selects_and_does_not_weigh() -> None:
    """Sigmoids 0.5, 0.75, 0.25: the bias lifts the last past the others, whose weight stays 0.25."""
    logits = np.log(rows([1, 3, 1 / 3]))
    bias = np.array([0.1, 0, 1], np.float32)
    ids, weights = route(logits, 2, RoutingSpec("sigmoid", bias="exp_probs_b.bias"), bias)
    np.testing.assert_array_equal(ids, [[2, 1]])
    np.testing.assert_allclose(weights, [[0.25, 0.75]], rtol=1e-6)


def test_groups_by_the_sum_of_their_two_best() -> None:
    """Three groups of three: the best single score (9) is in a group whose two best (9 + 0) lose to 5 + 5 and 6 + 4."""
    scores = rows([9, 0, 0, 5, 5, 1, 6, 4, 4])
    np.testing.assert_array_equal(best_groups(scores, 3, 2), [[1, 2]])
    r = RoutingSpec("softmax_weight", groups=3, groups_used=2)
    ids, _ = route(scores, 3, r)
    np.testing.assert_array_equal(ids, [[6, 3, 4]])
    ids, _ = route(scores, 3, RoutingSpec("softmax_weight", groups=3, groups_used=1))
    np.testing.assert_array_equal(ids, [[3, 4, 5]])


def test_groups_are_chosen_with_the_bias() -> None:
    scores, bias = rows([1, 1, 2, 2]), np.array([3, 0, 0, 0], np.float32)
    ids, weights = route(scores, 2, RoutingSpec("softmax_weight", groups=2, groups_used=1, bias="b"), bias)
    np.testing.assert_array_equal(ids, [[0, 1]])
    np.testing.assert_allclose(weights, [[0.5, 0.5]], rtol=1e-6)  # softmax of 1 and 1, without the bias


def test_logits_choose_where_their_sigmoids_are_all_one() -> None:
    """Llama 4: in float32 the sigmoids of 20, 40 and 30 are equal, the logits are not."""
    logits = rows([20, 40, 30])
    assert route(logits, 1, RoutingSpec("sigmoid"))[0].tolist() == [[0]]
    ids, weights = route(logits, 2, RoutingSpec("sigmoid", select_by="logits"))
    np.testing.assert_array_equal(ids, [[1, 2]])
    np.testing.assert_array_equal(weights, [[1, 1]])


def test_sigmoids_choose_and_softmax_weighs() -> None:
    """GroveMoE: sigmoids that are equal in float32 leave the order to the numbers of the experts."""
    logits = rows([30, 30 + math.log(3)])
    ids, weights = route(logits, 2, RoutingSpec("softmax", select_by="sigmoid"))
    np.testing.assert_array_equal(ids, [[0, 1]])
    np.testing.assert_allclose(weights, [[0.25, 0.75]], rtol=1e-5)


def test_the_soft_cap_bounds_logits() -> None:
    """2 tanh(1000 / 2) = 2 and 2 tanh(0) = 0."""
    _, weights = route(rows([1000, 0]), 2, RoutingSpec("softmax_weight", soft_cap=2.0))
    want = 1 / (1 + math.exp(-2))
    np.testing.assert_allclose(weights, [[want, 1 - want]], rtol=1e-6)


def test_given_experts_are_weighed_by_their_own_scores() -> None:
    logits = np.log(rows([1, 3, 1 / 3]))
    ids, weights = route(logits, 2, RoutingSpec("sigmoid", normalise=True), given=np.array([[2, 0]], np.int32))
    np.testing.assert_array_equal(ids, [[2, 0]])
    np.testing.assert_allclose(weights, [[1 / 3, 2 / 3]], rtol=1e-6)


# -- weighing -----------------------------------------------------------------------------------------------------


def test_weights_by_hand() -> None:
    p, ids = rows([0.1, 0.3, 0.2, 0.4]), np.array([[3, 1]], np.int32)
    np.testing.assert_array_equal(weigh(p, ids, RoutingSpec()), rows([0.4, 0.3]))
    np.testing.assert_allclose(weigh(p, ids, RoutingSpec(normalise=True)), [[4 / 7, 3 / 7]], rtol=1e-6)
    np.testing.assert_allclose(weigh(p, ids, RoutingSpec(normalise=True, scale=7.0)), [[4, 3]], rtol=1e-6)
    np.testing.assert_allclose(weigh(p, ids, RoutingSpec(scale=2.5)), [[1, 0.75]], rtol=1e-6)


def test_a_small_sum_is_clamped() -> None:
    """Weights of 2**-20 each: divided by 2**-14, not by their sum."""
    p = np.full((1, 3), 2.0**-20, np.float32)
    got = weigh(p, np.array([[0, 2]], np.int32), RoutingSpec(normalise=True))
    np.testing.assert_array_equal(got, np.full((1, 2), 2.0**-6, np.float32))


def test_softmax_over_the_chosen_only() -> None:
    """gpt-oss: of logits ln 1, ln 9, ln 3 the best two are weighed 9 : 3."""
    ids, weights = route(np.log(rows([1, 9, 3])), 2, RoutingSpec("softmax_weight"))
    np.testing.assert_array_equal(ids, [[1, 2]])
    np.testing.assert_allclose(weights, [[0.75, 0.25]], rtol=1e-6)


def test_chunks_of_the_best_experts() -> None:
    """Six experts, chunks of two: the best are 5, 4 and 0, in chunks 2, 2 and 0. A chunk has the weight of the expert
    of its number."""
    logits = np.log(rows([5, 1, 2, 1, 6, 7]))
    r = RoutingSpec("softmax", normalise=True, select_by="sigmoid")
    ids, weights = route_to_chunks(logits, 3, 2, r)
    np.testing.assert_array_equal(ids, [[2, 2, 0]])
    np.testing.assert_allclose(weights, [[2 / 9, 2 / 9, 5 / 9]], rtol=1e-6)


@pytest.mark.parametrize("bad", [8, -1, 2.5, math.nan, 1e9])
def test_an_expert_that_is_none(bad: float) -> None:
    with pytest.raises(ModelError, match=r"^tensor t: expert .* is not one of 0\.\.7$"):
        checked(np.array([[0.0, bad]]), 8, "tensor t")


# -- experts ------------------------------------------------------------------------------------------------------

X = rows([1, 2], [3, 1])
IDS = np.array([[2, 0], [0, 1]], np.int32)
WEIGHTS = rows([0.5, 2], [1, 3])


def test_scaled_identities() -> None:
    """Experts that multiply by 1, 10 and 100: each token times the weighted sum of its factors."""
    experts = Experts(scaled_identities([1, 10, 100]), scaled_identities([1, 1, 1]), "relu")
    np.testing.assert_array_equal(moe_ffn_f32(X, IDS, WEIGHTS, experts), X * rows([50 + 2], [1 + 30]))


def test_gate_and_up() -> None:
    """relu(gate x) * up x with gate = up: factor**2 * x**2; merged into one matrix the same."""
    one = scaled_identities([1, 1, 1])
    factors = scaled_identities([1, 10, 100])
    separate = Experts(factors, one, "relu", gate=factors)
    want = X**2 * rows([0.5 * 1e4 + 2], [1 + 300])
    np.testing.assert_array_equal(moe_ffn_f32(X, IDS, WEIGHTS, separate), want)
    merged = stack(np.stack([np.concatenate([np.eye(2) * f, np.eye(2) * f]) for f in (1, 10, 100)]))
    np.testing.assert_array_equal(moe_ffn_f32(X, IDS, WEIGHTS, Experts(merged, one, "relu", fused=True)), want)


def test_merged_halves_are_gate_then_up() -> None:
    """Gate 1 and up 2: silu(x) * 2 x."""
    merged = stack(np.stack([np.concatenate([np.eye(2), np.eye(2) * 2])]))
    got = moe_ffn_f32(X, np.zeros((2, 1), np.int32), np.ones((2, 1), np.float32),
                      Experts(merged, scaled_identities([1]), "silu", fused=True))  # fmt: skip
    np.testing.assert_allclose(got, 2 * X * X / (1 + np.exp(-X)), rtol=1e-6)


def test_biases_and_factors() -> None:
    """down(relu(f_u (u x) + b_u)) with a factor and a bias of each expert: the factor comes before the bias."""
    up = scaled_identities([1, 10, 100])
    up = Stack(up.weight, rows([1, 1], [2, 2], [3, 3]), np.array([2, 3, 4], np.float32))
    down = scaled_identities([1, 1, 1])
    down = Stack(down.weight, rows([7, 0], [8, 0], [9, 0]), np.array([1, 1, 0.5], np.float32))
    got = moe_ffn_f32(X, IDS, WEIGHTS, Experts(up, down, "relu"))
    first = 0.5 * (0.5 * (4 * 100 * X[0] + 3) + rows(9, 0)) + 2 * (2 * X[0] + 1 + rows(7, 0))
    second = 1 * (2 * X[1] + 1 + rows(7, 0)) + 3 * (3 * 10 * X[1] + 2 + rows(8, 0))
    np.testing.assert_array_equal(got, np.stack([first, second]))


def test_weights_before_the_expert() -> None:
    """An expert that squares: (w x)**2 in place of w x**2."""
    one = scaled_identities([1, 1, 1])
    after = moe_ffn_f32(X, IDS, WEIGHTS, Experts(one, one, "relu_sqr"))
    before = moe_ffn_f32(X, IDS, WEIGHTS, Experts(one, one, "relu_sqr", weigh_input=True))
    np.testing.assert_array_equal(after, X**2 * rows([2.5], [4]))
    np.testing.assert_array_equal(before, X**2 * rows([0.25 + 4], [1 + 9]))


def test_units_by_hand() -> None:
    """SwiGLU-OAI at 100 and -100: the gate is capped at 7, up clipped to 7, and sigmoid(7 * 1.702) counts."""
    gate, up = rows([100, 0, -100]), rows([100, -3, 2])
    glu = get_ops("numpy", "f32").glu
    oai = glu(gate, up, "swiglu_oai", (1.702, 7.0))
    np.testing.assert_allclose(oai, [[7 / (1 + math.exp(-7 * 1.702)) * 8, 0, 0]], rtol=1e-6, atol=1e-30)
    np.testing.assert_allclose(glu(gate, up, "swiglu_clamp", (7.0,))[0, 0], 7 / (1 + math.exp(-7)) * 7, rtol=1e-6)
    np.testing.assert_allclose(glu(gate, up, "swiglu_limit", (7.0,))[0, 0], 49, rtol=1e-6)
    situ = glu(rows([2]), rows([3]), "situ", (4.0, 5.0))
    want = 4 * math.tanh(0.5) / (1 + math.exp(-2)) * 5 * math.tanh(0.6)
    np.testing.assert_allclose(situ, [[want]], rtol=1e-6)
    np.testing.assert_allclose(
        glu(rows([2]), rows([3]), "situ", (4.0, 0.0)), [[want / 5 / math.tanh(0.6) * 3]], rtol=1e-6
    )


def test_terms_are_added_in_the_order_of_the_ranking() -> None:
    """1e8 + 1 - 1e8 is 0 in float32 if the 1 meets 1e8 first, else 1."""
    big, one, less = 1e8, 1.0, -1e8
    experts = Experts(stack(np.ones((3, 1, 1))), stack(np.reshape([big, one, less], (3, 1, 1))), "relu")
    for order, want in (([0, 1, 2], 0), ([0, 2, 1], 1), ([1, 0, 2], 0), ([2, 0, 1], 1)):
        got = moe_ffn_f32(rows([1]), np.array([order], np.int32), np.ones((1, 3), np.float32), experts)
        assert got == want, order


def test_an_id_out_of_range_names_the_tensor() -> None:
    experts = Experts(scaled_identities([1, 10]), scaled_identities([1, 1]), "relu")
    with pytest.raises(ModelError, match=r"^blk\.0\.ffn_up_exps\.weight: expert 2 is not one of 0\.\.1$"):
        moe_ffn_f32(X, IDS, WEIGHTS, experts)


def test_one_expert_of_a_stack() -> None:
    """A view of its bytes, the same object each time, whatever the type."""
    data = np.arange(2 * 3 * 34, dtype=np.uint8)
    blocks = Weight("w", GGMLType.Q8_0, (2, 3, 32), data)
    one = blocks.expert(1)
    assert (one.name, one.shape, one.type) == ("w[1]", (3, 32), GGMLType.Q8_0)
    assert one is blocks.expert(1) and np.shares_memory(one.data, data)
    np.testing.assert_array_equal(one.data, data[3 * 34 :])
    for e in (2, -1):
        with pytest.raises(ModelError, match=f"^tensor w of shape .* has no expert {e}$"):
            blocks.expert(e)
    with pytest.raises(ModelError, match="has no expert 0"):
        one.expert(0)


# -- 384 experts --------------------------------------------------------------------------------------------------

E, K, GROUPS, GROUPS_USED, SCALE, D, F = 384, 8, 8, 4, 2.827, 32, 48
MANY = RoutingSpec("sigmoid", normalise=True, scale=SCALE, bias="b", groups=GROUPS, groups_used=GROUPS_USED)


def drawn(n_tokens: int = 24) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(384)
    shapes = {"x": (n_tokens, D), "router": (E, D), "bias": (E,), "gate": (E, F, D), "up": (E, F, D), "down": (E, D, F)}
    return {name: (rng.standard_normal(s) / math.sqrt(s[-1])).astype(np.float32) for name, s in shapes.items()}


def in_float64(v: dict[str, np.ndarray]) -> tuple[list[list[int]], np.ndarray, np.ndarray]:
    """Token by token, expert by expert, in float64: chosen experts, their weights, results."""
    v = {name: value.astype(np.float64) for name, value in v.items()}
    chosen, weights, results = [], [], []
    for x in v["x"]:
        p = [1 / (1 + math.exp(-float(row @ x))) for row in v["router"]]
        s = [a + float(b) for a, b in zip(p, v["bias"], strict=True)]
        size = E // GROUPS
        totals = [sum(sorted(s[g * size : (g + 1) * size])[-2:]) for g in range(GROUPS)]
        used = sorted(range(GROUPS), key=lambda g: -totals[g])[:GROUPS_USED]
        allowed = [e for e in range(E) if e // size in used]
        best = sorted(allowed, key=lambda e: -s[e])[:K]
        total = sum(p[e] for e in best)
        w = [SCALE * p[e] / total for e in best]
        y = np.zeros(D)
        for e, factor in zip(best, w, strict=True):
            gate = v["gate"][e] @ x
            y += factor * (v["down"][e] @ (gate / (1 + np.exp(-gate)) * (v["up"][e] @ x)))
        chosen.append(best)
        weights.append(w)
        results.append(y)
    return chosen, np.array(weights), np.array(results)


@pytest.mark.parametrize("backend", ["numpy", "native"])
@pytest.mark.parametrize("activations", ["f32", "q8"])
def test_384_experts_as_a_plain_loop_has_them(backend: str, activations: str) -> None:
    """8 used, from 4 of 8 groups, with a selection bias and a scale. float32 weights: q8 mode rounds nothing either."""
    v = drawn()
    ops = get_ops(backend, activations, 1)  # type: ignore[arg-type]
    chosen, weights, results = in_float64(v)
    router = Weight("r", GGMLType.F32, (E, D), v["router"].reshape(-1).view(np.uint8))
    experts = Experts(stack(v["up"]), stack(v["down"]), "silu", gate=stack(v["gate"]))
    ids, w = route(ops.linear(v["x"], router), K, MANY, v["bias"])
    assert ids.tolist() == chosen
    np.testing.assert_allclose(w, weights, rtol=2e-6)
    got = ops.moe_ffn(v["x"], ids, w, experts)
    assert ((got - results) ** 2).sum() / (results**2).sum() < 1e-12


def test_company_changes_no_bit() -> None:
    """A token alone and among others gives the same bits in q8 mode, with weights of blocks, on both backends."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((9, 32)).astype(np.float32)
    raw = rng.integers(0, 256, (16, 32, 34), np.uint8)
    raw[..., :2] = np.float16(0.01).view("<u2").reshape(1).view(np.uint8)  # the scale of each block of Q8_0
    square = Stack(Weight("w", GGMLType.Q8_0, (16, 32, 32), raw.reshape(-1)))
    experts = Experts(square, square, "silu", gate=square)
    ids, weights = route(rng.standard_normal((9, 16)).astype(np.float32), 3, RoutingSpec(normalise=True))
    native = get_ops("native", "q8", 1).moe_ffn
    together = moe_ffn_q8(x, ids, weights, experts)
    np.testing.assert_array_equal(native(x, ids, weights, experts), together)
    for t in range(9):
        one = slice(t, t + 1)
        for run in (moe_ffn_q8, native):
            np.testing.assert_array_equal(run(x[one], ids[one], weights[one], experts), together[one])
