"""The splitting schemes that `pres.py` names.

They give the same words as llama.cpp's: its regexes (`llm_tokenizer_bpe`) and the hand-written splitters
that stand in for some of them (`unicode_regex_split_custom_*`), whose quirks are part of what models see.
Where a regex of theirs takes time quadratic in the length of the text, the one here is an equivalent that
does not.
"""

from collections.abc import Mapping
from types import MappingProxyType

from ref_engine.text.tokenizer.codepoints import HAN, HAN_OTHER, LETTER, L, M, N, P, S
from ref_engine.text.tokenizer.pretokenize import (
    Scheme,
    Stage,
    ascii_digits_from_the_right,
    digits_from_the_right,
    stage,
)


def _kinds(pattern: str, view: str = "kinds") -> Stage:
    return stage(pattern, view)


def _text(pattern: str, beyond_ascii: bool = False) -> Stage:
    return stage(pattern, "text", beyond_ascii)


# A run of spaces in halves: 512, 256, ... The first line is `\s*[\r\n]+`, written so that it neither steps
# back nor looks through the same run again: after a half of it there can be no line end in the rest.
_HALVING_SPACES = "|".join(
    [
        r"(?<![^\S\r\n])(?:[^\S\r\n]*+[\r\n]+)+",
        *(rf"\s{{{n}}}(?!\S)" for n in (512, 256, 128, 64, 32, 16, 8, 4)),
        r"\s{1,2}(?!\S)",
        r"\s",
    ]
)

# The letters of deepseek-llm: Latin, Greek, Cyrillic, Armenian, Georgian, Cherokee, ... with and without
# case.
_ALPHABETS = (
    r"A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373"
    r"\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481"
    r"\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b"
    r"\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b"
    r"\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb"
    r"\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128"
    r"\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4"
    r"\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf"
    r"\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3"
    r"\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943"
)
_CJK_AND_HANGUL = r"[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"  # overlapping as it stands in the model's file
_HAN_AND_KANA = r"[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
_SCRIPTS_OF_AFMOE = (
    r"[\u4e00-\u9fff\u3400-\u4dbf\u8c48-\ufaff\u3040-\u309f\u30a0-\u30ff\uff65-\uff9f\u2f00-\u2fdf\u0e40-\u0e7f"
    r"\u0e80-\u0eff\u1780-\u17ff\u1000-\u109f\uaa60-\uaa7f\ua9e0-\ua9ff\uac00-\ud7af\u1100-\u11ff]+"
)
_SCRIPTS_OF_YOUTU = (
    r"[\uac00-\ud7a3\u3131-\u318e]+"
    r"|[\uff01\u2026\u201c\u201d\u2018\u2019\u2014\uff1a\uff1b\uff0c\u3001-\u303f\ufe30-\ufe4f]+"
    r"|[\u3105-\u312f]+"
    rf"|{_HAN_AND_KANA}"
)

_SUFFIX = r"'(?:[sStTmMdD]|[rR][eE]|[vV][eE]|[lL][lL])"  # 's 't 're 've 'm 'll 'd in either case
_LETTERS = rf"[^\r\n{L}{N}]?[{L}]+"
_OTHERS = rf" ?[^\s{L}{N}]+[\r\n]*"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_MARKED = rf"[^\r\n{L}{P}{S}]?[{L}{M}]+"
_COMMAND = r"[!-/:-@\[-`{-~][A-Za-z]+"
_UPPER, _LOWER = f"A-Z{LETTER}", f"a-z{LETTER}"  # beyond ASCII a letter counts as both
_CJK = _text(_HAN_AND_KANA, beyond_ascii=True)

_GPT2 = _kinds(rf"'(?:[stmd]|re|ve|ll)| ?[{L}]+| ?[{N}]+| ?[^\s{L}{N}]+|\s+(?!\S)|\s+")
_LLAMA3 = _kinds(rf"{_SUFFIX}|{_LETTERS}|[{N}]{{1,3}}|{_OTHERS}|{_SPACES}")
_QWEN2 = _kinds(rf"{_SUFFIX}|{_LETTERS}|[{N}]|{_OTHERS}|{_SPACES}")
_LINES = _text(r"[^\n]+|\n+")
_EACH_NUMBER = _kinds(f"[{N}]")
_UP_TO_THREE = _kinds(f"[{N}]{{1,3}}")
_WORDS_OF_BLOOM = _text(r" ?[^(\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+")


def _scheme(*cutting: Stage, refining: tuple[Stage, ...] = ()) -> Scheme:
    return Scheme(cutting, refining)


def _cased(upper: str, lower: str, suffix: str) -> str:
    """Capitals, then small letters: "CamelCase" is two words."""
    before = rf"[^\r\n{L}{N}]?"
    return rf"{before}[{upper}]*[{lower}]+{suffix}|{before}[{upper}]+[{lower}]*{suffix}"


def _schemes() -> dict[str, Scheme]:
    maybe = f"(?:{_SUFFIX})?"
    numbers = rf"[{N}]{{1,3}}"
    others = rf" ?[^\s{L}{N}]+[\r\n/]*"
    return {
        "default": _scheme(
            _kinds(rf"[{P}$+<=>\^~|]+"),
            _GPT2,
            refining=(_kinds(f"[{N}]+"), _text("[0-9][0-9][0-9]")),
        ),
        "gpt2": _scheme(_GPT2),
        "gpt2-digits": _scheme(_EACH_NUMBER, _GPT2),
        "falcon": _scheme(_kinds(rf"[{P}$+<=>\^~|`]+"), _GPT2, refining=(_text("[0-9][0-9][0-9]"),)),
        "llama3": _scheme(_LLAMA3),
        "jais2": _scheme(_kinds(rf"{_SUFFIX}|{_LETTERS}|[{N}]{{1,3}}|{_OTHERS}|{_HALVING_SPACES}")),
        "minicpm5": _scheme(_UP_TO_THREE, _kinds(rf"{_SUFFIX}|{_LETTERS}|[{N}]+|{_OTHERS}|{_SPACES}")),
        "qwen2": _scheme(_QWEN2),
        "qwen35": _scheme(_kinds(rf"{_SUFFIX}|[^\r\n{L}{N}]?[{L}{M}]+|[{N}]| ?[^\s{L}{M}{N}]+[\r\n]*|{_SPACES}")),
        "ufakzeka": _scheme(_kinds(rf"{_LETTERS}|[{N}]|{_OTHERS}|{_SPACES}")),
        "bailingmoe": _scheme(_kinds(rf"{_SUFFIX}|{_LETTERS}|[{N}]|{_OTHERS}|\s*[\r\n]|\s+(?!\S)|\s+")),
        "seed-coder": _scheme(_kinds(rf"{_SUFFIX}|{_LETTERS}|[{N}]| ?[^\s{L}{N}\r\n]+|{_SPACES}")),
        "exaone-moe": _scheme(
            _kinds(
                rf"{_SUFFIX}|[^\r\n{L}{N}]?[{L}][{M}]*+(?: ?[{L}][{M}]*+)*+"
                rf"|[{N}]| ?[^\s{L}{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"
            ),
        ),
        "laguna": _scheme(_LINES, _QWEN2),
        "newlines": _scheme(_LINES),
        "gemma4": _scheme(_LINES),
        "whitespace": _scheme(_text(r"\S+")),
        "bloom": _scheme(_WORDS_OF_BLOOM),
        "viking": _scheme(_WORDS_OF_BLOOM, refining=(_EACH_NUMBER,)),
        "superbpe": _scheme(_kinds(f"[{N}]+"), Stage(ascii_digits_from_the_right, "text")),
        "chameleon": _scheme(
            _text("<sentinel:[0-9]+>"),
            _text("IMGIMG[A-I]{1,4}Z"),
            _text(r"[\t\n]|    |  "),
            _EACH_NUMBER,
            _kinds(rf"[{P}!-/:-@\[-`{{-~]"),
            _GPT2,
        ),
        "tekken": _scheme(_kinds(rf"{_cased(_UPPER, _LOWER, '')}|[{N}]|{others}|{_SPACES}")),
        "gpt4o": _scheme(_kinds(rf"{_cased(_UPPER, _LOWER, maybe)}|{numbers}|{others}|{_SPACES}")),
        "granite-multi": _scheme(_kinds(rf"{_cased(_UPPER + M, _LOWER + M, maybe)}|{numbers}|{others}|{_SPACES}")),
        "tiny-aya": _scheme(
            Stage(digits_from_the_right, "kinds"),
            _kinds(rf"[^\r\n{L}{N}]?[{L}{M}]+{maybe}|{numbers}|{others}|{_SPACES}"),
        ),
        "youtu": _scheme(
            _text(_SCRIPTS_OF_YOUTU, beyond_ascii=True),
            _kinds(rf"[^\r\n{L}{N}]?[{L}{M}]+{maybe}|[{N}]|{others}|{_SPACES}"),
        ),
        "deepseek-llm": _scheme(
            _text(r"[\r\n]"),
            _text(rf"\s?[{_ALPHABETS}]+"),
            refining=(
                _text(r"\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+"),
                _text(r"(?<!\s)\s++\Z"),
                _text(_CJK_AND_HANGUL, beyond_ascii=True),
                _kinds(f"[{N}]+"),
            ),
        ),
        "deepseek-coder": _scheme(
            _text(r"[\r\n]"),
            _kinds(rf"\s?[{L}]+"),
            refining=(
                _kinds(rf"\s?[{P}]+"),
                _text(_CJK_AND_HANGUL, beyond_ascii=True),
                _EACH_NUMBER,
            ),
        ),
        "deepseek3": _scheme(
            _UP_TO_THREE,
            _CJK,
            _kinds(rf"{_COMMAND}|{_MARKED}| ?[{P}{S}]+[\r\n]*|{_SPACES}"),
        ),
        "spark2_5": _scheme(
            _UP_TO_THREE,
            _CJK,
            _kinds(rf"{_COMMAND}|{_MARKED}| ?[{P}{S}]+|[\r\n]|\s+(?!\S)|\s+"),
            refining=(_EACH_NUMBER,),
        ),
        "afmoe": _scheme(
            Stage(digits_from_the_right, "kinds"),
            _text(_SCRIPTS_OF_AFMOE, beyond_ascii=True),
            _kinds(rf"{_COMMAND}|{_MARKED}| ?[{P}{S}]+[\r\n]*|{_SPACES}"),
        ),
        "kimi-k2": _scheme(
            _kinds(
                rf"[{HAN}{HAN_OTHER}]+|[^\r\n{L}{N}{HAN}{HAN_OTHER}]?[{L}]+{maybe}|{numbers}"
                rf"| ?[^\s{L}{N}{HAN}]+[\r\n]*|{_SPACES}",
                "han",
            ),
        ),
    }


SCHEMES: Mapping[str, Scheme] = MappingProxyType(_schemes())
