"""Tokenizers: what becomes of each file, against llama.cpp's rules and a real model's vocabulary."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checkpoints import FAMILIES
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from ref_engine.archs.hf import KeyWriter
from ref_engine.checkpoint import Config
from ref_engine.convert import plan_conversion
from ref_engine.convert.vocab.bytelevel import looks_special, read_merges, write_byte_level
from ref_engine.convert.vocab.files import VocabFiles
from ref_engine.convert.vocab.special import read_special
from ref_engine.convert.vocab.spm_model import read_pieces
from ref_engine.errors import ConvertError
from ref_engine.files import open_gguf

Checkpoint = Callable[..., Path]
CACHE = Path(os.environ.get("REF_ENGINE_CACHE", Path.home() / ".cache" / "ref-engine"))


@pytest.fixture
def rebuilt(smollm2: Path, tmp_path: Path) -> tuple[VocabFiles, Any]:
    """SmolLM2's tokenizer as its authors publish it, from tokens and merges of a GGUF file; and that file's keys."""
    with open_gguf(smollm2) as file:
        keys = dict(file.metadata)
    tokens, types = list(keys["tokenizer.ggml.tokens"]), list(keys["tokenizer.ggml.token_type"])
    merges = [tuple(merge.split(" ")) for merge in keys["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t) for t, kind in zip(tokens, types, strict=True) if kind == 3])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    named = {kind: tokens[keys[f"tokenizer.ggml.{kind}_token_id"]] for kind in ("bos", "eos")}
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps(
            {f"{kind}_token": text for kind, text in named.items()} | {"chat_template": keys["tokenizer.chat_template"]}
        )
    )
    (tmp_path / "config.json").write_text("{}")
    return VocabFiles(tmp_path, Config({"vocab_size": len(tokens)})), keys


def test_a_real_vocabulary_comes_back(rebuilt: tuple[VocabFiles, dict[str, Any]]) -> None:
    files, want = rebuilt
    keys = KeyWriter("llama", 0)
    write_byte_level(files, keys)
    assert keys.values["tokenizer.ggml.pre"] == want["tokenizer.ggml.pre"] == "smollm"  # found by its hash
    for name in ("model", "tokens", "token_type", "merges", "bos_token_id", "eos_token_id"):
        got, expected = keys.values[f"tokenizer.ggml.{name}"], want[f"tokenizer.ggml.{name}"]
        assert (list(got) == list(expected)) if isinstance(got, list) else got == expected, name
    assert keys.values["tokenizer.chat_template"] == want["tokenizer.chat_template"]


def test_gpt2_is_recognised_without_tokenizer_json(tmp_path: Path) -> None:
    """Old checkpoints have vocab.json and merges.txt only."""
    path = CACHE / "vocabs" / "ggml-vocab-gpt-2.gguf"
    if not path.exists():
        pytest.skip(f"{path.name} is not in {CACHE}: python -m ref_engine.library.assets fetches it")
    with open_gguf(path) as file:
        keys = dict(file.metadata)
    tokens = list(keys["tokenizer.ggml.tokens"])
    (tmp_path / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "\n".join(keys["tokenizer.ggml.merges"]) + "\n")
    (tmp_path / "config.json").write_text(json.dumps({"bos_token_id": 50256, "eos_token_id": 50256}))
    writer = KeyWriter("gpt2", 0)
    write_byte_level(VocabFiles(tmp_path, Config({"vocab_size": len(tokens)})), writer)
    assert writer.values["tokenizer.ggml.pre"] == "gpt-2"
    assert writer.values["tokenizer.ggml.tokens"] == tokens
    assert writer.values["tokenizer.ggml.merges"] == list(keys["tokenizer.ggml.merges"])
    assert writer.values["tokenizer.ggml.eos_token_id"] == 50256


@pytest.mark.parametrize("text", ["<pad>", "<|im_end|>", "<｜end｜>", "<unused7>", "[@BOS@]"])
def test_what_looks_special(text: str) -> None:
    assert looks_special(text)
    assert not looks_special(text[:-1])


def write(folder: Path, **files: Any) -> VocabFiles:
    for name, value in {"config": {}, **files}.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    return VocabFiles(folder, Config({}))


def test_merges_with_spaces_in_them(tmp_path: Path) -> None:
    files = write(tmp_path, tokenizer={"model": {"merges": [["a b", "c"], ["d", "e"]]}})
    assert read_merges(files) == ["aĠb c", "d e"]
    with pytest.raises(ConvertError, match="merges must be texts or pairs"):
        read_merges(write(tmp_path, tokenizer={"model": {"merges": [["a"]]}}))


TEMPLATE = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}, {"SpecialToken": {"id": "</s>"}}],
    "pair": [],
}
ADDED = [{"id": 1, "content": "<s>"}, {"id": 2, "content": "</s>"}, {"id": 5, "content": "<turn>"}]


def test_the_post_processor_says_what_is_added(tmp_path: Path) -> None:
    files = write(
        tmp_path,
        tokenizer={"post_processor": TEMPLATE, "added_tokens": ADDED},
        tokenizer_config={"bos_token": "<s>", "eos_token": {"content": "</s>"}, "add_bos_token": False},
    )
    special = read_special(files)
    assert special.adds == {"bos": True, "eos": True}  # and not what tokenizer_config.json says
    assert special.ids == {"bos": 1, "eos": 2}


def test_another_end_than_the_named_one_ends_the_text(tmp_path: Path) -> None:
    files = write(
        tmp_path,
        tokenizer={"post_processor": TEMPLATE, "added_tokens": ADDED},
        tokenizer_config={"bos_token": "<s>", "eos_token": "<turn>"},
    )
    assert read_special(files).ids == {"bos": 1, "eos": 2, "eot": 5}


def test_byte_level_post_processors_add_nothing(tmp_path: Path) -> None:
    files = write(
        tmp_path, tokenizer={"post_processor": {"type": "ByteLevel"}}, tokenizer_config={"add_bos_token": True}
    )
    assert read_special(files).adds == {"bos": False, "eos": False}


def test_the_first_file_that_names_a_token_wins(tmp_path: Path) -> None:
    files = write(
        tmp_path,
        config={"eos_token_id": 7, "pad_token_id": 9, "text_config": {"bos_token_id": 3}},
        tokenizer={"added_tokens": ADDED},
        tokenizer_config={"eos_token": "</s>"},
    )
    assert read_special(files).ids == {"eos": 2, "bos": 3, "pad": 9}
    assert "pad" not in read_special(files, n_tokens=9).ids


def test_normalizers(tmp_path: Path) -> None:
    nested = {"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "Lowercase"}, {"type": "StripAccents"}]}
    special = read_special(write(tmp_path, tokenizer={"normalizer": nested}))
    assert (special.lowercase, special.strip_accents) == (True, True)


def test_several_chat_templates(tmp_path: Path) -> None:
    files = write(
        tmp_path,
        tokenizer_config={
            "chat_template": [{"name": "default", "template": "a"}, {"name": "tool use", "template": "b"}]
        },
    )
    keys = KeyWriter("llama", 0)
    read_special(files).write(keys)
    assert keys.values == {
        "tokenizer.chat_template.tool_use": "b",
        "tokenizer.chat_templates": ["tool_use"],
        "tokenizer.chat_template": "a",
    }


def test_chat_template_files(tmp_path: Path) -> None:
    files = write(tmp_path, tokenizer_config={}, chat_template={"chat_template": "from json"})
    assert read_special(files).template == "from json"
    (tmp_path / "chat_template.jinja").write_text("from jinja")
    assert read_special(VocabFiles(tmp_path, Config({}))).template == "from jinja"
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "rag.jinja").write_text("rag")
    assert read_special(VocabFiles(tmp_path, Config({}))).template == [
        {"name": "default", "template": "from jinja"},
        {"name": "rag", "template": "rag"},
    ]


def test_sentencepiece_pieces(tmp_path: Path) -> None:
    """Two pieces by hand: field 1 of the model, in it text (1), score (2) and type (3)."""
    one = b"\x0a\x02hi\x15\x00\x00\x80\xbf"  # "hi", -1.0
    two = b"\x0a\x06<0x0A>\x15\x00\x00\x00\x00\x18\x06"
    data = b"".join(b"\x0a" + bytes([len(piece)]) + piece for piece in (one, two)) + b"\x12\x02\x18\x02"
    (tmp_path / "tokenizer.model").write_bytes(data)
    found = [(piece.text, piece.score, piece.kind) for piece in read_pieces(tmp_path / "tokenizer.model")]
    assert found == [(b"hi", -1.0, 1), (b"<0x0A>", 0.0, 6)]


def test_rows_without_tokens_become_unused_ones(checkpoint: Checkpoint, tool: Any) -> None:
    """llama.cpp's converter would leave them out, and its loader refuse the file."""
    folder = checkpoint("llama-hf-tokenizer", vocab_size=320)
    listing = FAMILIES["llama-hf-tokenizer"]["listing"]
    tensors = {key: (dtype, shape if shape[0] != 314 else [320, *shape[1:]]) for key, (dtype, shape) in listing.items()}
    tool.write_safetensors(
        folder / "model.safetensors", {k: (d, s, tool.encode(k, d, s)) for k, (d, s) in tensors.items()}
    )
    plan = plan_conversion(folder)
    assert len(plan.metadata["tokenizer.ggml.tokens"]) == 320
    assert plan.metadata["tokenizer.ggml.tokens"][319] == b"[PAD319]"
    assert plan.metadata["tokenizer.ggml.token_type"][314:] == [5] * 6
