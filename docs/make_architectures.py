"""Write docs/architectures.md: how near each golden model comes to llama.cpp, and whether the backends agree.

python docs/make_architectures.py        (`make architectures`; a few minutes, needs the kernels and gguf)
"""

from __future__ import annotations

import importlib.util
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import ref_engine
from ref_engine.mixture import FILE_TYPES
from ref_engine.quantize_file import quantize_file
from ref_engine.reference import elementary, ffn
from ref_engine.spec import ModelSpec

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "golden" / "architectures"
TARGET = ROOT / "docs" / "architectures.md"
N_TOKENS = 24  # of the comparison between backends
_INTRODUCTION = """\
# Architectures

Written by `docs/make_architectures.py` (`make architectures`); do not edit it by hand.

One small model for each line, with weights drawn from a seed (`golden/architectures`), 96 tokens. Figures are NMSE
over all logits: squared error over squared size.

- **f32**: `backend="numpy", activations="f32"` against llama.cpp on the CPU with float32 weights and cache.
- **native f32**: the same of the compiled backend.
- **llama.cpp**: llama.cpp against itself when it takes the tokens one by one; "-" for models without a cache.
- **same bits**: in q8 mode the `native` backend gives the bits of the definition, with the file quantised to Q8_0 and
  to Q4_K_M.

Where a figure is above 1e-9 it is llama.cpp's GELU: ggml looks it up in a table of half-precision arguments and results
(a step of 1e-3), and our definition is the exact function. The second figure is the definition with that table put in.
"""


def nmse(got: NDArray[Any], want: NDArray[Any]) -> float:
    got, want = got.astype(np.float64), want.astype(np.float64)
    return float(((got - want) ** 2).sum() / (want**2).sum())


def tabled_gelu(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """ggml's GELU: half-precision arguments and results between -10 and 10."""
    half = np.clip(x, -10, 10).astype(np.float16).astype(np.float32)
    y = elementary.gelu(half).astype(np.float16).astype(np.float32)
    return np.where(x <= -10, np.float32(0), np.where(x >= 10, x, y))


def parts(spec: ModelSpec) -> str:
    """The kinds of halves that its layers have."""
    kinds = [type(part).__name__.removesuffix("Spec") for layer in spec.layers for part in layer.halves]
    return ", ".join(dict.fromkeys(kinds))


def row(name: str, path: Path, own_spread: float | None, scratch: Path) -> tuple[str, bool]:
    """One line of the table, and whether it is as it should be."""
    data = np.load(GOLDEN / "logits" / f"{name}.npz")
    model = ref_engine.load(path, backend="numpy", activations="f32")
    exact = nmse(model.logits(data["tokens"]), data["logits"])
    figure, good = f"{exact:.1e}", exact < 1e-9
    if not good:
        kept, ffn.ACTIVATIONS["gelu"] = ffn.ACTIVATIONS["gelu"], tabled_gelu
        tabled = nmse(model.logits(data["tokens"]), data["logits"])
        ffn.ACTIVATIONS["gelu"] = kept
        figure, good = f"{exact:.1e}, {tabled:.1e}", tabled < max(1e-9, 10 * (own_spread or 0))
    native = nmse(ref_engine.load(path, backend="native", activations="f32").logits(data["tokens"]), data["logits"])
    same = [same_bits(path, kind, data["tokens"][:N_TOKENS], scratch) for kind in ("Q8_0", "Q4_K_M")]
    own = "-" if own_spread is None else f"{own_spread:.1e}"
    bits = "yes, yes" if all(same) else f"no: {same}"
    line = f"| `{model.spec.arch}` | {name} | {parts(model.spec)} | {figure} | {native:.1e} | {own} | {bits} |"
    return line, good and all(same) and native < max(1e-8, 2 * exact)


def same_bits(path: Path, kind: str, ids: NDArray[Any], scratch: Path) -> bool:
    quantised = scratch / f"{kind}.gguf"
    quantize_file(path, quantised, FILE_TYPES[kind])
    numpy, native = (ref_engine.load(quantised, backend=backend).logits(ids) for backend in ("numpy", "native"))
    return bool((numpy == native).all())


def main() -> None:
    module = importlib.util.spec_from_file_location("zoo_gguf", ROOT / "golden" / "make" / "zoo_gguf.py")
    if module is None or module.loader is None:
        raise SystemExit("golden/make/zoo_gguf.py is missing")
    zoo_gguf = importlib.util.module_from_spec(module)
    module.loader.exec_module(zoo_gguf)
    facts = json.loads((GOLDEN / "facts.json").read_text())["files"]
    lines, bad = [], []
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        for source in sorted((GOLDEN / "specs").glob("*.json")):
            zoo_gguf.build(json.loads(source.read_text()), scratch / "model.gguf")
            own = facts[f"logits/{source.stem}.npz"]["measured"].get("own_spread_nmse")
            line, good = row(source.stem, scratch / "model.gguf", own, scratch)
            print(line, flush=True)
            lines.append(line)
            bad += [] if good else [source.stem]
    head = (
        "| architecture | model | parts | f32 | native f32 | llama.cpp | same bits |\n|---|---|---|---|---|---|---|\n"
    )
    TARGET.write_text(f"{_INTRODUCTION}\n{head}" + "\n".join(lines) + "\n", encoding="utf-8")
    if bad:
        sys.exit(f"not as it should be: {', '.join(bad)}")


if __name__ == "__main__":
    main()
