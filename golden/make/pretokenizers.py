"""The pre-tokenizers that llama.cpp recognises, by hash: ref_engine/convert/vocab/pretokenizers.json.

    LLAMA_CPP=path/to/llama.cpp python golden/make/pretokenizers.py

llama.cpp's converter encodes one text that tells pre-tokenizers apart, and looks the sha256 of the ids up in a list.
"""

from __future__ import annotations

import ast
import json
import os
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def main() -> None:
    source = (Path(os.environ["LLAMA_CPP"]) / "conversion" / "base.py").read_text(encoding="utf-8")
    text = ast.literal_eval(re.search(r"chktxt = ('(?:[^'\\\n]|\\.)*')", source)[1])
    pairs = re.findall(r'chkhsh == "([0-9a-f]{64})":(?:\s*#[^\n]*)*\s*res = "([^"]+)"', source)
    assert len(pairs) == source.count('chkhsh == "')
    names = dict(pairs)  # of a hash that stands twice the later name counts, as it does there
    table = {"text": text, "names": dict(sorted(names.items(), key=lambda item: (item[1], item[0])))}
    path = ROOT / "ref_engine" / "convert" / "vocab" / "pretokenizers.json"
    path.write_text(json.dumps(table, indent=0, ensure_ascii=True) + "\n")
    print(len(names))


if __name__ == "__main__":
    main()
