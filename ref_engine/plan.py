"""The memory that a model will need, by part, from a file's header alone: nothing is loaded.

Parts are told from tensor names, so a plan can also be made for an architecture that the engine cannot run yet.
All sizes are bytes unless a name says otherwise.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from ref_engine.archs import read_spec
from ref_engine.archs.keys import Keys
from ref_engine.cache import kept_type
from ref_engine.errors import ModelError
from ref_engine.files.header import TensorInfo
from ref_engine.files.types import BLOCK, GGMLType
from ref_engine.quant.rows import CACHE_TYPES, CacheType, row_bytes
from ref_engine.quant.types import BLOCK_TYPES, integers, supported
from ref_engine.spec import ModelSpec

PARTS = (
    "embeddings",
    "attention",
    "recurrent",
    "ffn",
    "experts",
    "shared experts",
    "router",
    "norms",
    "output",
    "other",
)

# The first rule whose pattern is found in a tensor's name, its `blk.N.` prefix taken off, names its part.
_RULES = tuple(
    (part, re.compile(pattern))
    for part, pattern in (
        ("norms", r"norm|_ln\b"),
        ("shared experts", r"_shexp\b"),
        ("router", r"^ffn_gate_inp|^exp_probs_b|^ffn_gate_tid2eid"),
        ("experts", r"_(ch)?exps\b|^ffn_(gate|up|down)\.\d+\."),
        ("recurrent", r"^(ssm_|time_mix_|shortconv)"),
        ("attention", r"attn_|^indexer"),
        ("ffn", r"ffn|^channel_mix_"),
        ("embeddings", r"^(token_embd|token_types|position_embd|per_layer_token_embd)\b"),
        ("output", r"^(output|cls|dense_\d)\b"),
    )
)
_BLOCK = re.compile(r"blk\.(\d+)\.(.*)", re.DOTALL)
_ONE_EXPERT = re.compile(r"ffn_(?:gate|up|down)\.(\d+)\.")  # old files have a tensor for each expert
_PASS = 512  # tokens that the engine runs at once


@dataclass(frozen=True)
class Part:
    """All tensors of one kind. `types`: bytes by the name of the tensor type."""

    name: str
    n_tensors: int
    n_weights: int
    nbytes: int
    types: Mapping[str, int]


@dataclass(frozen=True)
class Layer:
    """One layer. `active` are the bytes that one token reads of it; `expert` those of a single routed expert.

    `cache_width` counts the numbers that the KV cache keeps for each token, keys and values together; `cache` are their
    bytes by the type of the cache, for those types that can hold them.
    """

    index: int
    nbytes: int
    active: int
    parts: Mapping[str, int]
    n_expert: int
    n_used: int
    expert: int
    cache_width: int
    cache: Mapping[CacheType, int]
    state: int


@dataclass(frozen=True)
class Plan:
    """`active` and `n_active`: what one token reads of the weights, in bytes and in numbers.

    `cache`: a full KV cache of n_ctx tokens by its type, for those types that can hold it. `state`: recurrent layers,
    float32. `scratch`: temporaries of a pass (an estimate). `unpacked`: what the NumPy backend would keep of unpacked
    weights by its `activations`, if its budget allows. `obstacle`: why this version cannot run the file, or None.
    """

    arch: str
    n_ctx: int
    parts: tuple[Part, ...]
    layers: tuple[Layer, ...]
    nbytes: int
    n_weights: int
    active: int
    n_active: int
    cache: Mapping[CacheType, int]
    state: int
    scratch: int
    unpacked: Mapping[str, int]
    obstacle: str | None


def part_of(name: str) -> str:
    """The part, one of PARTS, that a tensor belongs to."""
    block = _BLOCK.fullmatch(name)
    stem = block[2] if block else name
    return next((part for part, pattern in _RULES if pattern.search(stem)), "other")


def layer_of(name: str) -> int | None:
    block = _BLOCK.fullmatch(name)
    return int(block[1]) if block and len(block[1]) < 9 else None


def make_plan(metadata: Mapping[str, object], tensors: Mapping[str, TensorInfo], n_ctx: int | None = None) -> Plan:
    """The plan of a model. n_ctx: tokens in the KV cache, by default as many as the model was trained for.

    Raises ModelError, naming the key or the tensor, for metadata that cannot be true.
    """
    arch = metadata.get("general.architecture")
    if not isinstance(arch, str):
        raise ModelError("general.architecture is missing: this file does not describe a model")
    keys = Keys(metadata, arch, tensors.keys(), n_ctx)
    n_ctx = n_ctx or keys.n_ctx_train
    spec, obstacle = _spec(metadata, tensors, n_ctx)
    kept = {} if spec is None else _kept(spec)
    groups: dict[int | None, list[TensorInfo]] = {}
    for info in tensors.values():
        groups.setdefault(layer_of(info.name), []).append(info)
    layers = tuple(_layer(i, groups[i], keys, kept.get(i)) for i in sorted(key for key in groups if key is not None))
    idle = [_idle(info, keys, groups) for info in tensors.values()]
    nbytes = sum(info.nbytes for info in tensors.values())
    n_weights = sum(info.n_weights for info in tensors.values())
    return Plan(
        arch=arch,
        n_ctx=n_ctx,
        parts=_parts(tensors.values()),
        layers=layers,
        nbytes=nbytes,
        n_weights=n_weights,
        active=nbytes - sum(size for size, _ in idle),
        n_active=n_weights - sum(n for _, n in idle),
        cache=full_cache(layers, n_ctx),
        state=sum(layer.state for layer in layers),
        scratch=_scratch(keys, tensors, layers, n_ctx),
        unpacked={mode: sum(_unpacked(info, mode, tensors) for info in tensors.values()) for mode in ("q8", "f32")},
        obstacle=obstacle,
    )


def full_cache(layers: Iterable[Layer], n_ctx: int) -> dict[CacheType, int]:
    """Bytes of n_ctx tokens by the type of the cache, for those types that can hold all layers' rows."""
    rows = [layer.cache for layer in layers]
    return {type: n_ctx * sum(row[type] for row in rows) for type in CACHE_TYPES if all(type in row for row in rows)}


def _parts(tensors: Iterable[TensorInfo]) -> tuple[Part, ...]:
    groups: dict[str, list[TensorInfo]] = {}
    for info in tensors:
        groups.setdefault(part_of(info.name), []).append(info)
    parts = []
    for name in (name for name in PARTS if name in groups):
        types: Counter[str] = Counter()
        for info in groups[name]:
            types[info.type.name] += info.nbytes
        n_weights = sum(info.n_weights for info in groups[name])
        parts.append(Part(name, len(groups[name]), n_weights, types.total(), dict(types.most_common())))
    return tuple(parts)


def _layer(index: int, tensors: list[TensorInfo], keys: Keys, kept: _Kept | None) -> Layer:
    """kept: what the spec says, if the architecture is known; else told from the tensors."""
    parts: Counter[str] = Counter()
    for info in tensors:
        parts[part_of(info.name)] += info.nbytes
    n_expert = _n_expert(tensors)
    expert = sum(_of_one_expert(info.nbytes, info) for info in tensors if _is_routed(info)) // (
        1 if _merged(tensors) else max(n_expert, 1)
    )
    idle = sum(_idle(info, keys, {index: tensors})[0] for info in tensors)
    if kept is None:
        by_name = {info.name.partition(f"blk.{index}.")[2]: info for info in tensors}
        width = _cache_width(by_name, keys, index)
        kept = _Kept(width, _row_types({"k": (width,)}), _state(by_name, keys))
    return Layer(
        index=index,
        nbytes=parts.total(),
        active=parts.total() - idle,
        parts={name: parts[name] for name in PARTS if name in parts},
        n_expert=n_expert,
        n_used=_n_used(keys, index, n_expert) if n_expert else 0,
        expert=expert,
        cache_width=kept.width,
        cache=kept.rows,
        state=kept.state,
    )


# -- experts --------------------------------------------------------------------------------------------------


def _is_routed(info: TensorInfo) -> bool:
    return part_of(info.name) == "experts"


def _merged(tensors: list[TensorInfo]) -> bool:
    """Whether a layer's experts are the rows of one tensor each for gate, up and down."""
    return not any(_ONE_EXPERT.search(info.name) for info in tensors)


def _of_one_expert(amount: int, info: TensorInfo) -> int:
    """The share of one expert in a merged tensor, whose slowest axis counts experts; all of any other."""
    return amount if _ONE_EXPERT.search(info.name) else amount // info.shape[0]


def _n_expert(tensors: list[TensorInfo]) -> int:
    """How many routed experts a layer has: by the slowest axis of merged tensors, or by the numbers in the names."""
    numbers = {match[1] for info in tensors if (match := _ONE_EXPERT.search(info.name))}
    counts = {info.shape[0] for info in tensors if _is_routed(info) and not _ONE_EXPERT.search(info.name)}
    return max([len(numbers), *counts])


def _n_used(keys: Keys, index: int, n_expert: int) -> int:
    values = keys.per_layer("expert_used_count")
    n_used = values[index] if index < len(values) else n_expert
    if n_used > n_expert:
        raise ModelError(
            f"metadata key {keys.arch}.expert_used_count is {n_used}, layer {index} has {n_expert} experts"
        )
    return n_used


def _idle(info: TensorInfo, keys: Keys, groups: Mapping[int | None, list[TensorInfo]]) -> tuple[int, int]:
    """Bytes and weights of a tensor that a token does not read.

    Those are the experts that are not chosen, the rows of other tokens in a matrix that is only looked up, and the
    layers that predict tokens further ahead (`nextn`), which plain decoding leaves out.
    """
    layer = layer_of(info.name)
    if layer is not None and any(".nextn." in other.name for other in groups[layer]):
        return info.nbytes, info.n_weights
    if layer is not None and _is_routed(info):
        n_expert = _n_expert(groups[layer])
        n_used = _n_used(keys, layer, n_expert)
        return info.nbytes - info.nbytes * n_used // n_expert, info.n_weights - info.n_weights * n_used // n_expert
    if part_of(info.name) == "embeddings" and len(info.shape) == 2 and not _is_output(info, keys.tied):
        return info.nbytes - info.nbytes // info.shape[0], info.n_weights - info.shape[1]
    return 0, 0


def _is_output(info: TensorInfo, tied: bool) -> bool:
    """Whether an embedding matrix is also what the last product reads."""
    return info.name == "token_embd.weight" and tied


# -- cache ----------------------------------------------------------------------------------------------------


def _cache_width(tensors: Mapping[str, TensorInfo], keys: Keys, index: int) -> int:
    """Numbers kept per token: the outputs of the key and value projections, or what multi-head latent attention
    keeps in their place (llama.cpp: one vector of kv_lora_rank + rope width, no values)."""
    k, v, fused = (tensors.get(f"attn_{name}.weight") for name in ("k", "v", "qkv"))
    latent = tensors.get("attn_kv_a_mqa.weight")
    if latent is not None and keys.has("attention.key_length_mla"):
        return latent.shape[0]
    if k is not None:
        return k.shape[0] + (v or k).shape[0]
    if latent is not None or (fused is not None and not any(name.startswith("ssm_") for name in tensors)):
        n_head, n_kv = _heads(keys, index)
        width = keys.integer("attention.key_length", max(1, keys.d_model // max(n_head, 1)))
        return n_kv * (width + keys.integer("attention.value_length", width))
    return 0


def _heads(keys: Keys, index: int) -> tuple[int, int]:
    """(H, K) of a layer; 0 where the file counts none, as recurrent layers do."""
    n_head = keys.per_layer("attention.head_count", 0, least=0)
    n_kv = keys.per_layer("attention.head_count_kv", least=0) if keys.has("attention.head_count_kv") else n_head
    last = min(index, len(n_head) - 1)
    return n_head[last], n_kv[last]


def _state(tensors: Mapping[str, TensorInfo], keys: Keys) -> int:
    """Recurrent state of one sequence, float32 (llama.cpp: llama_hparams::n_embd_r and n_embd_s)."""
    if any(name.startswith("ssm_") for name in tensors) and keys.has("ssm.state_size"):
        d_state, inner = keys.integer("ssm.state_size"), keys.integer("ssm.inner_size")
        conv, groups = keys.integer("ssm.conv_kernel"), keys.integer("ssm.group_count", 0, least=0)
        return 4 * ((conv - 1) * (inner + 2 * groups * d_state) + d_state * inner)
    if any(name.startswith("time_mix_") for name in tensors) and keys.has("wkv.head_size"):
        return 4 * keys.d_model * (keys.integer("token_shift_count", 2) + keys.integer("wkv.head_size"))
    if any(name.startswith("shortconv.") for name in tensors) and keys.has("shortconv.l_cache"):
        return 4 * keys.d_model * (keys.integer("shortconv.l_cache") - 1)
    return 0


# -- what the engine takes on top -----------------------------------------------------------------------------


def _scratch(keys: Keys, tensors: Mapping[str, TensorInfo], layers: tuple[Layer, ...], n_ctx: int) -> int:
    """Temporaries of the NumPy backend at their peak, float32: the larger of attention and feed-forward in a pass of
    512 tokens at the end of a full context, or the logits of one token.

    Attention holds about ten arrays of (H, T, S) while the softmax runs, feed-forward eight of (T, F).
    """
    t = min(_PASS, n_ctx)
    n_head = max((_heads(keys, layer.index)[0] for layer in layers), default=0)
    widths = [info.shape[-2] for info in tensors.values() if re.search(r"ffn_up(_exps|_shexp)?\.weight", info.name)]
    attention = 10 * n_head * t * n_ctx + 2 * max((layer.cache_width for layer in layers), default=0) * n_ctx
    ffn = 8 * t * max(widths, default=0)
    return 4 * (max(attention, ffn, 4 * keys.n_vocab) + 4 * t * keys.d_model)


def _unpacked(info: TensorInfo, mode: str, tensors: Mapping[str, TensorInfo]) -> int:
    """Bytes of one weight once the NumPy backend has unpacked it; 0 for what is used as it is or only looked up."""
    lookup = part_of(info.name) == "embeddings" and not _is_output(info, "output.weight" not in tensors)
    if info.type is GGMLType.F32 or lookup or not supported(info.type):
        return 0
    if mode == "f32" or info.type not in BLOCK_TYPES:
        return 4 * info.n_weights
    per_block, size = BLOCK[info.type]
    view = integers(np.zeros((1, size), np.uint8), info.type)
    arrays = (view.q, view.d, view.m, view.mins, view.dmin)
    return math.prod(info.shape) // per_block * sum(array.nbytes for array in arrays if array is not None)


def _spec(
    metadata: Mapping[str, object], tensors: Mapping[str, TensorInfo], n_ctx: int
) -> tuple[ModelSpec | None, str | None]:
    """The model's features, and why this version cannot run the file, as far as the header tells."""
    try:
        spec = read_spec(metadata, tensors.keys(), n_ctx)
    except ModelError as error:
        return None, str(error)
    unknown = sorted({info.type.name for info in tensors.values() if not supported(info.type)})
    return spec, f"weights of type {', '.join(unknown)} are not supported yet" if unknown else None


@dataclass(frozen=True)
class _Kept:
    """Of a layer: numbers that the cache keeps of each token, their bytes by its type, bytes of recurrent states."""

    width: int
    rows: Mapping[CacheType, int]
    state: int


def _row_types(rows: Mapping[str, tuple[int, ...]], causal: bool = True) -> dict[CacheType, int]:
    """Bytes of a token's rows for each type of cache that can hold them."""
    found: dict[CacheType, int] = {}
    for type in CACHE_TYPES:
        try:
            found[type] = sum(row_bytes(shape, kept_type(causal, type), name) for name, shape in rows.items())
        except ValueError:  # not whole blocks
            continue
    return found


def _kept(spec: ModelSpec) -> dict[int, _Kept]:
    """What the cache holds for each `blk.N.`, of which several layers may be made."""
    kept: dict[int, _Kept] = {}
    for i, layer in enumerate(spec.layers):
        blk, memory = i if layer.blk is None else layer.blk, layer.memory()
        rows = _row_types(memory.rows, spec.causal)
        one = _Kept(sum(map(math.prod, memory.rows.values())), rows, 4 * sum(map(math.prod, memory.states.values())))
        if blk in kept:
            before = kept[blk]
            both = {type: before.rows[type] + rows[type] for type in rows if type in before.rows}
            one = _Kept(before.width + one.width, both, before.state + one.state)
        kept[blk] = one
    return kept
