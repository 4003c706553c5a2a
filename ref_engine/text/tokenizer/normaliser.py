"""SentencePiece's normaliser of unigram models: characters replaced, white space marked and merged.

Source of the behaviour: llama.cpp `llm_tokenizer_ugm_session::normalize` and `normalize_prefix`.
"""

import re
from collections.abc import Iterable

from ref_engine.errors import TokenizerError
from ref_engine.text.tokenizer.charsmap import Charsmap
from ref_engine.text.tokenizer.lengths import LONGEST_TOKEN

SPACE = "\u2581".encode()
_NOT_SPACE = re.compile(rb"[^ ]")
_TOO_LONG = "a user-defined token of {} bytes in the vocabulary; at most {} are allowed"


class Normaliser:
    """A function from UTF-8 to what the tokens are matched against.

    kept: user-defined tokens, whose characters are not replaced, even where only the beginning of one is in
    the text. add_space: a space mark before the text, or behind it if space_last. merge_spaces: runs of
    spaces count as one, and those at the ends vanish, but for a mark at the beginning.
    """

    def __init__(
        self,
        charsmap: Charsmap,
        kept: Iterable[bytes],
        *,
        add_space: bool,
        space_last: bool,
        merge_spaces: bool,
    ) -> None:
        self._charsmap = charsmap
        self._beginnings = frozenset(token[:n] for token in kept for n in range(1, _checked(len(token)) + 1))
        self._add_space = add_space
        self._space_last = space_last
        self._merge_spaces = merge_spaces
        self._plain: dict[bytes, bool] = {}  # by two ASCII bytes: whether the first is never replaced before the second

    def __call__(self, text: bytes) -> bytes:
        """Raises TokenizerError where the charsmap points outside itself."""
        text = self.replace(text)
        if self._merge_spaces:
            text = b"".join(SPACE + word for word in text.split(b" ") if word)
        elif self._add_space and not self._space_last and (first := _NOT_SPACE.search(text)):
            text = text[: first.start()] + SPACE + text[first.start() :]
        text = text.replace(b" ", SPACE)
        return text + SPACE if self._add_space and self._space_last else text

    def replace(self, text: bytes) -> bytes:
        """The charsmap's replacements from left to right, the longest first. A byte that is no UTF-8
        becomes U+FFFD.
        """
        out = bytearray()
        at = 0
        while at < len(text):
            two = text[at : at + 2]
            if self._plain.get(two):
                out.append(two[0])
                at += 1
                continue
            if len(two) == 2 and two.isascii() and two not in self._plain:
                self._plain[two] = two[:1] not in self._beginnings and self._charsmap.ignores(two)
            length, taken = self._next(text, at)
            out += taken
            at += length
        return bytes(out)

    def _next(self, text: bytes, at: int) -> tuple[int, bytes]:
        """How many bytes of the text come next, and what they become."""
        length = 0
        while at + length < len(text) and text[at : at + length + 1] in self._beginnings:
            length += 1
        if length:
            return length, text[at : at + length]
        length, replacement = self._charsmap.longest(text, at)
        if length:
            return length, replacement
        if length := sequence_length(text, at):
            return length, text[at : at + length]
        return 1, "\ufffd".encode()


def _checked(length: int) -> int:
    if length > LONGEST_TOKEN:
        raise TokenizerError(_TOO_LONG.format(length, LONGEST_TOKEN))
    return length


def sequence_length(data: bytes, at: int) -> int:
    """Bytes of the UTF-8 sequence at `data[at]`, judged by its form alone; 0 where there is none."""
    first = data[at]
    if first < 0x80:
        return 1
    length = 2 if first >> 5 == 0b110 else 3 if first >> 4 == 0b1110 else 4 if first >> 3 == 0b11110 else 0
    rest = data[at + 1 : at + length]
    return length if length and len(rest) == length - 1 and all(byte >> 6 == 0b10 for byte in rest) else 0
