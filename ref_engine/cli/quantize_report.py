"""ref-engine quantize-report"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from ref_engine.cli import quantize_options as read
from ref_engine.cli.options import engine_options, find_model, json_option, load_model, quiet_option
from ref_engine.cli.output import emit_json, read_text, say, size, table
from ref_engine.cli.progress import progress

if TYPE_CHECKING:
    from ref_engine.divergence import Window
    from ref_engine.quantize_report import Outcome

_DEFAULT = ("auto", "same")
_LARGEST_WINDOW = 512


@click.command("quantize-report")
@click.argument("source", metavar="IN")
@click.argument("type_name", metavar="TYPE")
@click.argument("text", metavar="TEXT")
@click.option("--expert-type", "experts", multiple=True, metavar="auto|same|TYPE", help="To compare; auto and same.")
@click.option("--imatrix", metavar="FILE", help="Importance matrix, for all of them.")
@click.option("--ctx", type=click.IntRange(min=2), metavar="N", help="Tokens in a window (at most 512).")
@click.option("--windows", "n_windows", type=click.IntRange(min=1), metavar="N", help="At most N of them.")
@click.option("--tensors", is_flag=True, help="Each tensor's error, too.")
@click.option("--allow-requantize", is_flag=True, help="Take tensors that are quantised already.")
@engine_options
@quiet_option
@json_option
def quantize_report(
    source: str,
    type_name: str,
    text: str,
    experts: tuple[str, ...],
    imatrix: str | None,
    ctx: int | None,
    n_windows: int | None,
    tensors: bool,
    allow_requantize: bool,
    quiet: bool,
    as_json: bool,
    **engine: Any,
) -> None:
    """Compare ways to quantise the experts of IN to the file type TYPE, on the file TEXT ("-": standard input).

    For each --expert-type (see `quantize`): the size, the error of the weights (root mean square, divided by that of
    the weights themselves) of all tensors and of the stacked experts, and against the original: perplexity, mean
    Kullback-Leibler divergence in nats, how often the most probable token is the same. Nothing is kept.
    --activations f32 is the default here, so that only the weights differ.
    """
    from ref_engine.mixture import Wishes, file_type_named
    from ref_engine.quantize_plan import Extras
    from ref_engine.quantize_report import compare_candidates

    file_type = file_type_named(type_name)
    candidates = [(name, Wishes(experts=read.expert_type(name))) for name in experts or _DEFAULT]
    extras = Extras(read.importance(imatrix, (), ()), imatrix or "")
    path = find_model(source)
    options = {**engine, "activations": engine["activations"] or "f32"}
    parts = _windows(path, text, ctx, n_windows, options)
    outcomes = []
    with TemporaryDirectory(prefix="ref-engine-") as folder, progress("tokens", quiet=quiet) as bar:
        bar.start(len(candidates) * sum(w.n_scored for w in parts), "quantize-report")
        for outcome in compare_candidates(
            path, file_type, candidates, extras, parts, Path(folder), lambda p: load_model(p, **options),
            allow_requantize=allow_requantize, advance=lambda _, n: bar.advance(n),
        ):  # fmt: skip
            outcomes.append(outcome)
        bar.done()
    if as_json:
        emit_json({"type": file_type.name, "policies": [_as_json(o, tensors) for o in outcomes]})
    else:
        _print(outcomes, tensors)


def _windows(path: Path, text: str, ctx: int | None, most: int | None, options: dict[str, Any]) -> list[Window]:
    from ref_engine.divergence import text_windows

    content = read_text(text)
    model = load_model(path, **options)
    window = ctx or min(model.n_ctx, _LARGEST_WINDOW)
    if window > model.n_ctx:
        raise click.UsageError(f"--ctx {window} is more than the context length {model.n_ctx}; --n-ctx raises that")
    prefix = [id for id in model.tokenizer.added_before if id is not None]
    return text_windows(model.tokenize(content), window, prefix)[:most]


def _print(outcomes: list[Outcome], tensors: bool) -> None:
    rows = []
    for o in outcomes:
        d = o.divergence
        errors = [f"{error:.4f}" if error == error else "-" for error in (_error(o, ""), _error(o, "_exps."))]
        perplexity, kl = (f"{e.value:.4f} ± {e.error:.4f}" for e in (d.perplexity, d.kl))
        rows.append((o.label, size(o.nbytes), f"{o.bits_per_weight:.2f}", *errors, perplexity, kl, _percent(o)))
    header = ("EXPERTS", "BYTES", "BITS", "ERROR", "OF EXPERTS", "PERPLEXITY", "KL", "SAME TOP")
    table(header, rows, right=(1, 2, 3, 4, 5, 6, 7))
    base = outcomes[0].divergence
    say(f"original: perplexity {base.perplexity_base.value:.4f} on {base.n_tokens} tokens")
    for o in outcomes if tensors else ():
        say()
        say(f"{o.label}:")
        each = [(e.name, e.type.name, size(e.nbytes), f"{e.rmse:.3g}", f"{e.relative:.4f}") for e in o.errors]
        table(("TENSOR", "TYPE", "BYTES", "RMSE", "RELATIVE"), each, right=(2, 3, 4))


def _percent(o: Outcome) -> str:
    return f"{100 * o.divergence.same_top.value:.1f} %"


def _error(o: Outcome, part: str) -> float:
    """Of the tensors whose names contain `part`."""
    from ref_engine.quantize_report import relative_error

    return relative_error([error for error in o.errors if part in error.name])


def _as_json(o: Outcome, tensors: bool) -> dict[str, object]:
    d = o.divergence
    told: dict[str, object] = {
        "experts": o.label,
        "bytes": o.nbytes,
        "bits_per_weight": o.bits_per_weight,
        "error": _error(o, ""),
        "error_of_experts": _error(o, "_exps."),
        "tokens": d.n_tokens,
        "perplexity_original": d.perplexity_base.value,
        "perplexity": d.perplexity.value,
        "perplexity_error": d.perplexity.error,
        "kl": d.kl.value,
        "kl_error": d.kl.error,
        "same_top": d.same_top.value,
    }
    if tensors:
        told["tensors"] = [
            {"name": e.name, "type": e.type.name, "bytes": e.nbytes, "rmse": e.rmse, "relative": e.relative}
            for e in o.errors
        ]
    return told
