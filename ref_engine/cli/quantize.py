"""ref-engine quantize"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from ref_engine.cli.options import find_model, json_option, quiet_option
from ref_engine.cli.output import count, emit_json, say, size, table
from ref_engine.cli.progress import progress

if TYPE_CHECKING:
    from ref_engine.files import GGMLType
    from ref_engine.quantize_file import Change


@click.command()
@click.argument("source", metavar="IN")
@click.argument("target", metavar="OUT", type=click.Path(dir_okay=False))
@click.argument("type_name", metavar="TYPE")
@click.option("--tensor-type", "patterns", multiple=True, metavar="PATTERN=TYPE", help="For tensors found by a regex.")
@click.option("--output-tensor-type", "output", metavar="TYPE", help="Of output.weight.")
@click.option("--token-embedding-type", "embedding", metavar="TYPE", help="Of token_embd.weight.")
@click.option("--leave-output-tensor", "keep_output", is_flag=True, help="Copy output.weight.")
@click.option("--pure", is_flag=True, help="One type for all matrices.")
@click.option("--allow-requantize", is_flag=True, help="Take tensors that are quantised already.")
@click.option("--dry-run", is_flag=True, help="Only tell the sizes.")
@quiet_option
@json_option
def quantize(
    source: str,
    target: str,
    type_name: str,
    patterns: tuple[str, ...],
    output: str | None,
    embedding: str | None,
    keep_output: bool,
    pure: bool,
    allow_requantize: bool,
    dry_run: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Write OUT, the model IN with its matrices in the types of a file type such as Q4_K_M, Q8_0 or IQ4_XS.

    The file types, and which tensor gets which type, are llama-quantize's, and so is every byte. Types that need an
    importance matrix are not offered yet. COPY keeps all types. The first PATTERN found in a tensor's name decides.
    """
    from ref_engine.files import open_gguf
    from ref_engine.mixture import Wishes, file_type_named
    from ref_engine.quantize_file import plan_changes, quantize_file, refuse_quantised

    file_type = None if type_name.upper() == "COPY" else file_type_named(type_name)
    wishes = Wishes(_type(output), _type(embedding), tuple(map(_pattern, patterns)), pure, keep_output)
    path = find_model(source)
    with open_gguf(path) as file:
        changes = plan_changes(file, file_type, wishes)
    if not dry_run:
        if not allow_requantize:
            refuse_quantised(changes)
        with progress(quiet=quiet) as bar:
            bar.start(sum(change.old_bytes for change in changes), type_name)
            quantize_file(path, target, file_type, wishes, allow_requantize=allow_requantize, advance=bar.advance)
            bar.done()
    _report(changes, target, dry_run, as_json)


def _type(name: str | None) -> GGMLType | None:
    """The tensor type of this name, in any case."""
    from ref_engine.files import GGMLType
    from ref_engine.quant.quantize import can_quantize

    if name is None:
        return None
    found = GGMLType.__members__.get(name.upper())
    if found is None or not can_quantize(found):
        known = ", ".join(t.name for t in GGMLType if can_quantize(t))
        raise click.UsageError(f"{name[:50]!r} is not a type to quantise to (known: {known})")
    return found


def _pattern(text: str) -> tuple[re.Pattern[str], GGMLType]:
    pattern, _, name = text.rpartition("=")
    found = _type(name) if pattern else None
    if found is None:
        raise click.UsageError(f"--tensor-type {text[:80]!r}: expected PATTERN=TYPE, such as attn_v=Q6_K")
    try:
        return re.compile(pattern.lower()), found
    except re.error as error:
        raise click.UsageError(f"--tensor-type {text[:80]!r}: {error}") from error


def _report(changes: list[Change], target: str, dry_run: bool, as_json: bool) -> None:
    """dry run: every tensor; else how many tensors got which type."""
    old, new = sum(c.old_bytes for c in changes), sum(c.new_bytes for c in changes)
    weights = sum(_n_weights(c) for c in changes)
    if as_json:
        tensors = [
            {"name": c.name, "shape": c.shape, "from": c.old_type.name, "to": c.new_type.name,
             "old_bytes": c.old_bytes, "new_bytes": c.new_bytes} for c in changes
        ]  # fmt: skip
        emit_json({"target": None if dry_run else target, "old_bytes": old, "new_bytes": new, "tensors": tensors})
        return
    if dry_run:
        rows = [
            (
                c.name,
                " x ".join(map(str, c.shape)),
                c.old_type.name,
                c.new_type.name,
                size(c.old_bytes),
                size(c.new_bytes),
            )
            for c in changes
        ]
        table(("TENSOR", "SHAPE", "FROM", "TO", "BYTES", "NEW BYTES"), rows, right=(4, 5))
    else:
        kinds = sorted({c.new_type for c in changes})
        totals = []
        for kind in kinds:
            chosen = [c for c in changes if c.new_type is kind]
            n = sum(_n_weights(c) for c in chosen)
            totals.append((kind.name, str(len(chosen)), count(n), size(sum(c.new_bytes for c in chosen))))
        table(("TYPE", "TENSORS", "NUMBERS", "BYTES"), totals, right=(1, 2, 3))
    say(f"{size(old)} -> {size(new)}, {8 * new / weights:.2f} bits per weight" if weights else "no weights")


def _n_weights(change: Change) -> int:
    n = 1
    for length in change.shape:
        n *= length
    return n
