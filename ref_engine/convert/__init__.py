"""A Hugging Face directory becomes a GGUF file, with the keys, names and bytes of llama.cpp's converter.

    config.json -> recipe (archs/hf) -> keys            \\
    tensors (checkpoint/) -> renamed, stacked, turned    > a plan, checked -> written tensor by tensor
    tokenizer files (vocab/) -> keys                    /
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ref_engine.convert.outtype import OUT_TYPES
from ref_engine.convert.plan import Plan, Planned, plan_conversion
from ref_engine.errors import ConvertError, ModelError
from ref_engine.files.types import GGMLType
from ref_engine.files.writer import write_gguf
from ref_engine.kernels.quantisers import quantiser

__all__ = ["OUT_TYPES", "Plan", "Planned", "plan_conversion", "write_plan"]

_LARGEST_F16 = 65520.0  # from here on the nearest float16 is infinite


def write_plan(plan: Plan, target: str | os.PathLike[str], advance: Callable[[int], None] | None = None) -> None:
    """Write the file whole or not at all; no more of it is in memory than a part of one tensor.

    advance: called with bytes of the new file as they are done. Raises ConvertError for weights that are not finite or
    that float16 cannot hold, GGUFError where writing fails.
    """
    tensors = [(p.name, p.shape, p.type, partial(_packed, p, advance)) for p in plan.tensors]
    write_gguf(Path(target), plan.metadata, tensors, types=plan.types)


def _packed(planned: Planned, advance: Callable[[int], None] | None) -> Iterator[NDArray[np.uint8]]:
    for part in planned.tensor.parts():
        if part.size:
            packed = part.reshape(-1) if planned.tensor.packed is not None else _quantized(planned, part)
            yield packed
            if advance is not None:
                advance(packed.nbytes)


def _quantized(planned: Planned, part: NDArray[Any]) -> NDArray[np.uint8]:
    what = f"tensor {planned.tensor.name}"
    if planned.type is GGMLType.F16 and part.dtype != np.float16 and (largest := np.abs(part).max()) >= _LARGEST_F16:
        raise ConvertError(f"{what} holds {largest:g}, which float16 cannot; --outtype bf16 or f32 can")
    try:
        return quantiser()(np.atleast_1d(part), planned.type, None).reshape(-1)
    except ModelError as error:
        raise ConvertError(f"{what}: {error}") from error
