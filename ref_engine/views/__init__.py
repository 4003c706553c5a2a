"""What a picture of a computation shows, as arrays: functions from a model and token ids to small dataclasses.

tokens.py     how likely each token was             attention.py  who looks at whom
layers.py     the logit lens                        experts.py    who is sent where
norms.py      how large things are over depth       times.py      where the time goes
memory.py     where the memory goes                 shape.py      what of all this a model has

Each is there twice: `attention(...)` gives the result, `attention_steps(...)` is a generator that gives it piece by
piece, for a server that has other things to do in between (passes.py).
"""

from ref_engine.views.attention import AttentionMaps, attention, attention_steps
from ref_engine.views.experts import LayerRouting, experts, experts_steps
from ref_engine.views.layers import LogitLens, layers, layers_steps
from ref_engine.views.memory import MemoryPart, memory
from ref_engine.views.norms import Norms, norms, norms_steps
from ref_engine.views.passes import Steps, finished
from ref_engine.views.ranking import Ranked
from ref_engine.views.shape import Shape, shape
from ref_engine.views.times import Operation, Times, times, times_steps
from ref_engine.views.tokens import TokenView, tokens, tokens_steps

__all__ = [
    "AttentionMaps",
    "LayerRouting",
    "LogitLens",
    "MemoryPart",
    "Norms",
    "Operation",
    "Ranked",
    "Shape",
    "Steps",
    "Times",
    "TokenView",
    "attention",
    "attention_steps",
    "experts",
    "experts_steps",
    "finished",
    "layers",
    "layers_steps",
    "memory",
    "norms",
    "norms_steps",
    "shape",
    "times",
    "times_steps",
    "tokens",
    "tokens_steps",
]
