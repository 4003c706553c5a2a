"""golden/ops/graph.npz: single operations of ggml's CPU backend, asked of a backend's own callables.

ggml's soft_max is asked of `attend`: with the unit vectors as keys and values, each query is a row of scores and each
result a row of probabilities.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from ref_engine.files.types import GGMLType
from ref_engine.ops import Ops
from ref_engine.place import to_host
from ref_engine.reference.rope import rope_table
from ref_engine.spec import RopeSpec
from ref_engine.verify.case import Array, Case, Finding, within
from ref_engine.verify.engines.ours import Backend
from ref_engine.verify.golden import Golden
from ref_engine.weights import Weight

_NAME = "ops/graph.npz"
_GLU = {"swiglu_split": "silu", "geglu_split": "gelu"}
_NEOX = 2
Data = dict[str, Array]
Ask = Callable[[Ops], Array]


def cases(golden: Golden, backend: Backend) -> list[Case]:
    data = golden.npz(_NAME)
    found = []
    for entry in json.loads(str(data["index"])):
        operation = _operation(entry, data)
        if operation is None:
            continue
        name, ask, key = operation
        limit = golden.tolerance(_NAME, key)
        want = data[f"{entry['case']}/out"]
        for mode in backend.modes:
            run = partial(_run, backend, mode, ask, want, limit)
            found.append(Case(f"ops/{entry['case']}/{mode}", name, mode, run))
    return found


def _run(backend: Backend, mode: Any, ask: Ask, want: Array, limit: float) -> Finding:
    ops = backend.make(mode)
    with ops.scope():
        return within(to_host(ask(ops)).reshape(want.shape), want, limit)


def _operation(entry: dict[str, Any], data: Data) -> tuple[str, Ask, str] | None:
    """(entry of `Ops`, how it is asked, key of its tolerance), or None for what no backend has of its own."""
    op, case = entry["op"], entry["case"]
    a, b = data[f"{case}/a"], data.get(f"{case}/b")
    if op == "rms_norm":
        return op, lambda ops: ops.rms_norm(ops.place.put(a), None, entry["eps"]), "nmse"
    if op == "norm":
        return "layer_norm", lambda ops: ops.layer_norm(ops.place.put(a), None, None, entry["eps"]), "nmse"
    if op in ("silu", "gelu"):
        key = "gelu_table_nmse" if op == "gelu" else "nmse"
        return "activation", lambda ops: ops.activation(ops.place.put(a[None]), op), key
    if op == "tanh":
        return "soft_cap", lambda ops: ops.soft_cap(ops.place.put(a[None]), 1.0), "nmse"
    if op in _GLU and b is not None:
        key = "gelu_table_nmse" if op.startswith("geglu") else "nmse"
        return "glu", lambda ops: ops.glu(ops.place.put(a[None]), ops.place.put(b[None]), _GLU[op]), key
    if op == "mul_mat" and b is not None:
        weight = Weight("w", GGMLType.F32, a.shape, np.ascontiguousarray(a).reshape(-1).view(np.uint8))
        return "linear", lambda ops: ops.linear(ops.place.put(b), replace(weight, place=ops.place)), "nmse"
    if op == "soft_max" and not entry["max_bias"]:
        return "attend", partial(_soft_max, a, b is not None, entry["scale"]), "nmse"
    if op == "rope":
        return op, partial(_rope, entry, data), "rope_nmse"
    return None


def _soft_max(scores: Array, masked: bool, scale: float, ops: Ops) -> Array:
    """scores (H, T, S) -> (H, T, S). Where the golden has a mask, token t sees keys up to t + 20."""
    n_heads, n_tokens, n_keys = scores.shape
    unit = ops.place.put(np.eye(n_keys, dtype=np.float32)[:, None, :])
    positions = np.arange(n_tokens) + 20 if masked else np.full(n_tokens, n_keys - 1)
    q = ops.place.put(np.ascontiguousarray(scores.transpose(1, 0, 2)))
    out = to_host(ops.attend(q, unit, unit, positions, scale=scale, window=None, cap=None, tap=None))
    return out.reshape(n_tokens, n_heads, n_keys).transpose(1, 0, 2)


def _rope(entry: dict[str, Any], data: Data, ops: Ops) -> Array:
    """ggml multiplies the magnitude of YaRN in by itself; a RopeSpec says it."""
    case = entry["case"]
    magnitude = entry["attn_factor"]
    if entry["ext_factor"]:
        magnitude *= 1 + 0.1 * np.log(1 / entry["freq_scale"])
    spec = RopeSpec(
        n_rot=entry["n_dims"],
        base=entry["freq_base"],
        pairing="halves" if entry["mode"] == _NEOX else "adjacent",
        freq_scale=entry["freq_scale"],
        ext_factor=entry["ext_factor"],
        magnitude=float(magnitude),
        beta_fast=entry["beta_fast"],
        beta_slow=entry["beta_slow"],
        n_ctx_orig=entry["n_ctx_orig"],
    )
    positions = data[f"{case}/positions"].astype(np.int64)
    near = positions < 1000  # further on ggml's own angles are off: it multiplies them up in float32
    cos, sin = rope_table(spec, positions, data.get(f"{case}/factors"))
    x, cos, sin = (ops.place.put(part) for part in (data[f"{case}/a"], cos, sin))
    out = to_host(ops.rope(x, cos, sin, spec.pairing))
    return np.where(near[:, None, None], out, data[f"{case}/out"])
