"""Golden data of small models from llama.cpp: logits of whole prompts and named intermediates of short ones.

    python golden/make/zoo.py [--out golden/zoo]

Reads specs/*.json of the two zoo models (data given with the project, with their logits) and writes
  specs/NAME.json, logits/NAME.npz   for every variant of zoo_variants.py: `tokens`, `logits`
  exact/NAME.npz                     for gemma3: `logits` of float64 arithmetic, kept as float32
  nodes/NAME.npz                     for the two zoo models: graph nodes over the first 16 tokens

nodes/NAME.npz holds `tokens`; per node an array under llama.cpp's name, slowest dimension first; and `index`, a JSON
list of {key, name, op, ne} in order of computation, ne being ggml's dimension order. llama.cpp gives several nodes one
name (a projection, its bias, its rotation): the last keeps the name, earlier ones are `name#0`, `name#1`, ...
kq-N and kq_soft_max-N are cut to the 16 cache cells in use.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zoo_gguf
import zoo_variants
from float64_model import zoo_logits
from llamacpp import LlamaCpp, Node, producer

ZOO = ("llama-dense", "gemma3-dense")
N_NODES, N_VARIANT = 16, 64
FLOOR = 1e-9
TABLE_FLOOR = 1e-8  # a last bit may move a GELU argument to the next entry of the table, which is a step of 1e-3


def nmse(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    """Largest NMSE over the rows, b being the truth."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float((((a - b) ** 2).sum(-1) / (b**2).sum(-1)).max())


def wanted(name: str) -> bool:
    """Nodes that llama.cpp's graph builder named itself: no views, no numbered nodes, no cache rows."""
    return " (" not in name and not name.startswith(("node_", "leaf_", "cache_"))


def keyed(nodes: list[Node]) -> tuple[dict[str, npt.NDArray[Any]], list[dict[str, Any]]]:
    left = Counter(node.name for node in nodes)
    seen: Counter[str] = Counter()
    arrays, index = {}, []
    for node in nodes:
        left[node.name] -= 1
        key = f"{node.name}#{seen[node.name]}" if left[node.name] else node.name
        seen[node.name] += 1
        array = (
            node.array[..., :N_NODES]
            if node.name.startswith("kq") and node.ne[0] > N_NODES and not node.name.startswith("kqv")
            else node.array
        )
        arrays[key] = array
        index.append({"key": key, "name": node.name, "op": node.op, "ne": list(node.ne)})
    return arrays, index


def run(path: Path, ids: list[int]) -> tuple[npt.NDArray[np.float32], dict[str, float]]:
    """Logits of one prefill, and how far llama.cpp is from them when it takes the tokens one by one."""
    with LlamaCpp(path, n_batch=len(ids)) as model:
        logits = model.logits(ids)
    with LlamaCpp(path, n_batch=1) as model:
        one_by_one = model.logits(ids)
    return logits, {"own_spread_nmse": nmse(one_by_one, logits)}


def judge(logits: npt.NDArray[np.float32], exact: dict[str, Any], measured: dict[str, float]) -> dict[str, Any]:
    """Tolerances from the distance to float64: rounding alone, and rounding with ggml's half-precision GELU table."""
    measured |= {f"llama.cpp_from_float64_{name}_nmse": nmse(logits, rows) for name, rows in exact.items()}
    distances = [nmse(logits, rows) for rows in exact.values()]
    rounding = max(FLOOR, 10 * max(measured["own_spread_nmse"], distances[-1])) if len(exact) > 1 else FLOOR
    agree = max(TABLE_FLOOR if len(exact) > 1 else FLOOR, 10 * measured["own_spread_nmse"])
    return {
        "logits": {"nmse": max(FLOOR, 3 * distances[0])},
        "exact": {"nmse": rounding},
        "agrees": distances[-1] <= agree,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="golden data of small models from llama.cpp")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent.parent / "zoo")
    parser.add_argument("--seed", type=int, default=7, help="of the tokens of the variants")
    args = parser.parse_args()
    for folder in ("specs", "logits", "nodes", "exact"):
        (args.out / folder).mkdir(parents=True, exist_ok=True)
    name, version = producer()
    files: dict[str, Any] = {}

    def record(model_name: str, path: Path, spec: dict[str, Any], ids: list[int], seed: int) -> None:
        """Run llama.cpp and the float64 definition; write exact/ and enter both files."""
        logits, measured = run(path, ids)
        exact = zoo_logits(spec, ids)
        limits = judge(logits, exact, measured)
        if not limits["agrees"]:
            raise SystemExit(f"{model_name}: llama.cpp and the float64 definition disagree: {measured}")
        note = {"note": spec["shows"]} if "shows" in spec else {}
        files[f"specs/{model_name}.json"] = {"seed": spec["seed"], "tolerance": "exact", **note}
        files[f"logits/{model_name}.npz"] = {"seed": seed, "tolerance": limits["logits"], "measured": measured, **note}
        if "table_gelu" in exact:
            np.savez_compressed(args.out / "exact" / f"{model_name}.npz", logits=exact["exact"].astype(np.float32))
            files[f"exact/{model_name}.npz"] = {
                "seed": seed, "tolerance": limits["exact"], "producer": "NumPy float64",
                "version": np.__version__, "note": "float64_model.py with the exact GELU; llama.cpp confirms it "
                "once its GELU table is put in",
            }  # fmt: skip
        results[model_name] = logits
        print(f"{model_name:26}", {key: f"{value:.1e}" for key, value in measured.items()})

    results: dict[str, npt.NDArray[np.float32]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "model.gguf"
        for model_name in ZOO:
            spec = json.loads((args.out / "specs" / f"{model_name}.json").read_text())
            given = np.load(args.out / "logits" / f"{model_name}.npz")
            ids = given["tokens"].tolist()
            zoo_gguf.build(spec, path)
            record(model_name, path, spec, ids, spec["token_seed"])
            if nmse(results[model_name], given["logits"]) > 1e-12:
                raise SystemExit(f"{model_name}: llama.cpp no longer gives the logits on record")
            with LlamaCpp(path, capture=True) as model:
                arrays, index = keyed(model.intermediates(ids[:N_NODES], wanted))
            np.savez_compressed(
                args.out / "nodes" / f"{model_name}.npz",
                tokens=np.array(ids[:N_NODES], np.int32),
                index=np.array(json.dumps(index)),
                **arrays,
            )
            limit = files[f"logits/{model_name}.npz"]["tolerance"]
            files[f"nodes/{model_name}.npz"] = {"seed": spec["token_seed"], "tolerance": limit}
        for model_name, (shows, bare) in zoo_variants.VARIANTS.items():
            spec = {"shows": shows, **bare}
            zoo_gguf.build(spec, path)
            ids = np.random.RandomState(args.seed).randint(0, zoo_variants.VOCAB, N_VARIANT).tolist()
            record(model_name, path, spec, ids, args.seed)
            (args.out / "specs" / f"{model_name}.json").write_text(json.dumps(spec) + "\n")
            np.savez_compressed(
                args.out / "logits" / f"{model_name}.npz", tokens=np.array(ids, np.int32), logits=results[model_name]
            )
    facts = {"made_by": "golden/make/zoo.py", "producer": name, "version": version, "files": files}
    (args.out / "facts.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
