"""What the server sends for the page, to browsers and to everybody else."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path
from posixpath import dirname, join, normpath

import pytest
import requests
from browsing import Served

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "app" / "page").rglob("*.*"))
STATIC = [
    p.relative_to(ROOT / "app" / "page").as_posix() for p in FILES if p.suffix in (".html", ".css", ".js", ".svg")
]
CHROMIUM = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"


@pytest.mark.parametrize("accept", [CHROMIUM, "text/html", "TEXT/HTML;q=0.5, */*"])
def test_browsers_get_the_page(small: Served, accept: str) -> None:
    response = small.get("/", Accept=accept)
    assert response.status_code == 200 and response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert response.text.startswith("<!doctype html>") and "Accept" in response.headers["Vary"]


@pytest.mark.parametrize("accept", ["*/*", "", "application/json", "text/*", "text/html;q=0, */*", "text/plain"])
def test_everybody_else_gets_what_clients_of_ollama_look_for(small: Served, accept: str) -> None:
    response = small.get("/", Accept=accept)
    assert (response.status_code, response.text) == (200, "Ollama is running")
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
    with requests.Session() as session:
        session.trust_env = False
        head = session.head(f"{small.url}/", headers={"Accept": accept}, timeout=60)
    assert (head.status_code, head.headers["Content-Length"]) == (200, str(len("Ollama is running")))


@pytest.mark.parametrize("name", STATIC)
def test_files_come_with_their_type_and_a_policy(small: Served, name: str) -> None:
    response = small.get(f"/page/{name}")
    kind = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
    assert response.headers["Content-Type"] == f"{kind[name.rpartition('.')[2]]}; charset=utf-8"
    assert response.content == (ROOT / "app" / "page" / name).read_bytes()
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    again = small.get(f"/page/{name}", **{"If-None-Match": response.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert small.get(f"/page/{name}", **{"If-None-Match": 'W/"else"'}).status_code == 200


@pytest.mark.parametrize(
    "path",
    ["../serve.py", "..%2fserve.py", "%2e%2e/serve.py", "js/../../serve.py", "__init__.py", "js", "js/", "",
     "INDEX.HTML", "/etc/passwd", "%2fetc%2fpasswd", "..\\serve.py", "index.html%00", "css/base.css/"],
)  # fmt: skip
def test_nothing_else_is_there(small: Served, path: str) -> None:
    request = requests.Request("GET", "http://x").prepare()
    request.url = f"{small.url}/page/{path}"  # as it is: requests would tidy it up
    with requests.Session() as session:
        session.trust_env = False
        response = session.send(request, timeout=60)
    assert response.status_code == 404 and "import" not in response.text


def test_modules_import_files_that_are_there_and_nothing_from_elsewhere() -> None:
    linked = re.findall(r'(?:href|src)="/page/([^"]+)"', (ROOT / "app" / "page" / "index.html").read_text())
    found, elsewhere = set(linked), r"https?://(?!www\.w3\.org/2000/svg)"
    for name in STATIC:
        text = (ROOT / "app" / "page" / name).read_text()
        assert not re.search(f"{elsewhere}|innerHTML|outerHTML|insertAdjacentHTML|eval\\(", text), name
        targets = re.findall(r'(?:from |import\()"(\.[^"]+)"', text)
        found |= {normpath(join(dirname(name), target)) for target in targets}
        assert len(text.splitlines()) <= 500, name
    assert found == set(STATIC) - {"index.html"}


def test_a_key_guards_the_endpoints_and_not_the_page(start_server: Callable[..., Served]) -> None:
    served = start_server(api_key="secret")
    assert [served.get(path).status_code for path in ("/", "/page/js/main.js", "/page/icon.svg")] == [200, 200, 200]
    assert [served.get(path).status_code for path in ("/api/tags", "/page", "/pages/x")] == [401, 401, 401]


def test_the_package_carries_them() -> None:
    """setup.py names every file, so that an installed server has the page, too."""
    (call,) = (
        node
        for node in ast.walk(ast.parse((ROOT / "setup.py").read_text()))
        if isinstance(node, ast.keyword) and node.arg == "package_data"
    )
    patterns = ast.literal_eval(call.value)["ref_engine_app.page"]
    folder = ROOT / "app" / "page"
    assert sorted(p.relative_to(folder).as_posix() for pattern in patterns for p in folder.glob(pattern)) == sorted(
        STATIC
    )
