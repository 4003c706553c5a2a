"""What `llama-debug --save-logits` writes: llamacpp-MODEL.bin and its companions.

    llamacpp-MODEL.bin               float32, the logits after the last token (V,)
    llamacpp-MODEL-embeddings.bin    with --embedding: float32 (T, D), or (D,) if the model pools
    ...-tokens.bin                   int32 token ids
    ....txt                          the same numbers as text, a line `INDEX: VALUE` for each, six digits
    ...-prompt.txt                   the prompt and the ids

(examples/debug/debug.cpp.) The scripts of examples/model-conversion write pytorch-MODEL.bin and .txt in the same way.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ref_engine.errors import RefEngineError
from ref_engine.lens.dump import Dump, Facts, Printed, Tensor

_LINE = re.compile(r"(\d{1,9}): (\S{1,40})")
_MOST = 1 << 31


def logits_file(folder: Path) -> Path | None:
    """The one .bin of logits or embeddings in a folder; None if it holds none or several."""
    found = [p for p in sorted(folder.glob("*.bin")) if not p.name.endswith("-tokens.bin")]
    return found[0] if len(found) == 1 else None


def is_logits_text(start: str) -> bool:
    return re.match(r"0: \S+\s", start) is not None


def open_logits(path: Path) -> Dump:
    """A .bin or .txt as one tensor. Raises RefEngineError for a file that is no row of numbers."""
    base = path.with_suffix("")
    name = "result_norm" if base.name.endswith("-embeddings") else "result_output"
    values = _text(path) if path.suffix == ".txt" else _binary(path)
    ids = base.with_name(f"{base.name}-tokens.bin")
    tokens = None
    if ids.exists():
        numbers = _whole(ids, "<i4")
        tokens = tuple(int(i) for i in numbers)
        if not tokens or min(tokens) < 0:
            raise RefEngineError(f"{ids}: no token ids")
    if name == "result_norm" and tokens and values.size % len(tokens) == 0:
        values = values.reshape(len(tokens), -1)
    engine = "llama.cpp" if path.name.startswith("llamacpp-") else None
    facts = Facts(engine=engine or ("transformers" if path.name.startswith("pytorch-") else None), tokens=tokens)
    if path.suffix != ".txt":
        return Dump(str(path), {name: Tensor(name, values.shape, lambda: values)}, facts)
    kept = tuple(tuple(range(n)) for n in values.shape)
    resolution = 5e-6 * float(np.abs(values).max(initial=0))  # six digits of the largest
    printed = Printed(kept, values.astype(np.float64), None, resolution)
    return Dump(str(path), {name: Tensor(name, values.shape, None, printed)}, facts)


def _binary(path: Path) -> NDArray[np.float32]:
    return _whole(path, "<f4").astype(np.float32)


def _whole(path: Path, code: str) -> NDArray[np.generic]:
    size = path.stat().st_size
    if size == 0 or size % 4 or size > _MOST:
        raise RefEngineError(f"{path}: {size} bytes are no row of four-byte numbers")
    return np.fromfile(path, code)


def _text(path: Path) -> NDArray[np.float64]:
    values = []
    with path.open(encoding="utf-8", errors="replace") as lines:
        for i, line in enumerate(lines):
            match = _LINE.fullmatch(line.strip())
            if match is None or int(match[1]) != i:
                raise RefEngineError(f"{path}: line {i + 1} is not `{i}: VALUE`")
            try:
                values.append(float(match[2]))
            except ValueError as error:
                raise RefEngineError(f"{path}: line {i + 1}: {match[2]!r} is not a number") from error
    return np.array(values)
