"""The CUDA sources under a real compiler, with nothing to include, as NVRTC has them from CuPy."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from ref_engine.gpu import module

NVCC = shutil.which("nvcc")
# One type or two of each kind of source: all of them, for three devices, take two minutes
CASES = [
    *(("round", "", "sm_75"), ("experts", "", "sm_80"), ("plain", "BF16", "sm_90")),
    *(("products", "Q3_K", "sm_75"), ("products", "Q4_K", "sm_90")),
    *(("norm", "", "sm_75"), ("elementwise", "", "sm_80"), ("route", "", "sm_90"), ("attention", "u16", "sm_80")),
]


@pytest.mark.skipif(NVCC is None, reason="needs nvcc")
@pytest.mark.parametrize(("name", "type", "arch"), CASES)
def test_sources_compile(name: str, type: str, arch: str, tmp_path: Path) -> None:
    source = tmp_path / "source.cu"
    source.write_text(module.source(name))
    options = ["-std=c++17", "-ftz=true", "-Werror", "all-warnings", *([f"-DTYPE={type}"] if type else [])]
    command = ["nvcc", "-cubin", f"-arch={arch}", *options, "-o", str(tmp_path / "out"), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_source_is_tried() -> None:
    assert {name for name, _, _ in CASES} == set(module.SOURCES)
    assert not any("#include" in module.source(name) for name in module.SOURCES)
