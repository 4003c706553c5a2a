"""Texts that tokenizers are compared on: many scripts, odd characters, long runs, and a page of English."""

from __future__ import annotations

from pathlib import Path

import numpy as np

ENGLISH = (Path(__file__).parent.parent / "real" / "page.txt").read_text(encoding="utf-8")

MIXED = (
    "",
    " ",
    "  ",
    "\n",
    "\r\n",
    "\t\tindented\n\tonce",
    "a\r\nb\rc\n\n\nd\n",
    "Hello, world!",
    " leading and trailing ",
    "two  spaces   three    four",
    "\u00a0no-break\u2003em\u3000ideographic\u200bzero\ufeffmark",
    "\u2028line\u2029paragraph\x85next\x0bvertical\x0cform",
    "NUL\x00inside\x00",
    "\x01\x02\x1b[31mred\x7f\x9f",
    "don't we'll I've they're it's 'quoted'",
    "1234567890123456789012345678901234567890",
    "3.14159 1,000,000 0x1F600 1e-9 ½ ² ⅷ ①",
    "١٢٣٤ १२३४ ๑๒๓๔ 一二三四",
    "Pneumonoultramicroscopicsilicovolcanoconiosis",
    "a" * 300,
    "ab" * 200,
    " " * 100,
    "\n" * 40,
    "=" * 77 + "-" * 78,
    "https://example.org/a/b?c=d&e=%20f#g user@example.com",
    "def f(x: int) -> int:\n    return x**2  # square\n",
    '{"key": [1, 2.5, null, true], "λ": "\\u03bb"}',
    '<div class="a"><p>text</p></div><br/>',
    "#include <stdio.h>\nint main(void) { return 0; }",
    "😀😃😄 👨‍👩‍👧‍👦 👩🏽‍🚀 🏳️‍🌈 🇩🇪🇯🇵 ❤️ ☺",
    "Ünïcödé façade naïve Ångström Đorđe Łódź ß ẞ ſ ı İ",
    "e\u0301 A\u030a o\u0308\u0304 n\u0303 \u0301alone q\u0323\u0307 q\u0307\u0323",
    "\u1112\u1161\u11ab 한 각 \u110b\u1161 ﬁ ﬃ ㎏ ㍿ Ⅷ ℌ ½ ﷺ",
    "Ελληνικά: Ο ταχύς ΣΊΣΥΦΟΣ σίσυφος",
    "Съешь же ещё этих мягких французских булок, да выпей чаю",
    "Українська мова — їжак, ґанок; Ѣ ѣ",
    "你好，世界！今天天气怎么样？",
    "我能吞下玻璃而不傷身體。龍龜齉",
    "𠀀𠀁𪚥 丽\U0002f800 \U0002b920 \U0002b820",
    "日本語のテキスト、カタカナとひらがな。ｶﾞｷﾞ",
    "모든 국민은 법 앞에 평등하다",
    "السلام عليكم ورحمة الله وَبَرَكَاتُهُ",
    "עברית עם ניקוד: שָׁלוֹם",
    "हिन्दी में क्षमा, ज़रूरत और क़लम",
    "বাংলা ভাষা তামিழ் தமிழ் తెలుగు ಕನ್ನಡ",
    "ภาษาไทยไม่มีช่องว่างระหว่างคำ",
    "ខ្មែរ ລາວ မြန်မာ བོད་ཡིག",
    "አማርኛ ქართული Հայերեն ᏣᎳᎩ",
    "Việt Nam: Tiếng Việt có dấu ệ ữ ở",
    "\U00011f43\U00011f44 \U00011b00x\U00011b09 \U0001f6d8\U00010d50\U000323b0",
    "\U0001e4ec\U00010efda\u0cf3 \U00013440\U00013430\U0001343a",
    "\ue000\uf8ff\U000f0000\ufffd\ufffe\uffff\U0010ffff",
    "\u200d\u200c\u200e\u2060\u00ad soft\u00adhyphen",
    "▁ ▁▁a ▁the▁end",
    "<s>begin</s> <unk> [CLS] [SEP] [MASK] <mask> <pad>",
    "<start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n",
    "<bos><eos> <unused7> [multimodal] <0x41><0x0A>",
    "<|endoftext|><|end|>  \n <|user|>\n x <|assistant|>",
    "</table></tr>\n\n<h1>  A</h1>",
    "tokens > </ >▁</ x> </y",
    "MiXeD cAsE SHOUTING camelCase snake_case kebab-case",
    "“curly” ‘quotes’ – en — em … ellipsis • bullet",
    "£€¥₹₿ +−×÷=≠≤≥ ∑∫√∞ ←↑→↓ §¶†‡",
    "ZWJ\u200d\u200d\u200dx a\u0300\u0301\u0302\u0303\u0304\u0305b",
)

_POOLS = (
    "abcdefghijklmnopqrstuvwxyz",
    "ABCDEFGHIJ",
    " ",
    "\n\t\r",
    "0123456789",
    ".,;:!?()[]{}<>/\\|\"'`~@#$%^&*-_=+",
    "▁",
    "éèüßñçÀÅĐ",
    "приветмир",
    "你好世界天气今日",
    "こんにちはカナ",
    "안녕하세요",
    "हिन्दी",
    "ภาษาไทย",
    "العربية",
    "😀👨\u200d👩\u200d👧🏽",
    "\u0301\u0308\u0327",
    "\u00a0\u2003\u3000\u200b\ufeff",
    "\x00\x01\x1f\x7f\x85",
)


def draw_texts(rng: np.random.Generator, n: int) -> list[str]:
    """n texts of runs from different pools of characters; half of the runs repeat one character."""
    texts = []
    for _ in range(n):
        text = ""
        size = int(rng.choice([3, 10, 40, 120]))
        while len(text) < size:
            pool = _POOLS[rng.integers(len(_POOLS))]
            run = int(rng.choice([1, 2, 3, 6, 12]))
            indices = rng.integers(len(pool), size=run if rng.random() < 0.5 else 1)
            piece = "".join(pool[i] for i in indices)
            text += piece if len(piece) > 1 else piece * run
        texts.append(text)
    return texts
