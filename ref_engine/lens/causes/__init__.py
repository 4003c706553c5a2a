"""Why a tensor left tolerance, where the numbers give it away.

Each detector proposes what A's value would be under one mistake, and is believed if that is B's value: the error that
remains must be a small part of the error there was. Without such a proof it says nothing.
"""

from ref_engine.lens.causes.likely import likely_cause
from ref_engine.lens.causes.scene import Cause, Scene

__all__ = ["Cause", "Scene", "likely_cause"]
