"""The store of models: Ollama's directory layout, so that an existing Ollama directory can be used as it is.

    ROOT/blobs/sha256-HEX                       the bytes: GGUF files, templates, licences, configs
    ROOT/manifests/HOST/NAMESPACE/MODEL/TAG     JSON that names them (see manifest.py)
    ROOT/downloads/                             work in progress (see blobs.py); Ollama does not look there

Blobs land first and the manifest last, each by an atomic rename, so a store killed at any moment lists only
whole models.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from ref_engine.errors import StoreError
from ref_engine.library.atomic import CHUNK, file_chunks, write_atomic
from ref_engine.library.blobs import Blobs
from ref_engine.library.catalog import catalog_model, catalog_names
from ref_engine.library.entries import Entry, ModelInfo, describe, entry_of
from ref_engine.library.facts import config_bytes, gguf_facts
from ref_engine.library.layout import (
    check_gguf,
    existing_file,
    is_path,
    manifest_path,
    mentioned,
    preferred_hosts,
    read_manifest,
    remove_empty_parents,
    stored_names,
)
from ref_engine.library.manifest import CONFIG_TYPE, MODEL, Layer, Manifest, make_manifest
from ref_engine.library.names import Name, Query, display, find, full_name, near, parse_name
from ref_engine.library.progress import Progress, Silent
from ref_engine.library.roots import default_root, ollama_roots


class Store:
    """The models under `root`, and read-only those under `read_only`, which are looked up second.

    `Store()` is the user's own: `default_root()`, with an existing Ollama directory as `read_only`.
    `Store(path)` is that directory alone.
    """

    def __init__(self, root: str | os.PathLike[str] | None = None, read_only: Sequence[Path] | None = None) -> None:
        self.root = default_root() if root is None else Path(root).expanduser()
        own = self.root == default_root()
        self.read_only = tuple(read_only) if read_only is not None else ollama_roots() if own else ()
        self.blobs = Blobs(self.root)

    # -- looking up
    # -------------------------------------------------------------------------------------------

    def resolve(self, name_or_path: str | os.PathLike[str]) -> Path:
        """The GGUF file of a model: a path is checked and returned, a name is looked up.

        What ends in `.gguf`, is absolute, or begins with `.` or `~` is a path. Raises StoreError.
        """
        if not isinstance(name_or_path, str) or is_path(name_or_path):
            return existing_file(name_or_path)
        root, name, manifest = self.find(name_or_path)
        layer = manifest.model(str(name))
        if not Blobs(root).has(layer):
            raise StoreError(f"model {name}: its file {Blobs(root).path(layer.sha256)} is missing or cut short")
        return Blobs(root).path(layer.sha256)

    def find(self, text: str) -> tuple[Path, Name, Manifest]:
        """Root, full name and manifest of the model called `text`; errors as `locate`, or a damaged
        manifest."""
        root, name = self.locate(text)
        return root, name, read_manifest(root, name)

    def locate(self, text: str) -> tuple[Path, Name]:
        """Root and full name of the model called `text`. StoreError lists near names if there is none."""
        queries = [parse_name(text)]
        builtin = catalog_model(text)
        if builtin is not None and builtin.name != text.lower():
            queries.append(parse_name(builtin.name))  # `smollm2` is `smollm2:latest` if there is one, else the built-in
        for root in (self.root, *self.read_only):
            names = list(stored_names(root))
            for query in queries:
                name = find(query, names, preferred_hosts())
                if name is not None:
                    return root, name
        if builtin is not None:
            raise StoreError(f"model {text!r} is not here yet: `ref-engine pull {text}` fetches it")
        known = [entry.name for entry in self.list()]
        raise StoreError(f"no model {text[:100]!r}{near(text[:200], [*known, *catalog_names()] if known else known)}")

    def list(self) -> list[Entry]:
        """Every whole model, newest first. One whose manifest is damaged or whose blobs are missing is left
        out."""
        entries = []
        for root in (self.root, *self.read_only):
            names, blobs = list(stored_names(root)), Blobs(root)
            for name in names:
                try:
                    manifest = read_manifest(root, name)
                    if all(blobs.has(layer) for layer in manifest.all_layers):
                        shown = display(name, names, preferred_hosts())
                        modified = manifest_path(root, name).stat().st_mtime
                        entries.append(entry_of(shown, name, manifest, blobs, modified, root != self.root))
                except (StoreError, FileNotFoundError):  # damaged, or removed since the listing
                    continue
        return sorted(entries, key=lambda entry: (-entry.modified, entry.name))

    def show(self, name_or_path: str) -> ModelInfo:
        """All there is to tell about a model: metadata, template, system prompt, parameters, licences."""
        path = self.resolve(name_or_path)
        if is_path(name_or_path):
            return describe(name_or_path, path, None, None)
        root, name, manifest = self.find(name_or_path)
        return describe(str(name), path, manifest, Blobs(root))

    # -- changing
    # ---------------------------------------------------------------------------------------------

    def add_file(self, name: str, source: str | os.PathLike[str] | BinaryIO, progress: Progress | None = None) -> Entry:
        """Copies a GGUF file (a path or an open binary stream) into the store under `name`."""
        target, bar = full_name(name), progress or Silent()
        if isinstance(source, str | os.PathLike):
            path = existing_file(source)
            what, total, chunks = str(path), path.stat().st_size, file_chunks(path)
        else:
            what, total, chunks = name, None, iter(lambda: source.read(CHUNK), b"")
        self.blobs.clean()
        bar.start(total, f"copying {what}")
        try:
            layer = self.blobs.put_chunks(MODEL, chunks, bar, what, check=lambda file: check_gguf(file, what))
        except OSError as error:
            raise StoreError(f"{what}: {error.strerror or error}") from error
        finally:
            bar.done()
        return self.add_model(target, [layer])

    def add_model(self, name: Name, layers: Sequence[Layer]) -> Entry:
        """A model out of blobs that are there already, the first of them the GGUF file; its config is made
        here."""
        facts = gguf_facts(self.blobs.path(layers[0].sha256))
        config = self.blobs.put_bytes(CONFIG_TYPE, config_bytes(facts, layers))
        return self.publish(name, make_manifest(config, layers))

    def publish(self, name: Name, manifest: Manifest) -> Entry:
        """Writes the manifest: from now on the model is listed. StoreError if one of its blobs is not
        there."""
        with self.blobs.lock("store"):
            for layer in manifest.all_layers:  # under the lock, since `remove` may just have taken one
                if not self.blobs.has(layer):
                    raise StoreError(f"model {name}: blob sha256-{layer.sha256} went missing, try again")
            known = list(stored_names(self.root))
            same = find(Query(name.host, name.namespace, name.model, name.tag, True), known) or name
            with self.blobs.temporary() as temporary:
                write_atomic(manifest_path(self.root, same), manifest.raw, temporary)
        modified = manifest_path(self.root, same).stat().st_mtime
        return entry_of(display(same, [*known, same], preferred_hosts()), same, manifest, self.blobs, modified, False)

    def copy(self, source: str, target: str) -> Entry:
        """Gives a model a second name. Its blobs are shared, or copied if they are in a read-only
        directory."""
        name = full_name(target)
        root, _, manifest = self.find(source)
        self.blobs.clean()
        if root != self.root:
            for layer in manifest.all_layers:
                self.blobs.put_copy(Blobs(root).path(layer.sha256), layer)
        return self.publish(name, manifest)

    def remove(self, text: str) -> Name:
        """Removes a name, and those of its blobs that no other manifest mentions."""
        root, name = self.locate(text)
        if root != self.root:
            raise StoreError(f"model {name} is in {root}, which is only read; remove it with its own program")
        with self.blobs.lock("store"):
            path = manifest_path(root, name)
            gone = mentioned(path)
            path.unlink(missing_ok=True)
            remove_empty_parents(path, root / "manifests")
            for other in (root / "manifests").rglob("*"):
                if other.is_file():
                    gone -= mentioned(other)
            for sha256 in sorted(gone):
                self.blobs.path(sha256).unlink(missing_ok=True)
        return name
