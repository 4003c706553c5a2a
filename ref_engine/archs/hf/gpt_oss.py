"""gpt-oss: experts in MXFP4, gate and up in alternating rows.

Sources: llama.cpp's conversion/gpt_oss.py, transformers' modeling_gpt_oss.py and integrations/mxfp4.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from ref_engine.archs.hf.common import common_keys
from ref_engine.archs.hf.key_writer import KeyWriter
from ref_engine.archs.hf.recipe import Named, Recipe
from ref_engine.checkpoint import Array, Config, Tensor
from ref_engine.errors import ConvertError
from ref_engine.files.types import GGMLType

_BLOCK = 32


def repacked(blocks: Array, scales: Array) -> Array:
    """(..., B, 16) bytes of two weights each and (..., B) exponents -> (..., 17 B) bytes of GGML's MXFP4.

    The checkpoint's byte j holds weights 2j (low nibble) and 2j + 1; GGML's holds weights j and j + 16.
    """
    weights = np.stack([blocks & 15, blocks >> 4], axis=-1).reshape(*blocks.shape[:-1], _BLOCK)
    packed = weights[..., : _BLOCK // 2] | weights[..., _BLOCK // 2 :] << 4
    joined = np.concatenate([scales[..., None], packed], axis=-1)
    return joined.reshape(*blocks.shape[:-2], -1)


def _packed(name: str, blocks: Tensor, scales: Tensor, rows: slice) -> Tensor:
    """rows: which of each expert's."""
    if blocks.dtype != "U8" or scales.dtype != "U8" or blocks.shape != (*scales.shape, _BLOCK // 2):
        raise ConvertError(f"tensor {blocks.name} of {list(blocks.shape)} does not fit its scales {list(scales.shape)}")
    if len(scales.shape) != 3:
        raise ConvertError(f"tensor {scales.name} has {len(scales.shape)} axes, not 3")
    experts, n_rows, n_blocks = scales.shape
    n_rows = len(range(n_rows)[rows])

    def parts() -> Iterator[Array]:
        for expert in range(experts):
            block, scale = blocks.rows(expert, expert + 1).whole(), scales.rows(expert, expert + 1).whole()
            yield repacked(block[:, rows], scale[:, rows])

    return Tensor(name, (experts, n_rows, n_blocks * _BLOCK), "MXFP4", parts, GGMLType.MXFP4)


def _gather(config: Config, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """NAME_blocks and NAME_scales -> packed stacks of experts."""
    made = {}
    for name, tensor in tensors.items():
        if name.endswith("_blocks"):
            if (scales := tensors.get(name.replace("_blocks", "_scales"))) is None:
                raise ConvertError(f"tensor {name} has no scales")
            base = name.removesuffix("_blocks")
            if base.endswith("gate_up_proj"):
                base = base.removesuffix("gate_up_proj")
                for part, rows in (("gate_proj", slice(0, None, 2)), ("up_proj", slice(1, None, 2))):
                    made[f"{base}{part}.weight"] = _packed(f"{base}{part}", tensor, scales, rows)
            else:
                made[f"{base}.weight"] = _packed(base, tensor, scales, slice(None))
        elif not name.endswith("_scales"):
            made[name] = tensor
    return made


def _rewrite(config: Config, name: str, tensor: Tensor) -> Iterable[Named]:
    """Experts that are not packed are kept as (E, inputs, outputs)."""
    base = name.removesuffix("_bias").removesuffix("gate_up_proj")
    if tensor.packed is not None:
        yield name, tensor
    elif name.endswith("sinks"):
        yield f"{name}.weight", tensor
    elif name.endswith("down_proj_bias"):
        yield name.replace("down_proj_bias", "down_proj.bias"), tensor
    elif name.endswith("experts.down_proj"):
        yield f"{name}.weight", tensor.transposed()
    elif name.endswith("gate_up_proj_bias"):
        half = (*tensor.shape[:-1], tensor.shape[-1] // 2)
        yield f"{base}gate_proj.bias", tensor.remade(half, lambda x: x[..., ::2])
        yield f"{base}up_proj.bias", tensor.remade(half, lambda x: x[..., 1::2])
    elif name.endswith("experts.gate_up_proj"):
        tensor.expect_axes(3)
        half = (tensor.shape[0], tensor.shape[2] // 2, tensor.shape[1])
        yield f"{base}gate_proj.weight", tensor.remade(half, lambda x: x[..., ::2].swapaxes(-1, -2))
        yield f"{base}up_proj.weight", tensor.remade(half, lambda x: x[..., 1::2].swapaxes(-1, -2))
    else:
        yield name, tensor


def _keys(config: Config, keys: KeyWriter) -> None:
    common_keys(config, keys)
    keys.u32("attention.sliding_window", config["sliding_window"])
    keys.u32("expert_feed_forward_length", config["intermediate_size"])


RECIPES = {"GptOssForCausalLM": Recipe("gpt-oss", gather=_gather, rewrite=_rewrite, keys=_keys)}
