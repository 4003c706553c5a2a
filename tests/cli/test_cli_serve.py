"""serve, ps, stop and create as commands."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from commands import Invoke, environment


@pytest.fixture
def modelfile(tmp_path: Path, bigram: str) -> str:
    path = tmp_path / "Modelfile"
    path.write_text(f"FROM {bigram}\nPARAMETER temperature 0\nPARAMETER num_predict 4\n")
    return str(path)


@pytest.fixture
def server(invoke: Invoke, modelfile: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[str]]:
    """A server in a process of its own with the model "short", to which the commands here speak."""
    assert invoke("create", "short", "-f", modelfile, "-q").exit_code == 0
    command = [sys.executable, "-m", "ref_engine", "serve", "--port", "0", "--threads", "1", "--grace", "1"]
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("listening on http://127.0.0.1:")
        monkeypatch.setenv("REF_ENGINE_HOST", line.removeprefix("listening on ").strip())
        yield process
    finally:
        process.kill()
        process.communicate(timeout=60)


def ask(url: str, **more: object) -> requests.Response:
    body = {"model": "short", "prompt": "a", "raw": True, **more}
    return requests.post(f"{url}/api/generate", json=body, timeout=60)


def test_serve_ps_stop_and_the_end(server: subprocess.Popen[str], invoke: Invoke) -> None:
    import os

    url = os.environ["REF_ENGINE_HOST"]
    assert invoke("ps").stdout.splitlines()[1:] == []
    assert ask(url, stream=False).json()["response"] == "bcde"
    shown = invoke("ps").stdout.splitlines()
    assert shown[0].split() == ["NAME", "ID", "MEMORY", "CONTEXT", "UNTIL"]
    assert shown[1].startswith("short ") and shown[1].endswith("5 minutes") and " 512 " in shown[1]
    assert json.loads(invoke("ps", "--json").stdout)[0]["context_length"] == 512
    assert invoke("stop", "short").exit_code == 0
    while invoke("ps").stdout.splitlines()[1:]:
        pass
    missing = invoke("stop", "nobody")
    assert missing.exit_code == 2 and "nobody" in missing.stderr
    server.send_signal(signal.SIGTERM)
    _, log = server.communicate(timeout=60)
    assert server.returncode == 0
    events = [json.loads(line)["event"] for line in log.splitlines()]
    assert (events[0], events[-1]) == ("listening", "stopped") and "stopping" in events


def test_no_server(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REF_ENGINE_HOST", "127.0.0.1:1")
    result = invoke("ps")
    assert result.exit_code == 2
    assert result.stderr.strip() == "ref-engine: error: no server at http://127.0.0.1:1: `ref-engine serve` starts one"


def test_an_address_that_is_taken(server: subprocess.Popen[str], invoke: Invoke) -> None:
    import os

    result = invoke("serve", "--port", os.environ["REF_ENGINE_HOST"].rpartition(":")[2])
    assert result.exit_code == 2 and "cannot listen on 127.0.0.1:" in result.stderr


@pytest.mark.parametrize(
    ("option", "value"),
    [("--port", "99999"), ("--keep-alive", "soon"), ("--memory", "much"), ("--parallel", "0"), ("--max-body", "-1")],
)
def test_options_out_of_range(invoke: Invoke, option: str, value: str) -> None:
    result = invoke("serve", option, value)
    assert result.exit_code == 2 and len(result.stderr.strip().splitlines()) == 1


def test_create(invoke: Invoke, modelfile: str) -> None:
    made = invoke("create", "mine", "-f", modelfile, "--json", "-q")
    assert json.loads(made.stdout)["name"] == "mine:latest"
    shown = json.loads(invoke("show", "mine", "--json").stdout)
    assert shown["model_parameters"] == {"temperature": 0, "num_predict": 4}
    assert invoke("run", "mine", "a").stdout == "bcde\n"


def test_create_says_what_is_wrong(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "Modelfile").write_text("FROM x\nADAPTER y\n")
    result = invoke("create", "mine", "-f", str(tmp_path / "Modelfile"))
    assert result.exit_code == 2 and "LoRA" in result.stderr
    assert invoke("create", "mine", "-f", str(tmp_path / "none")).exit_code == 2
