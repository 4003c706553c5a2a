"""Record a Hugging Face transformers model under llama.cpp's names, to be held against a GGUF of it.

    from ref_engine.lens.hooks import record, save
    dump = record(model, input_ids)          # a torch model and token ids; nothing here imports torch before that
    save(dump, "hf.safetensors")             # ref-engine compare hf.safetensors model.gguf@numpy:f32

Modules are hooked by their names (`lens.names`). Queries, keys and values after rotation have no module: they are taken
where the model calls its attention function.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ref_engine.errors import RefEngineError
from ref_engine.lens.dump import Dump, Facts, header, of_arrays
from ref_engine.lens.names import in_graph_order, llama_cpp_names
from ref_engine.lens.npz import Raw, write_npz
from ref_engine.lens.safetensors import write_safetensors
from ref_engine.lens.selection import layer_of

Arrays = dict[str, NDArray[Any]]


def record(model: Any, input_ids: Any) -> Dump:
    """Run a transformers model on token ids (T,) or (1, T) and keep what its modules gave, float32, batch axis off.

    Raises RefEngineError for a batch of several sequences, and for a model none of whose modules has a known name.
    """
    torch = import_module("torch")

    ids = np.asarray(input_ids.tolist() if hasattr(input_ids, "tolist") else input_ids)
    if ids.ndim == 2 and ids.shape[0] == 1:
        ids = ids[0]
    if ids.ndim != 1 or not ids.size or ids.dtype.kind not in "iu":
        raise RefEngineError(f"input_ids of shape {ids.shape}: expected one sequence of token ids")
    seen: Arrays = {}
    with ExitStack() as stack:
        for handle in _hooked(model, seen):
            stack.callback(handle.remove)
        stack.enter_context(_attention_watched(model, seen))
        stack.enter_context(torch.no_grad())
        device = next(model.parameters()).device
        output = model(torch.tensor([ids.tolist()], device=device), use_cache=False)
    if "result_output" not in seen and getattr(output, "logits", None) is not None:
        seen["result_output"] = _array(output.logits)
    if not seen:
        raise RefEngineError(f"{type(model).__name__}: no module of it has a name that is known here")
    facts = Facts(
        engine="transformers",
        model=type(model).__name__,
        tokens=tuple(int(i) for i in ids),
        n_layers=1 + max((layer_of(name) or 0 for name in seen), default=0),
    )
    return of_arrays(type(model).__name__, {name: seen[name] for name in in_graph_order(seen)}, facts)


def save(dump: Dump, target: str | os.PathLike[str]) -> None:
    """Write a dump as a trace file: a name that ends in .npz or .safetensors."""
    path = Path(target)
    write = {".npz": write_npz, ".safetensors": write_safetensors}.get(path.suffix)
    if write is None:
        raise RefEngineError(f"{path}: the name must end in .npz or .safetensors")
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(6)}.tmp")
    with tempfile.TemporaryDirectory(prefix=".ref-engine-dump-", dir=path.absolute().parent) as folder:
        files = []
        for i, tensor in enumerate(dump.tensors.values()):
            if tensor.load is None:
                raise RefEngineError(f"{tensor.name}: only its corners are known")
            array = np.ascontiguousarray(tensor.load())
            array.tofile(Path(folder) / str(i))
            files.append(Raw(tensor.name, array.dtype, array.shape, Path(folder) / str(i)))
        try:
            write(temporary, json.dumps(header(dump.facts, list(dump.tensors))), files)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def _hooked(model: Any, seen: Arrays) -> Iterator[Any]:
    """Hooks on every module whose output or input has a name of llama.cpp's."""
    modules = dict(model.named_modules())
    names = llama_cpp_names([*modules, *(f"{name}.input" for name in modules)])
    for name, module in modules.items():
        own, given = names.get(name), names.get(f"{name}.input")
        if own == "embd" and getattr(module, "embed_scale", None) is not None:
            own = "inp_scaled"
        if own is not None:
            yield module.register_forward_hook(_keep_output(own, seen))
        if given is not None:
            yield module.register_forward_pre_hook(_keep_input(given, seen))


def _keep_output(name: str, seen: Arrays) -> Callable[[Any, Any, Any], None]:
    def hook(_module: Any, _given: Any, output: Any) -> None:
        first = output[0] if isinstance(output, tuple | list) else output
        if hasattr(first, "detach"):
            seen[name] = _array(first)

    return hook


def _keep_input(name: str, seen: Arrays) -> Callable[[Any, Any], None]:
    def hook(_module: Any, given: Any) -> None:
        if given and hasattr(given[0], "detach"):
            seen[name] = _array(given[0])

    return hook


def _array(tensor: Any) -> NDArray[Any]:
    """A torch tensor of a batch of one, without it."""
    value: NDArray[Any] = tensor.detach().float().cpu().numpy()
    return value[0] if value.ndim > 2 and value.shape[0] == 1 else value


@contextmanager
def _attention_watched(model: Any, seen: Arrays) -> Iterator[None]:
    """While open, the attention function of each layer also leaves Qcur, Kcur, Vcur and kq_soft_max."""
    layers = {id(module): int(layer) for name, module in model.named_modules() if (layer := _attention_layer(name))}
    homes = {sys.modules[type(m).__module__] for _, m in model.named_modules() if id(m) in layers}
    table = getattr(sys.modules.get("transformers.modeling_utils"), "ALL_ATTENTION_FUNCTIONS", None)
    kind = getattr(getattr(model, "config", None), "_attn_implementation", None)
    with ExitStack() as stack:
        for home in homes:
            eager = getattr(home, "eager_attention_forward", None)
            if eager is not None:
                stack.callback(setattr, home, "eager_attention_forward", eager)
                setattr(home, "eager_attention_forward", _watching(eager, layers, seen))  # noqa: B010
        if table is not None and kind in table:
            real = table[kind]
            stack.callback(table.__setitem__, kind, real)
            table[kind] = _watching(real, layers, seen)
        yield


def _attention_layer(name: str) -> str | None:
    """`model.layers.3.self_attn` -> "3" """
    stem = llama_cpp_names([name]).get(name, "")
    return stem.removeprefix("attn_out-") if stem.startswith("attn_out-") and name.endswith("attn") else None


def _watching(real: Callable[..., Any], layers: dict[int, int], seen: Arrays) -> Callable[..., Any]:
    def attention(module: Any, query: Any, key: Any, value: Any, *rest: Any, **options: Any) -> Any:
        result = real(module, query, key, value, *rest, **options)
        layer = layers.get(id(module))
        if layer is not None:
            for stem, tensor in (("Qcur", query), ("Kcur", key), ("Vcur", value)):
                seen[f"{stem}-{layer}"] = np.ascontiguousarray(_array(tensor).swapaxes(0, 1))
            if isinstance(result, tuple) and len(result) > 1 and result[1] is not None:
                seen[f"kq_soft_max-{layer}"] = _array(result[1])
        return result

    return attention
