"""Text with every character beyond ASCII replaced by one that stands for its kind, so that short regexes can
split it.

llama.cpp runs its pre-tokenizer regexes over such a text ("collapsed", `unicode_regex_split`), and the ids
it gives depend on that: `[^A-Z]` under it matches an "É". Positions in the collapsed text are positions in
the text.
"""

import numpy as np

from ref_engine.text.tokenizer.unicode_table import CATEGORY_RUNS

# The stand-ins. Any characters do that no pattern uses otherwise; these are letters of Latin-1 for compact
# strings.
NUMBER, LETTER, PUNCTUATION, MARK, SYMBOL, OTHER, HAN, HAN_OTHER = "ÑÒÓÔÕÐÖ×"

# What a regex class is written with: the ASCII members, then the stand-in for all others.
N = "0-9" + NUMBER
L = "A-Za-z" + LETTER
M = MARK
P = r"!-#%-*,-/:;?@\[-\]_{}" + PUNCTUATION
S = r"$+<->\^`|~" + SYMBOL

# White space beyond ASCII: a vertical tab stands for it, which `\s` matches.
SPACES = (0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000)

_HAN_RANGES = (
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2EBEF),
    (0x2F800, 0x2FA1F),
)


def _kinds() -> np.ndarray:
    """uint8 (0x110000,): the stand-in of every code point."""
    by_letter = {"L": LETTER, "M": MARK, "N": NUMBER, "P": PUNCTUATION, "S": SYMBOL}
    runs = CATEGORY_RUNS.split()
    stand_ins = [ord(by_letter.get(run[0], OTHER)) for run in runs]
    kinds = np.repeat(np.array(stand_ins, np.uint8), [int(run[1:], 16) for run in runs])
    kinds[:128] = np.arange(128)
    kinds[list(SPACES)] = ord("\v")
    kinds.flags.writeable = False
    return kinds


def _kinds_with_han(kinds: np.ndarray) -> np.ndarray:
    out = kinds.copy()
    for first, last in _HAN_RANGES:
        block = out[first : last + 1]
        block[:] = np.where(block == ord(LETTER), ord(HAN), ord(HAN_OTHER))
    out.flags.writeable = False
    return out


_KINDS = _kinds()
_KINDS_WITH_HAN = _kinds_with_han(_KINDS)
_PLAIN_SPACES = dict.fromkeys(SPACES, "\v")


def collapse(text: str) -> str:
    """`text` with stand-ins, of the same length. `text` holds no surrogates."""
    return _collapse(text, _KINDS)


def collapse_but_han(text: str) -> str:
    """As `collapse`, with stand-ins of their own for Han characters."""
    return _collapse(text, _KINDS_WITH_HAN)


def _collapse(text: str, kinds: np.ndarray) -> str:
    if text.isascii():
        return text
    codes = np.frombuffer(text.encode("utf-32-le"), "<u4")
    return str(kinds[codes], "latin-1")


def plain_spaces(text: str) -> str:
    """`text` with a vertical tab for white space beyond ASCII, for patterns over the characters themselves."""
    return text if text.isascii() else text.translate(_PLAIN_SPACES)
