"""Types of the compiled module; what each does is said in _native.pyx."""

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]

BLOCK_KINDS: tuple[str, ...]
PLAIN_KINDS: tuple[str, ...]
GLU_KINDS: tuple[str, ...]
ISAS: tuple[str, ...]
HAS_OPENMP: bool

def compiled_isas() -> tuple[str, ...]: ...
def cpu_isas() -> tuple[str, ...]: ...

class Packed:
    kind: int
    rows: int
    columns: int
    nbytes: int
    def __init__(self, type: str, data: NDArray[np.uint8], rows: int, columns: int, n_threads: int) -> None: ...

class Table:
    name: str
    def __init__(self, isa: str) -> None: ...
    def linears(self, x: F32, maps: list[tuple[Packed, F32]], n_threads: int) -> None: ...
    def plain(self, x: F32, data: NDArray[np.uint8], type: str, y: F32, n_threads: int) -> None: ...
    def rms_norm(self, x: F32, weight: F32 | None, eps: float, y: F32, n_threads: int) -> None: ...
    def rope(self, x: F32, cos: F32, sin: F32, adjacent: bool, y: F32, n_threads: int) -> None: ...
    def attend(
        self,
        q: F32,
        k: NDArray[np.uint8],
        v: NDArray[np.uint8],
        half: bool,
        positions: NDArray[np.int64],
        scale: float,
        window: int,
        cap: float,
        inverse_cap: float,
        out: F32,
        n_threads: int,
    ) -> None: ...
    def glu(self, activation: str, gate: F32, up: F32, y: F32, n_threads: int) -> None: ...
    def soft_cap(self, x: F32, inverse_cap: float, cap: float, y: F32, n_threads: int) -> None: ...
