"""Metadata to features: what a file may say, what it may leave out, and the error that names what is wrong."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import ref_engine
from ref_engine.archs import read_spec
from ref_engine.files.gguf import open_gguf
from ref_engine.files.types import GGMLType
from ref_engine.files.writer import write_gguf

LLAMA: dict[str, object] = {
    "general.architecture": "llama",
    "llama.block_count": 2,
    "llama.context_length": 512,
    "llama.embedding_length": 64,
    "llama.feed_forward_length": 96,
    "llama.attention.head_count": 4,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.vocab_size": 32,
}


def test_what_a_file_leaves_out() -> None:
    """Heads of D / H, as many key/value heads as heads, base 10000, tied output, a scale of 1 / sqrt(Hd)."""
    spec = read_spec(LLAMA, ())
    a = spec.layers[1].mixer
    assert (a.n_head, a.n_head_kv, a.head_dim, a.scale) == (4, 4, 16, 0.25)
    assert (a.rope.n_rot, a.rope.base, a.rope.pairing, a.rope.freq_scale) == (16, 10000.0, "adjacent", 1.0)
    assert (spec.n_vocab, spec.n_ctx, spec.tied, spec.output) == (32, 512, True, "token_embd.weight")


def test_yarn_by_hand() -> None:
    """Factor 4: frequencies to a quarter for slow turns, magnitude 1 + 0.1 ln 4."""
    scaling = {"llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 4.0}
    rope = read_spec(LLAMA | scaling | {"llama.rope.scaling.original_context_length": 128}, ()).layers[0].mixer.rope
    assert (rope.freq_scale, rope.ext_factor, rope.n_ctx_orig) == (0.25, 1.0, 128)
    assert rope.magnitude == pytest.approx(1 + 0.1 * math.log(4))


def test_windows_of_gemma3() -> None:
    """Five layers with a window, then one without; a base of their own for those with one."""
    metadata = {k.replace("llama", "gemma3"): v for k, v in LLAMA.items()} | {
        "general.architecture": "gemma3",
        "gemma3.block_count": 13,
        "gemma3.attention.sliding_window": 512,
        "gemma3.rope.freq_base": 1e6,
    }
    layers = read_spec(metadata, ()).layers
    assert [layer.mixer.window for layer in layers] == ([512] * 5 + [None]) * 2 + [512]
    assert {layer.mixer.rope.base for layer in layers if layer.mixer.window} == {10000.0}
    assert layers[5].mixer.rope.base == 1e6
    assert all(layer.mixer.q_norm and layer.mixer.k_norm and layer.ffn_post_norm for layer in layers)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"general.architecture": "frobnicate"}, "architecture 'frobnicate' is not supported"),
        ({"general.architecture": 3}, "general.architecture is missing"),
        ({"llama.block_count": None}, "llama.block_count is None"),
        ({"llama.block_count": 0}, "llama.block_count is 0"),
        ({"llama.block_count": True}, "llama.block_count is True"),
        ({"llama.embedding_length": "64"}, "llama.embedding_length is '64'"),
        ({"llama.attention.head_count_kv": 3}, "llama.attention.head_count_kv is 3, expected a divisor of 4"),
        ({"llama.attention.head_count": np.array([4], np.uint32)}, "llama.attention.head_count is .* 2 whole numbers"),
        ({"llama.rope.dimension_count": 8}, "llama.rope.dimension_count is 8"),
        ({"llama.rope.dimension_count": 15}, "llama.rope.dimension_count is 15"),
        ({"llama.rope.freq_base": 0.0}, "llama.rope.freq_base is 0.0"),
        ({"llama.rope.scaling.factor": -2.0}, "llama.rope.scaling.factor is -2.0"),
        ({"llama.rope.scaling.type": "magic"}, "llama.rope.scaling.type is 'magic'"),
        ({"llama.attention.layer_norm_rms_epsilon": math.nan}, "llama.attention.layer_norm_rms_epsilon is nan"),
        ({"llama.context_length": 1 << 40}, "llama.context_length is 1099511627776"),
        ({"llama.expert_count": 8}, "llama.expert_count"),
    ],
)
def test_the_key_at_fault_is_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(ref_engine.ModelError, match=message):
        read_spec(LLAMA | change, ())


def test_a_missing_key_is_named() -> None:
    for key in LLAMA:
        rest = {k: v for k, v in LLAMA.items() if k != key}
        with pytest.raises(ref_engine.ModelError, match=key.replace(".", r"\.")):
            read_spec(rest, ())


Change = Callable[[dict[str, np.ndarray]], None]


def damaged(source: Path, target: Path, change: Change) -> Path:
    """A copy of a model file whose tensors went through `change`."""
    file = open_gguf(source)
    tensors = {n: file.data(n).view(np.float32).reshape(t.shape) for n, t in file.tensors.items()}
    change(tensors)
    rows = [(n, t.shape, GGMLType.F32, np.ascontiguousarray(t)) for n, t in tensors.items()]
    write_gguf(target, file.metadata, rows, types=file.types)
    return target


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("blk.1.ffn_up.weight"), r"tensor blk\.1\.ffn_up\.weight is missing"),
        (lambda t: t.pop("output_norm.weight"), r"tensor output_norm\.weight is missing"),
        (
            lambda t: t.update({"blk.0.attn_k.weight": t["blk.0.attn_k.weight"][:-1]}),
            r"blk\.0\.attn_k\.weight has shape \[255, 256\], the metadata ask for \[256, 256\]",
        ),
        (
            lambda t: t.update({"blk.0.attn_q.bias": t["blk.0.attn_q.bias"][:-1]}),
            r"tensor blk\.0\.attn_q\.bias has shape \[255\]",
        ),
        (lambda t: t.update({"blk.0.extra": np.zeros(4, np.float32)}), r"tensor blk\.0\.extra is not known"),
    ],
)
def test_the_tensor_at_fault_is_named(
    change: Change, message: str, zoo_model: Callable[[str], Path], tmp_path: Path
) -> None:
    path = damaged(zoo_model("llama-dense"), tmp_path / "damaged.gguf", change)
    with pytest.raises(ref_engine.ModelError, match=message):
        ref_engine.load(path)
