"""ref-engine trace"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ref_engine.cli.options import Size, engine_options, find_model, json_option, load_model, quiet_option
from ref_engine.cli.output import appearing, emit_json, say, size, table
from ref_engine.cli.progress import progress
from ref_engine.cli.prompt import prompt_ids, prompt_options

if TYPE_CHECKING:
    from ref_engine.lens.dump import Facts
    from ref_engine.lens.npz import Raw
    from ref_engine.lens.sizes import Planned

SUFFIXES = (".npz", ".safetensors")


@click.command()
@click.argument("model")
@prompt_options
@click.option("-o", "--output", metavar="FILE", help="Where to: a name that ends in .npz or .safetensors.")
@click.option("--names", multiple=True, metavar="GLOB", help="Names such as 'l_out-*'; again for more (all).")
@click.option("--layers", metavar="LIST", help="Of names with a layer only these, such as 0-3,7 (all).")
@click.option("--positions", metavar="LIST", help="Only these tokens' rows, such as 0,5-9,-1 (all).")
@click.option("--chunk", type=click.IntRange(1, 512), default=128, metavar="N", help="Tokens in one pass (128).")
@click.option("--limit", type=Size(), default=2 << 30, metavar="SIZE", help="Refuse a larger trace (2G).")
@click.option("--fused", is_flag=True, help="Leave fused kernels whole; what is inside them then has no name.")
@click.option("-n", "--dry-run", is_flag=True, help="Only show what would be written.")
@engine_options
@quiet_option
@json_option
def trace(
    model: str,
    prompt: str | None,
    tokens: str | None,
    file: str | None,
    output: str | None,
    names: tuple[str, ...],
    layers: str | None,
    positions: str | None,
    chunk: int,
    limit: int,
    fused: bool,
    dry_run: bool,
    quiet: bool,
    as_json: bool,
    **engine: Any,
) -> None:
    """Write named intermediates of a prompt's computation to a file.

    Names are llama.cpp's, with the layer behind them (l_out-3, ffn_moe_topk-0). Arrays are float32, a row for each
    token, slowest axis first. What will be written is shown first; values go to disk as they come.
    """
    if output is None and not dry_run:
        raise click.UsageError("give -o FILE, or --dry-run to see what would be written")
    if output is not None and Path(output).suffix not in SUFFIXES:
        raise click.UsageError(f"{output}: the name must end in .npz or .safetensors")
    loaded = load_model(find_model(model), **engine)
    ids = prompt_ids(loaded, prompt, tokens, file)

    from ref_engine.errors import RefEngineError
    from ref_engine.lens.record import facts_of, record
    from ref_engine.lens.selection import select
    from ref_engine.lens.sizes import planned

    wanted = select(names, layers, positions, len(loaded.spec.layers), len(ids))
    plan = planned(loaded, ids, wanted, chunk, not fused)
    if not plan:
        raise RefEngineError("no value has such a name in such a layer; --dry-run without --names lists all")
    total = sum(p.nbytes for p in plan)
    facts = facts_of(loaded, ids, wanted, not fused)
    if not as_json and (dry_run or not quiet):
        _show(plan, total, to_stderr=not dry_run)
    if total > limit:
        raise RefEngineError(f"the trace would be {size(total)}, over --limit {size(limit)}; choose names or positions")
    if not dry_run and output is not None:
        target = Path(output)
        with (
            tempfile.TemporaryDirectory(prefix=".ref-engine-trace-", dir=target.absolute().parent) as folder,
            progress("tokens", quiet=quiet, lines=False) as bar,
        ):
            bar.start(len(ids), "running the prompt")
            files = record(
                loaded, ids, wanted, Path(folder), plan=plan, chunk=chunk, fine=not fused, advance=bar.advance
            )
            bar.done()
            _write(target, files, facts)
    if as_json:
        emit_json(_report(None if dry_run else output, plan, total, facts))
    elif not dry_run:
        say(f"{output}: {len(plan)} tensors, {size(total)}, {len(ids)} tokens, {facts.backend} {facts.activations}")


def _write(target: Path, files: list[Raw], facts: Facts) -> None:
    """The file appears whole."""
    from ref_engine.lens.dump import header
    from ref_engine.lens.npz import write_npz
    from ref_engine.lens.safetensors import write_safetensors

    text = json.dumps(header(facts, [f.name for f in files]))
    with appearing(target) as temporary:
        (write_npz if target.suffix == ".npz" else write_safetensors)(temporary, text, files)


def _show(plan: list[Planned], total: int, to_stderr: bool) -> None:
    """The whole table, or where the trace itself is wanted its last line."""
    if to_stderr:
        click.echo(f"{len(plan)} tensors, {size(total)} to write", err=True)
        return
    rows = [(p.name, "x".join(map(str, p.shape)), p.dtype, size(p.nbytes)) for p in plan]
    table(("NAME", "SHAPE", "TYPE", "SIZE"), [*rows, (f"{len(plan)} tensors", "", "", size(total))], right=(3,))


def _report(output: str | None, plan: list[Planned], total: int, facts: Facts) -> dict[str, Any]:
    return {
        "file": output,
        "bytes": total,
        "tokens": facts.tokens,
        "positions": facts.positions,
        "backend": facts.backend,
        "activations": facts.activations,
        "path": facts.path,
        "tensors": [{"name": p.name, "shape": p.shape, "dtype": p.dtype, "bytes": p.nbytes} for p in plan],
    }
