"""One process of this engine: `python -m ref_engine.bench.ours JOB` does the works of a job and prints JSON.

JOB is JSON: {"model": path, "warm": tokens to compute first, "works": [...], "threads": n or null, "backend": name or
null, "activations": name, "cache_type": name}.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from typing import Any

import ref_engine
from ref_engine.model import Model

_MULTIPLIER = 7919  # of the drawn tokens


def drawn(n: int, n_vocab: int, seed: int = 0) -> list[int]:
    """n token ids, the same for all engines, special ones (which are the first) seldom."""
    return [5 + (_MULTIPLIER * (i + 1 + 131 * seed)) % (min(n_vocab, 30000) - 5) for i in range(n)]


def do(work: dict[str, Any], model: Model, began: float) -> float:
    """Seconds that the work took; began: when the process began to load the model."""
    vocab, sequences = model.spec.n_vocab, work["sequences"]
    prompts = [drawn(work["prompt"], vocab, seed) for seed in range(sequences)]
    caches = [model.new_cache(max(work["context"], 16)) for _ in prompts]
    if work["kind"] == "first":
        model.last_logits(prompts[0], caches[0])
        return time.perf_counter() - began
    if work["kind"] == "prefill":
        model.last_logits(drawn(work["prompt"], vocab, 98), caches[0])  # the same once before, as llama-bench does
        caches[0].truncate(0)
        start = time.perf_counter()
        model.last_logits(prompts[0], caches[0])
        return time.perf_counter() - start
    for prompt, cache in zip(prompts, caches, strict=True):
        model.last_logits(prompt, cache)
    next_tokens = drawn(work["tokens"], vocab, 77)
    start = time.perf_counter()
    for token in next_tokens:
        model.step([([token], cache) for cache in caches])
    return time.perf_counter() - start


def main() -> None:
    job = json.loads(sys.argv[1])
    began = time.perf_counter()
    model = ref_engine.load(
        job["model"], backend=job["backend"], activations=job["activations"],
        cache_type=job["cache_type"], n_threads=job["threads"],
        gpu_layers=job["gpu_layers"], experts_on=job["experts_on"],
    )  # fmt: skip
    loaded = time.perf_counter() - began
    seconds = []
    for i, work in enumerate(job["works"]):
        if i == 0 and work["kind"] != "first":  # repacking belongs to loading, and is not what is asked for here
            model.last_logits(drawn(job["warm"], model.spec.n_vocab, 99), model.new_cache(job["warm"]))
        seconds.append(do(work, model, began))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "load": loaded, "peak": peak, "backend": model.ops.name}))


if __name__ == "__main__":
    main()
