"""Two relatives of byte-pair encoding that llama.cpp knows: for DNA, and for text whose white space is dropped.

Source of the behaviour: `llm_tokenizer_hybriddna_session` and `llm_tokenizer_whitespace_session`.
"""

import re
from collections.abc import Iterable

from ref_engine.text.tokenizer.bpe import BpeTokenizer
from ref_engine.text.tokenizer.codepoints import plain_spaces

_K = 6  # bases in a token
_MARKER = "\ue000"  # ends the text of such a token: keeps the bases CCCCCC apart from a word of six C
_WHITE_SPACE = re.compile(r"\s+", re.ASCII)


class HybridDnaTokenizer(BpeTokenizer):
    """tokenizer.ggml.model "hybriddna": words as in "gpt2", and six bases a token between <dna> and </dna>."""

    def encode_fragment(self, text: str, after_special: bool) -> list[int]:
        tokens = self.vocab.token_to_id
        if not {"<dna>", "</dna>", "<oov>"} <= tokens.keys():
            return self.encode_words(text)
        ids: list[int] = []
        while text:
            plain, opened, text = text.partition("<dna>")
            ids += self.encode_words(plain)
            if opened:
                bases, closed, text = text.partition("</dna>")
                ids += [tokens["<dna>"], *self._bases(bases)]
                ids += [tokens["</dna>"]] if closed else []
        return ids

    def _bases(self, text: str) -> Iterable[int]:
        """Six bytes a token, the last filled up with A; what is no token is <oov>."""
        data = text.encode().upper()  # of bytes: changes ASCII only
        for start in range(0, len(data), _K):
            bases = data[start : start + _K].ljust(_K, b"A").decode("latin-1")
            yield self.vocab.token_to_id.get(bases + _MARKER, self.vocab.token_to_id["<oov>"])

    def normal_piece(self, text: str) -> bytes:
        return super().normal_piece(text.removesuffix(_MARKER))


class WhitespaceTokenizer(BpeTokenizer):
    """tokenizer.ggml.model "whitespace": words between white space, which itself is dropped."""

    def encode_fragment(self, text: str, after_special: bool) -> list[int]:
        ids: list[int] = []
        for word in _WHITE_SPACE.split(plain_spaces(text)):
            ids += self.encode_words(_lower(word) if self.vocab.lowercase else word)
        return ids


def _lower(text: str) -> str:
    """Character by character: no word-final sigma, and one character for one."""
    return "".join(map(str.lower, text.replace("\u0130", "i")))
