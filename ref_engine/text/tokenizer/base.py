"""What all tokenizers share: special tokens are cut out of the text first, and ids turn back into bytes and text.

A subclass splits the plain text between special tokens (`encode_fragment`) and may say how a normal token is
spelt (`normal_piece`). Behaviour follows llama.cpp's `llama_vocab::impl::tokenize`, `tokenizer_st_partition`
and `token_to_piece`; decoding differs from its `llama_detokenize` on purpose where that one loses characters.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from ref_engine.errors import TokenizerError
from ref_engine.text.tokenizer.partition import Partition
from ref_engine.text.tokenizer.special import BYTE, CONTROL, NORMAL, UNKNOWN, USER_DEFINED
from ref_engine.text.tokenizer.stream import StreamDecoder
from ref_engine.text.tokenizer.tidy import clean_spaces as _clean_spaces
from ref_engine.text.tokenizer.vocab import Vocab

if TYPE_CHECKING:
    from llguidance import LLTokenizer


class Tokenizer(ABC):
    """Text to token ids and back.

    Instances are immutable but for caches, and safe to share between threads.
    """

    def __init__(self, vocab: Vocab) -> None:
        self.vocab = vocab
        self._partition = Partition(vocab.tokens, vocab.attrs)

    @property
    def n_vocab(self) -> int:
        return len(self.vocab.tokens)

    @abstractmethod
    def encode_fragment(self, text: str, after_special: bool) -> list[int]:
        """Ids of plain text without special tokens. `after_special`: it opens the text or follows a special token.

        `text` is not empty and holds no surrogates.
        """

    @property
    def space_prefix(self) -> bool:
        """Whether `encode_fragment` puts a space before a text that opens the prompt or follows a special token."""
        return False

    @property
    def added_before(self) -> tuple[int | None, ...]:
        """What `add_special` puts before the text; None stands for an id that the model wants and does not name."""
        return (self.vocab.bos_id,) if self.vocab.add_bos else ()

    @property
    def added_after(self) -> tuple[int | None, ...]:
        """What `add_special` puts after the text."""
        return (self.vocab.eos_id,) if self.vocab.add_eos else ()

    def encode(self, text: str, add_special: bool = True, parse_special: bool = True) -> list[int]:
        """Token ids of a text.

        add_special: put the model's BOS, EOS or separator around it, as the model was trained.
        parse_special: the text of a control token stands for that token; otherwise it is plain text.
        User-defined tokens are recognised either way. Lone surrogates, which no UTF-8 text can hold, count as
        U+FFFD.
        """
        if not text.isascii():
            text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        ids = _named(self.added_before) if add_special else []
        after_special = True
        for part in self._partition.split(text, parse_special):
            if isinstance(part, int):
                ids.append(part)
                after_special = True
            else:
                ids.extend(self.encode_fragment(part, after_special))
                after_special = False
        if add_special:
            ids.extend(_named(self.added_after))
        return ids

    def decode(
        self,
        ids: Sequence[int],
        special: bool = True,
        *,
        strip_added: bool = True,
        clean_spaces: bool = False,
    ) -> str:
        """The text of token ids: what `encode` was given, wherever the vocabulary can spell it.

        special: show control and unknown tokens by their text; otherwise they vanish.
        strip_added: drop the ids that `encode(add_special=True)` puts at the ends.
        clean_spaces: remove spaces before punctuation as llama.cpp's `llama_detokenize` does for models that
        ask for it. That loses characters. Bytes that are no UTF-8 become U+FFFD. Raises TokenizerError for an
        unknown id.
        """
        if strip_added:
            ids = self._strip_added(ids)
        decoder = StreamDecoder(self, special=special, at_start=True)
        text = "".join([decoder.push(id) for id in ids]) + decoder.flush()
        return _clean_spaces(text) if clean_spaces and self.vocab.clean_spaces else text

    def _strip_added(self, ids: Sequence[int]) -> Sequence[int]:
        prefix, suffix = self.added_before, self.added_after
        if prefix and tuple(ids[: len(prefix)]) == prefix:
            ids = ids[len(prefix) :]
        if suffix and tuple(ids[-len(suffix) :]) == suffix:
            ids = ids[: -len(suffix)]
        return ids

    def stream(self, special: bool | Collection[int] = False, *, at_start: bool = False) -> StreamDecoder:
        """A decoder for ids that come one by one.

        special: show control and unknown tokens: all, none, or those with these ids.
        at_start: the ids begin a text, so that a space which `encode` puts in front is dropped again, as in
        `decode`. By default they continue a text, as generated tokens do.
        """
        return StreamDecoder(self, special=special, at_start=at_start)

    def token_bytes(self, id: int) -> bytes:
        """The bytes that a token stands for; special tokens by their text. Raises TokenizerError for an unknown id."""
        return self._pieces[self.check_id(id)]

    def check_id(self, id: int) -> int:
        if not 0 <= id < len(self.vocab.tokens):
            raise TokenizerError(f"token id {id} is outside the vocabulary of {self.n_vocab} tokens")
        return id

    def is_hidden(self, id: int) -> bool:
        """Whether `special=False` leaves the token out."""
        return bool(self.vocab.attrs[id] & (CONTROL | UNKNOWN))

    def opens_text(self, id: int) -> bool:
        """Whether the text after this token is encoded as at the start of a prompt."""
        return bool(self.vocab.attrs[id] & (CONTROL | USER_DEFINED))

    @cached_property
    def trie(self) -> LLTokenizer:
        """The vocabulary as grammars need it: `text.grammar.vocabulary.token_trie`, made at first use."""
        from ref_engine.text.grammar.vocabulary import token_trie

        return token_trie(self)

    @cached_property
    def _pieces(self) -> tuple[bytes, ...]:
        return tuple(self.spell_all(zip(self.vocab.tokens, self.vocab.attrs, strict=True)))

    def spell_all(self, tokens: Iterable[tuple[str, int]]) -> Iterable[bytes]:
        """The bytes of every token, from its text and attributes."""
        for text, attr in tokens:
            if attr & (CONTROL | UNKNOWN | USER_DEFINED):
                yield utf8(text)
            elif attr & NORMAL:
                yield self.normal_piece(text)
            elif attr & BYTE:
                yield byte_piece(text)
            else:
                yield b""

    def normal_piece(self, text: str) -> bytes:
        """The bytes of a normal token: here U+2581 stands for a space, as in SentencePiece."""
        return utf8(text.replace("▁", " "))


def _named(ids: tuple[int | None, ...]) -> list[int]:
    named = [id for id in ids if id is not None]
    if len(named) < len(ids):
        raise TokenizerError("the model wants a begin or end token added to the text, and names none")
    return named


def utf8(text: str) -> bytes:
    """UTF-8; bytes that a reader could not decode and kept as surrogates come out as they were."""
    return text.encode("utf-8", "surrogateescape" if not text.isascii() else "strict")


def byte_piece(text: str) -> bytes:
    """The byte that a token like "<0x0A>" names; 0 where the digits are none, as C's strtol has it."""
    try:
        return bytes([int(text[3:5], 16)])
    except ValueError:
        return b"\0"
