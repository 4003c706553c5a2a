"""Golden routing of 384 experts in groups, as DeepSeek V3 and Kimi K2 have it, from llama.cpp.

    python golden/make/experts.py [--out golden/experts]

Writes specs/experts-384.json, a two-layer model of 384 experts of which each token takes 8 from 4 of 8 groups (sigmoid,
selection bias, normalised, scale 2.827), and nodes/experts-384.npz: `tokens`, `logits`, and the router's nodes under
llama.cpp's names, slowest dimension first.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import zoo_gguf
from llamacpp import LlamaCpp, producer

NAME, N_TOKENS, SEED = "experts-384", 32, 11
D, DENSE, F, E, V, HEAD = 64, 96, 32, 384, 128, 32
NODES = ("ffn_moe_logits-1", "ffn_moe_group_topk-1", "ffn_moe_topk-1", "ffn_moe_weights_scaled-1", "ffn_moe_out-1")
METADATA: dict[str, int | float | bool] = {
    "vocab_size": V,
    "context_length": 64,
    "embedding_length": D,
    "block_count": 2,
    "leading_dense_block_count": 1,
    "feed_forward_length": DENSE,
    "expert_feed_forward_length": F,
    "expert_count": E,
    "expert_used_count": 8,
    "expert_shared_count": 1,
    "expert_group_count": 8,
    "expert_group_used_count": 4,
    "expert_gating_func": 2,
    "expert_weights_norm": True,
    "expert_weights_scale": 2.827,
    "attention.head_count": D // HEAD,
    "attention.layer_norm_rms_epsilon": 1e-5,
}


def tensors() -> list[list[Any]]:
    """[name, dimensions fastest first, type]"""
    found: dict[str, list[int]] = {"token_embd.weight": [D, V], "output_norm.weight": [D], "output.weight": [D, V]}
    for i in range(2):
        for name in ("q", "k", "v", "output"):
            found[f"blk.{i}.attn_{name}.weight"] = [D, D]
        for name, width in (("attn", D), ("ffn", D), ("attn_q", HEAD), ("attn_k", HEAD)):
            found[f"blk.{i}.{name}_norm.weight"] = [width]
    for name, ne in (("gate", [D, DENSE]), ("up", [D, DENSE]), ("down", [DENSE, D])):
        found[f"blk.0.ffn_{name}.weight"] = ne
    for name, ne in (("gate", [D, F]), ("up", [D, F]), ("down", [F, D])):
        found[f"blk.1.ffn_{name}_exps.weight"] = [*ne, E]
        found[f"blk.1.ffn_{name}_shexp.weight"] = ne
    found |= {"blk.1.ffn_gate_inp.weight": [D, E], "blk.1.exp_probs_b.bias": [E]}
    return [[name, ne, "F32"] for name, ne in found.items()]


def spec() -> dict[str, Any]:
    types = {bool: "BOOL", int: "UINT32", float: "FLOAT32"}
    kv: list[list[Any]] = [["general.architecture", ["STRING"], "dots1"]]
    kv += [[f"dots1.{key}", [types[type(value)]], value] for key, value in METADATA.items()]
    kv += [
        ["tokenizer.ggml.model", ["STRING"], "test"],
        ["tokenizer.ggml.tokens", ["ARRAY", "STRING"], [f"tok_{i}" for i in range(V)]],
        ["tokenizer.ggml.token_type", ["ARRAY", "INT32"], [1] * V],
    ]
    return {"kv": kv, "tensors": tensors(), "seed": SEED, "token_seed": SEED}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent.parent / "experts")
    out: Path = parser.parse_args().out
    for folder in ("specs", "nodes"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    described = spec()
    (out / "specs" / f"{NAME}.json").write_text(json.dumps(described) + "\n")
    ids = np.random.RandomState(SEED).randint(0, V, N_TOKENS)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "model.gguf"
        zoo_gguf.build(described, path)
        with LlamaCpp(path, capture=True) as model:
            nodes = {node.name: node.array for node in model.intermediates(ids.tolist(), NODES.__contains__)}
            logits = model.logits(ids.tolist())
    arrays = {name: nodes[name].reshape(N_TOKENS, -1) for name in NODES}
    np.savez_compressed(out / "nodes" / f"{NAME}.npz", tokens=ids.astype(np.int32), logits=logits, **arrays)
    name, version = producer()
    files = {
        f"specs/{NAME}.json": {"seed": SEED, "tolerance": "exact"},
        f"nodes/{NAME}.npz": {"seed": SEED, "tolerance": {"nmse": 1e-9}, "note": "experts exactly, the rest by nmse"},
    }
    facts = {"made_by": "golden/make/experts.py", "producer": name, "version": version, "files": files}
    (out / "facts.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
