import subprocess
import sys
from pathlib import Path

import pytest
from bigram import write_bigram
from click.testing import CliRunner, Result
from commands import Invoke, Process, environment

from ref_engine.cli import main


@pytest.fixture(autouse=True)
def hermetic(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test sees the user's models."""
    for name in ("REF_ENGINE_REGISTRY", "OLLAMA_MODELS", "OLLAMA_KV_CACHE_TYPE", "REF_ENGINE_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("REF_ENGINE_MODELS", str(tmp_path / "models"))


@pytest.fixture(scope="session")
def bigram(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_bigram(tmp_path_factory.mktemp("bigram") / "bigram.gguf"))


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same model without a chat template."""
    return str(write_bigram(tmp_path_factory.mktemp("base") / "base.gguf", template=None))


@pytest.fixture
def invoke() -> Invoke:
    def call(*args: str, input: str | bytes = b"") -> Result:
        return CliRunner().invoke(main, list(args), input=input)

    return call


@pytest.fixture
def process() -> Process:
    """The command in a process of its own."""

    def call(*args: str, input: bytes = b"", **env: str) -> "subprocess.CompletedProcess[bytes]":
        command = [sys.executable, "-m", "ref_engine", *args]
        return subprocess.run(command, input=input, capture_output=True, env=environment(**env), timeout=120)

    return call
