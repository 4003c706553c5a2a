"""What each value of `tokenizer.ggml.pre` means: a splitting scheme and a few flags. Data only.

The names and their flags are llama.cpp's (`llama_vocab::impl::load`); the schemes are defined in
`pretokenize.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Pre:
    """Defaults that a pre-tokenizer name brings along; the file's own keys override `add_bos` and `add_sep`.

    scheme: name of the word-splitting scheme in `pretokenize.SCHEMES`.
    ignore_merges: a word that is a token as a whole is taken without merging.
    clean_spaces: the model's decoder removes the space before punctuation (`decode(..., clean_spaces=True)`).
    escape_spaces: spaces become U+2581 before merging, and tokens are raw UTF-8 instead of byte-encoded.
    byte_encoded: words are spelt in the 256 letters of GPT-2, one for each byte; otherwise in UTF-8
    characters.
    default_bos: without a key in the file the BOS token is id 11 (true) or absent (false).
    """

    scheme: str
    ignore_merges: bool = False
    add_bos: bool = False
    add_sep: bool = False
    clean_spaces: bool = True
    escape_spaces: bool = False
    default_bos: bool = True
    byte_encoded: bool = True


def _table() -> dict[str, Pre]:
    table: dict[str, Pre] = {}

    def add(names: str, pre: Pre) -> None:
        for name in names.split():
            table[name] = pre

    # The decoder cleans spaces.
    add("default", Pre("default"))
    add("falcon", Pre("falcon"))
    add(
        "gpt-2 phi-2 jina-es jina-de gigachat jina-v2-es jina-v2-de a.x-4.0 mellum modern-bert exaone4 mpt olmo jais",
        Pre("gpt2"),
    )
    add("jina-v1-en jina-v2-code roberta-bpe", Pre("gpt2", add_sep=True))
    add("starcoder refact codeshell exaone minerva-7b mellum2", Pre("gpt2-digits"))
    add("jais-2", Pre("jais2"))
    add("dbrx smaug-bpe", Pre("llama3"))
    add("chatglm-bpe", Pre("llama3", default_bos=False))
    add("glm4 glm5", Pre("llama3", ignore_merges=True, default_bos=False))
    add(
        "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano",
        Pre("llama3", ignore_merges=True, add_bos=True),
    )
    add("minicpm5", Pre("minicpm5", ignore_merges=True))
    add("stablelm2 megrez", Pre("qwen2"))
    add("bloom gpt3-finnish", Pre("bloom"))
    add("exaone-moe", Pre("exaone-moe"))
    add("whitespace", Pre("whitespace", byte_encoded=False))
    add("gemma4 granite-embed-multi-311m", Pre("gemma4", escape_spaces=True, byte_encoded=False))

    # The decoder leaves spaces as they are.
    add("sarvam-moe", Pre("newlines", clean_spaces=False, escape_spaces=True, byte_encoded=False))
    add("command-r smollm", Pre("gpt2-digits", clean_spaces=False))
    add("trillion granite-docling", Pre("gpt2", clean_spaces=False))
    add("qwen2 deepseek-r1-qwen kormo f2llmv2 hunyuan grok-2 solar-open", Pre("qwen2", clean_spaces=False))
    add("qwen35", Pre("qwen35", clean_spaces=False))
    add("deepseek-llm", Pre("deepseek-llm", clean_spaces=False))
    add("deepseek-coder", Pre("deepseek-coder", clean_spaces=False))
    add("deepseek-v3 hunyuan-dense hy_v4 joyai-llm", Pre("deepseek3", clean_spaces=False))
    add("spark2_5", Pre("spark2_5", clean_spaces=False))
    add("youtu", Pre("youtu", ignore_merges=True, clean_spaces=False))
    add("poro-chat", Pre("bloom", clean_spaces=False))
    add("viking", Pre("viking", clean_spaces=False))
    add("tekken", Pre("tekken", ignore_merges=True, add_bos=True, clean_spaces=False))
    add("chameleon", Pre("chameleon", add_bos=True, clean_spaces=False))
    add("gpt-4o llama4 kanana2 talkie minimax-m2", Pre("gpt4o", clean_spaces=False))
    add("granite-embed-multi-97m", Pre("granite-multi", ignore_merges=True, clean_spaces=False))
    add("tiny_aya cohere2moe", Pre("tiny-aya", clean_spaces=False))
    add("superbpe", Pre("superbpe", clean_spaces=False))
    add("bailingmoe bailingmoe2 llada-moe", Pre("bailingmoe", clean_spaces=False))
    add("seed-coder", Pre("seed-coder", clean_spaces=False))
    add("kimi-k2", Pre("kimi-k2", clean_spaces=False))
    add("ufakzeka", Pre("ufakzeka", clean_spaces=False))
    add("afmoe", Pre("afmoe", clean_spaces=False))
    add("laguna", Pre("laguna", clean_spaces=False))
    return table


PRES: Mapping[str, Pre] = MappingProxyType(_table())
