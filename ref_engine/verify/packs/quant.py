"""golden/ops and golden/quant, weight type by weight type: values of blocks, products, the bytes quantisers make.

A backend is asked for values through `embed`, each block a row of the matrix, and for products through `linear`: with
q8 activations against ggml's dot products, in f32 mode against the values of the definition multiplied in float64.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from ref_engine.files.types import GGMLType
from ref_engine.place import to_host
from ref_engine.quant.activations import ROUNDINGS
from ref_engine.quant.quantize import NEEDS_IMPORTANCE, quantize
from ref_engine.quant.types import BLOCK_TYPES, PLAIN_TYPES, dequantize
from ref_engine.reference.linear import Activations
from ref_engine.verify.case import Array, Case, Finding, same_bits, within
from ref_engine.verify.engines.ours import Backend
from ref_engine.verify.golden import Golden
from ref_engine.weights import Weight

_F32_LIMIT = 1e-10  # float32 sums of 512 to 2048 terms
_PLACES = {"ops": ("ops/dequantize.npz", "ops/vec_dot.npz"), "quant": ("quant/dequantize.npz", "quant/vec_dot.npz")}
# ggml converts infinities to integers in these rows of golden/ops/activations.npz; ours are zeros, as is the product
_UNDEFINED = {"q8_0": {"denormal", "smallest"}, "q8_1": {"denormal", "smallest"}, "q8_K": set[str]()}


def cases(golden: Golden, backend: Backend) -> list[Case]:
    return [
        *_values(golden, backend),
        *(case for mode in backend.modes for case in _products(golden, backend, mode)),
        *_quantisers(golden),
        *_activations(golden),
    ]


def _values(golden: Golden, backend: Backend) -> list[Case]:
    found = []
    for name, _ in _PLACES.values():
        data = golden.npz(name)
        for type in _types_of(data, "blocks"):
            run = partial(_dequantize, backend, type, data[f"{type.name}/blocks"], data[f"{type.name}/values"])
            found.append(Case(f"quant/{type.name}/dequantize", "embed", type.name, run))
    return found


def _types_of(data: dict[str, Array], part: str) -> list[GGMLType]:
    """Types with an entry TYPE/part that a weight may have, in the order of the file."""
    names = dict.fromkeys(key.split("/")[0] for key in data if key.split("/")[-1].split("_")[0] == part)
    types = [GGMLType[name] for name in names if name in GGMLType.__members__]
    return [type for type in types if type in PLAIN_TYPES or type in BLOCK_TYPES]


def _dequantize(backend: Backend, type: GGMLType, blocks: Array, want: Array) -> Finding:
    weight = Weight("w", type, want.shape, np.ascontiguousarray(blocks).reshape(-1))
    ops = backend.make(backend.modes[0])
    with ops.scope(), np.errstate(all="ignore"):
        return same_bits(to_host(ops.embed(np.arange(len(want)), weight)), want)


def _products(golden: Golden, backend: Backend, mode: Activations) -> list[Case]:
    found = []
    for _, name in _PLACES.values():
        data, limit = golden.npz(name), golden.tolerance(name, "nmse")
        for type in _types_of(data, "w"):
            run = partial(_linear, backend, mode, type, data, limit)
            found.append(Case(f"quant/{type.name}/product/{mode}", "linear", type.name, run))
    return found


def _linear(backend: Backend, mode: Activations, type: GGMLType, data: dict[str, Array], limit: float) -> Finding:
    """All lengths of rows that the golden has, joined into one figure."""
    ops, got, want = backend.make(mode), [], []
    for key in (key for key in data if key.startswith(f"{type.name}/w")):
        suffix = key.removeprefix(f"{type.name}/w")
        x, packed = data[f"x{suffix}"], np.ascontiguousarray(data[key])
        weight = Weight("w", type, (len(packed), x.shape[1]), packed.reshape(-1).view(np.uint8), place=ops.place)
        with ops.scope():
            got.append(to_host(ops.linear(ops.place.put(x), weight)))
        exact = x.astype(np.float64) @ dequantize(packed.view(np.uint8), type).astype(np.float64).T
        want.append(data[f"{type.name}/y{suffix}"] if mode == "q8" else exact.astype(np.float32))
    return within(np.concatenate(got), np.concatenate(want), limit if mode == "q8" else _F32_LIMIT)


def _quantisers(golden: Golden) -> list[Case]:
    data = golden.npz("quant/quantize.npz")
    found = []
    for key in (key for key in data if key.endswith(("/plain", "/weighted"))):
        name, kind = key.split("/")
        if kind == "weighted" or GGMLType[name] not in NEEDS_IMPORTANCE:
            run = partial(_quantize, GGMLType[name], data, kind)
            found.append(Case(f"quant/{name}/quantize/{kind}", "quantize", name, run))
    return found


def _quantize(type: GGMLType, data: dict[str, Array], kind: str) -> Finding:
    want = data[f"{type.name}/{kind}"]
    importance: Any = data["importance"] if kind == "weighted" else None
    return same_bits(quantize(data["x"][: len(want)], type, importance), want)


def _activations(golden: Golden) -> list[Case]:
    data = golden.npz("ops/activations.npz")
    found = []
    for name in _UNDEFINED:
        kept = [i for i, label in enumerate(data["names"]) if str(label) not in _UNDEFINED[name]]
        run = partial(_round, name, data["x"][kept], data[name][kept])
        found.append(Case(f"quant/{name.upper()}/activations", "rounding", name.upper(), run))
    return found


def _round(name: str, x: Array, want: Array) -> Finding:
    with np.errstate(all="ignore"):
        got = ROUNDINGS[name.lower()](x)
    return same_bits(np.frombuffer(got.tobytes(), np.uint8).reshape(want.shape), want)
