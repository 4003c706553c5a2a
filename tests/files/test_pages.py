"""Giving pages back changes no byte, and touches nothing but files that are mapped read-only."""

import mmap
import sys

import numpy as np
import pytest

from ref_engine.files.pages import release

DATA = np.arange(5 << 20, dtype=np.uint32).astype(np.uint8)


def mapped(tmp_path, access):
    path = tmp_path / "data"
    DATA.tofile(path)
    with path.open("r+b") as file:
        return mmap.mmap(file.fileno(), 0, access=access)


@pytest.mark.parametrize(
    ("first", "n"), [(0, 5 << 20), (1, 1), (4095, 2), (3 << 20, 1 << 20), ((5 << 20) - 1, 1), (7, 0)]
)
def test_bytes_stay(tmp_path, first, n):
    data = np.frombuffer(mapped(tmp_path, mmap.ACCESS_READ), np.uint8)
    release(data[first : first + n])
    assert np.array_equal(data, DATA)


@pytest.mark.parametrize("access", [mmap.ACCESS_COPY, mmap.ACCESS_WRITE])
def test_what_was_written_stays(tmp_path, access):
    data = np.frombuffer(mapped(tmp_path, access), np.uint8)
    data[:] = 7
    release(data)
    assert (data == 7).all()


def test_memory_that_is_no_file_stays():
    data = np.full(4 << 20, 7, np.uint8)
    release(data[1:])
    assert (data == 7).all()


@pytest.mark.skipif(sys.platform != "linux", reason="does not apply: the system says not what is in memory")
def test_pages_go(tmp_path):
    data = np.frombuffer(mapped(tmp_path, mmap.ACCESS_READ), np.uint8)
    resident = file_pages()
    assert data.sum(dtype=np.int64) > 0
    assert file_pages() - resident >= 4 << 10  # KiB: all of them but what others let go of
    release(data[: 4 << 20])
    assert file_pages() - resident <= 2 << 10


def file_pages():
    """KiB of mapped files in this process's memory."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssFile"))
