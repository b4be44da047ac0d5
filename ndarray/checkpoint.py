"""Functions whose inside is computed again for the gradient instead of being kept (Chen et al., "Training deep nets with
sublinear memory cost", 2016).

A call is recorded as usual to find out what it depends on: the arguments, arrays with a gradient (weights) and recorded arrays
that it reaches by closure. Then what was recorded inside is thrown away and one node takes its place, whose gradient rule
records the function once more and pulls back through that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any

from . import apply as _apply
from . import autograd, precision, random
from .apply import Frame
from .array import NDArray, _twin
from .device import current_device
from .dtypes import is_inexact
from .op import OPS
from .tape import Leaf, Node, Step, _check_entry, _tape, keep, watch_nodes

__all__ = ["checkpointed"]


def checkpointed(function: Callable) -> Callable:
    """See `ndarray.autograd.checkpoint`."""

    @wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        if _apply.current().interpreter is not _tape:
            return function(*args, **options)
        return _record(function, (args, options))

    return call


def _record(function: Callable, arguments: tuple) -> Any:
    given = list(_arrays(arguments))
    for a in given:
        if a._node is not None and a._storage is not None:
            _check_entry(a)
    before = [(s, s.copy(), s._version) for s in _random_states(given)]
    token = _apply.switch(Frame(_tape, Frame(_Once(), autograd._unrecorded_frame())))
    try:
        result, outside = _run(function, arguments)
    finally:
        _apply._top.reset(token)
    outs = list(_arrays(result))
    if not outside:
        return result
    replayed = [(s, old) for s, old, version in before if s._version != version]
    step = Step(f"checkpoint of {getattr(function, '__name__', 'a function')}", _pull, len(outs))
    kept = (function, arguments, [(a, a._version) for a in given], outside, replayed, autograd.is_training(), precision.current())
    node = Node(step, tuple([(*place, -1) for place in outside]), (None,) * len(outside), kept)
    made = []
    for i, out in enumerate(outs):
        tracked, out = out._node is not None, _twin(out)
        if tracked and is_inexact(out.dtype):
            out._node = (node, i, out._version)
        made.append(out)
    return _replaced(result, iter(made))


def _run(function: Callable, arguments: tuple) -> tuple[Any, dict[tuple, int]]:
    """The recorded result, and the (node, number of its result) outside on which it depends, with the version of what lies
    there."""
    given, options = arguments
    with watch_nodes() as made:
        result = function(*given, **options)
    outside: dict[tuple, int] = {}
    stack = [o._node for o in _arrays(result) if o._node is not None]
    seen = set()
    while stack:
        entry = stack.pop()
        node = entry[0]
        if node in made:
            if node not in seen:
                seen.add(node)
                stack.extend(e for e in node.inputs if e is not None)
        elif not (type(node) is Leaf and node.request == "null"):
            outside[entry[:2]] = _written(node)
    return result, outside


def _written(node: Any) -> int:
    return node.storage.version if type(node) is Leaf and node.storage is not None else 0


def _pull(node: Node, entries: tuple, cotangents: list, wanted: list) -> list:
    function, arguments, versions, outside, replayed, train, policy = node.kept
    given = [keep(v, node.step.name, f"argument {i}") for i, v in enumerate(versions)]
    for (leaf, _), version in outside.items():
        if _written(leaf) != version:
            raise RuntimeError(
                f"backward: {node.step.name} is computed again, but an array with a gradient that it uses was written in place "
                f"at {leaf.storage.where()}; write after backward"
            )
    create = autograd.is_recording()
    below = autograd._unrecorded_frame()
    barrier = _apply.is_tracing()
    if barrier:  # what is computed again must not be found to have been computed before
        given = [_behind_barrier(a) for a in given]
        arguments = _replaced(arguments, iter(given))
    later = [(s, s.copy()) for s, _ in replayed]
    for s, old in replayed:
        _apply.write(s, old.copy())
    token = _apply.switch(Frame(_tape, Frame(_Again(), below)))
    mode = autograd._training.set(train)
    try:
        with precision.use(policy):
            result, reached = _run(function, arguments)
    finally:
        autograd._training.reset(mode)
        _apply._top.reset(token)
        for s, new in later:
            _apply.write(s, new)
    if set(reached) != set(outside):
        raise RuntimeError(f"{node.step.name}: computed again, it depends on other arrays than before")
    pairs = [(o, g) for o, g in zip(_arrays(result), cotangents) if g is not None and o._node is not None]
    if not pairs:
        return [None] * len(outside)
    heads, gs = [o for o, _ in pairs], [g for _, g in pairs]
    del result, pairs, cotangents[:]
    around = {place[0] for place in outside}
    return autograd._pull(node.step.name, heads, gs, list(outside), create, create, autograd.is_training(), around)


class _Once:
    """Below the tape while a checkpointed function runs: keeps the short cuts from making nodes of their own."""

    transparent = True
    recording = False

    def process(self, frame: Frame, op: Any, arrays: tuple[NDArray, ...], attrs: dict[str, Any]) -> Any:
        """Compute below."""
        return frame.below.process(op, arrays, attrs)

    def write(self, frame: Frame, array: NDArray, value: NDArray, index: Any) -> None:
        """Write below."""
        frame.below.write(array, value, index)


class _Again(_Once):
    """The same while it is computed again: statistics have been written once already."""

    repeating = True

    def write(self, frame: Frame, array: NDArray, value: NDArray, index: Any) -> None:
        """Write below, but for arrays with the gradient request "null"."""
        node: Any = array._node
        if not (node is not None and type(node[0]) is Leaf and node[0].request == "null"):
            frame.below.write(array, value, index)


def _behind_barrier(array: NDArray) -> NDArray:
    token = _apply.switch(autograd._unrecorded_frame())
    try:
        out = _apply.apply(OPS["barrier"], array)
    finally:
        _apply._top.reset(token)
    out._node = array._node
    return out


def _random_states(given: Iterable[NDArray]) -> list[NDArray]:
    devices = dict.fromkeys([a._device for a in given] + [current_device()])
    return [random.state(d) for d in devices]


def _arrays(value: Any) -> Iterable[NDArray]:
    """The arrays in nested tuples, lists and dicts, in order."""
    if isinstance(value, NDArray):
        yield value
    elif isinstance(value, (tuple, list)):
        for v in value:
            yield from _arrays(v)
    elif isinstance(value, dict):
        for v in value.values():
            yield from _arrays(v)


def _replaced(value: Any, arrays: Any) -> Any:
    """The same nested value with other arrays, in the order of `_arrays`."""
    if isinstance(value, NDArray):
        return next(arrays)
    if isinstance(value, (tuple, list)):
        items = [_replaced(v, arrays) for v in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if isinstance(value, dict):
        return {k: _replaced(v, arrays) for k, v in value.items()}
    return value
