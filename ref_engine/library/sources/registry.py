"""Ollama's registry protocol: a manifest by name and tag, then its blobs by digest.

Source: the Docker Registry HTTP API V2 (`GET /v2/NAMESPACE/MODEL/manifests/TAG`, `.../blobs/DIGEST`) with its
bearer-token challenge. Everything a registry says is checked before it is believed; nothing it says chooses
a path.
"""

import os
import re
from collections.abc import Callable
from urllib.parse import urlencode, urlsplit

from requests.auth import AuthBase

from ref_engine.errors import StoreError
from ref_engine.library.catalog import catalog_names
from ref_engine.library.download import Remote, fetch
from ref_engine.library.entries import Entry
from ref_engine.library.layout import REGISTRY_VARIABLE, check_gguf
from ref_engine.library.manifest import (
    MANIFEST_LIMIT,
    MANIFEST_TYPE,
    MODEL,
    PROJECTOR,
    TEXT_LIMIT,
    Layer,
    Manifest,
    parse_json_object,
    parse_manifest,
)
from ref_engine.library.names import HUB_HOST, LOCAL_HOST, Name, Query, host_of
from ref_engine.library.progress import Progress
from ref_engine.library.store import Store
from ref_engine.library.web import Anonymous, Bearer, Client, NotFound, check_url, is_loopback, public_url

_LARGE = (MODEL, PROJECTOR, "application/vnd.ollama.image.adapter")
_PARAMETER = re.compile(r'([A-Za-z_]{1,20})="([^"\x00-\x1f]{0,1000})"')
_TOKEN = re.compile(r"[\x21-\x7e]{1,16384}")


def pull_registry(
    query: Query,
    store: Store,
    bar: Progress,
    *,
    registry: str | None,
    insecure: bool,
    name: Name | None = None,
) -> Entry:
    """Fetches the manifest and the blobs that are not here yet, and lists the model under `name` or its own
    name."""
    base = endpoint(query, registry, insecure)
    api = f"{base}/v2/{query.namespace}/{query.model}"
    with Client(insecure=insecure, auth=Anonymous(), answer=token_source(base, insecure)) as client:
        manifest = get_manifest(client, f"{api}/manifests/{query.tag}", query)
        model_first = sorted(manifest.all_layers, key=lambda layer: layer.media_type != MODEL)
        for layer in dict.fromkeys(model_first):
            _pull_blob(store, client, bar, layer, f"{api}/blobs/sha256:{layer.sha256}", query)
    return store.publish(name or query.at(host_of(base)), manifest)


def endpoint(query: Query, registry: str | None, insecure: bool) -> str:
    """`https://host[:port]` of the registry that a name means; plain http for this machine, or when
    `insecure`.

    The host is the name's own, else `registry`, else $REF_ENGINE_REGISTRY. StoreError where there is none.
    """
    text = query.host or registry or os.environ.get(REGISTRY_VARIABLE, "")
    if not text or text in (LOCAL_HOST, HUB_HOST):
        raise StoreError(
            f"{query.model}:{query.tag} is no built-in model ({', '.join(catalog_names())}) and no registry "
            f"is set: set {REGISTRY_VARIABLE} or write HOST/NAMESPACE/MODEL:TAG"
        )
    if "://" not in text:
        scheme = "http" if insecure or is_loopback(urlsplit(f"//{text}").hostname or "") else "https"
        text = f"{scheme}://{text}"
    parts = check_url(text, None, insecure)
    if parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc:
        raise StoreError(f"registry {public_url(text)}: expected [https://]HOST[:PORT] and nothing more")
    return f"{parts.scheme}://{parts.netloc}"


def get_manifest(client: Client, url: str, query: Query) -> Manifest:
    """The checked manifest of a model that holds one GGUF file."""
    what = public_url(url)
    try:
        raw, _ = client.get_bytes(url, MANIFEST_LIMIT, {"Accept": MANIFEST_TYPE})
    except NotFound as error:
        raise StoreError(f"{query.namespace}/{query.model}:{query.tag}: the registry has no such model") from error
    manifest = parse_manifest(raw, what)
    manifest.model(what)
    for layer in manifest.all_layers:
        if layer.media_type not in _LARGE and layer.size > TEXT_LIMIT:
            raise StoreError(f"{what}: {layer.size} bytes of {layer.media_type[:80]}, more than {TEXT_LIMIT}")
    return manifest


def token_source(base: str, insecure: bool) -> Callable[[str], AuthBase]:
    """Answers a registry's `WWW-Authenticate: Bearer realm=...,service=...,scope=...` with an anonymous
    token.

    The realm is a URL that the registry chooses: it must be https, or the registry itself, and never this
    machine unless the registry is. No credentials are sent to it.
    """

    def answer(challenge: str) -> AuthBase:
        kind, _, rest = challenge[:4096].partition(" ")
        fields = dict(_PARAMETER.findall(rest))
        if kind.lower() != "bearer" or "realm" not in fields:
            raise StoreError(f"{base}: asks for credentials in a way that is not known")
        realm, registry = fields.pop("realm"), urlsplit(base)
        parts = check_url(realm, registry, insecure)
        if parts.scheme != "https" and parts.netloc != registry.netloc:
            raise StoreError(f"{base}: sends us for a token to {public_url(realm)}, refused")
        asked = urlencode({key: fields[key] for key in ("service", "scope") if key in fields})
        url = parts._replace(query="&".join(filter(None, (parts.query, asked))), fragment="").geturl()
        with Client(insecure=insecure, auth=Anonymous()) as client:
            raw, _ = client.get_bytes(url, 1 << 18)
        body = parse_json_object(raw, public_url(url))
        token = body.get("token") or body.get("access_token")
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise StoreError(f"{public_url(url)}: no token in the answer")
        return Bearer(token)

    return answer


def _pull_blob(store: Store, client: Client, bar: Progress, layer: Layer, url: str, query: Query) -> None:
    """One layer into the store, unless it is there."""
    blobs = store.blobs
    with blobs.lock(f"sha256-{layer.sha256}", bar):
        if blobs.has(layer):
            return
        label = f"{query.model}:{query.tag} {layer.media_type.rpartition('.')[2][:20]}"
        partial = blobs.partial(layer.sha256)
        fetch(Remote(url, layer.size, layer.sha256, label), partial, client, bar)
        if layer.media_type == MODEL:
            check_gguf(partial, public_url(url))
        blobs.land_partial(layer)
