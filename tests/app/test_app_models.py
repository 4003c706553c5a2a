"""The pool of models, with stand-ins for models."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from running import eventually

from ref_engine_app.errors import ApiError
from ref_engine_app.memory import Need
from ref_engine_app.models import ModelPool


class Stub:
    """A loaded model that remembers how it was stopped."""

    def __init__(self) -> None:
        self.engine = self
        self.stopped: list[float] = []

    def stop(self, grace: float = 0.0) -> None:
        self.stopped.append(grace)


class Loader:
    """Sizes by file name: "a4" needs 4. `gate` closed holds loading up."""

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.residents: dict[str, Stub] = {}
        self.gate = threading.Event()
        self.gate.set()
        self.fail = ""

    def load(self, path: Path, need: Need) -> Any:
        self.loaded.append(path.name)
        assert self.gate.wait(30)
        if path.name == self.fail:
            raise ApiError("invalid", f"{path.name} is damaged")
        self.residents[path.name] = Stub()
        return self.residents[path.name]

    def need(self, path: Path) -> Need:
        return Need(100, int(path.name[1:]), 0, 0, 0)


@pytest.fixture
def loader() -> Loader:
    return Loader()


@pytest.fixture
def pool(loader: Loader) -> Any:
    made = ModelPool(loader.load, loader.need, budget=10, keep_alive=1000.0, max_waiting=2)
    yield made
    made.stop()


def use(pool: ModelPool, name: str, keep_alive: float | None = None) -> None:
    pool.lease(name, Path(name), keep_alive).release()


def names(pool: ModelPool) -> list[str]:
    return [running.name for running in pool.running()]


def test_loaded_once_and_kept(pool: ModelPool, loader: Loader) -> None:
    for _ in range(3):
        use(pool, "a4")
    assert loader.loaded == ["a4"] and names(pool) == ["a4"]


def test_two_who_ask_at_once_load_once(pool: ModelPool, loader: Loader) -> None:
    loader.gate.clear()
    threads = [threading.Thread(target=use, args=(pool, "a4")) for _ in range(3)]
    for thread in threads:
        thread.start()
    eventually(lambda: loader.loaded == ["a4"])
    loader.gate.set()
    for thread in threads:
        thread.join(30)
    assert loader.loaded == ["a4"]


def test_the_least_recently_used_leaves(pool: ModelPool, loader: Loader) -> None:
    for name in ("a4", "b4", "a4", "c4"):
        use(pool, name)
    assert names(pool) == ["c4", "a4"]
    assert loader.residents["b4"].stopped == [0.0]
    use(pool, "d8")  # takes the place of both
    assert names(pool) == ["d8"]


def test_those_at_work_are_waited_for(pool: ModelPool, loader: Loader) -> None:
    lease = pool.lease("a8", Path("a8"))
    thread = threading.Thread(target=use, args=(pool, "b8"))
    thread.start()
    eventually(lambda: pool._waiting == 1)
    assert loader.loaded == ["a8"]
    lease.release()
    lease.release()  # again does nothing
    thread.join(30)
    assert loader.loaded == ["a8", "b8"] and names(pool) == ["b8"]


def test_a_client_that_leaves_waits_no_more(pool: ModelPool) -> None:
    pool.lease("a8", Path("a8"))
    with pytest.raises(ApiError, match="left"):
        pool.lease("b8", Path("b8"), gone=lambda: True)


def test_only_so_many_wait(pool: ModelPool) -> None:
    lease = pool.lease("a8", Path("a8"))
    threads = [threading.Thread(target=use, args=(pool, "b8")) for _ in range(2)]
    for thread in threads:
        thread.start()
    eventually(lambda: pool._waiting == 2)
    with pytest.raises(ApiError) as caught:
        pool.lease("c8", Path("c8"))
    assert caught.value.kind == "overloaded" and caught.value.retry_after
    use(pool, "a8")  # one that is there needs no waiting
    lease.release()
    for thread in threads:
        thread.join(30)


def test_what_can_never_fit(pool: ModelPool, loader: Loader) -> None:
    with pytest.raises(ApiError, match=r"a11 needs .* and models may take"):
        pool.lease("a11", Path("a11"))
    assert loader.loaded == []


def test_a_damaged_file_leaves_nothing_behind(pool: ModelPool, loader: Loader) -> None:
    loader.fail = "a8"
    with pytest.raises(ApiError, match="damaged"):
        use(pool, "a8")
    use(pool, "b8")
    loader.fail = ""
    use(pool, "a8")
    assert names(pool) == ["a8"]


def test_expiry_and_unloading(pool: ModelPool, loader: Loader) -> None:
    use(pool, "a4", keep_alive=0.0)
    eventually(lambda: names(pool) == [])
    assert loader.residents["a4"].stopped == [0.0]
    lease = pool.lease("b4", Path("b4"))
    assert pool.unload(Path("b4"))
    assert names(pool) == ["b4"]  # somebody is at work with it
    lease.release()
    eventually(lambda: names(pool) == [])
    assert not pool.unload(Path("b4"))


def test_stopping(loader: Loader) -> None:
    pool = ModelPool(loader.load, loader.need, budget=10, keep_alive=1000.0)
    use(pool, "a4")
    pool.stop(7.0)
    assert loader.residents["a4"].stopped == [7.0]
    with pytest.raises(ApiError, match="shutting down"):
        pool.lease("a4", Path("a4"))
