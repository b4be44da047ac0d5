"""Map groups around a concatenation of several parts: a loop for each part, instead of a choice among all for each element."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate

from hybrid.graph import Equation, Value
from ndarray.dims import Size, product

from .fuse import Group
from .launch import KernelBuilder, Launch, Storage
from .loopir import INT, Const
from .nest import Axis, bytes_and_work, choose_lane, choose_lanes, collapse, lane_loop, nest, nested_for
from .nodes import Node, hint, same_sizes, volume, walk
from .pull import Pull, Scope
from .scalars import Emitter
from .target import Target

__all__ = ["cut_by", "lower_pieces"]

FEWEST = 3  # parts; a choice between two costs less than a second loop


def cut_by(group: Group) -> Equation | None:
    """The concatenation at whose seams a map group is cut into pieces, if there is one whose rows are many."""
    found = [
        eq for eq in group.equations
        if eq.op.name == "concatenate" and same_sizes(eq.output.shape, group.space) and len(_sizes(eq)) >= FEWEST
        and all(isinstance(n, int) for n in _sizes(eq)) and hint(volume(eq.output.shape[:eq.attrs["axis"]])) >= 2
    ]
    if not found or any(eq.op.name == "random_bits" for eq in group.equations):
        return None
    return max(found, key=lambda eq: len(_sizes(eq)))


def _sizes(eq: Equation) -> list[Size]:
    sizes = [a.shape[eq.attrs["axis"]] for a in eq.inputs]
    return [n for n in sizes if not (isinstance(n, int) and n == 0)]


def lower_pieces(group: Group, cut: Equation, pull: Pull, target: Target, storage: Callable[[Value], Storage],
                 results: dict[Value, list[Storage]]) -> Launch:
    """The kernel of a map group: rows of everything before the axis of `cut`; in each, one loop nest for each part."""
    arena, shape, axis = pull.arena, cut.output.shape, cut.attrs["axis"]
    scope = Scope(pull, group.equations)
    variables = pull.variables("i", shape)
    rows = [Axis(v.args[0], v.args[1]) for v in variables[:axis] if v.op == "var"]
    builder = KernelBuilder()
    em = Emitter(builder, arena, storage)
    em.masked = target.shuffles
    sizes = _sizes(cut)
    pieces: list[tuple[list[Axis], list[Node], Node]] = []
    for k, (start, n) in enumerate(zip(accumulate(sizes, initial=0), sizes)):
        along = arena.var(f"p{k}", n) if n != 1 else arena.size(0)
        index = (*variables[:axis], arena.affine({along: 1}, start) if n != 1 else arena.size(start), *variables[axis + 1:])
        flat = arena.flatten(index, shape)
        places = (index if same_sizes(v.shape, shape) else arena.unflatten(flat, v.shape) for v in group.outputs)
        roots = [*(scope.element(v, at) for v, at in zip(group.outputs, places)), flat]
        axes = [Axis(v.args[0], v.args[1]) for v in (along, *variables[axis + 1:]) if v.op == "var"]
        (axes,), roots = collapse(arena, [axes], roots)
        pieces.append((axes, roots[:-1], roots[-1]))
    cost = sum(hint(product(a.extent for a in axes)) * bytes_and_work(walk(outputs), len(outputs)) for axes, outputs, _ in pieces)

    def row() -> None:
        for axes, outputs, flat in pieces:
            _piece(em, axes, outputs, flat)

    def _piece(em: Emitter, axes: list[Axis], outputs: list[Node], flat: Node) -> None:
        def body() -> None:
            em.store_all([results[v] for v in group.outputs], outputs, flat)

        nodes = list(walk(outputs))
        lanes = choose_lanes(target, nodes, outputs)
        lane = choose_lane(arena, axes, [n.args[1] for n in nodes if n.op == "load"], [flat] * len(outputs), lanes)
        em.push({})
        if lane is None:
            nested_for(em, axes, body)
        else:
            inside = lambda: lane_loop(em, lane, lanes, Const(0, INT), builder.size(lane.extent), target, body)
            nested_for(em, [a for a in axes if a is not lane], inside)
        statements = em.pop()
        em.body.extend(statements)

    tasks = nest(em, rows, None, 1, max(1, cost // 40), target, row)
    work = volume(shape[:axis]) * max(1, cost // 20)
    return builder.launch("pieces", em.blocks[0].statements, "task", tasks, work, equations=tuple(group.equations),
                          note=str(group))
