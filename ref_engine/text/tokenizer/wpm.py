"""WordPiece tokenizer: the text is normalised and split into words, each word greedily into the longest
tokens (`bert`).

In a GGUF vocabulary a word's first piece begins with U+2581 and the others do not (BERT's own files mark
the others with "##" instead). Source of the behaviour: llama.cpp `llm_tokenizer_wpm_session`; the
normalisation is that of BERT's `BasicTokenizer`.
"""

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Mapping
from itertools import accumulate

from ref_engine.errors import TokenizerError
from ref_engine.text.tokenizer.base import Tokenizer
from ref_engine.text.tokenizer.lengths import candidate_lengths, lengths_by_head
from ref_engine.text.tokenizer.unicode_table import CATEGORY_RUNS
from ref_engine.text.tokenizer.vocab import Vocab
from ref_engine.text.tokenizer.words import SPACE_MARK

_KEPT = 1 << 16  # runs of characters whose ids are kept ...
_SHORT = 64  # ... if they have at most this many characters

# White_Space of the Unicode character database; Python's `\s` also takes U+001C..U+001F.
_WHITE_SPACE = re.compile("[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+")

# As in Hugging Face's Rust code, block E begins 256 characters late.
_CJK = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


_RUNS = CATEGORY_RUNS.split()
_RUN_STARTS = tuple(accumulate((int(run[1:], 16) for run in _RUNS), initial=0))


def major_category(character: str) -> str:
    """The first letter of the general category, "U" for a character that Unicode 15.1 does not define."""
    return _RUNS[bisect_right(_RUN_STARTS, ord(character)) - 1][0]


def normalise_character(character: str, *, lowercase: bool, strip_accents: bool) -> tuple[str, bool]:
    """What a character that is no white space becomes ("" if it is dropped), and whether it is a word of
    its own.

    Only the first character of a canonical decomposition is kept, and only the first of a lower-case
    mapping.
    """
    category = major_category(character)
    if strip_accents and category != "U":
        character = unicodedata.normalize("NFD", character)[0]
        category = major_category(character)
    if category == "C" or character == "\ufffd" or (strip_accents and category == "M"):
        return "", False
    code = ord(character)
    is_cjk = any(first <= code <= last for first, last in _CJK)
    alone = category == "P" or (code < 0x7F and category == "S") or is_cjk
    return character.lower()[0] if lowercase and category != "U" else character, alone


def longest_pieces(
    word: str, token_to_id: Mapping[str, int], lengths: Mapping[str, tuple[int, ...]]
) -> list[int] | None:
    """Ids of a word (that begins with U+2581) cut greedily into the longest tokens; None where that does
    not work out.
    """
    ids: list[int] = []
    at = 0
    while at < len(word):
        for length in candidate_lengths(word, at, lengths):
            id = token_to_id.get(word[at : at + length])
            if id is not None and at + length <= len(word):
                break
        else:
            return None
        ids.append(id)
        at += length
    return ids


class WpmTokenizer(Tokenizer):
    """The tokenizer of BERT and its kin. A text is normalised, so decoding gives back its words, not its
    spelling.
    """

    def __init__(self, vocab: Vocab) -> None:
        """Raises TokenizerError for a token of more than LONGEST_TOKEN characters."""
        super().__init__(vocab)
        self._lengths = lengths_by_head(vocab.tokens)
        self._characters: dict[str, tuple[str, bool]] = {}
        self._kept: dict[str, list[int]] = {}

    @property
    def space_prefix(self) -> bool:
        return True

    @property
    def added_before(self) -> tuple[int | None, ...]:
        return (self.vocab.bos_id,)

    @property
    def added_after(self) -> tuple[int | None, ...]:
        return (self.vocab.sep_id,)

    def encode_fragment(self, text: str, after_special: bool) -> list[int]:
        """Ids of plain text. Raises TokenizerError for an unknown word where the model has no unknown
        token.
        """
        ids: list[int] = []
        for run in _WHITE_SPACE.split(text):
            known = self._kept.get(run)
            ids += self._encode_run(run) if known is None else known
        return ids

    def _encode_run(self, run: str) -> list[int]:
        ids: list[int] = []
        for word in self.words(run):
            pieces = longest_pieces(SPACE_MARK + word, self.vocab.token_to_id, self._lengths)
            if pieces is None:
                if self.vocab.unk_id is None:
                    raise TokenizerError(f"no tokens for {word[:40]!r} in the vocabulary, and no unknown token")
                pieces = [self.vocab.unk_id]
            ids += pieces
        if len(run) <= _SHORT:
            if len(self._kept) >= _KEPT:
                self._kept.clear()
            self._kept[run] = ids
        return ids

    def words(self, run: str) -> list[str]:
        """The normalised words of a run of characters without white space."""
        words = [""]
        for character in run:
            known = self._characters.get(character)
            if known is None:
                known = self._characters[character] = normalise_character(
                    character, lowercase=self.vocab.lowercase, strip_accents=self.vocab.strip_accents
                )
            text, alone = known
            if alone:
                words += [text, ""]
            else:
                words[-1] += text
        return [word for word in words if word]
