"""Special tokens cut out of a text before the text between them is tokenized."""

from collections.abc import Sequence

from ref_engine.text.tokenizer.special import CONTROL, LSTRIP, RSTRIP, UNKNOWN, USER_DEFINED

C_SPACES = " \t\n\v\f\r"  # isspace() of C

_HEAD = 4  # characters: thousands of special tokens share a few heads, and most texts hold none of these


class Partition:
    """Splits a text at the special tokens of a vocabulary, longest token first, as llama.cpp does.

    The longest token is cut out of the whole text before the next one is looked for, so this is not the same
    as taking the longest match from left to right.
    """

    def __init__(self, tokens: Sequence[str], attrs: Sequence[int]) -> None:
        kinds = CONTROL | USER_DEFINED | UNKNOWN
        special = [id for id, attr in enumerate(attrs) if attr & kinds]
        special.sort(key=lambda id: -len(tokens[id].encode("utf-8", "surrogateescape")))
        self._order = tuple((id, tokens[id], attrs[id]) for id in special)
        self._heads = tuple({tokens[id][:_HEAD] for id in special})

    def split(self, text: str, parse_special: bool) -> list[str | int]:
        """The text in pieces: plain strings, none of them empty, and ids of special tokens.

        parse_special: without it only user-defined tokens are recognised.
        """
        parts: list[str | int] = [text] if text else []
        heads = {head for head in self._heads if head in text}
        if not heads:
            return parts
        for id, token, attr in self._order:
            if token[:_HEAD] not in heads or (not parse_special and attr & (CONTROL | UNKNOWN)):
                continue
            if token in text:
                parts = _split_at(parts, id, token, attr)
        return parts


def _split_at(parts: Sequence[str | int], id: int, token: str, attr: int) -> list[str | int]:
    out: list[str | int] = []
    for part in parts:
        if isinstance(part, int) or token not in part:
            out.append(part)
        elif attr & (LSTRIP | RSTRIP):
            out.extend(_split_stripping(part, id, token, attr))
        else:
            first, *others = part.split(token)
            if first:
                out.append(first)
            for text in others:
                out.append(id)
                if text:
                    out.append(text)
    return out


def _split_stripping(text: str, id: int, token: str, attr: int) -> list[str | int]:
    """As `str.split`, for tokens that swallow the white space beside them."""
    out: list[str | int] = []
    start = 0
    while (found := text.find(token, start)) >= 0:
        left = text[start:found]
        if attr & LSTRIP:
            left = left.rstrip(C_SPACES)
        if left:
            out.append(left)
        out.append(id)
        start = found + len(token)
        if attr & RSTRIP:
            start = len(text) - len(text[start:].lstrip(C_SPACES))
    if start < len(text):
        out.append(text[start:])
    return out
