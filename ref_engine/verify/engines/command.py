"""A program that reads a GGUF file and token ids and writes logits, as what is verified.

The command line is a text with placeholders, split as a shell would and run without one:

    {model}     path of the .gguf file
    {tokens}    path of a file of token ids, int32, little-endian
    {ids}       path of a text file of the same ids, one in a line
    {logits}    path that the program writes: float32, little-endian, row after row (tokens, vocabulary), nothing else;
                or an .npy file of that shape
    {n_tokens} {n_vocab} {n_ctx}    numbers; n_ctx is the context length to make room for

The row of position t scores the token after it. Each case is a process of its own, in a session of its own that is
ended at the time limit; whatever it writes to standard output is dropped, the end of its standard error is reported.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ref_engine.errors import RefEngineError
from ref_engine.reference.sums import F32

_NAMES = {"model", "tokens", "ids", "logits", "n_tokens", "n_vocab", "n_ctx"}
_NPY = b"\x93NUMPY"
_HEADER = 1 << 16  # bytes that an .npy header may add


@dataclass(frozen=True)
class CommandEngine:
    """`words` is the command line, split; `timeout` in seconds for one case."""

    words: tuple[str, ...]
    timeout: float
    exact: bool = False  # nobody knows

    @property
    def name(self) -> str:
        return shlex.join(self.words)

    def logits(self, model: Path, ids: Sequence[int], n_vocab: int, n_ctx: int | None) -> F32:
        with tempfile.TemporaryDirectory(prefix="ref-engine-verify-") as scratch:
            folder = Path(scratch)
            np.array(ids, "<i4").tofile(folder / "tokens.bin")
            (folder / "tokens.txt").write_text("".join(f"{id}\n" for id in ids))
            values = {
                "model": str(model.resolve()),
                "tokens": str(folder / "tokens.bin"),
                "ids": str(folder / "tokens.txt"),
                "logits": str(folder / "logits.f32"),
                "n_tokens": str(len(ids)),
                "n_vocab": str(n_vocab),
                "n_ctx": str(n_ctx or len(ids)),
            }
            words = [re.sub(r"\{(\w+)\}", lambda m: values[m[1]], word) for word in self.words]
            self._run(words, folder)
            return read_logits(folder / "logits.f32", len(ids), n_vocab)

    def _run(self, words: list[str], folder: Path) -> None:
        with (folder / "stderr").open("wb") as log:
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log, start_new_session=True
            )
            try:
                status = process.wait(self.timeout)
            except subprocess.TimeoutExpired:
                raise RefEngineError(f"the command was still running after {self.timeout:g} s") from None
            finally:
                _end(process)
        if status != 0:
            raise RefEngineError(f"the command {_how(status)}{_last_line(folder / 'stderr')}")


def parse_command(text: str, timeout: float) -> CommandEngine:
    """Raises RefEngineError for a command line that cannot work: quoting, placeholders, a program that is not there."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise RefEngineError(f"--command: {error}") from error
    used = {name for word in words for name in re.findall(r"\{(\w+)\}", word)}
    if used - _NAMES:
        known = ", ".join(sorted(_NAMES))
        raise RefEngineError(f"--command: {{{min(used - _NAMES)}}} is not a placeholder (known: {known})")
    for needed in ({"model"}, {"logits"}, {"tokens", "ids"}):
        if not needed & used:
            raise RefEngineError(f"--command has no {{{' or '.join(sorted(needed, reverse=True))}}}")
    if shutil.which(words[0]) is None:
        raise RefEngineError(f"--command: there is no program {words[0]!r}")
    return CommandEngine(tuple(words), timeout)


def read_logits(path: Path, n_tokens: int, n_vocab: int) -> F32:
    """What a program wrote, checked before it is read. Raises RefEngineError naming what is wrong with it."""
    expected = 4 * n_tokens * n_vocab
    if not path.is_file():
        raise RefEngineError("the command wrote no logits")
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(len(_NPY)) == _NPY and expected < size <= expected + _HEADER:
            return _from_npy(path, n_tokens, n_vocab)
    if size != expected:
        raise RefEngineError(
            f"the command wrote {size} bytes of logits, expected {expected} ({n_tokens} tokens x {n_vocab} float32)"
        )
    return np.fromfile(path, "<f4").astype(np.float32).reshape(n_tokens, n_vocab)


def _from_npy(path: Path, n_tokens: int, n_vocab: int) -> F32:
    try:
        array = np.load(path, allow_pickle=False)
    except ValueError as error:
        raise RefEngineError(f"the command's .npy file cannot be read: {error}") from error
    if array.shape != (n_tokens, n_vocab) or array.dtype != np.float32:
        found, wanted = f"{array.dtype} {list(array.shape)}", f"float32 {[n_tokens, n_vocab]}"
        raise RefEngineError(f"the command's .npy file holds {found}, expected {wanted}")
    return np.asarray(array, np.float32)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the program, if it still runs, and whatever it started."""
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


def _how(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"


def _last_line(path: Path) -> str:
    """`: ` and the last line of a log that says anything."""
    with path.open("rb") as log:
        log.seek(max(0, path.stat().st_size - 4096))
        lines = [line.strip() for line in log.read().decode("utf-8", "replace").splitlines() if line.strip()]
    return f": {lines[-1][:300]}" if lines else ""
