"""Open any file or folder that holds named values, whoever wrote it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ref_engine.errors import RefEngineError
from ref_engine.lens.dump import Dump, Facts, Tensor, read_header
from ref_engine.lens.foreign_logits import is_logits_text, logits_file, open_logits
from ref_engine.lens.foreign_text import is_eval_callback, open_eval_callback
from ref_engine.lens.names import in_graph_order, llama_cpp_names
from ref_engine.lens.npz import Found, open_npy, open_npz
from ref_engine.lens.safetensors import open_safetensors

_TOKENS = ("tokens", "input_ids", "ids", "token_ids")
_LOOK = 1 << 20  # characters of a text that are searched for a node


def open_dump(path: Path, names: Mapping[str, str] | None = None) -> Dump:
    """Whatever `path` is, by what is in it: a trace, .npz, .npy, safetensors, a folder of .npy, llama.cpp's logs.

    names: {name in the file: llama.cpp's name}, before those that are known (`lens.names`). Raises RefEngineError for a
    file that is none of these, OSError for one that cannot be read.
    """
    dump = _opened(path)
    if not dump.tensors:
        raise RefEngineError(f"{path}: there is no tensor in it")
    if names:
        dump = dump.renamed({old: new for old, new in names.items() if old in dump.tensors})
    if dump.facts.engine != "ref-engine":
        dump = dump.renamed(llama_cpp_names(dump.tensors))
    return dump if dump.ordered else _sorted(dump)


def read_map(path: Path) -> dict[str, str]:
    """A JSON file {name in a dump: llama.cpp's name}."""
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise RefEngineError(f"{path}: not JSON: {error}") from error
    if not isinstance(found, dict) or not all(isinstance(v, str) for v in found.values()):
        raise RefEngineError(f'{path}: expected an object of names, such as {{"model.norm": "result_norm"}}')
    return found


def _opened(path: Path) -> Dump:
    if path.is_dir():
        return _folder(path)
    with path.open("rb") as file:
        start = file.read(_LOOK)
    if start[:4] == b"PK\x03\x04" or start[:4] == b"PK\x05\x06":
        return _of_found(path, *open_npz(path))
    if start[:6] == b"\x93NUMPY":
        return _of_found(path, {path.stem: open_npy(path)}, None)
    if path.suffix == ".safetensors" or (start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 100 << 20):
        return _of_found(path, *open_safetensors(path))
    text = start.decode("utf-8", "replace")
    if is_eval_callback(text):
        return open_eval_callback(path)
    if is_logits_text(text) or path.suffix == ".bin":
        return open_logits(path)
    raise RefEngineError(
        f"{path}: not a trace, .npz, .npy, safetensors, log of llama-eval-callback or output of llama-debug"
    )


def _folder(path: Path) -> Dump:
    """A folder of .npy files, each named after its tensor ("/" in a name is a folder), or of llama-debug's output."""
    files = sorted(path.rglob("*.npy"))
    if not files:
        saved = logits_file(path)
        if saved is None:
            raise RefEngineError(f"{path}: no .npy files in this folder, and no one output of llama-debug")
        return open_logits(saved)
    found = {file.relative_to(path).with_suffix("").as_posix().replace("/", "."): open_npy(file) for file in files}
    return replace(_of_found(path, found, None), ordered=False)


def _of_found(path: Path, found: dict[str, Found], header: str | None) -> Dump:
    """Arrays under their names; what looks like token ids is taken as such."""
    if header is not None:
        facts, order = read_header(header, str(path))
        if set(order) != set(found):
            raise RefEngineError(f"{path}: the header names other tensors than the file holds")
        return Dump(str(path), {name: _tensor(name, found[name]) for name in order}, facts)
    tokens = None
    for name in _TOKENS:
        if name in found and len([n for n in found[name].shape if n != 1]) <= 1:
            ids = found.pop(name).load().reshape(-1)
            if ids.dtype.kind in "iu" and ids.size and ids.min() >= 0 and ids.max() < 1 << 31:
                tokens = tuple(int(i) for i in ids)
            break
    tensors = {name: _tensor(name, value) for name, value in found.items()}
    return Dump(str(path), tensors, Facts(tokens=tokens), ordered=list(tensors) != sorted(tensors))


def _tensor(name: str, found: Found) -> Tensor:
    return Tensor(name, found.shape, found.load)


def _sorted(dump: Dump) -> Dump:
    return replace(dump, tensors={name: dump.tensors[name] for name in in_graph_order(dump.tensors)})
