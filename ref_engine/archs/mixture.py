"""What `llama-quantize` does differently for single architectures when it chooses a type for each tensor.

Source: `tensor_allows_quantization` and `llama_tensor_get_type_impl` of llama-quant.cpp, and the sizes that the
model loaders call 70B.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Exceptions:
    """Of one architecture, from the rules of `ref_engine.mixture`.

    output_is_q8:    the output matrix is Q8_0 whatever the file type
    spares_ffn_down: fewer bits for `ffn_down` and none extra for `attn_output`
    experts_by_role: with MXFP4_MOE only stacked feed-forward matrices are experts, not every matrix of three axes
    at_least_q8:     parts of names of tensors that get no type below Q8_0
    untouched:       parts of names of tensors that are copied
    large:           numbers of layers at which `attn_v` gets more bits because few key/value heads share much work
    """

    output_is_q8: bool = False
    spares_ffn_down: bool = False
    experts_by_role: bool = False
    at_least_q8: tuple[str, ...] = ()
    untouched: tuple[str, ...] = ()
    large: tuple[int, ...] = ()


_EXCEPTIONS: dict[str, Exceptions] = {
    "falcon": Exceptions(output_is_q8=True, spares_ffn_down=True),
    "bailingmoe3": Exceptions(experts_by_role=True),
    "glm5-next": Exceptions(
        at_least_q8=("attn_q_a", "attn_q_b", "nextn.eh_proj"),
        untouched=(
            "hc_", "indexer.attn_q_b", "indexer.attn_k", "indexer.proj", "indexer_compressor_gate",
            "indexer_compressor_ape", "ssm_f_a.weight", "ssm_f_b.weight", "ssm_g_a.weight", "ssm_g_b.weight",
            "ssm_beta.weight", "attn_kv_a_mqa.weight", "attn_k_b.weight", "attn_v_b.weight",
        ),
    ),
    "llama": Exceptions(large=(80,)),
    "qwen2": Exceptions(large=(80,)),
    "deci": Exceptions(large=(80,)),
    "olmo": Exceptions(large=(80,)),
    "jais2": Exceptions(large=(68,)),
}  # fmt: skip
_LARGE_ONLY_WITH_SHARED_HEADS = frozenset({"llama"})


def exceptions(architecture: str) -> Exceptions:
    return _EXCEPTIONS.get(architecture, Exceptions())


def is_large(architecture: str, n_layer: int, shares_heads: bool) -> bool:
    """The sizes called 70B. shares_heads: fewer key/value heads than query heads."""
    if architecture in _LARGE_ONLY_WITH_SHARED_HEADS and not shares_heads:
        return False
    return n_layer in exceptions(architecture).large
