"""What is measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ref_engine.errors import RefEngineError

Kind = Literal["prefill", "decode", "batch", "first"]


@dataclass(frozen=True)
class Work:
    """prefill: `prompt` tokens into an empty cache. decode: `tokens` more, one at a time, after a prompt. batch: the
    same for `sequences` sequences at once. first: load the file, and the first token after the prompt.

    Tokens are drawn, the same for all engines: what they are does not matter to the time.
    """

    kind: Kind
    prompt: int
    tokens: int = 0
    sequences: int = 1

    @property
    def name(self) -> str:
        if self.kind == "prefill":
            return f"prefill {self.prompt}"
        if self.kind == "first":
            return f"load + first token after {self.prompt}"
        many = f" of {self.sequences}" if self.sequences > 1 else ""
        return f"decode {self.tokens}{many}" + (f" after {self.prompt}" if self.prompt > 64 else "")

    @property
    def context(self) -> int:
        """Tokens that one sequence needs room for."""
        return self.prompt + self.tokens + 1

    @property
    def counted(self) -> int:
        """Tokens that its rate counts."""
        return self.prompt if self.kind == "prefill" else self.tokens * self.sequences

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"name": self.name, "context": self.context, "counted": self.counted}


DEFAULT = (
    Work("prefill", 512),
    Work("decode", 16, 128),
    Work("decode", 2048, 64),
    Work("batch", 16, 32, 8),
    Work("first", 64),
)


def works_named(names: Sequence[str]) -> tuple[Work, ...]:
    """`prefill=512`, `decode=128`, `decode=128@2048` (after 2,048 tokens), `batch=32x8`, `first=64`.

    Raises RefEngineError for anything else.
    """
    return tuple(_work(name) for name in names) or DEFAULT


def _work(text: str) -> Work:
    kind, _, numbers = text.partition("=")
    tokens, at, after = numbers.partition("@" if kind == "decode" else "x")
    counts = [_count(part) for part in (tokens, after)[: 1 + bool(at)]]
    if all(counts):
        if kind == "prefill" and not at:
            return Work("prefill", counts[0])
        if kind == "first" and not at:
            return Work("first", counts[0])
        if kind == "decode":
            return Work("decode", counts[1] if at else 16, counts[0])
        if kind == "batch" and at:
            return Work("batch", 16, counts[0], counts[1])
    raise RefEngineError(f"{text[:50]!r} is no work: prefill=512, decode=128, decode=64@2048, batch=32x8, first=64")


def _count(text: str) -> int:
    """A number of tokens or sequences; 0 for what is none."""
    return int(text) if text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= 1 << 20 else 0
