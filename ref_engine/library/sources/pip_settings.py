"""Which package index the user's pip is set up for: asked of pip itself, so that what works for pip works
here."""

import ast
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass

from ref_engine.errors import StoreError

_SECTIONS = ("global", "download", ":env:")  # later ones win, as in pip
_DEFAULT = re.compile(r"--index-url <url> .*?\(default (\S+?)\)")


@dataclass(frozen=True)
class IndexSettings:
    """`indexes` are roots of the simple repository API (PEP 503), first the main one; `find_links` are pages
    or directories of files; `cert` is a CA bundle. `pip` is the command that was asked, empty where there is
    none."""

    indexes: tuple[str, ...]
    find_links: tuple[str, ...] = ()
    cert: str | None = None
    pip: tuple[str, ...] = ()


def index_settings() -> IndexSettings:
    """The settings of this interpreter's pip, else of the one on PATH, else of uv's environment variables.

    StoreError if no index can be found out.
    """
    pip, values = _ask_pip()
    if not pip:
        values = _from_environment()
    extra = tuple(values.get("extra-index-url", "").split())
    links = tuple(values.get("find-links", "").split())
    if values.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        return IndexSettings((), links, values.get("cert"), pip)
    main = values.get("index-url") or (_default_index(pip) if pip else "")
    if not main:
        raise StoreError("cannot tell which package index to use: pip is not installed and PIP_INDEX_URL is not set")
    return IndexSettings((main, *extra), links, values.get("cert"), pip)


def parse_config(listing: str) -> dict[str, str]:
    """`pip config list` -> option -> value, the strongest section last: `global.cert='/x'` -> {"cert":
    "/x"}."""
    found: dict[str, dict[str, str]] = {section: {} for section in _SECTIONS}
    for line in listing.splitlines():
        key, equals, text = line.partition("=")
        section, dot, option = key.rpartition(".")
        if equals and dot and section in found:
            try:
                value = ast.literal_eval(text)
            except (ValueError, SyntaxError) as error:
                raise StoreError(f"pip config list: cannot read the value of {key[:80]}") from error
            found[section][option] = str(value)
    return {option: value for section in _SECTIONS for option, value in found[section].items()}


def parse_default_index(help_text: str) -> str:
    """The default that pip's help names for --index-url, or an empty string."""
    match = _DEFAULT.search(" ".join(help_text.split()))
    return match[1] if match else ""


def _default_index(pip: tuple[str, ...]) -> str:
    return parse_default_index(_run(pip, "download", "--help") or "")


def _from_environment() -> dict[str, str]:
    """The same options from the variables of pip and uv, for environments that have no pip."""
    env = os.environ
    values = {
        "index-url": env.get("PIP_INDEX_URL") or env.get("UV_DEFAULT_INDEX") or env.get("UV_INDEX_URL") or "",
        "extra-index-url": env.get("PIP_EXTRA_INDEX_URL") or env.get("UV_EXTRA_INDEX_URL") or "",
        "find-links": env.get("PIP_FIND_LINKS", ""),
        "no-index": env.get("PIP_NO_INDEX", ""),
        "cert": env.get("PIP_CERT", ""),
    }
    return {option: value for option, value in values.items() if value}


def _ask_pip() -> tuple[tuple[str, ...], dict[str, str]]:
    """The pip command that answers, and its configuration; both empty where there is no pip."""
    found = shutil.which("pip")
    for pip in ((sys.executable, "-m", "pip"), (found,) if found else ()):
        listing = _run(pip, "config", "list") if pip and pip[0] else None
        if listing is not None:
            return pip, parse_config(listing)
    return (), {}


def _run(pip: tuple[str, ...], *arguments: str) -> str | None:
    """What a pip command prints, or None if it fails."""
    env = {**os.environ, "COLUMNS": "500", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONIOENCODING": "utf-8"}
    try:
        done = subprocess.run(
            [*pip, *arguments], capture_output=True, timeout=120, env=env, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StoreError(f"pip {arguments[0]}: {type(error).__name__}") from error
    return None if done.returncode else done.stdout.decode("utf-8", "replace")
