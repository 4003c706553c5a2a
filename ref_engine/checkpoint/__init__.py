"""A model as training leaves it, a Hugging Face directory: its configuration, and its tensors without reading them."""

from ref_engine.checkpoint.config import Config, read_config, read_json
from ref_engine.checkpoint.safetensors import open_checkpoint
from ref_engine.checkpoint.tensor import Array, Tensor, concatenated, given, stacked

__all__ = [
    "Array",
    "Config",
    "Tensor",
    "concatenated",
    "given",
    "open_checkpoint",
    "read_config",
    "read_json",
    "stacked",
]
