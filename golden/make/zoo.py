"""Golden data of small models from llama.cpp: logits of whole prompts and named intermediates of short ones.

    python golden/make/zoo.py [--out golden/zoo]

Reads specs/*.json of the two zoo models (data given with the project, with their logits) and writes
  specs/NAME.json, logits/NAME.npz   for every variant of zoo_variants.py
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
from llamacpp import LlamaCpp, Node, producer

ZOO = ("llama-dense", "gemma3-dense")
N_NODES, N_VARIANT = 16, 64
TOLERANCE = {"nmse": 1e-9}
MAX_LAYERS_TRACED = 2


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
    """Logits of one prefill, and how far llama.cpp is from them when it takes the tokens in other portions."""
    with LlamaCpp(path, n_batch=len(ids)) as model:
        logits = model.logits(ids)
    with LlamaCpp(path, n_batch=1) as model:
        one_by_one = model.logits(ids)
    return logits, {"own_spread_nmse": nmse(one_by_one, logits)}


def main() -> None:
    parser = argparse.ArgumentParser(description="golden data of small models from llama.cpp")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent.parent / "zoo")
    parser.add_argument("--seed", type=int, default=7, help="of the tokens of the variants")
    args = parser.parse_args()
    for folder in ("specs", "logits", "nodes"):
        (args.out / folder).mkdir(parents=True, exist_ok=True)
    name, version = producer()
    files: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "model.gguf"
        for model_name in ZOO:
            spec = json.loads((args.out / "specs" / f"{model_name}.json").read_text())
            given = np.load(args.out / "logits" / f"{model_name}.npz")
            ids = given["tokens"].tolist()
            zoo_gguf.build(spec, path)
            logits, measured = run(path, ids)
            if nmse(logits, given["logits"]) > 1e-12:
                raise SystemExit(f"{model_name}: llama.cpp no longer gives the logits on record")
            with LlamaCpp(path, capture=True) as model:
                arrays, index = keyed(model.intermediates(ids[:N_NODES], wanted))
            np.savez_compressed(
                args.out / "nodes" / f"{model_name}.npz",
                tokens=np.array(ids[:N_NODES], np.int32),
                index=np.array(json.dumps(index)),
                **arrays,
            )
            files[f"specs/{model_name}.json"] = {"seed": spec["seed"], "tolerance": "exact"}
            files[f"logits/{model_name}.npz"] = {
                "seed": spec["token_seed"],
                "tolerance": TOLERANCE,
                "measured": measured,
            }
            files[f"nodes/{model_name}.npz"] = {"seed": spec["token_seed"], "tolerance": TOLERANCE}
        for model_name, (shows, spec) in zoo_variants.VARIANTS.items():
            zoo_gguf.build(spec, path)
            ids = np.random.RandomState(args.seed).randint(0, zoo_variants.VOCAB, N_VARIANT).tolist()
            logits, measured = run(path, ids)
            (args.out / "specs" / f"{model_name}.json").write_text(
                json.dumps({"shows": shows, **spec}) + "\n"
            )
            np.savez_compressed(
                args.out / "logits" / f"{model_name}.npz", tokens=np.array(ids, np.int32), logits=logits
            )
            print(f"{model_name:26} own spread {measured['own_spread_nmse']:.1e}")
            files[f"specs/{model_name}.json"] = {"seed": spec["seed"], "tolerance": "exact", "note": shows}
            files[f"logits/{model_name}.npz"] = {
                "seed": args.seed,
                "tolerance": TOLERANCE,
                "measured": measured,
                "note": shows,
            }
    facts = {"made_by": "golden/make/zoo.py", "producer": name, "version": version, "files": files}
    (args.out / "facts.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
