"""The operations of the backend "cupy"."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ref_engine.gpu.device import device, full_memory_reported, place
from ref_engine.ops import Ops
from ref_engine.place import Place
from ref_engine.reference import attention, embed, ffn, linear, moe, norm, rope
from ref_engine.reference.linear import Activations
from ref_engine.reference.sums import F32
from ref_engine.weights import Weight


def cupy_ops(activations: Activations) -> Ops:
    """The reference functions over arrays of the device. Raises RefEngineError where there is none."""
    cupy = device()
    here = place(cupy, lambda name: True)
    return Ops(
        name="cupy",
        scope=partial(full_memory_reported, cupy),
        embed=partial(embed_there, here),
        linear=linear.linear_f32,
        linears=linear.linears_f32,
        rms_norm=norm.rms_norm_exact,
        layer_norm=norm.layer_norm,
        rope=rope.rope,
        attend=attention.attend_blas,
        glu=ffn.glu,
        activation=ffn.activation,
        soft_cap=attention.soft_cap,
        route=moe.route,
        moe_ffn=moe.moe_ffn_f32,
        place=here,
    )


def embed_there(here: Place, ids: NDArray[np.int64], weight: Weight) -> F32:
    """As reference embed: rows are looked up on the host, and only they are copied: ids (T,) -> (T, D)."""
    rows: Any = here.put(embed.embed(ids, weight))
    there: F32 = rows
    return there
