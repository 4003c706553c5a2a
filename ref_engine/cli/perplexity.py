"""ref-engine perplexity"""

from __future__ import annotations

from typing import Any

import click

from ref_engine.cli.options import engine_options, find_model, json_option, load_model, quiet_option
from ref_engine.cli.output import emit_json, read_text, say
from ref_engine.cli.progress import progress

_LARGEST_WINDOW = 2048


@click.command()
@click.argument("model")
@click.argument("file")
@click.option("--ctx", type=click.IntRange(min=2), metavar="N", help="Tokens in a window (at most 2048).")
@click.option("--skip", type=click.IntRange(min=1), default=1, metavar="N", help="Tokens of a window not scored (1).")
@engine_options
@quiet_option
@json_option
def perplexity(model: str, file: str, ctx: int | None, skip: int, quiet: bool, as_json: bool, **engine: Any) -> None:
    """Measure how well a model predicts the text in FILE ("-": standard input).

    Perplexity is exp(mean of -log p(token | tokens before it)). The text is cut into windows of --ctx tokens, each
    run on its own and begun with BOS where the model adds one. The first token of a window is given, not scored.
    The error is the standard error of the mean.
    """
    from ref_engine.perplexity import perplexity as measure

    text = read_text(file)
    loaded = load_model(find_model(model), **engine)
    ids = loaded.tokenize(text)
    prefix = [id for id in loaded.tokenizer.added_before if id is not None]
    window = ctx or min(loaded.n_ctx, _LARGEST_WINDOW)
    if window > loaded.n_ctx:
        raise click.UsageError(f"--ctx {window} is more than the context length {loaded.n_ctx}; --n-ctx raises that")
    with progress("tokens", quiet=quiet) as bar:
        bar.start(len(ids), "perplexity")
        found = measure(loaded, ids, window, prefix=prefix, skip=skip, advance=lambda n, nll: bar.advance(n))
        bar.done()
    if as_json:
        emit_json(
            {
                "perplexity": found.value,
                "perplexity_error": found.error,
                "nll": found.nll,
                "nll_error": found.nll_error,
                "tokens": found.n_tokens,
                "windows": found.n_windows,
                "ctx": window,
                "skip": skip,
                "activations": loaded.activations,
            }
        )
        return
    windows = "window" if found.n_windows == 1 else "windows"
    say(f"perplexity {found.value:.4f} ± {found.error:.4f}")
    say(f"nll        {found.nll:.6f} ± {found.nll_error:.6f} nats")
    say(f"tokens     {found.n_tokens} scored, in {found.n_windows} {windows} of up to {window}")
