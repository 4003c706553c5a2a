"""Small models end to end: golden/zoo, golden/architectures, golden/experts, golden/hf and golden/models.

Each model is rebuilt from its specification (or lies there as a file) and an engine is asked for its logits, with every
row held to llama.cpp's or transformers' by NMSE. The weights are float32, so there is nothing to round but sums.

llama.cpp's CPU backend looks GELU up in a table of half-precision numbers, transformers computes it. An engine may do
either: see `_by_other_gelu`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from ref_engine.mixture import FILE_TYPES
from ref_engine.model import Model
from ref_engine.quantize_file import quantize_file
from ref_engine.tracing import trace
from ref_engine.verify.case import Array, Case, Finding, failed, judged_logits, measured, same_bits
from ref_engine.verify.engines import LogitsEngine
from ref_engine.verify.engines.ours import Backend, backend_of, definition, uses_gelu
from ref_engine.verify.golden import Golden
from ref_engine.verify.models import build_model

_LIMIT = 1e-9
_SPREAD = 10  # times the producer's distance from itself
_N_CTX = {"zoo/llama-longrope-long": 1024}  # llama.cpp ran it with this much room, beyond the original context
_EXACT_NODES = ("ffn_moe_topk", "ffn_moe_group_topk")


@dataclass(frozen=True)
class Small:
    """A model, the tokens and the logits that another program gave them. `data` also has the intermediates."""

    golden: Golden
    id: str
    spec: str | None  # name of its specification; None where `file` is a GGUF of the golden data
    file: str
    data: str
    prefix: str  # of the keys in `data`
    scratch: Path
    by_row: bool  # the worst row counts, not the NMSE of all: as the tests of this golden data have it

    def model(self) -> Path:
        """The GGUF file, built where it has to be and is not there yet."""
        if self.spec is None:
            return self.golden.path(self.file)
        path = self.scratch / f"{self.spec.removesuffix('.json').replace('/', '-')}.gguf"
        if not path.exists():
            build_model(self.golden.json(self.spec), path)
        return path

    def plain_model(self) -> Path:
        """The same with every weight in float32, for an engine that may round what it multiplies with blocks."""
        if self.spec is not None:
            return self.model()
        path = self.scratch / f"{self.file.replace('/', '-')}-f32.gguf"
        if not path.exists():
            quantize_file(self.model(), path, FILE_TYPES["F32"], allow_requantize=True)
        return path

    def array(self, name: str) -> Array:
        return self.golden.npz(self.data)[self.prefix + name]

    @property
    def n_ctx(self) -> int | None:
        return _N_CTX.get(self.id)

    @property
    def limit(self) -> float:
        spread = self.golden.measured(self.data, "own_spread_nmse")
        return max(_LIMIT, _SPREAD * spread)


def smalls(golden: Golden, scratch: Path) -> Iterator[Small]:
    """Every small model that has logits; folders of specifications beside folders of logits."""
    folders = (
        ("zoo", "zoo/specs", "zoo/logits"),
        ("architectures", "architectures/specs", "architectures/logits"),
        ("variants", "architectures/variants", "architectures/variants"),
        ("experts", "experts/specs", "experts/nodes"),
    )
    for pack, specs, logits in folders:
        for spec in golden.names(f"{specs}/*.json"):
            name = PurePosixPath(spec).stem
            yield Small(
                golden, f"{pack}/{name}", spec, "", f"{logits}/{name}.npz", "", scratch, pack in ("zoo", "experts")
            )
    for file in golden.names("hf/*.gguf"):
        name = PurePosixPath(file).stem
        yield Small(golden, f"hf/{name}", None, file, f"hf/{name}.npz", "", scratch, True)
    for file in golden.names("models/*.gguf"):
        name = PurePosixPath(file).stem
        texts = dict.fromkeys(key.split("/")[0] for key in golden.npz(f"models/{name}.npz"))
        for text in texts:
            yield Small(golden, f"models/{name}/{text}", None, file, f"models/{name}.npz", f"{text}/", scratch, True)


def cases(golden: Golden, engine: LogitsEngine, scratch: Path, limit: float | None = None) -> list[Case]:
    """Logits of every small model. limit: NMSE to ask for instead of the golden data's own."""
    return [
        Case(f"{small.id}/logits", "logits", "F32" if small.spec else "", partial(_logits, small, engine, limit))
        for small in smalls(golden, scratch)
    ]


def _tokens(small: Small) -> list[int]:
    return [int(id) for id in small.array("ids" if small.prefix else "tokens")]


def _logits(small: Small, engine: LogitsEngine, limit: float | None) -> Finding:
    want, ids = small.array("logits"), _tokens(small)
    model = small.model() if engine.exact else small.plain_model()
    got = engine.logits(model, ids, want.shape[-1], small.n_ctx)
    found = judged_logits(got, want, limit or small.limit, small.by_row)
    if found.passed or got.shape != want.shape or not uses_gelu(model):
        return found
    return _by_other_gelu(small, model, ids, got, limit or 10 * _LIMIT, found)


def _by_other_gelu(
    small: Small, model: Path, ids: Sequence[int], got: Array, limit: float, by_golden: Finding
) -> Finding:
    """Judge a model with GELU by the other of the two functions, the exact one or ggml's table.

    The readable engine stands for it, once it was found to give the golden logits with the one that made them.
    """
    golden = small.array("logits")
    for theirs in (True, False):
        made = definition(model, small.n_ctx, table=theirs).logits(ids)
        if judged_logits(made, golden, 10 * small.limit, small.by_row).passed:
            other = definition(model, small.n_ctx, table=not theirs).logits(ids)
            found = judged_logits(got, other, limit, small.by_row)
            return replace(found, limit=f"{found.limit}, with {'exact GELU' if theirs else 'the GELU table of ggml'}")
    return replace(by_golden, message=f"{by_golden.message}; the definition fails here as well")


# -- what only a backend of ours can show -----------------------------------------------------------------------


def backend_cases(golden: Golden, backend: Backend, scratch: Path) -> list[Case]:
    """Named intermediates in float32, and in q8 mode the bits of the definition."""
    found = []
    for small in smalls(golden, scratch):
        nodes = small.data.replace("zoo/logits", "zoo/nodes")
        if "f32" in backend.modes and nodes in golden.files and "/nodes/" in nodes:
            run: Callable[[], Finding] = partial(_nodes, small, backend, nodes)
            found.append(Case(f"{small.id}/nodes", "intermediates", "F32", run))
        if "q8" in backend.modes and backend.name != "numpy":
            run = partial(_bits, small, backend)
            found.append(Case(f"{small.id}/bits", "logits", "q8", run))
    return found


def _bits(small: Small, backend: Backend) -> Finding:
    """In q8 mode the order of arithmetic is defined: any backend gives the bits of the readable engine."""
    ids = _tokens(small)[:24]
    logits = []
    for made in (backend, backend_of("numpy", ("q8",))):
        model = made.model(small.model(), "q8", small.n_ctx)
        logits.append(model.logits(ids))
        model.file.close()
    return same_bits(logits[0], logits[1])


def _nodes(small: Small, backend: Backend, name: str) -> Finding:
    """Walk the intermediates in the order in which they are computed; the first one that is off is the finding."""
    data, path = small.golden.npz(name), small.model()
    ids = data["tokens"].tolist()
    limit = max(10 * _LIMIT, small.golden.tolerance(name, "nmse"))
    seen = _traced(backend.model(path, "f32", small.n_ctx), ids)
    shared = [key for key in seen if key in data and "#" not in key]
    found = _first_off(shared, seen, data, limit)
    if not found.passed and uses_gelu(path):
        held = _first_off(shared, _traced(definition(path, small.n_ctx, table=True), ids), data, 10 * limit)
        if held.passed:
            exact = _traced(definition(path, small.n_ctx, table=False), ids)
            found = _first_off(shared, seen, exact, limit)
            found = replace(found, limit=f"{found.limit}, with exact GELU")
    return found


def _traced(model: Model, ids: Sequence[int]) -> dict[str, Array]:
    with trace(model) as seen:
        model.logits(ids)
    model.file.close()
    return dict(seen)


def _first_off(keys: Sequence[str], got: Mapping[str, Array], want: Mapping[str, Array], limit: float) -> Finding:
    """The first that is off; where none is, the one that is furthest from its golden."""
    if not keys:
        return failed("no intermediate has a name of the golden data's")
    found = {key: _node(key, got[key], want[key], limit) for key in keys}
    for key, each in found.items():
        if not each.passed:
            return replace(each, message=f"{key}: {each.message}")
    last = max(found.values(), key=lambda each: each.figures["nmse"])
    return replace(last, message=f"{len(keys)} intermediates", limit=f"nmse <= {limit:.3g}, choices exactly")


def _node(key: str, got: Array, want: Array, limit: float) -> Finding:
    if got.shape != want.shape:
        return failed(f"shape {list(got.shape)}, expected {list(want.shape)}")
    if key.startswith("kq-"):  # entries that no token sees are computed and then not used
        hidden = ~np.tril(np.ones(want.shape[-2:], bool))
        got, want = np.where(hidden, 0, got), np.where(hidden, 0, want)
    if key.rpartition("-")[0] in _EXACT_NODES:
        return same_bits(got.astype(np.int64), want.astype(np.int64))
    found = measured(got, want)
    if found.figures["nmse"] <= limit:
        return found
    return replace(found, passed=False, limit=f"nmse <= {limit:.3g}", message=f"nmse {found.figures['nmse']:.3g}")
