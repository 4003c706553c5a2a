"""The chat template of a model file, and what to do when it has none.

Keys of the file: `tokenizer.chat_template` is the template; a model may have more,
`tokenizer.chat_template.NAME`, listed in `tokenizer.chat_templates` (written by llama.cpp's converter;
"tool_use" and "rag" are usual names).

Without a template the answer is ChatML, as in llama.cpp. Base models (Gemma 3 270M among them) have none
because they were never taught turns: for them it is a guess that lets a chat begin, and plain completion
serves them better. A caller who wants to tell the two apart looks for the key in the metadata.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ref_engine.errors import TemplateError
from ref_engine.text.chat.template import ChatTemplate

KEY = "tokenizer.chat_template"
NAMES_KEY = "tokenizer.chat_templates"

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' ~ message.role ~ '\\n' }}"
    "{% if message.content is string or not message.content %}{{ message.content or '' }}"
    "{% else %}{{ message.content | selectattr('text', 'string') | map(attribute='text') | join }}{% endif %}"
    "{{ '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def template_names(metadata: Mapping[str, object]) -> list[str]:
    """Names of the further templates that a file lists and has, such as "tool_use". The default has no name."""
    listed = metadata.get(NAMES_KEY, ())
    if isinstance(listed, str) or not isinstance(listed, Sequence):
        raise TemplateError(f"{NAMES_KEY} is not a list of names")
    return [str(name) for name in listed if f"{KEY}.{name}" in metadata]


def template_source(metadata: Mapping[str, object], name: str | None = None) -> str:
    """The source of the template called `name`, or of the default one; ChatML where the file has none.

    Raises TemplateError for a name that the file does not have, and for a template that is not a text.
    """
    key = KEY if name is None else f"{KEY}.{name}"
    source = metadata.get(key)
    if name is not None and source is None:
        known = ", ".join(template_names(metadata)) or "none"
        raise TemplateError(f"the model file has no chat template {name!r}; it names: {known}")
    if source is None or source == "" or source == "chatml":
        return CHATML
    if not isinstance(source, str):
        raise TemplateError(f"{key} is not a text")
    return source


def template_for(
    metadata: Mapping[str, object], tokens: Sequence[str] | None = None, name: str | None = None
) -> ChatTemplate:
    """The chat template of a model file, with the texts of its BOS and EOS tokens.

    `tokens`: the vocabulary, `tokenizer.ggml.tokens` where None. A file without a BOS or EOS id gives "" for
    it. Raises TemplateError for a template that cannot be compiled and for an id outside the vocabulary.
    """
    bos = _token(metadata, "bos", tokens)
    eos = _token(metadata, "eos", tokens)
    return ChatTemplate(template_source(metadata, name), bos, eos)


def _token(metadata: Mapping[str, object], which: str, tokens: Sequence[str] | None) -> str:
    key = f"tokenizer.ggml.{which}_token_id"
    index = metadata.get(key)
    if index is None:
        return ""
    known = metadata.get("tokenizer.ggml.tokens", ()) if tokens is None else tokens
    if isinstance(known, str) or not isinstance(known, Sequence):
        raise TemplateError("tokenizer.ggml.tokens is not a list of texts")
    if not isinstance(index, int) or not 0 <= index < len(known):
        raise TemplateError(f"{key} is {index}, the vocabulary has {len(known)} tokens")
    return str(known[index])
