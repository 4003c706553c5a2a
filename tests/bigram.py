"""Models small enough to be worked out by hand: the next token depends on the last one only.

The attention and feed-forward outputs are zero, token embeddings are the unit vectors, and output[j, i] is WEIGHT
where token j follows token i. The norm of a unit vector of width D is 1 / sqrt(1/D + eps), so the logit of the
follower is WEIGHT / sqrt(1/D + eps) and every other logit is 0.
"""

import math
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np

from ref_engine.files import GGMLType, GGUFValueType, write_gguf

N_VOCAB = 288  # <unk> <s> </s>, 256 bytes, fillers
WIDTH = N_VOCAB
EPS = 1e-6
WEIGHT = 0.75
LOGIT = WEIGHT / math.sqrt(1 / WIDTH + EPS)
TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"  # so that the answer follows the last character
ALPHABET = "abcdefghijklmnopqrstuvwxyz"


def byte(character: str) -> int:
    return 3 + ord(character)


def followers() -> dict[int, int]:
    """a -> b -> ... -> z -> end; 0 -> 1 -> ... -> 9 -> 0 without end."""
    follows = {byte(a): byte(b) for a, b in pairwise(ALPHABET)}
    follows |= {byte(str(i)): byte(str((i + 1) % 10)) for i in range(10)}
    return follows | {byte("z"): 2, 3 + 0xC3: 3 + 0xA9}


def write_bigram(
    path: Path, *, template: str | None = TEMPLATE, n_ctx: int = 512, extra: Mapping[str, object] = {}
) -> Path:
    """A llama model with one layer, a SentencePiece vocabulary of bytes, and BOS."""
    output = np.zeros((N_VOCAB, WIDTH), np.float32)
    for last, following in followers().items():
        output[following, last] = WEIGHT
    square = np.zeros((WIDTH, WIDTH), np.float32)
    up = np.zeros((32, WIDTH), np.float32)
    one = np.ones(WIDTH, np.float32)
    tensors = {
        "token_embd.weight": np.eye(N_VOCAB, dtype=np.float32),
        "output_norm.weight": one,
        "output.weight": output,
        "blk.0.attn_norm.weight": one,
        **{f"blk.0.attn_{name}.weight": square for name in ("q", "k", "v", "output")},
        "blk.0.ffn_norm.weight": one,
        "blk.0.ffn_gate.weight": up,
        "blk.0.ffn_up.weight": up,
        "blk.0.ffn_down.weight": up.T.copy(),
    }
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256)]
    tokens += [f"filler{i}" for i in range(len(tokens), N_VOCAB)]
    metadata: dict[str, object] = {
        "general.architecture": "llama",
        "general.name": "bigram",
        "llama.block_count": 1,
        "llama.context_length": n_ctx,
        "llama.embedding_length": WIDTH,
        "llama.feed_forward_length": 32,
        "llama.attention.head_count": 2,
        "llama.attention.layer_norm_rms_epsilon": EPS,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": np.zeros(N_VOCAB, np.float32),
        "tokenizer.ggml.token_type": np.array([2, 3, 3] + [6] * 256 + [5] * (N_VOCAB - 259), np.int32),
        "tokenizer.ggml.add_space_prefix": False,
        **({"tokenizer.chat_template": template} if template is not None else {}),
        **extra,
    }
    types = {"llama.attention.layer_norm_rms_epsilon": GGUFValueType.FLOAT32}
    rows = [(name, array.shape, GGMLType.F32, array) for name, array in tensors.items()]
    write_gguf(path, metadata, rows, types=types)
    return path
