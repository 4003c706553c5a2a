"""A model: a spec, weights and operations, wired to one function from token ids to logits."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from ref_engine.archs import read_spec
from ref_engine.backends import default_backend, get_ops
from ref_engine.blocks.ends import enter, leave, output
from ref_engine.blocks.expert_load import ExpertLoad
from ref_engine.blocks.layer import block
from ref_engine.blocks.moe import logs_experts
from ref_engine.blocks.site import Pass, RopeTables, Share, Site, stream_after
from ref_engine.blocks.split import Split, carried_over, n_layers, ops_of_layers
from ref_engine.cache import Cache, default_cache_type
from ref_engine.errors import DeviceMemoryError, ModelError, RefEngineError
from ref_engine.files.gguf import GGUFFile, open_gguf
from ref_engine.generate import Event, generate
from ref_engine.gpu.position import NotRecorded
from ref_engine.ops import AllLayers, Ops
from ref_engine.place import HOST, Placement, Where, check_split, moved, to_host
from ref_engine.quant.rows import CACHE_TYPES, CacheType
from ref_engine.reference.linear import Activations
from ref_engine.reference.rope import rope_table
from ref_engine.reference.sums import F32
from ref_engine.replay import OneToken
from ref_engine.sample import SamplingParams
from ref_engine.spec import ModelSpec, tensor_rules
from ref_engine.text.tokenizer import Tokenizer, load_tokenizer
from ref_engine.tracing import Tap
from ref_engine.weights import Weights

log = logging.getLogger(__name__)
_PREFILL_CHUNK = 512  # tokens in one pass; bounds the scratch, not the result


class Model:
    """Made by `ref_engine.load`. Not for use by several threads at once; one thread owns a model."""

    def __init__(
        self, file: GGUFFile, spec: ModelSpec, weights: Weights, ops: Ops, activations: Activations,
        split: Split | None = None, cache_type: CacheType | None = None,
    ) -> None:  # fmt: skip
        self.file = file
        self.spec = spec
        self.weights = weights
        self.ops = ops
        self.activations = activations
        self.cache_type = cache_type or default_cache_type(activations)
        self.split = split
        self.taps: list[Tap] = []
        self.expert_load = ExpertLoad()
        self.why_not_recorded: str | None = None  # why passes of one token are not, once that was tried
        self._all_layers: tuple[Ops, AllLayers | None] | None = None
        self._recorded: WeakKeyDictionary[Cache, OneToken] = WeakKeyDictionary()

    @property
    def metadata(self) -> Mapping[str, object]:
        return self.file.metadata

    @property
    def n_ctx(self) -> int:
        return self.spec.n_ctx

    @property
    def chat_template(self) -> str | None:
        """Jinja source, or None where the file has none."""
        source = self.metadata.get("tokenizer.chat_template")
        return source if isinstance(source, str) else None

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Raises TokenizerError if the file's vocabulary cannot be used."""
        return load_tokenizer(self.metadata)

    def tokenize(self, text: str, add_special: bool = True, parse_special: bool = True) -> list[int]:
        return self.tokenizer.encode(text, add_special=add_special, parse_special=parse_special)

    def detokenize(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids)

    def new_cache(self, n_ctx: int | None = None) -> Cache:
        """An empty cache for n_ctx tokens (the model's `n_ctx` by default), of the type that `load` was told."""
        places = [ops.place for ops in ops_of_layers(self.spec, self.ops, self.split)]
        return Cache(self.spec, n_ctx or self.n_ctx, self.cache_type, places)

    def logits(self, ids: Sequence[int]) -> F32:
        """One prefill from an empty cache: (T,) token ids -> (T, V) float32, row t scoring the token after ids[t]."""
        return self.forward(ids, self._cache_for(len(ids)))

    def _cache_for(self, n: int) -> Cache:
        """An empty cache that has room for a prompt of n tokens, if any may have."""
        return self.new_cache(self.spec.n_ctx if n <= self.spec.n_ctx else self.spec.n_ctx_most)

    def forward(self, ids: Sequence[int], cache: Cache) -> F32:
        """Append ids to the cache's sequence: (T,) -> logits (T, V) float32.

        Raises RefEngineError for an empty list or an id outside the vocabulary, ContextFull when they do not fit;
        both before anything is computed.
        """
        with self._scope():
            return self.head(self.normalised(self._hidden([(ids, cache)])[0]))

    def last_logits(self, ids: Sequence[int], cache: Cache) -> F32:
        """As forward, but only the last token's logits: (V,) float32."""
        return self.step([(ids, cache)])[0]

    def step(self, batch: Sequence[tuple[Sequence[int], Cache]]) -> list[F32]:
        """Append token ids to each of several sequences, each with a cache of its own, in one pass over the weights.

        Returns the logits (V,) float32 after the last token of each: the same bits as if each had been alone (in q8
        mode). Raises as `forward` does, before anything is computed.
        """
        with self._scope():
            if len(batch) == 1 and self._replays(*batch[0]):
                return [self._one_token(*batch[0])]
            return list(self.head(self.normalised(np.concatenate(self._hidden(batch, last=True)))))

    def _replays(self, ids: Sequence[int], cache: Cache) -> bool:
        """Whether this pass may be one of those that are recorded."""
        plain = not self.taps and self.split is None and self.spec.causal and self.why_not_recorded is None
        return self.ops.recorder is not None and plain and len(ids) == 1 and cache.n_done > 0 and not cache.backlog

    def _one_token(self, ids: Sequence[int], cache: Cache) -> F32:
        """(V,): by the recording of the pass before where there is one; otherwise this pass is recorded."""
        new = self.checked_ids(ids)
        cache.room_for(1)
        recorded, place = self._recorded.get(cache), self.ops.place
        share = Share(cache, slice(0, 1), cache.n_done + np.arange(1))
        tables = self._ropes([share])
        p = Pass(self.ops, (share,), new, tables, self._tap, False, False)
        if recorded is not None and recorded.fits(cache, self.expert_load):
            found: F32 = recorded.logits(cache.n_done, enter(new, self.spec, self.weights.at(place), p), tables)
            cache.advance(new.tolist())
            return found
        found = self.head(self.normalised(self._hidden([(ids, cache)])[0]))[0]
        try:
            entered = enter(new, self.spec, self.weights.at(place), p)
            self._recorded[cache] = OneToken(
                self.ops, cache, entered, moved(tables, place), self.expert_load, self._through, self._tap
            )
        except (NotRecorded, DeviceMemoryError) as error:
            self.why_not_recorded = str(error)
            log.info("passes of one token are not recorded: %s", error)
        return found

    def _through(self, x: F32, p: Pass) -> F32:
        """From the stream that enters the first layer to the logits, where the operations are: (T, D) -> (T, V)."""
        weights = self.weights.at(self.ops.place)
        p.kept[stream_after(-1)] = x
        for i, layer in enumerate(self.spec.layers):
            x = block(x, layer, Site(weights, i if layer.blk is None else layer.blk, i, p, x, layer.names))
        return output(leave(x, self.spec, weights, self.ops, self._tap), self.spec, weights, self.ops)

    def embeddings(self, ids: Sequence[int]) -> F32:
        """Hidden states after the output norm, from an empty cache: (T,) token ids -> (T, D) float32."""
        with self._scope():
            return to_host(self.normalised(self._hidden([(ids, self._cache_for(len(ids)))])[0]))

    def generate(
        self,
        prompt: str | Sequence[int],
        *,
        max_tokens: int | None = None,
        stop: str | Sequence[str] = (),
        logprobs: int = 0,
        ignore_eos: bool = False,
        cache: Cache | None = None,
        **sampling: Any,
    ) -> Iterator[Event]:
        """Continue a prompt: an iterator of events with .text .token .logprob .finish_reason.

        `sampling` are the fields of SamplingParams (temperature, top_k, top_p, seed, ...). Raises RefEngineError for
        a value out of range, ContextFull for a prompt that does not fit.
        """
        ids = self.tokenize(prompt) if isinstance(prompt, str) else list(prompt)
        return generate(
            self,
            ids,
            params=SamplingParams.from_options(sampling),
            max_tokens=max_tokens,
            stop=stop,
            logprobs=logprobs,
            ignore_eos=ignore_eos,
            cache=cache or self._cache_for(len(ids)),
        )

    def _hidden(self, batch: Sequence[tuple[Sequence[int], Cache]], last: bool = False) -> list[F32]:
        """Each sequence's new tokens through all layers, not yet normalised: (T, D) for each, or (1, D) its last."""
        new = [self.checked_ids(ids) for ids, _ in batch]
        caches = [cache for _, cache in batch]
        if not batch or len({id(cache) for cache in caches}) < len(caches):
            raise RefEngineError("a batch is one or more sequences, each with a cache of its own")
        for ids, cache in zip(new, caches, strict=True):
            cache.room_for(ids.size)
        left = [np.concatenate([np.array(c.backlog, np.int64), ids]) for ids, c in zip(new, caches, strict=True)]
        done: list[list[F32]] = [[] for _ in batch]
        most = _PREFILL_CHUNK if self.spec.causal else max(ids.size for ids in left)
        while any(ids.size for ids in left):
            turn = [i for i, ids in enumerate(left) if ids.size]
            xs = self._layers([left[i][:most] for i in turn], [caches[i] for i in turn], last)
            for i, x in zip(turn, xs, strict=True):
                done[i].append(x)
                left[i] = left[i][most:]
        if last:
            return [xs[-1] for xs in done]
        return [np.concatenate(xs)[-ids.size :] for xs, ids in zip(done, new, strict=True)]

    def _layers(self, ids: Sequence[NDArray[np.int64]], caches: Sequence[Cache], last: bool) -> list[F32]:
        """One pass: some tokens of each sequence, all through the layers together; of each all or the last."""
        by_layer = ops_of_layers(self.spec, self.ops, self.split)
        p = self._pass(by_layer[0], ids, caches)
        x = enter(p.ids, self.spec, self.weights.at(p.ops.place), p)
        done = self._in_one(x, p, last)
        if done is None:
            for i, (layer, ops) in enumerate(zip(self.spec.layers, by_layer, strict=True)):
                if ops is not p.ops:
                    x, p = carried_over(x, p, ops)
                blk = i if layer.blk is None else layer.blk
                x = block(x, layer, Site(self.weights.at(ops.place), blk, i, p, x, layer.names))
        for part, cache in zip(ids, caches, strict=True):
            cache.advance(part.tolist())
        if last and done is not None:
            return [done[i : i + 1] for i in range(len(p.shares))]
        parts = [(x if done is None else done)[share.rows] for share in p.shares]
        return [part[-1:] for part in parts] if last else parts

    def _in_one(self, x: F32, p: Pass, last: bool) -> F32 | None:
        """All layers by `Ops.all_layers`; None where somebody looks inside or the backend has no such call."""
        if p.watched or self.split is not None or p.ops.all_layers is None or logs_experts():
            return None
        if self._all_layers is None or self._all_layers[0] is not p.ops:
            self._all_layers = p.ops, p.ops.all_layers(self.spec.layers, self.weights)
        run = self._all_layers[1]
        sequences = [(share.cache, share.positions) for share in p.shares]
        return None if run is None else run(x, p.ropes, sequences, p.expert_load.of, last)

    def _pass(self, ops: Ops, ids: Sequence[NDArray[np.int64]], caches: Sequence[Cache]) -> Pass:
        ends = np.cumsum([part.size for part in ids]).tolist()
        shares = tuple(
            Share(cache, slice(end - part.size, end), cache.n_done + np.arange(part.size))
            for part, cache, end in zip(ids, caches, ends, strict=True)
        )
        ropes = self._ropes(shares) if ops.place is HOST else moved(self._ropes(shares), ops.place)
        tracing, load = any(tap.fine for tap in self.taps), self.expert_load
        p = Pass(ops, shares, np.concatenate(ids), ropes, self._tap, tracing, bool(self.taps), expert_load=load)
        for tap in self.taps:
            tap.begin(p.positions)
        return p

    def normalised(self, x: F32) -> F32:
        """What leaves the last layer, normalised: (T, D), or (T, N, D) of several streams, -> (T, D)."""
        x, weights = moved(x, self.ops.place), self.weights.at(self.ops.place)
        return self._tap("result_norm", None, leave(x, self.spec, weights, self.ops, self._tap))

    def head(self, x: F32) -> F32:
        """Normalised states to logits: (T, D) -> (T, V), on the host."""
        x, weights = moved(x, self.ops.place), self.weights.at(self.ops.place)
        return to_host(self._tap("result_output", None, output(x, self.spec, weights, self.ops)))

    def _ropes(self, shares: Sequence[Share]) -> RopeTables:
        """One table for each way of turning that the layers ask for, over the positions of all sequences."""
        tables = {}
        for rope in self.spec.ropes:
            parts = []
            for share in shares:
                name = rope.factors_at(share.cache.n_ctx)
                factors = None if name is None else self.weights[name].f32()
                parts.append(rope_table(rope, share.positions, factors))
            cos, sin = (np.concatenate(tables_of) for tables_of in zip(*parts, strict=True))
            tables[rope] = (cos, sin)
        return tables

    def _tap(self, name: str, layer: int | None, value: F32) -> F32:
        """Who looks is shown, and may give back, arrays of the host."""
        if not self.taps:
            return value
        before = shown = to_host(value)
        for tap in self.taps:
            shown = tap.see(name if layer is None else f"{name}-{layer}", shown)
        return value if shown is before else np.asarray(shown, like=value)

    @contextmanager
    def computing(self, change: Callable[[Ops], Ops]) -> Iterator[None]:
        """While open, other operations are in the place of the model's: what `change` makes of them."""
        own, split = self.ops, self.split
        self.ops = change(own)
        self.split = None if split is None else Split(split.first, change(split.host))
        try:
            yield
        finally:
            self.ops, self.split = own, split

    def _scope(self) -> ExitStack:
        """Entered around each pass, for all that compute in it."""
        stack = ExitStack()
        for ops in (self.ops,) if self.split is None else (self.split.host, self.ops):
            stack.enter_context(ops.scope())
        return stack

    def checked_ids(self, ids: Sequence[int]) -> NDArray[np.int64]:
        """Token ids as an array (T,). Raises RefEngineError for an empty list or an id outside the vocabulary."""
        array = np.asarray(ids)
        if array.ndim != 1 or array.size == 0 or not np.issubdtype(array.dtype, np.integer):
            raise RefEngineError("a model needs a list of at least one token id")
        outside = array[(array < 0) | (array >= self.spec.n_vocab)]
        if outside.size:
            raise RefEngineError(f"token id {outside[0]} is outside the vocabulary 0..{self.spec.n_vocab - 1}")
        return array.astype(np.int64)


def load(
    path: str | os.PathLike[str],
    *,
    backend: str | None = None,
    activations: Activations = "q8",
    cache_type: CacheType | None = None,
    n_threads: int | None = None,
    n_ctx: int | None = None,
    unpack_budget: int | None = None,
    expert_cache: int | None = None,
    gpu_layers: int | None = None,
    experts_on: Where | None = None,
) -> Model:
    """Open a .gguf file (the first part of a split one) as a model.

    backend: "numpy" is the readable definition, "native" the compiled kernels, "cupy" an NVIDIA GPU; by default native
    where the kernels were built, else numpy. activations: "f32", the exact product, or
    "q8", what fast kernels compute. n_threads: cores to use. n_ctx: context length, by default what the model was
    trained for (a longrope model: what it was trained for first, unless a prompt is longer).
    cache_type: of keys and values, "f32", "f16", or "q8_0" (blocks of 32 in 8 bits, half of f16's bytes; not on a GPU);
    by default "f32" in f32 mode, else "f16".
    unpack_budget: bytes of unpacked weights to keep between passes, by default a quarter of the machine's memory.
    expert_cache: bytes for experts that a backend has unpacked or repacked, the least recently used going first; by
    default they all stay. With it a mixture larger than memory runs from the mapped file, with the same results.
    gpu_layers, experts_on: for cupy, what the GPU has of a model: the output and the last gpu_layers - 1 layers (all by
    default; see Placement.of), with their experts ("gpu") or without ("cpu"). The CPU's backend has the rest.
    Raises GGUFError for a file that is not GGUF, ModelError for one that is not a model this version can run.
    """
    if n_ctx is not None and n_ctx < 1:
        raise RefEngineError(f"n_ctx is {n_ctx}, expected at least 1")
    if n_threads is not None and n_threads < 1:
        raise RefEngineError(f"n_threads is {n_threads}, expected at least 1")
    if expert_cache is not None and expert_cache < 0:
        raise RefEngineError(f"expert_cache is {expert_cache}, expected bytes")
    backend = backend or default_backend()
    if cache_type not in (None, *CACHE_TYPES):
        raise RefEngineError(f"cache_type is {cache_type!r}, expected one of {', '.join(CACHE_TYPES)}")
    if cache_type == "q8_0" and backend == "cupy":
        raise RefEngineError("the GPU has no cache of q8_0 yet; f16 and f32 it has")
    check_split(backend, gpu_layers, experts_on)
    own = backend if gpu_layers != 0 else default_backend()
    ops = get_ops(own, activations, n_threads, experts_on or "gpu")
    file = open_gguf(Path(path))
    try:
        shapes = {name: info.shape for name, info in file.tensors.items()}
        spec = read_spec(file.metadata, shapes, n_ctx)
        weights = Weights.of_file(file, _quarter_of_memory() if unpack_budget is None else unpack_budget, expert_cache)
        check_tensors(spec, weights)
        Cache(spec, 1, cache_type or default_cache_type(activations))  # refuses a type that cannot hold the rows
        placement = Placement.of(n_layers(spec), gpu_layers, experts_on or "gpu")
        if ops.place is not HOST:
            used = [weight for name, weight in weights.items() if there(name, spec, placement)]
            ops.place.has_room(sum(w.nbytes for w in used), sum(4 * math.prod(w.shape) for w in used))
    except BaseException:
        file.close()
        raise
    split = None
    if ops.place is not HOST and placement.first:
        split = Split(placement.first, get_ops(default_backend(), activations, n_threads))
    return Model(file, spec, weights, ops, activations, split, cache_type)


def there(name: str, spec: ModelSpec, placement: Placement) -> bool:
    """Whether the device has a tensor; a tied embedding it has for the logits."""
    return placement.on_device(name) or name == spec.output


def check_tensors(spec: ModelSpec, weights: Weights) -> None:
    """Every tensor that the spec asks for is there with its shape, and there is none that it does not know.

    Raises ModelError naming the tensor. An unknown tensor is an error because leaving it out would change the result.
    Those that the spec ignores are dropped, so that nothing takes a bias, say, that is not to count.
    """
    rules = tensor_rules(spec)
    for name, rule in rules.items():
        if rule.required or name in weights:
            weights.check(name, rule.shape, rule.indices, rule.reshaped)
    unused = sorted(name for name in set(weights) - set(rules) if not spec.is_ignored(name))
    if unused:
        raise ModelError(f"tensor {unused[0]} is not known for architecture {spec.arch} ({len(unused)} such tensors)")
    weights.drop(set(weights) - set(rules))


def _quarter_of_memory() -> int:
    try:
        return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")) // 4
    except (AttributeError, ValueError, OSError):  # not a POSIX system
        return 2 << 30
