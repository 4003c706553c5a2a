"""golden/rope: the rotary tables of transformers, every scaling. These do not depend on a backend.

Angles are products of a position and a frequency. A file keeps the factors of longrope and Llama 3 as float32, so an
angle may be off by position * frequency * 2**-23 there; the table itself is float32.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from ref_engine.reference.rope import rope_table
from ref_engine.spec import RopeSpec
from ref_engine.verify.case import Array, Case, Finding, failed, measured
from ref_engine.verify.golden import Golden

_NAME = "rope/tables.npz"
_STEP = 2.0**-22  # of float32, twice: a factor is rounded, and so is what it came from


def cases(golden: Golden) -> list[Case]:
    data = golden.npz(_NAME)
    found = []
    for entry in json.loads(str(data["index"])):
        found.append(Case(f"rope/{entry['case']}/table", "rope_table", "", partial(_table, entry, data)))
    return found


def _table(entry: Mapping[str, Any], data: Mapping[str, Array]) -> Finding:
    case, positions = entry["case"], data["positions"]
    spec, factors = _spec(entry, data)
    cos, sin = rope_table(spec, positions, factors)
    got, want = np.stack([cos, sin]), np.stack([data[f"{case}/cos"], data[f"{case}/sin"]])
    if got.shape != want.shape:
        return failed(f"shape {list(got.shape)}, expected {list(want.shape)}")
    angle = np.abs(positions[:, None] * data[f"{case}/inv_freq"])
    room = spec.magnitude * (2 * _STEP + (angle * _STEP if factors is not None else angle * 1e-14))
    off = np.abs(got - want) - room
    found = measured(got, want)
    limit = "float32 of cosine and sine" + (", factors in float32" if factors is not None else "")
    if (off <= 0).all():
        return Finding(True, "", limit, found.figures)
    part, t, pair = (int(i) for i in np.unravel_index(int(off.argmax()), off.shape))
    name = ("cosine", "sine")[part]
    values = f"{got[part, t, pair]:.8g}, expected {want[part, t, pair]:.8g}"
    at = f"{name} of pair {pair} at position {positions[t]}: {values}"
    return Finding(False, at, limit, found.figures, found.worst, found.got, found.want)


def _spec(entry: Mapping[str, Any], data: Mapping[str, Array]) -> tuple[RopeSpec, Array | None]:
    """As a converter writes the parameters of transformers into a file's keys and tensors."""
    p, width, case = entry["parameters"], entry["head_dim"], entry["case"]
    kind, magnitude = p["rope_type"], float(data[f"{case}/attention_factor"])
    plain = RopeSpec(n_rot=width, base=entry["base"], pairing="halves", magnitude=magnitude)
    if kind == "linear":
        return RopeSpec(width, entry["base"], "halves", freq_scale=1 / p["factor"], magnitude=magnitude), None
    if kind == "yarn":
        yarn = RopeSpec(
            n_rot=width,
            base=entry["base"],
            pairing="halves",
            freq_scale=1 / p["factor"],
            ext_factor=1.0,
            magnitude=p.get("attention_factor", 1 + 0.1 * math.log(p["factor"])),
            beta_fast=p.get("beta_fast", 32.0),
            beta_slow=p.get("beta_slow", 1.0),
            n_ctx_orig=p["original_max_position_embeddings"],
        )
        return yarn, None
    if kind == "longrope":
        long = entry["seq_len"] > p["original_max_position_embeddings"]
        return plain, np.array(p["long_factor" if long else "short_factor"], np.float32)
    pairs = entry["base"] ** (-np.arange(0, width, 2) / width)
    return plain, (pairs / data[f"{case}/inv_freq"]).astype(np.float32)
