"""How much memory a model takes, before it is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ref_engine.archs import read_spec
from ref_engine.backends import default_backend
from ref_engine.cache import default_cache_type
from ref_engine.cli.machine import total_memory
from ref_engine.errors import RefEngineError
from ref_engine.files import open_gguf
from ref_engine.plan import make_plan
from ref_engine.plan_split import divide

from .errors import ApiError
from .settings import Settings

_DEFAULT_CTX = 8192
_PASS = 512  # tokens that a model runs at once


@dataclass(frozen=True)
class Need:
    """Bytes: the weights, the caches and states of all slots when they are full, temporaries, unpacked weights."""

    n_ctx: int
    weights: int
    caches: int
    scratch: int
    unpacked: int

    @property
    def total(self) -> int:
        return self.weights + self.caches + self.scratch + self.unpacked


def need_of(path: Path, settings: Settings) -> Need:
    """Of the machine's memory, from the header of a file; what a GPU has is not counted.

    Raises ApiError for a file that cannot be run, with the reason.
    """
    numpy = settings.engine.get("backend", default_backend()) == "numpy"
    mode = settings.engine.get("activations", "q8")
    try:
        with open_gguf(path) as file:
            n_ctx = settings.n_ctx
            if n_ctx is None:
                n_ctx = min(_DEFAULT_CTX, read_spec(file.metadata, file.tensors.keys(), None).n_ctx)
            plan = make_plan(file.metadata, file.tensors, n_ctx)
            experts_on = settings.engine.get("experts_on", "gpu")
            division = divide(plan, file.tensors, settings.engine.get("gpu_layers"), experts_on)
            # kernels do not write out the scores of a whole context, as the plan's figure for NumPy has it
            scratch = plan.scratch if numpy else make_plan(file.metadata, file.tensors, min(n_ctx, _PASS)).scratch
    except RefEngineError as error:
        raise ApiError("unsupported", f"this model cannot be run: {error}", "model") from None
    if plan.obstacle is not None:
        raise ApiError("unsupported", f"this model cannot be run: {plan.obstacle}", "model")
    unpacked = 0
    if numpy or mode == "f32":  # kernels read the packed bytes; NumPy keeps what it unpacks, within a limit
        unpacked = min(plan.unpacked[mode], (total_memory() or 1 << 62) // 4)
    cache = settings.engine.get("cache_type", default_cache_type(mode))
    if cache not in plan.cache:
        raise ApiError("unsupported", f"this model cannot be run: its keys are not whole blocks of {cache}", "model")
    if settings.engine.get("backend") != "cupy":
        return Need(n_ctx, plan.nbytes, settings.parallel * (plan.cache[cache] + plan.state), scratch, unpacked)
    if division.gpu_layers > division.n_layer and experts_on == "gpu":
        scratch = unpacked = 0  # the GPU computes everything
    host = division.host
    return Need(n_ctx, host.weights, settings.parallel * (host.cache[cache] + host.state), scratch, unpacked)


def budget(given: int | None) -> int:
    """Bytes for all models: what was asked for, or four fifths of the machine's memory."""
    return given if given is not None else (total_memory() or 1 << 62) * 4 // 5


def gib(nbytes: int) -> str:
    return f"{nbytes / (1 << 30):.2f} GiB"
