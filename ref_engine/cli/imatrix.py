"""ref-engine imatrix"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ref_engine.cli.options import engine_options, find_model, json_option, load_model, quiet_option
from ref_engine.cli.output import emit_json, read_text, say
from ref_engine.cli.progress import progress

if TYPE_CHECKING:
    from ref_engine.imatrix import ImportanceMatrix

_SMALLEST = 16  # tokens: llama-imatrix does not look at products with fewer


@click.command()
@click.argument("model", required=False)
@click.argument("text", required=False)
@click.option("-o", "--output", "target", default="imatrix.gguf", show_default=True, metavar="FILE", help="To write.")
@click.option(
    "--format", "--output-format", "format", type=click.Choice(["gguf", "dat"]), help="By FILE's name, or gguf."
)
@click.option("--ctx", type=click.IntRange(min=_SMALLEST), default=512, show_default=True, help="Tokens in a chunk.")
@click.option("--chunks", type=click.IntRange(min=1), metavar="N", help="At most N of them.")
@click.option(
    "--from-chunk", "--chunk", type=click.IntRange(min=0), default=0, metavar="N", help="Leave out the first N."
)
@click.option("--process-output", is_flag=True, help="Of output.weight, too.")
@click.option("--parse-special", is_flag=True, help="Read spellings of special tokens in TEXT as these.")
@click.option("--in-file", "merged", multiple=True, metavar="FILE", help="Add an older matrix; no MODEL: only add.")
@engine_options
@quiet_option
@json_option
def imatrix(
    model: str | None,
    text: str | None,
    target: str,
    format: str | None,
    ctx: int,
    chunks: int | None,
    from_chunk: int,
    process_output: bool,
    parse_special: bool,
    merged: tuple[str, ...],
    quiet: bool,
    as_json: bool,
    **engine: Any,
) -> None:
    """Write the importance matrix of MODEL on the file TEXT ("-": standard input), for `quantize --imatrix`.

    For each matrix of the layers: sums of the squares of its inputs over all tokens of the text, for each expert of a
    mixture with how many tokens came to it. Names, chunks and formats are llama-imatrix's. --activations f32 is the
    default here: the inputs as the weights make them.
    """
    from ref_engine.imatrix import read_imatrix, write_imatrix
    from ref_engine.imatrix.matrix import merge

    if model is None and not merged:
        raise click.UsageError("nothing to do: give MODEL and TEXT, or --in-file")
    if (model is None) != (text is None):
        raise click.UsageError("a MODEL is measured on a TEXT; give both")
    parts = [read_imatrix(path) for path in merged]
    if model is not None and text is not None:
        options = {"ctx": ctx, "chunks": chunks, "from_chunk": from_chunk, "output": process_output}
        parts.append(_measured(model, text, parse_special, quiet, options, engine))
    matrix = merge(parts, ctx)
    kind = format or ("dat" if target.endswith(".dat") else "gguf")
    write_imatrix(target, matrix, "dat" if kind == "dat" else "gguf")
    _report(matrix, target, as_json)


def _measured(
    name: str, text: str, parse_special: bool, quiet: bool, options: dict[str, Any], engine: dict[str, Any]
) -> ImportanceMatrix:
    from ref_engine.imatrix.collect import chunks_of, collect

    content = read_text(text).removesuffix("\n")  # as llama.cpp reads a prompt's file
    loaded = load_model(find_model(name), **{**engine, "activations": engine["activations"] or "f32"})
    ids = loaded.tokenize(content, parse_special=parse_special)
    bos = next((id for id in loaded.tokenizer.added_before if id is not None), None)
    chunks = chunks_of(ids, options["ctx"], bos, options["from_chunk"], options["chunks"])
    with progress("tokens", quiet=quiet) as bar:
        bar.start(sum(map(len, chunks)), "imatrix")
        found = collect(loaded, chunks, dataset=text, process_output=options["output"], advance=bar.advance)
        bar.done()
    return found


def _report(matrix: ImportanceMatrix, target: str, as_json: bool) -> None:
    unused = {name: entry.n_unused for name, entry in matrix.entries.items() if entry.n_unused}
    if as_json:
        emit_json(
            {"target": target, "entries": len(matrix.entries), "chunks": matrix.n_chunks, "ctx": matrix.chunk_size,
             "datasets": list(matrix.datasets), "unused_experts": unused}
        )  # fmt: skip
        return
    say(f"{target}: {len(matrix.entries)} entries, {matrix.n_chunks} chunks of {matrix.chunk_size} tokens")
    if unused:
        name = max(unused, key=lambda name: unused[name])
        of = matrix.entries[name].counts.size
        say(f"note: {len(unused)} entries have experts that no token came to, {unused[name]} of {of} in {name}")
