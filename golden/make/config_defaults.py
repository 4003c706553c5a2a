"""What transformers fills into a configuration that does not say it: ref_engine/archs/hf/defaults.json.

    python golden/make/config_defaults.py

For each model type: values of the fields that conversion reads, names that it takes as aliases, the base of rotary
positions and their share, and whether a missing head_dim is computed. golden/convert/configs.json.gz holds probes:
small configurations, old and new in style, and what `AutoConfig` makes of them.
"""

from __future__ import annotations

import copy
import dataclasses
import gzip
import json
from pathlib import Path
from typing import Any

from transformers import CONFIG_MAPPING

ROOT = Path(__file__).parents[2]
TYPES = [
    "llama",
    "mistral",
    "mixtral",
    "arcee",
    "smollm3",
    "apertus",
    "qwen2",
    "qwen2_moe",
    "qwen3",
    "qwen3_moe",
    "qwen3_next",
    "qwen3_5_text",
    "qwen3_5_moe_text",
    "ministral3",
    "minimax_m2",
    "dots1",
    "seed_oss",
    "gemma",
    "gemma2",
    "gemma3_text",
    "phi",
    "phi3",
    "phimoe",
    "olmo",
    "olmo2",
    "olmo3",
    "olmoe",
    "gpt2",
    "gpt_bigcode",
    "gpt_neox",
    "bloom",
    "falcon",
    "mpt",
    "stablelm",
    "starcoder2",
    "gpt_oss",
    "cohere",
    "cohere2",
    "deepseek_v2",
    "deepseek_v3",
    "glm",
    "glm4",
    "glm4_moe",
    "granite",
    "granitemoe",
    "granitemoeshared",
    "jamba",
    "ernie4_5",
    "ernie4_5_moe",
    "exaone4",
    "hunyuan_v1_dense",
    "lfm2",
    "lfm2_moe",
    "nemotron",
    "bert",
    "distilbert",
    "roberta",
]
LEFT_OUT = {
    "transformers_version", "architectures", "output_hidden_states", "return_dict", "dtype", "chunk_size_feed_forward",
    "is_encoder_decoder", "id2label", "label2id", "problem_type", "use_cache", "initializer_range", "rope_parameters",
    "output_router_logits", "router_aux_loss_coef", "attention_dropout", "bos_token_id", "eos_token_id", "pad_token_id",
    "pretraining_tp", "resid_pdrop", "embd_pdrop", "attn_pdrop", "hidden_dropout", "attention_probs_dropout_prob",
}  # fmt: skip
OLD = {
    "hidden_size": 64,
    "num_attention_heads": 4,
    "rope_theta": 5000.0,
    "rope_scaling": {"type": "linear", "factor": 2.0},
}
PARTIAL = {"hidden_size": 64, "num_attention_heads": 4, "partial_rotary_factor": 0.75}


def made(kind: Any, values: dict[str, Any]) -> dict[str, Any]:
    return kind.from_dict(copy.deepcopy(values)).to_dict()


def plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(plain(v) for v in value.values())
    return isinstance(value, bool | int | float | str) or value is None


def main() -> None:
    table, probes = {}, []
    for name in TYPES:
        kind = CONFIG_MAPPING[name]
        fields = {f.name: f.default for f in dataclasses.fields(kind) if f.default is not dataclasses.MISSING}
        values = {
            key: value for key, value in fields.items() if plain(value) and key not in LEFT_OUT and "drop" not in key
        }
        least = made(kind, {"hidden_size": 64, "num_attention_heads": 4})
        entry: dict[str, Any] = {"values": values}
        if kind.attribute_map:
            entry["aliases"] = kind.attribute_map
        entry["head_dim"] = (fields.get("head_dim", 0) is None and least.get("head_dim") == 16) or (
            "head_dim" not in fields and least.get("head_dim") == 16
        )
        if "num_kv_heads" in fields and fields["num_kv_heads"] is None:
            entry["num_kv_heads"] = True
        if (rope := least.get("rope_parameters")) is not None:
            entry["rope"] = rope
        table[name] = entry
        for raw in (
            {},
            OLD,
            PARTIAL,
            {"hidden_size": 96, "num_attention_heads": 6, "num_key_value_heads": 3, "head_dim": 32},
        ):
            raw = {"model_type": name, **copy.deepcopy(raw)}
            try:
                probes.append([raw, {k: v for k, v in made(kind, raw).items() if plain(v)}])
            except Exception as error:  # noqa: BLE001 (told, and left out)
                print("no probe", name, raw, str(error)[:80])
    path = ROOT / "ref_engine" / "archs" / "hf" / "defaults.json"
    path.write_text(json.dumps(table, indent=0, sort_keys=True) + "\n")
    out = ROOT / "golden" / "convert" / "configs.json.gz"
    out.write_bytes(gzip.compress(json.dumps(probes, sort_keys=True).encode(), mtime=0))
    print(len(table), path.stat().st_size, out.stat().st_size)


if __name__ == "__main__":
    main()
