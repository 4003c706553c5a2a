"""Golden data of tiny random models from Hugging Face transformers: an implementation that shares nothing with ggml.

    python golden/make/transformers_models.py [--out golden/hf] [--seed 1]

NAME.gguf  the weights, float32, converted here (names by the gguf package's map)
NAME.npz   tokens (T,), logits (T, V), l_out (L, T, D) layer outputs, result_norm (T, D), config (JSON)

llama.cpp runs each file too, so that a mistake of this conversion cannot become a golden: the generator stops unless
both agree.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import torch
import transformers
from llamacpp import LlamaCpp, producer

FloatArray = npt.NDArray[np.float32]
VOCAB, N_TOKENS, CONTEXT = 96, 40, 256
SMALL = {
    "vocab_size": VOCAB, "hidden_size": 64, "intermediate_size": 112, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": CONTEXT,
    "attn_implementation": "eager", "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
}  # fmt: skip
# llama.cpp's GELU reads a half-precision table, transformers' does not
AGREE = {"llama": 1e-9, "gemma3": 1e-6}


def _rope(kind: str, **parameters: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **parameters}}


def _factors(seed: int) -> list[float]:
    return [float(f) for f in 1 + np.abs(np.random.RandomState(seed).standard_normal(8))]


LLAMA: dict[str, dict[str, Any]] = {
    "llama-untied": _rope("default"),
    "llama-llama3": {
        "tie_word_embeddings": True,
        **_rope(
            "llama3",
            factor=8.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=64,
        ),
    },
    "llama-yarn": _rope("yarn", factor=4.0, original_max_position_embeddings=64),
    "llama-linear": {"attention_bias": True, "mlp_bias": True, **_rope("linear", factor=4.0)},
    "llama-longrope": _rope(
        "longrope",
        factor=8.0,
        original_max_position_embeddings=32,
        short_factor=_factors(1),
        long_factor=_factors(2),
    ),
}
GEMMA3: dict[str, dict[str, Any]] = {
    "gemma3-window": {
        "num_hidden_layers": 4, "head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 8,
        "tie_word_embeddings": True, "rms_norm_eps": 1e-6,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            "full_attention": {"rope_type": "default", "rope_theta": 1000000.0},
        },
        "final_logit_softcapping": None, "attn_logit_softcapping": None,
    },
}  # fmt: skip


def fill(model: torch.nn.Module, arch: str, seed: int) -> None:
    """Weights that make attention peaked, so that a wrong rotation or mask shows in the logits."""
    generator = torch.Generator().manual_seed(seed)
    norm_mean = 0.0 if arch == "gemma3" else 1.0  # Gemma keeps w - 1
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1:
                parameter.copy_(0.1 * noise + (norm_mean if "norm" in name else 0.0))
            elif "embed_tokens" in name:
                parameter.copy_(0.5 * noise)
            else:
                peaked = any(part in name for part in ("q_proj", "k_proj", "o_proj"))
                parameter.copy_(noise * (2.5 if peaked else 1.0) / parameter.shape[1] ** 0.5)


def run(model: torch.nn.Module, ids: list[int]) -> dict[str, FloatArray]:
    outputs: list[torch.Tensor] = []
    hooks = [
        layer.register_forward_hook(lambda _m, _i, out: outputs.append(out[0] if isinstance(out, tuple) else out))
        for layer in model.model.layers
    ]
    hooks.append(model.model.norm.register_forward_hook(lambda _m, _i, out: outputs.append(out)))
    with torch.no_grad():
        logits = model(torch.tensor([ids]), use_cache=False).logits[0].numpy()
    for hook in hooks:
        hook.remove()
    *layers, norm = [out.reshape(len(ids), -1).numpy() for out in outputs]
    return {"logits": logits, "l_out": np.stack(layers), "result_norm": norm}


def _half_split_to_pairs(weight: FloatArray, heads: int) -> FloatArray:
    """Rows of a query or key projection from (first half, second half) to interleaved pairs, as GGUF's llama wants."""
    split = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return np.ascontiguousarray(split.swapaxes(1, 2).reshape(weight.shape))


def _tensors(model: torch.nn.Module, arch: str, config: Any) -> dict[str, FloatArray]:
    kind = {"llama": gguf.MODEL_ARCH.LLAMA, "gemma3": gguf.MODEL_ARCH.GEMMA3}[arch]
    names = gguf.get_tensor_name_map(kind, config.num_hidden_layers)
    out: dict[str, FloatArray] = {}
    for name, parameter in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        target = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if target is None:
            raise ValueError(f"no GGUF name for {name}")
        value = parameter.detach().numpy().astype(np.float32)
        if arch == "llama" and ("q_proj" in name or "k_proj" in name):
            heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            value = _half_split_to_pairs(value, heads)
        if arch == "gemma3" and name.endswith("norm.weight"):
            value = value + np.float32(1)
        out[target] = value
    return out


def _scaling(writer: gguf.GGUFWriter, rope: dict[str, Any], model: torch.nn.Module) -> dict[str, FloatArray]:
    """Write the scaling metadata of a llama file; returns the factor tensors that go with it."""
    kind = rope["rope_type"]
    if kind in ("default", "llama3"):
        if kind == "default":
            return {}
        plain = rope["rope_theta"] ** (-np.arange(8, dtype=np.float64) / 8)
        scaled = model.model.rotary_emb.inv_freq.double().numpy()
        return {"rope_freqs.weight": (plain / scaled).astype(np.float32)}
    writer.add_rope_scaling_type(gguf.RopeScalingType(kind))
    if kind != "longrope":  # llama.cpp would interpolate by it as well; longrope's factors say everything
        writer.add_rope_scaling_factor(rope["factor"])
    if kind != "linear":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    if kind == "longrope":
        writer.add_rope_scaling_attn_factors(model.model.rotary_emb.attention_scaling)
        return {f"rope_factors_{k}.weight": np.array(rope[f"{k}_factor"], np.float32) for k in ("long", "short")}
    return {}


def convert(model: torch.nn.Module, arch: str, config: Any, out: Path) -> None:
    writer = gguf.GGUFWriter(str(out), arch)
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    extra: dict[str, FloatArray] = {}
    if arch == "llama":
        writer.add_rope_dimension_count(head)
        writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
        extra = _scaling(writer, config.rope_parameters, model)
    else:
        writer.add_sliding_window(config.sliding_window)
        writer.add_sliding_window_pattern([kind == "sliding_attention" for kind in config.layer_types])
        writer.add_rope_freq_base(config.rope_parameters["full_attention"]["rope_theta"])
        writer.add_rope_freq_base_swa(config.rope_parameters["sliding_attention"]["rope_theta"])
    writer.add_tokenizer_model("test")
    writer.add_token_list([f"tok_{i}" for i in range(VOCAB)])
    writer.add_token_types([1] * VOCAB)
    for name, value in {**extra, **_tensors(model, arch, config)}.items():
        writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def make(name: str, arch: str, options: dict[str, Any], out: Path, seed: int) -> dict[str, float]:
    kinds = {
        "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
        "gemma3": (transformers.Gemma3TextConfig, transformers.Gemma3ForCausalLM),
    }
    config_class, model_class = kinds[arch]
    config = config_class(**{**SMALL, **options})
    model = model_class(config).float().eval()
    fill(model, arch, seed)
    ids = np.random.RandomState(seed).randint(0, VOCAB, N_TOKENS)
    found = run(model, ids.tolist())
    convert(model, arch, config, out / f"{name}.gguf")
    with LlamaCpp(out / f"{name}.gguf", n_batch=N_TOKENS, n_threads=1) as other:
        theirs = other.logits(ids.tolist()).astype(np.float64)
    truth = found["logits"].astype(np.float64)
    nmse = float((((theirs - truth) ** 2).sum(-1) / (truth**2).sum(-1)).max())
    print(f"{name:16} llama.cpp from transformers: NMSE {nmse:.1e}")
    if not nmse < AGREE[arch]:
        raise SystemExit(f"{name}: llama.cpp and transformers disagree: the conversion is wrong")
    np.savez_compressed(
        out / f"{name}.npz",
        tokens=ids.astype(np.int32),
        config=np.array(json.dumps(config.to_dict())),
        **found,
    )
    return {"llama.cpp_nmse": nmse}


def main() -> None:
    parser = argparse.ArgumentParser(description="golden data of tiny models from transformers")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent.parent / "hf")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    files: dict[str, Any] = {}
    for arch, models in (("llama", LLAMA), ("gemma3", GEMMA3)):
        for name, options in models.items():
            measured = make(name, arch, options, args.out, args.seed)
            files[f"{name}.gguf"] = {"seed": args.seed, "tolerance": "exact"}
            files[f"{name}.npz"] = {"seed": args.seed, "tolerance": {"nmse": 1e-9}, "measured": measured}
    facts = {
        "made_by": "golden/make/transformers_models.py",
        "producer": "transformers",
        "version": f"{transformers.__version__}, torch {torch.__version__}; cross-checked by {' '.join(producer())}",
        "files": files,
    }
    (args.out / "facts.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
