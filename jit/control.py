"""Loops and branches: their bodies are lowered once, to launches that the native runner repeats or chooses (`jit.runtime`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hybrid.control import parts_of
from hybrid.graph import Equation, Graph, Literal, Value
from ndarray.dims import Size

from .launch import Branch, Carried, Launch, Loop, Moving, Step, Storage, written_by
from .nodes import volume

if TYPE_CHECKING:
    from .fuse import Group
    from .lower import _Lowerer

__all__ = ["lower_control"]

REPEATED = 64
"""How often a step's constants are taken to be read: it decides whether a packed form of them is made before the loop."""


def lower_control(outer: _Lowerer, group: Group) -> list[Step]:
    """The steps of a loop or branch, with what has to be done before and after it."""
    (eq,) = group.equations
    before: list[Step] = []
    operands = [outer.operand(a, before) for a in eq.inputs]
    homes = [outer.home[v] if v in outer.home else like(v, "unread") for v in eq.outputs]
    if eq.op.name == "scan":
        steps = _lower_scan(outer, eq, operands, homes)
    else:
        steps = _lower_branch(outer, eq, operands, homes)
    after = [
        outer.copy_storage(home, s, v) for v, home in zip(eq.outputs, homes) if v in outer.results
        for s in outer.results[v] if s is not home
    ]
    return [*before, *steps, *after]


def like(value: Value, name: str) -> Storage:
    """A new storage for a value."""
    return Storage(value.dtype.name, volume(value.shape), name)


def _lower_branch(outer: _Lowerer, eq: Equation, operands: Sequence[Storage], homes: Sequence[Storage]) -> list[Step]:
    then, otherwise = (tuple(_body(outer, eq.attrs[k], operands[1:], homes)) for k in ("then", "otherwise"))
    return [Branch(operands[0], then, otherwise, eq)]


def _lower_scan(outer: _Lowerer, eq: Equation, operands: Sequence[Storage], homes: Sequence[Storage]) -> list[Step]:
    attrs = eq.attrs
    body, condition, count = attrs["body"], attrs.get("condition"), attrs["carried"]
    limit, constants, initial, wholes = parts_of(operands, count, attrs["stacked"], attrs.get("limited", False))
    taken, ends, stacks = (homes[:1] if condition else ()), homes[bool(condition) :][:count], homes[bool(condition) + count :]
    values = body.inputs[len(constants) : len(constants) + count]
    carried = []
    for value, start, home in zip(values, initial, ends):
        current, new, later, other = (like(value, n) for n in ("current", "new", "next", "other"))
        carried.append(Carried(current, new, later, start, home, other))
    slices = [_moving(v, whole) for v, whole in zip(body.inputs[len(constants) + count :], wholes)]
    rows = [_moving(a, whole) for a, whole in zip(body.outputs[count:], stacks)]
    given = [*constants, *[c.current for c in carried]]
    steps = _body(outer, body, [*given, *[m.storage for m in slices]], [*[c.new for c in carried], *[m.storage for m in rows]],
                  len(constants))
    test: Sequence[Step] = ()
    answer = None
    before: list[Step] = []
    if condition is not None:
        answer = Storage("bool", 1, "answer")
        test = _body(outer, condition, given, [answer], len(constants))
        earlier, test = hoist(test, constants, [answer])
        before += earlier
    earlier, steps = hoist(steps, constants, [*[c.new for c in carried], *[m.storage for m in rows]])
    before += earlier
    if condition is not None or limit:  # steps that are not taken
        for value, whole in zip(eq.outputs[len(homes) - len(stacks) :], stacks):
            before.append(outer.copy(Literal(False if value.dtype.kind == "b" else 0, value.dtype), whole))
    loop = Loop(
        attrs["length"], bool(attrs.get("reverse", False)), limit[0] if limit else None, tuple(test), answer,
        taken[0] if taken else None, (*slices, *rows), tuple(carried), tuple(steps), eq,
        0 if condition is not None or limit else _strips(steps, carried),
    )
    return [*before, loop]


def _strips(steps: Sequence[Step], carried: Sequence[Carried]) -> Size:
    """How many strips of rows the body has that can go through all steps each for itself; 0 if there are none."""
    launch = steps[0] if len(steps) == 1 else None
    if not isinstance(launch, Launch):
        return 0
    access = [b.access for b in launch.kernel.buffers if b.access != "scratch"]
    states = {c.current for c in carried}
    own = all(i in launch.own or s not in states for i, s in enumerate(launch.buffers))
    written = {s for s, a in zip(launch.buffers, access, strict=True) if a == "write"}
    return launch.strips if own and written.issuperset(c.new for c in carried) else 0


def _moving(value: Any, whole: Storage) -> Moving:
    size: Size = volume(value.shape)
    return Moving(Storage(value.dtype.name, size, "slice"), whole, size)


def _body(
    outer: _Lowerer, graph: Graph, inputs: Sequence[Storage], outputs: Sequence[Storage], constants: int = 0
) -> list[Step]:
    """The steps of a sub-graph whose arguments and results lie in given storages."""
    from .lower import _Lowerer

    repeated = dict.fromkeys(graph.inputs[:constants], REPEATED)
    return _Lowerer(graph, outer.target, frozenset(), inputs, outputs, repeated).run(lambda launch: None).steps


def hoist(steps: Sequence[Step], constants: Sequence[Storage], results: Sequence[Storage]) -> tuple[list[Step], list[Step]]:
    """(launches that do the same in each step, and need to run once; the others): packing of weights, say."""
    writers: dict[Storage, int] = {}
    for x in steps:
        for s in written_by([x]):
            writers[s.whole] = writers.get(s.whole, 0) + 1
    fixed = set(constants)
    before: list[Step] = []
    left: list[Step] = []
    for x in steps:
        if isinstance(x, Launch):
            access = [b.access for b in x.kernel.buffers if b.access != "scratch"]
            written = [s for s, a in zip(x.buffers, access, strict=True) if a != "read"]
            reads = [s for s, a in zip(x.buffers, access, strict=True) if a == "read"]
            if fixed.issuperset(reads) and all(s.parent is None and writers[s] == 1 and s not in results for s in written):
                fixed.update(written)
                before.append(x)
                continue
        left.append(x)
    return before, left
