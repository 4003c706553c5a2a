"""Small tokenizers of every kind that a checkpoint may bring, as their libraries save them."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import sentencepiece
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

TEXT = Path(__file__).parents[1] / "real" / "page.txt"
TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}"
SPECIAL = ["<pad>", "<s>", "</s>"]


def _save(folder: Path, tokenizer: Tokenizer | None, config: dict[str, Any], template: bool = True) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if tokenizer is not None:
        tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    if template:
        (folder / "chat_template.jinja").write_text(TEMPLATE)


def _names(**more: Any) -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        **more,
    }


def _byte_level(special: list[str], vocab: int = 300) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train([str(TEXT)], trainer)
    tokenizer.add_tokens(
        [AddedToken("<tool>", normalized=False), AddedToken("<|end|>", normalized=False), AddedToken("two  words")]
    )
    return tokenizer


def write_tokenizers(out: Path) -> None:
    plain = _byte_level(SPECIAL)
    plain.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A </s> $B", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    _save(out / "bpe", plain, _names(add_bos_token=True, add_eos_token=False))
    level = _byte_level(["<|endoftext|>", *SPECIAL])
    level.post_processor = processors.ByteLevel(trim_offsets=False)
    _save(out / "byte-level", level, _names(eos_token="<|endoftext|>"))
    _save(
        out / "glm",
        _byte_level(["<|endoftext|>", "[gMASK]", "<|user|>", "<|observation|>"]),
        _names(bos_token=None, eos_token="<|endoftext|>", pad_token="<|endoftext|>"),
    )
    roberta = _byte_level(["<s>", "<pad>", "</s>", "<unk>"])
    roberta.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    roberta.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    _save(
        out / "roberta",
        roberta,
        _names(cls_token="<s>", sep_token="</s>", unk_token="<unk>", mask_token="<mask>"),
        template=False,
    )

    pieces = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    pieces.normalizer = normalizers.BertNormalizer(lowercase=True)
    pieces.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    pieces.decoder = decoders.WordPiece()
    pieces.train(
        [str(TEXT)],
        trainers.WordPieceTrainer(
            vocab_size=300, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], show_progress=False
        ),
    )
    pieces.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    _save(
        out / "wpm",
        pieces,
        {
            "tokenizer_class": "BertTokenizer",
            "unk_token": "[UNK]",
            "cls_token": "[CLS]",
            "sep_token": "[SEP]",
            "pad_token": "[PAD]",
            "mask_token": "[MASK]",
            "do_lower_case": True,
        },
        template=False,
    )

    spm = out / "spm"
    spm.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        sentencepiece.SentencePieceTrainer.train(
            input=str(TEXT), model_prefix=f"{scratch}/t", vocab_size=312, model_type="bpe", byte_fallback=True,
            user_defined_symbols=["<user>"], control_symbols=["<ctl>"], minloglevel=2,
            normalization_rule_name="identity",
        )  # fmt: skip
        shutil.copy(f"{scratch}/t.model", spm / "tokenizer.model")
    added = {"312": {"content": "<|im_end|>", "special": True}, "313": {"content": "▁▁x", "special": False}}
    for value in added.values():
        value |= {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False}
    _save(
        spm,
        None,
        {
            "tokenizer_class": "LlamaTokenizer",
            "bos_token": "<s>",
            "eos_token": "</s>",
            "unk_token": "<unk>",
            "add_bos_token": True,
            "add_eos_token": False,
            "add_prefix_space": True,
            "added_tokens_decoder": added,
        },
    )

    model = sentencepiece.SentencePieceProcessor(model_file=str(spm / "tokenizer.model"))
    vocab = {model.id_to_piece(i): i for i in range(model.vocab_size())}
    scored = [
        (model.get_score(i), piece[:cut], piece[cut:])
        for piece, i in vocab.items()
        for cut in range(1, len(piece))
        if model.get_score(i) < 0 and piece[:cut] in vocab and piece[cut:] in vocab
    ]
    merges = [(left, right) for _, left, right in sorted(scored, key=lambda m: -m[0])]
    bytes_too = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    bytes_too.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    bytes_too.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    bytes_too.add_special_tokens(["<unk>", "<s>", "</s>", "<|im_end|>"])
    bytes_too.add_tokens([AddedToken("<tool>", normalized=False)])
    bytes_too.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    _save(
        out / "fallback",
        bytes_too,
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<s>",
            "eos_token": "</s>",
            "unk_token": "<unk>",
            "add_prefix_space": True,
        },
    )
