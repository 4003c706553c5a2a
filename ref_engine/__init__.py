"""ref-engine: a GGUF inference engine whose every step can be read, run and checked.

    import ref_engine
    m = ref_engine.load("model.gguf")
    print("".join(e.text for e in m.generate("Once upon a time", max_tokens=32, temperature=0)))

The names below are imported when they are first used, so that a command which needs no model starts at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from ref_engine.errors import (
    ContextFull,
    DeviceMemoryError,
    GGUFError,
    GrammarError,
    ModelError,
    RefEngineError,
    StoreError,
    TemplateError,
    TokenizerError,
)
from ref_engine.version import __version__

if TYPE_CHECKING:
    from ref_engine.model import Model, load
    from ref_engine.text.tokenizer import Tokenizer, load_tokenizer
    from ref_engine.tracing import Trace, trace

__all__ = [
    "ContextFull",
    "DeviceMemoryError",
    "GGUFError",
    "GrammarError",
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

_HOMES = {
    "Model": "ref_engine.model",
    "Tokenizer": "ref_engine.text.tokenizer",
    "Trace": "ref_engine.tracing",
    "load": "ref_engine.model",
    "load_tokenizer": "ref_engine.text.tokenizer",
    "trace": "ref_engine.tracing",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
