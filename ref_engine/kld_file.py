"""The file of log-probabilities that llama.cpp's `llama-perplexity --kl-divergence-base FILE` writes and reads.

Little-endian, as `perplexity` and `kl_divergence` of its tools/perplexity/perplexity.cpp have it:

    "_logits_"                     8 bytes
    n_ctx, n_vocab, n_chunk        int32 each
    token ids                      n_chunk * n_ctx int32, the text's: BOS has not been put in place of any
    rows                           n_chunk * (n_ctx - 1 - n_ctx // 2) of them

and each row has float32 scale, float32 lowest, and n_vocab uint16 (one more, unused, where n_vocab is odd):
ln P(i) = scale * row[i] + lowest. A row reaches 16 below its largest logit; whatever is less likely is at `lowest`.
Reading leaves out tokens with ln P <= -16, as llama.cpp does.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np
from numpy.typing import NDArray

from ref_engine.divergence import F32, F64, Span, Window, half_windows
from ref_engine.errors import RefEngineError
from ref_engine.sample.distribution import log_sum_exp

MAGIC = b"_logits_"
_REACH = np.float32(16)
_HEADER = struct.Struct("<3i")
_MOST_VOCAB = 1 << 24


def row_width(n_vocab: int) -> int:
    """uint16 in a row: four for scale and lowest, then the vocabulary, rounded up to an even number."""
    return 2 * ((n_vocab + 1) // 2) + 4


def rows_of(n_ctx: int) -> int:
    """Rows in a chunk: every token after the middle is scored by the row before it."""
    return n_ctx - 1 - n_ctx // 2


@dataclass(frozen=True)
class KldFile:
    """What a file holds, as a base for `divergence.diverge`. The rows stay in the file and are read when asked for."""

    path: Path
    n_ctx: int
    n_vocab: int
    ids: NDArray[np.int32]  # (chunks, n_ctx)
    packed: NDArray[np.uint16]  # (chunks, rows, width), mapped
    floor: float = -16.0

    def windows(self, bos: int | None) -> list[Window]:
        """The windows that the file's rows belong to. bos: the token that begins each, where the model adds one."""
        return half_windows(self.ids.reshape(-1).tolist(), self.n_ctx, bos)

    def log_probs(self, number: int, window: Window, spans: Sequence[Span]) -> Iterator[F64]:
        for a, b in spans:
            rows = self.packed[number, a - (window.skip - 1) : b - (window.skip - 1)]
            scale, lowest = (rows[:, i : i + 2].copy().view("<f4").astype(np.float64) for i in (0, 2))
            if not (np.isfinite(scale).all() and np.isfinite(lowest).all() and (scale >= 0).all()):
                raise RefEngineError(f"{self.path}: chunk {number} has a row whose scale is no number")
            yield rows[:, 4 : 4 + self.n_vocab] * scale + lowest


def read_kld(path: Path) -> KldFile:
    """Open a file. Raises RefEngineError naming what is wrong with it; OSError where it cannot be read."""
    length = path.stat().st_size
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise RefEngineError(f"{path}: not a file of log-probabilities (it does not begin with _logits_)")
        header = file.read(_HEADER.size)
        if len(header) < _HEADER.size:
            raise RefEngineError(f"{path}: ends within its header")
        n_ctx, n_vocab, n_chunk = _HEADER.unpack(header)
        for name, value, least, most in (
            ("n_ctx", n_ctx, 3, 1 << 24),
            ("n_vocab", n_vocab, 1, _MOST_VOCAB),
            ("n_chunk", n_chunk, 1, 1 << 24),
        ):
            if not least <= value <= most:
                raise RefEngineError(f"{path}: {name} is {value}, expected {least}..{most}")
        start = len(MAGIC) + _HEADER.size + 4 * n_ctx * n_chunk
        shape = (n_chunk, rows_of(n_ctx), row_width(n_vocab))
        expected = start + 2 * shape[0] * shape[1] * shape[2]
        if length != expected:
            raise RefEngineError(
                f"{path}: has {length} bytes, expected {expected} for {n_chunk} chunks of {n_ctx} tokens "
                f"over {n_vocab}; a run that was broken off leaves a shorter file"
            )
        ids = np.frombuffer(file.read(4 * n_ctx * n_chunk), "<i4").reshape(n_chunk, n_ctx).astype(np.int32)
    outside = ids[(ids < 0) | (ids >= n_vocab)]
    if outside.size:
        raise RefEngineError(f"{path}: token id {outside[0]} is outside the vocabulary 0..{n_vocab - 1}")
    packed = np.memmap(path, "<u2", mode="r", offset=start, shape=shape)
    return KldFile(path, n_ctx, n_vocab, ids, packed)


class KldWriter:
    """Writes such a file, row after row: a context manager; the file appears whole at its end, or not at all."""

    def __init__(self, path: Path, ids: Sequence[int], n_ctx: int, n_vocab: int) -> None:
        """ids: the whole text's, of which as many chunks are kept as are full."""
        self.path = path
        self._n_vocab = n_vocab
        self._n_chunk = len(ids) // n_ctx
        self._left = self._n_chunk * rows_of(n_ctx)
        self._temporary = path.with_name(f".{path.name[:100]}.{os.getpid()}.tmp")
        self._head = MAGIC + _HEADER.pack(n_ctx, n_vocab, self._n_chunk)
        self._head += np.array(ids[: self._n_chunk * n_ctx], "<i4").tobytes()
        self._file: IO[bytes] | None = None

    def __enter__(self) -> KldWriter:
        self._file = self._temporary.open("wb")
        self._file.write(self._head)
        return self

    def write(self, number: int, logits: F32) -> None:
        """Append rows (n, V); they must come in order. `number` is the chunk's and not needed."""
        if self._file is None or len(logits) > self._left:
            raise ValueError("more rows than the file has room for, or the file is not open")
        for row in logits:
            self._file.write(packed_row(row).tobytes())
        self._left -= len(logits)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._file is None:
            return
        self._file.close()
        try:
            if kind is None and self._left:
                raise ValueError(f"{self._left} rows are missing")
            if kind is None:
                os.replace(self._temporary, self.path)
        finally:
            self._temporary.unlink(missing_ok=True)


def packed_row(logits: F32) -> NDArray[np.uint16]:
    """One row as the file holds it: (V,) float32 -> (row_width(V),) uint16. Integers are nearest, halves to even."""
    top = logits.max()
    low = max(logits.min(), top - _REACH)
    row = np.zeros(row_width(logits.size), "<u2")
    scale = np.float32((top - low) / np.float32(65535))
    head = np.array([scale, float(low) - log_sum_exp(logits)], "<f4")
    row[:4] = head.view("<u2")
    if scale:
        steps = np.rint((np.float32(1) / scale) * (logits - low))
        row[4 : 4 + logits.size] = np.where(logits > low, steps, 0)
    return row
