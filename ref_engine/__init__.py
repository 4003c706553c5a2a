"""ref-engine: a GGUF inference engine whose every step can be read, run and checked.

import ref_engine
m = ref_engine.load("model.gguf")
print("".join(e.text for e in m.generate("Once upon a time", max_tokens=32, temperature=0)))
"""

from ref_engine.errors import (
    ContextFull,
    GGUFError,
    ModelError,
    RefEngineError,
    StoreError,
    TemplateError,
    TokenizerError,
)
from ref_engine.model import Model, load
from ref_engine.text.tokenizer import Tokenizer, load_tokenizer
from ref_engine.trace import Trace, trace
from ref_engine.version import __version__

__all__ = [
    "ContextFull",
    "GGUFError",
    "Model",
    "ModelError",
    "RefEngineError",
    "StoreError",
    "TemplateError",
    "Tokenizer",
    "TokenizerError",
    "Trace",
    "__version__",
    "load",
    "load_tokenizer",
    "trace",
]
