"""Processor time of our quantisers and of ggml's, type by type, in one process on one thread.

    python docs/benchmarks/quantize.py PATH/libggml-base.so [--types Q4_K,IQ3_S] [--isa avx2] [--weights N] [--runs 5]

The two take turns, so that a busy machine slows both. Prints the medians per weight, how many times as long ggml takes,
and how many bytes differ. Without a library it times ours alone.
"""

from __future__ import annotations

import argparse
import ctypes
import statistics
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ref_engine.files.types import GGMLType, row_bytes
from ref_engine.kernels.dispatch import chosen_isa
from ref_engine.kernels.quantisers import Compiled
from ref_engine.quant.quantize import NEEDS_IMPORTANCE, QUANTISERS

COLUMNS = 2048
Run = Callable[[], NDArray[np.uint8]]


def ggml(path: str) -> ctypes.CDLL:
    library = ctypes.CDLL(path)
    chunk = library.ggml_quantize_chunk
    chunk.restype = ctypes.c_size_t
    chunk.argtypes = [ctypes.c_int, *[ctypes.c_void_p] * 2, *[ctypes.c_int64] * 3, ctypes.c_void_p]
    return library


def theirs(library: ctypes.CDLL, x: NDArray[np.float32], type: GGMLType, cost: NDArray[np.float32] | None) -> Run:
    out = np.empty((len(x), row_bytes(type, x.shape[1])), np.uint8)
    weights = None if cost is None else cost.ctypes.data

    def run() -> NDArray[np.uint8]:
        library.ggml_quantize_chunk(type.value, x.ctypes.data, out.ctypes.data, 0, *x.shape, weights)
        return out

    return run


def seconds(run: Run) -> float:
    start = time.thread_time()
    run()
    return time.thread_time() - start


def compare(type: GGMLType, ours: Run, other: Run | None, runs: int, weights: int, what: str) -> None:
    pairs = [(seconds(ours), seconds(other) if other else 0.0) for _ in range(runs + 1)][1:]  # the first warms up
    mine, its = (statistics.median(side) * 1e9 / weights for side in zip(*pairs, strict=True))
    line = f"{type.name:8} {what:11} {mine:9.2f} ns"
    if other:
        differing = int((ours() != other()).sum())
        line += f" {its:9.2f} ns {its / mine:7.2f}x {differing:5} bytes differ"
    print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", nargs="?", help="a shared library with ggml_quantize_chunk")
    parser.add_argument("--types", help="comma-separated; all by default")
    parser.add_argument("--isa", help="instruction set of ours")
    parser.add_argument("--weights", type=int, default=1 << 18)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    library = ggml(options.library) if options.library else None
    types = [GGMLType[name] for name in options.types.split(",")] if options.types else list(QUANTISERS)
    pack = Compiled(chosen_isa(options.isa), 1)
    rng = np.random.default_rng(0)
    rows = max(1, options.weights // COLUMNS)
    x = (0.02 * rng.standard_t(5, (rows, COLUMNS))).astype(np.float32)
    importance = rng.chisquare(1, COLUMNS).astype(np.float32)
    print(f"{'type':8} {'':11} {'ours':>9}    {'ggml':>9}    ratio   ({pack.isa}, per weight, one thread)")
    for type in types:
        for cost in (None, importance):
            if cost is None and type in NEEDS_IMPORTANCE:
                continue
            other = None if library is None else theirs(library, x, type, cost)

            def ours(type: GGMLType = type, cost: NDArray[np.float32] | None = cost) -> NDArray[np.uint8]:
                return pack(x, type, cost)

            compare(type, ours, other, options.runs, x.size, "" if cost is None else "importances")


if __name__ == "__main__":
    main()
