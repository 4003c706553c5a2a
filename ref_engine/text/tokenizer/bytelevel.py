"""GPT-2's alphabet: one printable letter for each of the 256 bytes, so that merges never see white space.

Source: `bytes_to_unicode` of openai/gpt-2. Printable Latin-1 characters stand for themselves; the other bytes
take the letters from U+0100 on, in order.
"""


def _letters() -> str:
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    stand_in = {byte: chr(0x100 + place) for place, byte in enumerate(others)}
    return "".join(stand_in.get(byte, chr(byte)) for byte in range(256))


LETTERS = _letters()  # LETTERS[byte] is the byte's letter

_NOT_A_LETTER = "\uffff"
_BYTES = {code: _NOT_A_LETTER for code in range(256) if chr(code) not in LETTERS}
_BYTES.update({ord(letter): chr(byte) for byte, letter in enumerate(LETTERS)})


def to_letters(text: str) -> str:
    """The UTF-8 bytes of `text`, each as its letter."""
    return text.encode().decode("latin-1").translate(LETTERS)


def from_letters(letters: str) -> bytes | None:
    """The bytes that `letters` stand for, or None where one of them is not of the alphabet."""
    try:
        return letters.translate(_BYTES).encode("latin-1")
    except UnicodeEncodeError:
        return None
