"""ref-engine compare"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ref_engine.cli.options import Size, find_model, json_option, load_model, parse_ids, quiet_option
from ref_engine.cli.output import appearing, clean, emit_json, one_line, read_text, say, table
from ref_engine.cli.progress import Progress, progress
from ref_engine.cli.prompt import checked, given, prompt_options

if TYPE_CHECKING:
    from ref_engine.lens.compare import Comparison
    from ref_engine.lens.dump import Dump
    from ref_engine.lens.selection import Selection
    from ref_engine.lens.sides import ModelSide
    from ref_engine.model import Model


class Tolerance(click.ParamType):  # type: ignore[type-arg]  # generic only in some versions of click
    """A number that is not negative."""

    name = "nmse"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            number = float(str(value))
        except ValueError:
            number = math.nan
        if not 0 <= number < math.inf:
            self.fail(f"{value!r} is no tolerance; expected a number such as 1e-6", param, ctx)
        return number


@click.command()
@click.argument("a")
@click.argument("b")
@prompt_options
@click.option("--names", multiple=True, metavar="GLOB", help="Only names such as 'l_out-*'; again for more.")
@click.option("--layers", metavar="LIST", help="Of names with a layer only these, such as 0-3,7.")
@click.option("--positions", metavar="LIST", help="Run models for only these tokens' rows, such as 0,5-9,-1.")
@click.option("--map", "map_file", metavar="FILE", help="JSON of names in a dump: names of llama.cpp.")
@click.option("--tolerance", type=Tolerance(), metavar="NMSE", help="Of the worst token, in place of what is usual.")
@click.option("--html", "html_file", metavar="FILE", help="Write a report with a plot of error over depth.")
@click.option("--all", "show_all", is_flag=True, help="Show every tensor.")
@click.option("--threads", "n_threads", type=int, metavar="N", help="Threads of models that are run.")
@click.option("--n-ctx", type=int, metavar="N", help="Context length of models that are run.")
@click.option("--limit", type=Size(), default=2 << 30, metavar="SIZE", help="Most that a model's values may take (2G).")
@quiet_option
@json_option
def compare(
    a: str,
    b: str,
    prompt: str | None,
    tokens: str | None,
    file: str | None,
    names: tuple[str, ...],
    layers: str | None,
    positions: str | None,
    map_file: str | None,
    tolerance: float | None,
    html_file: str | None,
    show_all: bool,
    n_threads: int | None,
    n_ctx: int | None,
    limit: int,
    quiet: bool,
    as_json: bool,
) -> int:
    """Hold B against A and name the first tensor that leaves tolerance.

    Each is a trace, a dump of another program (.npz, .npy, safetensors, a folder of .npy, the log of
    llama-eval-callback, the output of llama-debug --save-logits), or a model to run: MODEL@native:q8, MODEL@numpy:f32.
    A model runs --prompt, or the tokens of the other side. Exit status 1 if they part, 0 if not.
    """
    from ref_engine.lens.compare import compare as hold
    from ref_engine.lens.foreign import open_dump, read_map
    from ref_engine.lens.report import as_json as data
    from ref_engine.lens.selection import Selection, select
    from ref_engine.lens.sides import common_tokens, read_side

    renamed = None if map_file is None else read_map(Path(map_file))
    sides = [read_side(text) for text in (a, b)]
    dumps = {i: open_dump(side, renamed) for i, side in enumerate(sides) if isinstance(side, Path)}
    models = {
        i: load_model(
            find_model(s.name), backend=s.backend, activations=s.activations, n_threads=n_threads, n_ctx=n_ctx
        )
        for i, s in enumerate(sides)
        if not isinstance(s, Path)
    }
    ids = _given_ids(models, prompt, tokens, file)
    wanted = Selection(tuple(names) or ("*",))
    with tempfile.TemporaryDirectory(prefix="ref-engine-compare-") as folder, progress("tokens", quiet=quiet) as bar:
        if models:
            ids = common_tokens(ids, list(dumps.values()))
            n_layers = min(len(m.spec.layers) for m in models.values())
            wanted = select(names, layers, positions, n_layers, len(ids))
            for i, model in models.items():
                side = sides[i]
                if not isinstance(side, Path):
                    dumps[i] = _run(model, side, ids, wanted, dumps.get(1 - i), Path(folder) / str(i), limit, bar)
        elif layers is not None or names:
            most = max((d.facts.n_layers or 0 for d in dumps.values()), default=0) or 1_000_000
            wanted = replace(select(names, layers, None, most, 1), positions=None)
        if ids is not None and not models:
            dumps = {i: replace(d, facts=replace(d.facts, tokens=tuple(ids))) for i, d in dumps.items()}
        found = hold(dumps[0], dumps[1], tolerance, replace(wanted, positions=None))
    if html_file is not None:
        _write_html(Path(html_file), found)
    if as_json:
        emit_json(data(found))
    else:
        _show(found, show_all)
    return 0 if found.clean else 1


def _given_ids(models: dict[int, Model], prompt: str | None, tokens: str | None, file: str | None) -> list[int] | None:
    """The ids of the prompt, if there is one; the first model reads text."""
    if not given(prompt, tokens, file):
        return None
    if tokens is not None:
        return parse_ids(tokens)
    if not models:
        raise click.UsageError("a text needs a model to read it; give --tokens IDS")
    first = next(iter(models.values()))
    return first.tokenize(clean(prompt or "") if file is None else read_text(file))


def _run(
    model: Model,
    side: ModelSide,
    ids: Sequence[int],
    wanted: Selection,
    other: Dump | None,
    folder: Path,
    limit: int,
    bar: Progress,
) -> Dump:
    """A model on the ids; only the names that the other side has, if that is known."""
    from ref_engine.lens.sides import only_names, run_side

    checked(model, list(ids))
    bar.start(len(ids), side.text)
    wanted = wanted if other is None else only_names(other, wanted)
    found = run_side(model, side, ids, wanted, folder, limit, bar.advance)
    bar.done()
    return found


def _write_html(target: Path, found: Comparison) -> None:
    from ref_engine.lens.report_html import html

    with appearing(target) as temporary:
        temporary.write_text(html(found), encoding="utf-8")


def _show(found: Comparison, show_all: bool) -> None:
    from ref_engine.lens.report import lines, table_rows

    for line in lines(found):
        say(f"{' ' * (len(line) - len(line.lstrip()))}{one_line(line)}")
    if show_all:
        head = ("NAME", "SHAPE", "STATUS", "ERROR", "MAX ABS", "ULP", "WORST AT", "NOTE")
        table(head, table_rows(found), right=(3, 4, 5))
