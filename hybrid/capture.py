"""Bodies of loops and branches captured as sub-graphs while a function is traced (see `ndarray.control`), and gradients of
the user's own.

A `BodyTracer` stands over the tracer of the function around it. What a body reads from there (parameters, arrays reached by
closure, traced values) is captured in its turn and becomes an argument of the body. An array from outside that a body
writes (running statistics, the state of the random generator) is carried from step to step and written back behind the
loop. What the steps of a loop compute in the same way each time is computed before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ndarray import apply as _apply
from ndarray import precision
from ndarray.apply import apply
from ndarray.array import NDArray, is_literal, literal
from ndarray.autograd import Function, _Differentiating, is_recording, is_training, sum_to
from ndarray.control import check_states, flatten, nest, pair, same_form, same_shapes, scalar, written_argument
from ndarray.dims import Guard, Size
from ndarray.op import ArrayType
from ndarray.operands import as_array

from .control import BRANCH, CUSTOM_GRADIENT, SCAN
from .graph import Atom, Equation, Graph, Literal, Value
from .passes.dce import dce
from .passes.gradient import _FREE
from .trace import Cell, Traced, TraceError, Tracer

__all__ = ["BodyTracer", "capture_branch", "capture_foreach", "capture_function", "capture_while"]


class _Captured:
    """An array from outside: the array there, and its value and cell in the body."""

    __slots__ = ("array", "cell", "node", "root", "value")

    def __init__(self, array: NDArray, value: Value, cell: Cell, root: Cell):
        self.array, self.value, self.cell, self.root, self.node = array, value, cell, root, array._node

    @property
    def written(self) -> bool:
        return self.cell.written and self.cell.atom is not self.value


class BodyTracer(Tracer):
    """Traces a body within the trace of `parent`."""

    def __init__(self, parent: Tracer, name: str):
        super().__init__(name, is_recording())
        self.parent = parent
        self.captured: dict[Any, _Captured] = {}

    def capture(self, array: NDArray) -> Traced:
        """The array in the body; one from outside becomes an argument of the body at its first use."""
        data = array._data
        if type(data) is Traced and data.tracer is self:
            return data
        outer = self.parent.capture(array)  # raises for an array of another trace
        entry = array._node
        key = (id(outer), None if entry is None else (id(entry[0]), entry[1]))
        found = self.captured.get(key)
        if found is None:
            value = Value(outer.read().type, "")
            cell = Cell(value)
            cell.contiguous = outer.parent is None and outer.cell.contiguous
            found = self.captured[key] = _Captured(array, value, cell, outer.cell)
            self.cells[id(found)] = Traced(self, cell, value)
        return self.cells[id(found)]

    def _guard(self, guard: Guard) -> None:
        self.parent._guard(guard)

    def run(self, function: Callable[[], Any]) -> Any:
        """What `function` returns; everything it does is written down here."""
        try:
            with self.under():
                return function()
        finally:
            self.parent.taped |= self.taped
            for c in self.captured.values():
                c.array._node = c.node
            self._check_writes()

    def _check_writes(self) -> None:
        for c in self.captured.values():
            if c.written and any(d.root is c.root for d in self.captured.values() if d is not c):
                raise TraceError(
                    f"{c.cell.written_at}: {self.name} writes an array from outside ({c.value.type}) of which it also reads "
                    f"another view; take the view of it inside (y = x[i]), after the write"
                )

    def check_arguments(self, function: str, where: str) -> None:
        """Raise where the body has written an array that it was given."""
        for cell in self.inputs_of:
            if cell.written:
                raise TraceError(written_argument(function, where, str(cell.written_at)))

    def atoms(self, arrays: Sequence[NDArray]) -> list[Atom]:
        """The values of arrays at the end of the body."""
        return [self.atom(a) for a in arrays]


class _Body:
    """A traced body: what it reads and writes from outside, by key, and its results."""

    def __init__(self, tracer: BodyTracer, results: Sequence[NDArray]):
        self.tracer = tracer
        self.results = tracer.atoms(results)
        self.captured = tracer.captured

    def written(self) -> list[Any]:
        """The keys of the arrays that it writes."""
        return [k for k, c in self.captured.items() if c.written]

    def graph(
        self, constants: Sequence[Any], carried: Sequence[Any], known: dict[Any, _Captured], results: Sequence[Atom]
    ) -> Graph:
        """The sub-graph that takes the arrays of these keys, and then the arguments."""
        inputs = []
        for key in (*constants, *carried):
            c = self.captured.get(key)
            inputs.append(c.value if c is not None else Value(known[key].value.type))
        graph = Graph((*inputs, *self.tracer.inputs), tuple(results), tuple(self.tracer.equations), {}, (), self.tracer.name)
        return dce(graph)

    def after(self, keys: Sequence[Any], inputs: Sequence[Value]) -> list[Atom]:
        """The values of outside arrays when the body is over (of those it does not know: `inputs`)."""
        return [self.captured[k].cell.atom if k in self.captured else v for k, v in zip(keys, inputs)]


def _write_back(known: dict[Any, _Captured], keys: Sequence[Any], values: Sequence[NDArray]) -> None:
    for key, value in zip(keys, values):
        _apply.write(known[key].array, value)


def _types(arrays: Sequence[NDArray]) -> list[ArrayType]:
    return [ArrayType(tuple(a.shape), a.dtype) for a in arrays]


def capture_foreach(
    tracer: Tracer, body: Callable, slices: list[NDArray], form: Any, states: list[NDArray], states_form: Any, length: Size,
    reverse: bool,
) -> tuple[Any, Any]:
    """`ndarray.foreach` as one scan."""
    inner = BodyTracer(tracer, "body")
    carries = [inner.argument(t, s._device) for t, s in zip(_types(states), states)]
    parts = [inner.argument(ArrayType(t.shape[1:], t.dtype), s._device) for t, s in zip(_types(slices), slices)]
    found: dict[str, Any] = {}

    def step() -> None:
        outputs, new = pair("foreach", "body", "(outputs, states)", body(nest(form, parts), nest(states_form, carries)))
        found["outputs"], found["form"] = flatten("foreach", "outputs of body", outputs)
        found["states"] = check_states("foreach", "body", states, states_form, new, "")
        found["none"] = outputs is None
        found["body"] = _Body(inner, [*found["states"], *found["outputs"]])

    inner.run(step)
    inner.check_arguments("foreach", "body")
    results = _emit_scan(found["body"], None, states, slices, length, reverse)
    outputs, last = results[: len(found["outputs"])], results[len(found["outputs"]) :]
    return None if found["none"] else nest(found["form"], outputs), nest(states_form, last)


def capture_while(
    tracer: Tracer, condition: Callable, func: Callable, variables: list[NDArray], form: Any, limit: Size
) -> tuple[Any, Any]:
    """`ndarray.while_loop` as one scan with a condition."""
    inner, test = BodyTracer(tracer, "body"), BodyTracer(tracer, "condition")
    found: dict[str, Any] = {}

    def check() -> None:
        given = [test.argument(t, v._device) for t, v in zip(_types(variables), variables)]
        answer = condition(*nest(form, given))
        found["test"] = _Body(test, [scalar("while_loop", "cond", as_array("while_loop", "cond", answer))])

    def step() -> None:
        given = [inner.argument(t, v._device) for t, v in zip(_types(variables), variables)]
        outputs, new = pair("while_loop", "func", "(outputs, loop_vars)", func(*nest(form, given)))
        found["outputs"], found["form"] = flatten("while_loop", "outputs of func", outputs)
        if isinstance(new, NDArray) and len(variables) == 1:
            new = [new]
        found["states"] = check_states("while_loop", "func", variables, form, new, "")
        found["none"] = outputs is None
        found["body"] = _Body(inner, [*found["states"], *found["outputs"]])

    test.run(check)
    for c in test.captured.values():
        if c.written:
            raise TraceError(f"{c.cell.written_at}: the condition of while_loop writes an array; write it in the body instead")
    test.check_arguments("while_loop", "cond")
    inner.run(step)
    inner.check_arguments("while_loop", "func")
    results = _emit_scan(found["body"], found["test"], variables, [], limit)
    outputs, last = results[: len(found["outputs"])], results[len(found["outputs"]) :]
    return None if found["none"] else nest(found["form"], outputs), nest(form, last)


def _emit_scan(
    body: _Body, condition: _Body | None, states: Sequence[NDArray], slices: Sequence[NDArray], length: Size,
    reverse: bool = False,
) -> list[NDArray]:
    """Apply the scan; returns the outputs, then the states."""
    known = dict(body.captured) if condition is None else {**condition.captured, **body.captured}
    written = body.written()
    constants = [k for k in known if k not in written]
    count = len(states)
    ends = [body.captured[k].cell.atom for k in written]
    graph = body.graph(constants, written, known, [*ends, *body.results])
    arrays = [known[k].array for k in constants]
    test = None if condition is None else condition.graph(constants, written, known, condition.results)
    if test is None:
        arrays, graph = hoist(graph, arrays)
    attrs: dict[str, Any] = {
        "body": graph, "carried": len(written) + count, "stacked": len(slices), "length": length, "reverse": reverse,
    }
    if test is not None:
        attrs["condition"] = test
    results = apply(SCAN, *arrays, *[known[k].array for k in written], *states, *slices, **attrs)
    results = results[1:] if test is not None else results
    _write_back(known, written, results)
    results = results[len(written) :]
    return [*results[count:], *results[:count]]


def hoist(graph: Graph, constants: list[NDArray]) -> tuple[list[NDArray], Graph]:
    """What each step of a body computes from the first inputs, `constants`, alone is computed here and now; returns the
    constants and the body that is left. Views stay inside, where they cost nothing."""
    fixed: set[Atom] = set(graph.inputs[: len(constants)])
    invariant: dict[Value, Equation] = {}
    for eq in graph.equations:
        values = [a for a in eq.inputs if isinstance(a, Value)]
        if values and fixed.issuperset(values) and "effect" not in eq.op.traits:
            fixed.update(eq.outputs)
            invariant.update(dict.fromkeys(eq.outputs, eq))
    staying = [eq for eq in graph.equations if invariant.keys().isdisjoint(eq.outputs)]
    views = _producers(invariant, [*graph.outputs, *[a for eq in staying for a in eq.inputs]], lambda eq: eq.op.name in _FREE)
    read = {*graph.outputs, *[a for eq in (*staying, *views) for a in eq.inputs]}
    wanted = [v for v, eq in invariant.items() if v in read and eq not in views]
    if not wanted:
        return constants, graph
    env: dict[Value, NDArray] = dict(zip(graph.inputs, constants))
    device = constants[0]._device

    def array(atom: Atom) -> NDArray:
        return literal(atom.value, atom.dtype, device) if isinstance(atom, Literal) else env[atom]

    outside = _producers(invariant, wanted, lambda eq: True)
    with precision.use(None):  # the body has its casts
        for eq in (eq for eq in graph.equations if eq in outside):
            found = apply(eq.op, *map(array, eq.inputs), **eq.attrs)
            env.update(zip(eq.outputs, found if isinstance(found, tuple) else (found,), strict=True))
    kept = [v for v in (*graph.inputs[: len(constants)], *wanted) if v in read]
    equations = tuple([eq for eq in graph.equations if eq in views or invariant.keys().isdisjoint(eq.outputs)])
    left = graph.replace(inputs=(*kept, *graph.inputs[len(constants) :]), equations=equations)
    return [env[v] for v in kept], left


def _producers(invariant: dict[Value, Equation], results: Sequence[Atom], follow: Callable[[Equation], bool]) -> set[Equation]:
    """The invariant equations that `results` come from, as far as `follow` agrees."""
    found: set[Equation] = set()
    stack = list(results)
    while stack:
        atom = stack.pop()
        eq = invariant.get(atom) if isinstance(atom, Value) else None
        if eq is not None and eq not in found and follow(eq):
            found.add(eq)
            stack.extend(eq.inputs)
    return found


def capture_function(tracer: Tracer, function: Function, inputs: Sequence[Any]) -> Any:
    """A call of `function`: what its forward does, and behind it the operation that knows its backward."""
    name = type(function).__name__
    arrays = [x for x in inputs if isinstance(x, NDArray)]
    with _Differentiating(False, is_training()):
        results = function.forward(*inputs)
    many = isinstance(results, (tuple, list))
    outs = list(results) if many else [results]
    inner = BodyTracer(tracer, f"{name}_backward")
    inner.recording = False
    cotangents = [inner.argument(t, o._device) for t, o in zip(_types(outs), outs)]
    bodies: list[_Body] = []
    places: list[int] = []

    def backward() -> None:
        gradients = []
        for i, (g, x) in enumerate(zip(function._gradients(cotangents, len(arrays)), arrays)):
            if g is not None:
                places.append(i)
                gradients.append(sum_to(g, tuple(x.shape)))
        bodies.append(_Body(inner, gradients))

    inner.run(backward)
    for c in inner.captured.values():
        if c.written:
            raise TraceError(f"{c.cell.written_at}: {name}.backward writes an array, which can't be a part of a gradient")
    (body,) = bodies
    keys = list(inner.captured)
    gradient = body.graph(keys, [], inner.captured, body.results)
    found = apply(
        CUSTOM_GRADIENT, *arrays, *outs, *[inner.captured[k].array for k in keys],
        gradient=gradient, arguments=len(arrays), results=len(outs), places=tuple(places),
    )
    return type(results)(found) if many else found[0]


def capture_branch(tracer: Tracer, predicate: NDArray, then_func: Callable, else_func: Callable) -> Any:
    """`ndarray.cond` as one branch."""
    sides: list[_Body] = []
    returned: list[tuple[list[NDArray], Any, bool]] = []
    for name, function in (("then_func", then_func), ("else_func", else_func)):
        inner = BodyTracer(tracer, name)

        def side(inner: BodyTracer = inner, name: str = name, function: Callable = function) -> None:
            result = function()
            arrays, form = flatten("cond", f"result of {name}", result)
            returned.append((arrays, form, result is None))
            if len(returned) == 2:
                _check_sides(*returned)
                first = returned[0][0]
                arrays = [a.astype(b.dtype) if is_literal(a) and a.dtype != b.dtype else a for a, b in zip(arrays, first)]
            sides.append(_Body(inner, arrays))

        inner.run(side)
    known = {**sides[1].captured, **sides[0].captured}
    keys = list(known)
    written = list(dict.fromkeys(k for s in sides for k in s.written()))
    graphs = []
    for s in sides:
        graph = s.graph(keys, [], known, [])
        places = dict(zip(keys, graph.inputs))
        ends = s.after(written, [places[k] for k in written])
        graphs.append(dce(graph.replace(outputs=(*ends, *s.results), equations=tuple(s.tracer.equations))))
    results = apply(BRANCH, predicate, *[known[k].array for k in keys], then=graphs[0], otherwise=graphs[1])
    _write_back(known, written, results)
    return None if returned[0][2] else nest(returned[0][1], results[len(written) :])


def _check_sides(then: tuple[list[NDArray], Any, bool], otherwise: tuple[list[NDArray], Any, bool]) -> None:
    if not same_form(then[1], otherwise[1]) or then[2] != otherwise[2]:
        raise ValueError(
            f"cond: then_func returned {len(then[0])} arrays, else_func {len(otherwise[0])}, or nested otherwise; in a traced "
            f"function both return the same structure"
        )
    for i, (a, b) in enumerate(zip(then[0], otherwise[0])):
        if not same_shapes(a.shape, b.shape) or (a.dtype != b.dtype and not is_literal(b)):
            raise ValueError(
                f"cond: result {i} of then_func is {a.dtype.name}[{','.join(map(str, a.shape))}], of else_func "
                f"{b.dtype.name}[{','.join(map(str, b.shape))}]; in a traced function they have the same shape and dtype"
            )
