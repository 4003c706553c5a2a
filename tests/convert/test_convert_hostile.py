"""Checkpoints that are damaged, incomplete or lie: one clear line, and no file."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import FAMILIES

from ref_engine.convert import plan_conversion, write_plan
from ref_engine.errors import ConvertError, RefEngineError

Checkpoint = Callable[..., Path]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"architectures": ["NoSuchForCausalLM"]}, "architecture 'NoSuchForCausalLM' has no recipe"),
        ({"architectures": []}, "architectures is missing"),
        ({"architectures": "LlamaForCausalLM"}, "architectures must be a list"),
        ({"architectures": [3]}, "architectures must be a list"),
        ({"num_hidden_layers": 10**9}, "layers are more than"),
        ({"num_hidden_layers": "2"}, "num_hidden_layers cannot be '2'"),
        ({"num_hidden_layers": -1}, "num_hidden_layers cannot be '-1'"),
        ({"num_hidden_layers": True}, "num_hidden_layers cannot be"),
        ({"num_hidden_layers": 1}, r"tensor .model\.layers\.1\..* is not known .*config\.json has 1 layers"),
        ({"num_hidden_layers": 3}, r"tensor blk\.2\..* is missing"),
        ({"num_attention_heads": 0}, "num_attention_heads cannot be '0'"),
        ({"num_attention_heads": 7}, "does not hold 7 heads"),
        ({"hidden_size": 1 << 40}, "which is not a whole number that fits"),
        ({"hidden_size": 128}, "the metadata ask for"),
        ({"vocab_size": 1 << 30}, "a vocabulary of 1073741824 tokens"),
        ({"vocab_size": 100}, "the metadata ask for"),
        ({"rms_norm_eps": float("nan")}, "rms_epsilon the value 'nan'"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": "x"}}, "rope.freq_base the value 'x'"),
        ({"rope_parameters": []}, "rope_parameters must be an object"),
        ({"text_config": 3}, "text_config must be an object"),
        ({"quantization_config": {"quant_method": "awq"}}, "weights quantised by 'awq'"),
    ],
)
def test_configurations(config: dict[str, Any], message: str, checkpoint: Checkpoint) -> None:
    with pytest.raises(RefEngineError, match=message) as caught:
        plan_conversion(checkpoint("llama", **config))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "[" * 100000], ids=str.__len__)
def test_config_that_is_not_an_object(text: str, checkpoint: Checkpoint) -> None:
    folder = checkpoint("llama")
    (folder / "config.json").write_text(text)
    with pytest.raises(ConvertError, match=r"config\.json: not "):
        plan_conversion(folder)


def test_config_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ConvertError, match=r"config\.json: No such file"):
        plan_conversion(tmp_path)
    with pytest.raises(ConvertError, match="not a directory"):
        plan_conversion(tmp_path / "none")


def rewrite(tool: Any, folder: Path, name: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Write the weights of a family anew after a change of their table."""
    tensors = {
        key: (dtype, shape, tool.encode(key, dtype, shape)) for key, (dtype, shape) in FAMILIES[name]["listing"].items()
    }
    change(tensors)
    for part in folder.glob("*.safetensors*"):
        part.unlink()
    tool.write_safetensors(folder / "model.safetensors", tensors)


def test_a_tensor_that_no_map_knows(checkpoint: Checkpoint, tool: Any) -> None:
    folder = checkpoint("llama")
    rewrite(tool, folder, "llama", lambda t: t.update({"model.layers.0.extra.weight": ("F32", [2], bytes(8))}))
    with pytest.raises(
        ConvertError, match=r"tensor 'model\.layers\.0\.extra\.weight' is not known for architecture llama"
    ):
        plan_conversion(folder)


def test_a_layer_beyond_the_last(checkpoint: Checkpoint, tool: Any) -> None:
    folder = checkpoint("llama")
    rewrite(
        tool, folder, "llama", lambda t: t.update({"model.layers.9.input_layernorm.weight": ("F32", [64], bytes(256))})
    )
    with pytest.raises(ConvertError, match=r"config\.json has 2 layers"):
        plan_conversion(folder)


def test_a_missing_tensor(checkpoint: Checkpoint, tool: Any) -> None:
    folder = checkpoint("llama")
    rewrite(tool, folder, "llama", lambda t: t.pop("model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(ConvertError, match=r"tensor blk\.1\.ffn_up\.weight is missing"):
        plan_conversion(folder)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.layers.0.mlp.experts.4.up_proj.weight", "one of more than the 4 experts"),
        (None, r"experts\.2\.down_proj\.weight is missing"),
    ],
)
def test_experts_that_do_not_add_up(name: str | None, message: str, checkpoint: Checkpoint, tool: Any) -> None:
    folder = checkpoint("olmoe")

    def split(tensors: dict[str, Any]) -> None:
        for layer in range(2):
            for part in ("gate_up_proj", "down_proj"):
                tensors.pop(f"model.layers.{layer}.mlp.experts.{part}", None)
            for expert in range(4):
                for part, shape in (("gate_proj", [32, 64]), ("up_proj", [32, 64]), ("down_proj", [64, 32])):
                    key = f"model.layers.{layer}.mlp.experts.{expert}.{part}.weight"
                    tensors[key] = ("F32", shape, tool.encode(key, "F32", shape))
        if name is None:
            tensors.pop("model.layers.1.mlp.experts.2.down_proj.weight")
        else:
            tensors[name] = ("F32", [32, 64], tool.encode(name, "F32", [32, 64]))

    rewrite(tool, folder, "olmoe", split)
    with pytest.raises(ConvertError, match=message):
        plan_conversion(folder, pre="gpt-2")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite(value: float, checkpoint: Checkpoint, tool: Any) -> None:
    folder = checkpoint("llama")
    name = "model.layers.1.mlp.up_proj.weight"

    def spoil(tensors: dict[str, Any]) -> None:
        dtype, shape, data = tensors[name]
        values = np.frombuffer(data, np.float32).copy()
        values[77] = value
        tensors[name] = (dtype, shape, values.tobytes())

    rewrite(tool, folder, "llama", spoil)
    plan = plan_conversion(folder, "f32")
    target = folder / "out.gguf"
    with pytest.raises(ConvertError, match=rf"tensor {re.escape(name)}: weight .* cannot be quantised"):
        write_plan(plan, target)
    assert sorted(p.name for p in folder.glob("*out.gguf*")) == []


def test_weights_beyond_float16(checkpoint: Checkpoint, tool: Any) -> None:
    folder = checkpoint("llama")
    name = "model.layers.0.mlp.down_proj.weight"

    def enlarge(tensors: dict[str, Any]) -> None:
        dtype, shape, data = tensors[name]
        tensors[name] = (dtype, shape, (np.frombuffer(data, np.float32) * 1e6).tobytes())

    rewrite(tool, folder, "llama", enlarge)
    with pytest.raises(ConvertError, match=rf"{re.escape(name)} holds .*, which float16 cannot; --outtype bf16"):
        write_plan(plan_conversion(folder, "f16"), folder / "out.gguf")
    write_plan(plan_conversion(folder, "bf16"), folder / "out.gguf")


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("tokenizer.json", "{}", r"tokenizer\.json: cannot be used"),
        ("tokenizer.json", "[", r"tokenizer\.json: not JSON"),
        ("tokenizer_config.json", "[]", r"tokenizer_config\.json: not a JSON object"),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"x": {}}}', "'x' is not a token's number"),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"5": {"content": 3}}}', "added token 5 has no text"),
        ("README.md", "---\na: [\n---\n", r"README\.md: its header is not YAML"),
        ("generation_config.json", "{", r"generation_config\.json: not JSON"),
        ("generation_config.json", '{"temperature": "hot"}', "FLOAT32"),
    ],
)
def test_files_beside_the_weights(file: str, text: str, message: str, checkpoint: Checkpoint) -> None:
    folder = checkpoint("qwen2")
    (folder / file).write_text(text)
    with pytest.raises(RefEngineError, match=message) as caught:
        write_plan(plan_conversion(folder, pre="gpt-2"), folder / "out.gguf")
    assert "\n" not in str(caught.value)
    assert not list(folder.glob("*out.gguf*"))


def test_a_tokenizer_that_is_not_there(checkpoint: Checkpoint) -> None:
    folder = checkpoint("qwen2")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ConvertError, match=r"tokenizer\.json: missing, and so are vocab\.json and merges\.txt"):
        plan_conversion(folder)


def test_a_pre_tokenizer_that_is_not_known(checkpoint: Checkpoint) -> None:
    with pytest.raises(ConvertError, match=r"the pre-tokenizer is not one that is known \(hash [0-9a-f]{64}\); --pre"):
        plan_conversion(checkpoint("qwen2"))


def test_a_damaged_sentencepiece_model(checkpoint: Checkpoint) -> None:
    folder = checkpoint("llama")
    whole = (folder / "tokenizer.model").read_bytes()
    for data in (
        b"",
        b"hello",
        whole[:1000],
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x0a\x03\x0a\x01\xff",
    ):
        (folder / "tokenizer.model").write_bytes(data)
        with pytest.raises(ConvertError, match=r"tokenizer\.model: ") as caught:
            plan_conversion(folder)
        assert "\n" not in str(caught.value)


def test_special_tokens_that_are_out_of_range(checkpoint: Checkpoint) -> None:
    with pytest.raises(ConvertError, match="the token for bos is -5"):
        plan_conversion(checkpoint("llama", bos_token_id=-5))
    plan = plan_conversion(checkpoint("llama", bos_token_id=10**6))
    assert "tokenizer.ggml.bos_token_id" not in plan.metadata


def test_json_beyond_the_index(checkpoint: Checkpoint) -> None:
    folder = checkpoint("mixtral")
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["model.norm.weight"] = "../../secret"
    path.write_text(json.dumps(index))
    with pytest.raises(ConvertError, match="is not the name of a file in this directory"):
        plan_conversion(folder)
