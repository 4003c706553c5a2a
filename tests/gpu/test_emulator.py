"""The emulator of CUDA C keeps CUDA's rules: otherwise the kernels that run on it would prove nothing."""

from __future__ import annotations

import numpy as np
import pytest
import standin
from emulator import RawModule, why_not

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())

CODE = r"""
extern "C" __global__ void __launch_bounds__(64) warp_sums(const float *x, float *y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    float v = i < n ? x[i] : 0;
    for (int by = 16; by; by /= 2) v += __shfl_xor_sync(0xffffffffu, v, by);
    if (i < n) y[i] = v;
}
extern "C" __global__ void turned(const float *x, float *y) {
    __shared__ float all[64];
    all[threadIdx.x] = x[blockIdx.y * 64 + threadIdx.x];
    __syncthreads();
    y[blockIdx.y * 64 + threadIdx.x] = all[63 - threadIdx.x];
}
extern "C" __global__ void some_leave(float *y) {
    if (threadIdx.x >= 40) return;
    __syncthreads();
    y[threadIdx.x] = threadIdx.x;
}
extern "C" __global__ void some_never_come(float *y) {
    if (threadIdx.x % 2) y[0] = __shfl_down_sync(0xffffffffu, y[0], 1);
}
extern "C" __global__ void odd_address(const char *x, int *y, int at) { y[0] = load<int4>(x + at).x; }
#define MADE(NAME, BY) extern "C" __global__ void NAME(unsigned *y) { y[threadIdx.x] = threadIdx.x * BY; }
MADE(twice, 2)
MADE(thrice, 3)
"""


def kernel(name: str) -> object:
    return RawModule(code=CODE, options=("-std=c++17",)).get_function(name)


def test_sums_of_warps(cupy: standin.Cupy) -> None:
    x = np.arange(100, dtype=np.float32)
    y = cupy.zeros(100, np.float32)
    kernel("warp_sums")((2,), (64,), (cupy.asarray(x), y, np.int32(100)))
    want = np.pad(x, (0, 28)).reshape(4, 32).sum(axis=1).repeat(32)[:100]
    np.testing.assert_array_equal(y.get(), want)


def test_shared_memory_and_barriers(cupy: standin.Cupy) -> None:
    x = np.random.default_rng(1).standard_normal((3, 64)).astype(np.float32)
    y = cupy.zeros((3, 64), np.float32)
    kernel("turned")((1, 3), (64,), (cupy.asarray(x), y))
    np.testing.assert_array_equal(y.get(), x[:, ::-1])
    z = cupy.zeros(64, np.float32)
    kernel("some_leave")((1,), (64,), (z,))
    np.testing.assert_array_equal(z.get(), np.where(np.arange(64) < 40, np.arange(64), 0))


def test_kernels_of_macros(cupy: standin.Cupy) -> None:
    for name, by in (("twice", 2), ("thrice", 3)):
        y = cupy.zeros(5, np.uint32)
        kernel(name)((1,), (5,), (y,))
        assert y.get().tolist() == [by * i for i in range(5)]


def test_what_is_refused(cupy: standin.Cupy) -> None:
    y = cupy.zeros(64, np.float32)
    with pytest.raises(RuntimeError, match="some_never_come: threads wait for others"):
        kernel("some_never_come")((1,), (32,), (y,))
    kernel("some_leave")((1,), (64,), (y,))  # and all is well after it
    with pytest.raises(RuntimeError, match="odd_address: a load"):
        kernel("odd_address")((1,), (1,), (y, cupy.zeros(1, np.int32), np.int32(4)))
    for grid, block in (((0,), (1,)), ((1, 65536), (1,)), ((1,), (1025,))):
        with pytest.raises(RuntimeError, match="INVALID_VALUE"):
            kernel("some_leave")(grid, block, (y,))
    for args in (
        (y, y, 100),
        (y, y, np.int64(100)),
        (np.zeros(3, np.float32), y, np.int32(1)),
        (y, np.uint64(8), np.int32(1)),
    ):
        with pytest.raises(TypeError, match="of warp_sums is"):
            kernel("warp_sums")((1,), (64,), args)
    with pytest.raises(RuntimeError, match="not found: absent"):
        kernel("absent")
    with pytest.raises(RuntimeError, match="does not compile"):
        RawModule(code="extern nonsense")
