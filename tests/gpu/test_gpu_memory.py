"""What happens where there is no GPU, and when it is full."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import standin
from click.testing import CliRunner

import ref_engine
from ref_engine import DeviceMemoryError, RefEngineError, compat
from ref_engine.cli import main
from ref_engine.engine import Engine, Job
from ref_engine.files import open_gguf
from ref_engine.place import Placement
from ref_engine.plan import make_plan
from ref_engine.plan_split import divide
from ref_engine.sample import GREEDY

Build = Callable[..., Path]


# -- no GPU -----------------------------------------------------------------------------------------------------------


def broken(status: int, driver: int = 0, runtime: int = 13020, count: int | None = None) -> Any:
    """A CuPy whose runtime answers with an error, or with a number of devices."""

    class CUDARuntimeError(RuntimeError):
        def __init__(self) -> None:
            super().__init__(f"cudaError{status}: what it says")
            self.status = status

    def device_count() -> int:
        if count is None:
            raise CUDARuntimeError
        return count

    answers = {"driverGetVersion": lambda: driver, "runtimeGetVersion": lambda: runtime}
    calls = SimpleNamespace(CUDARuntimeError=CUDARuntimeError, getDeviceCount=device_count, **answers)
    return SimpleNamespace(cuda=SimpleNamespace(runtime=calls))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (broken(35), "CuPy finds no NVIDIA driver on this machine"),
        (broken(35, driver=12040), "the NVIDIA driver is for CUDA 12.4, CuPy needs 13.2: a newer driver"),
        (broken(100, driver=13000), "CuPy finds no CUDA device on this machine"),
        (broken(0, count=0), "CuPy finds no CUDA device on this machine"),
        (broken(999, driver=13000), "CuPy cannot reach the CUDA device: cudaError999: what it says"),
    ],
)
def test_what_is_missing_is_said(module: Any, message: str, golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compat, "cupy", module)
    with pytest.raises(RefEngineError, match=f"^backend cupy cannot run here: {message}"):
        ref_engine.load(golden / "models" / "tiny-moe.gguf", backend="cupy")


def test_a_missing_library_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "cupy", None)
    found = compat._find_cupy()
    assert found["cupy"] is None and not found["has_cupy"]
    assert found["why_no_cupy"].startswith("CuPy is not there (") and "install ref-engine[gpu]" in found["why_no_cupy"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "native", "gpu_layers": 3}, "gpu_layers is for the backend cupy, this is native"),
        ({"backend": "numpy", "experts_on": "cpu"}, "experts_on is for the backend cupy, this is numpy"),
        ({"backend": "cupy", "gpu_layers": -1}, "gpu_layers is -1, expected at least 0"),
        ({"backend": "cupy", "experts_on": "tpu"}, "unknown experts_on 'tpu': cpu or gpu"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], message: str, golden: Path) -> None:
    with pytest.raises(RefEngineError, match=f"^{message}$"):
        ref_engine.load(golden / "models" / "tiny-moe.gguf", **options)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (
            ("logits", "{}", "--tokens", "1", "--gpu-layers", "3", "--backend", "numpy"),
            "gpu_layers is for the backend cupy",
        ),
        (("logits", "{}", "--tokens", "1", "--gpu-layers", "-3", "--backend", "cupy"), "gpu_layers is -3"),
        (("plan", "{}", "--gpu-layers", "-3"), "gpu_layers is -3"),
        (("bench", "{}", "--gpu-layers", "-3", "--backend", "cupy"), "gpu_layers is -3"),
    ],
)
def test_commands_say_so_in_one_line(command: tuple[str, ...], message: str, golden: Path) -> None:
    path = str(golden / "models" / "tiny-moe.gguf")
    result = CliRunner().invoke(main, [part.format(path) for part in command])
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1 and message in result.stderr


# -- a full GPU -------------------------------------------------------------------------------------------------------


def llama(zoo_model: Build, **options: Any) -> ref_engine.Model:
    return ref_engine.load(zoo_model("llama-gqa"), backend="cupy", activations="f32", **options)


def test_weights_that_cannot_fit_are_refused_at_once(zoo_model: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    small = standin.make(memory=1000)
    monkeypatch.setattr(compat, "cupy", small)
    with open_gguf(zoo_model("llama-gqa")) as file:
        needed = divide(make_plan(file.metadata, file.tensors), file.tensors).device.weights
    with pytest.raises(DeviceMemoryError, match=f"^the weights take {needed:,} bytes of the GPU, and 1,000 are free: "):
        llama(zoo_model)
    standin.Array.module = None


def test_a_full_device_names_the_tensor_and_goes_on(zoo_model: Build, cupy: standin.Cupy) -> None:
    model = llama(zoo_model)
    cache = model.new_cache()
    pool = cupy.get_default_memory_pool()
    pool.set_limit(size=3000)
    name = "blk.1.ffn_up.weight"
    size = 4 * model.weights[name].shape[0] * model.weights[name].shape[1]
    message = f"^tensor {name} does not fit the GPU: out of memory allocating {size:,} bytes "
    with pytest.raises(DeviceMemoryError, match=message):
        model.weights.at(model.ops.place)[name].f32()
    with pytest.raises(DeviceMemoryError, match="does not fit the GPU"):
        model.forward([1, 2, 3], cache)
    assert pool.total_bytes() == pool.used_bytes()  # what was let go is the device's again
    held = pool.used_bytes()
    with pytest.raises(DeviceMemoryError):
        model.forward([1, 2, 3], cache)
    assert pool.used_bytes() == held and cache.n_past == 0  # nothing piles up, and no token counts
    pool.set_limit(size=0)
    want = ref_engine.load(zoo_model("llama-gqa"), backend="numpy", activations="f32").logits([1, 2, 3])
    np.testing.assert_allclose(model.forward([1, 2, 3], cache), want, rtol=1e-4, atol=1e-5)


def test_a_full_device_names_the_cache(zoo_model: Build, cupy: standin.Cupy) -> None:
    cache = llama(zoo_model).new_cache()
    cache.with_room(0, "k", 3)
    cupy.get_default_memory_pool().set_limit(size=cupy.get_default_memory_pool().used_bytes() + 1000)
    with pytest.raises(DeviceMemoryError, match=r"^the cache's 256 tokens of v in layer 1 do not fit the GPU: "):
        cache.with_room(1, "v", 3)


def test_a_full_device_says_so_for_temporaries(zoo_model: Build, cupy: standin.Cupy) -> None:
    model = llama(zoo_model)
    cache = model.new_cache()
    model.forward([1, 2, 3], cache)
    pool = cupy.get_default_memory_pool()
    pool.set_limit(size=pool.used_bytes() + 500)
    with pytest.raises(DeviceMemoryError, match=r"^a temporary array of the pass does not fit the GPU: "):
        model.forward([1, 2, 3], cache)
    pool.set_limit(size=0)
    model.forward([4], cache)
    assert cache.n_past == 4


def test_a_model_that_is_let_go_leaves_its_memory(zoo_model: Build, cupy: standin.Cupy) -> None:
    import gc

    model = llama(zoo_model)
    model.logits([1, 2, 3])
    pool = cupy.get_default_memory_pool()
    assert pool.used_bytes() > 0
    del model
    gc.collect()
    assert pool.used_bytes() == 0


def test_the_engine_answers_the_next_one(golden: Path, cupy: standin.Cupy) -> None:
    model = ref_engine.load(golden / "models" / "tiny-moe.gguf", backend="cupy", activations="f32")
    engine = Engine(model, parallel=2, n_ctx=64)
    pool = cupy.get_default_memory_pool()
    try:
        pool.set_limit(size=3000)
        with pytest.raises(DeviceMemoryError):
            list(engine.submit(Job((1, 2, 3), GREEDY, max_tokens=4, ignore_eos=True)))
        pool.set_limit(size=0)
        events = list(engine.submit(Job((1, 2, 3), GREEDY, max_tokens=4, ignore_eos=True)))
        assert len([event for event in events if event.token is not None]) == 4
    finally:
        engine.stop()


# -- the plan ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_layer", "gpu_layers", "first"), [(4, None, 0), (4, 5, 0), (4, 9, 0), (4, 4, 1), (4, 2, 3), (4, 1, 4)]
)
def test_layers_are_counted_from_the_output(n_layer: int, gpu_layers: int | None, first: int) -> None:
    placement = Placement.of(n_layer, gpu_layers, "gpu")
    assert placement.first == first
    assert placement.on_device("output.weight") and not placement.on_device("token_embd.weight")
    assert [placement.on_device(f"blk.{i}.attn_q.weight") for i in range(4)] == [i >= first for i in range(4)]


def test_a_plan_divides_every_byte(golden: Path) -> None:
    """Tied or not, what the device has and what the host keeps are all tensors; a tied embedding is in both."""
    with open_gguf(golden / "models" / "tiny-moe.gguf") as file:
        plan, tensors = make_plan(file.metadata, file.tensors, 100), file.tensors
    tied = 0 if "output.weight" in tensors else tensors["token_embd.weight"].nbytes
    expert = {n: t.nbytes for n, t in tensors.items() if "_exps" in n}
    n_layer = len(plan.layers)
    for gpu_layers in (None, 1, 3, n_layer + 1):
        for experts_on in ("cpu", "gpu"):
            d = divide(plan, tensors, gpu_layers, experts_on)
            assert d.device.weights + d.host.weights == plan.nbytes + tied
            assert {k: d.device.cache[k] + d.host.cache[k] for k in plan.cache} == plan.cache
    whole, without = divide(plan, tensors), divide(plan, tensors, None, "cpu")
    assert whole.device.weights - without.device.weights == sum(expert.values()) > 0
    assert whole.host.weights == tensors["token_embd.weight"].nbytes
    output = divide(plan, tensors, 1)
    names = [n for n in tensors if n.startswith("output")] + (["token_embd.weight"] if tied else [])
    assert output.device.weights == sum(tensors[n].nbytes for n in names)
    assert output.device.cache == {"f16": 0, "f32": 0, "q8_0": 0}
    one = divide(plan, tensors, 2)
    last = {n: t.nbytes for n, t in tensors.items() if n.startswith(f"blk.{n_layer - 1}.")}
    assert one.device.weights - output.device.weights == sum(last.values())
    none = divide(plan, tensors, 0)
    assert none.device.weights == 0 and none.host.weights == plan.nbytes


def test_the_plan_is_what_a_load_asks_for(
    zoo_model: Build, cupy: standin.Cupy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes that `load` wants room for are those of the plan."""
    asked: list[int] = []
    monkeypatch.setattr("ref_engine.gpu.device.Device.has_room", lambda self, packed, unpacked: asked.append(packed))
    path = zoo_model("gpt-oss-moe", "architectures/specs")
    with open_gguf(path) as file:
        plan, tensors = make_plan(file.metadata, file.tensors), file.tensors
    for options in (
        {},
        {"gpu_layers": 1},
        {"gpu_layers": 2},
        {"experts_on": "cpu"},
        {"gpu_layers": 2, "experts_on": "cpu"},
    ):
        ref_engine.load(path, backend="cupy", activations="f32", **options)
        d = divide(plan, tensors, options.get("gpu_layers"), options.get("experts_on", "gpu"))
        assert asked.pop() == d.device.weights
