"""The works of a job by llama.cpp's C API, through llama-cpp-python or ik-llama-cpp-python.

Run as a script, `python llama.py JOB`, in the other engine's environment: it imports nothing of this package. JOB as
in ours.py, with "engine": "llama-cpp" or "ik-llama", and "without_amx": whether the system shall refuse the processor's
tiles. Flash attention is left to the engine's own choice; weights are repacked as it likes.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import resource
import struct
import sys
import time
from typing import Any

CACHE_TYPES = {"f32": 0, "f16": 1, "q8_0": 8}  # enum ggml_type
MODULES = {"llama-cpp": "llama_cpp.llama_cpp", "ik-llama": "ik_llama_cpp._ctypes_api"}
_LOG = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)


def drawn(n: int, n_vocab: int, seed: int = 0) -> list[int]:
    """As in ours.py."""
    return [5 + (7919 * (i + 1 + 131 * seed)) % (min(n_vocab, 30000) - 5) for i in range(n)]


def refuse_amx() -> None:
    """Make arch_prctl(ARCH_REQ_XCOMP_PERM) fail (seccomp), as on a system without tiles. Linux on x86-64 alone."""
    load, equal, give = 0x20, 0x15, 0x06  # BPF: load a word, jump if equal, return
    allow, refuse = 0x7FFF0000, 0x00050001  # SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO with EPERM
    code = [(load, 0, 0, 0), (equal, 0, 3, 158), (load, 0, 0, 16), (equal, 0, 1, 0x1023), (give, 0, 0, refuse),
            (give, 0, 0, allow)]  # fmt: skip
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in code))
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(code), ctypes.addressof(program)))
    libc = ctypes.CDLL(None, use_errno=True)
    no_new_privileges, set_seccomp, filter_mode = 38, 22, 2
    if libc.prctl(no_new_privileges, 1, 0, 0, 0) or libc.prctl(set_seccomp, filter_mode, header, 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp")


class Engine:
    """A model and a context of one engine."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.c = importlib.import_module(MODULES[job["engine"]])
        self._log = _LOG(lambda level, text, data: None)
        if hasattr(self.c, "llama_log_set"):
            self.c.llama_log_set(self._log, None)
        self.c.llama_backend_init()
        params = self.c.llama_model_default_params()
        self.model = self.c.llama_model_load_from_file(job["model"].encode(), params)
        if not self.model:
            raise SystemExit(f"{job['engine']} cannot load {job['model']}")
        self.n_vocab = self.c.llama_vocab_n_tokens(self.c.llama_model_get_vocab(self.model))
        self.threads, self.cache_type = job["threads"], CACHE_TYPES[job["cache_type"]]

    def context(self, work: dict[str, Any]) -> Any:
        params = self.c.llama_context_default_params()
        params.n_ctx = max(work["context"], 16) * work["sequences"] + 64
        params.n_batch = params.n_ubatch = 512
        params.n_threads = params.n_threads_batch = self.threads
        params.n_seq_max = work["sequences"]
        params.type_k = params.type_v = self.cache_type
        context = self.c.llama_init_from_model(self.model, params)
        if not context:
            raise SystemExit("no context")
        return context

    def decode(self, context: Any, rows: list[tuple[int, int, int, bool]]) -> None:
        """rows: (token, position, sequence, whether its logits are wanted), in batches of up to 512."""
        for first in range(0, len(rows), 512):
            part = rows[first : first + 512]
            batch = self.c.llama_batch_init(len(part), 0, 1)
            batch.n_tokens = len(part)
            for i, (token, position, sequence, wanted) in enumerate(part):
                batch.token[i], batch.pos[i], batch.n_seq_id[i] = token, position, 1
                batch.seq_id[i][0], batch.logits[i] = sequence, wanted
            if self.c.llama_decode(context, batch):
                raise SystemExit("llama_decode failed")
            self.c.llama_get_logits_ith(context, len(part) - 1)
            self.c.llama_batch_free(batch)

    def forget(self, context: Any) -> None:
        """Empty the context's memory."""
        if hasattr(self.c, "llama_get_memory"):
            self.c.llama_memory_clear(self.c.llama_get_memory(context), True)
        else:
            self.c.llama_kv_cache_clear(context)

    def do(self, work: dict[str, Any], began: float) -> float:
        context = self.context(work)
        n = work["prompt"]
        prompts = [drawn(n, self.n_vocab, seed) for seed in range(work["sequences"])]

        def prefill(prompts: list[list[int]]) -> None:
            for s, prompt in enumerate(prompts):
                self.decode(context, [(token, i, s, i == n - 1) for i, token in enumerate(prompt)])

        if work["kind"] == "prefill":  # the same once before, as llama-bench does
            prefill([drawn(n, self.n_vocab, 98)])
            self.forget(context)
        start = time.perf_counter()
        prefill(prompts)
        if work["kind"] == "first":
            return time.perf_counter() - began
        if work["kind"] == "prefill":
            return time.perf_counter() - start
        start = time.perf_counter()
        for i, token in enumerate(drawn(work["tokens"], self.n_vocab, 77)):
            self.decode(context, [(token, n + i, s, True) for s in range(len(prompts))])
        seconds = time.perf_counter() - start
        self.c.llama_free(context)
        return seconds


def main() -> None:
    job = json.loads(sys.argv[1])
    if job["without_amx"]:
        refuse_amx()
    began = time.perf_counter()
    engine = Engine(job)
    loaded = time.perf_counter() - began
    seconds = []
    for i, work in enumerate(job["works"]):
        if i == 0 and work["kind"] != "first":  # once through everything, as in ours.py
            warm = {"kind": "prefill", "prompt": job["warm"], "sequences": 1, "context": job["warm"]}
            engine.do(warm, began)
        seconds.append(engine.do(work, began))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "load": loaded, "peak": peak, "backend": job["engine"]}))


if __name__ == "__main__":
    main()
