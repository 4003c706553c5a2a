"""ref-engine logits"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ref_engine.cli.options import engine_options, find_model, json_option, load_model, parse_ids, quiet_option
from ref_engine.cli.output import appearing, clean, emit_json, piece, say, table
from ref_engine.cli.progress import Progress, progress

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ref_engine.model import Model

_PASS = 128  # tokens in one forward pass; bounds the logits that are held


@click.command()
@click.argument("model")
@click.option("-p", "--prompt", metavar="TEXT", help="Text to run.")
@click.option("--tokens", metavar="IDS", help="Token ids to run instead, such as 1,2,3.")
@click.option("-k", "--top", type=click.IntRange(min=1), default=5, metavar="N", help="Best tokens per position (5).")
@click.option("-o", "--output", metavar="FILE", help="Write all logits to a .npy or .npz (ids, logits) file.")
@engine_options
@quiet_option
@json_option
def logits(
    model: str,
    prompt: str | None,
    tokens: str | None,
    top: int,
    output: str | None,
    quiet: bool,
    as_json: bool,
    **engine: Any,
) -> None:
    """Show which tokens the model expects after each token of a prompt.

    The row of position t scores the token after it. With -o the raw logits, float32 (tokens, vocabulary), go to a
    file instead.
    """
    if (prompt is None) == (tokens is None):
        raise click.UsageError("give either --prompt TEXT or --tokens IDS")
    if output is not None and Path(output).suffix not in (".npy", ".npz"):
        raise click.UsageError(f"{output}: the name must end in .npy or .npz")
    loaded = load_model(find_model(model), **engine)
    ids = parse_ids(tokens) if tokens is not None else loaded.tokenize(clean(prompt or ""))
    with progress("tokens", quiet=quiet, lines=False) as bar:
        if output is not None:
            _save(loaded, ids, Path(output), bar)
            shape = [len(ids), loaded.spec.n_vocab]
        else:
            rows = [row for first, part in _passes(loaded, ids, bar) for row in _best(loaded, ids, first, part, top)]
    if output is not None:
        emit_json({"file": output, "ids": ids, "shape": shape}) if as_json else say(f"{output}: {shape}")
    elif as_json:
        emit_json({"ids": ids, "positions": rows})
    else:
        table(
            ("POS", "TOKEN", "RANK", "ID", "PIECE", "LOGIT", "LOG P", "P"),
            [line for row in rows for line in _lines(loaded, row)],
            right=(0, 2, 3, 5, 6, 7),
        )


def _passes(model: Model, ids: list[int], bar: Progress) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """(position of the first row, logits (n, V)) piece by piece."""
    from ref_engine.errors import RefEngineError

    if not ids:
        raise RefEngineError("the prompt is empty: there is no token to run")
    if max(ids) >= model.spec.n_vocab:
        raise RefEngineError(f"token id {max(ids)} is outside the vocabulary 0..{model.spec.n_vocab - 1}")
    cache = model.new_cache()
    cache.room_for(len(ids))
    bar.start(len(ids), "running the prompt")
    for start in range(0, len(ids), _PASS):
        part = ids[start : start + _PASS]
        yield start, model.forward(part, cache)
        bar.advance(len(part))
    bar.done()


def _best(model: Model, ids: list[int], first: int, part: NDArray[np.float32], k: int) -> list[dict[str, Any]]:
    """For each row its best k tokens: id, logit, natural log of the probability."""
    from ref_engine.sample.distribution import best, check_logits, log_sum_exp

    rows = []
    for t, raw in enumerate(part, start=first):
        values = check_logits(raw, model.spec.n_vocab)
        total = log_sum_exp(values)
        top = [{"id": int(i), "logit": float(values[i]), "logprob": float(values[i]) - total} for i in best(values, k)]
        rows.append({"position": t, "id": ids[t], "top": top})
    return rows


def _lines(model: Model, row: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    def spelt(id: int) -> str:
        return piece(model.tokenizer.token_bytes(id))

    for rank, token in enumerate(row["top"], start=1):
        place = (str(row["position"]), spelt(row["id"])) if rank == 1 else ("", "")
        numbers = (f"{token['logit']:.4f}", f"{token['logprob']:.4f}", f"{math.exp(token['logprob']):.4f}")
        yield (*place, str(rank), str(token["id"]), spelt(token["id"]), *numbers)


def _save(model: Model, ids: list[int], target: Path, bar: Progress) -> None:
    """All logits to a file that appears whole: .npy is written piece by piece, .npz at once."""
    import numpy as np

    shape = (len(ids), model.spec.n_vocab)
    with appearing(target) as temporary:
        rows: NDArray[np.float32]
        if target.suffix == ".npy":
            rows = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float32, shape=shape)
        else:
            rows = np.empty(shape, np.float32)
        for first, part in _passes(model, ids, bar):
            rows[first : first + len(part)] = part
        if isinstance(rows, np.memmap):
            rows.flush()
        else:
            with temporary.open("wb") as file:
                np.savez(file, ids=np.array(ids, np.int64), logits=rows)
