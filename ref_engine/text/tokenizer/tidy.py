"""Spaces that a word-level decoder leaves before punctuation, removed as llama.cpp's `llama_detokenize`
removes them.
"""

import re

_PUNCTUATION = re.compile(r" (?=[?!.,])")
_APOSTROPHE = re.compile(r" ' ")
_CONTRACTION = re.compile(r" (?='(?:s|m|re|ve))")


def clean_spaces(text: str) -> str:
    """`text` without the space in " ?", " !", " .", " ,", " 's", " 'm", " 're", " 've", and with "'" for " '
    ".
    """
    text = _PUNCTUATION.sub("", text)
    text = _APOSTROPHE.sub("'", text)
    return _CONTRACTION.sub("", text)
