"""Text from ids that arrive one by one: no UTF-8 character is split, however its bytes fall into tokens."""

import codecs
from collections.abc import Collection
from typing import Protocol


class Spelling(Protocol):
    """What the decoder asks of a tokenizer."""

    @property
    def space_prefix(self) -> bool: ...
    def token_bytes(self, id: int) -> bytes: ...
    def is_hidden(self, id: int) -> bool: ...
    def opens_text(self, id: int) -> bool: ...


class StreamDecoder:
    """Turns ids into text. Holds back the bytes of an unfinished character, at most three.

    Bytes become U+FFFD only once it is certain that they begin no character. The space that the tokenizer
    puts before a text that opens the prompt or follows a special token is dropped again; the pushed texts and
    the flushed one joined are the same as decoding all ids at once.
    """

    def __init__(self, tokenizer: Spelling, *, special: bool | Collection[int], at_start: bool) -> None:
        self._tokenizer = tokenizer
        self._special = special
        self._drop_space = at_start and tokenizer.space_prefix
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, id: int) -> str:
        """The text that this id completes, "" while a character is unfinished.

        Raises TokenizerError for an unknown id.
        """
        piece = self._tokenizer.token_bytes(id)
        if self._tokenizer.opens_text(id):
            self._drop_space = self._tokenizer.space_prefix
        elif self._drop_space:
            self._drop_space = False
            piece = piece.removeprefix(b" ")
        if self._tokenizer.is_hidden(id) and not self._shows(id):
            return ""
        return self._decoder.decode(piece)

    def _shows(self, id: int) -> bool:
        return self._special if isinstance(self._special, bool) else id in self._special

    def flush(self) -> str:
        """The end of the text: an unfinished character as U+FFFD.

        The decoder can then be used for another text.
        """
        return self._decoder.decode(b"", final=True)
