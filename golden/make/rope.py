"""Golden rotary tables from Hugging Face transformers, one per scaling.

    python golden/make/rope.py [--out golden/rope]

tables.npz: `index`, a JSON list of {case, base, head_dim, max_position_embeddings, seq_len, parameters};
CASE/inv_freq (head_dim / 2,) and CASE/attention_factor () as transformers computes them, in float64 (its functions
ask torch for float32; that name is float64 here while they run), CASE/inv_freq_f32 as it ships; `positions` (P,);
CASE/cos, CASE/sin (P, head_dim / 2) float64 = attention_factor * cos(position * inv_freq).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import torch
import transformers
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

POSITIONS = (0, 1, 2, 63, 64, 1000, 4095, 4096, 8192, 32767, 100000)
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


def _ramp(n: int, low: float, high: float) -> list[float]:
    return [float(v) for v in np.linspace(low, high, n)]


def cases() -> list[dict[str, Any]]:
    """Configurations of models in use, and small ones that move every parameter."""

    def case(
        name: str, kind: str, base: float, head_dim: int, context: int, seq_len: int | None = None, **p: Any
    ) -> dict[str, Any]:
        return {
            "case": name, "base": base, "head_dim": head_dim, "max_position_embeddings": context,
            "seq_len": seq_len, "parameters": {"rope_type": kind, "rope_theta": base, **p},
        }  # fmt: skip

    yarn = {"factor": 4.0, "original_max_position_embeddings": 32768}
    long = {
        "original_max_position_embeddings": 4096, "factor": 32.0,
        "short_factor": _ramp(48, 1.0, 2.8), "long_factor": _ramp(48, 1.1, 64.0),
    }  # fmt: skip
    return [
        case("linear_4", "linear", 10000.0, 128, 16384, factor=4.0),
        case("linear_8_base_1e6", "linear", 1e6, 256, 131072, factor=8.0),
        case("llama3_8b", "llama3", 500000.0, 128, 131072, factor=8.0, **LLAMA3),
        case("llama3_1b", "llama3", 500000.0, 64, 131072, factor=32.0, **LLAMA3),
        case("llama3_narrow", "llama3", 10000.0, 16, 1024, factor=4.0, low_freq_factor=1.0, high_freq_factor=2.0,
             original_max_position_embeddings=256),
        case("yarn_4", "yarn", 1e6, 128, 131072, **yarn),
        case("yarn_16_small", "yarn", 10000.0, 64, 1024, factor=16.0, original_max_position_embeddings=64),
        case("yarn_betas", "yarn", 10000.0, 96, 32768, factor=8.0, original_max_position_embeddings=4096,
             beta_fast=16.0, beta_slow=2.0),
        case("yarn_attention_factor", "yarn", 1e6, 128, 131072, attention_factor=1.25, **yarn),
        case("longrope_short", "longrope", 10000.0, 96, 131072, 4096, **long),
        case("longrope_long", "longrope", 10000.0, 96, 131072, 4097, **long),
        case("longrope_attention_factor", "longrope", 10000.0, 96, 131072, 8192, attention_factor=1.5, **long),
    ]  # fmt: skip


def inverse_frequencies(case: dict[str, Any], dtype: torch.dtype) -> tuple[npt.NDArray[np.float64], float]:
    config = transformers.LlamaConfig(
        hidden_size=4 * case["head_dim"], num_attention_heads=4, head_dim=case["head_dim"],
        max_position_embeddings=case["max_position_embeddings"], rope_parameters=dict(case["parameters"]),
    )  # fmt: skip
    function = ROPE_INIT_FUNCTIONS[case["parameters"]["rope_type"]]
    with mock.patch.object(torch, "float", dtype), mock.patch.object(torch, "float32", dtype):
        inv_freq, factor = function(config, torch.device("cpu"), seq_len=case["seq_len"])
    if inv_freq.dtype != dtype:
        raise SystemExit(f"{case['case']}: transformers computed in {inv_freq.dtype}, not {dtype}")
    return inv_freq.double().numpy(), float(factor)


def main() -> None:
    parser = argparse.ArgumentParser(description="golden rotary tables from transformers")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent.parent / "rope")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    positions = np.array(POSITIONS, np.int64)
    arrays: dict[str, npt.NDArray[Any]] = {"positions": positions}
    measured: dict[str, float] = {}
    for case in cases():
        name = case["case"]
        inv_freq, factor = inverse_frequencies(case, torch.float64)
        single, _ = inverse_frequencies(case, torch.float32)
        angle = positions[:, None] * inv_freq
        arrays[f"{name}/inv_freq"] = inv_freq
        arrays[f"{name}/inv_freq_f32"] = single.astype(np.float32)
        arrays[f"{name}/attention_factor"] = np.array(factor)
        arrays[f"{name}/cos"], arrays[f"{name}/sin"] = factor * np.cos(angle), factor * np.sin(angle)
        measured[f"{name}: largest relative step from float32 to float64"] = float(np.abs(single / inv_freq - 1).max())
        print(f"{name:28} factor {factor:.6f}  {list(measured.values())[-1]:.1e}")
    arrays["index"] = np.array(json.dumps(cases()))
    np.savez_compressed(args.out / "tables.npz", **arrays)
    entry = {
        "seed": None, "tolerance": {"relative": 1e-9}, "measured": measured,
        "note": "inv_freq and attention_factor within the relative tolerance; cos and sin follow from them in float64",
    }  # fmt: skip
    facts = {
        "made_by": "golden/make/rope.py", "producer": "transformers",
        "version": f"{transformers.__version__}, torch {torch.__version__}", "files": {"tables.npz": entry},
    }  # fmt: skip
    (args.out / "facts.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
