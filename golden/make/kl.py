"""Golden data of llama.cpp's KL divergence: the file that llama-perplexity writes, and the figures that it prints.

    python golden/make/kl.py --source LLAMA_CPP [--out golden/kl]

base.kld    `--kl-divergence-base` of models/tiny-moe.gguf dequantised to float32, over N_CHUNK chunks of N_CTX tokens
            of real/page.txt, cache in float32
stats.json  what `--kl-divergence` prints of the same model as Q4_0, dequantised likewise, against base.kld; and the
            perplexity printed while base.kld was written

LLAMA_CPP is a checkout of the sources that llama-cpp-python was built from (its sdist has them under vendor/):
tools/perplexity is compiled and linked with the libraries of the installed wheel.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sysconfig
import tempfile
from pathlib import Path

from llamacpp import producer
from quant_files import FILE_TYPES, run
from real_models import write_f32

GOLDEN = Path(__file__).resolve().parent.parent
N_CTX, N_CHUNK = 32, 8
LIBRARIES = Path(sysconfig.get_paths()["purelib"]) / "lib"
_NUMBER = r"(-?[0-9.]+)"


def compiled(source: Path, folder: Path) -> Path:
    program = folder / "llama-perplexity"
    places = ("common", "include", "ggml/include", "vendor", "src")
    command = ["g++", "-std=c++17", "-O1", *(f"-I{source / place}" for place in places)]
    command += [str(source / "tools/perplexity" / name) for name in ("perplexity.cpp", "main.cpp")]
    command += ["-o", str(program), f"-L{LIBRARIES}", "-lllama-common", "-lllama", "-lggml", "-lggml-base"]
    subprocess.run([*command, "-lggml-cpu", "-lpthread"], check=True)
    return program


def perplexity(program: Path, model: Path, *options: str) -> str:
    exact = ["-fa", "off", "-ctk", "f32", "-ctv", "f32", "-t", "1", "-b", str(N_CTX), "-c", str(N_CTX)]
    command = [str(program), "-m", str(model), *exact, "--chunks", str(N_CHUNK), *options]
    environment = {**os.environ, "LD_LIBRARY_PATH": str(LIBRARIES)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def printed(text: str) -> dict[str, list[float]]:
    """label -> [value] or [value, error] of the lines of statistics."""
    found = {}
    for line in text.splitlines():
        match = re.match(rf"^\s*(\S.*?)\s*:\s+{_NUMBER}%?(?:\s+±\s+{_NUMBER})?\s*%?$", line)
        if match and ("PPL" in line or "KLD" in line or "Δp" in line or "top p" in line):
            found[" ".join(match[1].split())] = [float(part) for part in match.groups()[1:] if part is not None]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="golden data of llama-perplexity")
    parser.add_argument("--source", type=Path, required=True, metavar="LLAMA_CPP")
    parser.add_argument("--out", type=Path, default=GOLDEN / "kl")
    args = parser.parse_args()
    args.out.mkdir(exist_ok=True)
    text, base = str(GOLDEN / "real" / "page.txt"), str(args.out / "base.kld")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        program = compiled(args.source, folder)
        write_f32(GOLDEN / "models" / "tiny-moe.gguf", folder / "f32.gguf")
        run(GOLDEN / "models" / "tiny-moe.gguf", folder / "q4_0.gguf", FILE_TYPES["Q4_0"], {"allow_requantize": True})
        write_f32(folder / "q4_0.gguf", folder / "q4_0-f32.gguf")
        first = perplexity(program, folder / "f32.gguf", "-f", text, "--kl-divergence-base", base)
        second = perplexity(program, folder / "q4_0-f32.gguf", "--kl-divergence-base", base, "--kl-divergence")
    final = re.search(rf"PPL = {_NUMBER} \+/- {_NUMBER}", first)
    if final is None:
        raise RuntimeError(first)
    stats = {"ctx": N_CTX, "chunks": N_CHUNK, "PPL": [float(x) for x in final.groups()], "printed": printed(second)}
    (args.out / "stats.json").write_text(json.dumps(stats, indent=1, ensure_ascii=False) + "\n")
    name, version = producer()
    facts = {
        "made_by": "golden/make/kl.py",
        "producer": name,
        "version": version,
        "files": {
            "base.kld": {
                "seed": None,
                "tolerance": {"nats": 3e-4},
                "note": "a row has 65,536 steps over up to 16 nats",
            },
            "stats.json": {"seed": None, "tolerance": {"nats": 2e-6, "percent": 2e-3, "relative": 1e-6}},
        },
    }
    (args.out / "facts.json").write_text(json.dumps(facts, indent=1) + "\n")
    print(json.dumps(stats, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
