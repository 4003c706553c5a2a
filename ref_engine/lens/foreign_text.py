"""What llama.cpp's `llama-eval-callback` and `llama-debug --verbose` print: every node, its corners and its sum.

A node begins with a line `common_debug_cb_eval: NAME = (f32) OP(SRC{ne}, SRC{ne}}) = {ne}` (older: `ggml_debug:`), ne
being the four sizes, fastest first. Of each of the first three axes that is longer than six, three entries at both ends
are printed, with `...` between them; then the sum of all entries (common/debug.cpp).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ref_engine.errors import RefEngineError
from ref_engine.lens.dump import Dump, Facts, Printed, Tensor
from ref_engine.tracing import by_key, token_axis

_NODE = re.compile(
    r"(?:common_debug_cb_eval|ggml_debug):\s+(?P<name>\S.{0,200}?) = \((?P<type>\w+)\)\s+(?P<op>[\w ]{1,40}?)"
    r"\((?P<sources>.{0,600})\) = \{(?P<ne>\d{1,12}(?:, \d{1,12}){3})\}"
)
_VALUES = re.compile(r"\[([^\[\]]*)\]")
_SUM = re.compile(r"sum = (\S+)")
_NUMBER = re.compile(r"[-+]?(?:nan|inf(?:inity)?|\d+(?:\.\d*)?(?:e[-+]?\d+)?)", re.IGNORECASE)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_COUNT = re.compile(r"number of input tokens = (\d{1,9})")
_ID = re.compile(r"^(?:\S+ I )?\s{1,8}(\d{1,9})$")
_EACH = re.compile(r"\((\d{1,9})\) ")
_IDS = re.compile(r"Token ids \((\d{1,9})\):")
EDGE = 3
_RESOLUTION = 5.1e-5  # of a number with four digits after the point


@dataclass
class _Node:
    name: str
    op: str
    ne: tuple[int, ...]
    values: list[float] = field(default_factory=list)
    total: float | None = None


def is_eval_callback(start: str) -> bool:
    """Whether text, from the start of a file, is such a log."""
    return _NODE.search(start) is not None


def open_eval_callback(path: Path) -> Dump:
    """Raises RefEngineError for a log without nodes, or a node whose numbers do not fit its sizes."""
    tokens: list[int] = []
    nodes = list(_nodes(path, tokens))
    if not nodes:
        raise RefEngineError(f"{path}: no node of a graph is printed in it")
    graphs = _graphs(nodes)
    tensors: dict[str, Tensor] = {}
    for number, graph in enumerate(graphs):
        for node in graph.values():
            whole = number == len(graphs) - 1 and node is nodes[-1]
            tensor = _tensor(node, path, may_be_cut=whole)
            if tensor is not None:
                before = tensors.get(node.name)
                tensors[node.name] = tensor if before is None else _joined(before, tensor)
    facts = Facts(engine="llama.cpp", tokens=tuple(tokens) or None)
    return Dump(str(path), tensors, facts)


def _nodes(path: Path, tokens: list[int]) -> Iterator[_Node]:
    """The nodes as they come. Token ids go to `tokens` where the log has them."""
    node: _Node | None = None
    wanted, pieces = 0, ""
    with path.open(encoding="utf-8", errors="replace") as lines:
        for raw in lines:
            line = _COLOUR.sub("", raw.rstrip("\n"))
            if head := _NODE.search(line):
                if node is not None:
                    yield node
                ne = tuple(int(n) for n in head["ne"].split(", "))
                node = _Node(head["name"].strip(), head["op"].strip(), ne)
            elif node is not None and (total := _SUM.search(line)):
                node.total = _number(total[1], path)
            elif node is not None and node.total is None and (row := _VALUES.search(line)):
                node.values += [_number(n, path) for n in row[1].split(",") if n.strip(" .")]
            elif count := _COUNT.search(line):
                wanted = int(count[1])
            elif wanted and len(tokens) < wanted and (id := _ID.match(line)):
                tokens.append(int(id[1]))
            elif count := _IDS.search(line):
                wanted, pieces = int(count[1]), " "
            elif pieces and not tokens:
                pieces += line + "\n"
                found = _EACH.findall(pieces)
                tokens += [int(i) for i in found] if len(found) == wanted else []
    if wanted != len(tokens):
        tokens.clear()
    if node is not None:
        yield node


def _number(text: str, path: Path) -> float:
    text = text.strip()
    if not _NUMBER.fullmatch(text):
        raise RefEngineError(f"{path}: {text[:40]!r} is not a number")
    return float(text)


def _graphs(nodes: list[_Node]) -> list[dict[str, _Node]]:
    """The nodes of each pass; of several with one name the last, which is the finished value.

    A graph begins anew where its first node comes again. Views, numbered nodes and the cache's rows are left out.
    """
    first = (nodes[0].name, nodes[0].op)
    graphs: list[dict[str, _Node]] = []
    for node in nodes:
        if (node.name, node.op) == first or not graphs:
            graphs.append({})
        if " (" not in node.name and not node.name.startswith(("node_", "leaf_", "cache_")):
            graphs[-1].pop(node.name, None)
            graphs[-1][node.name] = node
    return graphs


def _tensor(node: _Node, path: Path, may_be_cut: bool) -> Tensor | None:
    """A node as a tensor, slowest axis first; None for one without numbers, and for the last one of a log cut off."""
    shape = node.ne[::-1]
    kept = tuple(_kept(n, whole=axis == 0) for axis, n in enumerate(shape))
    expected = math.prod(len(k) for k in kept)
    if not node.values or not math.prod(shape):
        return None
    if len(node.values) != expected:
        if may_be_cut:
            return None
        raise RefEngineError(f"{path}: {node.name} of sizes {node.ne} has {len(node.values)} numbers, not {expected}")
    values = np.array(node.values).reshape([len(k) for k in kept])
    total = node.total
    if expected < math.prod(shape) and total is not None and abs(total - values.sum()) <= _RESOLUTION * expected:
        total = None  # older programs added up only what they printed
    return Tensor(node.name, shape, None, Printed(kept, values, total, _RESOLUTION))


def _kept(n: int, whole: bool) -> tuple[int, ...]:
    return tuple(range(n)) if whole or n <= 2 * EDGE else (*range(EDGE), *range(n - EDGE, n))


def _joined(before: Tensor, after: Tensor) -> Tensor:
    """The rows of two passes, one behind the other; the later alone where nothing but the name is common."""
    a, b = before.printed, after.printed
    if a is None or b is None:
        return after
    axis = len(after.shape) - (3 if _three(after.shape) else 2) + token_axis(after.name)
    others = [i for i in range(len(after.shape)) if i != axis]
    if by_key(after.name) or any(before.shape[i] != after.shape[i] for i in others):
        return after
    n = before.shape[axis]
    kept = tuple((*a.kept[i], *(n + k for k in b.kept[i])) if i == axis else b.kept[i] for i in range(len(b.kept)))
    total = None if a.total is None or b.total is None else a.total + b.total
    shape = tuple(n + s if i == axis else s for i, s in enumerate(after.shape))
    printed = Printed(kept, np.concatenate([a.values, b.values], axis=axis), total, b.resolution)
    return replace(after, shape=shape, printed=printed)


def _three(shape: tuple[int, ...]) -> bool:
    return len(shape) >= 3 and shape[-3] > 1
