"""One matrix in place of a half of a layer."""

from __future__ import annotations

from ref_engine.blocks.site import Site
from ref_engine.reference.sums import F32
from ref_engine.spec.projection import ProjectionSpec


def projection(x: F32, part: ProjectionSpec, at: Site) -> F32:
    """(T, D) -> (T, D); the file may hold a bias that belongs to what stood here before, and is not added."""
    return at.ops.linear(x, at[f"{part.name}.weight"])
