"""Where models come from and live."""

from ref_engine.library.catalog import CATALOG, DEFAULT_MODEL, catalog_model, catalog_names
from ref_engine.library.entries import Entry, ModelInfo
from ref_engine.library.facts import Facts
from ref_engine.library.progress import Progress, Silent
from ref_engine.library.pull import pull
from ref_engine.library.roots import default_root, ollama_roots
from ref_engine.library.store import Store

__all__ = [
    "CATALOG",
    "DEFAULT_MODEL",
    "Entry",
    "Facts",
    "ModelInfo",
    "Progress",
    "Silent",
    "Store",
    "catalog_model",
    "catalog_names",
    "default_root",
    "ollama_roots",
    "pull",
]
