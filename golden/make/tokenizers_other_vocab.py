"""Small vocabularies for the tokenizers: the metadata of a GGUF file and texts that exercise it."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import sentencepiece
from tokenizers_other_text import ENGLISH, MIXED, draw_texts

Vocab = tuple[dict[str, Any], list[str]]

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)

# Normalisation rules in sentencepiece's notation: code points, a tab, code points.
_RULES = """\
9\t20
a\t20
d a\t20
a0\t20
3000\t20
200b\t
ad\t
bd\t31 2044 32
fb01\t66 69
fb03\t66 66 69
65 301\te9
61 308\te4
61 308 304\t1df
41 30a\tc5
1112 1161\t1112 ae30
1112 1161 11ab\td55c
ff21\t41
ff41\t61
2460\t31
33a\t61 20 62
1f468 200d 1f469\t263a
130\t69
fdfa\t635 644 649 20 627 644 644 647
"""
_TRAINING = [*ENGLISH.split("\n"), *(text for text in MIXED if text.isprintable())] * 3


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and content of the length-delimited fields of a protobuf message, in order."""
    at = 0

    def varint() -> int:
        nonlocal at
        value, shift = 0, 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(message):
        key = varint()
        match key & 7:
            case 0:
                varint()
            case 1 | 5 as wire:
                at += 8 if wire == 1 else 4
            case _:
                size = varint()
                yield key >> 3, message[at : at + size]
                at += size


def _charsmap(model: bytes) -> bytes:
    """ModelProto.normalizer_spec (3) . precompiled_charsmap (2)."""
    spec = next(content for number, content in _fields(model) if number == 3)
    return next(content for number, content in _fields(spec) if number == 2)


def _train(**options: Any) -> bytes:
    writer = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(_TRAINING),
        model_writer=writer,
        num_threads=1,
        minloglevel=2,
        hard_vocab_limit=False,
        **options,
    )
    return writer.getvalue()


def _metadata(model: str, rows: Iterable[tuple[str, float, int]], **keys: Any) -> dict[str, Any]:
    tokens, scores, types = zip(*rows, strict=True)
    return {
        "tokenizer.ggml.model": model,
        "tokenizer.ggml.tokens": list(tokens),
        "tokenizer.ggml.scores": [float(np.float32(score)) for score in scores],
        "tokenizer.ggml.token_type": list(types),
        **{f"tokenizer.ggml.{key}": value for key, value in keys.items()},
    }


def _rows_of(model: bytes) -> list[tuple[str, float, int]]:
    trained = sentencepiece.SentencePieceProcessor(model_proto=model)

    def kind(id: int) -> int:
        if trained.is_byte(id):
            return BYTE
        if trained.is_unknown(id):
            return UNKNOWN
        if trained.is_control(id):
            return CONTROL
        return USER_DEFINED if trained.id_to_piece(id).startswith("<x") else NORMAL

    return [(trained.id_to_piece(id), trained.get_score(id), kind(id)) for id in range(len(trained))]


def _strings(rng: np.random.Generator, alphabet: str, n: int, longest: int) -> list[str]:
    """n different strings over an alphabet."""
    found: dict[str, None] = {}
    while len(found) < n:
        size = int(rng.integers(1, longest + 1))
        found["".join(alphabet[i] for i in rng.integers(len(alphabet), size=size))] = None
    return list(found)


def _substrings(rng: np.random.Generator, n: int, longest: int) -> list[str]:
    """n different pieces of the texts."""
    source = ENGLISH + "".join(MIXED)
    found: dict[str, None] = {}
    while len(found) < n:
        at, size = int(rng.integers(len(source))), int(rng.integers(1, longest + 1))
        if piece := source[at : at + size].replace("\0", ""):
            found[piece] = None
    return list(found)


def _bytes() -> list[tuple[str, float, int]]:
    return [(f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256)]


def _over(rng: np.random.Generator, alphabet: str) -> list[str]:
    """Texts over an alphabet, up to some thousand characters, and periodic ones."""
    sizes = [1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 40, 60, 70, 100] * 5 + [2000]
    drawn = ["".join(alphabet[i] for i in rng.integers(len(alphabet), size=size)) for size in sizes]
    return drawn + [unit * 60 for unit in _strings(rng, alphabet, 20, 4)]


def spm_trained(rng: np.random.Generator) -> Vocab:
    model = _train(model_type="bpe", vocab_size=700, byte_fallback=True, normalization_rule_name="identity")
    rows = _rows_of(model)
    metadata = _metadata("llama", rows, bos_token_id=1, eos_token_id=2, unknown_token_id=0, add_bos_token=True)
    return metadata, [*MIXED, *draw_texts(rng, 150), ENGLISH]


def spm_ties(rng: np.random.Generator) -> Vocab:
    """Few different scores, later tokens no worse than earlier ones, tokens with spaces inside, no token for "c"."""
    pieces = [piece for piece in _strings(rng, "ab▁cd", 400, 6) if piece != "c"]
    rows = [("<unk>", 0.0, UNKNOWN), ("<s>", 0.0, CONTROL), ("</s>", 0.0, CONTROL), *_bytes()]
    rows += [(piece, -float(rng.integers(12)), NORMAL) for piece in pieces]
    rows += [("<x>", -1000.0, USER_DEFINED), ("dab da", 5.0, USER_DEFINED)]
    flags = {"add_bos_token": False, "add_eos_token": True, "add_space_prefix": False}
    return _metadata("llama", rows, **flags), [*_over(rng, "ab cd"), *_over(rng, "ab"), *MIXED[:40], "b<x>a dab dab da"]


def _ugm_trained(add_prefix: bool, merge_spaces: bool) -> Callable[[np.random.Generator], Vocab]:
    def make(rng: np.random.Generator) -> Vocab:
        with tempfile.NamedTemporaryFile("w", suffix=".tsv", encoding="ascii") as rules:
            rules.write(_RULES)
            rules.flush()
            model = _train(
                model_type="unigram",
                vocab_size=600,
                normalization_rule_tsv=rules.name,
                user_defined_symbols=["<x0>", "<x1>", "<xé>"],
            )
        flags = {"add_space_prefix": add_prefix, "remove_extra_whitespaces": merge_spaces}
        metadata = _metadata("t5", _rows_of(model), unknown_token_id=0, eos_token_id=2, bos_token_id=1, **flags)
        metadata["tokenizer.ggml.precompiled_charsmap"] = list(_charsmap(model))
        own = [
            "<x0",
            "<x0>a<x1 b",
            "<xè <xé>é e\u0301<x",
            "a\u0308 a\u0308\u0304 a\u0308\u0301 \u1112\u1161\u11ab\u1112\u1161",
        ]
        return metadata, [*MIXED, *own, *draw_texts(rng, 150), ENGLISH]

    return make


def ugm_ties(rng: np.random.Generator) -> Vocab:
    """Few different scores; unused and user-defined tokens; two scores too fine for exact sums."""
    pieces = _strings(rng, "ab▁éc", 300, 5)
    rows = [("<pad>", 0.0, CONTROL), ("</s>", 0.0, CONTROL), ("<unk>", 0.0, UNKNOWN)]
    # llama.cpp sorts special tokens by length with std::sort, which keeps the order of equals up to 16 only.
    kinds = [USER_DEFINED] * 8 + [UNUSED] * 60 + [NORMAL] * (len(pieces) - 68)
    rows += [
        (piece, -float(rng.integers(1, 6)) / 2, kind if len(piece) > 2 else NORMAL)
        for piece, kind in zip(pieces, kinds, strict=True)
    ]
    return _metadata("t5", rows, add_space_prefix=True), [*_over(rng, "ab éc"), *_over(rng, "abé\n"), *MIXED[:40]]


def ugm_fine(rng: np.random.Generator) -> Vocab:
    """The vocabulary of `ugm_ties` with scores whose sums are rounded."""
    metadata, texts = ugm_ties(rng)
    factors = np.float32(10.0) ** -rng.integers(0, 16, size=len(metadata["tokenizer.ggml.scores"]))
    metadata["tokenizer.ggml.scores"] = [
        float(np.float32(score * factor))
        for score, factor in zip(metadata["tokenizer.ggml.scores"], factors, strict=True)
    ]
    return metadata, texts


def _wpm(**flags: bool) -> Callable[[np.random.Generator], Vocab]:
    def make(rng: np.random.Generator) -> Vocab:
        pieces = [piece for piece in _substrings(rng, 900, 6) if not any(c.isspace() for c in piece)]
        words = {"▁" + piece: None for piece in pieces[::2]} | dict.fromkeys(pieces)
        words |= {mark + c: None for c in "abcdefghijklmnopqrstuvwxyz.,'-é" for mark in ("", "▁")}
        special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
        rows = [(text, 0.0, CONTROL) for text in special] + [(text, 0.0, NORMAL) for text in words]
        ids = {"bos_token_id": 2, "seperator_token_id": 3, "unknown_token_id": 1, "mask_token_id": 4}
        keys = {f"normalizer.{key}": value for key, value in flags.items()}
        return _metadata("bert", rows, **ids, **keys), [*MIXED, *draw_texts(rng, 150), ENGLISH]

    return make


def _escape(data: bytes) -> str:
    """As Python's repr writes bytes or, where they are UTF-8, a string: both are in RWKV's vocabulary."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return repr(data)[2:-1]
    return repr(text)[1:-1] if text.isprintable() or text.isascii() else repr(data)[2:-1]


def rwkv(rng: np.random.Generator) -> Vocab:
    pieces: dict[bytes, None] = {bytes([byte]): None for byte in range(256)}
    for piece in _substrings(rng, 700, 8):
        data = piece.encode()
        cut = int(rng.integers(0, 2))  # half of them begin inside a character where it has several bytes
        if data[cut:]:
            pieces[data[cut:]] = None
    rows = [("<s>", 0.0, CONTROL), *((_escape(piece), 0.0, NORMAL) for piece in pieces)]
    return _metadata("rwkv", rows), [*MIXED, *draw_texts(rng, 150), ENGLISH]


def plamo2(rng: np.random.Generator) -> Vocab:
    rows = [(f"<|plamo:{name}|>", 0.0, CONTROL) for name in ("unk", "bos", "eos", "pad")]
    rows += [("</s>", 0.0, NORMAL), *_bytes()]
    pieces = [piece for piece in _substrings(rng, 900, 7) if piece not in ("</s>", "\n\n\n\n", "the end")]
    rows += [(piece, -float(rng.exponential(6)), NORMAL) for piece in pieces]
    rows += [("\n\n\n\n", -1000.0, NORMAL), ("the end", -3000.0, NORMAL), ("<x>", -1.0, USER_DEFINED)]
    texts = [*MIXED, "\ufeffmark", "a\ufeff", "<x>\ufeffa", "the end", *draw_texts(rng, 150), ENGLISH]
    return _metadata("plamo2", rows, bos_token_id=1, eos_token_id=2), texts


SMALL_VOCABS: dict[str, Callable[[np.random.Generator], Vocab]] = {
    "spm-trained": spm_trained,
    "spm-ties": spm_ties,
    "ugm": _ugm_trained(True, True),
    "ugm-keep-spaces": _ugm_trained(True, False),
    "ugm-no-prefix": _ugm_trained(False, False),
    "ugm-ties": ugm_ties,
    "ugm-fine": ugm_fine,
    "wpm": _wpm(),
    "wpm-cased": _wpm(lowercase=False, strip_accents=True),
    "wpm-accents": _wpm(lowercase=True, strip_accents=False),
    "rwkv": rwkv,
    "plamo2": plamo2,
}
