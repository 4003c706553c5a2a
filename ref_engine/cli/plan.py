"""ref-engine plan"""

from __future__ import annotations

from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING

import click

from ref_engine.cli.machine import available_memory, total_memory
from ref_engine.cli.options import cache_option, find_model, gpu_options, json_option
from ref_engine.cli.output import count, emit_json, one_line, say, size, table

if TYPE_CHECKING:
    from ref_engine.place import Where
    from ref_engine.plan import Layer, Plan
    from ref_engine.plan_split import Division
    from ref_engine.quant.rows import CacheType
    from ref_engine.reference.linear import Activations


@click.command()
@click.argument("model")
@click.option("--n-ctx", type=click.IntRange(min=1), metavar="N", help="Tokens in the KV cache (the model's context).")
@click.option("--activations", type=click.Choice(["f32", "q8"]), default="q8", help="As for run (q8).")
@cache_option
@gpu_options
@json_option
def plan(
    model: str,
    n_ctx: int | None,
    activations: Activations,
    cache_type: CacheType | None,
    gpu_layers: int | None,
    experts_on: Where | None,
    as_json: bool,
) -> None:
    """Tell how much memory a model takes, by part, before anything is loaded.

    Only the file's header is read. For mixtures of experts the table of layers tells one expert's bytes, and what a
    token reads (active) against what there is. Weights stay in the file's pages; what NumPy unpacks is kept within
    a quarter of the machine's memory. With --gpu-layers or --experts-on also what the GPU needs, and what is left for
    the host.
    """
    from ref_engine.cache import default_cache_type
    from ref_engine.files import open_gguf
    from ref_engine.place import check_split
    from ref_engine.plan import make_plan
    from ref_engine.plan_split import divide

    with open_gguf(find_model(model)) as file:
        made = make_plan(file.metadata, file.tensors, n_ctx)
        check_split("cupy", gpu_layers, experts_on)
        asked = gpu_layers is not None or experts_on is not None
        division = divide(made, file.tensors, gpu_layers, experts_on or "gpu") if asked else None
    cache_type = cache_type or default_cache_type(activations)
    if cache_type not in made.cache:
        raise click.UsageError(f"a {cache_type} cache cannot hold this model's keys, which are not whole blocks")
    memory = _memory(made, activations, cache_type)
    if as_json:
        more = {} if division is None else {"division": asdict(division)}
        emit_json({**asdict(made), "memory": memory, **more})
        return
    _print(made, memory)
    if division is not None:
        _print_division(division, cache_type)


def _memory(made: Plan, activations: Activations, cache_type: CacheType) -> dict[str, int | bool | None]:
    """What a run takes, by kind, and whether the machine has it."""
    machine = total_memory()
    wanted = made.unpacked[activations]
    unpacked = wanted if machine is None else min(wanted, machine // 4)
    cache = made.cache[cache_type]
    total = made.nbytes + cache + made.state + made.scratch + unpacked
    return {
        "weights": made.nbytes,
        "kv_cache": cache,
        "state": made.state,
        "scratch": made.scratch,
        "unpacked": unpacked,
        "total": total,
        "machine": machine,
        "available": available_memory(),
        "fits": None if machine is None else total <= machine,
    }


def _print(made: Plan, memory: dict[str, int | bool | None]) -> None:
    rows = [
        (part.name, str(part.n_tensors), count(part.n_weights), size(part.nbytes), _types(part.types))
        for part in made.parts
    ]
    total = (str(sum(part.n_tensors for part in made.parts)), count(made.n_weights), size(made.nbytes), "")
    table(("WEIGHTS", "TENSORS", "NUMBERS", "BYTES", "TYPES"), [*rows, ("all", *total)], right=(1, 2, 3))
    say(f"active per token: {count(made.n_active)} of {count(made.n_weights)}, {size(made.active)}\n")
    _print_layers(made.layers)
    kinds = [(name, size(value or 0)) for name, value in memory.items() if name not in ("available", "fits", "machine")]
    table(("MEMORY", f"at {made.n_ctx} tokens"), [(name.replace("_", " "), text) for name, text in kinds], right=(1,))
    say("KV cache, full: " + ", ".join(f"{size(nbytes)} as {type}" for type, nbytes in made.cache.items()))
    if memory["machine"] is not None:
        free = f", {size(memory['available'])} of it free now" if memory["available"] is not None else ""
        verdict = "fits" if memory["fits"] else "does not fit"
        say(f"{verdict}: this machine has {size(memory['machine'])}{free}")
    if made.obstacle is not None:
        say(f"this version cannot run it: {one_line(made.obstacle)}")


def _print_division(division: Division, cache: CacheType) -> None:
    shares = (division.device, division.host)
    kinds = {
        "weights": [share.weights for share in shares],
        "kv cache": [share.cache[cache] for share in shares],
        "state": [share.state for share in shares],
    }
    kinds["total"] = [sum(values) for values in zip(*kinds.values(), strict=True)]
    most = f"the output and {division.gpu_layers - 1} of {division.n_layer} layers"
    say(f"\n{most if division.gpu_layers else 'nothing'} on the GPU")
    table(("DIVIDED", "GPU", "HOST"), [(name, *map(size, values)) for name, values in kinds.items()], right=(1, 2))


def _print_layers(layers: tuple[Layer, ...]) -> None:
    """Neighbouring layers that are alike share a row."""
    rows = []
    for _, group in groupby(layers, key=lambda layer: {**asdict(layer), "index": None}):
        alike = list(group)
        first, last = alike[0], alike[-1]
        experts = (f"{first.n_used} of {first.n_expert}", size(first.expert)) if first.n_expert else ("", "")
        rows.append(
            (
                str(first.index) if first is last else f"{first.index}-{last.index}",
                size(first.nbytes),
                size(first.active),
                *experts,
                str(first.cache_width),
                ", ".join(f"{name} {size(nbytes)}" for name, nbytes in first.parts.items()),
            )
        )
    table(("LAYER", "BYTES", "ACTIVE", "EXPERTS", "ONE EXPERT", "KV/TOKEN", "PARTS"), rows, right=(1, 2, 4, 5))
    say()


def _types(types: object) -> str:
    assert isinstance(types, dict)
    return ", ".join(f"{name} {size(nbytes)}" for name, nbytes in types.items())
