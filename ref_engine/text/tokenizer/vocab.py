"""The vocabulary of a GGUF file: its tokens, their kinds, the special ids, and the flags that steer a tokenizer.

Everything is read from the `tokenizer.ggml.*` keys and checked here, with the defaults and corrections that
llama.cpp applies at load (`llama_vocab::impl::load`), so that the tokenizers can trust what they are given.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ref_engine.errors import TokenizerError
from ref_engine.text.tokenizer.pres import PRES, Pre
from ref_engine.text.tokenizer.special import (
    BYTE,
    CONTROL,
    NORMAL,
    UNDEFINED,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    detect_special_tokens,
    set_strip_attributes,
)

BPE_MODELS = ("gpt2", "gemma4", "hybriddna", "whitespace")

_ATTR_OF_TYPE = (UNDEFINED, NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE)  # by token_type 0..6

# The keys of special ids. The second spelling of the fim keys is the older one and wins where both are
# present.
_ID_KEYS = (
    ("bos", "bos_token_id"),
    ("eos", "eos_token_id"),
    ("eot", "eot_token_id"),
    ("eom", "eom_token_id"),
    ("unk", "unknown_token_id"),
    ("sep", "seperator_token_id"),  # the misspelling is the format's
    ("pad", "padding_token_id"),
    ("mask", "mask_token_id"),
    ("fim_pre", "fim_pre_token_id"),
    ("fim_suf", "fim_suf_token_id"),
    ("fim_mid", "fim_mid_token_id"),
    ("fim_pad", "fim_pad_token_id"),
    ("fim_rep", "fim_rep_token_id"),
    ("fim_sep", "fim_sep_token_id"),
    ("fim_pre", "prefix_token_id"),
    ("fim_suf", "suffix_token_id"),
    ("fim_mid", "middle_token_id"),
)

# Special ids that a tokenizer model has when the file names none.
_DEFAULT_IDS: Mapping[str, Mapping[str, int]] = {
    "llama": {"bos": 1, "eos": 2, "unk": 0},
    "bert": {"bos": 101, "unk": 100, "sep": 102, "pad": 0, "mask": 103},
    "gpt2": {"bos": 11, "eos": 11},
    "hybriddna": {"bos": 11, "eos": 11},
    "whitespace": {"bos": 11, "eos": 11},
    "t5": {"eos": 1, "unk": 2, "pad": 0},
    "rwkv": {},
    "plamo2": {"bos": 1, "eos": 2, "unk": 0, "pad": 3},
    "gemma4": {},
}


@dataclass(frozen=True)
class Vocab:
    """A checked vocabulary.

    Ids are positions in `tokens`; a special id that the model does not have is None.
    """

    model: str  # tokenizer.ggml.model: "gpt2", "llama", "bert", "t5", "rwkv", "plamo2", "gemma4", ...
    pre: str  # tokenizer.ggml.pre, "" where the file has none
    tokens: tuple[str, ...]
    types: tuple[int, ...]  # the file's: 1 normal, 2 unknown, 3 control, 4 user defined, 5 unused, 6 byte
    attrs: tuple[int, ...]  # bits of special.py: the type, corrected as llama.cpp does, and LSTRIP, RSTRIP
    scores: tuple[float, ...]
    token_to_id: Mapping[str, int]
    merges: tuple[str, ...]  # "left right", best first; empty for models without merges
    bos_id: int | None
    eos_id: int | None
    eot_id: int | None
    eom_id: int | None
    unk_id: int | None
    sep_id: int | None
    pad_id: int | None
    mask_id: int | None
    fim_pre_id: int | None
    fim_suf_id: int | None
    fim_mid_id: int | None
    fim_pad_id: int | None
    fim_rep_id: int | None
    fim_sep_id: int | None
    eog_ids: frozenset[int]  # ids that end a generation: eos, eot, eom and those known by their text
    suppress_ids: tuple[int, ...]
    add_bos: bool
    add_eos: bool
    add_sep: bool
    add_space_prefix: bool
    remove_extra_whitespaces: bool
    escape_whitespaces: bool
    treat_whitespace_as_suffix: bool
    clean_spaces: bool
    ignore_merges: bool
    lowercase: bool  # normalizer of "bert" and "whitespace" models
    strip_accents: bool
    precompiled_charsmap: bytes  # normalizer of "t5" models, b"" where the file has none

    def __len__(self) -> int:
        return len(self.tokens)


def read_vocab(metadata: Mapping[str, object]) -> Vocab:
    """The vocabulary described by the metadata of a GGUF file.

    Raises TokenizerError naming the key at fault.
    """
    model = _text(metadata, "tokenizer.ggml.model", None)
    if model not in _DEFAULT_IDS:
        raise TokenizerError(f"tokenizer.ggml.model is {model!r}: no such tokenizer is known")
    pre_name = _text(metadata, "tokenizer.ggml.pre", "")
    pre = pre_of(model, pre_name)

    tokens = _tokens(metadata)
    token_to_id = {token: id for id, token in enumerate(tokens)}
    if len(token_to_id) != len(tokens):
        first = next(id for id, token in enumerate(tokens) if token_to_id[token] != id)
        raise TokenizerError(
            f"tokenizer.ggml.tokens holds {tokens[first]!r} twice: {first} and {token_to_id[tokens[first]]}"
        )
    types = _types(metadata, len(tokens))
    attrs = [_ATTR_OF_TYPE[t] if 0 <= t < len(_ATTR_OF_TYPE) else UNDEFINED for t in types]

    ids = _special_ids(metadata, model, pre, len(tokens))
    eog_ids = detect_special_tokens(tokens, token_to_id, attrs, ids)
    set_strip_attributes(
        token_to_id,
        attrs,
        name=_text(metadata, "general.name", ""),
        pre=pre_name,
        architecture=_text(metadata, "general.architecture", ""),
    )
    lowercase = _flag(metadata, "normalizer.lowercase", pre.scheme != "whitespace")
    scores = _numbers(metadata, "tokenizer.ggml.scores", len(tokens))
    return Vocab(
        model=model,
        pre=pre_name,
        tokens=tokens,
        types=types,
        attrs=tuple(attrs),
        scores=(0.0,) * len(tokens) if scores is None else tuple(scores.astype(np.float32).tolist()),
        token_to_id=token_to_id,
        merges=_merges(metadata, model, pre_name),
        **{f"{name}_id": id for name, id in ids.items()},
        eog_ids=eog_ids,
        suppress_ids=_suppress_ids(metadata, len(tokens)),
        add_bos=_add_bos(metadata, model, pre),
        add_eos=_flag(metadata, "add_eos_token", model == "t5"),
        add_sep=_flag(metadata, "add_sep_token", model == "bert" or pre.add_sep),
        add_space_prefix=_flag(metadata, "add_space_prefix", model == "llama"),
        remove_extra_whitespaces=_flag(metadata, "remove_extra_whitespaces", False),
        escape_whitespaces=pre.escape_spaces if model in BPE_MODELS else True,
        treat_whitespace_as_suffix=False,  # in no file: llama.cpp has the switch, and no key for it
        clean_spaces=pre.clean_spaces if model in BPE_MODELS else model == "bert",
        ignore_merges=pre.ignore_merges,
        lowercase=lowercase,
        strip_accents=_flag(metadata, "normalizer.strip_accents", lowercase),
        precompiled_charsmap=_charsmap(metadata) if model == "t5" else b"",
    )


def pre_of(model: str, name: str) -> Pre:
    """What tokenizer.ggml.pre means for a tokenizer model.

    Raises TokenizerError for a name that is not known.
    """
    if model not in BPE_MODELS:
        return PRES["default"]  # only byte-pair models split into words first
    if model == "gemma4":
        return PRES["gemma4"]
    if (pre := PRES.get(name or "default")) is None:
        raise TokenizerError(f"tokenizer.ggml.pre is {name!r}: no such pre-tokenizer is known")
    return pre


def _add_bos(metadata: Mapping[str, object], model: str, pre: Pre) -> bool:
    if model in BPE_MODELS:
        # Early Gemma 4 files say false by mistake.
        return _flag(metadata, "add_bos_token", pre.add_bos) or pre.scheme == "gemma4"
    return _flag(metadata, "add_bos_token", model in ("llama", "bert"))


def _tokens(metadata: Mapping[str, object]) -> tuple[str, ...]:
    """Token texts; as in llama.cpp a text ends at a NUL, and an empty one gets a name."""
    texts = _strings(metadata, "tokenizer.ggml.tokens")
    if texts is None:
        raise TokenizerError("tokenizer.ggml.tokens is missing: the file holds no vocabulary")
    if not texts:
        raise TokenizerError("tokenizer.ggml.tokens is empty")
    everything = "".join(texts)
    try:
        everything.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise TokenizerError("tokenizer.ggml.tokens holds a text that is no UTF-8") from None
    if "\0" in everything or "" in texts:
        return tuple(text.partition("\0")[0] or f"[EMPTY_{id}]" for id, text in enumerate(texts))
    return tuple(texts)


def _merges(metadata: Mapping[str, object], model: str, pre: str) -> tuple[str, ...]:
    if model not in BPE_MODELS:
        return ()
    merges = _strings(metadata, "tokenizer.ggml.merges")
    if merges is None:
        if pre == "kimi-k2":
            return ()  # its words are looked up whole
        raise TokenizerError("tokenizer.ggml.merges is missing")
    return tuple(merges)


def _types(metadata: Mapping[str, object], n: int) -> tuple[int, ...]:
    types = _numbers(metadata, "tokenizer.ggml.token_type", n)
    if types is None:
        return (1,) * n
    if types.dtype.kind not in "iu":
        raise TokenizerError(f"tokenizer.ggml.token_type is an array of {types.dtype}, not of integers")
    return tuple(types.tolist())


def _special_ids(metadata: Mapping[str, object], model: str, pre: Pre, n: int) -> dict[str, int | None]:
    """Special ids by name. As in llama.cpp an id outside the vocabulary is ignored, whether it is a default
    or a key.
    """
    ids: dict[str, int | None] = {name: None for name, _ in _ID_KEYS}
    ids.update({name: id for name, id in _DEFAULT_IDS[model].items() if id < n})
    if model in BPE_MODELS and not pre.default_bos:
        ids["bos"] = None
    for name, key in _ID_KEYS:
        value = metadata.get(f"tokenizer.ggml.{key}")
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool):
            raise TokenizerError(f"tokenizer.ggml.{key} is a {type(value).__name__}, not an integer")
        if 0 <= value < n:
            ids[name] = value
    return ids


def _suppress_ids(metadata: Mapping[str, object], n: int) -> tuple[int, ...]:
    values = _numbers(metadata, "tokenizer.ggml.suppress_tokens", 0)
    if values is None:
        return ()
    if values.dtype.kind not in "iu":
        raise TokenizerError(f"tokenizer.ggml.suppress_tokens is an array of {values.dtype}, not of integers")
    return tuple(id for id in values.tolist() if 0 <= id < n)


def _charsmap(metadata: Mapping[str, object]) -> bytes:
    values = _numbers(metadata, "tokenizer.ggml.precompiled_charsmap", 0)
    if values is None:
        return b""
    if values.dtype.itemsize != 1:
        raise TokenizerError(f"tokenizer.ggml.precompiled_charsmap has entries of {values.dtype}, not bytes")
    blob = values.tobytes()
    if len(blob) < 4 or int.from_bytes(blob[:4], "little") + 4 >= len(blob):
        raise TokenizerError(f"tokenizer.ggml.precompiled_charsmap is cut off at {len(blob)} bytes")
    return blob


def _text(metadata: Mapping[str, object], key: str, default: str | None) -> str:
    value = metadata.get(key, default)
    if value is None:
        raise TokenizerError(f"{key} is missing")
    if not isinstance(value, str):
        raise TokenizerError(f"{key} is a {type(value).__name__}, not a string")
    return value


def _flag(metadata: Mapping[str, object], key: str, default: bool) -> bool:
    value = metadata.get(f"tokenizer.ggml.{key}", default)
    if not isinstance(value, bool):
        raise TokenizerError(f"tokenizer.ggml.{key} is a {type(value).__name__}, not a boolean")
    return value


def _strings(metadata: Mapping[str, object], key: str) -> Sequence[str] | None:
    values = metadata.get(key)
    if values is None:
        return None
    if not isinstance(values, list | tuple) or not set(map(type, values)) <= {str}:
        raise TokenizerError(f"{key} is not an array of strings")
    return values


def _numbers(metadata: Mapping[str, object], key: str, at_least: int) -> np.ndarray | None:
    """A 1-D array of numbers with `at_least` entries (exactly that many are kept where it is above 0), or None."""
    values = metadata.get(key)
    if values is None:
        return None
    if isinstance(values, list | tuple) and all(isinstance(v, int | float) for v in values):
        values = np.array(values)
    if not isinstance(values, np.ndarray) or values.ndim != 1 or values.dtype.kind not in "iuf":
        raise TokenizerError(f"{key} is not an array of numbers")
    if len(values) < at_least:
        raise TokenizerError(f"{key} has {len(values)} entries for {at_least} tokens")
    return values[:at_least] if at_least else values
