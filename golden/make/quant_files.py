"""Golden data of whole quantised files: which type llama.cpp gives each tensor, and a hash of all its bytes.

    python golden/make/quant_files.py [--out golden/quant]

files.json   {"models": {name: spec of zoo_gguf.py}, "types": {name: {run: [ggml type numbers, in the order of the new
             file]}}, "sha256": {name: {run: hash of all tensors' bytes in that order}}}

The models have real layer counts and key names but tiny matrices; they are only quantised, never run. A run is a file
type, or one with options after a colon. Run after quant.py, whose facts.json gets one more entry.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import zoo_gguf
from llama_cpp import llama_cpp as capi
from llamacpp import base_library, producer

FILE_TYPES = {
    "F32": 0, "F16": 1, "BF16": 32, "Q1_0": 40, "Q2_0": 41, "Q4_0": 2, "Q4_1": 3, "Q5_0": 8, "Q5_1": 9, "Q8_0": 7,
    "MXFP4_MOE": 38, "Q2_K": 10, "Q3_K_S": 11, "Q3_K_M": 12, "Q3_K_L": 13, "Q4_K_S": 14, "Q4_K_M": 15, "Q5_K_S": 16,
    "Q5_K_M": 17, "Q6_K": 18, "TQ1_0": 36, "TQ2_0": 37, "IQ3_S": 26, "IQ3_M": 27, "IQ4_NL": 25, "IQ4_XS": 30,
}  # fmt: skip
OPTIONS: dict[str, dict[str, Any]] = {
    "Q4_K_M:pure": {"pure": True},
    "Q4_K_M:output=Q8_0": {"output_tensor_type": 8},
    "Q4_K_M:embedding=Q5_K": {"token_embedding_type": 13},
    "Q4_K_M:keep-output": {"quantize_output_tensor": False},
    "Q3_K_M:attn_v=Q6_K": {"patterns": [("attn_v", 14)]},
    "COPY:": {"only_copy": True},
}


class _Pattern(ctypes.Structure):
    _fields_ = [("pattern", ctypes.c_char_p), ("type", ctypes.c_int)]


def spec(
    arch: str, *, layers: int, heads: int, kv: int, experts: int = 0, tied: bool = False, width: int = 256,
    stacked: bool = True, fused: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """A model file with the names and the layer count of a real one, and a handful of weights in each tensor."""
    numbers = {
        "context_length": 64, "embedding_length": width, "block_count": layers, "feed_forward_length": 512,
        "attention.head_count": heads, "attention.head_count_kv": kv, "vocab_size": 4,
    }  # fmt: skip
    if experts:
        numbers |= {"expert_count": experts, "expert_used_count": 2}
    kvs: list[list[Any]] = [["general.architecture", ["STRING"], arch]]
    kvs += [[f"{arch}.{key}", ["UINT32"], value] for key, value in numbers.items()]
    kvs += [[f"{arch}.attention.layer_norm_rms_epsilon", ["FLOAT32"], 1e-5]]
    kvs += [[f"{arch}.attention.layer_norm_epsilon", ["FLOAT32"], 1e-5]]
    tensors: list[list[Any]] = [["token_embd.weight", [width, 4], "F32"], ["output_norm.weight", [width], "F32"]]
    if not tied:
        tensors.append(["output.weight", [width, 4], "F32"])
    tail = [experts] if experts and stacked else []
    suffix = "_exps" if tail else ""
    for i in range(layers):
        sizes: dict[str, list[int]] = {"attn_norm": [width], "ffn_norm": [width], "attn_output": [width, 2]}
        sizes |= {"attn_qkv": [width, 2]} if fused else {f"attn_{n}": [width, 2] for n in ("q", "k", "v")}
        if experts:
            sizes |= {"ffn_gate_inp": [width, experts]}
        sizes |= {f"ffn_{n}{suffix}": [width, 2, *tail] for n in ("up", "gate")}
        sizes |= {f"ffn_down{suffix}": [512, 2, *tail]}
        tensors += [[f"blk.{i}.{name}.weight", ne, "F32"] for name, ne in sizes.items()]
    return {"seed": 3, "kv": kvs, "tensors": tensors}


def models() -> dict[str, dict[str, Any]]:
    return {
        "dense": spec("llama", layers=16, heads=4, kv=4),
        "tied-shared-heads": spec("llama", layers=17, heads=8, kv=2, tied=True),
        "eight-experts": spec("llama", layers=16, heads=4, kv=2, experts=8),
        "sixteen-experts": spec("llama", layers=8, heads=4, kv=4, experts=16, tied=True),
        "odd-rows": spec("llama", layers=8, heads=4, kv=4, width=288),
        "fused": spec("falcon", layers=16, heads=4, kv=4, fused=True),
        "eighty-layers": spec("llama", layers=80, heads=8, kv=1),
    }


def run(source: Path, target: Path, file_type: int, options: dict[str, Any]) -> None:
    params = capi.llama_model_quantize_default_params()
    params.ftype, params.nthread = file_type, 1
    options = dict(options)
    patterns = options.pop("patterns", [])
    table = (_Pattern * (len(patterns) + 1))(*[_Pattern(p.encode(), t) for p, t in patterns], _Pattern(None, 0))
    if patterns:
        params.tt_overrides = ctypes.cast(table, type(params.tt_overrides))
    for name, value in options.items():
        setattr(params, name, value)
    if capi.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(params)) != 0:
        raise RuntimeError(f"llama.cpp does not quantise {source} to {file_type} {options}")


class _InitParams(ctypes.Structure):
    _fields_ = [("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p)]


def described(path: Path) -> tuple[list[int], str]:
    """Type numbers of the tensors in file order, and the sha256 of their bytes, as ggml reads the file."""
    ggml, size_t, pointer = base_library(), ctypes.c_size_t, ctypes.c_void_p
    ggml.gguf_init_from_file.restype, ggml.gguf_init_from_file.argtypes = pointer, [ctypes.c_char_p, _InitParams]
    ggml.gguf_get_n_tensors.restype, ggml.gguf_get_n_tensors.argtypes = ctypes.c_int64, [pointer]
    ggml.gguf_get_data_offset.restype, ggml.gguf_get_data_offset.argtypes = size_t, [pointer]
    for name, result in (("type", ctypes.c_int), ("offset", size_t), ("size", size_t)):
        function = getattr(ggml, f"gguf_get_tensor_{name}")
        function.restype, function.argtypes = result, [pointer, ctypes.c_int64]
    context = ggml.gguf_init_from_file(str(path).encode(), _InitParams(True, None))
    if not context:
        raise RuntimeError(f"ggml does not read {path}")
    data, digest, types = path.read_bytes(), hashlib.sha256(), []
    for i in range(ggml.gguf_get_n_tensors(context)):
        at = ggml.gguf_get_data_offset(context) + ggml.gguf_get_tensor_offset(context, i)
        digest.update(data[at : at + ggml.gguf_get_tensor_size(context, i)])
        types.append(ggml.gguf_get_tensor_type(context, i))
    ggml.gguf_free(pointer(context))
    return types, digest.hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description="golden data of whole quantised files from llama.cpp")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent.parent / "quant")
    args = parser.parse_args()
    types: dict[str, dict[str, list[int]]] = {}
    hashes: dict[str, dict[str, str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in.gguf", Path(folder) / "out.gguf"
        for name, made in models().items():
            zoo_gguf.build(made, source)
            types[name], hashes[name] = {}, {}
            jobs: dict[str, tuple[int, dict[str, Any]]] = {key: (number, {}) for key, number in FILE_TYPES.items()}
            if name == "odd-rows":
                del jobs["Q1_0"]  # llama.cpp refuses: nothing stands in for it
            if name in ("dense", "sixteen-experts"):
                jobs |= {key: (FILE_TYPES.get(key.split(":")[0], 0), options) for key, options in OPTIONS.items()}
            for job, (number, options) in jobs.items():
                run(source, target, number, options)
                types[name][job], hashes[name][job] = described(target)
    result = {"models": models(), "types": types, "sha256": hashes}
    (args.out / "files.json").write_text(json.dumps(result, separators=(",", ":")) + "\n")
    facts_path = args.out / "facts.json"
    facts = json.loads(facts_path.read_text())
    facts["files"]["files.json"] = {
        "made_by": "golden/make/quant_files.py", "seed": 3, "tolerance": "exact", "note": "llama_model_quantize",
    }  # fmt: skip
    facts_path.write_text(json.dumps(facts, indent=1) + "\n")
    print(producer()[1], {name: len(runs) for name, runs in types.items()})


if __name__ == "__main__":
    main()
