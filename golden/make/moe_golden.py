"""golden/models from a trained mixture of experts: the file, what it does, and llama.cpp's logits.

    python golden/make/moe_golden.py --sword DIR/usr/share/sword --work WORK [--out golden/models]

WORK/tiny-moe-f32.gguf and WORK/training.json are train_moe.py's.

tiny-moe.gguf  Q8_0 by llama.cpp; norms and routers in float32
tiny-moe.npz   per text NAME of TEXTS: NAME/ids (T,), NAME/logits (T, V) of the file dequantised to float32, cache in
               float32; per layer l the router's NAME/probs-l (T, E), NAME/topk-l (T, 2) and NAME/weights-l (T, 2)
tiny-moe.json  sources and licences, plan and loss curve, held-out losses, routing per kind of text, continuations

It stops unless llama.cpp's logits are those of the torch model (NMSE below AGREE at every position) and its ids are
those of the `tokenizers` package on all held-out text.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import tokenizers
import torch
import torch.nn.functional as F
from llama_cpp import llama_cpp as capi
from llamacpp import FloatArray, LlamaCpp, producer
from moe_model import Config, Model
from moe_text import HELD_OUT, PIECE, Kind, kinds
from real_models import distance, row_nmse, write_f32
from train_moe import END, encode, entropy

AGREE, N_GREEDY, MOST_IDS = 1e-8, 48, 24
# written for this project, in the manner of each kind
TEXTS = {
    "python": "class Shape:\n    def __init__(self, width, height):\n        self.width = width\n",
    "c": "#ifndef Py_SHAPE_H\n#define Py_SHAPE_H\n\nPyAPI_FUNC(int) PyShape_Check(",
    "docs": "Return the number of items in the list.  If the argument is not a string,",
    "tables": "0x0411: 0x0081,     #  CYRILLIC CAPITAL LETTER",
    "verse": "And the king said unto his servants, Go ye up into the mountain, and",
    "spanish": "Y dijo el rey á sus siervos: Subid al monte, y",
    "russian": "Не удалось сохранить файл.\nВведите правильное",
}
Double = npt.NDArray[np.float64]


def load(path: Path) -> tuple[Model, tokenizers.Tokenizer]:
    """The torch model with the file's values, dequantised, and the file's tokenizer."""
    reader = gguf.GGUFReader(str(path))
    model = Model(Config(), seed=0)
    values = {t.name: gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float32) for t in reader.tensors}
    model.load_state_dict({name.removesuffix(".weight"): torch.from_numpy(v) for name, v in values.items()})
    words = reader.fields["tokenizer.ggml.tokens"].contents()
    merges = [tuple(merge.split(" ")) for merge in reader.fields["tokenizer.ggml.merges"].contents()]
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE({word: i for i, word in enumerate(words)}, merges))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens([END])
    return model.eval(), tokenizer


def quantise(source: Path, target: Path) -> None:
    params = capi.llama_model_quantize_default_params()
    params.ftype, params.nthread = capi.LLAMA_FTYPE_MOSTLY_Q8_0, 1
    status = capi.llama_model_quantize(str(source).encode(), str(target).encode(), params)
    if status != 0:
        raise SystemExit(f"{source}: llama.cpp cannot quantise it ({status})")


def windows(ids: npt.NDArray[np.int32], n_ctx: int) -> list[torch.Tensor]:
    """All ids but the first predicted once each, from at most n_ctx before them in the same window."""
    return [torch.from_numpy(ids[i : i + n_ctx + 1]).long()[None] for i in range(0, len(ids) - 1, n_ctx)]


@torch.no_grad()
def measure(model: Model, tokenizer: tokenizers.Tokenizer, kind: Kind) -> dict[str, Any]:
    """Loss and routing on the held-out text of one kind. Entropies in nats; load (L, E) sums to 1 per layer."""
    config = model.config
    ids = encode(tokenizer, kind.held_out)
    nats, tokens = 0.0, 0
    load = torch.zeros(config.n_layer, config.n_expert, dtype=torch.float64)
    doubt = torch.zeros(config.n_layer, dtype=torch.float64)
    for window in windows(ids, config.n_ctx):
        logits, routers, chosen = model(window[:, :-1])
        nats += F.cross_entropy(logits[0].double(), window[0, 1:], reduction="sum").item()
        tokens += window.shape[1] - 1
        load += F.one_hot(chosen, config.n_expert).sum((1, 2, 3))
        doubt += entropy(routers.double().softmax(-1)).sum((1, 2))
    shares = load / load.sum(-1, keepdim=True)
    n_bytes = sum(len(piece.encode()) for piece in kind.held_out)
    return {
        "held_out_tokens": tokens,
        "held_out_bytes": n_bytes,
        "nats_per_token": round(nats / tokens, 4),
        "nats_per_byte": round(nats / n_bytes, 4),
        "router_entropy_per_layer": [round(x, 4) for x in (doubt / tokens).tolist()],
        "load_entropy_per_layer": [round(x, 4) for x in entropy(shares).tolist()],
        "expert_load": [[round(x, 4) for x in layer] for layer in shares.tolist()],
    }


def specialisation(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Of the loads of all kinds, each counted the same: how much the expert tells about the kind."""
    load = torch.tensor([kind["expert_load"] for kind in found.values()], dtype=torch.float64)  # (K, L, E)
    load = load / load.sum(-1, keepdim=True)
    mean = load.mean(0)
    told = entropy(mean) - entropy(load).mean(0)
    apart = (load[:, None] - load[None]).abs().sum(-1) / 2
    pairs = torch.triu_indices(len(load), len(load), 1)
    return {
        "uniform_entropy": round(float(np.log(load.shape[-1])), 4),
        "mean_router_entropy": round(float(np.mean([k["router_entropy_per_layer"] for k in found.values()])), 4),
        "mutual_information_kind_expert_per_layer": [round(x, 4) for x in told.tolist()],
        "total_variation_between_kinds_per_layer": [round(x, 4) for x in apart[pairs[0], pairs[1]].mean(0).tolist()],
        "least_share_of_an_expert_per_layer": [round(x, 4) for x in mean.min(-1).values.tolist()],
        "mean_expert_load": [[round(x, 4) for x in layer] for layer in mean.tolist()],
    }


def torch_logits(model: Model, ids: Sequence[int]) -> FloatArray:
    with torch.no_grad():
        return model(torch.tensor([list(ids)]))[0][0].numpy()


def compare(path: Path, texts: dict[str, list[int]]) -> float:
    """Largest NMSE over positions of llama.cpp on a float32 file against torch on the same values."""
    model, _ = load(path)
    with LlamaCpp(path, n_threads=1) as other:
        return max(float(row_nmse(other.logits(ids), torch_logits(model, ids)).max()) for ids in texts.values())


def same_ids(path: Path, tokenizer: tokenizers.Tokenizer, texts: Sequence[Kind]) -> int:
    """Number of held-out pieces, after llama.cpp gave the ids of the `tokenizers` package for each."""
    pieces = [piece for kind in texts for piece in kind.held_out]
    with LlamaCpp(path, vocab_only=True) as other:
        for piece in pieces:
            if other.tokenize(piece, add_special=False) != tokenizer.encode(piece, add_special_tokens=False).ids:
                raise SystemExit(f"llama.cpp reads this text into other ids: {piece[:80]!r}")
    return len(pieces)


def arrays(path: Path, texts: dict[str, list[int]]) -> dict[str, npt.NDArray[Any]]:
    """The golden of a float32 file."""
    out: dict[str, npt.NDArray[Any]] = {}
    kept = {"ffn_moe_probs": "probs", "ffn_moe_topk": "topk", "ffn_moe_weights_norm": "weights"}
    with LlamaCpp(path, n_threads=1, capture=True) as model:
        for name, ids in texts.items():
            out[f"{name}/ids"], out[f"{name}/logits"] = np.array(ids, np.int32), model.logits(ids)
            for node in model.intermediates(ids, lambda node: node.rpartition("-")[0] in kept):
                part, _, layer = node.name.rpartition("-")
                out[f"{name}/{kept[part]}-{layer}"] = node.array.reshape(len(ids), -1)
    return out


def continuations(path: Path, texts: dict[str, list[int]]) -> dict[str, str]:
    with LlamaCpp(path, n_threads=1) as model:
        return {
            name: model.detokenize(model.greedy(ids, N_GREEDY), unparse_special=True).decode(errors="replace")
            for name, ids in texts.items()
        }


def spread(path: Path, texts: dict[str, list[int]], truth: list[FloatArray], **settings: Any) -> dict[str, float]:
    with LlamaCpp(path, n_threads=1, **settings) as model:
        return distance([model.logits(ids) for ids in texts.values()], truth)


def check(trained: Path, small: Path, plain: Path, whole: dict[str, list[int]]) -> dict[str, float]:
    """Make the quantised file and its float32 twin; raises SystemExit unless llama.cpp agrees with torch on both."""
    before = compare(trained, whole)
    quantise(trained, small)
    write_f32(small, plain)
    agreement = {"llama.cpp from torch, nmse": compare(plain, whole), "before quantisation, nmse": before}
    print(agreement)
    if not max(agreement.values()) < AGREE:
        raise SystemExit("llama.cpp and torch disagree: the file is wrong")
    return agreement


def held_out(plain: Path, trained: Path, texts: Sequence[Kind]) -> dict[str, Any]:
    """Losses and routing of the quantised values over all kinds; losses of the trained values beside them."""
    model, tokenizer = load(plain)
    found = {kind.name: measure(model, tokenizer, kind) for kind in texts}
    model, tokenizer = load(trained)
    n_tokens, n_bytes = (sum(f[f"held_out_{unit}"] for f in found.values()) for unit in ("tokens", "bytes"))
    nats = sum(f["nats_per_token"] * f["held_out_tokens"] for f in found.values())
    return {
        "rule": f"every {HELD_OUT}th piece of about {PIECE} characters",
        "nats_per_token": round(nats / n_tokens, 4),
        "nats_per_byte": round(nats / n_bytes, 4),
        "nats_per_token_before_quantisation": {k.name: measure(model, tokenizer, k)["nats_per_token"] for k in texts},
        "kinds": found,
    }


def source(kind: Kind) -> dict[str, Any]:
    n_bytes = sum(len(piece.encode()) for piece in kind.train)
    return {"source": kind.source, "licence": kind.licence, "sha256": kind.sha256, "train_bytes": n_bytes}


def main() -> None:
    parser = argparse.ArgumentParser(description="golden data of the small mixture of experts")
    parser.add_argument("--sword", type=Path, default=Path("/usr/share/sword"))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent.parent / "models")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    trained, plain = args.work / "tiny-moe-f32.gguf", args.work / "dequantised.gguf"
    small = args.out / "tiny-moe.gguf"
    model, tokenizer = load(trained)
    whole = {name: [tokenizer.token_to_id(END), *tokenizer.encode(text).ids] for name, text in TEXTS.items()}
    ids = {name: found[:MOST_IDS] for name, found in whole.items()}
    measured: dict[str, Any] = check(trained, small, plain, whole)
    texts = kinds(args.sword)
    pieces = same_ids(small, tokenizer, texts)
    golden = arrays(plain, ids)
    np.savez_compressed(args.out / "tiny-moe.npz", **golden)
    truth = [golden[f"{name}/logits"] for name in ids]
    measured["own spread, f32, one token per batch"] = spread(plain, ids, truth, n_batch=1)
    measured["quantised from f32"] = spread(small, ids, truth, kv="f16")
    training = json.loads((args.work / "training.json").read_text(encoding="utf-8"))
    found = held_out(plain, trained, texts)
    facts = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "sources": {kind.name: source(kind) for kind in texts},
        "training": training,
        "held_out": found,
        "routing": specialisation(found["kinds"]),
        "tokenizer": f"llama.cpp and tokenizers give the same ids for {pieces} held-out pieces",
        "texts": TEXTS,
        "continuations": continuations(plain, whole),
    }
    (args.out / "tiny-moe.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    write_facts(args.out, training["seed"], measured)


def write_facts(out: Path, seed: int, measured: dict[str, Any]) -> None:
    name, version = producer()
    ours = {"producer": "ref-engine", "version": f"1 (torch {torch.__version__})", "seed": seed, "tolerance": "exact"}
    files = {
        "tiny-moe.gguf": {
            **ours,
            "made_by": "golden/make/train_moe.py",
            "note": "trained here, quantised by llama.cpp; sources, licences and losses in tiny-moe.json",
        },
        "tiny-moe.json": {**ours, "note": "what was measured with torch on the values of tiny-moe.gguf"},
        "tiny-moe.npz": {"seed": None, "tolerance": {"nmse": 1e-9}, "measured": measured},
    }
    facts = {"made_by": "golden/make/moe_golden.py", "producer": name, "version": version, "files": files}
    (out / "facts.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
