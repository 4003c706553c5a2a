"""ref-engine bench"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ref_engine.cli.options import cache_option, find_model, gpu_options, json_option, quiet_option
from ref_engine.cli.output import emit_json, say, size, table
from ref_engine.cli.progress import progress
from ref_engine.errors import RefEngineError

if TYPE_CHECKING:
    from ref_engine.bench.turns import Side, Times
    from ref_engine.bench.works import Work
    from ref_engine.place import Where
    from ref_engine.quant.rows import CacheType


@click.command()
@click.argument("model")
@click.argument("works", nargs=-1, metavar="[WORK]...")
@click.option("--against", type=click.Choice(["llama-cpp", "ik-llama", "numpy"]), help="Who else does the same work.")
@click.option("--peer-python", metavar="PATH", help="The Python that has the other engine; this one by default.")
@click.option("--threads", type=click.IntRange(min=1), default=1, metavar="N", help="Threads of both (1).")
@click.option("--runs", type=click.IntRange(1, 99), default=5, metavar="N", help="Runs of each, in turn (5).")
@click.option("--backend", type=click.Choice(["native", "numpy", "cupy"]), help="Of this engine.")
@cache_option
@gpu_options
@click.option("--profile", "profiled", is_flag=True, help="Each operation of one pass, beside the machine's ceilings.")
@quiet_option
@json_option
def bench(
    model: str,
    works: tuple[str, ...],
    against: str | None,
    peer_python: str | None,
    threads: int,
    runs: int,
    backend: str | None,
    cache_type: CacheType | None,
    gpu_layers: int | None,
    experts_on: Where | None,
    profiled: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Measure speed: tokens a second, time to the first token, memory.

    WORK: prefill=512, decode=128, decode=64@2048 (after 2,048 tokens), batch=32x8 (8 sequences at once), first=64 (load
    the file, and the first token after 64); all of these by default. With --against another engine does the same work
    in processes of its own, in turn with ours, and the ratios of medians are printed with the spread of the runs.
    llama-cpp takes the package llama-cpp-python, ik-llama takes ik-llama-cpp-python.
    """
    from ref_engine.backends import default_backend
    from ref_engine.bench.turns import Side, in_turn
    from ref_engine.bench.works import works_named
    from ref_engine.place import check_split

    path, chosen = Path(find_model(model)).resolve(), works_named(works)
    check_split(backend or default_backend(), gpu_layers, experts_on)
    if profiled:
        if against is not None:
            raise click.UsageError("--profile looks at this engine alone")
        _profile(path, chosen, threads, as_json, backend=backend, cache_type=cache_type, gpu_layers=gpu_layers,
                 experts_on=experts_on)  # fmt: skip
        return
    ours = Side("ref-engine", sys.executable, threads, backend, cache_type=cache_type or "f16")
    sides = [replace(ours, gpu_layers=gpu_layers, experts_on=experts_on)]
    if against == "numpy":
        sides.append(replace(ours, name="numpy", backend="numpy"))
    elif against is not None:
        sides.append(replace(ours, name=against, python=peer_python or sys.executable, backend=None))
    n_groups = sum(work.kind == "first" for work in chosen) + any(work.kind != "first" for work in chosen)
    with progress("tokens", quiet=quiet) as bar:
        bar.start(n_groups * runs * len(sides), "bench")

        def advance(what: str) -> None:
            bar.advance(1)

        found = in_turn(sides, path, chosen, runs, advance)
        bar.done()
    _report(chosen, sides, found, threads, as_json)


def _report(works: tuple[Work, ...], sides: list[Side], found: dict[str, Times], threads: int, as_json: bool) -> None:
    from ref_engine.bench.turns import ratio

    ours, *others = (found[side.name] for side in sides)
    if as_json:
        emit_json(_as_json(works, sides, found, threads))
        return
    header = ["WORK", *(side.name for side in sides), *(["RATIO"] if others else [])]
    rows = []
    for work in works:
        cells = [_cell(times, work) for times in (ours, *others)]
        rows.append([work.name, *cells, *(f"{ratio(ours, other, work):.2f}" for other in others)])
    rows.append(["load", *(f"{min(times.load):.2f} s" for times in (ours, *others)), *([""] if others else [])])
    rows.append(["peak memory", *(size(times.peak) for times in (ours, *others)), *([""] if others else [])])
    table(header, rows, right=range(1, len(header)))
    runs = len(next(iter(ours.seconds.values())))
    say(f"tokens/s, median of {runs} (slowest-fastest), threads: {threads}; a ratio above 1: we are faster")
    if any(times.without_amx for times in others):
        say("the other engine crashes with AMX here and ran without")


def _cell(times: Times, work: Work) -> str:
    low, high = times.spread(work)
    if work.kind == "first":
        return f"{times.rate(work):.2f} s ({high:.2f}-{low:.2f})"
    return f"{times.rate(work):.1f} ({low:.1f}-{high:.1f})"


def _as_json(works: tuple[Work, ...], sides: list[Side], found: dict[str, Times], threads: int) -> dict[str, Any]:
    from ref_engine.bench.turns import ratio

    ours, *others = (found[side.name] for side in sides)
    return {
        "threads": threads,
        "engines": {
            name: {"seconds": times.seconds, "load_seconds": times.load, "peak_bytes": times.peak,
                   "without_amx": times.without_amx} for name, times in found.items()
        },
        "works": [
            work.as_dict() | {"ratios": {side.name: ratio(ours, other, work)
                                         for side, other in zip(sides[1:], others, strict=True)}}
            for work in works
        ],
    }  # fmt: skip


def _profile(path: Path, works: tuple[Work, ...], threads: int, as_json: bool, **options: Any) -> None:
    import ref_engine
    from ref_engine.bench.profile import ceilings, profile
    from ref_engine.compat import has_kernels, why_no_kernels

    if not has_kernels:
        raise RefEngineError(f"the ceilings are measured with the kernels, which are missing: {why_no_kernels}")
    most = ceilings()
    model = ref_engine.load(path, n_threads=threads, **options)
    passes = {(1, work.prompt) if work.kind == "decode" else (work.prompt, 0) for work in works if work.kind != "batch"}
    found = [profile(model, tokens, past) for tokens, past in sorted(passes, reverse=True)]
    if as_json:
        emit_json({"ceilings": vars(most), "threads": threads, "passes": [
            {"tokens": p.tokens, "past": p.past, "seconds": p.seconds, "operations": [vars(o) for o in p.operations]}
            for p in found]})  # fmt: skip
        return
    for p in found:
        n = "1 token" if p.tokens == 1 else f"{p.tokens} tokens"
        say(f"{n} after {p.past}: {p.seconds * 1e3:.2f} ms")
        rows = [_row(o, p.seconds, most.bytes_per_second, most.macs_per_second) for o in p.operations]
        rest = p.seconds - sum(o.seconds for o in p.operations)
        rows.append(["(between them)", "", f"{rest * 1e3:.2f}", f"{100 * rest / p.seconds:.1f}", "", "", "", ""])
        table(("OPERATION", "CALLS", "MS", "%", "GB/s", "% OF READ", "GMAC/s", "% OF DOTS"), rows, right=range(1, 8))
    say(f"one thread reads {most.bytes_per_second / 1e9:.1f} GB/s and does {most.macs_per_second / 1e9:.0f} G integer "
        "multiply-adds a second on registers")  # fmt: skip


def _row(o: Any, total: float, read: float, dots: float) -> list[str]:
    cells = [o.name, str(o.calls), f"{o.seconds * 1e3:.2f}", f"{100 * o.seconds / total:.1f}"]
    cells += [f"{o.nbytes / o.seconds / 1e9:.1f}", f"{100 * o.nbytes / o.seconds / read:.0f}"] if o.nbytes else ["", ""]
    cells += [f"{o.macs / o.seconds / 1e9:.0f}", f"{100 * o.macs / o.seconds / dots:.0f}"] if o.macs else ["", ""]
    return cells
