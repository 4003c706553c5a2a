"""A small byte-pair vocabulary, and texts that tell pre-tokenizers apart.

Most pairs of bytes of a text have a merge, of a random rank, so that nearly every cut between two words
shows in the ids, wherever it falls.
"""

from __future__ import annotations

from typing import Any

import numpy as np

# Texts for the places where pre-tokenizers differ: contractions, runs of digits, cases, lines, marks,
# scripts.
SPLITS = (
    "I'm you'RE he'Ll they'D we'Ve it'S 'tis O'Neill don'tt 's 'x l'été rock'n'roll",
    "'S'T'RE'VE'M'LL'D 'sa 'ra 'la ''s s's' '",
    "x'd'dd'sd'td'md'red'ved'lld'REd'REs'VEd'LLd'Red'rEd'vEd'Ved'Lld'lLd'Sd'Td'Md'Dd S'RE S'RES D'Dd",
    "1 12 123 1234 12345 123456 1234567 12345678 1,234,567.89 0001 v1.2.34 a1b22c333d4444",
    "x12y123z1234 ²³¹ 12²34 ٣٤٥٦ 1٢3٤5 Ⅷ9 １２３４５６７ 123² 1234½5",
    "CamelCaseHTTPServer XMLHttp iPhone ÉCOLE École éCOLE ΑΒΓαβγ ǅabc ʰaʰ 漢字Kanji",
    "a  b   c    d     e\n f\n\n g \n  \n h\t\ti \t j\r\n\r\nk\r l\v\fm",
    "  \n \n\t\n   x \n\n\n   ",
    "x\n\n\ny\n\nz\n \nw \n\n v",
    "trailing   ",
    "trailing \n",
    "\n leading",
    "   leading",
    "!!! ?? ... -- == <= => != && || ++ $$ ^^ ~~ `` @@ ## %% ** // \\\\ __",
    "a!b?c.d,e;f:g(h)i[j]k{l}m<n>o|p~q`r^s$t+u=v&w*x#y@z%",
    " !x .y ,z (a [b {c $d +e <f ^g ~h |i `j /k /path/to/file.txt",
    "foo()\n{\n    return [1, 2];\n}\n\n/* c */ // d\r\n#e\n",
    "end.\nNext!\r\nMore?/\n//\n/\n \n/ x",
    "<sentinel:12> IMGIMGABCDZ IMGIMGZ IMGIMGAZIMGIMGBBBBBZ <sentinel:>",
    "e\u0301a\u0308o \u0301x !\u0301 1\u0301 \u0301\u0301 क्ष त्र ज्ञ का की कु",
    "मैंने कहा। वह, यहाँ! ۔نص، 文。文，文、文！文…文",
    "漢字かなカナ한글 漢 字a漢1漢!漢 ㄅㄆㄇ 丐\u9fa5\u9fa6\u9fff 〇々〆",
    "\u3400\u4dbf\uf900\ufaff\ufa6e \U00020000\U0002a6df\U0002a6e0\U0002b739\U0002b73e\U0002ebef\U0002f800x",
    "ไทย123 ລາວ កខគ မြန်မာ 가나다 ᄀᄁ ﾊﾝｶｸ ｡｢｣ ⼀⼁ 豈",
    "’s ‘x’ “y” — – … ：；，、！ ？（）「」【】〈〉︰﹏ ！＂＃～",
    "\u00a0x\u00a0\u00a0y \u2003\u2003z\u3000\u3000漢\u3000!\u3000 \u00851",
    "\x1c\x1d\x1e\x1f a\x00b \x7f\x80\x9f\u00adx \u200b\u200d\ufeff1",
    "😀😀 😀a a😀 1😀 😀!😀\n👨\u200d👩\u200d👧 🏳\ufe0f\u200d🌈🇩🇪 ❤\ufe0f",
    "Ⅷ ⅷ ① ½ ㎏ ℌ ª º µ ſ ß ﬁ ﷺ",
    "\U0001e900\U0001e922 \U00010400\U00010428 \U000104b0 \u10a0\u10d0\u1c90 \u13a0\uab70 \u2c00\u2c30",
    "\u0378 \u0530\u0557 \U000e0001 \U0010ffff \ue000x \uffff1 \ufffd!",
    "the the cat sat on thethe mat. hello world Hello world, in-between it's",
    "https://www.example.com/a_b?q=1&r=%20#frag mail@example.org C:\\dir\\file",
    "日本語とEnglishと123と、混在。한국어도 있고 русский тоже и عربي",
    "0 00 000 0000 00000 000000 0000000 (000)000-0000 1e10 0x1F 3.14",
    "  1  22  333  4444 \n1\n22\n",
    "a\n1\n!\né\n漢\n" * 3,
)

SPECIALS = (
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "<|endoftext|><|endoftext|> x<|endoftext|>",
    "a <mask> b  [MASK]  c<tool>d <tool> e",
    "<|im_start|<|im_start|>> <<tool>> <unk> <unused1> <|im_<tool>end|>",
    "<tool>call</tool> <tool",
    "<|im_end|>",
    " <tool> \n <tool>\t",
    "<s> a </s> b <|im_start|>  c",
)

_WHOLE = (" world", "Hello", "123", "\n\n", " the", "1234", " été", "漢字", "'s", "   ", "...", " x", "é", "cat", "\n")
_CONTROL = ("<s>", "</s>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<unused1>", "[MASK]", "<mask>")
_USER_DEFINED = ("<tool>", "</tool>")


def letters() -> str:
    """The letter of each byte: GPT-2's `bytes_to_unicode`."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = iter(range(256, 512))
    return "".join(chr(byte) if byte in plain else chr(next(rest)) for byte in range(256))


def _spell(text: str) -> str:
    alphabet = letters()
    return "".join(alphabet[byte] for byte in text.encode())


def _pairs(rng: np.random.Generator) -> list[tuple[str, str]]:
    alphabet = letters()
    plain = [9, 10, 13, *range(32, 127)]
    lead, follow = list(range(0xC2, 0xF5)), list(range(0x80, 0xC0))
    shares = ((plain, plain, 0.6), (lead, follow, 0.6), (follow, follow, 0.6), (follow, lead, 0.3))
    shares += ((follow, plain, 0.3), (plain, lead, 0.3))
    always = {ord(letter) for letter in "'sStTmMdDrReEvVlL "}  # contractions
    pairs = [
        (alphabet[a], alphabet[b])
        for first, second, share in shares
        for a in first
        for b in second
        if rng.random() < share or {a, b} <= always
    ]
    pairs += [("▁", alphabet[byte]) for byte in range(33, 127)] + [("▁", "▁"), ("é", "t"), ("漢", "字")]
    return [pairs[i] for i in rng.permutation(len(pairs))]


def small_vocab(rng: np.random.Generator) -> dict[str, Any]:
    """Metadata of a vocabulary of some 17 thousand tokens: bytes, pairs, fours, whole words, special tokens."""
    pairs = _pairs(rng)
    joined = [a + b for a, b in pairs]
    fours = [(joined[i], joined[j]) for i, j in rng.integers(len(joined), size=(2000, 2))]
    known = dict.fromkeys([*letters(), "▁", "漢", "字", *joined])
    merges = [*pairs]
    for a, b in fours:
        if a + b not in known:
            known[a + b] = None
            merges.append((a, b))
    known |= dict.fromkeys([*map(_spell, _WHOLE), *_WHOLE[:1], "\n\n\n"])
    normal = [token for token in known if token not in _CONTROL]
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    tokens = [*normal, *bytes_, *_CONTROL, *_USER_DEFINED, "<unk>"]
    types = [1] * len(normal) + [6] * 256 + [3] * len(_CONTROL) + [4] * len(_USER_DEFINED) + [2]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": [f"{a} {b}" for a, b in merges],
        "tokenizer.ggml.bos_token_id": tokens.index("<|im_start|>"),
        "tokenizer.ggml.eos_token_id": tokens.index("<|im_end|>"),
        "tokenizer.ggml.unknown_token_id": tokens.index("<unk>"),
    }
