"""A preview of Qwen 4: gated delta nets in three of four layers, attention to blocks that an indexer chooses, over
several residual streams, with embeddings of the last few tokens together.

llama.cpp: qwen4exp.cpp.
"""

from __future__ import annotations

from ref_engine.archs.experts import expert_width, moe, read_routing, shared_ffn
from ref_engine.archs.keys import Keys
from ref_engine.archs.recurrent import attention, divides, recurrent_layers
from ref_engine.errors import ModelError
from ref_engine.spec import (
    AttentionSpec,
    DeltaNetSpec,
    GatedHyperSpec,
    LayerSpec,
    MeanIndexSpec,
    ModelSpec,
    MoeSpec,
    NgramSpec,
    RopeSpec,
    StreamsSpec,
)
from ref_engine.spec.ngram import TABLE

_INTERVAL = 4
_MOST_TOKENS, _MOST_HEADS, _MOST_BLOCK = 8, 64, 64  # as in llama.cpp
_MOST_ROWS = (1 << 31) - 1
_NAMES = {
    "hc_attn_pre": None,
    "hc_ffn_pre": "hc_mixed",
    "hc_ffn_inject": "hc_inject",
    "hc_attn_post": None,
    "attn_norm": None,
    "ffn_norm": None,
    "attn_out": None,
    "l_out": "l_last",
}


def spec(keys: Keys) -> ModelSpec:
    n = keys.integer("hyper_connection.count", least=2)
    hyper = GatedHyperSpec(n, keys.integer("hyper_connection.low_rank"), keys.real("attention.layer_norm_rms_epsilon"))
    recurrent = recurrent_layers(keys, _INTERVAL)
    ratios = keys.per_layer("attention.compress_ratios", 0, least=0)
    ngrams = _ngrams(keys, n)
    for i in ngrams:
        if not recurrent[i]:
            raise ModelError(f"metadata key {keys.arch}.ple.layers is {i}, which is not a recurrent layer")
    rope = keys.rope(
        keys.heads(recurrent=True)[0].head_dim,
        "halves",
        factors="none",
        sections=keys.sections(required=True),
        interleaved=True,
    )
    dense = [i for i in range(keys.n_layer) if not recurrent[i] and not ratios[i]]
    return keys.model(
        (
            LayerSpec(
                _delta_net(keys) if recurrent[i] else _attention(keys, i, rope, ratios[i]),
                _mixture(keys, i),
                names=_NAMES,
                hyper=hyper,
                ngrams=ngrams.get(i),
            )
            for i in range(keys.n_layer)
        ),
        output_norm=None,
        streams=StreamsSpec(n, hyper),
        # llama.cpp takes files with biases, and ignores them
        ignored=(*(f"blk.*.attn_{name}.bias" for name in "qkv"), *(f"blk.{i}.indexer.*" for i in dense)),
    )


def _delta_net(keys: Keys) -> DeltaNetSpec:
    n_head, n_key_head, width = (keys.integer(f"ssm.{k}") for k in ("time_step_rank", "group_count", "state_size"))
    divides(keys, "ssm.group_count", n_key_head, n_head)
    inner = keys.integer("ssm.inner_size")
    if inner != n_head * width:
        raise ModelError(f"metadata key {keys.arch}.ssm.inner_size is {inner}, expected {n_head * width}")
    norm = keys.rms("ssm_norm")
    return DeltaNetSpec(
        n_head, n_key_head, width, keys.integer("ssm.conv_kernel"), norm, norm.eps, tiled=True, gate_by="sigmoid"
    )


def _attention(keys: Keys, i: int, rope: RopeSpec, ratio: int) -> AttentionSpec:
    heads = keys.heads(recurrent=True)[0]
    return attention(
        keys,
        i,
        heads,
        rope,
        gate="query",
        q_norm=keys.rms("attn_q_norm"),
        k_norm=keys.rms("attn_k_norm"),
        bias="no",
        index=_index(keys, rope, ratio) if ratio else None,
    )


def _index(keys: Keys, rope: RopeSpec, ratio: int) -> MeanIndexSpec:
    key = "attention.indexer"
    width = keys.integer(f"{key}.key_length")
    if width < rope.n_rot:
        raise ModelError(f"metadata key {keys.arch}.{key}.key_length is {width}, expected at least {rope.n_rot}")
    if ratio > _MOST_BLOCK:
        raise ModelError(f"metadata key {keys.arch}.attention.compress_ratios has {ratio}, expected at most 64")
    return MeanIndexSpec(
        n_head=keys.integer(f"{key}.head_count"),
        head_dim=width,
        block=ratio,
        top_k=keys.integer(f"{key}.top_k"),
        q_norm=keys.rms("indexer.q_norm"),
        k_norm=keys.rms("indexer.k_norm"),
    )


def _mixture(keys: Keys, i: int) -> MoeSpec:
    shared = keys.integer("expert_shared_feed_forward_length", 0, least=0)
    return moe(
        keys,
        i,
        width=expert_width(keys, 0),
        routing=read_routing(keys, scale=False),
        merged=True,
        scales="may",
        shared=shared_ffn(shared or keys.per_layer("feed_forward_length")[0], scales="may"),
        shared_gate=True,
    )


def _ngrams(keys: Keys, n_streams: int) -> dict[int, NgramSpec]:
    """By layer; llama.cpp takes one at most."""
    if not keys.has("ple.layers"):
        return {}
    layers = keys.whole_numbers("ple.layers")
    if not layers:
        return {}
    if len(layers) != 1 or layers[0] >= keys.n_layer:
        raise ModelError(f"metadata key {keys.arch}.ple.layers is {layers}, expected one layer of {keys.n_layer}")
    size = keys.integer("ple.ngram_size", least=2)
    n_heads = (size - 1) * keys.integer("ple.heads_per_ngram")
    if size > _MOST_TOKENS or n_heads > _MOST_HEADS:
        raise ModelError(
            f"metadata key {keys.arch}.ple.ngram_size is {size} with {n_heads} heads, expected at most {_MOST_TOKENS} "
            f"with {_MOST_HEADS}"
        )
    width = keys.integer("embedding_length_per_layer_input")
    if width * n_heads != keys.d_model:
        raise ModelError(
            f"metadata key {keys.arch}.embedding_length_per_layer_input is {width}, times {n_heads} heads not "
            f"{keys.d_model}"
        )
    offsets = keys.whole_numbers("ple.head_offsets", n_heads, most=_MOST_ROWS)
    sizes = keys.whole_numbers("ple.head_vocab_sizes", n_heads, least=1, most=_MOST_ROWS)
    used = max(a + b for a, b in zip(offsets, sizes, strict=True))
    shape = keys.shape(TABLE)
    rows = shape[0] if shape is not None and len(shape) == 2 else used
    if used > min(rows, _MOST_ROWS):
        raise ModelError(f"metadata keys {keys.arch}.ple.head_*: {used} rows, but tensor {TABLE} has {rows}")
    return {
        layers[0]: NgramSpec(
            n=n_streams,
            d_model=keys.d_model,
            size=size,
            conv=keys.integer("ple.conv_kernel"),
            multipliers=tuple(keys.whole_numbers("ple.layer_multipliers", size)),
            offsets=tuple(offsets),
            sizes=tuple(sizes),
            width=width,
            rows=rows,
            eos=keys.integer("ple.eos_token_id", least=0),
            eps=keys.real("attention.layer_norm_rms_epsilon"),
        )
    }
