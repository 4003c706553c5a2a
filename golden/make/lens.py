"""Dumps of other programs, for `ref-engine compare`.

    python golden/make/lens.py [--out golden/lens]

NAME-eval-callback.txt            what llama-eval-callback prints of a zoo model: nodes of llama.cpp, written here in
                                  the format of common/debug.cpp, since the Python package has the library alone
llamacpp-NAME.bin, -tokens.bin,   what llama-debug --save-logits writes (examples/debug/debug.cpp), likewise
    .txt, -prompt.txt
transformers-llama-untied.safetensors    ref_engine.lens.hooks on the transformers model of golden/hf
"""

from __future__ import annotations

import argparse
import ctypes
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
import transformers_models
import zoo_gguf
from llamacpp import GGMLTensor, LlamaCpp, base_library, producer, tensor_array

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from ref_engine.lens.hooks import record, save

GOLDEN = Path(__file__).resolve().parents[1]
EDGE, N_TOKENS = 3, 8
# model -> (flash attention, cache): the tool's own choice, and the one that leaves the scores visible
MODELS = {"llama-dense": (False, "f16"), "gemma3-dense": (True, "f16")}
TYPES = {0: "f32", 1: "f16", 26: "i32", 27: "i64"}


class Printer(LlamaCpp):
    """Writes every node to `text` as the tool's callback does."""

    text: list[str]

    def _on_node(self, pointer: int, ask: bool, data: object) -> bool:
        if not ask:
            self.text.append(printed(GGMLTensor.from_address(pointer)))
        return True


def sizes(tensor: GGMLTensor) -> str:
    return ", ".join(str(n) for n in tensor.ne)


def printed(tensor: GGMLTensor) -> str:
    """A node: its head, the corners of its first three axes, and the float32 sum of all."""
    library = base_library()
    library.ggml_op_desc.restype = ctypes.c_char_p
    sources = [GGMLTensor.from_address(p) for p in list(tensor.src)[:2] if p]
    named = [f"{s.name.decode()}{{{sizes(s)}}}" for s in sources]
    head = "common_debug_cb_eval: {:>24} = ({}) {:>10}({}, {}}}) = {{{}}}\n".format(
        tensor.name.decode(),
        TYPES[tensor.type],
        library.ggml_op_desc(ctypes.byref(tensor)).decode(),
        named[0],
        named[1] if len(named) > 1 else "",
        sizes(tensor),
    )
    values = tensor_array(tensor).astype(np.float32)
    return head + body(values.reshape(list(tensor.ne)[::-1]))


def body(x: Any) -> str:
    total = np.add.accumulate(x.reshape(-1), dtype=np.float32)[-1]
    lines = []
    for block in x:
        lines.append("    [")
        for i in shown(len(block), "        ..., ", lines):
            lines.append("        [")
            for j in shown(len(block[i]), "            ..., ", lines):
                lines.append(f"            [{row(block[i][j])}  ],")
            lines.append("        ],")
        lines += ["    ]", f"    sum = {total:f}"]
    return "\n".join(lines) + "\n"


def shown(n: int, gap: str, lines: list[str]) -> Any:
    for i in range(n) if n <= 2 * EDGE else (*range(EDGE), *range(n - EDGE, n)):
        if n > 2 * EDGE and i == n - EDGE:
            lines.append(gap)
        yield i


def row(values: Any) -> str:
    n, out = len(values), []
    for i in range(n) if n <= 2 * EDGE else (*range(EDGE), *range(n - EDGE, n)):
        gap = "   ..., " if n > 2 * EDGE and i == n - EDGE else ""
        out.append(f"{gap}{values[i]:12.4f}" + (", " if i < n - 1 else ""))
    return "".join(out)


def llama_dumps(out: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        for name, (flash, kv) in MODELS.items():
            path = Path(scratch) / f"{name}.gguf"
            spec = json.loads((GOLDEN / "zoo" / "specs" / f"{name}.json").read_text())
            zoo_gguf.build(spec, path)
            ids = np.load(GOLDEN / "zoo" / "logits" / f"{name}.npz")["tokens"][:N_TOKENS].tolist()
            with Printer(path, n_ctx=256, n_batch=512, kv=kv, flash=flash, n_threads=1, capture=True) as model:
                model.text = [f"number of input tokens = {len(ids)}\n", *(f"  {i}\n" for i in ids)]
                model._wanted = lambda name: True
                logits = model._decode(ids, 0, last_only=True)[0]
            (out / f"{name}-eval-callback.txt").write_text("".join(model.text))
            if name == "llama-dense":
                save_logits(out, name, logits, ids)


def save_logits(out: Path, name: str, logits: Any, ids: list[int]) -> None:
    base = out / f"llamacpp-{name}"
    logits.astype("<f4").tofile(f"{base}.bin")
    np.array(ids, "<i4").tofile(f"{base}-tokens.bin")
    Path(f"{base}.txt").write_text("".join(f"{i}: {v:g}\n" for i, v in enumerate(logits)))
    Path(f"{base}-prompt.txt").write_text(f"prompt: \nn_tokens: {len(ids)}\ntoken ids: {', '.join(map(str, ids))}\n")


def transformers_dump(out: Path) -> None:
    name = "llama-untied"
    options = {**transformers_models.SMALL, **transformers_models.LLAMA[name]}
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**options)).float().eval()
    transformers_models.fill(model, "llama", 1)
    ids = np.load(GOLDEN / "hf" / f"{name}.npz")["tokens"][:16]
    save(record(model, torch.tensor(ids[None].astype(np.int64))), out / f"transformers-{name}.safetensors")


def main() -> None:
    parser = argparse.ArgumentParser(description="dumps of other programs")
    parser.add_argument("--out", type=Path, default=GOLDEN / "lens")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    llama_dumps(args.out)
    transformers_dump(args.out)
    name, version = producer()
    theirs = f"{transformers.__version__}, torch {torch.__version__}"
    note = "the numbers are llama.cpp's, the text is written by the generator in the tool's format"
    facts = {
        "made_by": "golden/make/lens.py",
        "producer": name,
        "version": version,
        "files": {
            "*-eval-callback.txt": {"seed": None, "tolerance": {"nmse": 1e-5}, "note": note},
            "llamacpp-*": {"seed": None, "tolerance": {"nmse": 1e-5}},
            "transformers-*.safetensors": {
                "seed": 1, "tolerance": {"nmse": 1e-9}, "producer": "transformers", "version": theirs,
            },
        },
    }  # fmt: skip
    (args.out / "facts.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
