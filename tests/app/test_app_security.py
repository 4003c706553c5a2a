"""Who may call. The lists are those of Ollama (envconfig/config_test.go and server/routes.go)."""

from __future__ import annotations

import re
import socket

import pytest

from ref_engine_app.security import is_local_host, is_loopback, origin_allowed


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:11434", "127.0.0.1", "127.0.0.1:1", "127.9.9.9", "[::1]:11434", "0.0.0.0", "192.168.1.5",
     "10.0.0.1:80", "", "my.local", "x.localhost:9", "box.internal", socket.gethostname()],
)  # fmt: skip
def test_this_machine(host: str) -> None:
    assert is_local_host(host, socket.gethostname())


@pytest.mark.parametrize(
    "host",
    [
        "example.com",
        "example.com:11434",
        "8.8.8.8",
        "localhost.example.com",
        "local",
        "127.0.0.1.nip.io",
        "[2001:4860::1]",
    ],
)
def test_somewhere_else(host: str) -> None:
    assert not is_local_host(host, "box")


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://localhost", True), ("https://localhost:3000", True), ("http://127.0.0.1:8080", True),
        ("http://0.0.0.0", True), ("http://[::1]:5000", True), ("app://obsidian.md", True), ("file://", True),
        ("vscode-webview://x", True), ("tauri://localhost", True), ("http://server:11434", True),
        ("http://example.com", False), ("https://localhost.example.com", False),
        ("http://localhost@example.com", False),
        ("null", False), ("", False), ("javascript:alert(1)", False), ("http://[bad", False),
        ("ftp://localhost", False),
    ],
)  # fmt: skip
def test_origins(origin: str, allowed: bool) -> None:
    assert origin_allowed(origin, "server:11434") is allowed


def test_origins_that_are_set() -> None:
    patterns = [re.compile(r"https://.*\.example\.com")]
    assert origin_allowed("https://a.example.com", "x", patterns)
    assert not origin_allowed("https://example.com.evil.net", "x", patterns)


def test_hosts_are_checked_where_only_this_machine_can_call() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "192.168.1.5", "::", "box.example.com")))
