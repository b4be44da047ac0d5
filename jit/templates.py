"""Template groups: operands with their fused prologue, results with their fused epilogue, and who makes the kernels."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from importlib import import_module

from hybrid.graph import Atom, Equation, Value

from .fuse import Group
from .hoist import Allowance
from .launch import KernelBuilder, Launch, Position, Sink, Source, Storage
from .loopir import Apply, Expr, Load, Stmt, Type, apply, splat
from .nest import Axis, collapse
from .nodes import Arena, Node, same, walk
from .plain import plain_sink
from .pull import Accesses, Pull, Scope, template_name
from .scalars import Block, Emitter
from .target import Target

__all__ = ["TEMPLATES", "lower_template", "template_accesses"]

TEMPLATES: dict[str, str] = {
    "dot_general": "contract:lower_contraction",
    "dot_integer": "contract:lower_contraction",
    "convolution": "contract:lower_contraction",
    "convolution_data_gradient": "contract:lower_contraction",
    "convolution_weight_gradient": "contract:lower_contraction",
    "attention": "attention:lower_attention",
    "attention_gradient": "attention_gradient:lower_attention_gradient",
    "scatter_add": "scatter:lower_scatter",
    "scatter_along_add": "scatter:lower_scatter",
}
"""Template name -> "module:function" with ``(op_name, attrs, sources, sink, target, equations) -> list[Launch]``; instead of
the sink a list of them, None where nobody reads the result, for an op with several results."""


class InlineEmitter(Emitter):
    """Makes one expression, without statements."""

    def let(self, block: Block, value: Expr, prefix: str = "t") -> Expr:
        return value


def _at(em: Emitter, names: list[str], at: Position) -> None:
    """Give the emitter's outermost block the index variables at a position."""
    block = em.blocks[0]
    block.variables.update({name: i for name, i in zip(names, at.index) if name})
    if at.lanes > 1:
        assert at.axis is not None
        block.lane, block.lanes, block.tail = names[at.axis] or "@", at.lanes, at.mask
        block.variables.setdefault(block.lane, at.index[at.axis])
        if at.mask is not None:
            em.guard = Apply("reduce_or", (at.mask,), Type("bool"))
    else:
        em.guard = at.mask


def make_source(eq: Equation, number: int, scope: Scope, pull: Pull, storage: Callable[[Value], Storage],
                constants: Collection[Atom] = (), shuffles: bool = True, allowance: Allowance | None = None) -> Source:
    """An operand of a template, computed where it is read. `constants` are values that rarely change, `allowance` is for what
    depends on nothing else; `shuffles` is as in `Target`."""
    arena, atom = pull.arena, eq.inputs[number]
    index = pull.variables("i", atom.shape)
    node = scope.element(atom, index)
    names = [v.args[0] if v.op == "var" else "" for v in index]

    def load(builder: KernelBuilder, at: Position) -> Expr:
        em = InlineEmitter(builder, arena, storage)
        em.masked = shuffles
        _at(em, names, at)
        with builder.within(("operand", number)):
            value = em.emit(node)
        if value.type.lanes < at.lanes:
            value = splat(value, at.lanes)
            plain = at.mask is None
        else:
            plain = at.mask is None or isinstance(value, Load)
        return value if plain else apply("select", at.mask, value, 0)

    whole = node.op == "load" and node.args[1] is arena.flatten(index, atom.shape)
    constant = all(x.args[0] in constants for x in walk([node]) if x.op == "load") if constants else False
    steps = arena.parts(node.args[1])[0] if node.op == "load" else {}
    along = next((axis for axis, v in enumerate(index) if isinstance(steps.get(v), int) and steps[v] == 1), None)
    stored = storage(node.args[0]) if whole else None
    allowance = allowance if constant else None
    return Source(atom.shape, atom.dtype.name, load, stored, constant, pull.uses(eq, number), along, allowance)


def _epilogue(group: Group, pull: Pull) -> tuple[Node, list[tuple[Value, Node]]]:
    """(the template's own result at a position, each output of the group there)."""
    arena, result = pull.arena, group.template.outputs[0]
    index = pull.variables("i", result.shape)
    scope = Scope(pull, group.equations, stored=lambda v: v is result)
    loops = [v for v in index if v.op == "var"]
    nodes = []
    for value in group.outputs:
        it = iter(loops)
        place = tuple(arena.size(0) if isinstance(n, int) and n == 1 else next(it) for n in value.shape)
        nodes.append((value, scope.element(value, place)))
    return arena.load(result, index), nodes


def template_accesses(group: Group, pull: Pull) -> Accesses:
    """Where a template group stores its results, one element after the other, and all that it loads and where: None for its
    operands, of which it reads much for each element."""
    eq = group.template
    if len(eq.outputs) > 1 or group.beside:
        return {}, []
    scope = Scope(pull, [e for e in group.equations if e is not eq], stored=lambda v: v in eq.outputs)
    operands = [scope.element(a, pull.variables("i", a.shape)) for a in eq.inputs]
    own, nodes = _epilogue(group, pull)
    loads = [n for n in walk(node for _, node in nodes) if n.op == "load"]
    reads = [(n.args[0], None) for n in walk(operands) if n.op == "load"]
    return dict.fromkeys(group.outputs, own.args[1]), [*reads, *[(n.args[0], n.args[1]) for n in loads]]


def _beside(group: Group, pull: Pull) -> tuple[Node, dict[Node, int], list[tuple[Value, Node]]]:
    """As `_epilogue`, where columns are read in parts: (an output at a position, the loads of the template's result there with
    the number of the part, each output)."""
    arena, result = pull.arena, group.template.outputs[0]
    index = pull.variables("i", group.outputs[0].shape)
    loops = [v for v in index if v.op == "var"]
    scope = Scope(pull, group.equations, stored=lambda v: v is result)
    nodes = []
    for value in group.outputs:
        it = iter(loops)
        nodes.append((value, scope.element(value, tuple(next(it) if n != 1 else arena.size(0) for n in value.shape))))
    width = group.outputs[0].shape[-1]
    loads = {n: arena.parts(n.args[1])[1] // width for n in walk(n for _, n in nodes) if n.op == "load" and n.args[0] is result}
    return arena.load(group.outputs[0], index), loads, nodes


def _in_row(arena: Arena, load: Node, rows: list[Node], column: Node) -> bool:
    """Whether an element is read in the row of the same number of an array of so many rows."""
    shape = tuple([n for n in load.args[0].shape if not (isinstance(n, int) and n == 1)])
    if len(rows) != 1 or len(shape) != 2 or not same(shape[0], rows[0].args[1]):
        return False
    steps, first = arena.parts(load.args[1])
    width, columns = shape[1], column.args[1]
    if not all(isinstance(n, int) for n in (width, columns, first)):
        return False
    return steps == {rows[0]: width, column: 1} and 0 <= first <= width - columns


def make_sink(group: Group, pull: Pull, storage: Callable[[Value], Storage],
              results: dict[Value, list[Storage]], shuffles: bool = True) -> Sink:
    """Where the template's result goes: through the epilogue into the storages of the group's outputs."""
    arena = pull.arena
    result = group.template.outputs[0]
    if group.beside:
        place, loads, nodes = _beside(group, pull)
        index = pull.variables("i", group.outputs[0].shape)
    else:
        place, nodes = _epilogue(group, pull)
        loads = {place: 0}
        index = pull.variables("i", result.shape)
    values = [v for v, _ in nodes]

    def storing(names: list[str], roots: Sequence[Node]) -> Callable[..., list[Stmt]]:
        flat, own, nodes = roots[0].args[1], roots[1 : len(loads) + 1], roots[len(loads) + 1 :]

        def store(builder: KernelBuilder, at: Position, value: Expr | tuple[Expr, ...]) -> list[Stmt]:
            given = value if isinstance(value, tuple) else (value,)
            em = Emitter(builder, arena, storage)
            em.masked = shuffles
            _at(em, names, at)
            for load, part in zip(own, loads.values()):
                em.blocks[0].memo[load, None] = em.let(em.blocks[0], given[part], "v")
            with builder.within("result"):
                results_here = [em.emit(node) for node in nodes]
                for v, expr in zip(values, results_here):
                    for s in results[v]:
                        em.body.append(em.store(s, flat, expr))
            return em.body

        return store

    roots = [place, *loads, *(node for _, node in nodes)]
    axes, joined = collapse(arena, [[Axis(v.args[0], v.args[1]) for v in index if v.op == "var"]], roots)
    left = axes[0]
    if group.beside:
        store = storing([left[0].name if len(left) == 2 else "", left[-1].name], joined)
        rows = [v for v in index if v.op == "var"][:-1]
        reads: dict[Storage, bool] = {}
        for n in walk(n for _, n in nodes):
            if n.op == "load" and n.args[0] is not result:
                home = storage(n.args[0])
                reads[home] = reads.get(home, True) and _in_row(arena, n, rows, index[-1])
        return Sink(result.shape, result.dtype.name, None, matrix=store, beside=group.beside, reads=reads)
    flat = storing([left[0].name], joined) if len(left) == 1 else None
    two = len(left) == 2 and same(left[1].extent, result.shape[-1])
    matrix = storing([a.name for a in left], joined) if two else None
    store = storing([v.args[0] if v.op == "var" else "" for v in index], roots)
    alone = results[result][0] if group.outputs == [result] and len(results[result]) == 1 else None
    return Sink(result.shape, result.dtype.name, store, alone, flat, matrix)


def plain_sinks(group: Group, results: dict[Value, list[Storage]]) -> list[Sink | None]:
    """A sink for each result of a template with several: nothing is fused behind it."""

    def sink(value: Value) -> Sink | None:
        if value not in group.outputs:
            return None
        made = [plain_sink(s, value.shape) for s in results[value]]

        def store(builder: KernelBuilder, at: Position, expr: Expr) -> list[Stmt]:
            return [statement for one in made for statement in one.store(builder, at, expr)]

        return Sink(value.shape, value.dtype.name, store)

    return [sink(v) for v in group.template.outputs]


def lower_template(group: Group, pull: Pull, target: Target, storage: Callable[[Value], Storage],
                   results: dict[Value, list[Storage]], constants: Collection[Atom] = (),
                   allowance: Allowance | None = None) -> list[Launch]:
    """The launches of a template group. `constants` are values that rarely change; see `Allowance`."""
    eq = group.template
    name = template_name(eq)
    if name not in TEMPLATES:
        raise NotImplementedError(f"{eq.op.name}: the compiler has no template {name!r}; known: {', '.join(TEMPLATES)}")
    module, function = TEMPLATES[name].split(":")
    make = getattr(import_module(f".{module}", __package__), function)
    scope = Scope(pull, [e for e in group.equations if e is not eq], stored=lambda v: v in eq.outputs)
    wide = not target.threads
    sources = [make_source(eq, n, scope, pull, storage, constants, wide, allowance) for n in range(len(eq.inputs))]
    sink = make_sink(group, pull, storage, results, wide) if len(eq.outputs) == 1 else plain_sinks(group, results)
    return make(eq.op.name, dict(eq.attrs), sources, sink, target, tuple(group.equations))
