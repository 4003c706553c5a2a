"""Special tokens, what is added around a text, the chat template, and merges: what all kinds of vocabulary share.

Sources: `SpecialVocab` of llama.cpp's gguf-py/gguf/vocab.py (which file wins), transformers' tokenizer_config.json.
"""

from __future__ import annotations

import json
import string
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ref_engine.archs.hf import KeyWriter
from ref_engine.checkpoint import Config
from ref_engine.convert.vocab.files import VocabFiles
from ref_engine.errors import ConvertError
from ref_engine.files.types import GGUFValueType

KINDS = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
_KEYS = {"unk": "unknown", "sep": "seperator", "pad": "padding"}  # GGUF's spelling
_WRITTEN = ("bos", "eos", "unk", "sep", "pad", "mask", "eot", "eom")
_ADDED = ("bos", "eos", "sep")
_SAFE = frozenset(string.ascii_letters + string.digits)


@dataclass
class SpecialTokens:
    """ids by kind, what is added around a text, normaliser flags and chat template."""

    ids: dict[str, int] = field(default_factory=dict)
    adds: dict[str, bool] = field(default_factory=dict)
    lowercase: bool | None = None
    strip_accents: bool | None = None
    template: str | list[dict[str, Any]] | None = None

    def set_default(self, kind: str, token: object, n_tokens: int | None = None) -> None:
        """The first file that names a kind's token wins."""
        if isinstance(token, bool) or not isinstance(token, int):
            return
        if token < 0:
            raise ConvertError(f"the token for {kind} is {token}")
        if n_tokens is None or token < n_tokens:
            self.ids.setdefault(kind, token)

    def write(self, keys: KeyWriter) -> None:
        for kind, token in self.ids.items():
            if kind in _WRITTEN:
                keys.u32(f"tokenizer.ggml.{_KEYS.get(kind, kind)}_token_id", token, full=True)
        for kind, add in self.adds.items():
            if kind in _ADDED:
                keys.boolean(f"tokenizer.ggml.add_{kind}_token", add, full=True)
        if self.lowercase is not None:
            keys.boolean("tokenizer.ggml.normalizer.lowercase", self.lowercase, full=True)
        if self.strip_accents is not None:
            keys.boolean("tokenizer.ggml.normalizer.strip_accents", self.strip_accents, full=True)
        if self.template is not None:
            _write_template(self.template, keys)


def read_special(files: VocabFiles, n_tokens: int | None = None, kinds: Sequence[str] = KINDS) -> SpecialTokens:
    """n_tokens: ids from it on are left out. Raises ConvertError for values of a wrong kind."""
    special = SpecialTokens()
    named = dict(files.tokenizer_config) if files.tokenizer_config is not None else None
    more: list[str] = []
    if files.tokenizer is not None:
        more = _read_tokenizer(files.tokenizer, named, special)
    if named is not None:
        special.template = _template(files, named)
        added = [
            entry for entry in (files.tokenizer or Config({})).get("added_tokens") or [] if isinstance(entry, dict)
        ]
        for kind in (*kinds, *more):
            if isinstance(add := named.get(f"add_{kind}_token"), bool):
                special.adds.setdefault(kind, add)
            if (content := _text(named.get(f"{kind}_token"))) is not None:
                found = (entry.get("id") for entry in added if entry.get("content") == content)
                special.set_default(kind, next(found, None), n_tokens)
    own = files.own_config
    for kind in (*kinds, *more):
        token = own.get(f"{kind}_token_id")
        if token is None:
            token = own.inner("text_config").get(f"{kind}_token_id")
        special.set_default(kind, token, n_tokens)
    return special


def special_texts(files: VocabFiles) -> set[str]:
    """Texts that tokenizer_config.json names as special, of a kind or besides (transformers' `all_special_tokens`)."""
    config = files.tokenizer_config or Config({})
    more = [config.get("additional_special_tokens"), config.get("extra_special_tokens")]
    listed = [entry for entries in more if isinstance(entries, list) for entry in entries]
    texts = (_text(entry) for entry in (*listed, *(config.get(f"{kind}_token") for kind in KINDS)))
    return {text for text in texts if text is not None}


def _text(entry: object) -> str | None:
    content = entry.get("content") if isinstance(entry, dict) else entry
    return content if isinstance(content, str) else None


def _read_tokenizer(tokenizer: Config, named: dict[str, Any] | None, special: SpecialTokens) -> list[str]:
    """tokenizer.json's normaliser and post-processor; returns kinds of tokens that come up beyond the usual ones.

    `named` (tokenizer_config.json) is completed: a missing bos is cls, a missing eos is sep.
    """
    _normalizer(tokenizer.inner("normalizer"), special)
    names = _Names(named)
    names.adopt("bos", "cls")
    names.adopt("eos", "sep")
    processor = tokenizer.inner("post_processor")
    steps = processor.list_of("processors", dict) if "processors" in processor else [processor.entries]
    for step in (Config(step, processor.where) for step in steps):
        kind = step.get("type")
        if kind == "ByteLevel":
            special.adds.setdefault("bos", False)
            special.adds.setdefault("eos", False)
        elif kind == "RobertaProcessing":
            special.adds |= {"bos": True, "eos": True, "sep": True}
            for part, other in (("cls", "bos"), ("sep", "eos")):
                if not names.get(part):
                    pair = step.get(part)
                    names.put(part, pair[0] if isinstance(pair, list) and pair else names.get(other))
        elif kind == "TemplateProcessing":
            _template_processing(step, names, special)
    return names.more


def _normalizer(normalizer: Config, special: SpecialTokens, depth: int = 0) -> None:
    kind = normalizer.get("type")
    if kind == "Lowercase":
        special.lowercase = True
    elif kind == "StripAccents":
        special.strip_accents = True
    elif kind == "BertNormalizer":
        if isinstance(flag := normalizer.get("lowercase"), bool):
            special.lowercase = flag
        if isinstance(flag := normalizer.get("strip_accents"), bool):
            special.strip_accents = flag
    elif kind == "Sequence" and depth < 8:
        for step in normalizer.list_of("normalizers", dict):
            _normalizer(Config(step, normalizer.where), special, depth + 1)


class _Names:
    """Texts of the special tokens by kind, as tokenizer_config.json gives them and the post-processor corrects them."""

    def __init__(self, named: dict[str, Any] | None) -> None:
        self.named = named
        self.alone: dict[str, Any] = {}  # where there is no tokenizer_config.json
        self.more: list[str] = []

    def get(self, kind: str) -> Any:
        return self.alone.get(kind) if self.named is None else self.named.get(f"{kind}_token")

    def put(self, kind: str, text: Any) -> None:
        if self.named is None:
            self.alone[kind] = text
        else:
            self.named[f"{kind}_token"] = text

    def adopt(self, kind: str, other: str) -> None:
        if self.named is not None and not self.get(kind) and self.get(other):
            self.put(kind, self.get(other))

    def replace_end(self, text: str) -> None:
        """The text's last token is the true end; what was called so ends a turn or a message."""
        for kind in ("eot", "eom"):
            if kind not in self.more:
                self.more.append(kind)
                self.put(kind, self.get("eos"))
                break
        self.put("eos", text)

    def is_one_of(self, text: str, *kinds: str) -> bool:
        return text in (_text(self.get(kind)) for kind in kinds)


def _token(template: list[Any], index: int, what: str = "SpecialToken") -> str | None:
    step = template[index] if template and isinstance(template[index], dict) else {}
    entry = step.get(what)
    name = entry.get("id") if isinstance(entry, dict) else None
    return name if isinstance(name, str) and name else None


def _template_processing(step: Config, names: _Names, special: SpecialTokens) -> None:
    """What a template like `<s> $A </s>` adds around one text, and between two."""
    single, pair = step.get("single") or [], step.get("pair") or []
    if not isinstance(single, list) or not isinstance(pair, list):
        raise ConvertError(f"{step.where}: single and pair must be lists")
    first = last = None
    if len(single) > 1:
        if first := _token(single, 0):
            if names.named is None:
                names.put("bos", first)
            elif not names.is_one_of(first, "bos", "cls"):
                for kind in ("bos", "cls"):
                    if not names.get(kind):
                        names.put(kind, first)
            special.adds["bos"] = names.is_one_of(first, "bos", "cls")
        if last := _token(single, -1):
            if names.named is None:
                names.put("eos", last)
            elif not names.is_one_of(last, "eos"):
                names.replace_end(last)
            special.adds["eos"] = names.is_one_of(last, "eos")
    start = 1 if pair and first and _token(pair, 0) == first else 0
    stop = len(pair) - 1 if pair and last and _token(pair, -1) == last else len(pair)
    inner = pair[start:stop]
    if inner and _token(inner, 0, "Sequence") == "A" and _token(inner, -1, "Sequence") == "B" and inner[1:-1]:
        _between(inner[1:-1], names, special, ends=last is not None)


def _between(inner: list[Any], names: _Names, special: SpecialTokens, ends: bool) -> None:
    separated = False
    if (token := _token(inner, 0)) is not None and names.is_one_of(token, "sep", "eos") and not ends:
        separated = True
    if len(inner) == 2 and (token := _token(inner, 1)) is not None and names.is_one_of(token, "sep", "eos"):
        separated = True
    special.adds["sep"] = separated
    if separated and not names.get("sep") and names.named is not None:
        names.put("sep", names.get("eos"))


def _template(files: VocabFiles, named: dict[str, Any]) -> str | list[dict[str, Any]] | None:
    """The chat template: tokenizer_config.json's, else chat_template.jinja's, else chat_template.json's."""
    other: Any = None
    if files.has("chat_template.jinja"):
        other = _read(files, "chat_template.jinja")
        folder = files.folder / "additional_chat_templates"
        if names := sorted(path.name for path in folder.glob("*.jinja")):
            other = [{"name": "default", "template": other}]
            other += [{"name": name[:-6], "template": _read(files, f"{folder.name}/{name}")} for name in names]
    elif files.has("chat_template.json"):
        try:
            other = json.loads(_read(files, "chat_template.json")).get("chat_template")
        except (ValueError, AttributeError, RecursionError) as error:
            raise ConvertError(f"{files.path('chat_template.json')}: not a JSON object: {error}") from error
    template = named.get("chat_template", other)
    return template if isinstance(template, str | list) else None


def _read(files: VocabFiles, name: str) -> str:
    try:
        return (files.folder / name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConvertError(f"{files.path(name)}: cannot be read: {error}") from error


def _write_template(template: str | list[dict[str, Any]], keys: KeyWriter) -> None:
    """One template, or several with names; `default` is the one without a name in its key."""
    if isinstance(template, str):
        keys.string("tokenizer.chat_template", template, full=True)
        return
    default, names = None, set()
    for choice in template:
        text = choice.get("template") if isinstance(choice, dict) else None
        name = "".join(c if c in _SAFE else "_" for c in str(choice.get("name", ""))) if text is not None else ""
        if name == "default":
            default = text
        elif name:
            names.add(name)
            keys.string(f"tokenizer.chat_template.{name}", text, full=True)
    if names:
        keys.array("tokenizer.chat_templates", sorted(names), GGUFValueType.STRING, full=True)
    if default is not None:
        keys.string("tokenizer.chat_template", default, full=True)
