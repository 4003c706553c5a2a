"""Each cause planted in numbers drawn here, and recognised; noise is blamed on nothing."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ref_engine.lens.compare import Comparison, compare
from ref_engine.lens.dump import Facts, Turns, of_arrays

Array = NDArray[Any]
T, H, HD = 9, 4, 16
FREQUENCIES = tuple(10000.0 ** (-np.arange(HD // 2) / (HD // 2)))


def drawn(*shape: int, seed: int = 0) -> Array:
    return np.random.RandomState(seed).standard_normal(shape).astype(np.float32)


def held(
    name: str,
    a: Array,
    b: Array,
    facts: Facts | None = None,
    **others: tuple[Array, Array],
) -> Comparison:
    first = {**{n.replace("_at_", "-"): pair[0] for n, pair in others.items()}, name: a}
    second = {**{n.replace("_at_", "-"): pair[1] for n, pair in others.items()}, name: b}
    known = facts or Facts()
    return compare(of_arrays("a", first, known), of_arrays("b", second, known))


def cause_of(found: Comparison, name: str) -> tuple[str, str]:
    assert found.first is not None and found.first.name == name
    assert found.cause is not None
    return found.cause.kind, found.cause.text


def with_value(x: Array, index: Any, value: float) -> Array:
    y = x.copy()
    y[index] = value
    return y


SHAPED: list[tuple[str, Callable[[Array], Array], str]] = [
    ("nan", lambda x: with_value(x, (3, 5), np.nan), "from token 3 on"),
    ("nan", lambda x: with_value(x, (2, 1), np.inf), "infinity"),
    ("zero", lambda x: x * 0, "never written"),
    ("scale", lambda x: x * np.float32(0.125), "0.125, which is 1/sqrt(64)"),
    ("scale", lambda x: x * np.float32(3), "times 3"),
    ("sign", lambda x: -x, "opposite"),
    ("offset", lambda x: x + np.float32(0.25), "plus 0.25"),
    ("bias", lambda x: x + drawn(64, seed=2), "the same row"),
    ("unit scale", lambda x: x * (1 + drawn(64, seed=2)), "a factor for each unit"),
    ("token scale", lambda x: x * (2 + np.abs(drawn(9, 1, seed=2))), "a factor for each token"),
    ("position", lambda x: np.concatenate([x[-1:], x[:-1]]), "t-1"),
    ("position", lambda x: np.concatenate([x[1:], x[:1]]), "t+1"),
    ("precision", lambda x: x.astype(np.float16).astype(np.float32), "float16"),
    ("precision", lambda x: (x.view(np.uint32) + 0x8000 & 0xFFFF0000).view(np.float32), "bfloat16"),
    ("few units", lambda x: with_value(x, (slice(None), 17), 0.5), "units 17 of 64"),
    ("few tokens", lambda x: with_value(x, 6, 0.5), "tokens 6 of 9"),
    ("transposed", lambda x: x.reshape(64, 9).T.copy(), "laid out as (9, 64)"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "spoil", "words"), SHAPED)
def test_of_a_plain_value(kind: str, spoil: Callable[[Array], Array], words: str) -> None:
    x = drawn(T, 64)
    found, text = cause_of(held("ffn_out-1", x, spoil(x)), "ffn_out-1")
    assert (found, words in text) == (kind, True), text


def test_a_square_value_transposed() -> None:
    x = drawn(16, 16)
    assert cause_of(held("ffn_out-0", x, x.T.copy()), "ffn_out-0")[0] == "transposed"


HEADS: list[tuple[str, Callable[[Array], Array], str]] = [
    ("heads", lambda x: x[:, [2, 0, 3, 1]], "2, 0, 3, 1"),
    ("features", lambda x: np.concatenate([x[..., ::2], x[..., 1::2]], axis=-1), "in halves, A's in pairs"),
    ("features", lambda x: np.stack([x[..., :8], x[..., 8:]], axis=-1).reshape(x.shape), "in pairs, A's in halves"),
    ("head scale", lambda x: x * np.float32([1, 2, 3, 4])[:, None], "each head"),
    ("transposed", lambda x: x.transpose(1, 0, 2).reshape(x.shape).copy(), "axes"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "spoil", "words"), HEADS)
def test_of_heads(kind: str, spoil: Callable[[Array], Array], words: str) -> None:
    x = drawn(T, H, HD)
    found, text = cause_of(held("Vcur-0", x, spoil(x)), "Vcur-0")
    assert (found, words in text) == (kind, True), text


def turn(x: Array, positions: Array, pairing: str, frequencies: tuple[float, ...] = FREQUENCIES) -> Array:
    """Complex numbers, as the papers have it."""
    angle = np.exp(1j * positions[:, None, None] * np.array(frequencies))
    half = x.shape[-1] // 2
    z = x[..., 0::2] + 1j * x[..., 1::2] if pairing == "adjacent" else x[..., :half] + 1j * x[..., half:]
    z = z * angle
    parts = [z.real, z.imag]
    y = np.stack(parts, axis=-1).reshape(x.shape) if pairing == "adjacent" else np.concatenate(parts, axis=-1)
    return y.astype(np.float32)


AT = np.arange(T, dtype=np.float64)
OTHER = tuple(500000.0 ** (-np.arange(HD // 2) / (HD // 2)))
TURNS: list[tuple[str, Callable[[Array, str, str], Array], str]] = [
    ("rope pairing", lambda x, one, other: turn(x, AT, other), "B turns"),
    ("rope position", lambda x, one, other: turn(x, AT + 1, one), "+1"),
    ("rope position", lambda x, one, other: turn(x, AT - 2, one), "-2"),
    ("rope missing", lambda x, one, other: x, "not turned"),
    ("rope direction", lambda x, one, other: turn(x, -AT, one), "other way"),
    ("rope twice", lambda x, one, other: turn(x, 2 * AT, one), "twice"),
    ("rope scaling", lambda x, one, other: turn(x, AT / 4, one), "0.25"),
    ("rope frequencies", lambda x, one, other: turn(x, AT, one, OTHER), "base or scaling"),
]  # fmt: skip


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("pairing", ["adjacent", "halves"])
@pytest.mark.parametrize(("kind", "spoil", "words"), TURNS)
def test_of_rotation(
    kind: str, spoil: Callable[[Array, str, str], Array], words: str, pairing: str, known: bool
) -> None:
    """Whether a side says how the layer turns, or not."""
    x = drawn(T, H, HD)
    other = "halves" if pairing == "adjacent" else "adjacent"
    facts = Facts(turns={3: Turns(pairing, FREQUENCIES)}) if known else Facts()
    found, text = cause_of(held("Qcur-3", turn(x, AT, pairing), spoil(x, pairing, other), facts), "Qcur-3")
    assert (found, words in text) == (kind, True), text


def attended(q: Array, k: Array, v: Array, seen: Array, scale: float, heads: list[int]) -> Array:
    kq = np.einsum("thd,shd->hts", q, k[:, heads]).astype(np.float64) * scale
    p = np.exp(np.where(seen, kq, -np.inf))
    out: Array = np.einsum("hts,shd->thd", p / p.sum(-1, keepdims=True), v[:, heads])
    return out.reshape(len(q), -1).astype(np.float32)


LOWER = np.tril(np.ones((T, T), bool))
ATTENTION: list[tuple[str, Callable[[Array, Array, Array], Array], str]] = [
    ("kv position", lambda q, k, v: attended(q, late(k), late(v), LOWER, 0.25, [0, 0, 1, 1]), "keys and values are"),
    ("kv position", lambda q, k, v: attended(q, k, late(v), LOWER, 0.25, [0, 0, 1, 1]), "values are kept one"),
    ("mask", lambda q, k, v: attended(q, k, v, np.tril(LOWER | True, 1), 0.25, [0, 0, 1, 1]), "the key after its own"),
    ("mask", lambda q, k, v: attended(q, k, v, LOWER | True, 0.25, [0, 0, 1, 1]), "no causal mask"),
    ("heads", lambda q, k, v: attended(q, k, v, LOWER, 0.25, [0, 1, 0, 1]), "in turn"),
    ("scale", lambda q, k, v: attended(q, k, v, LOWER, 1.0, [0, 0, 1, 1]), "no scale"),
]  # fmt: skip


def late(x: Array) -> Array:
    return np.concatenate([np.zeros_like(x[:1]), x[:-1]])


@pytest.mark.parametrize(("kind", "spoil", "words"), ATTENTION)
def test_of_attention(kind: str, spoil: Callable[[Array, Array, Array], Array], words: str) -> None:
    """Only the result is there, with queries, keys and values that agree."""
    q, k, v = drawn(T, H, HD), drawn(T, 2, HD, seed=1), drawn(T, 2, HD, seed=2)
    good = attended(q, k, v, LOWER, 0.25, [0, 0, 1, 1])
    same = {"Qcur_at_2": (q, q), "Kcur_at_2": (k, k), "Vcur_at_2": (v, v)}
    found, text = cause_of(held("kqv_out-2", good, spoil(q, k, v), **same), "kqv_out-2")
    assert (found, words in text) == (kind, True), text


def best(scores: Array, k: int) -> Array:
    return np.argsort(-scores, axis=1, kind="stable")[:, :k].astype(np.int32)


def test_a_router_that_tied() -> None:
    """Two experts a millionth apart: noise of that size swaps them for one token."""
    p = np.abs(drawn(T, 8)) + 1
    ranks = np.argsort(-p[4], kind="stable")
    p[4, ranks[2]] = p[4, ranks[1]] - np.float32(2e-7)
    noisy = p.copy()
    noisy[4, ranks[2]] += np.float32(6e-7)
    kind, text = cause_of(
        held("ffn_moe_topk-1", best(p, 2), best(noisy, 2), ffn_moe_probs_at_1=(p, noisy)), "ffn_moe_topk-1"
    )
    assert kind == "router tie" and "tokens 4" in text


def test_experts_that_are_the_best_of_nothing() -> None:
    p = np.abs(drawn(T, 8))
    other = best(p, 2)
    other[3] = np.argsort(p[3])[:2]
    kind, text = cause_of(held("ffn_moe_topk-1", best(p, 2), other, ffn_moe_probs_at_1=(p, p)), "ffn_moe_topk-1")
    assert kind == "router choice" and "not the best" in text


def test_weights_taken_with_the_bias() -> None:
    p, bias = np.abs(drawn(T, 8)), drawn(8, seed=3)
    ids = best(p + bias, 2)
    good, bad = (np.take_along_axis(x, ids.astype(np.int64), axis=1) for x in (p, p + bias))
    same = {
        "ffn_moe_probs_at_0": (p, p), "ffn_moe_probs_biased_at_0": (p + bias, p + bias), "ffn_moe_topk_at_0": (ids, ids)
    }  # fmt: skip
    kind, text = cause_of(held("ffn_moe_weights-0", good, bad, **same), "ffn_moe_weights-0")
    assert kind == "router weights" and "ffn_moe_probs_biased" in text


def test_the_same_experts_in_another_order_are_lined_up() -> None:
    """What belongs to a choice moves with it, so nothing is beyond tolerance."""
    ids, weights, down = best(drawn(T, 8), 3), drawn(T, 3), drawn(T, 3, 16)
    other = [x.copy() for x in (ids, weights, down)]
    for x in other:
        x[5, [0, 2]] = x[5, [2, 0]]
    pairs = {"ffn_moe_topk_at_0": (ids, other[0]), "ffn_moe_weights_at_0": (weights, other[1])}
    found = held("ffn_moe_down-0", down, other[2], **pairs)
    assert found.clean and all("1 tokens" in row.note for row in found.rows)


def test_another_tensors_value() -> None:
    gate, up = drawn(T, 32), drawn(T, 32, seed=1)
    kind, text = cause_of(held("ffn_up-0", up, gate, ffn_gate_at_0=(gate, gate)), "ffn_up-0")
    assert kind == "another tensor" and "ffn_gate-0" in text


def test_noise_has_no_cause() -> None:
    x = drawn(T, 64)
    found = held("ffn_out-1", x, x + drawn(T, 64, seed=1) * np.float32(0.01))
    assert found.first is not None and found.cause is None
