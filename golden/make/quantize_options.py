"""Whole files as llama-quantize writes them with importance matrices and other options, and matrices of llama-imatrix.

    python golden/make/quantize_options.py --tools FOLDER

FOLDER holds `llama-quantize` and `llama-imatrix`, built from the source that llama-cpp-python vendors (cmake with
LLAMA_BUILD_TOOLS=ON; no optimisation for this machine is needed). Writes into golden/imatrix: importance matrices for
two models of `quant_files.py`, the sha256 of whole files (options.json), and what llama-imatrix makes of
models/tiny-moe.gguf in float32 on `make/moe_text.txt` and page.txt.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import quant_files
import zoo_gguf
from llamacpp import producer

GOLDEN = Path(__file__).resolve().parent.parent
SEED = 11
TYPES = {
    "dense": [
        "Q4_0", "Q5_0", "Q8_0", "F16", "Q2_K", "Q2_K_S", "Q3_K_M", "Q4_K_S", "Q4_K_M", "Q5_K_M", "IQ2_XS", "IQ3_XXS",
        "IQ4_NL", "IQ4_XS", "MXFP4_MOE",
    ],
    "experts": ["Q4_0", "Q4_1", "Q2_K_S", "Q3_K_S", "Q4_K_M", "Q6_K", "IQ3_XXS", "IQ4_XS"],
}  # fmt: skip
CHOSEN = [name for name in quant_files.FILE_TYPES if name != "Q1_0"] + [
    "IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "IQ3_XXS", "IQ3_XS", "Q2_K_S",
]  # fmt: skip
MORE: dict[str, list[str]] = {
    "dat": ["--imatrix", "imatrix.dat", "Q4_K_M"],
    "include": ["--imatrix", "imatrix.gguf", "--include-weights", "ffn_up", "--include-weights", "attn_v", "Q4_K_M"],
    "exclude": ["--imatrix", "imatrix.gguf", "--exclude-weights", "blk.1.", "Q5_K_S"],
    "prune": ["--prune-layers", "0,3,7", "Q3_K_M"],
    "prune-imatrix": ["--prune-layers", "2,5", "--imatrix", "imatrix.gguf", "IQ2_XS"],
    "override": [
        "--override-kv", "llama.block_count=int:16", "--override-kv", "general.name=str:other",
        "--override-kv", "llama.rope.freq_base=float:50000.5", "--override-kv", "a.flag=bool:true",
        "--override-kv", "b.negative=int:-7", "Q4_K_M",
    ],
    "copy": ["COPY"],
    "copy-imatrix": ["--imatrix", "imatrix.gguf", "COPY"],
    "number": ["15"],
    "alias": ["q5_k"],
    "patterns": ["--tensor-type-file", "types.txt", "--tensor-type", "ATTN_Q=Q8_0", "Q4_0"],
    "f32-pattern": ["--tensor-type", "blk.0.ffn_down=f32", "--tensor-type", r"blk\.[3-5]\.=q6_k", "Q5_0"],
}  # fmt: skip
PATTERNS = "attn_k=q5_1\n  ffn_(up|gate)=iq4_nl blk.2=F16\n"


def models() -> dict[str, dict[str, Any]]:
    return {
        "dense": quant_files.spec("llama", layers=8, heads=4, kv=4),
        "experts": quant_files.spec("llama", layers=8, heads=4, kv=2, experts=4, tied=True),
    }


def importance(spec: dict[str, Any], path: Path) -> None:
    """Sums of squares over a wide range; one expert of each stack without any tokens."""
    rng = np.random.default_rng(SEED)
    writer = gguf.GGUFWriter(str(path), "")
    writer.add_type("imatrix")
    writer.add_key_value(
        "imatrix.datasets", ["a text.txt", "b.txt"], gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.STRING
    )
    writer.add_uint32("imatrix.chunk_count", 3)
    writer.add_uint32("imatrix.chunk_size", 64)
    for name, ne, _ in spec["tensors"]:
        if not name.startswith("blk.") or len(ne) < 2:
            continue
        n = ne[2] if len(ne) > 2 else 1
        counts = np.full((n, 1), 192) if n == 1 else rng.integers(1, 192, (n, 1))
        if n > 1:
            counts[rng.integers(n)] = 0
        squares = np.exp(2 * rng.standard_normal((n, ne[0]))) * rng.standard_normal((n, ne[0])) ** 2
        writer.add_tensor(f"{name}.in_sum2", (squares * counts).astype(np.float32).reshape(n, ne[0]))
        writer.add_tensor(f"{name}.counts", counts.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def ran(tool: Path, folder: Path, *args: str) -> str:
    done = subprocess.run([str(tool), *args], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{tool.name} {' '.join(args)}: {(done.stdout + done.stderr)[-400:]}")
    return done.stdout + done.stderr


def types(tools: Path, folder: Path, kind: str) -> list[str]:
    """Of each tensor, as a dry run tells them: the old type where nothing is said of a new one."""
    told = ran(tools / "llama-quantize", folder, "--dry-run", "--imatrix", "imatrix.gguf", "in.gguf", kind)
    rows = re.findall(r"^\[ *\d+/ *\d+\].*type = +(\w+),(.*)$", told, re.MULTILINE)
    new = [re.search(r"\((\w+)\)$", rest.strip()) for _, rest in rows]
    return [(found[1] if found else old).upper() for (old, _), found in zip(rows, new, strict=True)]


def hashes(tools: Path, name: str, spec: dict[str, Any], out: Path) -> tuple[dict[str, str], dict[str, list[str]]]:
    found = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        zoo_gguf.build(spec, folder / "in.gguf")
        importance(spec, folder / "imatrix.gguf")
        (folder / "types.txt").write_text(PATTERNS)
        imatrix = tools / "llama-imatrix"
        merged = ["-m", "x", "--in-file", "imatrix.gguf", "-o", "imatrix.dat", "--output-format", "dat", "-c", "64"]
        ran(imatrix, folder, *merged)
        jobs = {kind: ["--imatrix", "imatrix.gguf", kind] for kind in TYPES[name]}
        for job, args in (jobs | (MORE if name == "dense" else {})).items():
            ran(tools / "llama-quantize", folder, *args[:-1], "in.gguf", "out.gguf", args[-1], "1")
            found[job] = hashlib.sha256((folder / "out.gguf").read_bytes()).hexdigest()
        for kind in ("gguf", "dat"):
            (out / f"{name}.{kind}").write_bytes((folder / f"imatrix.{kind}").read_bytes())
        chosen = {kind: types(tools, folder, kind) for kind in CHOSEN}
    return found, chosen


def measured(tools: Path, out: Path) -> None:
    """tiny-moe in float32: 8 chunks of 64 tokens, and two such files made one."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        text = (GOLDEN / "real" / "page.txt").read_text()
        (folder / "page.txt").write_text(text)
        source = str(GOLDEN / "models" / "tiny-moe.gguf")
        ran(tools / "llama-quantize", folder, "--allow-requantize", source, "m.gguf", "F32", "1")
        exact = ["-ctk", "f32", "-ctv", "f32", "-fa", "off", "--no-repack", "--no-ppl", "-t", "1"]
        run = ["-m", "m.gguf", "-f", "page.txt", "-c", "64", "--chunks", "8", *exact]
        for kind in ("gguf", "dat"):
            ran(tools / "llama-imatrix", folder, *run, "-o", f"tiny-moe.{kind}", "--output-format", kind)
            (out / f"tiny-moe.{kind}").write_bytes((folder / f"tiny-moe.{kind}").read_bytes())
        both = ["--in-file", "tiny-moe.dat", "--in-file", "tiny-moe.gguf"]
        ran(tools / "llama-imatrix", folder, "-m", "x", *both, "-c", "64", "-o", "merged.gguf")
        (out / "merged.gguf").write_bytes((folder / "merged.gguf").read_bytes())


def main() -> None:
    parser = argparse.ArgumentParser(description="golden data of importance matrices and of options of quantising")
    parser.add_argument("--tools", type=Path, required=True, help="folder of llama-quantize and llama-imatrix")
    parser.add_argument("--out", type=Path, default=GOLDEN / "imatrix")
    args = parser.parse_args()
    args.out.mkdir(exist_ok=True)
    tools = args.tools.resolve()
    measured(tools, args.out)
    result = {name: hashes(tools, name, spec, args.out) for name, spec in models().items()}
    told = {
        "models": models(),
        "sha256": {name: files for name, (files, _) in result.items()},
        "types": {name: t for name, (_, t) in result.items()},
        "more": MORE,
        "patterns": PATTERNS,
    }
    (args.out / "options.json").write_text(json.dumps(told, separators=(",", ":")) + "\n")
    made = {"made_by": "golden/make/quantize_options.py", "seed": SEED}
    notes = {
        "options.json": {"tolerance": "exact", "note": "whole files of llama-quantize"},
        **{
            f"{n}.{k}": {"tolerance": "exact", "note": "drawn, the .dat made of it by llama-imatrix"}
            for n in models()
            for k in ("gguf", "dat")
        },
        "tiny-moe.gguf": {"tolerance": {"nmse": 1e-10}, "note": "llama-imatrix; counts exactly"},
        "tiny-moe.dat": {"tolerance": {"nmse": 1e-10}, "note": "llama-imatrix"},
        "merged.gguf": {"tolerance": "exact", "note": "llama-imatrix --in-file, from the two others"},
    }
    name, version = producer()
    facts = {"producer": name, "version": version, "files": {name: made | note for name, note in notes.items()}}
    (args.out / "facts.json").write_text(json.dumps(facts, indent=1) + "\n")
    print(producer()[1], {name: len(runs) for name, (runs, _) in result.items()})


if __name__ == "__main__":
    main()
