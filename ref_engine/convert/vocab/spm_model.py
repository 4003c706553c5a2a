"""SentencePiece's model file (tokenizer.model), a protocol buffer: pieces, scores and types.

    ModelProto     1: SentencePiece (repeated)
    SentencePiece  1: piece (text)   2: score (float32)   3: type (1 normal, 2 unknown, 3 control, 4 user defined,
                                                                 5 unused, 6 byte; 1 where it is missing)

Sources: sentencepiece_model.proto of google/sentencepiece; the encoding guide of protocol buffers.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ref_engine.errors import ConvertError
from ref_engine.files.cursor import show_path

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_LARGEST_FILE = 1 << 28


@dataclass(frozen=True)
class Piece:
    text: bytes
    score: float
    kind: int


def read_pieces(path: Path) -> list[Piece]:
    """Raises ConvertError for a file that is missing or damaged."""
    label = show_path(path)
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise ConvertError(f"{label}: larger than {_LARGEST_FILE} bytes")
        data = path.read_bytes()
    except OSError as error:
        raise ConvertError(f"{label}: {error.strerror or error}") from error
    pieces = [
        _piece(value, label) for number, value in _fields(data, label) if number == 1 and isinstance(value, bytes)
    ]
    if not pieces:
        raise ConvertError(f"{label}: not a SentencePiece model")
    return pieces


def _piece(data: bytes, label: str) -> Piece:
    text, score, kind = b"", 0.0, 1
    for number, value in _fields(data, label):
        if number == 1 and isinstance(value, bytes):
            text = value
        elif number == 2 and isinstance(value, float):
            score = value
        elif number == 3 and isinstance(value, int):
            kind = value
    try:
        text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConvertError(f"{label}: a piece is not UTF-8") from error
    if not 1 <= kind <= 6:
        raise ConvertError(f"{label}: a piece has type {kind}")
    return Piece(text, score, kind)


def _fields(data: bytes, label: str) -> Iterator[tuple[int, bytes | float | int]]:
    """Field numbers and values of one message; values of 8 bytes are passed over."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at, label)
        kind = tag & 7
        if kind == _VARINT:
            value, at = _varint(data, at, label)
            yield tag >> 3, value
            continue
        length = {_FIXED64: 8, _FIXED32: 4}.get(kind, 0)
        if kind == _BYTES:
            length, at = _varint(data, at, label)
        elif not length:
            raise ConvertError(f"{label}: not a SentencePiece model (field of kind {kind} at byte {at})")
        if length > len(data) - at:
            raise ConvertError(f"{label}: damaged: {length} bytes at byte {at} of {len(data)}")
        raw, at = data[at : at + length], at + length
        if kind == _BYTES:
            yield tag >> 3, raw
        elif kind == _FIXED32:
            yield tag >> 3, float(struct.unpack("<f", raw)[0])


def _varint(data: bytes, at: int, label: str) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        byte, at = data[at], at + 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ConvertError(f"{label}: damaged: a number at byte {at} does not end")
