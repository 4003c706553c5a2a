"""All options of sampling, with llama.cpp's and Ollama's names, checked once when they are set."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType

from ref_engine.errors import RefEngineError

CHAIN = ("penalties", "dry", "top_n_sigma", "top_k", "typ_p", "top_p", "min_p", "xtc", "temperature")
"""The order in which llama.cpp's server applies its filters (after logit_bias, before the draw)."""

NEEDS_IDS = frozenset({"penalties", "dry"})
"""Filters that take positions for token ids, so that no filter may drop positions before them."""

INT_MAX = 2**31 - 1
FLOAT_MAX = 3.4028234663852886e38  # of float32, in which the filters work
_SMALLEST_REPEAT = 2.9387359e-39  # below it 1 / repeat_penalty is no float32

_RANGES: dict[str, tuple[float, float]] = {
    "temperature": (-FLOAT_MAX, FLOAT_MAX),
    "dynatemp_range": (0, FLOAT_MAX),
    "dynatemp_exponent": (0, FLOAT_MAX),
    "top_k": (-1, INT_MAX),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "typical_p": (0, 1),
    "top_n_sigma": (-1, FLOAT_MAX),
    "xtc_probability": (0, 1),
    "xtc_threshold": (0, 1),
    "repeat_last_n": (-1, INT_MAX),
    "repeat_penalty": (_SMALLEST_REPEAT, FLOAT_MAX),
    "frequency_penalty": (-FLOAT_MAX, FLOAT_MAX),
    "presence_penalty": (-FLOAT_MAX, FLOAT_MAX),
    "dry_multiplier": (0, FLOAT_MAX),
    "dry_base": (0, FLOAT_MAX),
    "dry_allowed_length": (0, INT_MAX),
    "dry_penalty_last_n": (-1, INT_MAX),
    "mirostat": (0, 2),
    "mirostat_tau": (0, FLOAT_MAX),
    "mirostat_eta": (0, FLOAT_MAX),
    "min_keep": (0, INT_MAX),
    "seed": (-1, 2**64 - 1),
}


@dataclass(frozen=True)
class SamplingParams:
    """How to choose a token. The defaults are those of llama.cpp's server (Ollama's are top_p 0.9, min_p 0
    and repeat_penalty 1.1). Raises RefEngineError naming the field for a value of another type or out of
    range.
    """

    temperature: float = 0.8  # <= 0: greedy
    dynatemp_range: float = 0.0  # 0: off
    dynatemp_exponent: float = 1.0
    top_k: int = 40  # <= 0: off
    top_p: float = 0.95  # 1: off
    min_p: float = 0.05  # 0: off
    typical_p: float = 1.0  # 1: off
    top_n_sigma: float = -1.0  # <= 0: off
    xtc_probability: float = 0.0  # 0: off
    xtc_threshold: float = 0.1  # > 0.5: off
    min_keep: int = 0  # top_p, min_p, typical_p and xtc leave this many candidates
    repeat_last_n: int = 64  # tokens of prompt and answer that the three penalties see; 0: off, -1: all
    repeat_penalty: float = 1.0  # 1: off
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    dry_multiplier: float = 0.0  # 0: off
    dry_base: float = 1.75  # < 1: off
    dry_allowed_length: int = 2
    dry_penalty_last_n: int = 64  # 0: off, -1: all
    dry_sequence_breakers: tuple[str, ...] = ("\n", ":", '"', "*")
    mirostat: int = 0  # 1 or 2: after logit_bias come only temperature and mirostat, as in llama.cpp
    mirostat_tau: float = 5.0  # target surprise, bits
    mirostat_eta: float = 0.1
    logit_bias: Mapping[int, float] = field(default_factory=dict)  # token id -> addend; -inf bans
    ignore_eos: bool = False  # ban every end-of-generation token
    seed: int | None = None  # None or -1: fresh, see Sampler.seed
    samplers: tuple[str, ...] = CHAIN  # which filters, in which order

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if not (name == "seed" and value is None):
                _check_number(name, value, low, high, name in _INTEGERS)
        if not isinstance(self.ignore_eos, bool):
            raise RefEngineError(f"ignore_eos must be true or false, not {self.ignore_eos!r}")
        for name in ("dry_sequence_breakers", "samplers"):
            _set(self, name, _strings(name, getattr(self, name)))
        unknown = [name for name in self.samplers if name not in CHAIN]
        if unknown or len(set(self.samplers)) < len(self.samplers):
            raise RefEngineError(f"samplers must be different ones of {CHAIN}, not {self.samplers!r}")
        _set(self, "logit_bias", _checked_bias(self.logit_bias))

    @classmethod
    def from_options(cls, options: Mapping[str, object]) -> "SamplingParams":
        """From names and values as a command line or a request gives them; an unknown name is an error."""
        known = {f.name for f in fields(cls)}
        for name in options:
            if name not in known:
                raise RefEngineError(f"no sampling option is called {name!r}")
        return cls(**options)  # type: ignore[arg-type]  # __post_init__ checks every value

    @property
    def greedy(self) -> bool:
        """Whether the choice is simply the largest logit left by bias and penalties.

        So it is at temperature 0 unless a filter that may remove the likeliest is on, or comes before a
        penalty.
        """
        on = set(self.samplers)
        first = self.samplers[: len(on & NEEDS_IDS)]
        return (
            self.temperature <= 0
            and "temperature" in on
            and self.dynatemp_range <= 0
            and self.mirostat == 0
            and ("typ_p" not in on or self.typical_p >= 1)
            and ("xtc" not in on or self.xtc_probability <= 0)
            and on & NEEDS_IDS == set(first)
        )


_INTEGERS = frozenset(f.name for f in fields(SamplingParams) if f.type in (int, int | None))


def _set(params: SamplingParams, name: str, value: object) -> None:
    object.__setattr__(params, name, value)  # the dataclass is frozen; this is still construction


def _check_number(name: str, value: object, low: float, high: float, integer: bool) -> None:
    allowed: tuple[type, ...] = (int,) if integer else (int, float)
    if isinstance(value, bool) or not isinstance(value, allowed):
        raise RefEngineError(f"{name} must be {'an integer' if integer else 'a number'}, not {value!r}")
    if not isinstance(value, int | float) or not low <= value <= high or math.isnan(value):
        raise RefEngineError(f"{name} must be from {low:g} to {high:g}, not {value!r}")


def _strings(name: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) and item for item in value):
        raise RefEngineError(f"{name} must be a list of strings that are not empty, not {value!r}")
    return tuple(value)


def _checked_bias(value: object) -> Mapping[int, float]:
    if not isinstance(value, Mapping):
        raise RefEngineError(f"logit_bias must map token ids to numbers, not {value!r}")
    for token, bias in value.items():
        if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token <= INT_MAX:
            raise RefEngineError(f"logit_bias: {token!r} is not a token id")
        if isinstance(bias, bool) or not isinstance(bias, int | float) or not -math.inf <= bias <= FLOAT_MAX:
            raise RefEngineError(f"logit_bias of token {token} must be a finite number or -inf, not {bias!r}")
    return MappingProxyType(dict(value))


GREEDY = SamplingParams(temperature=0.0)
"""Always the likeliest token: what a caller wants who compares engines."""
