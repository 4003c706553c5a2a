"""CUDA C run by the processor, thread by thread, so that kernels are tested where there is no GPU.

    kernel = RawModule(code=source).get_function("name")
    kernel((blocks,), (threads,), (array, np.int32(n)), shared_mem=0)

as with CuPy, over NumPy arrays (or arrays that have one as `_host`). A source is compiled by g++ with shim.h in front.
Each array is given to the kernel as a copy with a forbidden page behind it: access outside it is an error, and so are a
misaligned one, a wait that never ends, and an argument of another size. Needs g++ and x86-64.
"""

from emulator.module import EmulatorError, Kernel, RawModule, why_not

__all__ = ["EmulatorError", "Kernel", "RawModule", "why_not"]
