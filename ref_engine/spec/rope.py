"""Rotary position embedding as a feature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Pairing = Literal["adjacent", "halves"]


@dataclass(frozen=True)
class RopeSpec:
    """Rotary position embedding. Angles: position * base**(-2i / n_rot), then scaled (see reference/rope.py)."""

    n_rot: int  # features of a head that are turned
    base: float
    pairing: Pairing
    freq_scale: float = 1.0  # linear interpolation: 1 / factor
    ext_factor: float = 0.0  # YaRN: 1, else 0
    magnitude: float = 1.0  # factor on cosines and sines
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    n_ctx_orig: int = 0  # context length before scaling
    factors: str | None = None  # name of the tensor with divisors of the frequencies
    long_factors: str | None = None  # the same for sequences with room for more than n_ctx_orig tokens
    sections: tuple[int, int, int, int] | None = None  # pairs for time, height, width and a fourth axis (M-RoPE)
    interleaved: bool = False  # the first three sections take turns, pair by pair

    def factors_at(self, n_ctx: int) -> str | None:
        """The tensor to divide the frequencies by in a sequence with room for n_ctx tokens."""
        return self.long_factors if n_ctx > self.n_ctx_orig else self.factors
