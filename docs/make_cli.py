"""Write docs/cli.md: what every command says of itself under --help.

    python docs/make_cli.py           # writes the file (`make docs`)
    python docs/make_cli.py --check   # exit status 1 where it is out of step

tests/cli/test_cli_docs.py holds the committed file to this.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ref_engine.cli import main

TARGET = Path(__file__).with_name("cli.md")
_INTRODUCTION = """\
# Commands

Written by `docs/make_cli.py` (`make docs`) from the commands' own help; do not edit it by hand.

`ref-engine` is also `python -m ref_engine`. MODEL is a name that `ref-engine list` shows, or a path to a .gguf file.

- **Exit status**: 0 done, 2 bad input (one line on stderr says what), 130 Ctrl-C, 1 a defect of the program or a pipe
  whose reader went away (`compare`: the two part). With `REF_ENGINE_DEBUG=1` errors come with their traceback.
- **`--json`** wherever a command prints a table: one JSON document, ASCII only; what is not a finite number is `null`.
- **Progress** goes to stderr: a bar on a terminal, a line now and then elsewhere, nothing with `--quiet`.
- **Files** written with `-o` appear whole or not at all.
- A terminal that is not UTF-8 gets `?` for what it cannot show; control characters in a model's text do not reach a
  terminal.
"""
_NOTES = {
    "trace": """\
- Names, shapes and sizes are worked out before anything is computed; `--dry-run` lists them all.
- A `.npz` is a plain zip of arrays; its entry `__trace__` (in safetensors the metadata's `ref_engine`) is a JSON text:
  model, backend, activations, tokens, positions, how each layer turns queries and keys, whether fused kernels were left
  whole, and the names in the order of the graph.
- With positions chosen, scores (`kq`, `kq_soft_max`) keep all keys.
""",
    "compare": """\
- Exit status 0: within tolerance; 1: they part; 2: bad input.
- A model is `MODEL@BACKEND:MODE`, either part alone or both, and `:fused` to leave fused kernels whole; nothing behind
  the `@` means the defaults.
- Values line up by name, and by layout: a batch of one, axes reversed or swapped, heads apart or together, padded keys,
  the last tokens only. Names on one side only are listed and count nothing.
- The error is the NMSE of the worst token, or a hundredth of that of the worst unit. Tolerances: none between two
  backends in q8 mode, 1e-9 in f32 mode, 1e-5 to another program (1e-4 to llama.cpp's own logs, which have keys and
  values in half precision), 5e-2 where a side rounds activations to 8 bits and the other does not.
- What two files without any facts say of each other is held to 1e-9 as long as they agree to 1e-11, then to 1e-5.
""",
    "run": """\
- With a prompt, or with text piped in, it answers once. What is piped in comes first, then a space, then the prompt;
  one line break at the end of piped text is dropped where no prompt follows.
- Without either, on a terminal, it chats. `/?` lists the commands of the chat. The cache is kept from one message to
  the next, and only what is new in the conversation is computed; `-v` tells how much was. When the conversation fills
  three quarters of the context, its oldest messages go.
- A base model (no chat template in the file) continues the text; in a chat it goes on with one running text.
- The same `--seed` gives the same answer for the same model, options and conversation.
""",
    "perplexity": """\
    ppl = exp( 1/n * sum over scored tokens i of -log p(token i | the tokens of its window before i) )

- Log-probabilities are taken from float32 logits with a float64 log-sum-exp. The error shown is the standard error of
  the mean, s / sqrt(n), times the perplexity.
- A text that fits one window is scored whole but for its first token. A longer one is cut into consecutive windows of
  `--ctx` tokens, each begun with BOS where the model adds it.
- llama.cpp's `llama-perplexity` differs: it scores the second half of each window (here `--skip` of half of `--ctx`)
  and puts BOS in the place of a window's first token.
""",
    "kl": """\
- MODEL is what is judged, `--against` what counts as right: P and Q of KL(P || Q) are the base's and MODEL's
  distributions over the next token. Both may be `MODEL@BACKEND:MODE`; `--backend` and `--activations` fill in what a
  name leaves open, `--against-backend` and `--against-activations` for `--against` first.
- Windows are those of `perplexity`; with `--halves` those of `llama-perplexity`: whole windows only, BOS in place of
  the first token, the tokens after the middle scored.
- `--base FILE` reads what `llama-perplexity --kl-divergence-base FILE` wrote, its text included; `--save-logits`
  writes such a file. It holds 16 bits for each logit, so a divergence from it is never quite zero.
- Log-softmax in float64; an error is a standard error, as llama.cpp has it. Vocabularies must be
  the same, token by token.
""",
    "verify": """\
- Ids stay: PACK/WHAT/OPERATION, such as `quant/Q6_K/dequantize`. `*` in `--only` crosses slashes.
- Exit status 0: all passed or were skipped; 1: a case failed; 2: bad input, also golden data that is not what its
  manifest says.
- Skipped is what cannot be judged here (a model that is not in the cache, a server without logprobs); the reason
  is shown.
- [verify.md](verify.md) tells how to hold another engine against this one.
""",
    "plan": """\
- `active` is what one token reads: all weights but the experts that are not chosen, the rows of other tokens in an
  embedding matrix that is only looked up, and layers that predict further ahead.
- The KV cache is that of a full context. It grows with the conversation, so a short one takes less. Layers with a
  sliding window count in full, as this engine keeps all their keys.
- Scratch is an estimate of the temporaries at the end of a full context, with 512 tokens in a pass.
""",
}


def render() -> str:
    """The whole of docs/cli.md."""
    width = {"terminal_width": 100, "max_content_width": 100}
    root = click.Context(main, info_name="ref-engine", **{**main.context_settings, **width})
    sections = [_section(root)]
    for name, command in main.commands.items():
        sections.append(_section(click.Context(command, parent=root, info_name=name, **width)))
    return "\n".join([_INTRODUCTION, *sections])


def _section(context: click.Context) -> str:
    notes = _NOTES.get(context.info_name or "", "")
    return f"## {context.command_path}\n\n```\n{context.get_help()}\n```\n" + (f"\n{notes}" if notes else "")


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        if not TARGET.exists() or TARGET.read_text(encoding="utf-8") != render():
            sys.exit("docs/cli.md is out of step: make docs")
    else:
        temporary = TARGET.with_suffix(".tmp")
        temporary.write_text(render(), encoding="utf-8")
        temporary.replace(TARGET)
