"""A model together with who computes it, in one word: `model.gguf@native:q8`.

    NAME                  a name of the store or a path, computed as `ref_engine.load` does by default
    NAME@BACKEND          numpy, native, cupy
    NAME@BACKEND:MODE     and with f32 or q8 activations
    NAME@MODE             the default backend with f32 or q8 activations

A file that has the whole text as its name is that file. Otherwise the last "@" divides.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from ref_engine.backends import BACKENDS
from ref_engine.errors import RefEngineError
from ref_engine.reference.linear import Activations

if TYPE_CHECKING:
    from ref_engine.model import Model

_MODES: dict[str, Activations] = {mode: mode for mode in get_args(Activations)}


@dataclass(frozen=True)
class Target:
    """`backend` and `activations` are None where the text leaves them to the defaults of `ref_engine.load`."""

    name: str
    backend: str | None = None
    activations: Activations | None = None

    def otherwise(self, backend: str | None, activations: Activations | None) -> Target:
        """With these where the text said nothing."""
        return replace(self, backend=self.backend or backend, activations=self.activations or activations)


def parse_target(text: str) -> Target:
    """Raises RefEngineError for a backend or mode that is not known, and for an empty name."""
    name, mark, how = text.rpartition("@")
    if not mark or Path(text).is_file():
        if not text:
            raise RefEngineError("the name of a model is empty")
        return Target(text)
    if not name:
        raise RefEngineError(f"{text!r} names no model before the @")
    backend, colon, mode = how.partition(":")
    if not colon and backend in _MODES:
        return Target(name, None, _MODES[backend])
    if backend not in BACKENDS:
        known = ", ".join((*BACKENDS, *_MODES))
        raise RefEngineError(f"{text!r}: {backend!r} after the @ is no backend or mode (known: {known})")
    if colon and mode not in _MODES:
        raise RefEngineError(f"{text!r}: {mode!r} is no mode of activations (known: {', '.join(_MODES)})")
    return Target(name, backend, _MODES[mode] if colon else None)


def load_target(target: Target, **how: Any) -> Model:
    """The model that a target names, from the store or a path; how: further options of `ref_engine.load`.

    Raises as that and `Store.resolve` do.
    """
    from ref_engine.library import Store
    from ref_engine.model import load

    return load(
        Store().resolve(target.name),
        backend=target.backend,
        activations=target.activations or "q8",
        **how,
    )


def described(model: Model) -> str:
    """`native:q8` of a loaded model."""
    return f"{model.ops.name}:{model.activations}"
