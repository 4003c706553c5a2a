"""Which type each tensor of a quantised file gets: the file types of `llama-quantize` and its rules.

A file type such as Q4_K_M names a base type and, by the rules, others for the tensors that suffer most. The rules look
at the tensor's name, at how many of its kind came before it, and at a few numbers of the model.
Source: `llama_tensor_get_type`, `tensor_allows_quantization`, `tensor_type_fallback` of llama-quant.cpp.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from ref_engine.archs.mixture import Exceptions, exceptions, is_large
from ref_engine.errors import ModelError
from ref_engine.expert_types import ExpertWish, policy
from ref_engine.files.types import BLOCK, GGMLType
from ref_engine.quant.types import BLOCK_TYPES

T = GGMLType


@dataclass(frozen=True)
class FileType:
    """number: what `general.file_type` says; base: the type of a tensor that no rule names."""

    name: str
    number: int
    base: GGMLType


_BASES = {
    "F32": (0, T.F32), "F16": (1, T.F16), "BF16": (32, T.BF16), "Q1_0": (40, T.Q1_0), "Q2_0": (41, T.Q2_0),
    "Q4_0": (2, T.Q4_0), "Q4_1": (3, T.Q4_1), "Q5_0": (8, T.Q5_0), "Q5_1": (9, T.Q5_1), "Q8_0": (7, T.Q8_0),
    "MXFP4_MOE": (38, T.MXFP4), "Q2_K": (10, T.Q2_K), "Q2_K_S": (21, T.Q2_K), "Q3_K_S": (11, T.Q3_K),
    "Q3_K_M": (12, T.Q3_K), "Q3_K_L": (13, T.Q3_K), "Q4_K_S": (14, T.Q4_K), "Q4_K_M": (15, T.Q4_K),
    "Q5_K_S": (16, T.Q5_K), "Q5_K_M": (17, T.Q5_K), "Q6_K": (18, T.Q6_K), "TQ1_0": (36, T.TQ1_0),
    "TQ2_0": (37, T.TQ2_0), "IQ1_S": (24, T.IQ1_S), "IQ1_M": (31, T.IQ1_M), "IQ2_XXS": (19, T.IQ2_XXS),
    "IQ2_XS": (20, T.IQ2_XS), "IQ2_S": (28, T.IQ2_XS), "IQ2_M": (29, T.IQ2_S), "IQ3_XXS": (23, T.IQ3_XXS),
    "IQ3_XS": (22, T.IQ3_S), "IQ3_S": (26, T.IQ3_S), "IQ3_M": (27, T.IQ3_S), "IQ4_NL": (25, T.IQ4_NL),
    "IQ4_XS": (30, T.IQ4_XS),
}  # fmt: skip
FILE_TYPES: Final[Mapping[str, FileType]] = MappingProxyType({n: FileType(n, i, b) for n, (i, b) in _BASES.items()})
ALIASES: Final[Mapping[str, str]] = MappingProxyType({"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"})


def file_type_named(name: str) -> FileType:
    """The file type of this name, in any case, or number; aliases as in `llama-quantize`. Raises ModelError."""
    upper = ALIASES.get(name.upper(), name.upper())
    for known in FILE_TYPES.values():  # "15" is Q4_K_M
        if name == str(known.number):
            return known
    if upper not in FILE_TYPES:
        raise ModelError(f"{name!r} is not a file type (known: {', '.join(FILE_TYPES)}, COPY)")
    return FILE_TYPES[upper]


# What a file that does not say its file type is taken for, by the type that most of its tensors have.
_GUESSES = {t.base: t.number for t in FILE_TYPES.values() if t.name == t.base.name} | {
    T.Q3_K: 12, T.Q4_K: 15, T.Q5_K: 17, T.IQ2_S: 28, T.NVFP4: 39
}  # fmt: skip
_GUESSED = 1024


def guessed_file_type(types: Iterable[GGMLType]) -> int:
    """`general.file_type` of a file without one, from the types of its tensors in `file_order`, marked as a guess.

    The first type to reach the largest count decides. Source: `llama_model_loader` (no guess for MXFP4 and numbers).
    """
    counts: dict[GGMLType, int] = {}
    most, best = 0, T.F32
    for type in types:
        counts[type] = counts.get(type, 0) + 1
        if counts[type] > most:
            most, best = counts[type], type
    return _GUESSES.get(best, FILE_TYPES["F32"].number) | _GUESSED


# Small, or too sensitive: these are copied.
_UNTOUCHED = (
    "_norm.weight", "ffn_gate_inp.weight", "ffn_gate_tid2eid.weight", "altup", "laurel", "per_layer_model_proj",
    "ssm_conv1d", "shortconv.conv.weight", "indexer.k_proj.weight", "indexer.q_proj.weight", "time_mix_first.weight",
    "time_mix_w0.weight", "time_mix_w1.weight", "time_mix_w2.weight", "time_mix_v0.weight", "time_mix_v1.weight",
    "time_mix_v2.weight", "time_mix_a0.weight", "time_mix_a1.weight", "time_mix_a2.weight", "time_mix_g1.weight",
    "time_mix_g2.weight", "time_mix_decay_w1.weight", "time_mix_decay_w2.weight", "time_mix_lerp_fused.weight",
    "attn_rel_b.weight", ".position_embd", "sam.pos_embd", "sam.neck.", "sam.net_", ".rel_pos", ".patch_embd",
    ".patch_merger", "a.rvq.codebook", "mm.a.code_embd",
)  # fmt: skip
_UNTOUCHED_NAMES = frozenset({"position_embd.weight", "token_types.weight"})
_EMBEDDINGS = frozenset({"token_embd.weight", "per_layer_token_embd.weight"})
_KINDS = (  # the first that a name contains; attn_qkv and attn_kv_b are treated as attn_v
    ("attn_qkv.weight", "attn_v"), ("attn_kv_b.weight", "attn_v"), ("attn_v.weight", "attn_v"),
    ("attn_k.weight", "attn_k"), ("attn_q.weight", "attn_q"), ("attn_output.weight", "attn_output"),
    ("ffn_up", "ffn_up"), ("ffn_gate", "ffn_gate"), ("ffn_down", "ffn_down"),
)  # fmt: skip
_SMALLER_BLOCKS = {
    T.IQ1_S: T.IQ4_NL, T.IQ1_M: T.IQ4_NL, T.IQ2_XXS: T.IQ4_NL, T.IQ2_XS: T.IQ4_NL, T.IQ2_S: T.IQ4_NL,
    T.IQ3_XXS: T.IQ4_NL, T.IQ3_S: T.IQ4_NL, T.IQ4_XS: T.IQ4_NL, T.Q2_0: T.Q4_0, T.Q2_K: T.Q4_0, T.Q3_K: T.Q4_0,
    T.TQ1_0: T.Q4_0, T.TQ2_0: T.Q4_0, T.Q4_K: T.Q5_0, T.Q5_K: T.Q5_1, T.Q6_K: T.Q8_0,
}  # fmt: skip
_NEED_IMPORTANCE = frozenset({T.IQ3_XXS, T.IQ2_XXS, T.IQ2_XS, T.IQ2_S, T.IQ1_M, T.IQ1_S})
_MORE_FOR_EIGHT_EXPERTS = frozenset(
    {"Q2_K", "Q3_K_S", "Q3_K_M", "Q4_K_S", "Q4_K_M", "IQ3_XS", "IQ3_XXS", "IQ3_S", "IQ3_M", "IQ4_NL", "IQ4_XS"}
)
_VERY_LOW = frozenset({"IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M"})


def kind_of(name: str) -> str:
    """The role of a tensor: output, embedding, one of `_KINDS`, or other."""
    if name == "output.weight":
        return "output"
    if name in _EMBEDDINGS:
        return "embedding"
    return next((kind for part, kind in _KINDS if part in name), "other")


def fitting(type: GGMLType, columns: int) -> GGMLType:
    """The type, or where rows are not whole blocks of it one with blocks of 32, or else F16. Raises ModelError."""
    if columns % BLOCK[type][0] == 0:
        return type
    if type not in _SMALLER_BLOCKS and BLOCK[type][0] > 32:
        raise ModelError(f"rows of {columns} are not whole blocks of {type.name}, and no other type stands in for it")
    smaller = _SMALLER_BLOCKS.get(type, type)
    return smaller if columns % BLOCK[smaller][0] == 0 else T.F16


@dataclass(frozen=True)
class Choice:
    """A type, and which one it stands in for because the tensor's rows are not whole blocks of that."""

    type: GGMLType
    instead_of: GGMLType | None = None


def fitted(type: GGMLType, columns: int) -> Choice:
    """`fitting`, with a note."""
    found = fitting(type, columns)
    return Choice(found, None if found is type else type)


def needs_importance(name: str, type: GGMLType, file_type: FileType) -> bool:
    """Whether a tensor in this type is of use only with an importance matrix."""
    if kind_of(name) in ("output", "embedding"):
        return False
    return type in _NEED_IMPORTANCE or (type is T.Q2_K and file_type.name == "Q2_K_S")


def file_order(name: str) -> tuple[int, str]:
    """Sort key of llama.cpp's tensor table: tensors outside the layers, then by layer, then by name."""
    layer = re.match(r"blk\.(\d+)\.", name)
    return (int(layer[1]) if layer else -1, name)


@dataclass(frozen=True)
class Facts:
    """The numbers of a model that the rules ask for. n_gqa: query heads per key/value head."""

    n_layer: int
    n_expert: int
    n_gqa: int
    large: bool
    exceptions: Exceptions


def read_facts(metadata: Mapping[str, object]) -> Facts:
    """Raises ModelError where a key is missing or no number."""
    arch = metadata.get("general.architecture")
    if not isinstance(arch, str):
        raise ModelError("general.architecture is missing: this file does not describe a model")

    def number(key: str, default: int | None = None) -> int:
        value = metadata.get(f"{arch}.{key}", default)
        if hasattr(value, "tolist"):  # one per layer: the first
            value = value.tolist()
        if isinstance(value, list) and value:
            value = value[0]
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 31:
            raise ModelError(f"{arch}.{key} is missing or not a count")
        return value

    n_layer, n_head = number("block_count"), number("attention.head_count", 0)
    n_kv = number("attention.head_count_kv", n_head)
    return Facts(
        n_layer=n_layer,
        n_expert=number("expert_count", 0),
        n_gqa=n_head // n_kv if n_kv else 0,
        large=is_large(arch, n_layer, n_kv != n_head),
        exceptions=exceptions(arch),
    )


@dataclass(frozen=True)
class Wishes:
    """What the caller asks for beside the file type.

    patterns: (regular expression, type): the first that is found in a tensor's name decides, but for embedding and
        output where those are given; only where the file type's base is a block type
    pure: the base type for every tensor; keep_output: `output.weight` is copied
    experts: "same" as llama.cpp, or what `expert_types.py` says for "auto" or a type
    """

    output: GGMLType | None = None
    embedding: GGMLType | None = None
    patterns: Sequence[tuple[re.Pattern[str], GGMLType]] = ()
    pure: bool = False
    keep_output: bool = False
    experts: ExpertWish = "same"


@dataclass
class Chooser:
    """Chooses types for the tensors of one file, which must come in `file_order`: the rules count them.

    names: of all tensors; has_importance: whether there is an importance matrix.
    """

    file_type: FileType
    facts: Facts
    names: Sequence[str]
    wishes: Wishes = field(default_factory=Wishes)
    has_importance: bool = False

    def __post_init__(self) -> None:
        self._n_attn_v = sum(kind_of(name) == "attn_v" for name in self.names)
        self._tied = "output.weight" not in self.names
        self._seen = {"attn_v": 0, "ffn_up": 0, "ffn_gate": 0, "ffn_down": 0}
        self._policy = policy(
            self.wishes.experts, self.file_type.name, self.file_type.base, self.facts.n_expert, self.wishes.pure
        )

    def choose(self, name: str, shape: Sequence[int], type: GGMLType) -> GGMLType:
        """The type for a tensor of this name, NumPy shape and present type. Raises ModelError."""
        return self.choice(name, shape, type).type

    def choice(self, name: str, shape: Sequence[int], type: GGMLType) -> Choice:
        """The same, and what it stands in for where the rows do not fit."""
        by_policy = self._policy.of(name, shape)
        if by_policy is not None and self._named(name) is None:
            if self._may_change(name, shape) and self.file_type.base in BLOCK_TYPES:
                self._by_rule(name, kind_of(name), shape)  # so that it counts
            return fitted(by_policy, shape[-1])
        if not self._may_change(name, shape):
            return Choice(type)
        kind, wishes, base = kind_of(name), self.wishes, self.file_type.base
        named = self._named(name)
        separate = name == "per_layer_token_embd.weight" and named is not None
        if kind == "embedding" and wishes.embedding is not None and not separate:
            return Choice(wishes.embedding)
        if kind == "output" and wishes.output is not None:
            return Choice(wishes.output)
        if base not in BLOCK_TYPES:
            return Choice(base)
        if named is not None:
            return fitted(named, shape[-1])
        return fitted(base if wishes.pure else self._by_rule(name, kind, shape), shape[-1])

    def _named(self, name: str) -> GGMLType | None:
        """The type of the first pattern that is found in the name."""
        return next((wanted for pattern, wanted in self.wishes.patterns if pattern.search(name)), None)

    def _may_change(self, name: str, shape: Sequence[int]) -> bool:
        if not name.endswith("weight") or all(n == 1 for n in shape[:-1]):  # one axis
            return False
        if name in _UNTOUCHED_NAMES or (name == "output.weight" and self.wishes.keep_output):
            return False
        return not any(part in name for part in (*_UNTOUCHED, *self.facts.exceptions.untouched))

    def _by_rule(self, name: str, kind: str, shape: Sequence[int]) -> GGMLType:
        base, ft = self.file_type.base, self.file_type.name
        if any(part in name for part in self.facts.exceptions.at_least_q8):
            return T.Q8_0
        if kind == "output" or (kind == "embedding" and self._tied):
            return self._output(shape[-1])
        if ft == "MXFP4_MOE":
            stacked = len(shape) > 2 and shape[-3] > 1
            expert = not self.facts.exceptions.experts_by_role or kind.startswith("ffn_")
            return T.MXFP4 if stacked and expert else T.Q8_0
        if kind == "embedding":
            return self._embedding()
        if ft in _VERY_LOW:
            return self._very_low(kind)
        if kind == "attn_v":
            return self._attn_v()
        if kind in ("attn_k", "attn_q"):
            return self._attn_k_or_q(kind)
        if kind == "attn_output":
            return self._attn_output()
        if kind in ("ffn_up", "ffn_gate", "ffn_down"):
            layer = self._layer(kind, name)
            return self._ffn_down(layer) if kind == "ffn_down" else self._ffn_up_or_gate(layer)
        return base

    def _layer(self, kind: str, name: str) -> int:
        """Which layer a feed-forward tensor counts as: how many came before it, or with experts what its name says."""
        index = self._seen[kind]
        self._seen[kind] += 1
        if self.facts.n_expert > 1:
            index = file_order(name)[0]
            if not 0 <= index < self.facts.n_layer:
                raise ModelError(f"it is in no layer of 0 .. {self.facts.n_layer - 1}")
        return index

    def _output(self, columns: int) -> GGMLType:
        base, ft = self.file_type.base, self.file_type.name
        if self.wishes.output is not None:
            return self.wishes.output
        if ft == "MXFP4_MOE" or self.facts.exceptions.output_is_q8 or columns % BLOCK[base][0]:
            return T.Q8_0
        if ft in _VERY_LOW or ft == "IQ3_XXS":
            return T.Q5_K
        return base if base is T.Q8_0 else T.Q6_K

    def _embedding(self) -> GGMLType:
        ft = self.file_type.name
        if ft in ("IQ2_XXS", "IQ2_XS", "IQ1_S", "IQ1_M"):
            return T.Q2_K
        if ft in ("IQ2_S", "IQ2_M", "IQ3_XXS"):
            return T.IQ3_S
        return T.Q4_K if ft in ("TQ1_0", "TQ2_0", "Q2_0") else self.file_type.base

    def _very_low(self, kind: str) -> GGMLType:
        """IQ1 and IQ2 file types."""
        base, ft, facts = self.file_type.base, self.file_type.name, self.facts
        better = T.IQ3_S if ft in ("IQ2_S", "IQ2_M") else T.Q2_K
        if kind == "attn_v":
            return T.Q4_K if facts.n_gqa >= 4 or facts.n_expert >= 4 else better
        if kind == "attn_k" and facts.n_expert == 8:
            return T.Q4_K
        if kind == "ffn_down":
            self._seen[kind] += 1
            return better if self._seen[kind] - 1 < facts.n_layer // 8 else base
        if kind == "attn_output":
            if facts.n_expert == 8:
                return T.Q5_K
            return {"IQ1_S": T.IQ2_XXS, "IQ1_M": T.IQ2_XXS, "IQ2_S": T.IQ3_S, "IQ2_M": T.IQ3_S}.get(ft, base)
        return base

    def _attn_v(self) -> GGMLType:
        base, ft, facts = self.file_type.base, self.file_type.name, self.facts
        i, shared = self._seen["attn_v"], facts.n_gqa >= 4
        self._seen["attn_v"] += 1
        if facts.n_expert == 8:
            return T.Q8_0
        type = base
        if ft in ("Q2_K", "Q2_K_S", "IQ3_XXS", "IQ3_XS", "IQ3_S") and shared:
            type = T.Q4_K
        elif ft in ("Q2_K", "IQ3_XXS"):
            type = T.Q3_K if ft == "Q2_K" else T.IQ3_XXS if self.has_importance else T.IQ3_S
        elif ft == "IQ3_M":
            type = T.Q4_K
        elif ft == "Q3_K_M":
            type = T.Q5_K if i < 2 else T.Q4_K
        elif ft == "Q3_K_L" or (ft in ("IQ4_NL", "IQ4_XS") and shared) or (ft == "Q4_K_S" and i < 4):
            type = T.Q5_K
        elif ft in ("Q4_K_M", "Q5_K_M") and _more_bits(i, self._n_attn_v):
            type = T.Q6_K
        return T.Q5_K if facts.large and type in (T.Q3_K, T.Q4_K) else type

    def _attn_k_or_q(self, kind: str) -> GGMLType:
        if kind == "attn_k" and self.facts.n_expert == 8:
            return T.Q8_0
        return {"IQ3_XS": T.IQ3_XXS, "IQ3_XXS": T.IQ2_S}.get(self.file_type.name, self.file_type.base)

    def _attn_output(self) -> GGMLType:
        base, ft = self.file_type.base, self.file_type.name
        if self.facts.exceptions.spares_ffn_down:
            return T.Q4_K if ft == "Q3_K_L" else base
        if self.facts.n_expert == 8:
            return T.Q5_K if ft in _MORE_FOR_EIGHT_EXPERTS else base
        more_bits = {"Q2_K": T.Q3_K, "IQ3_XXS": T.IQ3_S, "Q3_K_M": T.Q4_K, "Q3_K_L": T.Q5_K, "IQ3_M": T.Q4_K}
        return more_bits.get(ft, base)

    def _ffn_up_or_gate(self, i: int) -> GGMLType:
        n = self.facts.n_layer
        inner = n // 8 <= i < 7 * n // 8
        return T.IQ3_XXS if self.file_type.name == "IQ3_XS" and inner else self.file_type.base

    def _ffn_down(self, i: int) -> GGMLType:
        base, ft, n, spares = self.file_type.base, self.file_type.name, self.facts.n_layer, self.facts.exceptions
        early, more = i < n // 8, _more_bits(i, n)
        if spares.spares_ffn_down:
            rules = {
                "Q3_K_M": T.Q5_K if i < n // 16 else T.Q4_K if more else T.Q3_K,
                "Q3_K_L": T.Q4_K,
                "Q4_K_M": T.Q6_K if i < n // 16 else T.Q5_K if more else T.Q4_K,
                "Q4_K_S": base,
            }
        else:
            rules = {
                "Q3_K_M": T.Q5_K if i < n // 16 else T.Q4_K,
                "Q3_K_L": T.Q5_K,
                "Q4_K_M": T.Q6_K if more else base,
                "Q4_K_S": T.Q5_K if early else base,
            }
        rules |= {
            "Q2_K": T.Q3_K,
            "Q2_K_S": T.Q4_K if early else base,
            "IQ3_M": T.Q4_K if early or (self.facts.n_expert == 8 and more) else base,
            "Q5_K_M": T.Q6_K if more else base,
        }
        if self.has_importance:  # Q4_0 and Q5_0 can go wrong in the first layers
            rules |= {"Q4_0": T.Q4_1 if early else base, "Q5_0": T.Q5_1 if early else base}
        else:
            four_or_five = T.Q5_K if early else base
            rules |= {"IQ3_XXS": T.Q4_K if early else T.Q3_K, "IQ4_NL": four_or_five, "IQ4_XS": four_or_five}
        return rules.get(ft, base)


def _more_bits(i: int, n: int) -> bool:
    """The first and the last eighth of the layers, and every third between."""
    return i < n // 8 or i >= 7 * n // 8 or (i - n // 8) % 3 == 2
