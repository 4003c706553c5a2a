"""How deep the parts of a grammar refer to each other, as an upper bound.

llguidance compiles by recursion on the C stack and does not watch it: a chain of a few hundred definitions, each naming
the next, ends the process. So a grammar is measured before it is handed over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def depth(weights: Mapping[str, int], edges: Mapping[str, Iterable[str]], start: str) -> int:
    """The most weight that a path from `start` can have on which no node comes twice, or more.

    Nodes that reach each other count together (their strongly connected component), so the bound is easy to find:
    Tarjan's algorithm (1972), on a stack of its own, gives the components last first.
    """
    index: dict[str, int] = {start: 0}
    low = {start: 0}
    stack, on_stack = [start], {start}
    best: dict[str, int] = {}  # of nodes whose component is closed
    work = [(start, iter(list(edges.get(start, ()))))]
    while work:
        node, successors = work[-1]
        for successor in successors:
            if successor not in index:
                index[successor] = low[successor] = len(index)
                stack.append(successor)
                on_stack.add(successor)
                work.append((successor, iter(list(edges.get(successor, ())))))
                break
            if successor in on_stack:
                low[node] = min(low[node], index[successor])
        else:
            work.pop()
            if work:
                parent = work[-1][0]
                low[parent] = min(low[parent], low[node])
            if low[node] == index[node]:
                cut = stack.index(node)
                members = stack[cut:]
                del stack[cut:]
                on_stack.difference_update(members)
                below = max((best.get(s, 0) for m in members for s in edges.get(m, ())), default=0)
                total = below + sum(weights.get(m, 1) for m in members)
                best.update(dict.fromkeys(members, total))
    return best[start]
