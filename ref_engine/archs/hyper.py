"""What the families with hyper-connections read in the same way."""

from __future__ import annotations

from ref_engine.archs.keys import Keys
from ref_engine.errors import ModelError
from ref_engine.spec import HyperSpec

_LEAST_LIMIT = 1e-6  # of clamps; smaller ones are none, as in llama.cpp's build_ffn
_MOST_STREAMS = 64  # real models have four; a hostile count must not become an allocation
_MOST_ROUNDS = 1000


def read_hyper(keys: Keys, *, mixes: bool, magnitude: float = 2.0, post_eps: bool = False) -> HyperSpec:
    """mixes: streams mix, in the rounds that the file asks for. post_eps: the file's epsilon counts for writing too."""
    eps = keys.real("hyper_connection.epsilon")
    rounds = keys.integer("hyper_connection.sinkhorn_iterations") if mixes else 0
    for key, value, most in (("count", n_streams(keys), _MOST_STREAMS), ("sinkhorn_iterations", rounds, _MOST_ROUNDS)):
        if value > most:
            raise ModelError(f"metadata key {keys.arch}.hyper_connection.{key} is {value}, expected at most {most}")
    return HyperSpec(
        n=n_streams(keys),
        norm_eps=keys.real("attention.layer_norm_rms_epsilon"),
        eps=eps,
        magnitude=magnitude,
        post_eps=eps if post_eps else 0.0,
        rounds=rounds,
    )


def n_streams(keys: Keys) -> int:
    return keys.integer("hyper_connection.count")


def clamped(limits: list[float], i: int) -> tuple[str, tuple[float, ...]]:
    """The activation of layer i by its limit, and its constants."""
    return ("swiglu_clamp", (limits[i],)) if limits[i] > _LEAST_LIMIT else ("silu", ())
