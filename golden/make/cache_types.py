"""Golden logits of llama.cpp with keys and values in Q8_0, for small models of golden/architectures.

    python golden/make/cache_types.py [--out golden/cache]

NAME.npz: `logits` (96, V) float32 of the model and the tokens of architectures/logits/NAME.npz, weights in float32,
flash attention on, as a cache of blocks wants it. llama.cpp rotates what becomes blocks and rounds queries to blocks.

tolerance: a twentieth of the distance from the logits that a float32 cache gives, which is what the blocks take away; a
cache of blocks without the rotation, or with other roundings, is about as far away as those. measured: that distance,
and llama.cpp's own when it takes the tokens one by one.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import zoo_gguf
from llamacpp import FloatArray, LlamaCpp, producer

GOLDEN = Path(__file__).resolve().parent.parent
NAMES = {
    "llama-dense": "heads of 128",
    "qwen3-dense": "heads of 64, normalised",
    "gemma2-dense": "window and cap",
    "glm4moe-moe": "keys with a few large features, where the rotation matters most",
    "mimo2-moe": "sinks",
    "minicpm3-dense": "keys and values made of a latent vector",
    "hy_v4-moe": "a latent vector that is key and value, not rotated",
    "jamba-dense": "attention beside states",
    "qwen35-dense": "gated attention beside states",
}


def nmse(got: FloatArray, want: FloatArray) -> float:
    a, b = got.astype(np.float64), want.astype(np.float64)
    return float(((a - b) ** 2).sum() / (b**2).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=GOLDEN / "cache")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    files = {}
    for name, note in NAMES.items():
        spec = json.loads((GOLDEN / f"architectures/specs/{name}.json").read_text())
        given = np.load(GOLDEN / f"architectures/logits/{name}.npz")
        ids = given["tokens"].tolist()
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "model.gguf")
            zoo_gguf.build(spec, path, spec["seed"])
            found = []
            for n_batch in (len(ids), 1):
                with LlamaCpp(path, n_ctx=128, n_batch=n_batch, kv="q8_0", flash=True, n_threads=1) as llama:
                    found.append(llama.logits(ids))
        np.savez_compressed(out / f"{name}.npz", logits=found[0])
        taken = nmse(given["logits"], found[0])
        measured = {"distance_of_f32_nmse": taken, "own_spread_nmse": nmse(found[1], found[0])}
        files[f"{name}.npz"] = {
            "seed": spec["seed"],
            "tolerance": {"nmse": taken / 20},
            "note": note,
            "measured": measured,
        }
    made, version = producer()
    facts = {"producer": made, "version": version, "made_by": "golden/make/cache_types.py", "files": files}
    (out / "facts.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
