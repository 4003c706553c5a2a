"""Expert-aware quantisation: which types the parts of a mixture get where llama.cpp's rules would treat them as others.

A token passes few of a mixture's experts, so most of the file is read seldom, and an error in an expert touches few
tokens; an error in the router, or in what every token passes, touches all. The `auto` policy, for 8 or more experts:

    ffn_{gate,up,down,gate_up}_exps        Q5_K (rows that are not whole blocks: what llama.cpp falls back to)
    ffn_gate_inp (the router)              F32
    ffn_{gate,up,down,gate_up}_shexp       Q8_0
    everything else                        by the file type

It gives way to what the caller says: to a pattern that names the tensor, and as a whole to `pure`, to file types
without blocks (F16 experts, say, are not made smaller than asked), and to MXFP4_MOE, whose name says what experts get.
A type in place of `auto` is for the stacked experts, of any number, under every file type.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from ref_engine.files.types import GGMLType
from ref_engine.quant.types import BLOCK_TYPES

ExpertWish = GGMLType | Literal["auto", "same"]

FEWEST: Final = 8
_STACKS = re.compile(r"ffn_(gate|up|down|gate_up)_exps\.weight$")
_SHARED = re.compile(r"ffn_(gate|up|down|gate_up)_shexp\.weight$")
_ROUTER = re.compile(r"ffn_gate_inp\.weight$")


@dataclass(frozen=True)
class ExpertTypes:
    """Types by the role in a mixture; None: not for this policy to say."""

    stacks: GGMLType | None = None
    shared: GGMLType | None = None
    router: GGMLType | None = None

    def of(self, name: str, shape: Sequence[int]) -> GGMLType | None:
        """The type for a tensor of this name and NumPy shape."""
        if _STACKS.search(name) and len(shape) == 3:
            return self.stacks
        if _SHARED.search(name) and len(shape) == 2:
            return self.shared
        return self.router if _ROUTER.search(name) else None


def policy(wish: ExpertWish, file_type: str, base: GGMLType, n_expert: int, pure: bool) -> ExpertTypes:
    """What is asked for, for a model with n_expert experts and a file type of this name and base."""
    if wish == "same" or n_expert == 0:
        return ExpertTypes()
    shared = GGMLType.Q8_0 if base in BLOCK_TYPES and not pure else None
    if isinstance(wish, GGMLType):
        return ExpertTypes(wish, shared, GGMLType.F32)
    if n_expert < FEWEST or pure or base not in BLOCK_TYPES or file_type == "MXFP4_MOE":
        return ExpertTypes()
    return ExpertTypes(GGMLType.Q5_K, shared, GGMLType.F32)
