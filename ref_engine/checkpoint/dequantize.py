"""Checkpoints whose matrices are 8-bit floats with scales become plain ones.

    NAME.weight F8_E4M3 (R, C)   NAME.weight_scale_inv F32 (R / 128, C / 128)   DeepSeek: a factor for each block
    NAME.weight F8_E4M3 (R, C)   NAME.weight_scale (R, 1) or (1,)                compressed-tensors: each row, or all

Sources: `quantization_config` of transformers; `ModelBase.dequant_model` of llama.cpp's conversion/base.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ref_engine.checkpoint.config import Config
from ref_engine.checkpoint.tensor import Array, Tensor
from ref_engine.errors import ConvertError

_UNUSED = ("activation_scale", ".qscale_act", ".input_scale", ".k_scale", ".v_scale")


def dequantized(config: Config, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Raises ConvertError for a way of quantising that is not known."""
    stated = config.inner("quantization_config")
    method = stated.get("quant_method")
    if method is None or method == "mxfp4":
        return tensors
    if method == "fp8":
        block = stated.list_of("weight_block_size", int, 2) if stated.get("weight_block_size") is not None else None
        return _scaled(tensors, "_scale_inv", block)
    if method == "compressed-tensors" and stated.get("format") in ("float-quantized", "naive-quantized"):
        groups = stated.inner("config_groups")
        if len(groups) != 1:
            raise ConvertError(f"{stated.where}: {len(groups)} groups of quantised layers are not supported")
        weights = groups.inner(next(iter(groups))).inner("weights")
        block = weights.list_of("block_structure", int, 2) if weights.get("block_structure") is not None else None
        return _scaled(tensors, "_scale", block)
    raise ConvertError(f"{stated.where}: weights quantised by {method!r} ({stated.get('format')}) are not read")


def _scaled(tensors: Mapping[str, Tensor], suffix: str, block: list[int] | None) -> Mapping[str, Tensor]:
    if block is not None and min(block) < 1:
        raise ConvertError(f"config.json: blocks of {block} weights are not possible")
    made = {}
    for name, tensor in tensors.items():
        if name.endswith(_UNUSED):
            continue
        if name.endswith(f"weight{suffix}"):
            if name.removesuffix(suffix) not in tensors:
                raise ConvertError(f"tensor {name} scales a tensor that is missing")
            continue
        scale = tensors.get(f"{name}{suffix}") if name.endswith("weight") else None
        made[name] = tensor if scale is None else _product(tensor, scale, block)
    return made


def _product(tensor: Tensor, scale: Tensor, block: list[int] | None) -> Tensor:
    shape = tensor.shape
    if block is not None:
        wanted = (*shape[:-2], *(-(n // -step) for n, step in zip(shape[-2:], block, strict=False)))
        if len(shape) < 2 or scale.shape != wanted:
            raise ConvertError(f"tensor {scale.name} is {list(scale.shape)}; {list(shape)} needs {list(wanted)}")
    elif not _broadcasts(scale.shape, shape):
        raise ConvertError(f"tensor {scale.name} of {list(scale.shape)} does not fit {tensor.name} of {list(shape)}")

    def multiplied(x: Array) -> Array:
        factor = scale.whole().astype(np.float32)
        if block is not None:
            factor = factor.repeat(block[0], axis=-2)[..., : shape[-2], :].repeat(block[1], axis=-1)[..., : shape[-1]]
        else:
            factor = factor.reshape(factor.shape + (1,) * (x.ndim - factor.ndim))
        return x.astype(np.float32) * factor

    return replace(tensor.remade(shape, multiplied), dtype="F32")


def _broadcasts(small: tuple[int, ...], large: tuple[int, ...]) -> bool:
    """Axes from the front: (R,) and (R, 1) fit (R, C)."""
    return len(small) <= len(large) and all(n in (1, m) for n, m in zip(small, large, strict=False))
