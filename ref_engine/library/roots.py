"""Where models and caches live.

Models are written to `$REF_ENGINE_MODELS`, else `~/.ref-engine/models`. An existing Ollama directory
(`$OLLAMA_MODELS`, else `~/.ollama/models`) is looked up second and never written to: it may belong to a
running server. Whoever wants one directory for both sets REF_ENGINE_MODELS to it; the layout is the same.
"""

import os
from pathlib import Path


def default_root() -> Path:
    """The models directory that is written to."""
    return _from_env("REF_ENGINE_MODELS") or Path.home() / ".ref-engine" / "models"


def ollama_roots() -> tuple[Path, ...]:
    """Ollama's models directory, if there is a readable one other than `default_root()`."""
    root = _from_env("OLLAMA_MODELS") or Path.home() / ".ollama" / "models"
    manifests = root / "manifests"
    readable = manifests.is_dir() and os.access(manifests, os.R_OK | os.X_OK)
    return (root,) if readable and root.resolve() != default_root().resolve() else ()


def cache_root() -> Path:
    """Files for the tests: `$REF_ENGINE_CACHE`, else `~/.cache/ref-engine`."""
    return _from_env("REF_ENGINE_CACHE") or Path.home() / ".cache" / "ref-engine"


def _from_env(name: str) -> Path | None:
    text = os.environ.get(name, "")
    return Path(text).expanduser() if text else None
