import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest
from loopback import Loopback, Recorder

from ref_engine.library import Store
from ref_engine.library.web import Patience


@pytest.fixture
def server() -> Iterator[Loopback]:
    loopback = Loopback()
    yield loopback
    loopback.close()


@pytest.fixture(autouse=True)
def hermetic(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test sees the user's models, cache, registry, token, proxies or netrc; none waits between retries."""
    for name in ("REF_ENGINE_REGISTRY", "OLLAMA_MODELS", "HF_ENDPOINT", "HF_TOKEN", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("REF_ENGINE_MODELS", str(tmp_path / "default"))
    monkeypatch.setenv("REF_ENGINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(Patience, "pause", lambda self, failures, error: None)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models")


@pytest.fixture
def bar() -> Recorder:
    return Recorder()


@pytest.fixture(scope="session")
def make_gguf(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., bytes]:
    """Bytes of a GGUF file made by the gguf package: 3 x 4 + 5 weights of F32, and `padding` bytes of text."""

    def make(padding: int = 0, **extra: str) -> bytes:
        path = tmp_path_factory.mktemp("gguf") / "model.gguf"
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_1)
        writer.add_chat_template("{{ messages }}")
        for key, value in extra.items():
            writer.add_string(f"test.{key}", value)
        if padding:  # bytes that do not compress, so that wheels have their size too
            noise = np.random.default_rng(padding).integers(0, 256, padding, dtype=np.uint8)
            writer.add_tensor("noise", noise.view(np.int8))
        writer.add_tensor("a", np.ones((3, 4), np.float32))
        writer.add_tensor("b", np.ones(5, np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path.read_bytes()

    return make


@pytest.fixture(scope="session")
def sha() -> Callable[[bytes], str]:
    return lambda data: hashlib.sha256(data).hexdigest()
