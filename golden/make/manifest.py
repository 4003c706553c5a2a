"""Rebuild golden/manifest.json from the facts.json files that the generators leave beside their data.

    python golden/make/manifest.py            rewrite the manifest
    python golden/make/manifest.py --check    exit 1 and say what differs

A facts.json describes the files of its own folder (and of folders below that have none of their own):

    {"made_by": "golden/make/ops.py", "producer": "llama.cpp", "version": "...",
     "files": {"vec_dot_*.npz": {"seed": 1, "tolerance": {"nmse": 1e-12}, "note": "..."}}}

Keys of "files" are globs relative to the folder ("**" crosses folders). An entry may override made_by, producer and
version, and may carry further facts ("note", "measured": numbers); seed is null where nothing is drawn. Every data
file must match exactly one glob.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).resolve().parent.parent
REQUIRED = ("producer", "version", "seed", "tolerance", "made_by")
_OPTIONAL = ("note", "measured")
_NOT_DATA = {"manifest.json", "README.md", "facts.json"}


def data_files(golden: Path) -> list[str]:
    """Paths, relative to golden/, of everything that is data: not generators, not documentation, not facts."""
    found = (p.relative_to(golden) for p in golden.rglob("*") if p.is_file())
    return sorted(
        p.as_posix() for p in found if p.parts[0] != "make" and p.name not in _NOT_DATA and "__pycache__" not in p.parts
    )


def _entries(facts_path: Path, golden: Path) -> dict[str, dict[str, Any]]:
    facts = json.loads(facts_path.read_text(encoding="utf-8"))
    shared = {key: facts[key] for key in REQUIRED if key in facts}
    entries: dict[str, dict[str, Any]] = {}
    for pattern, own in facts["files"].items():
        merged = {**shared, **own}
        missing = [key for key in REQUIRED if key not in merged]
        unknown = sorted(set(merged) - set(REQUIRED) - set(_OPTIONAL))
        if missing or unknown:
            raise ValueError(f"{facts_path.relative_to(golden)}: {pattern}: missing {missing}, unknown {unknown}")
        matches = [p for p in facts_path.parent.glob(pattern) if p.is_file()]
        if not matches:
            raise ValueError(f"{facts_path.relative_to(golden)}: {pattern} matches no file")
        for path in matches:
            name = path.relative_to(golden).as_posix()
            if name in entries:
                raise ValueError(f"{facts_path.relative_to(golden)}: {name} matches two patterns")
            entries[name] = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), **merged}
    return entries


def collect(golden: Path = GOLDEN) -> dict[str, dict[str, Any]]:
    """The manifest as it should be: data file -> facts and sha256. Raises ValueError for a file without facts."""
    entries: dict[str, dict[str, Any]] = {}
    for facts_path in sorted(golden.rglob("facts.json")):
        found = _entries(facts_path, golden)
        twice = sorted(set(found) & set(entries))
        if twice:
            raise ValueError(f"{twice[0]} is described by two facts.json files")
        entries.update(found)
    loose = [name for name in data_files(golden) if name not in entries]
    if loose:
        raise ValueError(f"no facts.json describes {', '.join(loose)}")
    return dict(sorted(entries.items()))


def main() -> int:
    parser = argparse.ArgumentParser(description="rebuild golden/manifest.json")
    parser.add_argument("--out", type=Path, default=GOLDEN, help="the golden folder")
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    args = parser.parse_args()
    text = json.dumps({"files": collect(args.out)}, indent=1, ensure_ascii=False) + "\n"
    target = args.out / "manifest.json"
    if not args.check:
        target.write_text(text, encoding="utf-8")
        return 0
    if target.read_text(encoding="utf-8") == text:
        return 0
    print(
        f"{target}: not what the facts.json files and the data say; run golden/make/manifest.py",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
