"""A small ctypes layer over llama.cpp (through llama-cpp-python): logits, named intermediates, ids, greedy text.

Used only to produce golden data and to compare speeds; the engine and its tests never import it.
The settings are the ones that the golden data name: CPU only, no weight repacking, no flash attention unless asked,
and key/value caches in float32, float16 or Q8_0.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import llama_cpp
import numpy as np
import numpy.typing as npt
from llama_cpp import llama_cpp as capi

FloatArray = npt.NDArray[np.float32]

_LIB_DIR = Path(llama_cpp.__file__).parent / "lib"
_CACHE_TYPES = {"f32": 0, "f16": 1, "q8_0": 8}  # numbers of enum ggml_type
_FLASH_OFF, _FLASH_ON = 0, 1  # enum llama_flash_attn_type
_ROPE_LENGTH, _OP_PARAMS, _MAX_SRC, _MAX_NAME = 4, 16, 10, 64


class GGMLTensor(ctypes.Structure):
    """struct ggml_tensor of ggml 0.25: the fields up to the name, which is all that is read here."""

    _fields_ = [
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * 4),
        ("nb", ctypes.c_size_t * 4),
        ("op", ctypes.c_int),
        ("op_params", ctypes.c_int32 * _OP_PARAMS),
        ("flags", ctypes.c_int32),
        ("src", ctypes.c_void_p * _MAX_SRC),
        ("view_src", ctypes.c_void_p),
        ("view_offs", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
        ("name", ctypes.c_char * _MAX_NAME),
        ("extra", ctypes.c_void_p),
        ("padding", ctypes.c_char * 8),
    ]


@dataclass(frozen=True)
class Node:
    """One computed graph node: its name and operation as llama.cpp reports them, and a contiguous copy.

    `ne` is ggml's dimension order (fastest first, always four); `array.shape` is its reverse with the leading
    ones removed.
    """

    name: str
    op: str
    ne: tuple[int, ...]
    array: npt.NDArray[np.generic]


def producer() -> tuple[str, str]:
    """Name and version of what computes here, for the manifest."""
    ggml = base_library()
    ggml.ggml_version.restype = ctypes.c_char_p
    return "llama.cpp", f"llama-cpp-python {llama_cpp.__version__} (ggml {ggml.ggml_version().decode()})"


def base_library() -> ctypes.CDLL:
    """libggml-base: type traits, quantisers, tensor and graph construction."""
    return ctypes.CDLL(str(_LIB_DIR / "libggml-base.so"))


def cpu_library() -> ctypes.CDLL:
    """libggml-cpu: the CPU backend's own quantisers and dot products."""
    library = ctypes.CDLL(str(_LIB_DIR / "libggml-cpu.so"))
    library.ggml_cpu_init()
    return library


def tensor_array(tensor: GGMLTensor) -> npt.NDArray[np.generic]:
    """Contiguous NumPy copy of a tensor of plain numbers, honouring its strides; slowest dimension first."""
    dtype = np.dtype({0: "<f4", 1: "<f2", 26: "<i4", 27: "<i8"}[tensor.type])
    ne, nb = list(tensor.ne), list(tensor.nb)
    extent = sum((n - 1) * b for n, b in zip(ne, nb, strict=True)) + dtype.itemsize
    raw = (ctypes.c_uint8 * extent).from_address(tensor.data)
    shape, strides = ne[::-1], nb[::-1]
    view = np.ndarray(shape, dtype, buffer=raw, strides=strides)
    lead = next((i for i, n in enumerate(shape[:-1]) if n != 1), len(shape) - 1)
    return np.array(view.reshape(shape) if lead == 0 else view[(0,) * lead], order="C", copy=True)


_LOG_CALLBACK = capi.llama_log_callback(lambda level, text, data: None)


def _open_model(path: Path, repack: bool, vocab_only: bool) -> capi.llama_model_p:
    params = capi.llama_model_default_params()
    params.n_gpu_layers = 0
    params.use_extra_bufts = repack
    params.vocab_only = vocab_only
    model = capi.llama_model_load_from_file(str(path).encode(), params)
    if model is None:
        raise RuntimeError(f"{path}: llama.cpp cannot load this model")
    return model


class LlamaCpp:
    """One model and one context of llama.cpp.

    n_ctx 0 takes the model's training context. n_batch is the number of tokens per llama_decode call, n_ubatch the
    number per graph (default: the same). kv is "f32", "f16" or "q8_0" (which wants `flash`). capture=True allows
    `intermediates`.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        n_ctx: int = 0,
        n_batch: int = 512,
        n_ubatch: int | None = None,
        kv: str = "f32",
        flash: bool = False,
        repack: bool = False,
        n_threads: int = 2,
        vocab_only: bool = False,
        capture: bool = False,
    ) -> None:
        capi.llama_log_set(_LOG_CALLBACK, None)
        capi.llama_backend_init()
        self._model = _open_model(Path(path), repack, vocab_only)
        self._vocab = capi.llama_model_get_vocab(self._model)
        self.n_vocab: int = capi.llama_vocab_n_tokens(self._vocab)
        self._nodes: list[Node] = []
        self._wanted: Callable[[str], bool] | None = None
        self._context: capi.llama_context_p | None = None
        if vocab_only:
            return
        params = capi.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = n_ctx, n_batch, n_ubatch or n_batch
        params.type_k = params.type_v = _CACHE_TYPES[kv]
        params.flash_attn_type = _FLASH_ON if flash else _FLASH_OFF
        params.n_threads = params.n_threads_batch = n_threads
        params.no_perf = True
        if capture:
            self._callback = capi.ggml_backend_sched_eval_callback(self._on_node)
            params.cb_eval = self._callback
        self._n_batch = n_batch
        self._context = capi.llama_init_from_model(self._model, params)
        if self._context is None:
            raise RuntimeError(f"{path}: llama.cpp cannot make a context")
        self.n_ctx: int = capi.llama_n_ctx(self._context)

    def __enter__(self) -> LlamaCpp:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._context is not None:
            capi.llama_free(self._context)
            self._context = None
        capi.llama_model_free(self._model)

    # -- text ------------------------------------------------------------------------------------------------------
    def tokenize(self, text: str, add_special: bool = True, parse_special: bool = True) -> list[int]:
        data = text.encode()
        room = len(data) + 8
        buffer = (capi.llama_token * room)()
        n = capi.llama_tokenize(self._vocab, data, len(data), buffer, room, add_special, parse_special)
        if n < 0:
            raise RuntimeError(f"llama.cpp wants {-n} tokens of room for {len(data)} bytes")
        return list(buffer[:n])

    def detokenize(self, ids: Sequence[int], remove_special: bool = False, unparse_special: bool = True) -> bytes:
        tokens = (capi.llama_token * len(ids))(*ids)
        room = 64 * len(ids) + 64
        buffer = ctypes.create_string_buffer(room)
        n = capi.llama_detokenize(self._vocab, tokens, len(ids), buffer, room, remove_special, unparse_special)
        if n < 0:
            raise RuntimeError(f"llama.cpp wants {-n} bytes of room for {len(ids)} tokens")
        return buffer.raw[:n]

    def is_end(self, token: int) -> bool:
        return bool(capi.llama_vocab_is_eog(self._vocab, token))

    # -- numbers ---------------------------------------------------------------------------------------------------
    @property
    def has_memory(self) -> bool:
        """Whether a model keeps anything of earlier tokens; diffusion models do not."""
        return bool(capi.llama_get_memory(self._context))

    def reset(self) -> None:
        """Empty the key/value cache."""
        capi.llama_memory_clear(capi.llama_get_memory(self._context), True)

    def _decode(self, ids: Sequence[int], start: int, last_only: bool) -> FloatArray:
        batch = capi.llama_batch_init(len(ids), 0, 1)
        try:
            batch.n_tokens = len(ids)
            for i, token in enumerate(ids):
                batch.token[i] = int(token)
                batch.pos[i] = start + i
                batch.n_seq_id[i] = 1
                batch.seq_id[i][0] = 0
                batch.logits[i] = not last_only or i == len(ids) - 1
            status = capi.llama_decode(self._context, batch)
        finally:
            capi.llama_batch_free(batch)
        if status != 0:
            raise RuntimeError(f"llama_decode returned {status} for {len(ids)} tokens at position {start}")
        rows = 1 if last_only else len(ids)
        pointer = capi.llama_get_logits(self._context)
        return np.ctypeslib.as_array(pointer, (rows, self.n_vocab)).astype(np.float32, copy=True)

    def chunks(self, ids: Sequence[int]) -> Iterator[tuple[int, FloatArray]]:
        """One prefill from an empty cache: (first position, logits (t, V)) per batch of n_batch tokens."""
        self.reset()
        for start in range(0, len(ids), self._n_batch):
            yield start, self._decode(ids[start : start + self._n_batch], start, last_only=False)

    def logits(self, ids: Sequence[int]) -> FloatArray:
        """Logits float32 (T, V) of one prefill from an empty cache."""
        return np.concatenate([rows for _, rows in self.chunks(ids)])

    def greedy(self, ids: Sequence[int], n: int, stop_at_end: bool = True) -> list[int]:
        """The n most probable next tokens, one at a time; ends after an end-of-generation token if asked."""
        self.reset()
        for start in range(0, len(ids), self._n_batch):
            row = self._decode(ids[start : start + self._n_batch], start, last_only=True)[-1]
        out: list[int] = []
        while True:
            out.append(int(row.argmax()))
            if len(out) == n or (stop_at_end and self.is_end(out[-1])):
                return out
            row = self._decode(out[-1:], len(ids) + len(out) - 1, last_only=True)[-1]

    def intermediates(self, ids: Sequence[int], wanted: Callable[[str], bool]) -> list[Node]:
        """Every graph node whose name passes `wanted`, in order of computation, over one prefill.

        Asking for a node ends the fusion of operations around it, so names appear that an ordinary run skips.
        """
        self._nodes, self._wanted = [], wanted
        try:
            self.logits(ids)
        finally:
            self._wanted = None
        return self._nodes

    def _on_node(self, pointer: int, ask: bool, data: object) -> bool:
        if self._wanted is None:
            return not ask  # when asked: not interested; when told: carry on
        tensor = GGMLTensor.from_address(pointer)
        name = tensor.name.decode()
        wanted = self._wanted(name)
        if wanted and not ask:
            library = base_library()
            library.ggml_op_desc.restype = ctypes.c_char_p
            op = library.ggml_op_desc(ctypes.byref(tensor)).decode()
            self._nodes.append(Node(name, op, tuple(tensor.ne), tensor_array(tensor)))
        return wanted if ask else True
