"""The two sides of a comparison: a file of values, or a model to run, such as `model.gguf@native:q8`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ref_engine.errors import RefEngineError
from ref_engine.lens.dump import Dump
from ref_engine.lens.record import as_dump, facts_of, record
from ref_engine.lens.selection import Selection
from ref_engine.lens.sizes import planned
from ref_engine.model import Model
from ref_engine.reference.linear import Activations

_HOW = re.compile(r"(?P<name>.+)@(?P<how>[a-z0-9]+(?::[a-z0-9]+)*)", re.DOTALL)
_BACKENDS = ("numpy", "native", "cupy")
_CHUNK = 128  # tokens in a pass


@dataclass(frozen=True)
class ModelSide:
    """A model to run. backend None: the default."""

    text: str
    name: str
    backend: str | None = None
    activations: Activations = "q8"
    fused: bool = False


def read_side(text: str) -> Path | ModelSide:
    """What an argument means: `NAME@BACKEND:MODE:fused`, with any of the three, or a path, or a model's name."""
    path = Path(text)
    if path.exists():
        return ModelSide(text, text) if _is_gguf(path) else path
    match = _HOW.fullmatch(text)
    if match is None:
        if path.suffix in (".npz", ".npy", ".safetensors", ".txt", ".bin", ".log") or "/" in text:
            raise RefEngineError(f"{text}: no such file or folder")
        return ModelSide(text, text)
    backend, activations, fused = None, "q8", False
    for word in match["how"].split(":"):
        if word in _BACKENDS:
            backend = word
        elif word in ("f32", "q8"):
            activations = word
        elif word == "fused":
            fused = True
        else:
            raise RefEngineError(f"{text}: {word!r} is no backend ({', '.join(_BACKENDS)}), nor f32, q8 or fused")
    return ModelSide(text, match["name"], backend, "f32" if activations == "f32" else "q8", fused)


def _is_gguf(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"GGUF"


def run_side(
    model: Model,
    side: ModelSide,
    ids: Sequence[int],
    wanted: Selection,
    folder: Path,
    limit: int,
    advance: Callable[[int], None] = lambda n: None,
) -> Dump:
    """Run a model on `ids` and keep the wanted values below `folder`. Raises RefEngineError if they exceed `limit`."""
    plan = planned(model, ids, wanted, _CHUNK, not side.fused)
    total = sum(p.nbytes for p in plan)
    if total > limit:
        raise RefEngineError(f"{side.text}: its values take {total >> 20} MiB, over --limit {limit >> 20} MiB")
    folder.mkdir()
    files = record(model, ids, wanted, folder, plan=plan, chunk=_CHUNK, fine=not side.fused, advance=advance)
    return as_dump(side.text, files, facts_of(model, ids, wanted, not side.fused))


def common_tokens(given: Sequence[int] | None, dumps: Sequence[Dump]) -> list[int]:
    """The ids that a model is to run: those given, or those that the other side ran."""
    if given is not None:
        return list(given)
    for dump in dumps:
        if dump.facts.tokens is not None:
            return list(dump.facts.tokens)
    raise RefEngineError("which tokens? Give --prompt TEXT, --tokens IDS or --file FILE: no side says what it ran")


def only_names(dump: Dump, wanted: Selection) -> Selection:
    """What of a model is worth keeping to be held against `dump`: the names that it has, and what explains them."""
    names = [name for name in dump.tensors if wanted.wants(name)]
    layers = {name.rsplit("-", 1)[1] for name in names if "-" in name}
    helpers = [f"{stem}-{layer}" for layer in layers for stem in ("Qcur", "Kcur", "Vcur", "ffn_moe_topk")]
    scores = [f"ffn_moe_{kind}-{layer}" for layer in layers for kind in ("probs", "probs_biased", "logits")]
    return Selection(
        tuple(_literal(name) for name in [*names, *helpers, *scores]), None, dump.facts.positions or wanted.positions
    )


def _literal(name: str) -> str:
    """A glob that matches this name alone."""
    return re.sub(r"([*?\[])", r"[\1]", name)
