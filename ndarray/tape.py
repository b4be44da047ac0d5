"""The tape: an interpreter that records what `autograd` pulls gradients back along.

It computes the forward value with the interpreter below and hangs a `Node` on each result that depends on an array
with a gradient, with just what the op's gradient rules read. It never looks at concrete data, so it works the same
above a tracer. What was recorded lives as long as the results: the tape itself has no state.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from . import apply as _apply
from .apply import Frame
from .array import _PACKAGE, NDArray, Storage, _twin
from .dtypes import is_inexact
from .op import NONDIFF, OPS, ArrayType, Op, Vjp

__all__ = [
    "RECORDING", "Entry", "Leaf", "Node", "Plan", "Step", "Tape", "add_hook", "add_node", "describe", "is_recording",
    "is_repeating", "keep", "user_line", "watch_nodes",
]

_top = _apply._top
Entry = tuple[Any, int, int]  # (node or leaf, which result, version of its storage when it was made)


class Leaf:
    """An array whose gradient is wanted: where it goes, and how ("write", "add", "null": not at all).

    storage  of the array, where writes to it are counted
    hooks    called with each gradient, see `NDArray.register_hook`
    """

    __slots__ = ("grad", "hooks", "request", "storage")

    def __init__(self, grad: NDArray | None, request: str, storage: Storage | None = None):
        self.grad, self.request, self.storage = grad, request, storage
        self.hooks: dict[int, Callable] | None = None


class Step:
    """What the nodes of one operation have in common.

    name     what ran, for errors
    pull     ``(node, entries of the results, cotangents, wanted) -> gradients`` (None where not wanted)
    results  how many results there are
    hooks    called with the cotangents of the results, by number: see `NDArray.register_hook`
    """

    __slots__ = ("hooks", "name", "pull", "results")

    def __init__(self, name: str, pull: Callable, results: int):
        self.name, self.pull, self.results = name, pull, results
        self.hooks: dict[int, dict[int, Callable]] | None = None


class Node:
    """One recorded step.

    step    what ran, and how it is differentiated
    inputs  an entry for each argument, None where nothing is to be differentiated
    shapes  the arguments' shapes, to which gradients are summed (None: they have the right one)
    kept    what ``step.pull`` reads; None when it has been forgotten
    """

    __slots__ = ("inputs", "kept", "shapes", "step")

    def __init__(self, step: Step, inputs: tuple, shapes: tuple, kept: Any):
        self.step, self.inputs, self.shapes, self.kept = step, inputs, shapes, kept
        made = _watching.get()
        if made is not None:
            made.add(self)

    @property
    def released(self) -> bool:
        """Whether a backward has passed here and forgotten the way further down."""
        return self.kept is None

    def release(self) -> None:
        """Forget what was kept, and the way further down."""
        self.kept, self.inputs = None, ()


_watching: ContextVar[set[Node] | None] = ContextVar("watching_nodes", default=None)


@contextmanager
def watch_nodes() -> Iterator[set[Node]]:
    """The set of the nodes made in the block (but for those of the short cuts of `ndarray.fast`)."""
    made: set[Node] = set()
    token = _watching.set(made)
    try:
        yield made
    finally:
        _watching.reset(token)


def add_hook(array: NDArray, hook: Callable) -> Callable[[], Any]:
    """Have `hook` called with the gradient of a recorded array or leaf; returns what removes it."""
    entry = array._node
    if entry is None or (type(entry[0]) is Leaf and entry[0].request == "null"):
        raise RuntimeError(
            f"{user_line()}: register_hook: no gradient flows to this array ({describe(array)}); call attach_grad() on it, or "
            f"compute it inside `with autograd.record():`"
        )
    node, index = entry[0], entry[1]
    if type(node) is Leaf:
        hooks = node.hooks = node.hooks or {}
    else:
        step = node.step
        if step.hooks is None:  # its own, which others of its kind don't share
            node.step = Step(step.name, step.pull, step.results)
            node.step.hooks = {}
        hooks = node.step.hooks.setdefault(index, {})
    key = next(_hook_numbers)
    hooks[key] = hook
    return lambda: hooks.pop(key, None)


_hook_numbers = itertools.count()


def is_recording() -> bool:
    """Whether operations are being recorded (in a traced function: whether its caller records)."""
    frame = _top.get()
    return frame is not None and bool(getattr(frame.interpreter, "recording", False))


def is_repeating() -> bool:
    """Whether a checkpointed function is being computed again."""
    frame = _top.get()
    while frame is not None and not getattr(frame.interpreter, "repeating", False):
        frame = frame.below
    return frame is not None


def add_node(
    name: str, inputs: Sequence[NDArray], outputs: Sequence[NDArray], pull: Callable[[list, list], Sequence],
) -> None:
    """Record that `outputs` (new arrays) were computed from `inputs`, with a gradient rule of one's own.

    ``pull(cotangents, wanted) -> gradients``: one cotangent an output (None where nothing flowed in), one gradient an
    input (None where there is none); ``wanted[i]`` says whether gradient i is needed. Does nothing unless recording
    and an input is tracked.
    """
    if not is_recording() or all(a._node is None for a in inputs):
        return
    step = Step(name, lambda node, entries, cotangents, wanted: pull(cotangents, wanted), len(outputs))
    node = Node(step, tuple([a._node for a in inputs]), tuple([a.shape for a in inputs]), ())
    for i, out in enumerate(outputs):
        if is_inexact(out.dtype):
            out._node = (node, i, out._version)


class Tape:
    """The interpreter that records. It has no state: what was recorded hangs on the results."""

    transparent = True
    recording = True

    def process(self, frame: Frame, op: Op, arrays: tuple[NDArray, ...], attrs: dict[str, Any]) -> Any:
        """Compute below, then record if an argument is tracked."""
        below = frame.below
        result = below.interpreter.process(below, op, arrays, attrs)
        for a in arrays:
            if a._node is not None:
                if op.vjp is not NONDIFF:
                    _record(op, arrays, attrs, result)
                break
        return result

    def write(self, frame: Frame, array: NDArray, value: NDArray, index: Any) -> None:
        """Write below; the array then depends on the value and on what it was before."""
        old, new = array._node, value._node
        if old is not None and isinstance(old[0], Leaf):
            if old[0].request != "null":
                raise RuntimeError(
                    f"{user_line()}: an in-place write, while recording, to an array with a gradient attached "
                    f"({describe(array)}); its gradient would be lost. Write outside autograd.record() (or under "
                    f"autograd.pause()), or make a new array: `y = x + 1` instead of `x += 1`"
                )
            new = old = None  # statistics and the like: a leaf that wants no gradient has no history
        if new is not None or old is not None:
            if new is not None:
                _check_entry(value)
            memory = getattr(array._data, "base", None)
            if memory is not None and old is None and hasattr(memory, "dtype"):
                raise RuntimeError(
                    f"{user_line()}: a value with a gradient is written through a view ({describe(array)}); "
                    f"write through the whole array instead: `x[i, j] = v` rather than `y = x[i]; y[j] = v`"
                )
        frame.below.write(array, value, index)
        if old is None and new is None:
            return
        shapes = (array.shape, value.shape)
        node = Node(_WRITE, (old, new), shapes, (index,))
        array._node = (node, 0, array._version)


class _Barrier:
    """`pause` above a tracer whose caller records: results are marked as constants of the differentiation."""

    transparent = True
    recording = False

    def process(self, frame: Frame, op: Op, arrays: tuple[NDArray, ...], attrs: dict[str, Any]) -> Any:
        """Compute below and stop the gradient."""
        result = frame.below.process(op, arrays, attrs)
        if op.vjp is NONDIFF:
            return result
        stop = OPS["stop_gradient"]
        if isinstance(result, tuple):
            return tuple([frame.below.process(stop, (r,), {}) if is_inexact(r.dtype) else r for r in result])
        return frame.below.process(stop, (result,), {}) if is_inexact(result.dtype) else result

    def write(self, frame: Frame, array: NDArray, value: NDArray, index: Any) -> None:
        """Write below."""
        frame.below.write(array, value, index)


_tape, _barrier = Tape(), _Barrier()
RECORDING = Frame(_tape, _apply._bottom)
"""The frame that records what runs at once: on top, it means that nothing traces."""


class Plan(Step):
    """What to keep of an op and how to call its gradient rules, for one set of tracked arguments.

    arguments, outs, types  positions of what is kept: arguments, results, and arguments of which the type is enough
    calls                   (argument, rule, [(parameter, where its value comes from, position there)], has attributes)

    ``Node.kept`` is (arguments, results, types, attributes).
    """

    __slots__ = ("arguments", "calls", "op", "outs", "types")

    def __init__(self, op: Op, tracked: tuple[int, ...]):
        super().__init__(op.name, self._pull, op.results)
        self.op = op
        self.arguments: list[int] = []
        self.outs: list[int] = []
        self.types: list[int] = []
        rules: Any = op.vjp
        self.calls = []
        for i in tracked:
            vjp = rules[op.arguments[i]]
            sources = self._sources(vjp)
            self.calls.append((i, vjp.rule, sources, any(source == "attribute" for _, source, _ in sources)))

    def _sources(self, vjp: Vjp) -> list[tuple[str, str, int]]:
        sources = []
        kept, types = vjp.keeps(self.op), vjp.types(self.op)
        for p in vjp.parameters:
            if p == "g" or (p[0] == "g" and p[1:].isdecimal()):
                sources.append((p, "cotangent", int(p[1:] or 0)))
            elif p in kept and p in self.op.arguments:
                sources.append((p, "argument", _place(self.arguments, self.op.arguments.index(p))))
            elif p in kept:
                sources.append((p, "result", _place(self.outs, int(p[3:] or 0))))
            elif p.removesuffix("_type") in types:
                sources.append((p, "type", _place(self.types, self.op.arguments.index(p.removesuffix("_type")))))
            else:
                sources.append((p, "attribute", 0))
        return sources

    def _pull(self, node: Node, entries: tuple, cotangents: list, wanted: list) -> list:
        arguments, outs, types, attrs = node.kept
        gradients: list[Any] = [None] * len(wanted)
        for i, rule, sources, named in self.calls:
            if not wanted[i]:
                continue
            values: list[Any] = []
            for parameter, source, k in sources:
                if source == "cotangent":
                    values.append(cotangents[k])
                elif source == "argument":
                    array, version = arguments[k]
                    storage = array._storage
                    if storage is not None and storage.version != version:
                        keep(arguments[k], self.name, f"argument {parameter!r}")
                    values.append(array)
                elif source == "result":
                    values.append(_with_entry(keep(outs[k], self.name, "the result"), entries[self.outs[k]]))
                elif source == "type":
                    values.append(types[k])
                else:
                    values.append(attrs.get(parameter, _ABSENT))
            if named:  # an attribute that was not given has the rule's default
                gradients[i] = rule(**{p: v for (p, _, _), v in zip(sources, values) if v is not _ABSENT})
            else:
                gradients[i] = rule(*values)
        return gradients


_ABSENT = object()


def _place(kept: list[int], position: int) -> int:
    if position not in kept:
        kept.append(position)
    return kept.index(position)


_plans: dict[tuple[Op, tuple[int, ...]], Plan] = {}


def _check_entry(array: NDArray) -> None:
    entry: Any = array._node
    storage = array._storage
    if storage is not None and entry[2] >= 0 and storage.version != entry[2]:
        raise RuntimeError(
            f"{user_line()}: {describe(array)} was computed under autograd.record(), and its memory was then written "
            f"at {storage.where()} through another array that shares it; copy() one of them first"
        )


def _record(op: Op, arrays: tuple[NDArray, ...], attrs: dict[str, Any], result: Any) -> None:
    many = type(result) is tuple
    outs = result if many else (result,)
    inputs: list[Entry | None] = []
    tracked: list[int] = []
    rules: Any = op.vjp
    variadic = op.variadic
    for i, a in enumerate(arrays):
        entry = a._node
        if entry is not None and (variadic or op.arguments[i] in rules):
            if a._storage is not None:
                _check_entry(a)
            tracked.append(i)
            inputs.append(entry)
        else:
            inputs.append(None)
    if not tracked:
        return
    if variadic:
        kept: tuple = (op, attrs, many, [(a, a._version) for a in arrays], [_kept_out(o) for o in outs])
        step = Step(op.name, _pull_variadic, len(outs))
    else:
        key = op, tuple(tracked)
        plan = _plans.get(key)
        if plan is None:
            plan = _plans[key] = Plan(*key)
        kept = (
            [(arrays[i], arrays[i]._version) for i in plan.arguments] if plan.arguments else (),
            [_kept_out(outs[i]) for i in plan.outs] if plan.outs else (),
            [ArrayType(arrays[i]._data.shape, arrays[i]._data.dtype) for i in plan.types] if plan.types else (),
            attrs,
        )
        step = plan
    node = Node(step, tuple(inputs), tuple([a._data.shape for a in arrays]), kept)
    for i, out in enumerate(outs):
        if is_inexact(out._data.dtype):
            out._node = (node, i, 0 if out._storage is None else out._storage.version)


def _kept_out(out: NDArray) -> tuple[NDArray, int]:
    # a twin without history: keeping the result itself would be a reference cycle
    twin = _twin(out)
    return twin, twin._version


def keep(kept: tuple[NDArray, int], op: str, what: str) -> NDArray:
    array, version = kept
    storage = array._storage
    if storage is not None and storage.version != version:
        raise RuntimeError(
            f"backward: {what} of {op} ({describe(array)}) was kept for the gradient and then written in place at "
            f"{storage.where()}; write after backward, or to a copy"
        )
    return array


def _pull_variadic(node: Node, entries: tuple, cotangents: list, wanted: list) -> Sequence:
    op, attrs, many, arguments, results = node.kept
    xs = tuple([keep(k, op.name, f"argument {i}") for i, k in enumerate(arguments)])
    outs = tuple([_with_entry(keep(k, op.name, "the result"), e) for k, e in zip(results, entries)])
    if many:
        return op.vjp(tuple(cotangents), xs, outs, **attrs)
    return op.vjp(cotangents[0], xs, outs[0], **attrs)


def _pull_write(node: Node, entries: tuple, cotangents: list, wanted: list) -> list:
    (index,), g = node.kept, cotangents[0]
    old = new = None
    if wanted[1]:
        new = g if index is ... else g[index]
    if wanted[0] and index is not ...:
        old = g.copy()
        old[index] = 0
    return [old, new]


_WRITE = Step("write", _pull_write, 1)


def _with_entry(out: NDArray, entry: Entry) -> NDArray:
    if not is_recording():
        return out
    again = _twin(out)
    again._node = entry
    return again


def describe(array: NDArray) -> str:
    return f"{array.dtype.name}[{','.join(map(str, array.shape))}]"


def user_line() -> str:
    """The first line outside this package, as ``file:line``."""
    frame = sys._getframe(1)
    while frame.f_code.co_filename.startswith(_PACKAGE) and frame.f_back is not None:
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"

