"""ref-engine quantize"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ref_engine.cli import quantize_options as read
from ref_engine.cli.options import find_model, json_option, quiet_option
from ref_engine.cli.output import count, emit_json, one_line, say, size, table
from ref_engine.cli.progress import progress

if TYPE_CHECKING:
    from ref_engine.imatrix import ImportanceMatrix
    from ref_engine.kernels.quantisers import Backend
    from ref_engine.quantize_plan import Change


@click.command()
@click.argument("source", metavar="IN")
@click.argument("rest", metavar="[OUT] TYPE", nargs=-1, required=True)
@click.option("--imatrix", metavar="FILE", help="Importance matrix, .gguf or .dat: what errors cost where.")
@click.option("--include-weights", "include", multiple=True, metavar="PART", help="Use it only for names with PART.")
@click.option("--exclude-weights", "exclude", multiple=True, metavar="PART", help="Use it not for names with PART.")
@click.option("--expert-type", default="auto", metavar="auto|same|TYPE", help="Of a mixture's experts, see above.")
@click.option(
    "--tensor-type",
    multiple=True,
    metavar="PATTERN=TYPE",
    help="For tensors found by a regex.",
    callback=read.add_patterns,
    expose_value=False,
)
@click.option(
    "--tensor-type-file", metavar="FILE", help="More of them, separated by white space.",
    callback=read.add_patterns, expose_value=False,
)  # fmt: skip
@click.option("--output-tensor-type", "output", metavar="TYPE", help="Of output.weight.")
@click.option("--token-embedding-type", "embedding", metavar="TYPE", help="Of token_embd.weight.")
@click.option("--leave-output-tensor", "keep_output", is_flag=True, help="Copy output.weight.")
@click.option("--pure", is_flag=True, help="One type for all matrices.")
@click.option("--prune-layers", metavar="N,N,...", help="Leave these layers out and number the others anew.")
@click.option("--override-kv", multiple=True, metavar="KEY=TYPE:VALUE", help="Metadata; TYPE int, float, bool or str.")
@click.option("--keep-split", is_flag=True, help="Write as many files as IN has.")
@click.option("--allow-requantize", is_flag=True, help="Take tensors that are quantised already.")
@click.option("--backend", type=click.Choice(["native", "numpy"]), help="Who computes; the bytes are the same.")
@click.option(
    "--threads",
    "n_threads",
    type=click.IntRange(1),
    metavar="N",
    help="Threads of the native backend; by default one for each core.",
)
@click.option("--dry-run", is_flag=True, help="Only tell the sizes.")
@quiet_option
@json_option
@click.pass_context
def quantize(
    ctx: click.Context,
    source: str,
    rest: tuple[str, ...],
    imatrix: str | None,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    expert_type: str,
    output: str | None,
    embedding: str | None,
    keep_output: bool,
    pure: bool,
    prune_layers: str | None,
    override_kv: tuple[str, ...],
    keep_split: bool,
    allow_requantize: bool,
    backend: Backend | None,
    n_threads: int | None,
    dry_run: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Write OUT, the model IN with its matrices in the types of a file type such as Q4_K_M, Q8_0 or IQ4_XS.

    The file types, and which tensor gets which type, are llama-quantize's, and so is every byte. COPY keeps all
    types. Without OUT the file is ggml-model-TYPE.gguf beside IN. The first PATTERN found in a tensor's name decides.

    Of mixtures with 8 or more experts, the stacked expert matrices get Q5_K, shared experts Q8_0 and the router F32
    (--expert-type auto); with "same" they get what llama-quantize gives them. A TYPE is for the stacked experts of any
    mixture. A PATTERN or --pure comes before auto, and so do F32, F16, BF16 and MXFP4_MOE. `quantize-report` compares.
    """
    from ref_engine.files import open_gguf
    from ref_engine.mixture import Wishes, file_type_named
    from ref_engine.quantize_file import quantize_file
    from ref_engine.quantize_plan import Extras, make_plan

    if len(rest) > 2:
        raise click.UsageError(f"got unexpected argument {rest[2][:50]!r}")
    file_type = None if rest[-1].upper() == "COPY" else file_type_named(rest[-1])
    wishes = Wishes(
        read.tensor_type(output),
        read.tensor_type(embedding),
        read.patterns(ctx),
        pure,
        keep_output,
        read.expert_type(expert_type),
    )
    matrix = read.importance(imatrix, include, exclude)
    extras = Extras(
        matrix, imatrix or "", tuple(map(read.override, override_kv)), read.layers(prune_layers), keep_split
    )
    path = find_model(source)
    target = rest[0] if len(rest) == 2 else _default_target(path, "COPY" if file_type is None else file_type.name)
    with open_gguf(path) as file:
        plan = make_plan(file, file_type, wishes, extras)
    if dry_run:
        _report(plan.changes, None, as_json, matrix, plan.needs_importance)
        return
    if Path(target).is_dir():
        raise click.UsageError(f"OUT {target} is a directory")
    plan.check(allow_requantize)
    pack = read.quantiser_of(backend, n_threads)
    with progress(quiet=quiet) as bar:
        bar.start(sum(change.old_bytes for change in plan.changes), rest[-1])
        changes = quantize_file(
            path, target, file_type, wishes, extras, allow_requantize=allow_requantize, advance=bar.advance, pack=pack
        )
        bar.done()
    _report(changes, target, as_json, matrix, [])


def _default_target(source: Path, name: str) -> str:
    return str(source.with_name(f"ggml-model-{name}.gguf"))


def _report(
    changes: list[Change], target: str | None, as_json: bool, matrix: ImportanceMatrix | None, waiting: list[str]
) -> None:
    """dry run (target None): every tensor; else how many tensors got which type."""
    old, new = sum(c.old_bytes for c in changes), sum(c.new_bytes for c in changes)
    weights = sum(c.n_weights for c in changes)
    if as_json:
        tensors = [
            {"name": c.new_name, "shape": c.shape, "from": c.old_type.name, "to": c.new_type.name,
             "instead_of": None if c.instead_of is None else c.instead_of.name,
             "old_bytes": c.old_bytes, "new_bytes": c.new_bytes} for c in changes
        ]  # fmt: skip
        emit_json({"target": target, "old_bytes": old, "new_bytes": new, "needs_imatrix": waiting, "tensors": tensors})
        return
    if target is None:
        table(("TENSOR", "SHAPE", "FROM", "TO", "BYTES", "NEW BYTES"), [_row(c) for c in changes], right=(4, 5))
    else:
        _by_type(changes)
    say(f"{size(old)} -> {size(new)}, {8 * new / weights:.2f} bits per weight" if weights else "no weights")
    for line in _notes(changes, matrix, waiting):
        say(one_line(line))


def _row(c: Change) -> tuple[str, ...]:
    shape = " x ".join(map(str, c.shape))
    return (c.new_name, shape, c.old_type.name, c.new_type.name, size(c.old_bytes), size(c.new_bytes))


def _by_type(changes: list[Change]) -> None:
    rows = []
    for kind in sorted({c.new_type for c in changes}):
        chosen = [c for c in changes if c.new_type is kind]
        n, nbytes = sum(c.n_weights for c in chosen), sum(c.new_bytes for c in chosen)
        rows.append((kind.name, str(len(chosen)), count(n), size(nbytes)))
    table(("TYPE", "TENSORS", "NUMBERS", "BYTES"), rows, right=(1, 2, 3))


def _notes(changes: list[Change], matrix: ImportanceMatrix | None, waiting: list[str]) -> list[str]:
    """What somebody may not expect."""
    notes = []
    stood_in = Counter((c.instead_of, c.new_type, c.shape[-1]) for c in changes if c.instead_of is not None)
    for (wanted, got, columns), n in stood_in.items():
        assert wanted is not None
        notes.append(f"note: {got.name} instead of {wanted.name} for {n} tensors with rows of {columns}")
    if matrix is not None:
        without = [c.name for c in changes if c.new_type is not c.old_type and not c.weighted]
        if without:
            more = f" and {len(without) - 1} more" if len(without) > 1 else ""
            notes.append(f"note: the importance matrix has nothing for {without[0]}{more}")
    if waiting:
        notes.append(f"note: this needs an importance matrix, for {len(waiting)} tensors such as {waiting[0]}")
    return notes
