"""Types of the compiled quantisers; what each does is said in _quantize.pyx."""

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]

KINDS: tuple[str, ...]
ISAS: tuple[str, ...]
QUANTIZED: int

class Codebook:
    width: int
    def __init__(self, ranks: I32, index_of: I32, start: I32, count: I32, near: I32, bits: int) -> None: ...

def quantize(
    kind: str,
    rows: F32,
    importance: F32 | None,
    grid: Codebook | None,
    values: F32 | None,
    out: NDArray[np.uint8],
    isa: str,
    n_threads: int,
) -> int: ...
