"""The emulator itself: exchanges, barriers and memory behave as a device's, and mistakes are seen."""

from __future__ import annotations

import numpy as np
import pytest
from emulator import EmulatorError, RawModule, why_not

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())

SOURCE = """
extern "C" __global__ void sums(const float *x, float *y, int n) {
    float v = threadIdx.x < n ? x[blockIdx.x * n + threadIdx.x] : 0;
    for (int by = 16; by; by /= 2) v += __shfl_xor_sync(~0u, v, by);
    if (threadIdx.x == 0) y[blockIdx.x] = v;
}

extern "C" __global__ void __turned(const int *x, int *y, int synced) {
    extern __shared__ int buffer[];
    __shared__ int offset;
    int n = blockDim.x;
    buffer[threadIdx.x] = x[threadIdx.x];
    if (threadIdx.x == 0) offset = 1000;
    if (synced) __syncthreads();
    y[threadIdx.x] = buffer[n - 1 - threadIdx.x] + offset;
}

extern "C" __global__ void half_wait(int *y) {
    if (threadIdx.x < 5) __syncthreads();
    y[threadIdx.x] = 1;
}

extern "C" __global__ void beyond(const float *x, float *y, int at) { y[threadIdx.x] = x[at]; }
extern "C" __global__ void wide(const float *x, float *y, int at) { y[0] = ((const float4 *)(x + at))->x; }
extern "C" __global__ void past(float *x, int n) { x[n] = 1; }

extern "C" __global__ void votes(const int *x, unsigned *y, int *down) {
    unsigned all = __ballot_sync(~0u, x[threadIdx.x] > 2);
    if (threadIdx.x == 7) y[0] = all;
    down[threadIdx.x] = __shfl_down_sync(~0u, x[threadIdx.x], 3);
    atomicAdd(y + 1, 2u);
    if (threadIdx.x == 0) y[2] = __dp4a(0x01ff7f80, 0x02030405, 10);
}
""".replace("__turned", "turned")


@pytest.fixture(scope="module", params=[False, True], ids=["forwards", "backwards"])
def module(request: pytest.FixtureRequest) -> RawModule:
    return RawModule(code=SOURCE, backwards=request.param)


def test_a_sum_by_shuffles(module: RawModule) -> None:
    x = np.arange(60, dtype=np.float32).reshape(3, 20)
    y = np.zeros(3, np.float32)
    module.get_function("sums")((3,), (32,), (x, y, np.int32(20)))
    np.testing.assert_array_equal(y, x.sum(axis=1))


def test_votes_and_small_instructions(module: RawModule) -> None:
    x, y, down = np.arange(32, dtype=np.int32) % 5, np.zeros(3, np.uint32), np.zeros(32, np.int32)
    module.get_function("votes")((1,), (32,), (x, y, down))
    assert y[0] == sum(1 << i for i in range(32) if i % 5 > 2)
    assert y[1] == 64
    assert y[2].astype(np.int32) == 10 + 1 * 2 + -1 * 3 + 127 * 4 - 128 * 5
    np.testing.assert_array_equal(down, [x[i + 3] if i + 3 < 32 else x[i] for i in range(32)])


def test_a_barrier_and_shared_memory(module: RawModule) -> None:
    x, y = np.arange(70, dtype=np.int32), np.zeros(70, np.int32)
    module.get_function("turned")((1,), (70,), (x, y, np.int32(1)), shared_mem=4 * 70)
    np.testing.assert_array_equal(y, x[::-1] + 1000)


def test_a_missing_barrier_shows(module: RawModule) -> None:
    x, y = np.arange(70, dtype=np.int32), np.zeros(70, np.int32)
    module.get_function("turned")((1,), (70,), (x, y, np.int32(0)), shared_mem=4 * 70)
    assert (y != x[::-1] + 1000).any()


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("half_wait", (np.zeros(32, np.int32),), "5 threads wait at a barrier"),
        ("beyond", (np.zeros(8, np.float32), np.zeros(32, np.float32), np.int32(2000)), "outside an array"),
        ("beyond", (np.zeros(8, np.float32), np.zeros(32, np.float32), np.int32(-3000)), "outside an array"),
        ("beyond", (np.zeros(8, np.float32), np.zeros(8, np.float32), np.int32(0)), "outside an array"),
        ("wide", (np.zeros(8, np.float32), np.zeros(8, np.float32), np.int32(1)), "misaligned"),
        ("past", (np.zeros(7, np.float32), np.int32(7)), "a write behind an array"),
        ("past", (np.zeros(7, np.float32), np.int64(7)), "argument 1 has 8 bytes, expected 4"),
        ("past", (np.zeros(7, np.float32),), "takes 2 arguments, 1 are given"),
        ("none", (), "no kernel none"),
    ],
)
def test_mistakes_are_errors(name: str, args: tuple[object, ...], message: str, module: RawModule) -> None:
    with pytest.raises(EmulatorError, match=message):
        module.get_function(name)((1,), (32,), args)


def test_python_numbers_are_refused(module: RawModule) -> None:
    with pytest.raises(TypeError, match="argument 1 is int"):
        module.get_function("past")((1,), (32,), (np.zeros(8, np.float32), 1))
