"""CUDA C without a GPU: what `cupy.RawModule` takes is compiled by g++, and its threads run one after the other.

Barriers and exchanges within a warp are real: a thread goes on when the others have come. What a device would refuse
or leave undefined is an error here: too many threads, arguments of other types, wide loads at odd addresses, threads
that wait for ones that never come.
"""

from emulator.module import RawModule, why_not

__all__ = ["RawModule", "why_not"]
