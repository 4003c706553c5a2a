"""Small models whose weights are a pure function of a spec and a seed.

A spec is {"kv": [[key, types, value]...], "tensors": [[name, GGUF dimensions fastest first, dtype]...], "seed": N}.
Weights: numpy.random.RandomState(crc32(f"{seed}:{tensor name}")), whose stream NumPy guarantees never to change.
  1-D "*norm*.weight"  -> 1 + 0.1 * N(0, 1)
  other 1-D            -> 0.1 * N(0, 1)        (ssm_a: -0.05 - 0.5|N|, so the state decays;
                                                rope_freqs, rope_factors: 1 + |N|)
  token_embd           -> 0.5 * N(0, 1)
  other N-D            -> N(0, 1) / sqrt(fan_in), fan_in = GGUF dimension 0; times 2.5 for query, key, attention output
                          and router projections, so that attention and routing are peaked and a wrong RoPE, mask or
                          gate shows in the logits

    python golden/make/zoo_gguf.py SPEC.json OUT.gguf
"""

from __future__ import annotations

import argparse
import json
import math
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

_PEAKED = re.compile(r"attn_(q|k|qkv|q_a|q_b|kv_a_mqa|k_b|kv_b|output|out)\.weight|ffn_gate_inp\.weight")
_DTYPES = {"F32": np.float32, "F16": np.float16}


def weights(name: str, ne: Sequence[int], dtype: str, seed: int) -> npt.NDArray[np.floating[Any]]:
    """The tensor `name`: ne in GGUF order (fastest first), the result in NumPy order (its reverse)."""
    if dtype not in _DTYPES:
        raise ValueError(f"{name}: no rule for dtype {dtype}")
    state = np.random.RandomState(zlib.crc32(f"{seed}:{name}".encode()))
    x = state.standard_normal(math.prod(ne))
    if "ssm_a" in name:
        x = -np.abs(x) * 0.5 - 0.05
    elif name.startswith(("rope_freqs", "rope_factors")):
        x = 1 + np.abs(x)
    elif sum(d > 1 for d in ne) <= 1:
        x = 1 + 0.1 * x if "norm" in name and name.endswith("weight") else 0.1 * x
    elif name.startswith("token_embd"):
        x = 0.5 * x
    else:
        x = x / math.sqrt(ne[0])
        if _PEAKED.search(name):
            x = 2.5 * x
    return x.astype(_DTYPES[dtype]).reshape(tuple(reversed(ne)))


def build(spec: dict[str, Any], out: str | Path, seed: int | None = None) -> None:
    """Write the GGUF file that the spec describes (seed: the spec's own unless given)."""
    seed = spec["seed"] if seed is None else seed
    types = gguf.GGUFValueType
    arch = next(value for key, _, value in spec["kv"] if key == "general.architecture")
    writer = gguf.GGUFWriter(str(out), arch)
    for key, names, value in spec["kv"]:
        if key == "general.architecture":
            continue
        if names[0] == "ARRAY":
            writer.add_key_value(key, value, types.ARRAY, sub_type=types[names[-1]])
        else:
            writer.add_key_value(key, value, types[names[0]])
    for name, ne, dtype in spec["tensors"]:
        writer.add_tensor(name, weights(name, ne, dtype, seed))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="write the GGUF file that a spec describes")
    parser.add_argument("spec", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    build(json.loads(args.spec.read_text()), args.out)
