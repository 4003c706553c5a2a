"""A configuration as transformers completes it: defaults of its class, one way to say how positions are rotated.

llama.cpp's converter reads configurations through transformers' `AutoConfig`; real ones leave out what is the default
there. `defaults.json` holds those defaults (made by golden/make/config_defaults.py from transformers).

Sources: `PreTrainedConfig` and `modeling_rope_utils.py` of transformers; `TextModel.__init__` of llama.cpp.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from ref_engine.checkpoint import Config

_TEXT = ("text_config", "llm_config", "lm_config", "language_config")
_THETA = ("global_rope_theta", "rope_global_theta", "rope_theta_global", "rope_theta", "rotary_emb_base")
_LOCAL_THETA = ("local_rope_theta", "rope_local_theta", "rope_theta_local", "swa_rope_theta", "rope_local_base_freq")
_SHARE = ("partial_rotary_factor", "rope_pct", "rope_percent")
_KINDS = ("full_attention", "sliding_attention")
_GIVEN = ("rope_theta", "partial_rotary_factor")
_STRETCHED = ("llama3", "yarn", "longrope")
_LONG_BY_ANY_NAME = ("phi3",)  # model types that mean longrope by "su" and "yarn"


@cache
def _defaults() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(Path(__file__).with_name("defaults.json").read_text(encoding="utf-8"))
    return table


def normalised(config: Config) -> Config:
    """The text model's values at the top, defaults filled in, rope_parameters in one form. Raises ConvertError."""
    values = dict(config)
    inner = next((name for name in _TEXT if isinstance(values.get(name), dict)), None)
    if inner is not None:
        values |= _completed(Config(values[inner], f"{config.where}: {inner}"))
    else:
        values = _completed(config)
    return _with_rope(Config(values, config.where))


def _completed(config: Config) -> dict[str, Any]:
    """What transformers' class of this model type adds."""
    kind = config.get("model_type")
    entry = _defaults().get(kind) if isinstance(kind, str) else None
    values = dict(config)
    if entry is None:
        return values
    for alias, name in entry.get("aliases", {}).items():
        if alias in values:
            values.setdefault(name, values.pop(alias))
    values = {**entry["values"], **values}
    full = Config(values, config.where)
    if values.get("num_key_value_heads", 0) is None:
        values["num_key_value_heads"] = full.n_heads
    if entry["head_dim"] and values.get("head_dim") is None:
        values["head_dim"] = full.width // full.n_heads
    if entry.get("num_kv_heads") and values.get("num_kv_heads") is None:
        values["num_kv_heads"] = full.n_heads
    if "rope" in entry:
        values["rope_parameters"] = _class_rope(full, entry["rope"])
        for name in ("rope_scaling", "rope_theta", "partial_rotary_factor", "rope_local_base_freq"):
            values.pop(name, None)
    return values


def _class_rope(config: Config, default: dict[str, Any]) -> dict[str, Any]:
    """`standardize_rope_params`; `default` is what the class gives where config.json says nothing."""
    stated = config.inner("rope_scaling") or config.inner("rope_parameters")
    if "full_attention" in default:
        both = config.inner("rope_parameters")
        full = {**(both.inner("full_attention") or {"rope_type": "default"}), **config.inner("rope_scaling")}
        full.setdefault("rope_theta", config.get("rope_theta", default["full_attention"]["rope_theta"]))
        sliding = dict(both.inner("sliding_attention"))
        theta = config.get("rope_local_base_freq", default["sliding_attention"]["rope_theta"])
        sliding.setdefault("rope_theta", theta)
        return {"full_attention": _typed(config, full), "sliding_attention": _typed(config, sliding)}
    if any(kind in stated for kind in _KINDS):
        return {kind: _typed(config, dict(stated.inner(kind))) for kind in _KINDS if kind in stated}
    rope = dict(stated) if stated else {k: v for k, v in default.items() if k not in _GIVEN}
    rope.setdefault("rope_theta", config.get("rope_theta", default["rope_theta"]))
    share = config.get("partial_rotary_factor", default.get("partial_rotary_factor"))
    if share is not None:
        rope.setdefault("partial_rotary_factor", share)
    rope = _typed(config, rope)
    if config.get("model_type") in _LONG_BY_ANY_NAME and rope["rope_type"] in ("su", "yarn"):
        rope["rope_type"] = "longrope"
    return rope


def _typed(config: Config, rope: dict[str, Any]) -> dict[str, Any]:
    rope.setdefault("rope_type", rope.get("type", "default"))
    if rope["rope_type"] in _STRETCHED:
        if config.get("original_max_position_embeddings") is not None:
            rope["original_max_position_embeddings"] = config["original_max_position_embeddings"]
        else:
            rope.setdefault("original_max_position_embeddings", config.get("max_position_embeddings"))
    return rope


def _with_rope(config: Config) -> Config:
    """`TextModel.__init__`: values beside rope_parameters belong into it."""
    rope = dict(config.inner("rope_parameters") or config.inner("rope_scaling"))
    if not any(kind in rope for kind in _KINDS):
        if (local := config.first(*_LOCAL_THETA)) is not None:
            rope["sliding_attention"] = {"rope_theta": local}
        for name, value in (
            ("rope_theta", config.first(*_THETA)),
            ("rope_type", rope.get("type")),
            ("partial_rotary_factor", config.first(*_SHARE)),
            ("original_max_position_embeddings", config.get("original_max_position_embeddings")),
        ):
            if value is not None:
                rope.setdefault(name, value)
    return config.changed(rope_parameters=rope)
