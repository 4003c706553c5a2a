"""The kernels' sources as a compiler of CUDA sees them: without any header, for old devices and new ones."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from ref_engine.gpu import module
from ref_engine.gpu.packed import BLOCKS, PLAIN

TYPES = {"products": [t.name for t in BLOCKS], "plain": [t.name for t in PLAIN], "attention": ["F32", "F16"]}


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="there is no nvcc to compile kernels with")
@pytest.mark.parametrize(("name", "at"), [(name, at) for name in module.SOURCES for at in range(2)])
def test_a_compiler_takes_them(name: str, at: int, tmp_path: Path) -> None:
    types = TYPES.get(name, [""])
    type = types[(at * 5 + 2) % len(types)]
    device = ("sm_75", "sm_90")[at]
    command = ["nvcc", "-x", "cu", "-cubin", f"-arch={device}", "-Werror=all-warnings", *module.options(type)]
    done = subprocess.run(
        [*command, "-o", str(tmp_path / "x.cubin"), "-"], input=module.source(name), text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr[:3000]


def test_each_kernel_is_of_some_source() -> None:
    """No file of cuda/ is left over, and no source asks for headers, which the compiler at run time would not find."""
    folder = Path(module.__file__).parent / "cuda"
    assert {p.stem for p in folder.glob("*.cu")} == set(module.SOURCES)
    for name in module.SOURCES:
        assert "#include" not in module.source(name)
