"""The operations of the backend "cupy"."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ref_engine.gpu import layers
from ref_engine.gpu.attention import attend
from ref_engine.gpu.device import Device, device
from ref_engine.gpu.experts import moe_ffn
from ref_engine.gpu.graph import Recorder
from ref_engine.gpu.groups import count_experts
from ref_engine.gpu.packed import Packed, rows
from ref_engine.gpu.products import Products, values
from ref_engine.gpu.routing import route
from ref_engine.ops import Ops
from ref_engine.place import Place, is_expert, to_host
from ref_engine.reference import conv, delta, embed, ssm
from ref_engine.reference.linear import Activations
from ref_engine.reference.moe import Experts, Ids, Tap
from ref_engine.reference.sums import F32
from ref_engine.weights import Weight


def cupy_ops(activations: Activations, experts: Ops | None = None) -> Ops:
    """The reference functions over arrays of the device, and its kernels where there are any.

    experts: operations of the host, for the experts of mixtures, whose weights then stay there; None: the device has
    them too. Raises RefEngineError where there is no device.
    """
    cupy = device()
    here = Device(cupy, (lambda name: True) if experts is None else (lambda name: not is_expert(name)))
    products = Products(activations)
    ops = Ops(
        name="cupy",
        scope=lambda: here.holding("a temporary array of the pass does"),
        embed=partial(embed_there, here),
        linear=products.linear,
        linears=products.linears,
        rms_norm=layers.rms_norm,
        layer_norm=layers.layer_norm,
        rope=layers.rope,
        attend=attend,
        glu=layers.glu,
        activation=layers.activation,
        soft_cap=layers.soft_cap,
        route=route,
        count_experts=count_experts,
        moe_ffn=partial(moe_ffn, products, glu=layers.glu),
        causal_conv=conv.causal_conv,
        gated_delta_rule=delta.gated_delta_rule,
        ssm_scan=ssm.ssm_scan,
        by_head=products.by_head,
        recorder=Recorder(cupy),
        place=here,
    )
    if experts is None:
        return ops
    return replace(ops, recorder=None, scope=partial(both_scopes, experts, here), moe_ffn=HostExperts(experts, here))


def embed_there(here: Place, ids: NDArray[np.int64], weight: Weight) -> F32:
    """As reference embed: ids (T,) on the host -> (T, D) on the device.

    Rows come from the table on the device if it is there for the products (a tied output), otherwise from the host's.
    """
    table: Packed | None = weight.kept.get("packed")
    if table is None or not ids.size:
        return here.put(embed.embed(ids, weight))
    embed.check(ids, weight)
    x: F32 = values(rows(table, here.put(ids)), 0, ids.size, np.float32)
    return x


@contextmanager
def both_scopes(host: Ops, here: Place) -> Iterator[None]:
    with host.scope(), here.holding("a temporary array of the pass does"):
        yield


@dataclass(frozen=True)
class HostExperts:
    """A mixture's experts on the host's kernels: x, ids and weights go there, their sum comes back."""

    host: Ops
    here: Place

    def __call__(self, x: F32, ids: Ids, weights: F32, experts: Experts, *, tap: Tap | None = None) -> F32:
        """x (T, D), ids (T, k), weights (T, k) -> (T, D), on the device."""
        y: Any = self.host.moe_ffn(to_host(x), to_host(ids), to_host(weights), experts, tap=tap)
        return self.here.put(y)
