"""Golden logits of one or two small models for each architecture, and of drawn variants of them, from llama.cpp.

    python golden/make/architectures.py given                 facts about the models that came with the project
    python golden/make/architectures.py variants [NAME ...]   one drawn variant of each, listed and run by llama.cpp

Writes below golden/architectures: specs/NAME.json and logits/NAME.npz (`tokens`, `logits`) are given;
variants/NAME.json and variants/NAME.npz are drawn here. A variant has other numbers in the metadata (layers, heads,
widths, experts, groups, gates, windows, scales, RoPE) and perhaps fewer tensors (no biases, a tied output matrix);
llama.cpp itself says which tensors such a model has (llama_model_init_from_user). A draw that it refuses is drawn
anew. Each draw runs in a process of its own, because an impossible one ends in an abort.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import zoo_gguf
from llamacpp import _LIB_DIR, GGMLTensor, LlamaCpp, base_library, capi, producer
from variant_draws import draw_metadata, fewer_tensors

FOLDER = Path(__file__).resolve().parent.parent / "architectures"
N_TOKENS = 40
DRAWS = 40  # until llama.cpp accepts one


def nmse(a: Any, b: Any) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(((a - b) ** 2).sum() / (b**2).sum())


def llama_logits(path: Path, ids: list[int], n_batch: int) -> Any:
    """Logits (T, V); None where n_batch splits the tokens and the model has no memory of earlier ones."""
    with LlamaCpp(path, n_batch=n_batch, n_threads=1) as model:
        return model.logits(ids) if n_batch >= len(ids) or model.has_memory else None


# -- in a process of their own ------------------------------------------------------------------------------------


def list_tensors(source: Path, out: Path) -> None:
    """The tensors that llama.cpp asks for with the metadata of `source`: [[name, ne, type]...] to `out`."""
    meta = out.with_suffix(".gguf")
    zoo_gguf.build({"kv": json.loads(source.read_text()), "tensors": [], "seed": 0}, meta)

    class Params(ctypes.Structure):
        _fields_ = [("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p)]

    base, library = base_library(), ctypes.CDLL(str(_LIB_DIR / "libllama.so"))
    base.gguf_init_from_file.restype = ctypes.c_void_p
    base.gguf_init_from_file.argtypes = [ctypes.c_char_p, Params]
    context = base.gguf_init_from_file(str(meta).encode(), Params(True, None))
    found: dict[str, list[Any]] = {}
    callback_type = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)

    def see(pointer: int, data: object) -> None:
        tensor = GGMLTensor.from_address(pointer)
        ne = list(tensor.ne)
        while len(ne) > 1 and ne[-1] == 1:
            ne.pop()
        name = tensor.name.decode()
        if not name.endswith((".scale", ".input_scale")):  # those belong to NVFP4 weights only
            found[name] = [name, ne, {0: "F32", 1: "F16"}[tensor.type]]

    callback = callback_type(see)
    params = capi.llama_model_default_params()
    params.n_gpu_layers, params.use_extra_bufts = 0, False
    library.llama_model_init_from_user.restype = ctypes.c_void_p
    library.llama_model_init_from_user.argtypes = [ctypes.c_void_p, callback_type, ctypes.c_void_p, type(params)]
    if not library.llama_model_init_from_user(context, callback, None, params):
        sys.exit("llama.cpp refuses the metadata")
    out.write_text(json.dumps(list(found.values())))


def run_variant(source: Path, out: Path) -> None:
    """Build the model of a spec and write llama.cpp's logits of its tokens."""
    spec = json.loads(source.read_text())
    path = out.with_suffix(".gguf")
    zoo_gguf.build(spec, path)
    n_vocab = next(value for key, _, value in spec["kv"] if key.endswith(".vocab_size"))
    ids = np.random.RandomState(spec["token_seed"]).randint(0, n_vocab, N_TOKENS)
    logits = llama_logits(path, ids.tolist(), N_TOKENS)
    if not np.isfinite(logits).all():
        sys.exit("logits are not finite")
    np.savez_compressed(out, tokens=ids.astype(np.int32), logits=logits)
    print(json.dumps(own_spread(path, ids.tolist(), logits)))


def own_spread(path: Path, ids: list[int], logits: Any) -> dict[str, float]:
    """How far llama.cpp is from itself when it takes the tokens one by one; nothing for a model without memory."""
    one_by_one = llama_logits(path, ids, 1)
    return {} if one_by_one is None else {"own_spread_nmse": nmse(one_by_one, logits)}


def child(*args: object) -> str | None:
    """What it printed; None if it failed."""
    command = [sys.executable, __file__, *map(str, args)]
    done = subprocess.run(command, capture_output=True, timeout=300, check=False, text=True)
    return done.stdout if done.returncode == 0 else None


# -- the two commands ---------------------------------------------------------------------------------------------


def make_variant(name: str, scratch: Path) -> tuple[str, dict[str, float]]:
    base = json.loads((FOLDER / "specs" / f"{name}.json").read_text())
    out = FOLDER / "variants"
    for i in range(DRAWS):
        rng = random.Random(f"{name}:{i}")
        kv, changes = draw_metadata(base["kv"], rng)
        source, listing = scratch / "kv.json", scratch / "tensors.json"
        source.write_text(json.dumps(kv))
        if not changes or child("list", source, listing) is None:
            continue
        tensors = json.loads(listing.read_text())
        for less in (fewer_tensors(tensors, rng), tensors):
            spec = {"shows": ", ".join(changes), "seed": 100 + i, "token_seed": i, "kv": kv, "tensors": less}
            candidate, result = scratch / f"{name}.json", scratch / f"{name}.npz"
            candidate.write_text(json.dumps(spec) + "\n")
            if (measured := child("run", candidate, result)) is not None:
                os.replace(candidate, out / candidate.name)
                os.replace(result, out / result.name)
                shows = f"{spec['shows']}{'' if less is tensors else ', fewer tensors'}"
                return shows, json.loads(measured.splitlines()[-1])
    raise SystemExit(f"{name}: llama.cpp accepted none of {DRAWS} draws")


def write_facts(files: dict[str, Any]) -> None:
    path = FOLDER / "facts.json"
    name, version = producer()
    old = json.loads(path.read_text())["files"] if path.exists() else {}
    facts = {"made_by": "golden/make/architectures.py", "producer": name, "version": version}
    path.write_text(json.dumps({**facts, "files": dict(sorted((old | files).items()))}, indent=1) + "\n")


def given() -> None:
    """How near llama.cpp is to the logits on record, and to itself when it takes the tokens one by one."""
    files: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for source in sorted((FOLDER / "specs").glob("*.json")):
            spec, path = json.loads(source.read_text()), Path(scratch, "model.gguf")
            zoo_gguf.build(spec, path)
            on_record = np.load(FOLDER / "logits" / f"{source.stem}.npz")
            ids = on_record["tokens"].tolist()
            again = nmse(llama_logits(path, ids, len(ids)), on_record["logits"])
            if again > 1e-9:
                raise SystemExit(f"{source.stem}: llama.cpp no longer gives the logits on record ({again:.1e})")
            measured = {"again_nmse": again, **own_spread(path, ids, on_record["logits"])}
            print(source.stem, measured, flush=True)
            files[f"specs/{source.name}"] = {"seed": spec["seed"], "tolerance": "exact"}
            files[f"logits/{source.stem}.npz"] = {
                "seed": spec["token_seed"], "tolerance": {"nmse": 1e-9}, "measured": measured,
            }  # fmt: skip
    write_facts(files)


def variants(names: list[str]) -> None:
    (FOLDER / "variants").mkdir(exist_ok=True)
    files: dict[str, Any] = {}
    for name in names or sorted(path.stem for path in (FOLDER / "specs").glob("*.json")):
        with tempfile.TemporaryDirectory() as scratch:
            shows, measured = make_variant(name, Path(scratch))
        print(f"{name}: {shows}", flush=True)
        spec = json.loads((FOLDER / "variants" / f"{name}.json").read_text())
        files[f"variants/{name}.json"] = {"seed": spec["seed"], "tolerance": "exact", "note": shows}
        files[f"variants/{name}.npz"] = {
            "seed": spec["token_seed"], "tolerance": {"nmse": 1e-9}, "measured": measured,
        }  # fmt: skip
    write_facts(files)


def main() -> None:
    parser = argparse.ArgumentParser(description="golden logits of every architecture from llama.cpp")
    parser.add_argument("command", choices=("given", "variants", "list", "run"))
    parser.add_argument("arguments", nargs="*")
    args = parser.parse_args()
    if args.command == "given":
        given()
    elif args.command == "variants":
        variants(args.arguments)
    elif args.command == "list":
        list_tensors(Path(args.arguments[0]), Path(args.arguments[1]))
    else:
        run_variant(Path(args.arguments[0]), Path(args.arguments[1]))


if __name__ == "__main__":
    main()
