"""golden/tokenizers and golden/chat: ids of llama.cpp over vocabularies of every kind, prompts of transformers.

These do not depend on a backend. Vocabularies and templates that are too large to keep beside their goldens are taken
from the cache (`python -m ref_engine.library.assets` fetches them); cases without theirs are skipped and say so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from ref_engine.errors import TemplateError
from ref_engine.library.roots import cache_root
from ref_engine.text.chat.template import ChatTemplate
from ref_engine.text.tokenizer import Tokenizer, load_tokenizer
from ref_engine.verify.case import Case, Finding, NotHere, failed
from ref_engine.verify.golden import Golden

_CHARSMAP = "tokenizer.ggml.precompiled_charsmap"
_FETCH = "python -m ref_engine.library.assets fetches it"
Run = tuple[str, list[int], bool, bool]  # text, llama.cpp's ids, add_special, parse_special


def cases(golden: Golden) -> list[Case]:
    return [*_byte_pair(golden), *_others(golden), *_templates(golden)]


def _ids(make: Callable[[], Tokenizer], runs: Callable[[], Iterable[Run]]) -> Finding:
    """Every text gives the golden ids; the first that does not is the finding."""
    tokenizer, n = make(), 0
    for text, want, special, parse in runs():
        got = tokenizer.encode(text, add_special=special, parse_special=parse)
        if got != want:
            at = next((i for i, (a, b) in enumerate(zip(got, want, strict=False)) if a != b), min(len(got), len(want)))
            near = f"{got[at : at + 4]}, expected {want[at : at + 4]}"
            return failed(f"ids of {text[:60]!r} differ at {at}: {near}")
        n += 1
    return Finding(True, f"{n} texts", "the same ids", {"texts": float(n)})


def _case(id: str, make: Callable[[], Tokenizer], runs: Callable[[], Iterable[Run]]) -> Case:
    return Case(f"tokenizers/{id.replace(' ', '-')}/ids", "encode", "", partial(_ids, make, runs))


# -- byte-pair vocabularies ---------------------------------------------------------------------------------------


def _byte_pair(golden: Golden) -> Iterable[Case]:
    small = golden.json("tokenizers/bpe/small.json.gz")
    for name, model in small["models"].items():
        make = partial(load_tokenizer, small["metadata"] | model["keys"])
        yield _case(f"bpe/{name}", make, partial(_bpe_runs, small, small["runs"][model["run"]]))
    whole = golden.json("tokenizers/bpe/vocabs.json.gz")
    for name, entry in whole["vocabs"].items():
        if "ids" in entry:
            make = partial(_cached, f"vocabs/{name}", entry["tokens_sha256"])
            yield _case(f"vocabs/{PurePosixPath(name).stem}", make, partial(_bpe_runs, whole, entry))


def _bpe_runs(data: Mapping[str, Any], run: Mapping[str, Any]) -> Iterable[Run]:
    yield from ((text, ids, False, False) for text, ids in zip(data["texts"], run["ids"], strict=True))
    for key, special in (("ids_of_special", True), ("ids_of_special_as_text", False)):
        yield from ((text, ids, special, special) for text, ids in zip(data["special_texts"], run[key], strict=True))


def _cached(name: str, tokens_sha256: str) -> Tokenizer:
    path = cache_root() / name
    if not path.exists():
        raise NotHere(f"{name} is not in {cache_root()}; {_FETCH}")
    tokenizer = load_tokenizer(path)
    digest = hashlib.sha256(b"".join(token.encode() + b"\0" for token in tokenizer.vocab.tokens)).hexdigest()
    if digest != tokens_sha256:
        raise NotHere(f"{path} is another vocabulary than the golden data's")
    return tokenizer


# -- the other kinds ----------------------------------------------------------------------------------------------


def _others(golden: Golden) -> Iterable[Case]:
    texts = golden.json("tokenizers/other/texts.json.gz")
    for file in golden.names("tokenizers/other/*.json.gz"):
        name = PurePosixPath(file).name.removesuffix(".json.gz")
        if name == "texts":
            continue
        data = golden.json(file)
        if "metadata" in data:
            yield _case(f"other/{name}", partial(_from_metadata, data), partial(_other_runs, data["texts"], data))
        else:
            folder = "vocabs" if data["vocab"].startswith("ggml-vocab-") else "models"
            make = partial(_cached, f"{folder}/{data['vocab']}", data["tokens_sha256"])
            yield _case(f"other/{name}", make, partial(_other_runs, texts, data))


def _from_metadata(data: Mapping[str, Any]) -> Tokenizer:
    metadata = dict(data["metadata"])
    if _CHARSMAP in metadata:
        metadata[_CHARSMAP] = np.array(metadata[_CHARSMAP], np.uint8)
    return load_tokenizer(metadata)


def _other_runs(texts: list[str], data: Mapping[str, Any]) -> Iterable[Run]:
    for run in data["runs"]:
        flags = (run["add_special"], run["parse_special"])
        yield from ((text, ids, *flags) for text, ids in zip(texts, run["ids"], strict=True))


# -- chat templates -----------------------------------------------------------------------------------------------


def _templates(golden: Golden) -> Iterable[Case]:
    asked = golden.json("chat/conversations.json")
    for name, wanted in golden.json("chat/own.json").items():
        source = partial(_own_template, golden, name)
        yield Case(f"chat/own/{PurePosixPath(name).stem}", "template", "", partial(_render, asked, source, wanted))
    for name, entry in golden.json("chat/real.json").items():
        source = partial(_cached_template, name, entry["sha256"])
        id = f"chat/real/{PurePosixPath(name).stem}"
        yield Case(id, "template", "", partial(_render, asked, source, entry["cases"]))


def _own_template(golden: Golden, name: str) -> str:
    return golden.read(f"chat/templates/{name}").decode()


def _cached_template(name: str, sha256: str) -> str:
    path = cache_root() / "templates" / name
    if not path.exists():
        raise NotHere(f"templates/{name} is not in {cache_root()}; {_FETCH}")
    source = path.read_bytes()
    if hashlib.sha256(source).hexdigest() != sha256:
        raise NotHere(f"{path} is another version than the golden data's")
    return source.decode()


def _render(asked: Mapping[str, Any], source: Callable[[], str], wanted: Mapping[str, Any]) -> Finding:
    now = datetime.fromisoformat(asked["now"])
    template = ChatTemplate(source(), asked["bos_token"], asked["eos_token"], clock=lambda: now)
    for name, want in wanted.items():
        conversation = dict(asked["conversations"][name])
        try:
            text: str | None = template.render(conversation.pop("messages"), **conversation)
        except TemplateError as error:
            text = None
            if "error" not in want:
                return failed(f"conversation {name}: {error}")
        if "error" in want and text is not None:
            return failed(f"conversation {name}: rendered, transformers raised {want['error']}")
        if text is not None and not _is(text, want):
            return failed(f"conversation {name}: rendered {text[:80]!r}..., not what transformers renders")
    return Finding(True, f"{len(wanted)} conversations", "the same text", {"conversations": float(len(wanted))})


def _is(text: str, want: Mapping[str, Any]) -> bool:
    if "text" in want:
        return bool(text == want["text"])
    return (len(text), hashlib.sha256(text.encode()).hexdigest()) == (want["length"], want["sha256"])
