"""The compiled normaliser of SentencePiece: which character sequences are replaced by which
(`precompiled_charsmap`).

The file's blob is the length of a double-array trie, the trie, and the replacement strings, each ended by a
NUL. A trie unit of 32 bits holds: bits 0-7 the byte that leads to it, bit 8 whether its child 0 is a value,
bits 10-30 the offset to its children (in steps of 256 where bit 9 is set), bit 31 set in a value unit,
whose other bits point into the replacements. Format: `darts.h` of s-yata/darts-clone; behaviour: llama.cpp
`llm_tokenizer_ugm_session`.
"""

import sys
from array import array
from dataclasses import dataclass

from ref_engine.errors import TokenizerError


@dataclass(frozen=True)
class Charsmap:
    """A parsed normaliser; an empty trie replaces nothing."""

    units: "array[int]"
    replacements: bytes

    def longest(self, data: bytes, at: int) -> tuple[int, bytes]:
        """Length in bytes of the longest sequence at `data[at]` that is replaced, and its replacement; 0
        for none.

        Raises TokenizerError where the trie or a value points outside the blob.
        """
        node, found, value = self._root(), 0, 0
        for end in range(at, len(data)):
            if (step := self._step(node, data[end])) is None:
                break
            node, is_end = step
            if is_end:
                found, value = end + 1 - at, self._unit(node) & 0x7FFF_FFFF
        return (found, self._replacement(value)) if found else (0, b"")

    def ignores(self, start: bytes) -> bool:
        """Whether nothing is replaced at the beginning of any text that begins with `start`."""
        node = self._root()
        for byte in start:
            if (step := self._step(node, byte)) is None:
                return True
            node, is_end = step
            if is_end:
                return False
        return False

    def _root(self) -> int:
        return _offset(self.units[0]) if self.units else 0

    def _step(self, node: int, byte: int) -> tuple[int, bool] | None:
        """The children's offset of the node that `byte` leads to, and whether a sequence ends there."""
        if byte == 0 or not self.units:
            return None
        node ^= byte
        unit = self._unit(node)
        if unit & 0x8000_00FF != byte:
            return None
        return node ^ _offset(unit), bool(unit & 0x100)

    def _unit(self, node: int) -> int:
        if node >= len(self.units):
            raise TokenizerError(f"precompiled_charsmap: unit {node} lies outside its {len(self.units)} units")
        return self.units[node]

    def _replacement(self, start: int) -> bytes:
        end = self.replacements.find(b"\0", start)
        if end < 0:
            raise TokenizerError(f"precompiled_charsmap: no replacement ends behind offset {start}")
        return self.replacements[start:end]


def _offset(unit: int) -> int:
    return (unit >> 10) << ((unit & 0x200) >> 6)


def parse_charsmap(blob: bytes) -> Charsmap:
    """The normaliser in a file's blob; b"" gives one that replaces nothing. Raises TokenizerError if it is
    cut off.
    """
    units = array("I")
    if not blob:
        return Charsmap(units, b"")
    size = int.from_bytes(blob[:4], "little")
    if len(blob) < 4 or 4 + size >= len(blob):
        raise TokenizerError(f"precompiled_charsmap: a trie of {size} bytes in a blob of {len(blob)}")
    units.frombytes(blob[4 : 4 + size // 4 * 4])
    if sys.byteorder == "big":
        units.byteswap()
    return Charsmap(units, blob[4 + size :])
