"""Golden data of conversion: what llama.cpp's converter makes of small checkpoints, and transformers' logits of them.

    LLAMA_CPP=path/to/llama.cpp python golden/make/convert.py [--out golden/convert] [NAME ...]

families.json.gz  per model: config.json as transformers writes it, names, types and shapes of its tensors (the weights
                  are drawn from the names, `convert_checkpoint.py`), metadata and tensors of llama.cpp's GGUF: name,
                  type, shape, sha256 of the bytes
logits/NAME.npz   tokens (T,), logits (T, V) or hidden states (T, D) of an encoder, by transformers in float32
tokenizers/KIND/  small tokenizers as transformers saves them

llama.cpp recognises a byte-level pre-tokenizer by a hash of its ids; a small one has none of these, so its name is
given (`gpt-2`), here by replacing the function that looks it up.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import shutil
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from convert_checkpoint import write_checkpoint
from convert_families import FAMILIES, Family
from convert_tokenizers import write_tokenizers

LLAMA_CPP = Path(os.environ["LLAMA_CPP"])
sys.path[:0] = [str(LLAMA_CPP), str(LLAMA_CPP / "gguf-py")]
import gguf  # noqa: E402
from conversion import get_model_architecture, get_model_class  # noqa: E402
from conversion.base import ModelBase, ModelType, TextModel  # noqa: E402

TextModel.get_vocab_base_pre = lambda self, tokenizer: "gpt-2"
FILE_TYPES = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "bf16": "MOSTLY_BF16", "q8_0": "MOSTLY_Q8_0", "auto": "GUESSED"}
N_TOKENS = 12


def checkpoint(name: str, family: Family, folder: Path, tokenizers: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write the directory; returns its configuration and the listing of its tensors."""
    config = transformers.AutoConfig.for_model(family.model_type, **family.options)
    config._attn_implementation = "eager"
    auto = transformers.AutoModel if family.head == "encoder" else transformers.AutoModelForCausalLM
    model = auto.from_config(config)
    with tempfile.TemporaryDirectory() as scratch:
        model.save_pretrained(scratch)
        saved = json.loads((Path(scratch) / "config.json").read_text())
        header = {}
        for part in sorted(Path(scratch).glob("*.safetensors")):
            data = part.read_bytes()
            header |= json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    header.pop("__metadata__", None)
    saved.pop("transformers_version", None)
    saved |= family.extra
    floats = {"F32", "F16", "BF16"}
    listing = {
        key: (family.dtype if value["dtype"] in floats else value["dtype"], value["shape"])
        for key, value in sorted(header.items())
    }
    write_checkpoint(folder, saved, listing, family.shards)
    for file in (tokenizers / family.tokenizer).iterdir():
        shutil.copy(file, folder / file.name)
    return saved, listing


def reference(family: Family, folder: Path) -> tuple[list[int], np.ndarray]:
    auto = transformers.AutoModel if family.head == "encoder" else transformers.AutoModelForCausalLM
    model = auto.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    ids = [int(i) for i in np.random.RandomState(7).randint(3, 259, N_TOKENS)]
    with torch.no_grad():
        out = model(torch.tensor([ids]))
    return ids, (out.last_hidden_state if family.head == "encoder" else out.logits)[0].float().numpy()


def convert(family: Family, folder: Path, target: Path) -> dict[str, Any]:
    hparams = ModelBase.load_hparams(folder, False) | family.extra  # AutoConfig takes some names away
    kind = get_model_class(get_model_architecture(hparams, ModelType.TEXT))
    if family.model_type in ("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text"):
        kind.no_mtp = True  # transformers saves no layers that predict further tokens
    with torch.inference_mode():
        model = kind(folder, getattr(gguf.LlamaFileType, FILE_TYPES[family.outtype]), target, hparams=hparams)
        model.write()
    reader = gguf.GGUFReader(target)
    keys = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    types = {key: [int(t) for t in field.types] for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    tensors = {
        t.name: [
            t.tensor_type.name,
            [int(n) for n in reversed(t.shape)],
            hashlib.sha256(t.data.tobytes()).hexdigest()[:24],
        ]
        for t in reader.tensors
    }
    exact = {
        t.name: t.data.tolist() for t in reader.tensors if t.name.endswith("ssm_a")
    }  # torch's exp, not the last bit
    return {"exact": exact, "metadata": keys, "types": types, "tensors": tensors}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "convert")
    parser.add_argument("names", nargs="*")
    parser.add_argument("--keep", type=Path, help="keep the directories and files here")
    args = parser.parse_args()
    if not (args.out / "tokenizers").exists():  # trainers order equal scores as they please: remove it for new ones
        write_tokenizers(args.out / "tokenizers")
    (args.out / "logits").mkdir(parents=True, exist_ok=True)
    path = args.out / "families.json.gz"
    entries = json.loads(gzip.decompress(path.read_bytes())) if path.exists() else {}
    for name in args.names or FAMILIES:
        family = FAMILIES[name]
        with tempfile.TemporaryDirectory() as scratch:
            root = args.keep or Path(scratch)
            folder = root / name
            try:
                config, listing = checkpoint(name, family, folder, args.out / "tokenizers")
                ids, logits = reference(family, folder)
                converted = convert(family, folder, root / f"{name}.gguf")
            except Exception:  # noqa: BLE001 (told; the others go on)
                traceback.print_exc()
                print("FAILED", name, flush=True)
                continue
        if family.logits and family.outtype not in ("q8_0", "f16"):
            np.savez_compressed(args.out / "logits" / f"{name}.npz", tokens=ids, logits=logits)
        entries[name] = {
            "config": config, "listing": listing, "tokenizer": family.tokenizer, "outtype": family.outtype,
            "shards": family.shards, "head": family.head, **converted,
        }  # fmt: skip
        print("made", name, float(np.std(logits)), flush=True)
    text = json.dumps({name: entries[name] for name in FAMILIES if name in entries})
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


if __name__ == "__main__":
    main()
