"""Ollama's addresses about models: the store, what is in memory, pulling, creating.

Source: `server/routes.go`, `server/create.go` and `api/types.go` of Ollama, and its API reference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from flask import Blueprint, Response, request

from ref_engine.errors import StoreError
from ref_engine.library import Entry, Facts, pull
from ref_engine.library.create import create
from ref_engine.library.layout import is_path
from ref_engine.library.manifest import MODEL, parse_digest
from ref_engine.library.modelfile import Recipe, checked_parameters
from ref_engine.library.progress import Silent
from ref_engine.version import __version__

from .errors import ApiError
from .fields import (
    HONOURED,
    IGNORED,
    OBJECT,
    REFUSED,
    ByType,
    Field,
    Flag,
    ListOf,
    Mapped,
    Never,
    OneOf,
    Record,
    Text,
    parse_json,
    read,
)
from .library import Library, check_name
from .models import ModelPool
from .shown import show
from .stream import NDJSON, client_gone, dumps, streamed
from .work import job_lines

API_VERSION = "0.13.0"
"""The version of Ollama whose API this is: programs ask for it to know what they may use."""

_NAME = Text(1, 300)
_STREAM = Field("stream", Flag(), HONOURED, "true by default: lines of progress")
_TEXTS = ByType(((str, Text()), (list, ListOf(Text()))))
NAMED_FIELDS = (Field("model", _NAME, HONOURED), Field("name", _NAME, HONOURED, "older name of `model`"))
SHOW_FIELDS = (
    *NAMED_FIELDS,
    Field("verbose", Flag(), HONOURED, "long arrays of the metadata in full"),
    Field("system", Text(), IGNORED, "the model's own is shown"),
    Field("template", Text(), IGNORED, "the model's own is shown"),
    Field("options", OBJECT, IGNORED),
)
COPY_FIELDS = (Field("source", _NAME, HONOURED, required=True), Field("destination", _NAME, HONOURED, required=True))
_NO_LOGIN = "there are no accounts here"
PULL_FIELDS = (
    *NAMED_FIELDS,
    _STREAM,
    Field("insecure", Flag(), HONOURED, "plain http to a registry on another machine"),
    Field("username", Never(_NO_LOGIN), REFUSED),
    Field("password", Never(_NO_LOGIN), REFUSED),
)
CREATE_FIELDS = (
    *NAMED_FIELDS,
    _STREAM,
    Field("from", _NAME, HONOURED, "a model of the store or the catalog"),
    Field("files", Mapped(Text(1, 100)), HONOURED, "name to digest of an uploaded GGUF file; one"),
    Field("adapters", Mapped(Text()), REFUSED, "no LoRA yet; an empty object is taken"),
    Field("template", Text(), HONOURED, "Jinja; one in Go's language is kept, and the file's own is used"),
    Field("system", Text(), HONOURED),
    Field("license", _TEXTS, HONOURED),
    Field("parameters", OBJECT, HONOURED, "names and values as in a Modelfile"),
    Field("messages", ListOf(Record((
        Field("role", OneOf(("system", "user", "assistant")), HONOURED, required=True),
        Field("content", Text(), HONOURED, required=True),
    ))), HONOURED),
    Field("quantize", Text(1, 20), HONOURED, "a file type such as q4_K_M, from F16, BF16 or F32"),
    Field("quantization", Text(1, 20), HONOURED, "older name of `quantize`"),
    Field("renderer", Never("prompts are written by the model's own template"), REFUSED),
    Field("parser", Never("answers are read as the model's own template says"), REFUSED),
    Field("requires", Text(), IGNORED),
    Field("info", OBJECT, IGNORED),
    Field("modelfile", Never("send its parts; `ref-engine create` reads Modelfiles"), REFUSED),
    Field("path", Never("a server does not read files by path"), REFUSED),
)  # fmt: skip


def blueprint(library: Library, pool: ModelPool) -> Blueprint:
    routes = Blueprint("ollama_models", __name__)
    store = library.store

    @routes.get("/api/version")
    def version() -> Response:
        return _json({"version": API_VERSION, "ref_engine": __version__})

    @routes.get("/api/tags")
    def tags() -> Response:
        return _json({"models": [_row(entry) for entry in store.list()]})

    @routes.get("/api/ps")
    def ps() -> Response:
        entries = {entry.path: entry for entry in store.list()}
        now = datetime.now(UTC)
        rows = []
        for running in pool.running():
            entry = entries.get(running.path)
            seconds = min(running.expires_in, running.keep_alive if running.leases else math.inf)
            expires = now + timedelta(seconds=min(seconds, 100 * 365 * 86400))
            rows.append(
                {
                    "name": running.name,
                    "model": running.name,
                    "size": running.need.total,
                    "digest": "" if entry is None else entry.digest,
                    "details": _details(None if entry is None else entry.facts),
                    "expires_at": rfc3339(expires),
                    "size_vram": 0,
                    "context_length": running.need.n_ctx,
                }
            )
        return _json({"models": rows})

    @routes.post("/api/show")
    def shown() -> Response:
        values = read(_body(), SHOW_FIELDS)
        name = _model(values)
        entry = library.entry(name)
        return _json(
            {
                **show(store, name, bool(values.get("verbose"))),
                "modified_at": _time(entry),
                "details": _details(entry.facts),
            }
        )

    @routes.post("/api/copy")
    def copy() -> Response:
        values = read(_body(), COPY_FIELDS)
        library.find(values["source"])
        check_name(values["destination"])
        store.copy(values["source"], values["destination"])
        return Response(status=200)

    @routes.delete("/api/delete")
    def delete() -> Response:
        name = _model(read(_body(), NAMED_FIELDS))
        found = library.find(name)
        store.remove(name)
        pool.unload(found.path)
        return Response(status=200)

    @routes.post("/api/pull")
    def pulled() -> Response:
        values = read(_body(), PULL_FIELDS)
        name = _model(values)
        check_name(name) if not name.startswith("hf:") else None

        def work(bar: Any) -> None:
            pull(name, store, bar, insecure=bool(values.get("insecure")))

        return _progress(values, "pulling manifest", work)

    @routes.post("/api/push")
    def push() -> Response:
        raise ApiError("unsupported", "push is not supported: this server does not upload models anywhere")

    @routes.post("/api/create")
    def created() -> Response:
        values = read(_body(), CREATE_FIELDS)
        name = _model(values)
        check_name(name)
        recipe, blob = _recipe(values)

        def work(bar: Any) -> None:
            create(store, name, recipe, bar, blob=blob)

        return _progress(values, "reading model metadata", work)

    @routes.route("/api/blobs/<digest>", methods=["HEAD"])
    def has_blob(digest: str) -> Response:
        if not store.blobs.path(_digest(digest)).is_file():
            raise ApiError("not_found", f"no blob {digest}")
        return Response(status=200)

    @routes.post("/api/blobs/<digest>")
    def put_blob(digest: str) -> Response:
        sha256 = _digest(digest)
        if store.blobs.path(sha256).is_file():
            return Response(status=200)
        chunks = iter(lambda: request.stream.read(1 << 20), b"")
        store.blobs.put_chunks(MODEL, chunks, Silent(), f"blob {digest}", sha256=sha256)
        return Response(status=201)

    return routes


def _body() -> Any:
    return parse_json(request.get_data())


def _model(values: Mapping[str, Any]) -> str:
    name = values.get("model") or values.get("name")
    if name is None:
        raise ApiError("invalid", "model is required", "model")
    return str(name)


def _digest(text: str) -> str:
    try:
        return parse_digest(text, f"digest {text[:100]!a}")
    except StoreError as error:
        raise ApiError("invalid", str(error), "digest") from None


def _recipe(values: Mapping[str, Any]) -> tuple[Recipe, str | None]:
    """What the parts of a Modelfile come to, and the uploaded file, if that is what the model is made of."""
    files, source = values.get("files") or {}, values.get("from", "")
    if bool(files) == bool(source) or len(files) > 1:
        raise ApiError("invalid", "a model is made either from another one or of one uploaded GGUF file", "from")
    if source and is_path(source):
        raise ApiError("invalid", f"{source[:100]!a} is not a model name; upload the file as a blob", "from")
    if values.get("adapters"):
        raise ApiError("unsupported", "adapters are not supported: this version has no LoRA", "adapters")
    licenses = values.get("license", ())
    recipe = Recipe(
        source=source,
        parameters=checked_parameters(values.get("parameters", {})),
        template=values.get("template"),
        system=values.get("system"),
        messages=tuple(values.get("messages", ())),
        licenses=(licenses,) if isinstance(licenses, str) else tuple(licenses),
        quantize=values.get("quantize") or values.get("quantization"),
    )
    return recipe, _digest(next(iter(files.values()))) if files else None


def _progress(values: Mapping[str, Any], first: str, work: Any) -> Response:
    """Lines of progress, or one at the end for those who do not want a stream."""
    lines = job_lines(first, work, client_gone())
    if values.get("stream", True):
        return streamed((f"{dumps(line)}\n".encode() for line in lines), NDJSON)
    last: dict[str, Any] = {}
    for last in lines:
        if "error" in last:
            raise ApiError("invalid", last["error"])
    return _json(last)


def _json(value: Any) -> Response:
    return Response(dumps(value), content_type="application/json; charset=utf-8")


def _row(entry: Entry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "model": entry.name,
        "modified_at": _time(entry),
        "size": entry.size,
        "digest": entry.digest,
        "details": _details(entry.facts),
    }


def _details(facts: Facts | None) -> dict[str, Any]:
    family = "" if facts is None else facts.family
    return {
        "parent_model": "",
        "format": "gguf",
        "family": family,
        "families": [family] if family else None,
        "parameter_size": "" if facts is None else facts.parameters,
        "quantization_level": "" if facts is None else facts.quantisation,
    }


def _time(entry: Entry) -> str:
    return rfc3339(datetime.fromtimestamp(entry.modified, UTC))


def rfc3339(time: datetime) -> str:
    return time.isoformat(timespec="microseconds").replace("+00:00", "Z")
