"""The NEON kernels in an emulator: the tests of the other instruction sets, held to the same definition.

neon/driver.c and the kernels are compiled for 64-bit ARM, without the inlining of setup.py, which takes minutes. With
REF_ENGINE_NEON_CFLAGS, as `make neon` sets it, they are compiled as setup.py does, and so are the portable kernels.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import emulated
import numpy as np
import pytest
from emulated import EmulatedKernels, Emulator, Table

# the bodies: `kernels`, `drawn` are the fixtures of this file
from test_kernels_halves import test_attention as test_attention_half
from test_kernels_halves import test_ffn as test_ffn_half
from test_kernels_layers import (  # noqa: F401
    test_attend,
    test_attend_does_not_depend_on_the_split,
    test_attend_with_extreme_sinks,
    test_attend_with_sinks_and_values_of_another_width,
    test_attend_with_values_that_are_not_finite,
    test_glu,
    test_rms_norm,
    test_rope,
    test_situ_without_its_second_bound,
    test_soft_cap,
)
from test_kernels_linear import test_drawn_shapes, test_extreme_values, test_largest_integers  # noqa: F401
from test_kernels_moe import CASES, Drawn, _draw
from test_kernels_moe import test_drawn_shapes as test_experts
from test_kernels_recurrent import (  # noqa: F401
    test_activation,
    test_causal_conv,
    test_gated_delta_rule,
    test_parts_of_a_sequence,
    test_ssm_scan,
    test_what_is_not_finite,
)
from test_kernels_route import test_groups, test_logits_that_are_not_finite, test_route  # noqa: F401

from ref_engine import compat
from ref_engine.compat import native
from ref_engine.kernels import halves, moe, recurrent
from ref_engine.weights import Weight

GCC, QEMU = "aarch64-linux-gnu-gcc", "qemu-aarch64"
C = Path(__file__).parents[2] / "ref_engine" / "kernels" / "c"
ALL = os.environ.get("REF_ENGINE_NEON_CFLAGS")
COMMON = ["-std=c11", "-ffp-contract=off", "-fno-math-errno", "-fopenmp", "-Wall", "-Wextra", "-Werror"]
UNITS = {"unit_neon": ["-march=armv8.2-a+dotprod"], "pack": [], "table": [], "cpu": []}
if ALL:
    UNITS["unit_baseline"] = []

__all__ = ["test_attention_half", "test_experts", "test_ffn_half"]
pytestmark = pytest.mark.skipif(not compat.has_kernels, reason="the kernels were not compiled")


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command that runs the driver."""
    if missing := [name for name in (GCC, QEMU) if shutil.which(name) is None]:
        pytest.skip(f"does not apply: there is no {' and no '.join(missing)}")
    folder = tmp_path_factory.mktemp("neon")
    flags = [
        *(ALL or "-O1 -DREF_ENGINE_NO_UNROLL= -DREF_ENGINE_NO_INLINE").split(),
        *COMMON,
        "-DREF_ENGINE_NEON",
        f"-I{C}",
    ]
    sources = {C / f"{name}.c": more for name, more in UNITS.items()} | {Path(__file__).parent / "neon/driver.c": []}
    objects = [str(folder / f"{source.stem}.o") for source in sources]
    begun = [
        subprocess.Popen([GCC, *flags, *more, "-c", str(source), "-o", object])
        for (source, more), object in zip(sources.items(), objects, strict=True)
    ]
    assert [process.wait() for process in begun] == [0] * len(begun)
    program = str(folder / "driver")
    no_others = [] if ALL else ["-no-pie", "-Wl,--defsym=ref_engine_baseline=0"]  # a table that is not there
    subprocess.run([GCC, "-fopenmp", *no_others, *objects, "-lm", "-o", program], check=True)
    return [QEMU, "-L", "/usr/aarch64-linux-gnu", program]


@pytest.fixture(scope="module", params=["neon", "baseline"] if ALL else ["neon"])
def emulator(request: pytest.FixtureRequest, driver: list[str]) -> Iterator[Emulator]:
    process = Emulator(driver, request.param)
    yield process
    process.close()


@pytest.fixture
def kernels(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> EmulatedKernels:
    classes, functions = (
        ("Stack", "Map", "FfnHalf", "AttentionHalf"),
        ("activate", "causal_conv", "gated_delta_rule", "ssm_scan"),
    )
    names = {name: getattr(emulated, name) for name in classes + functions}
    there = SimpleNamespace(**{**vars(native), **names})
    monkeypatch.setattr(halves, "native", there)
    monkeypatch.setattr(moe, "native", there)
    monkeypatch.setattr(recurrent, "native", there)
    return EmulatedKernels(Table(emulator), 2)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def drawn(make_weight: Callable[..., Weight]) -> Callable[[str], Drawn]:
    """Anew: what is kept with the weights of the other tests is for the processor that is here."""
    made: dict[str, Drawn] = {}

    def draw(name: str) -> Drawn:
        if name not in made:
            made[name] = _draw(CASES[name], make_weight)
        return made[name]

    return draw


def test_loops_of_the_ceilings(emulator: Emulator) -> None:
    """dots_alone: eight sums that begin at 0 .. 7, each of n quads of 3 times four of -+1 .. 8 in each of 16 lanes.

    They are added in fours, which are the same each time.
    """
    data = np.random.default_rng(0).integers(0, 256, 4096, np.uint8)
    sums = np.empty(2, np.int32)
    emulator.call("ceilings", [16], (), [data], [sums])
    assert sums[0] == 16 * 28 + 16 * 3 * 4 * sum_of_quads(4)
    lanes = np.bitwise_or.reduce(data.view(np.int32).reshape(-1, 16), axis=0)
    assert sums[1] == lanes.sum(dtype=np.int32)


def sum_of_quads(n: int) -> int:
    x = [1, -2, 3, -4, 5, -6, 7, -8, *[0] * 24]
    return sum(sum(x[4 * i % 16 :][: 4 * n]) for i in range(8))
