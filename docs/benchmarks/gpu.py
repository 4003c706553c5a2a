"""What must be shown on a GPU, in one go of 8 minutes at most: JSON on stdout, what it is doing on stderr.

    python docs/benchmarks/gpu.py [--seconds 480] [--folder DIR] [--tiny] > gpu.json

1. device      its name, memory and CuPy
2. accuracy    small models of golden/ and the real ones in the cache: worst NMSE of a position against NumPy in f32
               mode, and whether greedy text is the same
3. ceiling     bytes a second that the device copies and reads
4. products    kernels for one token alone, by type, over stacks that no cache holds: a share of the ceiling
5. dense       a 7B-sized Q4_K file of random weights: prefill, and decode as a share of the ceiling
6. experts     a mixture in Q4_K: the same with the bytes of the chosen experts, and of all of them
Each part has a share of the time, and says what it left out. The two large files stay in --folder for the next run.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import ref_engine
from ref_engine import compat
from ref_engine.files.gguf import open_gguf
from ref_engine.files.types import GGMLType
from ref_engine.files.writer import write_gguf
from ref_engine.gpu.device import Device
from ref_engine.gpu.packed import PLAIN, packed
from ref_engine.gpu.products import Products
from ref_engine.plan import make_plan
from ref_engine.quant.types import BLOCK_TYPES, PLAIN_TYPES
from ref_engine.weights import Weight

HERE = Path(__file__).resolve().parent
GOLDEN = HERE.parents[1] / "golden"
CACHE = Path(os.environ.get("REF_ENGINE_CACHE", Path.home() / ".cache" / "ref-engine")) / "models"
REAL = ("smollm2-135m-instruct-q4_1.gguf", "gemma-3-270m-q4_k_m.gguf")
SHARES = {"device": 0.02, "accuracy": 0.45, "ceiling": 0.05, "products": 0.05, "dense": 0.28, "experts": 0.15}
FULL = {"layers": 32, "width": 4096, "hidden": 11008, "heads": 32, "vocabulary": 32000}
TINY = {"layers": 2, "width": 256, "hidden": 512, "heads": 4, "vocabulary": 512}
TEXT = "The capital of France is"
Json = dict[str, Any]


def script(path: Path) -> Any:
    """A generator of this repository, as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def nmse(got: np.ndarray, want: np.ndarray) -> float:
    """The worst position's; minus infinity must stand in the same places."""
    finite = np.isfinite(want)
    if not (np.isfinite(got) == finite).all():
        return float("inf")
    a, b = (np.where(finite, x, 0).astype(np.float64) for x in (got, want))
    return float((((a - b) ** 2).sum(-1) / np.maximum((b**2).sum(-1), 1e-300)).max())


# -- 1, 3 and 4: the device --------------------------------------------------------------------------------------------


def device_facts(cupy: Any) -> Json:
    facts = cupy.cuda.runtime.getDeviceProperties(0)
    free, total = cupy.cuda.runtime.memGetInfo()
    return {
        "name": facts["name"].decode(), "compute": f"{facts['major']}.{facts['minor']}", "free": free, "total": total,
        "multiprocessors": facts["multiProcessorCount"], "cupy": cupy.__version__,
        "driver": cupy.cuda.runtime.driverGetVersion(), "runtime": cupy.cuda.runtime.runtimeGetVersion(),
    }  # fmt: skip


def seconds_of(cupy: Any, run: Callable[[], object], repeat: int = 9) -> float:
    """Of one call on the device: the median, after two that do not count."""
    times = []
    for i in range(repeat + 2):
        start, end = cupy.cuda.Event(), cupy.cuda.Event()
        start.record()
        run()
        end.record()
        end.synchronize()
        times += [cupy.cuda.get_elapsed_time(start, end) / 1e3] if i > 1 else []
    return statistics.median(times)


def ceiling(cupy: Any, nbytes: int) -> Json:
    """Bytes a second: a copy reads and writes each byte, a sum reads it."""
    data = cupy.zeros(nbytes // 4, np.float32)
    other = cupy.empty_like(data)

    def copy() -> None:
        other[...] = data

    return {
        "bytes": nbytes,
        "copied": 2 * nbytes / seconds_of(cupy, copy),
        "read": nbytes / seconds_of(cupy, lambda: data.max()),
    }


def product_rates(cupy: Any, read: float, until: float, nbytes: int) -> Json:
    """One row of activations by each matrix of a stack of `nbytes`, in one launch."""
    place, rng = Device(cupy, lambda name: True), np.random.default_rng(1)
    found: Json = {}
    for type in (GGMLType.Q4_K, GGMLType.Q6_K, GGMLType.Q8_0, GGMLType.Q4_0, GGMLType.MXFP4, GGMLType.F16):
        for rows, columns in ((256, 512), (1024, 4096), (4096, 4096), (4096, 11008)):
            if time.monotonic() > until or (nbytes < 1 << 24 and columns > 512):
                continue
            row = len(PLAIN_TYPES[type].from_f32(np.zeros(columns, np.float32)).view(np.uint8)) if type in PLAIN else 0
            row = row or BLOCK_TYPES[type].layout.itemsize * (columns // BLOCK_TYPES[type].size)
            n = max(1, nbytes // (row * rows))
            one = rng.integers(0, 60, rows * row, np.uint8)  # no number is infinite
            weight = Weight("w", type, (n, rows, columns), np.tile(one, n), place=place)
            w, x = packed(weight), place.put(rng.standard_normal((1, columns)).astype(np.float32))
            ids = place.put(np.arange(n, dtype=np.int32))
            for mode in ("q8", "f32"):
                maps = Products(mode)
                given = maps.input(x, type)
                seconds = seconds_of(cupy, lambda m=maps, g=given, w=w, i=ids, n=n: m.product(g, w, None, i, n, n), 5)
                found[f"{type.name} {mode} {rows} x {columns}"] = weight.nbytes / seconds / read
    return found


# -- 2: the numbers ---------------------------------------------------------------------------------------------------


def small_models(folder: Path) -> Iterator[tuple[str, Callable[[], Path]]]:
    """Those of golden/, and what builds them."""
    zoo = script(GOLDEN / "make" / "zoo_gguf.py")
    paths = [*(GOLDEN / "zoo" / "specs").glob("*.json"), *(GOLDEN / "architectures" / "specs").glob("*.json")]
    order = np.random.default_rng(2).permutation(len(paths))  # so that what is left out is any of them
    for path in (sorted(paths)[i] for i in order):

        def build(path: Path = path) -> Path:
            described = json.loads(path.read_text())
            zoo.build(described, str(folder / "small.gguf"), described["seed"])
            return folder / "small.gguf"

        yield path.stem, build


def compared(path: Path, ids: Sequence[int] | None = None) -> Json:
    """One model: prompt at once, and token by token, in both modes."""
    truth = ref_engine.load(path, backend="numpy", activations="f32")
    ids = ids or np.random.default_rng(1).integers(0, truth.spec.n_vocab, 24).tolist()
    want = truth.logits(ids)
    found: Json = {}
    for mode in ("f32", "q8"):
        model = ref_engine.load(path, backend="cupy", activations=mode)
        found[mode] = nmse(model.logits(ids), want)
        if model.spec.causal:
            cache = model.new_cache()
            parts = [model.forward(ids[:-4], cache), *(model.forward([i], cache) for i in ids[-4:])]
            found[f"{mode} by token"] = nmse(np.concatenate(parts), want)
    return found


def accuracy(until: float, folder: Path, most: int) -> Json:
    found: Json = {"small": {}, "real": {}, "left_out": 0}
    for name in REAL:
        if (CACHE / name).exists() and most > 3:
            models = [ref_engine.load(CACHE / name, backend=b, activations="f32") for b in ("numpy", "cupy")]
            found["real"][name] = compared(CACHE / name, models[0].tokenize(TEXT))
            texts = ["".join(e.text for e in m.generate(TEXT, max_tokens=12, temperature=0)) for m in models]
            found["real"][name] |= {"same_text": texts[0] == texts[1], "text": texts[1]}
    for i, (name, build) in enumerate(small_models(folder)):
        if time.monotonic() > until or i >= most:
            found["left_out"] += 1
            continue
        try:
            found["small"][name] = compared(build())
        except Exception as error:  # noqa: BLE001 - it is told, and the others are still of interest
            found["small"][name] = {"error": f"{type(error).__name__}: {error}", "at": traceback.format_exc()[-600:]}
        say(f"  {name}: {found['small'][name]}")
    numbers = [one[key] for one in found["small"].values() for key in ("f32", "f32 by token") if key in one]
    found |= {"worst_f32": max(numbers, default=None), "errors": sum("error" in one for one in found["small"].values())}
    return found


# -- 5 and 6: speed ---------------------------------------------------------------------------------------------------


def dense_file(path: Path, size: dict[str, int]) -> Path:
    """A Llama of random Q4_K weights; matrices of one shape have the same bytes, since only their number costs."""
    if path.exists():
        return path
    moe, rng, made = script(HERE / "make_moe.py"), np.random.default_rng(1), {}

    def matrix(name: str, rows: int, columns: int) -> Any:
        if (rows, columns) not in made:
            made[rows, columns] = moe.drawn(rng, rows, columns)
        return f"{name}.weight", (rows, columns), GGMLType.Q4_K, made[rows, columns]

    d, f, v = size["width"], size["hidden"], size["vocabulary"]
    rows = [matrix("token_embd", v, d), moe.ones("output_norm", d), matrix("output", v, d)]
    for i in range(size["layers"]):
        at = f"blk.{i}."
        rows += [moe.ones(f"{at}attn_norm", d), moe.ones(f"{at}ffn_norm", d)]
        rows += [matrix(f"{at}attn_{name}", d, d) for name in ("q", "k", "v", "output")]
        rows += [matrix(f"{at}ffn_{name}", f, d) for name in ("gate", "up")] + [matrix(f"{at}ffn_down", d, f)]
    keys = {
        "block_count": size["layers"], "context_length": 4096, "embedding_length": d, "feed_forward_length": f,
        "attention.head_count": size["heads"], "attention.layer_norm_rms_epsilon": 1e-5, "vocab_size": v,
    }  # fmt: skip
    metadata = {"general.architecture": "llama", **{f"llama.{key}": value for key, value in keys.items()}}
    write_gguf(path, metadata, rows)
    return path


def moe_file(path: Path, layers: int) -> Path:
    if not path.exists():
        vocabulary = GOLDEN / "models" / "tiny-moe.gguf"
        argv, sys.argv = sys.argv, ["make_moe.py", str(vocabulary), str(path), "--layers", str(layers)]
        try:
            script(HERE / "make_moe.py").main()
        finally:
            sys.argv = argv
    return path


def speed(path: Path, read: float, until: float, steps: int, prompt: int) -> Json:
    """Both modes: a prompt, then one token after the other. share: of the ceiling, bytes that a token must read."""
    with open_gguf(path) as file:
        plan = make_plan(file.metadata, file.tensors)
    found: Json = {"bytes": plan.nbytes, "active_bytes": plan.active}
    for mode in ("q8", "f32"):
        if time.monotonic() > until:
            found[mode] = "left out: no time"
            continue
        began = time.monotonic()
        model = ref_engine.load(path, backend="cupy", activations=mode)
        ids = np.random.default_rng(1).integers(0, model.spec.n_vocab, prompt + steps + 3).tolist()
        cache = model.new_cache(prompt + steps + 16)
        model.last_logits(ids[:2], model.new_cache(16))  # weights are copied, kernels compiled
        loaded, began = time.monotonic() - began, time.monotonic()
        model.last_logits(ids[:prompt], cache)
        prefill, times = time.monotonic() - began, []
        for token in ids[prompt:]:
            began = time.monotonic()
            model.last_logits([token], cache)
            times.append(time.monotonic() - began)
            if time.monotonic() > until:
                break
        step = statistics.median(times[min(3, len(times) - 1) :])
        found[mode] = {
            "load_s": loaded, "prefill_tokens_per_s": prompt / prefill, "decode_tokens_per_s": 1 / step,
            "steps": len(times), "bytes_per_s": plan.active / step, "share": plan.active / step / read,
            "share_if_all_bytes_moved": plan.nbytes / step / read,
        }  # fmt: skip
    return found


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=460.0)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "ref-engine-gpu")
    parser.add_argument("--tiny", action="store_true", help="sizes for trying the script out")
    parser.add_argument("--only", nargs="*", choices=tuple(SHARES), default=tuple(SHARES))
    given = parser.parse_args(arguments)
    given.folder.mkdir(exist_ok=True, parents=True)
    if compat.cupy is None:
        raise SystemExit(compat.why_no_cupy)
    if why := compat.why_no_device(compat.cupy):
        raise SystemExit(why)
    cupy, found, began, spent = compat.cupy, {}, time.monotonic(), 0.0
    tiny, size = given.tiny, TINY if given.tiny else FULL

    def read_rate() -> float:
        known: float = found.get("ceiling", {}).get("read") or ceiling(cupy, 1 << 20)["read"]
        return known

    parts: dict[str, Callable[[float], Json]] = {
        "device": lambda until: device_facts(cupy),
        "accuracy": lambda until: accuracy(until, given.folder, 3 if tiny else 1000),
        "ceiling": lambda until: ceiling(cupy, 1 << 20 if tiny else 4 << 30),
        "products": lambda until: product_rates(cupy, read_rate(), until, 1 << 16 if tiny else 1 << 29),
        "dense": lambda until: speed(
            dense_file(given.folder / f"dense-{size['width']}.gguf", size), read_rate(), until, 4 if tiny else 96,
            16 if tiny else 512,
        ),
        "experts": lambda until: speed(
            moe_file(given.folder / f"moe-{2 if tiny else 8}.gguf", 1 if tiny else 8), read_rate(), until,
            4 if tiny else 96, 8 if tiny else 512,
        ),
    }  # fmt: skip
    for name in sorted(given.only, key=["device", "ceiling", "products", "dense", "experts", "accuracy"].index):
        spent += SHARES[name]
        say(f"{name} ...")
        start = time.monotonic()
        try:
            found[name] = parts[name](began + given.seconds * spent)
        except Exception as error:  # noqa: BLE001 - what the other parts show is still of interest
            found[name] = {"error": f"{type(error).__name__}: {error}", "at": traceback.format_exc()[-2000:]}
        say(f"{name}: {time.monotonic() - start:.1f} s")
    print(json.dumps({"seconds": time.monotonic() - began, **found}, indent=1))


if __name__ == "__main__":
    main()
