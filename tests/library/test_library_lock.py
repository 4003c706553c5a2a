import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ref_engine.errors import StoreError
from ref_engine.library.lock import file_lock

_HOLDER = """
import sys
from pathlib import Path
from ref_engine.library.lock import file_lock
with file_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
_COUNTER = """
import sys
from pathlib import Path
from ref_engine.library.lock import file_lock
lock, counter = Path(sys.argv[1]), Path(sys.argv[2])
for _ in range(25):
    with file_lock(lock):
        counter.write_text(str(int(counter.read_text()) + 1))
"""


def test_a_killed_holder_frees_the_lock(tmp_path: Path) -> None:
    lock = tmp_path / "x.lock"
    command = [sys.executable, "-c", _HOLDER, str(lock)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        with pytest.raises(StoreError, match="held by another process"), file_lock(lock, seconds=0):
            pytest.fail("two holders")
        holder.kill()
        holder.wait()
        with file_lock(lock, seconds=10):
            assert lock.exists()
    assert not lock.exists()


def test_processes_that_count_do_not_lose_a_count(tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    command = [sys.executable, "-c", _COUNTER, str(tmp_path / "lock"), str(counter)]
    workers = [subprocess.Popen(command) for _ in range(2)]
    assert [worker.wait(60) for worker in workers] == [0, 0]
    assert counter.read_text() == "50"


def test_threads_exclude_each_other_and_the_waiter_says_so(tmp_path: Path) -> None:
    lock, told = tmp_path / "lock", threading.Event()

    def wait() -> None:
        with file_lock(lock, told.set):
            assert lock.exists()

    with file_lock(lock):
        waiter = threading.Thread(target=wait)
        waiter.start()
        assert told.wait(10) and waiter.is_alive()
    waiter.join(10)
    assert not waiter.is_alive()


def test_a_lock_that_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot lock"), file_lock(tmp_path / "no" / "where"):
        pytest.fail("no such directory")
