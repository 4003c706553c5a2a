"""Write docs/convert.md: how checkpoints become GGUF files, and which can.

    python docs/make_convert.py           # writes the file (`make docs`)

tests/convert/test_convert_docs.py holds the committed file to this.
"""

from __future__ import annotations

from pathlib import Path

from ref_engine.archs import FAMILIES
from ref_engine.archs.hf import RECIPES

TARGET = Path(__file__).with_name("convert.md")
_INTRODUCTION = """\
# Conversion

Written by `docs/make_convert.py` (`make docs`); do not edit it by hand.

    pip install 'ref-engine[convert]'
    ref-engine convert DIR OUT.gguf [--outtype auto|f32|f16|bf16|q8_0|tq1_0|tq2_0] [--dry-run]

DIR is a model as the Hugging Face hub has it: `config.json`, `model.safetensors` or shards with
`model.safetensors.index.json`, and the tokenizer's files. No torch, no transformers: `safetensors` reads the headers,
`gguf` gives the names of tensors, NumPy does the rest.

The file has the keys, the tensor names, the types and the bytes of llama.cpp's `convert_hf_to_gguf.py`.
`golden/convert` proves it for a small model of nearly every recipe, and transformers' logits prove what was converted.

## How it goes
1. **Recipe.** `architectures` in `config.json` names it (`ref_engine/archs/hf`). An unknown one is an error.
2. **Configuration.** What `config.json` leaves out gets the value that transformers' class gives it, and the many ways
   to state rotary positions become one (`archs/hf/normal.py`, `defaults.json`).
3. **Tensors** are mapped, not read. A recipe renames, splits, stacks and turns them; the values are computed when their
   turn to be written comes, in parts of 4 million. A tensor that no map knows, one that is missing, or one of another
   shape than the model's graph asks for is an error before anything is written.
4. **Types.** `auto` takes bf16 where the first 16-bit matrix is bf16, else f16. Vectors, norms, routers and short
   convolutions stay F32; rows that are no whole number of blocks become F16. Weights that are not finite, or too large
   for float16, are errors.
5. **Tokenizer.** `tokenizer.model` gives pieces, scores and types; `tokenizer.json` the rest. The way a byte-level
   tokenizer cuts text is recognised by a hash of what it makes of one text, as llama.cpp does; `--pre` names it where
   it is not (a vocabulary of one's own). Special tokens, what is added around a text, and chat templates come from
   `tokenizer.json`, `tokenizer_config.json`, `chat_template.jinja` and `config.json`, the first that says so.
6. **Writing** goes to a temporary name and is renamed.

Checkpoints whose matrices are 8-bit floats with scales (DeepSeek's `fp8`, compressed-tensors' `float-quantized`) are
multiplied out. gpt-oss's MXFP4 blocks are repacked without loss. GPTQ, AWQ, bitsandbytes and NVFP4 are not read.

## Where it differs from llama.cpp's converter
- A tokenizer with byte fallback and without `tokenizer.model` is filled up to the rows of the matrices.
- StableLM's norms of single heads are stacked; llama.cpp's converter stops at them.
- Falcon 7B has one key head, whatever `num_kv_heads` says.
- `expert_shared_feed_forward_length` of ERNIE 4.5 is the experts' width times their number; there it is right for the
  21B only.
- A (Mamba and relatives) is rounded to the nearest float32; torch's `exp` misses it in one value of a hundred.
- The order of metadata keys. Heads of vision and audio models (`--mmproj`) and draft models are not converted.

## Architectures
"""


def render() -> str:
    lines = [_INTRODUCTION, "| `architectures` | GGUF | tokenizer | runs here |", "|---|---|---|---|"]
    for name, recipe in RECIPES.items():
        runs = "yes" if recipe.arch in FAMILIES else "no"
        lines.append(f"| `{name}` | {recipe.arch} | {recipe.vocabulary} | {runs} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
