"""Backends by name."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from functools import partial

from threadpoolctl import ThreadpoolController

from ref_engine.compat import has_kernels
from ref_engine.errors import RefEngineError
from ref_engine.gpu.ops import cupy_ops
from ref_engine.kernels import recurrent
from ref_engine.kernels.dispatch import table
from ref_engine.kernels.halves import Halves
from ref_engine.kernels.layers import all_layers
from ref_engine.kernels.moe import moe_ffn, route
from ref_engine.kernels.ops import Kernels
from ref_engine.kernels.threads import usable_threads
from ref_engine.ops import Ops
from ref_engine.place import Where
from ref_engine.reference import attention, conv, delta, embed, ffn, linear, moe, norm, rope, ssm
from ref_engine.reference.linear import Activations

BACKENDS = ("numpy", "native", "cupy")


def numpy_ops(activations: Activations, n_threads: int | None = None) -> Ops:
    """The readable definition itself; in q8 mode with every sum in its fixed order.

    n_threads is for the matrix products of BLAS, by default as many as it likes in f32 mode and one in q8 mode, whose
    products are too small to be worth dividing.
    """
    ordered = activations == "q8"
    limit = n_threads or (1 if ordered else None)
    pools = ThreadpoolController()
    return Ops(
        name="numpy",
        scope=lambda: pools.limit(limits=limit, user_api="blas"),
        embed=embed.embed,
        linear=linear.linear_q8 if ordered else linear.linear_f32,
        linears=linear.linears_q8 if ordered else linear.linears_f32,
        rms_norm=norm.rms_norm if ordered else norm.rms_norm_exact,
        layer_norm=norm.layer_norm,
        rope=rope.rope,
        attend=attention.attend_ordered if ordered else attention.attend_blas,
        glu=ffn.glu,
        activation=ffn.activation,
        soft_cap=attention.soft_cap,
        route=moe.route,
        count_experts=moe.count_experts,
        moe_ffn=moe.moe_ffn_q8 if ordered else moe.moe_ffn_f32,
        causal_conv=conv.causal_conv,
        gated_delta_rule=delta.gated_delta_rule,
        ssm_scan=ssm.ssm_scan,
    )


def native_ops(activations: Activations, n_threads: int | None = None, isa: str | None = None) -> Ops:
    """The compiled kernels: in q8 mode the bits of the definition. In f32 mode matrix products are BLAS's, in float32.

    n_threads: by default one for each physical core, and never more. isa: see `kernels.dispatch.table`.
    """
    threads = usable_threads(n_threads)
    kernels = Kernels(table(isa), threads)
    ops = replace(
        numpy_ops(activations, threads),
        name="native",
        rms_norm=kernels.rms_norm,
        rope=kernels.rope,
        attend=kernels.attend_f32,
        glu=kernels.glu,
        activation=partial(recurrent.activation, kernels),
        soft_cap=kernels.soft_cap,
        linear=linear.linear_blas,
        linears=linear.linears_blas,
        moe_ffn=partial(moe.moe_ffn, linear=linear.linear_blas, glu=kernels.glu),
        causal_conv=partial(recurrent.causal_conv, kernels),
        gated_delta_rule=partial(recurrent.gated_delta_rule, kernels),
        ssm_scan=partial(recurrent.ssm_scan, kernels),
    )
    if activations == "f32":
        return ops
    halves = Halves(kernels)
    return replace(
        ops,
        scope=nullcontext,
        attend=kernels.attend,
        embed=kernels.embed,
        linear=kernels.linear,
        linears=kernels.linears,
        route=partial(route, kernels),
        moe_ffn=partial(moe_ffn, kernels),
        attention_half=halves.attention,
        ffn_half=halves.ffn,
        all_layers=partial(all_layers, halves),
    )


def default_backend() -> str:
    return "native" if has_kernels else "numpy"


def get_ops(backend: str, activations: Activations, n_threads: int | None = None, experts_on: Where = "gpu") -> Ops:
    """The operations of a backend. Raises RefEngineError for one that is unknown or not to be had here.

    experts_on: for cupy, who computes a mixture's experts: the device, or the CPU's own backend.
    """
    if activations not in ("f32", "q8"):
        raise RefEngineError(f"unknown activations {activations!r}: f32 or q8")
    if backend == "numpy":
        return numpy_ops(activations, n_threads)
    if backend == "native":
        return native_ops(activations, n_threads)
    if backend == "cupy":
        return cupy_ops(
            activations, get_ops(default_backend(), activations, n_threads) if experts_on == "cpu" else None
        )
    raise RefEngineError(f"unknown backend {backend!r} (known: {', '.join(BACKENDS)})")
