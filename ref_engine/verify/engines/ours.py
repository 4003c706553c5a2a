"""A backend of ours, as what is verified: its operations one by one, and whole models on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from ref_engine.backends import get_ops, numpy_ops
from ref_engine.model import Model, load
from ref_engine.ops import Ops
from ref_engine.reference import elementary, ffn, linear, moe
from ref_engine.reference.linear import Activations
from ref_engine.reference.sums import F32


@dataclass(frozen=True)
class Backend:
    """A backend by what makes its operations, so that one that is not in the table can be verified too.

    make: called once for each mode of activations that is verified
    modes: those modes
    """

    name: str
    make: Callable[[Activations], Ops]
    modes: tuple[Activations, ...] = ("f32", "q8")

    def model(self, path: Path, mode: Activations, n_ctx: int | None = None) -> Model:
        """The model of a file with this backend's operations."""
        model = load(path, backend="numpy", activations=mode, n_ctx=n_ctx)
        model.ops = self.make(mode)
        return model


def backend_of(name: str, modes: tuple[Activations, ...], n_threads: int | None = None) -> Backend:
    """A backend by its name. Raises RefEngineError for one that is unknown or cannot run here."""
    for mode in modes:
        get_ops(name, mode, n_threads)
    return Backend(name, lambda mode: get_ops(name, mode, n_threads), modes)


@dataclass(frozen=True)
class OurEngine:
    """Whole models on a backend, as any other engine is asked for logits."""

    backend: Backend
    mode: Activations

    @property
    def name(self) -> str:
        return f"{self.backend.name}:{self.mode}"

    @property
    def exact(self) -> bool:
        return self.mode == "f32"

    def logits(self, model: Path, ids: Sequence[int], n_vocab: int, n_ctx: int | None) -> F32:
        loaded = self.backend.model(model, self.mode, n_ctx)
        try:
            return loaded.logits(ids)
        finally:
            loaded.file.close()


# -- the definition, which is what GELU models are judged by --------------------------------------------------------


def tabled_gelu(x: F32) -> F32:
    """ggml's GELU: arguments and results in half precision between -10 and 10 (ggml_vec_gelu_f32)."""
    half = np.clip(x, -10, 10).astype(np.float16).astype(np.float32)
    y = elementary.gelu(half).astype(np.float16).astype(np.float32)
    return np.where(x <= -10, np.float32(0), np.where(x >= 10, x, y))


def _activation(x: F32, name: str) -> F32:
    return tabled_gelu(x) if name == "gelu" else ffn.activation(x, name)


def _glu(gate: F32, up: F32, activation: str, constants: tuple[float, ...] = ()) -> F32:
    return tabled_gelu(gate) * up if activation == "gelu" else ffn.glu(gate, up, activation, constants)


def definition(path: Path, n_ctx: int | None, table: bool) -> Model:
    """The readable engine in float32; `table` puts ggml's half-precision GELU in place of the exact one."""
    model = load(path, backend="numpy", activations="f32", n_ctx=n_ctx)
    if table:
        experts = partial(moe.moe_ffn, linear=linear.linear_f32, glu=_glu)
        model.ops = replace(numpy_ops("f32"), activation=_activation, glu=_glu, moe_ffn=experts)
    return model


def uses_gelu(path: Path) -> bool:
    """Whether any layer of a model has the activation that ggml looks up in a table."""
    model = load(path, backend="numpy", activations="f32")
    try:
        return "'gelu'" in repr(model.spec.layers)
    finally:
        model.file.close()
