"""/api/lens/...: what a model computes, as JSON (docs/lens.md).

incoming.py  fields and limits        looking.py     the model's thread, piece by piece
outgoing.py  views as JSON            continuing.py  a text that goes on from given tokens
"""

from __future__ import annotations

import math
from collections.abc import Callable

from flask import Blueprint, Response, request

from ref_engine.views import (
    attention_steps,
    experts_steps,
    layers_steps,
    memory,
    norms_steps,
    times_steps,
    tokens_steps,
)

from ..errors import ApiError
from ..fields import parse_json
from ..service import Service
from ..stream import NDJSON, client_gone, dumps, ndjson, streamed
from ..web import request_id
from . import outgoing
from .continuing import lines, request_of
from .incoming import MAX_NUMBERS, Look, parse
from .looking import Looking, Seen
from .outgoing import Json

_NORMS = 6  # names of norms without being asked
_Gone = Callable[[], bool]
View = Callable[[Looking, Seen, Look, _Gone], Json]


def blueprint(looking: Looking, service: Service) -> Blueprint:
    routes = Blueprint("lens", __name__)

    @routes.post("/api/lens/<view>")
    def look(view: str) -> Response:
        if view == "generate":
            asked = parse(parse_json(request.get_data()), view)
            events = service.run(request_of(asked), client_gone())
            return streamed((ndjson(line) for line in lines(events)), NDJSON)
        if view not in VIEWS:
            raise ApiError("not_found", f"no such address: POST {request.path[:200]!a}")
        asked, gone = parse(parse_json(request.get_data()), view), client_gone()
        with looking.at(asked, view, request_id(), gone) as seen:
            return Response(dumps(VIEWS[view](looking, seen, asked, gone)), content_type="application/json")

    return routes


def _tokens(looking: Looking, seen: Seen, look: Look, gone: _Gone) -> Json:
    top, tokenizer = look.values.get("top", 5), seen.resident.tokenizer
    seen.room_for(seen.n * (top + 3))
    view = looking.run(seen, tokens_steps(seen.resident.model, seen.ids[: seen.stop], top), gone)
    return outgoing.token_rows(seen.name, tokenizer, view, seen.start, seen.stop)


def _layers(looking: Looking, seen: Seen, look: Look, gone: _Gone) -> Json:
    top = look.values.get("top", 5)
    most = outgoing.lens_positions(seen.shape)
    if seen.n > most:
        raise ApiError(
            "invalid", f"{seen.n} positions are wanted, the limit of this view is {most} for this model", "stop"
        )
    seen.room_for((seen.shape.n_layers + 1) * seen.n * (top + 2))
    steps = layers_steps(seen.resident.model, seen.ids, top, seen.start, seen.stop)
    return outgoing.lens_rows(seen.resident.tokenizer, looking.run(seen, steps, gone))


def _attention(looking: Looking, seen: Seen, look: Look, gone: _Gone) -> Json:
    layer, head, size = look.values["layer"], look.values.get("head"), look.values.get("size", 64)
    if head is None and layer < seen.shape.n_layers:
        size = min(size, math.isqrt(MAX_NUMBERS // max(1, seen.shape.n_heads[layer])))
    steps = attention_steps(seen.resident.model, seen.ids, layer, head, size, seen.start, seen.stop)
    maps = looking.run(seen, steps, gone)
    return outgoing.attention_maps(seen.resident.tokenizer, maps, seen.shape, seen.ids[: maps.n_keys])


def _experts(looking: Looking, seen: Seen, look: Look, gone: _Gone) -> Json:
    shape = seen.shape
    if not shape.with_experts:
        raise ApiError("invalid", f"model {seen.name} has no experts", "model")
    seen.room_for(sum(seen.n * (2 * k + 1) + e for k, e in zip(shape.n_used, shape.n_experts, strict=True)))
    layers = looking.run(seen, experts_steps(seen.resident.model, seen.ids, seen.start, seen.stop), gone)
    ids = seen.ids[seen.start : seen.stop]
    return outgoing.routing(seen.resident.tokenizer, layers, shape, ids, seen.start)


def _norms(looking: Looking, seen: Seen, look: Look, gone: _Gone) -> Json:
    names = look.values.get("names")
    seen.room_for(seen.shape.n_layers * seen.n * len(names or range(_NORMS)))
    model, chosen = seen.resident.model, {} if names is None else {"names": names}
    norms = looking.run(seen, norms_steps(model, seen.ids, start=seen.start, stop=seen.stop, **chosen), gone)
    ids = seen.ids[seen.start : seen.stop]
    return outgoing.norm_rows(seen.resident.tokenizer, norms, seen.shape.n_layers, ids)


def _times(looking: Looking, seen: Seen, look: Look, gone: _Gone) -> Json:
    phase, repeat = look.values.get("phase", "prompt"), look.values.get("repeat", 3)
    return outgoing.time_rows(looking.run(seen, times_steps(seen.resident.model, seen.ids, phase, repeat), gone))


def _memory(looking: Looking, seen: Seen, look: Look, gone: _Gone) -> Json:
    resident = seen.resident
    engine = resident.engine
    return outgoing.memory_rows(engine.call(lambda: memory(resident.model, engine.parallel, engine.n_ctx)))


def _shape(looking: Looking, seen: Seen, look: Look, gone: _Gone) -> Json:
    return outgoing.shape_rows(seen.shape, seen.resident.model)


VIEWS: dict[str, View] = {
    "tokens": _tokens,
    "layers": _layers,
    "attention": _attention,
    "experts": _experts,
    "norms": _norms,
    "times": _times,
    "memory": _memory,
    "shape": _shape,
}
