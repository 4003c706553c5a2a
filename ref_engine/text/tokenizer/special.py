"""Special tokens that a file does not name: found by their text, as llama.cpp's `llama_vocab::impl::load`
finds them.
"""

from collections.abc import Mapping, Sequence

# Token attributes, with llama.cpp's bits (LLAMA_TOKEN_ATTR_*). A token has one of the first six from its type
# in the file; the detection below may add CONTROL or UNUSED.
UNDEFINED = 0
UNKNOWN = 1 << 0
UNUSED = 1 << 1
NORMAL = 1 << 2
CONTROL = 1 << 3
USER_DEFINED = 1 << 4
BYTE = 1 << 5
LSTRIP = 1 << 7  # white space to the left of the token's text in a prompt is dropped
RSTRIP = 1 << 8  # white space to its right

# Where several candidates are in one vocabulary the first of the list is taken: llama.cpp takes the first in
# the order of a hash table, which is no order one could rely on.
ID_BY_TEXT: Mapping[str, tuple[str, ...]] = {
    "eot": (
        "<|eot_id|>",
        "<|im_end|>",
        "<|end|>",
        "<end_of_turn>",
        "<|endoftext|>",
        "<|end_of_text|>",
        "<EOT>",
        "_<EOT>",
        "[EOT]",
        "<｜end▁of▁sentence｜>",
        "<end_of_utterance>",
    ),
    "eom": ("<|eom_id|>",),
    "fim_pre": (
        "<|fim_prefix|>",
        "<fim-prefix>",
        "<fim_prefix>",
        "<｜fim▁begin｜>",
        "<PRE>",
        "▁<PRE>",
        "<|code_prefix|>",
        "<|prefix|>",
    ),
    "fim_suf": (
        "<|fim_suffix|>",
        "<fim-suffix>",
        "<fim_suffix>",
        "<｜fim▁hole｜>",
        "<SUF>",
        "▁<SUF>",
        "<|code_suffix|>",
        "<|suffix|>",
    ),
    "fim_mid": (
        "<|fim_middle|>",
        "<fim-middle>",
        "<fim_middle>",
        "<｜fim▁end｜>",
        "<MID>",
        "▁<MID>",
        "<|code_middle|>",
        "<|middle|>",
    ),
    "fim_pad": ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"),
    "fim_rep": ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"),
    "fim_sep": ("<|file_sep|>",),
}

END_OF_GENERATION = (
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
)

ALWAYS_SHOWN = ("<|channel|>", "<|message|>", "<|start|>", "<|constrain|>")  # the channels of gpt-oss


def detect_special_tokens(
    tokens: Sequence[str], token_to_id: Mapping[str, int], attrs: list[int], ids: dict[str, int | None]
) -> frozenset[int]:
    """Fill in `ids` (eot, eom, fim_*) that are None, correct `attrs` in place, and return the ids that end a
    generation.

    `ids` must hold the names of `ID_BY_TEXT` and "eos"; every id in it lies inside the vocabulary.
    """
    for name, texts in ID_BY_TEXT.items():
        found = next((token_to_id[text] for text in texts if text in token_to_id), None)
        if ids[name] is None and found is not None:
            ids[name] = found
            attrs[found] |= CONTROL

    for index, attr in enumerate(attrs):
        if attr & CONTROL and "unused" in tokens[index]:
            attrs[index] |= UNUSED

    end = {id for name in ("fim_pad", "fim_rep", "fim_sep") if (id := ids[name]) is not None}
    for text in END_OF_GENERATION:
        if text in token_to_id:
            end.add(token_to_id[text])
            attrs[token_to_id[text]] |= CONTROL
    for text in ALWAYS_SHOWN:
        if text in token_to_id:
            attrs[token_to_id[text]] = USER_DEFINED
    end.update(id for name in ("eos", "eot", "eom") if (id := ids[name]) is not None)

    _drop_false_ends(tokens, token_to_id, attrs, end)
    return frozenset(end)


def _drop_false_ends(tokens: Sequence[str], token_to_id: Mapping[str, int], attrs: list[int], end: set[int]) -> None:
    """Where "<|end|>" closes a channel (gpt-oss, solar-open), or "</s>" is plain text (Gemma 4, PLaMo), it
    ends nothing.
    """
    texts = {tokens[id] for id in end}
    called = "<|call|>" in texts or "<|calls|>" in texts
    if "<|end|>" in texts and called and ("<|return|>" in texts or "<|flush|>" in texts):
        end.discard(token_to_id["<|end|>"])
        attrs[token_to_id["<|end|>"]] = USER_DEFINED
    if "</s>" in texts and ("<|tool_response>" in texts or "<|plamo:eos|>" in texts):
        end.discard(token_to_id["</s>"])
        attrs[token_to_id["</s>"]] = NORMAL


def set_strip_attributes(
    token_to_id: Mapping[str, int], attrs: list[int], *, name: str, pre: str, architecture: str
) -> None:
    """LSTRIP and RSTRIP are in no GGUF file: llama.cpp knows by the model's name which tokens swallow white space."""
    lower = name.lower()
    mask = None
    if any(p in pre for p in ("jina-v2-de", "jina-v2-es", "jina-v2-code")) or any(
        a in architecture for a in ("nomic-bert-moe", "jina-bert-v3")
    ):
        mask = "<mask>"
    elif "phi-3" in lower or "phi3" in lower:
        for index, attr in enumerate(attrs):
            if attr & (CONTROL | USER_DEFINED | UNKNOWN):
                attrs[index] |= RSTRIP
        if "</s>" in token_to_id:
            attrs[token_to_id["</s>"]] |= RSTRIP
        for text in ("<unk>", "<s>", "<|endoftext|>"):
            if text in token_to_id:
                attrs[token_to_id[text]] &= ~RSTRIP
    elif "modern-bert" in lower:
        mask = "[MASK]"
    if mask is not None and mask in token_to_id:
        attrs[token_to_id[mask]] |= LSTRIP
