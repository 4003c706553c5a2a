"""A parsed template, made to pay: its syntax tree checked against an allow-list and given calls to the meter.

Every block of statements begins with a charge for the nodes it holds, and each item that a loop filter looks
at pays likewise. So nothing runs that was not paid for, and loops and recursion end. Operators that Jinja2
compiles to bare Python (comparisons, ~, slices, subscripts by tuples) become calls of the environment's
metered ones.
"""

from __future__ import annotations

from collections.abc import Iterator

from jinja2 import nodes
from jinja2.visitor import NodeTransformer

from ref_engine.errors import TemplateError
from ref_engine.text.chat.filters import PAID
from ref_engine.text.chat.limits import Limits, text_bytes

STATEMENTS: tuple[type[nodes.Node], ...] = (
    nodes.Template, nodes.Output, nodes.If, nodes.For, nodes.Macro, nodes.CallBlock, nodes.FilterBlock,
    nodes.Assign, nodes.AssignBlock, nodes.With, nodes.Scope, nodes.Break, nodes.Continue,
)  # fmt: skip
EXPRESSIONS: tuple[type[nodes.Node], ...] = (
    nodes.TemplateData, nodes.Const, nodes.Name, nodes.NSRef, nodes.Getattr, nodes.Getitem, nodes.Slice,
    nodes.Call, nodes.Keyword, nodes.Pair, nodes.Filter, nodes.Test, nodes.CondExpr, nodes.Concat,
    nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.Neg, nodes.Pos, nodes.Add, nodes.Sub,
    nodes.Mul, nodes.Div, nodes.FloorDiv, nodes.Mod, nodes.Pow, nodes.List, nodes.Tuple, nodes.Dict,
)  # fmt: skip
# Fields that hold statements; what is in them pays for itself.
_BODIES = ("body", "else_", "elif_")
# Bytes of the objects that a node makes, beside what operators and filters pay for their results.
_LITERAL_BYTES = {
    nodes.List: 128, nodes.Tuple: 128, nodes.Dict: 256, nodes.Pair: 64, nodes.Call: 128, nodes.Filter: 128,
    nodes.For: 512, nodes.Macro: 1024, nodes.CallBlock: 1024,
}  # fmt: skip
_ITEM_BYTES = 16


def check(template: nodes.Template, limits: Limits) -> None:
    """TemplateError for a node that is not on the list, for too many of them, for deep ones; no recursion."""
    count = 0
    stack: list[tuple[nodes.Node, int]] = [(template, 0)]
    while stack:
        node, depth = stack.pop()
        count += 1
        if count > limits.nodes:
            raise TemplateError(f"the source has more than {limits.nodes} syntax nodes")
        if depth > limits.nesting:
            raise TemplateError(f"line {node.lineno}: nested deeper than {limits.nesting}")
        if type(node) not in STATEMENTS and type(node) not in EXPRESSIONS:
            raise TemplateError(f"line {node.lineno}: {type(node).__name__.lower()} is not for chat templates")
        stack.extend((child, depth + 1) for child in node.iter_child_nodes())


def _tick(lineno: int, paid: list[nodes.Node]) -> nodes.Call:
    """A call that pays for these nodes, without the statements inside them."""
    steps, nbytes = _cost(paid)
    return _call("tick", lineno, nodes.Const(steps), nodes.Const(nbytes))


def _call(name: str, lineno: int, *args: nodes.Expr) -> nodes.Call:
    call = nodes.Call(nodes.EnvironmentAttribute(name), list(args), [], None, None)
    call.set_lineno(lineno)
    return call


def _cost(body: list[nodes.Node]) -> tuple[int, int]:
    steps, nbytes = 1, 0
    stack = list(body)
    while stack:
        node = stack.pop()
        steps += 1
        nbytes += _LITERAL_BYTES.get(type(node), 0)
        if isinstance(node, nodes.List | nodes.Tuple):
            nbytes += _ITEM_BYTES * len(node.items)
        if isinstance(node, nodes.TemplateData):
            nbytes += text_bytes(len(node.data), node.data.isascii())
        stack.extend(_paid_outside(node))
    return steps, nbytes


def _paid_outside(node: nodes.Node) -> Iterator[nodes.Node]:
    """The children that run when `node` does, without the statements inside it."""
    if isinstance(node, nodes.If):
        for branch in node.elif_:
            yield branch.test
    yield from node.iter_child_nodes(exclude=_BODIES)


class Rewriter(NodeTransformer):
    """Puts the meter into a checked tree, in place."""

    def visit_block(self, node: nodes.Node) -> nodes.Node:
        """Any node with a body of statements."""
        # Costs are of the template as written, before its parts are replaced.
        defaults = getattr(node, "defaults", [])  # of a macro: evaluated at every call
        ticks = {
            field: _tick(node.lineno, [*getattr(node, field), *(defaults if field == "body" else [])])
            for field in ("body", "else_")
            if field == "body" or getattr(node, field, None)  # an empty loop runs too
        }
        self.generic_visit(node)
        for field, tick in ticks.items():
            getattr(node, field).insert(0, nodes.ExprStmt(tick, lineno=node.lineno))
        return node

    visit_Template = visit_If = visit_Macro = visit_CallBlock = visit_block
    visit_FilterBlock = visit_With = visit_Scope = visit_block

    def visit_AssignBlock(self, node: nodes.AssignBlock) -> nodes.Node:
        self.visit_block(node)
        if node.filter is None:
            node.filter = nodes.Filter(None, PAID, [], [], None, None, lineno=node.lineno)
        return node

    def visit_For(self, node: nodes.For) -> nodes.Node:
        paid = _tick(node.lineno, [node.test]) if node.test is not None else None
        self.visit_block(node)
        if node.test is not None and paid is not None:
            node.test = nodes.And(paid, node.test, lineno=node.lineno)
        return node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        if len(node.ops) == 1:
            op = node.ops[0]
            return _call("compare", node.lineno, nodes.Const(op.op), node.expr, op.expr)
        node.expr = _call("operand", node.lineno, node.expr)
        for op in node.ops:
            op.expr = _call("operand", node.lineno, op.expr)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _call("joined", node.lineno, *node.nodes)

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        if not isinstance(node.arg, nodes.Slice):
            return node
        bounds = [part or nodes.Const(None) for part in (node.arg.start, node.arg.stop, node.arg.step)]
        return _call("cut", node.lineno, node.node, *bounds)

    def visit_Pair(self, node: nodes.Pair) -> nodes.Node:
        self.generic_visit(node)
        if not isinstance(node.key, nodes.Const):
            node.key = _call("key", node.lineno, node.key)
        return node
