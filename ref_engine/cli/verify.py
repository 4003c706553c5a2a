"""ref-engine verify"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ref_engine.cli.options import json_option, quiet_option
from ref_engine.cli.output import appearing, emit_json, say, table
from ref_engine.cli.progress import progress

if TYPE_CHECKING:
    from ref_engine.reference.linear import Activations
    from ref_engine.verify.case import Case
    from ref_engine.verify.run import Result

_FIGURES = ("nmse", "worst row's nmse", "median row's nmse", "max_ulp", "kl", "top1")


@click.command()
@click.option("--backend", type=click.Choice(["numpy", "native", "cupy"]), help="A backend of ours (the default one).")
@click.option("--activations", type=click.Choice(["f32", "q8"]), help="One mode of its products only.")
@click.option("--threads", "n_threads", type=click.IntRange(min=1), metavar="N", help="Threads of the backend.")
@click.option("--command", metavar="LINE", help="A program: 'engine {model} {tokens} {logits}'.")
@click.option("--server", metavar="URL", help="A running server; needs --model and --model-file.")
@click.option(
    "--dialect", type=click.Choice(["auto", "ollama", "openai"]), default="auto", help="What it speaks (auto)."
)
@click.option("--model", metavar="NAME", help="What the server calls the model.")
@click.option("--model-file", metavar="MODEL", help="The same model for the reference, MODEL@BACKEND:MODE.")
@click.option("--timeout", type=click.FloatRange(min=0.1), default=120.0, metavar="S", help="Seconds for a case (120).")
@click.option("--tolerance", type=click.FloatRange(min=0, min_open=True), metavar="NMSE", help="For logits of models.")
@click.option("--golden", metavar="DIR", help="Golden data, instead of the checkout's.")
@click.option("--only", multiple=True, metavar="GLOB", help="Cases with such an id; may be given several times.")
@click.option("--list", "list_only", is_flag=True, help="Name the cases and run none.")
@click.option("--fail-fast", is_flag=True, help="Stop at the first failure.")
@click.option("--all", "show_all", is_flag=True, help="Show every case, not failures and sums alone.")
@click.option("--junit", metavar="FILE", help="Write the report as JUnit XML.")
@quiet_option
@json_option
def verify(only: tuple[str, ...], list_only: bool, quiet: bool, as_json: bool, **options: Any) -> int:
    """Hold a backend, a program or a server against golden data.

    By default a backend of ours: every operation, weight type and small model against llama.cpp's and transformers'
    numbers. With --command a program that reads a GGUF file and token ids and writes logits; with --server what a
    server answers, against the reference on the same file. docs/verify.md has the placeholders of the command line.

    Exit status 1 where a case fails, 2 where nothing could be judged.
    """
    from ref_engine.verify.run import choose, run_cases

    about, results = {"verified": ""}, []
    with tempfile.TemporaryDirectory(prefix="ref-engine-verify-") as scratch:
        about["verified"], cases = _suite(Path(scratch), **options)
        chosen = choose(cases, only)
        if list_only:
            emit_json([_row(case) for case in chosen]) if as_json else _list(chosen)
            return 0
        with progress("cases", quiet=quiet) as bar:
            bar.start(len(chosen), "verifying")
            for result in run_cases(chosen, options["fail_fast"]):
                results.append(result)
                bar.advance(1)
            bar.done()
    if options["junit"] is not None:
        _write_junit(Path(options["junit"]), results, about)
    if as_json:
        emit_json({**about, **_counts(results), "not_run": len(chosen) - len(results), "cases": _rows(results)})
    else:
        _show(about["verified"], results, len(chosen) - len(results), options["show_all"])
    return int(any(result.status == "failed" for result in results))


def _suite(scratch: Path, **options: Any) -> tuple[str, list[Case]]:
    """Who is verified, in words, and the cases."""
    asked = [name for name in ("backend", "command", "server") if options[name] is not None]
    if len(asked) > 1:
        raise click.UsageError(f"--{asked[0]} and --{asked[1]} are different things to verify: give one")
    if options["server"] is not None:
        return _server_suite(**options)
    if options["model"] is not None or options["model_file"] is not None or options["dialect"] != "auto":
        raise click.UsageError("--model, --model-file and --dialect go with --server")
    from ref_engine.verify.golden import find_golden
    from ref_engine.verify.suite import backend_suite, command_suite

    golden = find_golden(Path(options["golden"]) if options["golden"] is not None else None)
    if options["command"] is not None:
        if options["activations"] is not None or options["n_threads"] is not None:
            raise click.UsageError("--activations and --threads are of a backend; the command line says its own")
        from ref_engine.verify.engines.command import parse_command

        engine = parse_command(options["command"], options["timeout"])
        return engine.name, command_suite(golden, engine, scratch, options["tolerance"])
    from ref_engine.backends import default_backend
    from ref_engine.verify.engines.ours import backend_of

    modes: tuple[Activations, ...] = ("f32", "q8")
    if options["activations"] is not None:
        modes = (options["activations"],)
    backend = backend_of(options["backend"] or default_backend(), modes, options["n_threads"])
    return f"backend {backend.name}", backend_suite(golden, backend, scratch, options["tolerance"])


def _server_suite(**options: Any) -> tuple[str, list[Case]]:
    if options["model"] is None or options["model_file"] is None:
        raise click.UsageError("--server needs --model NAME and --model-file MODEL, the same model for the reference")
    if options["tolerance"] is not None or options["golden"] is not None:
        raise click.UsageError("--tolerance and --golden do not go with --server")
    from ref_engine.lens.target import load_target, parse_target
    from ref_engine.verify.engines.server import find_server
    from ref_engine.verify.packs.server import cases

    server = find_server(options["server"], options["dialect"], options["model"], options["timeout"])
    target = parse_target(options["model_file"]).otherwise(None, options["activations"])
    model = load_target(target, n_threads=options["n_threads"])
    return f"{server.url} ({server.dialect}), model {server.model}", cases(server, model)


def _counts(results: Sequence[Result]) -> dict[str, int]:
    return {status: sum(r.status == status for r in results) for status in ("passed", "failed", "skipped")}


def _row(case: Case) -> dict[str, Any]:
    return {"id": case.id, "operation": case.operation, "type": case.type}


def _rows(results: Sequence[Result]) -> list[dict[str, Any]]:
    return [
        {
            **_row(r.case),
            "status": r.status,
            "message": r.finding.message,
            "limit": r.finding.limit,
            "figures": r.finding.figures,
            "worst": r.finding.worst,
            "got": r.finding.got,
            "expected": r.finding.want,
            "seconds": r.seconds,
        }
        for r in results
    ]


def _write_junit(path: Path, results: Sequence[Result], about: dict[str, str]) -> None:
    from ref_engine.verify.junit import junit_xml
    from ref_engine.version import __version__

    with appearing(path) as temporary:
        temporary.write_bytes(junit_xml(results, {**about, "ref-engine": __version__}))


def _list(cases: Sequence[Case]) -> None:
    table(("ID", "OPERATION", "TYPE"), [(case.id, case.operation, case.type) for case in cases])


def _show(verified: str, results: Sequence[Result], not_run: int, everything: bool) -> None:
    shown = [r for r in results if everything or r.status == "failed"]
    if shown:
        _details(shown)
        say()
    packs: dict[str, list[Result]] = {}
    for result in results:
        packs.setdefault(result.case.id.split("/")[0], []).append(result)
    rows = [(pack, *map(str, _counts(of).values()), f"{sum(r.seconds for r in of):.1f}") for pack, of in packs.items()]
    table(("PACK", "PASSED", "FAILED", "SKIPPED", "SECONDS"), rows, right=(1, 2, 3, 4))
    for reason in sorted({r.finding.message for r in results if r.status == "skipped"}):
        say(f"skipped: {reason}")
    counts = _counts(results)
    say()
    rest = f", {not_run} not run" if not_run else ""
    say(f"{verified}: {counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped{rest}")


def _details(results: Sequence[Result]) -> None:
    rows = []
    for r in results:
        figures = [f"{name.replace('max_ulp', 'ULP')} {r.finding.figures[name]:.3g}" for name in _FIGURES
                   if name in r.finding.figures]  # fmt: skip
        worst = "" if r.finding.worst is None else str(list(r.finding.worst))
        rows.append((r.status, r.case.id, r.case.operation, r.case.type, ", ".join(figures), r.finding.limit, worst))
    table(("STATUS", "ID", "OPERATION", "TYPE", "FIGURES", "ASKED", "WORST AT"), rows)
    for r in results:
        if r.finding.message and r.status == "failed":
            say(f"{r.case.id}: {r.finding.message}")
