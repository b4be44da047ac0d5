"""Tracing: running a function on stand-ins for arrays, and writing down what it does as a `Graph`.

A `Tracer` is an interpreter pushed over the bottom of the stack. Every operation becomes an equation. Concrete arrays
that an operation meets are captured: they become inputs, by identity. Nothing is written while tracing: a write to an
array updates its `Cell`, the present value of one piece of memory, and cells that were written and live outside become
the state of the graph.

Views follow NumPy. A reshape, transpose, slice or flip of a traced array shares its cell; reading it after a write to
another view of the cell repeats the view on the new value, and a write through it is carried back to the cell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ndarray import apply as _apply
from ndarray import indexing
from ndarray.array import NDArray, is_literal, literal_value, storage_of, wrap
from ndarray.device import Device, current_device
from ndarray.dims import Dim, Guard, Size, evaluate, record_guards
from ndarray.op import OPS, ArrayType, Op

from .backend import Foresight, overlapping
from .graph import Atom, Equation, Graph, Literal, Source, Value
from .source import user_source

__all__ = ["Cell", "LeakedTracerError", "Trace", "TraceError", "Traced", "Tracer", "current_tracer"]


class TraceError(RuntimeError):
    """The function being traced asked for something that is known only when the compiled program runs."""


class LeakedTracerError(RuntimeError):
    """A traced array was used outside the trace that made it."""


class Cell:
    """The present value of one piece of memory during a trace.

    atom    its value now; `version` counts the writes
    origin  the concrete array that is captured, if any; `index` its number among the graph's inputs (arguments too)
    """

    __slots__ = ("atom", "contiguous", "index", "node", "origin", "type", "version", "written_at")

    def __init__(self, atom: Atom, origin: NDArray | None = None, index: int | None = None):
        self.atom, self.type, self.origin, self.index = atom, atom.type, origin, index
        self.version = 0
        self.written_at: Source | None = None
        self.contiguous = origin is None or bool(getattr(origin._data.flags, "c_contiguous", True))
        self.node = None if origin is None else origin._node

    @property
    def written(self) -> bool:
        return self.version > 0


class Traced:
    """What an NDArray holds in a trace: a cell, or a view of another `Traced` by one operation.

    `concretize` is called where Python code asks for the numbers; it raises.
    """

    __slots__ = ("_atom", "_version", "attrs", "cell", "dtype", "op", "parent", "shape", "source", "tracer")

    def __init__(
        self, tracer: Tracer, cell: Cell, atom: Atom, parent: Traced | None = None, op: Op | None = None,
        attrs: dict[str, Any] | None = None, source: Source | None = None,
    ):
        self.tracer, self.cell, self.parent = tracer, cell, parent
        self.op: Any = op  # which makes the view of `parent`, with `attrs`
        self.attrs = attrs or {}
        self.shape, self.dtype, self.source = atom.shape, atom.dtype, source
        self._atom, self._version = atom, cell.version

    @property
    def base(self) -> Traced | None:
        """The array that this is a view of, as NumPy's attribute of that name."""
        return self.parent

    def read(self) -> Atom:
        """The present value, as an atom of the graph."""
        cell = self.cell
        if self.parent is None:
            return cell.atom
        if self._version != cell.version:
            (self._atom,) = self.tracer.emit(self.op, (self.parent.read(),), self.attrs)
            self._version = cell.version
        return self._atom

    def overwrite(self, atom: Atom) -> None:
        """Make `atom` the present value, in the cell too."""
        cell, view, value = self.cell, self, atom
        while view.parent is not None:
            value = _WRITE_BACK[view.op.name](self.tracer, view.parent, value, view.attrs)
            view = view.parent
        cell.atom = value
        cell.version += 1
        cell.written_at = user_source()
        self._atom, self._version = atom, cell.version

    def concretize(self, what: str) -> None:
        """Raise: the numbers are not known while tracing (`TraceError`), or ever (`LeakedTracerError`)."""
        self.tracer.refuse(self, what)

    def __repr__(self) -> str:
        return f"Traced({self.dtype.name}[{','.join(map(str, self.shape))}])"


def _back_reshape(tracer: Tracer, base: Traced, value: Atom, attrs: dict[str, Any]) -> Atom:
    return tracer.emit(OPS["reshape"], (value,), {"shape": tuple(base.shape)})[0]


def _back_transpose(tracer: Tracer, base: Traced, value: Atom, attrs: dict[str, Any]) -> Atom:
    axes = attrs["axes"]
    inverse = tuple(axes.index(i) for i in range(len(axes)))
    return tracer.emit(OPS["transpose"], (value,), {"axes": inverse})[0]


def _back_slice(tracer: Tracer, base: Traced, value: Atom, attrs: dict[str, Any]) -> Atom:
    return tracer.emit(OPS["update_slice"], (base.read(), value), attrs)[0]


def _back_flip(tracer: Tracer, base: Traced, value: Atom, attrs: dict[str, Any]) -> Atom:
    return tracer.emit(OPS["flip"], (value,), attrs)[0]


_WRITE_BACK: dict[str, Callable[[Tracer, Traced, Atom, dict[str, Any]], Atom]] = {
    "reshape": _back_reshape,
    "transpose": _back_transpose,
    "slice": _back_slice,
    "flip": _back_flip,
    "stop_gradient": lambda tracer, base, value, attrs: value,
}
"""For each op whose result is a view: the base's new value after the view has been overwritten."""


@dataclass(frozen=True)
class Trace:
    """What a trace found.

    graph     its inputs are the arguments, then what was captured, in the order in which it was met
    captured  for each input from `arguments` on: an NDArray (read at each call) or a callable that gives a float
    hints     for each scalar among the inputs, its number and what gives its value in the call that was traced
    devices   the device of each output
    guards    the questions asked about symbolic sizes, with the lines that asked
    pinned    numbers of inputs (Python floats) whose value was looked at, with that value: the trace is valid for it only
    conditions  by name and id of the owner, what gives a value that the trace has baked in (see `Tracer.depend`)
    foresight  who prepares the call that was traced
    """

    graph: Graph
    arguments: int
    captured: tuple[Any, ...]
    devices: tuple[Device, ...]
    hints: dict[int, Callable[[], float]]
    guards: tuple[tuple[Guard, Source | None], ...] = ()
    pinned: dict[int, float] = field(default_factory=dict)
    conditions: dict[tuple[str, int], Callable[[], Any]] = field(default_factory=dict)
    foresight: Foresight | None = None


class Tracer:
    """The interpreter that writes a graph.

    `recording` tells whether the caller of the traced function records on a tape: code inside may ask, and operations
    under ``autograd.pause`` are then marked as constants of the differentiation.
    """

    transparent = False

    def __init__(self, name: str = "graph", recording: bool = False):
        self.name, self.recording = name, recording
        self.active = True
        self.taped = False  # whether the function itself has recorded
        self.equations: list[Equation] = []
        self.inputs: list[Value] = []
        self.arguments = 0
        self.cells: dict[int, Traced] = {}  # by id of the backend array
        self.inputs_of: list[Any] = []  # for each input: its Cell, or the getter of a scalar
        self.guards: list[tuple[Guard, Source | None]] = []
        self.pinned: dict[int, float] = {}
        self.hints: dict[int, Callable[[], float]] = {}  # the value of each scalar input in the call being traced
        self.conditions: dict[tuple[str, int], Callable[[], Any]] = {}
        self.source: Source | None = None  # overrides the user's line (passes that replay a graph)

    # -- inputs
    def argument(self, type: ArrayType, device: Device, name: str = "") -> NDArray:
        """A new input that the caller passes."""
        value = self._input(type, name)
        cell = Cell(value, None, len(self.inputs) - 1)
        self.inputs_of.append(cell)
        self.arguments = len(self.inputs)
        return wrap(Traced(self, cell, value, source=None), device)

    def alias(self, concrete: NDArray, argument: NDArray) -> None:
        """From now on, the concrete array met by closure or attribute is the argument."""
        self.cells.setdefault(id(concrete._data), argument._data)
        argument._data.cell.contiguous = bool(getattr(concrete._data.flags, "c_contiguous", True))

    def scalar(self, getter: Callable[[], float] | None, name: str = "") -> tuple[int, Value]:
        """A new 0-d float64 input; `getter` gives its value at each call. Returns its number and value."""
        value = self._input(ArrayType((), np.dtype(np.float64)), name)
        self.inputs_of.append(getter)
        return len(self.inputs) - 1, value

    def depend(self, name: str, owner: Any, read: Callable[[], Any]) -> None:
        """Say that the trace is valid only while ``read()``, which keeps `owner` alive, gives what it gives now."""
        self.conditions[name, id(owner)] = read

    def _input(self, type: ArrayType, name: str) -> Value:
        value = Value(type, name)
        self.inputs.append(value)
        return value

    def capture(self, array: NDArray) -> Traced:
        """The traced form of an array: itself, or that of a concrete one, captured at its first use."""
        data = array._data
        if type(data) is Traced:
            if data.tracer is not self:
                data.tracer.refuse(data, "using it in another trace")
            return data
        found = self.cells.get(id(data))
        if found is None:
            value = self._input(ArrayType(tuple(data.shape), data.dtype), "")
            cell = Cell(value, array, len(self.inputs) - 1)
            self.inputs_of.append(cell)
            found = self.cells[id(data)] = Traced(self, cell, value, source=user_source())
        return found

    def atom(self, array: NDArray) -> Atom:
        """The present value of an array, as an atom of the graph."""
        if is_literal(array) and type(array._data) is not Traced:
            return Literal(literal_value(array).item(), array.dtype)
        return self.capture(array).read()

    # -- the interpreter
    def process(self, frame: _apply.Frame, op: Op, arrays: tuple[NDArray, ...], attrs: dict[str, Any]) -> Any:
        """Write an equation; its results stand for the arrays that it will compute."""
        device = arrays[0]._device if arrays else current_device()
        if not self.taped and not self.recording and _apply.current().interpreter is not self:
            self.taped = True
        for a in arrays:
            if a._device is not device:
                places = ", ".join(f"{x.dtype.name}{x.shape} on {x._device}" for x in arrays)
                raise ValueError(f"{op.name}: arguments on different devices ({places}); move them with x.to_device(device)")
        source = self.source or user_source()
        atoms = tuple([self.atom(a) for a in arrays])
        outputs = self.emit(op, atoms, attrs, source)
        if "view" in op.traits and not is_literal(arrays[0]) and self._shares(arrays[0], op, attrs):
            base = self.capture(arrays[0])
            out = wrap(Traced(self, base.cell, outputs[0], base, op, attrs, source), device)
            out._storage = arrays[0]._storage or storage_of(arrays[0])
            return out
        results = tuple([wrap(Traced(self, Cell(o), o, source=source), device) for o in outputs])
        return results[0] if op.results == 1 else results

    def write(self, frame: _apply.Frame, array: NDArray, value: NDArray, index: Any) -> None:
        """The array has a new value from now on; so have all views of its memory."""
        target = self.capture(array)
        if array._device is not value._device:
            raise ValueError(
                f"write: the array is on {array._device}, the value on {value._device}; move it with "
                f"value.to_device({array._device})"
            )
        view: Traced | None = target
        while view is not None and view.parent is not None:
            if view.op.name not in _WRITE_BACK:
                raise ValueError(
                    f"{user_source()}: assignment to the result of {view.op.name}, which is read-only; copy() it first"
                )
            view = view.parent
        if not getattr(_apply.current().interpreter, "recording", True) and self.recording:
            value = _apply.apply(OPS["stop_gradient"], value)
        new = indexing.updated(wrap(target, array._device), value, index)
        target.overwrite(self.atom(new))

    def emit(
        self, op: Op, inputs: Sequence[Atom], attrs: dict[str, Any], source: Source | None = None
    ) -> tuple[Value, ...]:
        """Append an equation and return its outputs."""
        types = op.infer(*[a.type for a in inputs], **attrs)
        outputs = tuple([Value(t) for t in types])
        self.equations.append(Equation(op, tuple(inputs), outputs, attrs, source or self.source or user_source()))
        return outputs

    def _shares(self, array: NDArray, op: Op, attrs: dict[str, Any]) -> bool:
        """Whether NumPy's result of a view op shares memory. Only reshape depends on how the array lies in memory."""
        if op.name != "reshape":
            return True
        traced = self.capture(array)
        chain: list[Traced] = []
        view: Traced | None = traced
        while view is not None and view.parent is not None:
            chain.append(view)
            view = view.parent
        cell = traced.cell
        if cell.contiguous and all(v.op.name in ("reshape", "stop_gradient") for v in chain):
            return True
        hints = _hints(attrs["shape"])
        if cell.origin is not None:
            sample = cell.origin._data
        else:
            shape = _hints(cell.type.shape)
            sample = np.lib.stride_tricks.as_strided(np.empty(1, np.int8), shape, _row_major(shape))
        for v in reversed(chain):
            sample = _view_sample(sample, v.op.name, v.attrs)
        return _reshapes_in_place(sample.shape, sample.strides, sample.itemsize, hints)

    # -- loops and branches: bodies become sub-graphs
    def foreach(self, *arguments: Any) -> Any:
        """See `ndarray.foreach`."""
        from .capture import capture_foreach

        return capture_foreach(self, *arguments)

    def while_loop(self, *arguments: Any) -> Any:
        """See `ndarray.while_loop`."""
        from .capture import capture_while

        return capture_while(self, *arguments)

    def cond(self, *arguments: Any) -> Any:
        """See `ndarray.cond`."""
        from .capture import capture_branch

        return capture_branch(self, *arguments)

    def function(self, *arguments: Any) -> Any:
        """A call of an `autograd.Function` whose gradient the caller may ask for."""
        from .capture import capture_function

        return capture_function(self, *arguments)

    def alike(self, *arguments: Any) -> Any:
        """See `hybrid.alike`."""
        from .alike import traced_alike

        return traced_alike(self, *arguments)

    # -- what can't be traced
    def refuse(self, traced: Traced, what: str) -> None:
        """Raise the error for asking `what` of a traced array."""
        made = f" made at {traced.source}" if traced.source else ", an argument of the traced function,"
        kind = f"{traced.dtype.name}[{','.join(map(str, traced.shape))}]"
        here = user_source(3)
        if not self.active:
            raise LeakedTracerError(
                f"{here}: {what}: a traced array ({kind}){made} in {self.name!r} has left its trace, which is over; it has no "
                f"numbers. Return it from the function, or write it into an array that exists outside (y[...] = x), "
                f"instead of keeping it in an attribute, a list or a global variable"
            )
        if what == "using it in another trace":
            raise LeakedTracerError(
                f"{here}: a traced array ({kind}){made} in {self.name!r} is used in another trace; pass it as an argument"
            )
        raise TraceError(
            f"{here}: {what} of a traced array ({kind}){made} in {self.name!r}: its numbers are not known while the function "
            f"is traced, only when the compiled program runs. {_advice(what)}"
        )

    # -- running
    @contextmanager
    def under(self) -> Iterator[None]:
        """Context in which operations are traced (isolated from what the caller records)."""
        token = _apply.push(self, isolated=True)
        try:
            if self.recording:
                from ndarray import autograd

                inner = _apply.push(autograd._tape)
                try:
                    with record_guards(self._guard):
                        yield
                finally:
                    _apply.pop(inner)
            else:
                with record_guards(self._guard):
                    yield
        finally:
            _apply.pop(token)
            self.active = False
            for traced in self.cells.values():
                cell = traced.cell
                if cell.origin is not None and cell.written:
                    cell.origin._node = cell.node

    def _guard(self, guard: Guard) -> None:
        if all(str(guard) != str(g) for g, _ in self.guards):
            self.guards.append((guard, user_source(3)))

    def finish(self, outputs: Sequence[NDArray]) -> Trace:
        """The graph with these results. The inputs that were written become its state."""
        atoms = [self.atom(o) for o in outputs]
        state = {}
        captured: list[Any] = []
        for i, source in enumerate(self.inputs_of):
            if isinstance(source, Cell):
                if source.written and source.atom is not self.inputs[i]:
                    state[i] = source.atom
                if i >= self.arguments:
                    captured.append(source.origin)
            elif i >= self.arguments:
                captured.append(source)
        self._check_overlaps(state)
        graph = Graph(
            tuple(self.inputs), tuple(atoms), tuple(self.equations), state, tuple(g for g, _ in self.guards), self.name
        )
        devices = tuple(o._device for o in outputs)
        return Trace(
            graph, self.arguments, tuple(captured), devices, dict(self.hints), tuple(self.guards), dict(self.pinned),
            dict(self.conditions),
        )

    def _check_overlaps(self, state: dict[int, Atom]) -> None:
        if not state:
            return
        cells = [(i, c, c.origin) for i, c in enumerate(self.inputs_of) if isinstance(c, Cell)]
        captured = [(i, c, origin._data) for i, c, origin in cells if origin is not None]
        for n, k in overlapping([data for _, _, data in captured], {n for n, (i, _, _) in enumerate(captured) if i in state}):
            cell, other = captured[n][1], captured[k][1]
            raise TraceError(
                f"{cell.written_at}: {self.name!r} writes a captured array ({cell.type}) whose memory another captured "
                f"array ({other.type}) shares: both are inputs of the graph, so one would not see the write. Take the "
                f"view inside the function (y = x[i]) instead of outside"
            )


def current_tracer() -> Tracer | None:
    """The tracer whose trace is under way in this thread, or None."""
    frame: _apply.Frame | None = _apply.current()
    while frame is not None:
        if isinstance(frame.interpreter, Tracer):
            return frame.interpreter
        frame = frame.below
    return None


_ADVICE = {
    "bool": "Write nd.where(condition, a, b) instead of `if`; or decide outside the function and pass a Python bool",
    "mask": "Its shape depends on the numbers. Keep the shape: nd.where(mask, x, 0), or x[mask] = value",
    "float": "Keep it an array and compute with it, or return it and convert it outside the function",
    "index": "Use an integer array as the index (x.take(i), x[i] with an array), or pass a Python int",
    "write": "Return it and convert it outside the function",
}


def _advice(what: str) -> str:
    if "mask" in what:
        return _ADVICE["mask"]
    if "bool" in what:
        return _ADVICE["bool"]
    if what.startswith(("float", "int", "item", "complex")):
        return _ADVICE["float"]
    return _ADVICE["index"] if "index" in what else _ADVICE["write"]


# -- how NumPy would lay it out

def _hints(sizes: Sequence[Size]) -> tuple[int, ...]:
    return tuple(s.hint if isinstance(s, Dim) else int(s) for s in sizes)


def _row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides, step = [], 1
    for n in reversed(shape):
        strides.append(step)
        step *= max(n, 1)
    return tuple(reversed(strides))


def _value(size: Size) -> int:
    return evaluate(size, size.hints) if isinstance(size, Dim) else int(size)


def _view_sample(x: np.ndarray, op: str, attrs: dict[str, Any]) -> np.ndarray:
    """The view of a sample that has the right shape and strides (its memory is never touched)."""
    if op == "transpose":
        return x.transpose(attrs["axes"])
    if op == "slice":
        parts = zip(attrs["start"], attrs["stop"], attrs["step"])
        return x[tuple(slice(_value(a), _value(b), _value(c)) for a, b, c in parts)]
    if op == "flip":
        return np.flip(x, attrs["axes"])
    if op == "broadcast_to":
        return np.broadcast_to(x, _hints(attrs["shape"]))
    if op == "reshape":
        shape = _hints(attrs["shape"])
        strides = _reshaped_strides(x.shape, x.strides, x.itemsize, shape)
        return np.lib.stride_tricks.as_strided(x, shape, strides or _row_major(shape))
    return x


def _reshapes_in_place(shape: tuple, strides: tuple, itemsize: int, new: tuple) -> bool:
    return _reshaped_strides(shape, strides, itemsize, new) is not None


def _reshaped_strides(shape: tuple, strides: tuple, itemsize: int, new: tuple) -> tuple | None:
    """The strides of a reshape that shares memory, or None where elements would have to move.

    Axes of the old and the new shape are matched in groups of equal size; within a group the old axes must lie as
    one run in memory.
    """
    if 0 in shape or 0 in new:
        return tuple(s * itemsize for s in _row_major(new))
    old = [(n, s) for n, s in zip(shape, strides) if n != 1]
    result: list[int] = []
    i = j = 0
    while i < len(old) and j < len(new):
        first, a, b = i, old[i][0], new[j]
        start = j
        i, j = i + 1, j + 1
        while a != b:
            if a < b:
                if i == len(old):
                    return None
                a, i = a * old[i][0], i + 1
            else:
                b, j = b * new[j], j + 1
        for k in range(first, i - 1):
            if old[k][1] != old[k + 1][0] * old[k + 1][1]:
                return None
        step, group = old[i - 1][1], []
        for n in reversed(new[start:j]):
            group.append(step)
            step *= n
        result += reversed(group)
    return tuple(result) + (itemsize,) * (len(new) - len(result))
