"""Loop nests around kernel bodies: which axes collapse, which one runs along lanes, how tasks are cut."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ndarray.dims import Size, product

from .loopir import INT, Const, Expr, For, If, Let, Stmt, Var, apply, ramp
from .nodes import INT64, Arena, Node, hint, same, walk
from .scalars import Emitter
from .target import Target

__all__ = [
    "Axis", "bytes_and_work", "choose_lane", "choose_lanes", "collapse", "lane_loop", "nest", "nested_for", "unravel",
]


@dataclass(frozen=True)
class Axis:
    """A loop: the name of its index variable and how far it runs."""

    name: str
    extent: Size


def collapse(arena: Arena, classes: list[list[Axis]], roots: list[Node]) -> tuple[list[list[Axis]], list[Node]]:
    """Join neighbouring axes (of one class) wherever every index that uses them uses ``outer * extent + inner``."""
    result = []
    for axes in classes:
        axes = list(axes)
        k = len(axes) - 2
        while k >= 0:
            a, b = axes[k], axes[k + 1]
            va, vb = arena.var(a.name, a.extent), arena.var(b.name, b.extent)
            if all(_together(arena, f, va, vb, b.extent) for f in _forms(roots)):
                joined = Axis(f"{a.name}{b.name}", a.extent * b.extent)
                new = {va: arena.size(0), vb: arena.var(joined.name, joined.extent)}
                memo: dict[Node, Node] = {}
                leaf = lambda n, new=new: n if n.op == "reduced" else new.get(n)
                roots = [arena.rebuild(r, leaf, memo) for r in roots]
                axes[k:k + 2] = [joined]
                k = min(k, len(axes) - 1)
            k -= 1
        result.append(axes)
    return result, roots


def _forms(roots: list[Node]) -> set[Node]:
    """The index forms in an expression: affine nodes and bare variables that something else uses."""
    forms = {r for r in roots if r.op in ("affine", "var")}
    for node in walk(roots):
        if node.op not in ("affine", "reduced"):
            forms.update(c for c in node.children() if c.op in ("affine", "var"))
    return forms


def _together(arena: Arena, form: Node, a: Node, b: Node, extent: Size) -> bool:
    terms, _ = arena.parts(form)
    return same(terms.get(a, 0), terms.get(b, 0) * extent)


def choose_lanes(target: Target, nodes: Iterable[Node], roots: Iterable[Node]) -> int:
    """Vector length for an expression: that of float64 if it computes in that, else of what is read and written."""
    nodes = list(nodes)
    if any(n.dtype.kind == "f" and n.dtype.itemsize == 8 for n in nodes):
        return target.lanes("float64")
    moved = {n.dtype.itemsize for n in nodes if n.op == "load" and n.deps} | {r.dtype.itemsize for r in roots}
    return target.lanes("int64" if moved == {8} else "float32")


def choose_lane(arena: Arena, axes: list[Axis], loads: list[Node], stores: list[Node], lanes: int,
                reduced: frozenset[str] = frozenset()) -> Axis | None:
    """The axis along which most of the memory is contiguous; None if vectors would be nearly empty."""
    best, best_score = None, 0.0
    for axis in axes:
        n = hint(axis.extent)
        if n < 2:
            continue
        full = n / (math.ceil(n / lanes) * lanes)
        score = sum(_stride_score(arena, f, axis.name) for f in loads) + 1.5 * sum(
            _stride_score(arena, f, axis.name) for f in stores)
        score *= full * (0.8 if axis.name in reduced and n < 4 * lanes else 1.0)
        if score >= best_score:
            best, best_score = axis, score
    return best


def _stride_score(arena: Arena, flat: Node, name: str) -> float:
    if name not in flat.deps:
        return 0.9
    terms, _ = arena.parts(flat)
    for atom, c in terms.items():
        if atom.op == "var" and atom.args[0] == name:
            if isinstance(c, int) and c == 1 and not any(name in t.deps for t in terms if t is not atom):
                return 1.0
    return 0.15


def bytes_and_work(nodes: Iterable[Node], stores: int) -> int:
    """Cost of one element in twentieths of a nanosecond: 0.1 ns a byte, 0.05 ns an operation."""
    total = 8 * stores
    for n in nodes:
        total += 2 * n.dtype.itemsize if n.op == "load" else n.cost
    return max(1, total)


def nested_for(em: Emitter, axes: list[Axis], body: Callable[[], None]) -> None:
    """A loop for each axis around `body`, which writes into the innermost block."""
    if not axes:
        body()
        return
    axis = axes[0]
    name = em.builder.fresh("j")
    em.push({axis.name: Var(name, INT)})
    nested_for(em, axes[1:], body)
    statements = em.pop()
    em.body.append(For(name, Const(0, INT), em.builder.size(axis.extent), 1, tuple(statements)))


def nest(em: Emitter, outer: list[Axis], lane: Axis | None, lanes: int, weight: int, target: Target,
         body: Callable[[], None], unroll: int = 1) -> Size:
    """Write the loops of one task around `body` into the task's block; returns the number of tasks.

    `body` is called with a block for each loop, once for full vectors and once for the rest. `weight` is the work for
    one element, in elementary operations, as far as it is known now.
    """
    builder, task = em.builder, Var("task", INT)
    goal = max(1, target.task // max(1, weight))
    rows = product(a.extent for a in outer)
    n: Size = 1 if lane is None else lane.extent
    if lane is not None and (not outer or (hint(rows) < target.tasks and hint(n) > 2 * goal)):
        chunk = max(1, math.ceil(goal / lanes)) * lanes
        chunks = (n + (chunk - 1)) // chunk
        if outer:
            row = builder.parameter(chunks, "chunks")
            em.body.append(Let("row", task // row))
            em.push(unravel(em, Var("row", INT), outer))
            start: Expr = (task % row) * builder.parameter(chunk, "chunk")
        else:
            em.push({})
            start = task * builder.parameter(chunk, "chunk")
        start = em.let(em.blocks[-1], start, "first")
        stop = em.let(em.blocks[-1], apply("min", start + builder.parameter(chunk, "chunk"), builder.size(n)), "stop")
        lane_loop(em, lane, lanes, start, stop, target, body, unroll)
        statements = em.pop()
        em.body.extend(statements)
        return rows * chunks
    if not outer:
        if lane is None:
            body()
        return 1
    depth = 1
    while depth < len(outer) and hint(product(a.extent for a in outer[depth:])) * hint(n) > goal:
        depth += 1
    split, rest = outer[:depth], outer[depth:]
    rows = product(a.extent for a in split)
    per_row = max(1, hint(product(a.extent for a in rest)) * hint(n))
    per_task = max(1, goal // per_row)
    length = builder.parameter(per_task)  # also where it is 1: one kernel for rows of any length
    first = em.let(em.blocks[-1], task * length, "first")
    stop = em.let(em.blocks[-1], apply("min", first + length, builder.parameter(rows, "rows")), "stop")
    em.push({})  # the row's block: its variables are known once they are computed
    em.blocks[-1].variables.update(unravel(em, Var("row", INT), split))

    def inside() -> None:
        if lane is None:
            body()
        else:
            lane_loop(em, lane, lanes, Const(0, INT), builder.size(lane.extent), target, body, unroll)

    nested_for(em, rest, inside)
    em_statements = em.pop()
    em.body.append(For("row", first, stop, 1, tuple(em_statements)))
    return (rows + (per_task - 1)) // per_task


def unravel(em: Emitter, row: Expr, axes: list[Axis]) -> dict[str, Expr]:
    """Index variables of `axes` from a row number; writes their statements into the present block."""
    found: dict[str, Expr] = {}
    rest = row
    for k in range(len(axes) - 1, 0, -1):
        n = em.builder.size(axes[k].extent)
        found[axes[k].name] = em.let(em.blocks[-1], rest % n, "j")
        rest = em.let(em.blocks[-1], rest // n, "q")
    if axes:
        found[axes[0].name] = rest
    return found


def lane_loop(em: Emitter, lane: Axis, lanes: int, start: Expr, stop: Expr, target: Target, body: Callable[[], None],
              unroll: int = 1) -> None:
    """``for lane in range(start, stop)`` by vectors of `lanes`, then what is left: a masked vector, or one by one."""
    extent = lane.extent if isinstance(lane.extent, int) else None
    if lanes == 1:
        _loop(em, lane, 1, start, stop, 1, body, unroll)
        return
    has_main = extent is None or extent >= lanes
    has_tail = extent is None or extent % lanes != 0
    main = start
    if has_main:
        main = stop
        if has_tail:
            main = em.let(em.blocks[-1], start + ((stop - start) // lanes) * lanes, "main")
        _loop(em, lane, lanes, start, main, lanes, body, unroll)
    if not has_tail:
        return
    if not target.masked:
        _loop(em, lane, 1, main, stop, 1, body, 1)
        return
    block = em.push({lane.name: main}, lane.name, lanes)
    block.tail = em.let(block, apply("lt", ramp(main, 1, lanes), stop), "m")
    body()
    statements = em.pop()
    if extent is not None and isinstance(start, Const):
        em.body.extend(statements)  # it is there for certain
    else:
        em.body.append(If(apply("lt", main, stop), tuple(statements)))


def _loop(em: Emitter, axis: Axis, lanes: int, start: Expr, stop: Expr, step: int, body: Callable[[], None],
          unroll: int) -> None:
    name = em.builder.fresh("i")
    em.push({axis.name: Var(name, INT)}, axis.name if lanes > 1 else "", lanes)
    body()
    statements: list[Stmt] = em.pop()
    em.body.append(For(name, start, stop, step, tuple(statements), unroll))


def index_nodes(nodes: Iterable[Node]) -> int:
    """How many divisions of indices an expression contains."""
    return sum(n.op in ("floordiv", "mod") and n.dtype == INT64 for n in nodes)
