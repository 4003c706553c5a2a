"""The small models of golden/convert: for each a configuration of transformers and the kind of tokenizer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

VOCAB = 320


@dataclass(frozen=True)
class Family:
    model_type: str
    options: dict[str, Any] = field(default_factory=dict)
    tokenizer: str = "bpe"
    dtype: str = "F32"
    outtype: str = "f32"
    shards: int = 1
    head: str = "causal"  # or "encoder"
    logits: bool = True  # does llama.cpp's graph compute what transformers does?
    extra: dict[str, Any] = field(default_factory=dict)  # what config.json says beyond transformers


BASE = {
    "vocab_size": VOCAB, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
MLA = {
    "q_lora_rank": 32, "kv_lora_rank": 32, "qk_nope_head_dim": 16, "qk_rope_head_dim": 16, "v_head_dim": 16,
    "num_key_value_heads": 4, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
    "n_shared_experts": 1, "first_k_dense_replace": 1,
}  # fmt: skip
LLAMA3 = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0, "original_max_position_embeddings": 64}  # fmt: skip
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64}
LONG = {"rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0 + 0.1 * i for i in range(8)],
        "long_factor": [2.0 + 0.3 * i for i in range(8)], "original_max_position_embeddings": 64}  # fmt: skip
LINEAR = {
    "num_hidden_layers": 4, "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
}  # fmt: skip
MAMBA = {"hidden_size": 64, "state_size": 8, "num_hidden_layers": 2, "vocab_size": VOCAB, "conv_kernel": 4,
         "expand": 2, "time_step_rank": 4, "intermediate_size": 128}  # fmt: skip
GPT2 = {
    "n_embd": 64,
    "n_head": 4,
    "n_layer": 2,
    "n_positions": 256,
    "vocab_size": VOCAB,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
BERT = {"vocab_size": VOCAB, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 96, "max_position_embeddings": 128}  # fmt: skip

FAMILIES: dict[str, Family] = {
    "llama": Family("llama", BASE, "spm", outtype="f16"),
    "llama-hf-tokenizer": Family("llama", {**BASE, "vocab_size": 314}, "fallback"),
    "llama3": Family(
        "llama",
        {**BASE, "rope_parameters": LLAMA3, "tie_word_embeddings": True},
        dtype="BF16",
        outtype="auto",
        shards=3,
    ),
    "llama-yarn-q8": Family(
        "llama", {**BASE, "rope_parameters": YARN, "head_dim": 32, "attention_bias": True}, outtype="q8_0"
    ),
    "mistral": Family("mistral", BASE, "spm", dtype="BF16", outtype="bf16"),
    "mixtral": Family("mixtral", {**BASE, "num_local_experts": 4}, "spm", shards=2),
    "qwen2": Family("qwen2", BASE, "byte-level", dtype="F16", outtype="auto"),
    "qwen2moe": Family("qwen2_moe", {**BASE, **EXPERTS, "shared_expert_intermediate_size": 32}),
    "qwen3": Family("qwen3", {**BASE, "head_dim": 32, "tie_word_embeddings": True}),
    "qwen3moe": Family("qwen3_moe", {**BASE, **EXPERTS, "head_dim": 32}, outtype="q8_0"),
    "qwen3next": Family(
        "qwen3_next",
        {
            **BASE,
            **EXPERTS,
            "head_dim": 32,
            "num_hidden_layers": 4,
            "shared_expert_intermediate_size": 32,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": 16,
            "linear_value_head_dim": 16,
        },
    ),
    "qwen35": Family(
        "qwen3_5_text",
        {**BASE, **LINEAR, "head_dim": 32},
        extra={"architectures": ["Qwen3_5ForCausalLM"]},
    ),
    "qwen35moe": Family(
        "qwen3_5_moe_text",
        {**BASE, **LINEAR, **EXPERTS, "head_dim": 32, "shared_expert_intermediate_size": 32},
        "byte-level",
        extra={"architectures": ["Qwen3_5MoeForCausalLM"]},
    ),
    "ministral3": Family(
        "ministral3",
        {
            **BASE,
            "head_dim": 16,
            "rope_parameters": {
                **YARN,
                "mscale_all_dim": 1.0,
                "mscale": 1.0,
                "llama_4_scaling_beta": 0.1,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
            },
        },
        "spm",
    ),
    "minimax-m2": Family(
        "minimax_m2",
        {
            **BASE,
            "head_dim": 16,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "intermediate_size": 32,
            "rotary_dim": 8,
        },
        extra={"rotary_dim": 8, "scoring_func": "sigmoid"},
    ),
    "gemma": Family("gemma", {**BASE, "head_dim": 16}, "spm"),
    "gemma2": Family("gemma2", {**BASE, "head_dim": 16, "sliding_window": 16, "query_pre_attn_scalar": 16}, "spm"),
    "gemma3": Family(
        "gemma3_text",
        {**BASE, "head_dim": 16, "sliding_window": 16, "num_hidden_layers": 6, "query_pre_attn_scalar": 16},
        "spm",
    ),
    "phi2": Family("phi", {**BASE, "num_key_value_heads": 4, "intermediate_size": 256}),
    "phi3": Family("phi3", {**BASE, "original_max_position_embeddings": 256}, "spm"),
    "phi3-long": Family(
        "phi3", {**BASE, "original_max_position_embeddings": 64, "rope_parameters": LONG, "sliding_window": 128}, "spm"
    ),
    "phimoe": Family(
        "phimoe",
        {
            **BASE,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "lm_head_bias": True,
            "attention_bias": True,
            "original_max_position_embeddings": 64,
            "rope_parameters": {**LONG, "short_mscale": 1.1, "long_mscale": 1.2},
        },
        "spm",
        logits=False,
        extra={"architectures": ["PhiMoEForCausalLM"]},
    ),  # its router leaves experts out by distance
    "olmo": Family("olmo", {**BASE, "clip_qkv": 8.0}),
    "olmo2": Family("olmo2", BASE),
    "olmo3": Family("olmo3", {**BASE, "num_hidden_layers": 4, "sliding_window": 16}),
    "olmoe": Family("olmoe", {**BASE, "num_experts": 4, "num_experts_per_tok": 2, "intermediate_size": 32}),
    "gpt2": Family("gpt2", GPT2, extra={"n_ctx": 256}),
    "starcoder": Family("gpt_bigcode", GPT2),
    "gptneox": Family("gpt_neox", BASE, extra={"rotary_pct": 0.25}),
    "falcon-7b": Family(
        "falcon", {**BASE, "multi_query": True, "bias": False, "parallel_attn": True}, extra={"num_kv_heads": 1}
    ),
    "falcon-40b": Family("falcon", {**BASE, "new_decoder_architecture": True, "num_kv_heads": 2, "bias": False}),
    "bloom": Family("bloom", {"vocab_size": VOCAB, "hidden_size": 64, "n_layer": 2, "n_head": 4}),
    "mpt": Family(
        "mpt",
        {"vocab_size": VOCAB, "d_model": 64, "n_layers": 2, "n_heads": 4, "max_seq_len": 256},
        extra={"architectures": ["MPTForCausalLM"]},
    ),
    "stablelm": Family("stablelm", BASE),
    "starcoder2": Family("starcoder2", BASE),
    "command-r": Family("cohere", BASE),
    "cohere2": Family("cohere2", {**BASE, "num_hidden_layers": 4, "sliding_window": 16}, extra={"rotary_pct": 1.0}),
    "deepseek2": Family("deepseek_v2", {**BASE, **MLA}),
    "deepseek2-lite": Family("deepseek_v2", {**BASE, **MLA, "q_lora_rank": None}),
    "deepseek3": Family(
        "deepseek_v3", {**BASE, **MLA, "n_group": 2, "topk_group": 1}, extra={"scoring_func": "sigmoid"}
    ),
    "deepseek3-yarn": Family(
        "deepseek_v3",
        {
            **BASE,
            **MLA,
            "n_group": 2,
            "topk_group": 1,
            "rope_parameters": {**YARN, "mscale": 1.0, "mscale_all_dim": 1.0, "beta_fast": 32, "beta_slow": 1},
        },
        extra={"scoring_func": "sigmoid"},
    ),
    "glm": Family("glm", {**BASE, "head_dim": 16, "pad_token_id": 0}, "glm"),
    "glm4": Family("glm4", {**BASE, "head_dim": 16}, "glm"),
    "glm4moe": Family(
        "glm4_moe",
        {
            **BASE,
            "head_dim": 16,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "first_k_dense_replace": 1,
            "use_qk_norm": True,
            "num_nextn_predict_layers": 0,
        },
        "glm",
    ),
    "granite": Family(
        "granite",
        {
            **BASE,
            "attention_multiplier": 0.25,
            "embedding_multiplier": 2.0,
            "residual_multiplier": 0.5,
            "logits_scaling": 2.0,
        },
    ),
    "granitemoe": Family(
        "granitemoe", {**BASE, "num_local_experts": 4, "num_experts_per_tok": 2, "intermediate_size": 32}
    ),
    "granitemoe-shared": Family(
        "granitemoeshared",
        {
            **BASE,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "intermediate_size": 32,
            "shared_intermediate_size": 64,
        },
    ),
    "gpt-oss": Family(
        "gpt_oss",
        {
            **BASE,
            "head_dim": 16,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "intermediate_size": 32,
            "sliding_window": 16,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        },
    ),
    "ernie4_5": Family("ernie4_5", {**BASE, "head_dim": 16}, "spm"),
    "ernie4_5-moe": Family(
        "ernie4_5_moe",
        {
            **BASE,
            "intermediate_size": 128,
            "moe_num_experts": 4,
            "moe_k": 2,
            "moe_intermediate_size": 32,
            "moe_num_shared_experts": 2,
            "moe_layer_start_index": 1,
            "moe_layer_interval": 1,
            "moe_layer_end_index": 1,
        },
        "spm",
    ),
    "hunyuan": Family("hunyuan_v1_dense", {**BASE, "head_dim": 16}),
    "smollm3": Family("smollm3", {**BASE, "num_hidden_layers": 4}),
    "nemotron": Family("nemotron", BASE, "spm"),
    "mamba": Family("mamba", MAMBA),
    "falcon-mamba": Family("falcon_mamba", MAMBA),
    "mamba2": Family(
        "mamba2",
        {
            "vocab_size": VOCAB,
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "state_size": 16,
            "num_heads": 8,
            "head_dim": 16,
            "n_groups": 2,
            "expand": 2,
        },
    ),
    "jamba": Family(
        "jamba",
        {
            **BASE,
            "num_hidden_layers": 4,
            "attn_layer_period": 4,
            "attn_layer_offset": 2,
            "expert_layer_period": 2,
            "expert_layer_offset": 1,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "mamba_d_state": 8,
            "mamba_d_conv": 4,
            "mamba_dt_rank": 4,
            "use_mamba_kernels": False,
        },
        "spm",
    ),
    "exaone4": Family(
        "exaone4",
        {**BASE, "num_hidden_layers": 4, "sliding_window": 16, "sliding_window_pattern": 4, "rope_parameters": LLAMA3},
        logits=False,
    ),  # windows only in the 32B
    "exaone4-plain": Family(
        "exaone4",
        {
            **BASE,
            "sliding_window": None,
            "sliding_window_pattern": 1,
            "layer_types": ["full_attention"] * 2,
            "rope_parameters": LLAMA3,
        },
    ),
    "seed-oss": Family("seed_oss", {**BASE, "head_dim": 16}),
    "apertus": Family("apertus", {**BASE, "rope_parameters": LLAMA3}),
    "arcee": Family("arcee", BASE),
    "dots1": Family(
        "dots1",
        {
            **BASE,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "n_shared_experts": 1,
            "first_k_dense_replace": 1,
            "n_group": 1,
            "topk_group": 1,
        },
        extra={"scoring_func": "sigmoid"},
    ),
    "lfm2": Family(
        "lfm2",
        {
            **BASE,
            "num_hidden_layers": 4,
            "layer_types": ["conv", "full_attention", "conv", "full_attention"],
            "block_ff_dim": 96,
            "block_auto_adjust_ff_dim": False,
        },
    ),
    "lfm2moe": Family(
        "lfm2_moe",
        {
            **BASE,
            "num_hidden_layers": 4,
            "layer_types": ["conv", "full_attention", "conv", "full_attention"],
            "num_dense_layers": 1,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
        },
    ),
    "bert": Family("bert", BERT, "wpm", head="encoder"),
    "bert-f16": Family("bert", {**BERT, "layer_norm_eps": 1e-5}, "wpm", head="encoder", outtype="f16"),
    "distilbert": Family(
        "distilbert",
        {"vocab_size": VOCAB, "dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 96, "max_position_embeddings": 128},
        "wpm",
        head="encoder",
    ),
    "roberta": Family(
        "roberta", {**BERT, "pad_token_id": 1, "max_position_embeddings": 130}, "roberta", head="encoder"
    ),
}
