"""A new model out of one that there is: its weights, perhaps quantised, with texts of its own beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from ref_engine.errors import StoreError
from ref_engine.library.atomic import file_chunks
from ref_engine.library.blobs import Blobs
from ref_engine.library.catalog import catalog_model
from ref_engine.library.entries import Entry
from ref_engine.library.facts import gguf_metadata
from ref_engine.library.layout import check_gguf, existing_file, is_path
from ref_engine.library.manifest import (
    ADAPTER,
    LICENSE,
    MESSAGES,
    MODEL,
    PARAMS,
    SYSTEM,
    TEMPLATE,
    TEXT_LIMIT,
    Layer,
    parse_json_object,
)
from ref_engine.library.modelfile import Recipe, checked_parameters, is_jinja
from ref_engine.library.names import full_name
from ref_engine.library.progress import Progress, Silent
from ref_engine.library.pull import pull
from ref_engine.library.store import Store
from ref_engine.mixture import file_type_named
from ref_engine.quantize_file import quantize_file


def create(
    store: Store, name: str, recipe: Recipe, progress: Progress | None = None, *, blob: str | None = None
) -> Entry:
    """The model of a recipe, in the store under `name`. A source of the catalog is pulled where it is not there yet.

    blob: SHA-256 of a GGUF file in the store, to be used instead of `recipe.source`. Raises StoreError, and ModelError
    or GGUFError where the weights cannot be quantised.
    """
    target, bar = full_name(name), progress or Silent()
    if recipe.adapters:
        raise StoreError("ADAPTER is not supported: this version has no LoRA")
    parameters = checked_parameters(recipe.parameters)
    try:
        layers = _source_layers(store, recipe.source, bar) if blob is None else [blob_layer(store, blob)]
        model = layers[0]
        if recipe.template is not None and not is_jinja(recipe.template) and not _has_template(store, model):
            raise StoreError("TEMPLATE is in Go's language and the model's file has none of its own: write it in Jinja")
        if recipe.quantize is not None:
            model = _quantised(store, model, recipe.quantize, bar)
        return store.add_model(target, [model, *_texts(store, layers[1:], recipe, parameters)])
    finally:
        bar.done()


def _source_layers(store: Store, source: str, bar: Progress) -> list[Layer]:
    """The GGUF layer of the source, and what else its manifest names."""
    if is_path(source):
        path = existing_file(source)
        bar.start(path.stat().st_size, f"copying {path.name}")
        layer = store.blobs.put_chunks(
            MODEL, file_chunks(path), bar, str(path), check=lambda file: check_gguf(file, str(path))
        )
        bar.done()
        return [layer]
    if catalog_model(source) is not None:
        try:
            store.locate(source)
        except StoreError:
            pull(source, store, bar)
    root, found, manifest = store.find(source)
    if root != store.root:
        for layer in manifest.all_layers:
            store.blobs.put_copy(Blobs(root).path(layer.sha256), layer)
    model = manifest.model(str(found))
    return [model, *(layer for layer in manifest.layers if layer is not model and layer.media_type != ADAPTER)]


def blob_layer(store: Store, sha256: str) -> Layer:
    """A GGUF file that has been uploaded as a blob. Raises StoreError where it is not there, or is none."""
    path = store.blobs.path(sha256)
    if not path.is_file():
        raise StoreError(f"no blob sha256:{sha256}")
    check_gguf(path, f"blob sha256:{sha256}")
    return Layer(MODEL, sha256, path.stat().st_size)


def _has_template(store: Store, model: Layer) -> bool:
    return "tokenizer.chat_template" in gguf_metadata(store.blobs.path(model.sha256))


def _quantised(store: Store, model: Layer, type_name: str, bar: Progress) -> Layer:
    file_type = file_type_named(type_name)
    source = store.blobs.path(model.sha256)
    with store.blobs.temporary() as path:
        bar.start(source.stat().st_size, f"quantising to {type_name}")
        quantize_file(source, path, file_type, advance=bar.advance)
        bar.done()
        bar.start(path.stat().st_size, "storing")
        return store.blobs.put_chunks(MODEL, file_chunks(path), bar, type_name)


def _texts(store: Store, inherited: Sequence[Layer], recipe: Recipe, parameters: Mapping[str, object]) -> list[Layer]:
    """The layers besides the GGUF file: the recipe's own, and those of its source that it does not replace."""
    old = {layer.media_type: layer for layer in inherited}
    new: dict[str, str] = {}
    if recipe.template is not None:
        new[TEMPLATE] = recipe.template
    if recipe.system is not None:
        new[SYSTEM] = recipe.system
    if recipe.messages:
        new[MESSAGES] = json.dumps([dict(message) for message in recipe.messages], ensure_ascii=False)
    if parameters:
        before = parse_json_object(store.blobs.read(old[PARAMS], TEXT_LIMIT), "parameters") if PARAMS in old else {}
        new[PARAMS] = json.dumps({**before, **parameters}, ensure_ascii=False)
    layers = [layer for layer in inherited if layer.media_type not in new]
    layers += [store.blobs.put_bytes(kind, text.encode()) for kind, text in new.items()]
    return layers + [store.blobs.put_bytes(LICENSE, text.encode()) for text in recipe.licenses]
