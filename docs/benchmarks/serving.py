"""What the server costs beside the model: `python docs/benchmarks/serving.py`, from a checkout, on Linux.

    tokens     each token: in process and over HTTP in turn, on the model and on one that computes next to nothing
    first      the first token: the same
    clients    1 and 8 streams at once: tokens per second in all
    kill       4 of 8 streams are cut: how long until their slots are free, in steps of the eight

Clocks need a quiet machine. Processor time (user and system of all threads, from /proc) needs it less. Everything is
done in turn and several times; what is printed are medians, and ratios of medians.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from bigram import write_bigram  # noqa: E402 - tests/bigram.py, a model that can be worked out by hand

PARTS = ("tokens", "first", "clients", "kill")
DIALECTS = ("ollama", "openai", "anthropic")
DIGITS = "0"  # what the small model goes on with for ever
STORY = "Tell me a long story about a lighthouse."


def processor_s(pid: int) -> float:
    """Seconds of all threads of a process that are alive."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


# -- the two that are compared ------------------------------------------------------------------------------------


class Remote:
    """`ref-engine serve` in a process of its own, and requests to it over a bare socket's client."""

    def __init__(self, store: str, parallel: int, threads: int, n_ctx: int) -> None:
        command = [sys.executable, "-m", "ref_engine", "serve", "--port", "0", "--quiet", "--parallel", str(parallel)]
        command += ["--threads", str(threads), "--n-ctx", str(n_ctx)]
        self.process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, "REF_ENGINE_MODELS": store}, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        found = re.search(r"http://(.+):(\d+)", self.process.stdout.readline())
        assert found is not None, "the server did not start"
        self.address = (found[1], int(found[2]))

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(30)

    def cpu(self) -> float:
        return processor_s(self.process.pid)

    def stream(self, dialect: str, model: str, prompt: str, n: int) -> Iterator[float]:
        """The times at which the pieces of an answer came; the first item is when the request was sent."""
        path, body = _request(dialect, model, prompt, n)
        connection = http.client.HTTPConnection(*self.address, timeout=120)
        connection.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            sent = time.perf_counter()
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            assert response.status == 200, response.read()
            yield sent
            for line in response:
                if _says(dialect, line):
                    yield time.perf_counter()
        finally:
            connection.close()

    def figure(self, name: str) -> float:
        connection = http.client.HTTPConnection(*self.address, timeout=60)
        connection.request("GET", "/metrics")
        page = connection.getresponse().read().decode()
        connection.close()
        return sum(float(line.split()[-1]) for line in page.splitlines() if line.startswith(name + "{"))


def _request(dialect: str, model: str, prompt: str, n: int) -> tuple[str, str]:
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": prompt}], "stream": True}
    if dialect == "ollama":
        return "/api/chat", json.dumps({**body, "options": {"temperature": 0, "num_predict": n}})
    path = "/v1/chat/completions" if dialect == "openai" else "/v1/messages"
    return path, json.dumps({**body, "temperature": 0, "max_tokens": n})


def _says(dialect: str, line: bytes) -> bool:
    if dialect == "ollama":
        return b'"done":false' in line
    if dialect == "openai":
        return b'"content":"' in line and b'"content":""' not in line
    return b"text_delta" in line


class Local:
    """`generate` in a process of its own, which answers one command at a time."""

    def __init__(self, model: Path, threads: int, n_ctx: int) -> None:
        command = [sys.executable, __file__, "--in-process", str(model), "--threads", str(threads)]
        command += ["--n-ctx", str(n_ctx)]
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(30)

    def run(self, prompt: str, n: int) -> tuple[float, float, float]:
        """Seconds to the first token, and per token by the clock and by the processor."""
        assert self.process.stdin is not None and self.process.stdout is not None
        print(json.dumps([prompt, n]), file=self.process.stdin, flush=True)
        first, clock, cpu = json.loads(self.process.stdout.readline())
        return first, clock, cpu


def in_process(path: Path, threads: int, n_ctx: int) -> None:
    """The other end of `Local`: the same prompt, template and filters as the server's, without a server."""
    from ref_engine import load
    from ref_engine.generate import generate
    from ref_engine.sample import SamplingParams
    from ref_engine.text.chat import ChatTemplate

    model = load(path, n_threads=threads, n_ctx=n_ctx)
    tokens = model.tokenizer.vocab.tokens
    bos, eos = (
        tokens[i] if i is not None else "" for i in (model.tokenizer.vocab.bos_id, model.tokenizer.vocab.eos_id)
    )
    template = ChatTemplate(model.chat_template or "", bos, eos)
    for line in sys.stdin:
        prompt, n = json.loads(line)
        began = time.perf_counter()
        text = template.render([{"role": "system", "content": ""}, {"role": "user", "content": prompt}])
        ids = model.tokenizer.encode(text, add_special=False)
        events = generate(model, ids, params=SamplingParams(temperature=0), max_tokens=n)
        next(events)
        first, cpu = time.perf_counter(), processor_s(os.getpid())
        count = sum(1 for _ in events) or 1
        ended = time.perf_counter()
        print(
            json.dumps([first - began, (ended - first) / count, (processor_s(os.getpid()) - cpu) / count]), flush=True
        )


# -- the parts ----------------------------------------------------------------------------------------------------


def tokens(name: str, prompt: str, n: int, remote: Remote, local: Local, repeats: int) -> None:
    """Per token, in microseconds; what a token costs is the difference between answers of n and of n / 10 tokens,
    so that what a request costs once does not count."""
    found: dict[str, list[tuple[float, float]]] = {dialect: [] for dialect in ("in process", *DIALECTS)}
    for _ in range(repeats):
        _, clock, cpu = local.run(prompt, n)
        found["in process"].append((clock, cpu))
        for dialect in DIALECTS:
            found[dialect].append(_per_token(remote, dialect, name, prompt, n))
    base = [statistics.median(values) for values in zip(*found["in process"], strict=True)]
    for dialect, pairs in found.items():
        clock, cpu = (statistics.median(values) for values in zip(*pairs, strict=True))
        print(
            f"tokens   {name:8} {dialect:10} clock {clock * 1e6:8.0f} us/token ({_more(clock, base[0])})"
            f"   processor {cpu * 1e6:8.0f} us/token ({_more(cpu, base[1])})"
        )


def _per_token(remote: Remote, dialect: str, name: str, prompt: str, n: int) -> tuple[float, float]:
    figures = []
    for count in (max(n // 10, 1), n):
        cpu = remote.cpu()
        times = list(remote.stream(dialect, name, prompt, count))
        figures.append((len(times) - 1, times[-1] - times[1], remote.cpu() - cpu))
    (few, short, low), (many, long, high) = figures
    return (long - short) / (many - few), (high - low) / (many - few)


def _more(value: float, base: float) -> str:
    return f"{(value / base - 1) * 100:+6.1f} %"


def first(name: str, prompt: str, remote: Remote, local: Local, repeats: int) -> None:
    found: dict[str, list[float]] = {dialect: [] for dialect in ("in process", *DIALECTS)}
    for i in range(repeats):
        asked = f"{chr(97 + i % 26)}{i} {prompt}"  # nothing of it is in a cache
        found["in process"].append(local.run(asked, 1)[0])
        for dialect in DIALECTS:
            sent, came, *_ = remote.stream(dialect, name, f"{dialect}{asked}"[-len(asked) :], 2)
            found[dialect].append(came - sent)
    base = statistics.median(found["in process"])
    for dialect, seconds in found.items():
        middle, best = statistics.median(seconds), min(seconds)
        print(
            f"first    {name:8} {dialect:10} median {middle * 1e3:6.2f} ms ({(middle - base) * 1e3:+.2f} ms)"
            f"   best {best * 1e3:6.2f} ms"
        )


def clients(name: str, remote: Remote, repeats: int, n: int = 64) -> None:
    alone, together, last = [], [], []
    for _ in range(repeats):
        alone.append(_speed(name, remote, 1, n)[0])
        speed, slowest = _speed(name, remote, 8, n)
        together.append(speed)
        last.append(slowest)
    one, eight = statistics.median(alone), statistics.median(together)
    print(
        f"clients  {name:8} one {one:6.1f} tokens/s   eight {eight:6.1f} tokens/s   ratio {eight / one:.2f}"
        f"   last of the eight to begin {statistics.median(last):.2f} s"
    )


def _speed(name: str, remote: Remote, count: int, n: int) -> tuple[float, float]:
    """Tokens per second from the first token of any to the last of any, and seconds until all had begun."""
    times: list[list[float]] = [[] for _ in range(count)]

    def read(i: int) -> None:
        times[i] = list(remote.stream("ollama", name, f"{i}: {STORY}", n))

    threads = [threading.Thread(target=read, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    begun, ended = min(t[1] for t in times), max(t[-1] for t in times)
    return (sum(len(t) - 1 for t in times) - 1) / (ended - begun), max(t[1] - t[0] for t in times)


def kill(name: str, remote: Remote, repeats: int) -> None:
    """The server's own figure says when a slot is free; asking for it takes a millisecond or two."""
    waits, steps = [], []
    for _ in range(repeats):
        streams = [remote.stream("ollama", name, f"{i}: {STORY}", 2000) for i in range(8)]
        threads = [threading.Thread(target=lambda s=s: [next(s) for _ in range(3)]) for s in streams]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        times = [next(streams[-1]) for _ in range(9)]
        assert remote.figure("ref_engine_active") == 8
        for stream in streams[:4]:
            stream.close()
        cut = time.perf_counter()
        while remote.figure("ref_engine_active") > 4:
            assert time.perf_counter() < cut + 30
        waits.append(time.perf_counter() - cut)
        steps.append((times[-1] - times[0]) / 8)
        for stream in streams[4:]:
            stream.close()
        while remote.figure("ref_engine_active"):
            time.sleep(0.01)
    wait, step = statistics.median(waits), statistics.median(steps)
    print(f"kill     {name:8} slots free after {wait * 1e3:.0f} ms; a step of eight takes {step * 1e3:.0f} ms")


# -- all of it ----------------------------------------------------------------------------------------------------


@contextmanager
def both(store: str, path: Path, name: str, threads: int, n_ctx: int) -> Iterator[tuple[Remote, Local]]:
    remote, local = Remote(store, 8, threads, n_ctx), Local(path, threads, n_ctx)
    try:
        local.run("0", 2)
        for dialect in DIALECTS:  # the model is loaded, code and pages are warm
            list(remote.stream(dialect, name, "0", 4))
        yield remote, local
    finally:
        remote.close()
        local.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (all)")
    parser.add_argument("--model", default="smollm2", help="a name of the store, or a file (smollm2)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--n-ctx", type=int, default=2048)
    parser.add_argument("--in-process", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.in_process is not None:
        in_process(given.in_process, given.threads, given.n_ctx)
        return
    unknown = [part for part in given.parts if part not in PARTS]
    if unknown:
        parser.error(f"no part is called {unknown[0]}")

    from ref_engine.library import Store

    parts = given.parts or PARTS
    large = Store().resolve(given.model)
    with tempfile.TemporaryDirectory() as folder:
        small = write_bigram(Path(folder) / "small.gguf", n_ctx=50_000)
        store = Store(Path(folder) / "models")
        store.add_file("small", small)
        store.add_file("large", large)
        if "tokens" in parts or "first" in parts:
            with both(str(store.root), small, "small", given.threads, 20_000) as (remote, local):
                if "tokens" in parts:
                    tokens("small", DIGITS, 2000, remote, local, given.repeats)
                if "first" in parts:
                    first("small", DIGITS, remote, local, 12 * given.repeats)
        with both(str(store.root), large, "large", given.threads, given.n_ctx) as (remote, local):
            if "tokens" in parts:
                tokens("large", STORY, 120, remote, local, given.repeats)
            if "first" in parts:
                first("large", STORY, remote, local, 2 * given.repeats)
            if "clients" in parts:
                clients("large", remote, given.repeats)
            if "kill" in parts:
                kill("large", remote, given.repeats)


if __name__ == "__main__":
    main()
