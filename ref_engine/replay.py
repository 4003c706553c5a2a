"""One token after the other of one sequence, by a recording of the first such pass where the backend can make one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ref_engine.blocks.expert_load import ExpertLoad
from ref_engine.blocks.site import Pass, Share
from ref_engine.cache import Cache
from ref_engine.gpu.position import NotRecorded
from ref_engine.ops import Ops
from ref_engine.quant.rows import CacheType
from ref_engine.reference.sums import F32
from ref_engine.spec import RopeSpec

Tables = Mapping[RopeSpec, tuple[F32, F32]]


class FixedCache:
    """A cache whose rows stay where they are, for a token whose place only the device knows."""

    def __init__(self, recorder: Any, rows: Mapping[tuple[int, str], Any], at: Any, type: CacheType) -> None:
        self._recorder, self._rows, self._at, self.type = recorder, rows, at, type

    def append(self, layer: int, name: str, new: F32) -> Any:
        rows = self._rows[layer, name]
        self._recorder.remember(rows, new, self._at)
        return rows

    def __getattr__(self, name: str) -> Any:
        raise NotRecorded(f"the cache's {name}")


class OneToken:
    """A pass of one token in fixed arrays. through: from the stream that enters the first layer to logits (1, V)."""

    def __init__(
        self,
        ops: Ops,
        cache: Cache,
        entered: F32,
        ropes: Tables,
        load: ExpertLoad,
        through: Callable[[F32, Pass], F32],
        tap: Any,
    ) -> None:
        """Runs the pass of the cache's last token again, and records it. entered and ropes: of that token.

        Raises NotRecorded, or what CuPy raises, where it cannot be recorded.
        """
        self._recorder: Any = ops.recorder
        self._rows = dict(cache.all_rows())
        self._x = entered.copy()
        self._ropes = {rope: (cos.copy(), sin.copy()) for rope, (cos, sin) in ropes.items()}
        self._at = self._recorder.position()
        self._load = ExpertLoad()  # its arrays, made by the first run, stay where they are
        self._at.value.set(np.array([cache.n_done - 1]))
        fixed: Any = FixedCache(self._recorder, self._rows, self._at, cache.type)
        share = Share(fixed, slice(0, 1), self._at)

        def run() -> F32:
            p = Pass(ops, (share,), self._at, self._ropes, tap, False, False, expert_load=self._load)
            return through(self._x, p)

        want = run().get()  # type: ignore[attr-defined]
        self._recording = self._recorder.record(run)
        got = self._recording.again().get()
        if not np.array_equal(want, got, equal_nan=True):
            raise NotRecorded("another result of the recording than of what was recorded")
        self._load.clear()
        self._counted_in = load
        load.lend(self._load, self)

    def fits(self, cache: Cache, load: ExpertLoad) -> bool:
        """Whether one more token's rows go where the cache's are, and its experts are counted where they are to be."""
        same = all(cache.all_rows()[slot] is rows for slot, rows in self._rows.items())
        return same and cache.has_room(1) and self._counted_in is load

    def logits(self, n_done: int, entered: F32, ropes: Tables) -> F32:
        """Of the token that comes after n_done others: (V,) on the host. ropes: on the host."""
        self._x[...] = entered
        for rope, tables in ropes.items():
            for fixed, table in zip(self._ropes[rope], tables, strict=True):
                fixed.set(table)  # type: ignore[attr-defined]
        self._at.value.set(np.array([n_done]))
        found: F32 = self._recording.again().get()[0]
        return found
