"""ref-engine convert"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ref_engine.cli.options import json_option, quiet_option
from ref_engine.cli.output import count, emit_json, say, size, table
from ref_engine.cli.progress import progress

if TYPE_CHECKING:
    from ref_engine.convert import Plan

_TYPES = ("auto", "f32", "f16", "bf16", "q8_0", "tq1_0", "tq2_0")


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUT", type=click.Path(dir_okay=False))
@click.option("--outtype", type=click.Choice(_TYPES), default="auto", help="Type of the matrices; auto: 16 bits.")
@click.option("--pre", metavar="NAME", help="The pre-tokenizer, where it is not recognised.")
@click.option("--name", metavar="NAME", help="The model's name; by default what DIR and its README.md say.")
@click.option("--dry-run", is_flag=True, help="Only tell the tensors.")
@quiet_option
@json_option
def convert(
    folder: Path,
    target: str,
    outtype: str,
    pre: str | None,
    name: str | None,
    dry_run: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Write OUT, a GGUF file of the Hugging Face model in DIR.

    DIR holds config.json, safetensors files and the tokenizer's files. The file has the keys, names and bytes that
    llama.cpp's converter writes.
    """
    try:
        from ref_engine.convert import plan_conversion, write_plan
    except ModuleNotFoundError as error:
        raise click.ClickException(f"{error}; pip install 'ref-engine[convert]'") from error
    plan = plan_conversion(folder, outtype, pre=pre, name=name)
    if not dry_run:
        with progress(quiet=quiet) as bar:
            bar.start(sum(tensor.nbytes for tensor in plan.tensors), plan.out.name)
            write_plan(plan, target, bar.advance)
            bar.done()
    _report(plan, target, dry_run, as_json)


def _report(plan: Plan, target: str, dry_run: bool, as_json: bool) -> None:
    """dry run: every tensor; else how many tensors got which type."""
    total = sum(tensor.nbytes for tensor in plan.tensors)
    if as_json:
        tensors = [
            {"name": t.name, "from": t.tensor.name, "shape": t.shape, "was": t.tensor.dtype, "type": t.type.name,
             "bytes": t.nbytes} for t in plan.tensors
        ]  # fmt: skip
        emit_json(
            {"target": None if dry_run else target, "architecture": plan.architecture, "bytes": total,
             "tensors": tensors, "left_out": plan.left_out, "cannot_run": plan.cannot_run}
        )  # fmt: skip
        return
    if dry_run:
        rows = [
            (t.name, t.tensor.name, " x ".join(map(str, t.shape)), t.tensor.dtype, t.type.name, size(t.nbytes))
            for t in plan.tensors
        ]
        table(("TENSOR", "FROM", "SHAPE", "WAS", "TYPE", "BYTES"), rows, right=(5,))
    else:
        totals = []
        for kind in sorted({t.type for t in plan.tensors}):
            chosen = [t for t in plan.tensors if t.type is kind]
            n = sum(t.n_weights for t in chosen)
            totals.append((kind.name, str(len(chosen)), count(n), size(sum(t.nbytes for t in chosen))))
        table(("TYPE", "TENSORS", "NUMBERS", "BYTES"), totals, right=(1, 2, 3))
    if plan.left_out:
        say(f"left out: {len(plan.left_out)} tensors of no text model, such as {plan.left_out[0]}")
    if plan.cannot_run is not None:
        say(f"note: {plan.cannot_run}")
    say(f"{plan.architecture}: {size(total)}")
