"""Map groups: one loop over a space, in which every result of the group is computed and stored."""

from __future__ import annotations

from collections.abc import Callable

from hybrid.graph import Value
from ndarray.dims import Size

from .contraction import bind
from .fuse import Group
from .launch import KernelBuilder, Launch, Storage
from .loopir import INT, Const, For, If, Load, Stmt, Store, Var, apply, ramp
from .nest import Axis, bytes_and_work, choose_lane, choose_lanes, collapse, index_nodes, nest, nested_for
from .nodes import Arena, Node, hint, same, same_sizes, volume, walk
from .pieces import cut_by, lower_pieces
from .pull import Accesses, Pull, Scope
from .scalars import Block, Emitter
from .target import Target
from .turn import transposed

__all__ = ["in_place_pairs", "lower_map", "map_accesses"]

GROUP = 64  # elements that share Philox blocks


def lower_map(group: Group, pull: Pull, target: Target, storage: Callable[[Value], Storage],
              results: dict[Value, list[Storage]]) -> Launch:
    """The kernel of a map group. `results` says into which storages each output goes."""
    cut = cut_by(group)
    if cut is not None:
        return lower_pieces(group, cut, pull, target, storage, results)
    space, outputs, flat = _choose_space(group, pull)
    arena = pull.arena
    index = pull.variables("i", space)
    axes = [Axis(v.args[0], v.args[1]) for v in index if v.op == "var"]
    (axes,), roots = collapse(arena, [axes], [*outputs, flat])
    outputs, flat = roots[:-1], roots[-1]
    nodes = list(walk(outputs))
    lanes = choose_lanes(target, nodes, outputs)
    loads = [n.args[1] for n in nodes if n.op == "load"]
    lane = choose_lane(arena, axes, loads, [flat] * len(outputs), lanes)
    builder = KernelBuilder()
    em = Emitter(builder, arena, storage)
    em.masked = target.shuffles
    cost = bytes_and_work(nodes, len(outputs))
    random = len(axes) == 1 and any(n.op == "mulhi" for n in nodes) and lane is not None and GROUP % lanes == 0

    def body() -> None:
        em.store_all([results[v] for v in group.outputs], outputs, flat)

    outer = [a for a in axes if a is not lane]
    crossing = _crossing_axis(arena, outer, lane, loads)
    length = sum(n.cost for n in nodes)
    unroll = 4 if length <= 8 else 2 if length <= 16 else 1
    if random:
        tasks = _random_nest(em, group, axes[0], lanes, outputs, results, max(1, target.task // GROUP) if target.threads else 256)
    elif crossing is not None and not target.threads:  # a transposition: walk along the cache lines that a vector gathers from
        assert lane is not None
        rest = [a for a in outer if a is not crossing]
        weight = hint(crossing.extent) * max(1, cost // 40)
        worth = target.masked and hint(volume(space)) >= WORTH_TURNING
        turned = [n for n in nodes if worth and n.op == "load" and not n.unsafe and _crosses(arena, crossing, lane, n.args[1])
                  and n.dtype.itemsize * lanes == target.vector_bytes]
        tasks = nest(em, rest, lane, lanes, weight, target, lambda: _cross(em, crossing, lane, lanes, turned, body))
    else:
        tasks = nest(em, outer, lane, lanes if lane else 1, max(1, cost // 40), target, body, unroll)
    work = volume(space) * cost // 20
    pairs = in_place_pairs(builder, nodes, {s: flat for v in group.outputs for s in results[v]}, storage)
    return builder.launch("map", em.blocks[0].statements, "task", tasks, work, in_place=pairs,
                          equations=tuple(group.equations), note=str(group))


WORTH_TURNING = 1 << 14
"""Elements from which on squares are turned in registers: a kernel of four times the size, which gains a microsecond below."""


def _crossing_axis(arena: Arena, outer: list[Axis], lane: Axis | None, loads: list[Node]) -> Axis | None:
    """An axis along which something is contiguous that the lanes stride over."""
    for axis in reversed(outer):
        if lane is not None and hint(axis.extent) >= 8 and any(_crosses(arena, axis, lane, flat) for flat in loads):
            return axis
    return None


def _crosses(arena: Arena, axis: Axis, lane: Axis, flat: Node) -> bool:
    """Whether a position climbs by 1 along `axis`, and by another step along the lanes."""
    terms = {a.args[0]: c for a, c in arena.parts(flat)[0].items() if a.op == "var"}
    return lane.name in terms and not same(terms[lane.name], 1) and same(terms.get(axis.name, 0), 1)


def _cross(em: Emitter, crossing: Axis, lane: Axis, lanes: int, turned: list[Node], body: Callable[[], None]) -> None:
    """The loop along the axis that the lanes cross. Of what `turned` loads, squares are turned in registers: as many vectors
    along that axis as there are lanes, from which `body` then takes its vectors one by one."""
    inner = em.lane_block()
    if inner is None or not turned:
        nested_for(em, [crossing], body)
        return
    builder, extent, block = em.builder, em.builder.size(crossing.extent), em.body
    at, u = Var(builder.fresh("j"), INT), Var(builder.fresh("u"), INT)
    whole = isinstance(crossing.extent, int) and crossing.extent % lanes == 0
    square: list[Stmt] = []
    mask = None if whole else bind(builder, square, apply("lt", ramp(at, 1, lanes), extent), "m")
    squares = []
    last = bind(builder, block, builder.size(lane.extent) - 1)
    for node in turned:
        rows = []
        for i in range(lanes):
            line = apply("min", inner.variables[lane.name] + i, last)
            along = Emitter(builder, em.arena, em.storage)
            along.blocks = [*em.blocks[:-1], Block({lane.name: line, crossing.name: at}, crossing.name, lanes, mask)]
            rows.append(along.emit(node))
            square += along.pop()
        buffer = builder.scratch(node.dtype.name, lanes * lanes)
        square += [Store(buffer, Const(k * lanes, INT), c) for k, c in enumerate(transposed(builder, square, rows))]
        squares.append(Load(buffer, u * lanes, rows[0].type))
    square = [For(builder.fresh("o"), Const(0, INT), Const(1, INT), 1, tuple(square), apart=True)]
    step = em.push({crossing.name: at + u})
    step.memo.update({(node, None): em.let(step, vector, "x") for node, vector in zip(turned, squares)})
    body()
    count = Const(lanes, INT) if whole else apply("min", extent - at, Const(lanes, INT))
    square.append(For(u.name, Const(0, INT), count, 1, tuple(em.pop()), 2))
    block.append(For(at.name, Const(0, INT), extent, lanes, tuple(square)))


def _random_nest(em: Emitter, group: Group, axis: Axis, lanes: int, outputs: list[Node],
                 results: dict[Value, list[Storage]], groups_per_task: int) -> Size:
    """Loops by groups of 64 elements: Philox makes four words a block, and the groups are laid out so that all of them
    are used: with ``i = 64*group + lanes*k + lane`` written out, index arithmetic finds which word a vector takes."""
    builder, arena, n = em.builder, em.arena, axis.extent
    i, g, lane = arena.var(axis.name, n), arena.var("group", (n + (GROUP - 1)) // GROUP), arena.var("lane", lanes)
    parts = []
    for k in range(GROUP // lanes):
        position = arena.affine({g: GROUP, lane: 1}, k * lanes)
        memo: dict[Node, Node] = {}
        parts.append((position, [arena.rebuild(o, lambda x, p=position: p if x is i else None, memo) for o in outputs]))  # type: ignore[misc]

    def write(position: Node, nodes: list[Node]) -> None:
        em.store_all([results[v] for v in group.outputs], nodes, position)

    block, groups = em.blocks[0], (n + (GROUP - 1)) // GROUP
    per_task = builder.size(groups_per_task)
    first = em.let(block, Var("task", INT) * per_task, "first")
    stop = em.let(block, apply("min", first + per_task, builder.size(groups)), "stop")
    full = em.let(block, builder.size(n // GROUP), "full")
    name = builder.fresh("i")
    em.push({"group": Var(name, INT), "lane": Const(0, INT)}, "lane", lanes)
    for part in parts:
        write(*part)
    statements = em.pop()
    block.statements.append(For(name, first, apply("min", stop, full), 1, tuple(statements)))
    em.push({})
    for k, part in enumerate(parts):
        inner = em.push({"group": full, "lane": Const(0, INT)}, "lane", lanes)
        inner.tail = em.let(inner, apply("lt", ramp(full * GROUP + k * lanes, 1, lanes), builder.size(n)), "m")
        write(*part)
        statements = em.pop()
        em.body.extend(statements)
    statements = em.pop()
    block.statements.append(If(apply("lt", full, stop), tuple(statements)))
    return (groups + (groups_per_task - 1)) // groups_per_task


def _choose_space(group: Group, pull: Pull) -> tuple[tuple[Size, ...], list[Node], Node]:
    """Among the shapes of the group's values, the one over which indices need fewest divisions."""
    best = None
    scope = Scope(pull, group.equations)
    tried: list[tuple[Size, ...]] = []
    if any(eq.op.name == "random_bits" for eq in group.equations):
        flat_space = _flat_space(group, scope, pull)
        if flat_space is not None:
            return flat_space
    shapes = [group.space, *(v.shape for eq in group.equations for a in (eq.outputs, eq.inputs) for v in a)]
    for shape in shapes:
        if any(same_sizes(shape, t) for t in tried) or not same(volume(shape), volume(group.space)):
            continue
        tried.append(shape)
        index = pull.variables("i", shape)
        flat = pull.arena.flatten(index, shape)
        where = (index if same_sizes(v.shape, shape) else pull.arena.unflatten(flat, v.shape) for v in group.outputs)
        outputs = [scope.element(v, at) for v, at in zip(group.outputs, where)]
        divisions = index_nodes(walk(outputs))
        if best is None or divisions < best[0]:
            best = divisions, (shape, outputs, flat)
        if divisions == 0 or len(tried) == 4:
            break
    assert best is not None
    return best[1]


def _flat_space(group: Group, scope: Scope, pull: Pull) -> tuple[tuple[Size, ...], list[Node], Node] | None:
    """One loop over all elements, if that leaves no division in what is read: random bits count elements that way."""
    arena, shape = pull.arena, (volume(group.space),)
    (i,) = pull.variables("i", shape)
    outputs = [scope.element(v, arena.unflatten(i, v.shape)) for v in group.outputs]
    reads = [n.args[1] for n in walk(outputs) if n.op == "load"]
    return (shape, outputs, i) if all(n.op in ("affine", "var") for f in reads for n in walk([f])) else None


def map_accesses(group: Group, pull: Pull) -> Accesses:
    """Where a map group stores its results, and all that it loads and where."""
    _, outputs, flat = _choose_space(group, pull)
    return dict.fromkeys(group.outputs, flat), [(n.args[0], n.args[1]) for n in walk(outputs) if n.op == "load"]


def in_place_pairs(builder: KernelBuilder, nodes: list[Node], stored: dict[Storage, Node],
                   storage: Callable[[Value], Storage]) -> tuple[tuple[int, int], ...]:
    """(write, read) buffers of equal elements where everything is read exactly where it is written."""
    reads: dict[Storage, set[Node]] = {}
    for n in nodes:
        if n.op == "load":
            reads.setdefault(storage(n.args[0]), set()).add(n.args[1])
    keys = list(builder._buffers)
    numbers = {key: k for k, key in enumerate(keys)}
    pairs = []
    for out, flat in stored.items():
        for source, flats in reads.items():
            alike = source.dtype == out.dtype and same(source.size, out.size)
            if alike and flats == {flat} and (source, "read") in numbers:
                pairs.append((numbers[out, "write"], numbers[source, "read"]))
    return tuple(pairs)
