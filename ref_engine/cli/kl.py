"""ref-engine kl"""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ref_engine.cli.options import engine_options, json_option, quiet_option
from ref_engine.cli.output import clean, emit_json, read_text, say
from ref_engine.cli.progress import progress

if TYPE_CHECKING:
    from ref_engine.divergence import Base, Divergence, Estimate, Window
    from ref_engine.kld_file import KldWriter
    from ref_engine.model import Model

_LARGEST_WINDOW = 2048
_LLAMA_WINDOW = 512


@dataclass(frozen=True)
class _Job:
    """What is compared over what; `prefix` is what each window begins with."""

    model: Model
    base: Base
    named: str  # the base
    windows: list[Window]
    ctx: int


@click.command()
@click.argument("model")
@click.argument("file", required=False)
@click.option("--against", metavar="MODEL", help="The model that counts as right.")
@click.option("--base", metavar="FILE", help="Its log-probabilities instead, as llama-perplexity writes them.")
@click.option("--against-backend", type=click.Choice(["numpy", "native", "cupy"]), help="Who computes --against.")
@click.option("--against-activations", type=click.Choice(["f32", "q8"]), help="Its products.")
@click.option("-p", "--prompt", metavar="TEXT", help="The text itself.")
@click.option("--ctx", type=click.IntRange(min=2), metavar="N", help="Tokens in a window (2048, with --halves 512).")
@click.option("--skip", type=click.IntRange(min=1), metavar="N", help="Tokens of a window not scored (1).")
@click.option("--halves", is_flag=True, help="Windows as llama.cpp has them, the second half of each scored.")
@click.option("--save-logits", metavar="FILE", help="Keep the log-probabilities of --against for llama.cpp or --base.")
@engine_options
@quiet_option
@json_option
def kl(model: str, file: str | None, quiet: bool, as_json: bool, save_logits: str | None, **options: Any) -> None:
    """Compare what MODEL predicts with what another predicts, over the text in FILE ("-": standard input).

    Both names may say who computes: model.gguf@native:q8 is that file on the compiled kernels with 8-bit products.
    Shown are the perplexity of both, the Kullback-Leibler divergence of MODEL from the other in nats per token, how
    much the probability of the right token changes, and how often both put the same token first, each with its
    standard error.
    """
    from ref_engine.divergence import diverge, summary

    with progress("tokens", quiet=quiet) as bar:
        job, writer = _job(model, file, save_logits, **options)
        bar.start(sum(len(window.ids) - 1 for window in job.windows), "comparing")
        with writer or nullcontext():
            rows = diverge(job.base, job.model, job.windows, advance=lambda n, mean: bar.advance(n))
        bar.done()
    found = summary(rows)
    from ref_engine.lens.target import described

    about = {
        "model": model,
        "model_computed": described(job.model),
        "base": job.named,
        "windows": len(job.windows),
        "ctx": job.ctx,
    }
    if as_json:
        emit_json({**about, **_plain(found)})
    else:
        _show(about, found)


def _job(
    name: str,
    file: str | None,
    save: str | None,
    *,
    against: str | None,
    base: str | None,
    prompt: str | None,
    ctx: int | None,
    skip: int | None,
    halves: bool,
    **engine: Any,
) -> tuple[_Job, KldWriter | None]:
    if (against is None) == (base is None):
        raise click.UsageError("give either --against MODEL or --base FILE")
    as_base = (engine.pop("against_backend"), engine.pop("against_activations"))
    if base is not None:
        if file is not None or prompt is not None or ctx or skip or halves or save or any(as_base):
            raise click.UsageError("--base FILE holds the text and its windows: no text, window or --against options")
        return _from_file(name, base, engine), None
    if (file is None) == (prompt is None):
        raise click.UsageError("give either a FILE or --prompt TEXT")
    if save is not None and not halves:
        raise click.UsageError("--save-logits needs --halves: llama.cpp's file holds such windows")
    if halves and skip is not None:
        raise click.UsageError("--halves says itself what is scored: no --skip")
    text = clean(prompt) if prompt is not None else read_text(str(file))
    return _from_models(name, str(against), as_base, text, ctx, skip, halves, save, engine)


def _load(name: str, engine: dict[str, Any], how: tuple[Any, Any] = (None, None)) -> Model:
    from ref_engine.lens.target import load_target, parse_target

    rest = {key: value for key, value in engine.items() if key not in ("backend", "activations")}
    target = parse_target(name).otherwise(*how).otherwise(engine["backend"], engine["activations"])
    return load_target(target, **rest)


def _from_file(name: str, base: str, engine: dict[str, Any]) -> _Job:
    from ref_engine.kld_file import read_kld

    kept = read_kld(Path(base))
    model = _load(name, engine)
    _fits(kept.n_ctx, model)
    return _Job(model, kept, base, kept.windows(_bos(model)), kept.n_ctx)


def _from_models(
    name: str,
    against: str,
    as_base: tuple[Any, Any],
    text: str,
    ctx: int | None,
    skip: int | None,
    halves: bool,
    save: str | None,
    engine: dict[str, Any],
) -> tuple[_Job, KldWriter | None]:
    from ref_engine.divergence import ModelBase, half_windows, text_windows
    from ref_engine.kld_file import KldWriter
    from ref_engine.lens.target import described

    other, model = _load(against, engine, as_base), _load(name, engine)
    _same_vocabulary(model, other)
    ids = other.tokenize(text)
    size = ctx or min(model.n_ctx, other.n_ctx, _LLAMA_WINDOW if halves else _LARGEST_WINDOW)
    _fits(size, model, other)
    if halves:
        windows = half_windows(ids, size, _bos(other))
    else:
        prefix = [id for id in other.tokenizer.added_before if id is not None]
        windows = text_windows(ids, size, prefix, skip or 1)
    writer = KldWriter(Path(save), ids, size, other.spec.n_vocab) if save is not None else None
    base = ModelBase(other) if writer is None else ModelBase(other, writer.write)
    return _Job(model, base, f"{against} ({described(other)})", windows, size), writer


def _bos(model: Model) -> int | None:
    """What llama.cpp puts in place of a window's first token: BOS, where the model adds one."""
    return next((id for id in model.tokenizer.added_before if id is not None), None)


def _fits(ctx: int, *models: Model) -> None:
    for model in models:
        if ctx > model.n_ctx:
            raise click.UsageError(
                f"windows of {ctx} are more than the context length {model.n_ctx}; --n-ctx raises it"
            )


def _same_vocabulary(model: Model, base: Model) -> None:
    """Raises RefEngineError naming the first token that differs: a divergence over two vocabularies has no meaning."""
    from ref_engine.errors import RefEngineError

    ours, theirs = model.tokenizer.vocab.tokens, base.tokenizer.vocab.tokens
    if len(ours) != len(theirs) or model.spec.n_vocab != base.spec.n_vocab:
        raise RefEngineError(
            f"the vocabularies differ: {model.file.path.name} has {len(ours)} tokens ({model.spec.n_vocab} logits), "
            f"{base.file.path.name} {len(theirs)} ({base.spec.n_vocab})"
        )
    for id, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if a != b:
            raise RefEngineError(
                f"the vocabularies differ: token {id} is {a[:50]!r} in {model.file.path.name} "
                f"and {b[:50]!r} in {base.file.path.name}"
            )


def _plain(found: Divergence) -> dict[str, Any]:
    """For --json: probabilities and changes as fractions, divergences in nats; NaN becomes null."""

    def pair(of: Estimate) -> dict[str, float]:
        return {"value": of.value, "error": of.error}

    def spread(of: dict[float, float]) -> dict[str, float]:
        return {f"{p:g}": value for p, value in of.items()}

    return {
        "tokens": found.n_tokens,
        "perplexity_base": pair(found.perplexity_base),
        "perplexity": pair(found.perplexity),
        "correlation": found.correlation,
        "ln_ratio": pair(found.ln_ratio),
        "ratio": pair(found.ratio),
        "difference": pair(found.difference),
        "kl": {**pair(found.kl), "percentiles": spread(found.kl_percentiles)},
        "kl_reverse": pair(found.kl_reverse),
        "p_change": {**pair(found.p_change), "percentiles": spread(found.p_change_percentiles)},
        "p_change_rms": pair(found.p_change_rms),
        "same_top": pair(found.same_top),
    }


def _show(about: dict[str, Any], found: Divergence) -> None:
    def line(label: str, of: Estimate, digits: int = 6, unit: str = "") -> None:
        say(f"{label:<24}{of.value:>14.{digits}f} ± {of.error:.{digits}f}{unit}")

    def percent(of: Estimate) -> tuple[Estimate, int, str]:
        return type(of)(100 * of.value, 100 * of.error), 3, " %"

    say(f"model  {about['model']} ({about['model_computed']})")
    say(f"base   {about['base']}")
    windows = "window" if about["windows"] == 1 else "windows"
    say(f"tokens {found.n_tokens} scored, in {about['windows']} {windows} of up to {about['ctx']}")
    say()
    line("perplexity of base", found.perplexity_base)
    line("perplexity of model", found.perplexity)
    line("ratio", found.ratio)
    line("ln ratio", found.ln_ratio)
    line("difference", found.difference)
    say(f"{'correlation':<24}{100 * found.correlation:>14.2f} %")
    say()
    line("mean KL(base || model)", found.kl)
    for p, value in found.kl_percentiles.items():
        say(f"{_percentile(p):<24}{value:>14.6f}")
    if not math.isnan(found.kl_reverse.value):  # a file does not have the base's small probabilities
        line("mean KL(model || base)", found.kl_reverse)
    say()
    line("mean change of p", *percent(found.p_change))
    for p, value in found.p_change_percentiles.items():
        say(f"{_percentile(p):<24}{100 * value:>14.3f} %")
    line("RMS change of p", *percent(found.p_change_rms))
    line("same top token", *percent(found.same_top))


def _percentile(p: float) -> str:
    return {0.0: "  smallest", 50.0: "  median", 100.0: "  largest"}.get(p, f"  {p:g} %")
