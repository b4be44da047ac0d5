"""Control flow over arrays: `foreach`, `while_loop` and `cond`, with the semantics of MXNet's ``contrib`` functions.

Eagerly they are Python's own loops and branches, and the tape records what the steps do. In a trace the functions that
are passed in are captured once, as sub-graphs of one operation: the number of steps, or which branch is taken, is then
decided while the compiled program runs. Either way their arrays may be nested in lists, tuples and dicts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import apply as _apply
from .array import NDArray, is_literal, wrap
from .creation import zeros
from .device import current_device
from .dims import Dim, Size
from .manipulation import concatenate, stack
from .op import ArrayType, Op
from .operands import as_array, is_number

__all__ = ["cond", "foreach", "while_loop"]


def foreach(body: Callable, data: Any, init_states: Any, reverse: bool = False) -> tuple[Any, Any]:
    """Run ``outputs, states = body(slices, states)`` for each position along the first axis of `data`.

    body         a function of (the slices ``data[t]``, the states); returns (outputs, new states)
    data         an array, or nested lists of arrays whose first axes have one length: that is the number of steps
    init_states  the states before the first step: an array, nested lists, or an empty list
    reverse      whether the steps are taken from the last slice to the first (outputs still stand where their slice does)

    Returns (outputs, states): each output stacked along a new first axis, nested as `body` nests it; and the states
    after the last step. A state keeps its shape and dtype from step to step. Gradients flow to `data`, to the states and
    to whatever `body` reads from outside of it. Traced, `body` is captured once, as the sub-graph of a loop.

    Raises ValueError or TypeError, with the step, where a state or an output changes its structure, shape or dtype.

    >>> import ndarray as nd
    >>> step = lambda x, total: (x + total, x + total)
    >>> sums, last = nd.foreach(step, nd.array([1.0, 2.0, 3.0]), nd.array(0.0))
    >>> print(sums, last)
    [1. 3. 6.] 6.0
    """
    slices, form = flatten("foreach", "data", data)
    states, states_form = flatten("foreach", "init_states", init_states)
    length = _common_length(slices)
    capture = _apply.capturing()
    if capture is not None:
        return capture.foreach(body, slices, form, states, states_form, length, reverse)
    stacked, last = _Steps("foreach", states, states_form), states
    for t in range(length)[:: -1 if reverse else 1]:
        with _Unwritten("foreach", "body", t, [*slices, *last]):
            result = body(nest(form, [x[t] for x in slices]), nest(states_form, last))
        last = stacked.add(t, *pair("foreach", "body", "(outputs, states)", result))
    if length == 0:
        with _Shapes.under():
            result = body(nest(form, [x[0] for x in _unit_slices(slices)]), nest(states_form, states))
            stacked.add(0, *pair("foreach", "body", "(outputs, states)", result))
    if reverse:
        stacked.found.reverse()
    return stacked.outputs(length), nest(states_form, last)


def while_loop(
    cond: Callable, func: Callable, loop_vars: Any, max_iterations: Size | None = None
) -> tuple[Any, Any]:
    """While ``cond(*loop_vars)`` holds: ``outputs, loop_vars = func(*loop_vars)``, at most `max_iterations` times.

    cond            a function of the loop variables; returns an array with one element, or a bool
    func            a function of the loop variables; returns (outputs of this step, new loop variables)
    loop_vars       a list (or nested lists) of arrays, or one array; each keeps its shape and dtype
    max_iterations  a bound on the number of steps

    Returns (outputs, loop variables): each output stacked along a new first axis of size `max_iterations`, zero behind
    the steps that were taken; and the variables after the last step. Differentiable as `foreach`.

    >>> import ndarray as nd
    >>> outputs, (i, s) = nd.while_loop(
    ...     lambda i, s: i <= 3, lambda i, s: (s + i, [i + 1, s + i]), [nd.array(1), nd.array(0)], max_iterations=5)
    >>> print(outputs, i, s)
    [1 3 6 0 0] 4 6
    """
    if max_iterations is None:
        raise ValueError("while_loop: max_iterations must be given: the outputs of so many steps have room in the result")
    if isinstance(max_iterations, bool) or not (hasattr(max_iterations, "__index__") or isinstance(max_iterations, Dim)):
        raise TypeError(f"while_loop: max_iterations: expected an int, got {max_iterations!r}")
    limit: Size = max_iterations if isinstance(max_iterations, Dim) else int(max_iterations)
    if not isinstance(limit, Dim) and limit < 0:
        raise ValueError(f"while_loop: max_iterations: expected an int of at least 0, got {limit}")
    single = isinstance(loop_vars, NDArray)
    variables, form = flatten("while_loop", "loop_vars", [loop_vars] if single else loop_vars)
    if not variables:
        raise ValueError("while_loop: loop_vars: expected at least one array, got none")
    capture = _apply.capturing()
    if capture is not None:
        outputs, last = capture.while_loop(cond, func, variables, form, limit)
        return outputs, last[0] if single else last
    steps, last, taken = _Steps("while_loop", variables, form), variables, 0
    while taken < limit and truth("while_loop", "cond", cond(*nest(form, last))):
        with _Unwritten("while_loop", "func", taken, last):
            result = pair("while_loop", "func", "(outputs, loop_vars)", func(*nest(form, last)))
        last = steps.add(taken, result[0], _unsingle(result[1], single))
        taken += 1
    if taken == 0:
        with _Shapes.under():
            result = pair("while_loop", "func", "(outputs, loop_vars)", func(*nest(form, variables)))
            steps.add(0, result[0], _unsingle(result[1], single))
    found = nest(form, last)
    return steps.outputs(taken, limit), found[0] if single else found


def cond(pred: Any, then_func: Callable[[], Any], else_func: Callable[[], Any]) -> Any:
    """``then_func()`` if `pred` holds, else ``else_func()``; only that one runs.

    pred  an array with one element, or a bool

    Both functions take no arguments (they read what is around them) and, in a trace, return arrays of the same structure,
    shapes and dtypes. Gradients flow through the branch that is taken.

    >>> import ndarray as nd
    >>> x = nd.array([-1.0, 2.0])
    >>> print(nd.cond(x.sum() > 0, lambda: x * 2, lambda: x * 0))
    [-2.  4.]
    """
    if isinstance(pred, (bool, np.bool_, int)):
        return then_func() if pred else else_func()
    pred = as_array("cond", "pred", pred)
    capture = _apply.capturing()
    if capture is not None:
        return capture.cond(scalar("cond", "pred", pred), then_func, else_func)
    return then_func() if truth("cond", "pred", pred) else else_func()


# -- nested arrays

def flatten(name: str, argument: str, nested: Any) -> tuple[list[NDArray], Any]:
    """The arrays of nested lists, tuples and dicts, in order, and the form they had: `nest` puts them back."""
    found: list[NDArray] = []

    def visit(value: Any) -> Any:
        if isinstance(value, NDArray):
            found.append(value)
            return None
        if isinstance(value, (list, tuple)) and not isinstance(value, np.ndarray):
            items = [visit(v) for v in value]
            return (type(value), items)
        if isinstance(value, dict):
            return (dict, [(k, visit(v)) for k, v in value.items()])
        if isinstance(value, np.ndarray) or is_number(value):
            found.append(as_array(name, argument, value))
            return None
        kind = type(value).__name__
        raise TypeError(f"{name}: {argument}: expected arrays in lists, tuples or dicts, got {kind}: {value!r:.60}")

    if nested is None:
        return found, (list, [])
    return found, visit(nested)


def nest(form: Any, arrays: Sequence[NDArray]) -> Any:
    """The arrays in the form that `flatten` found."""
    rest = iter(arrays)

    def build(f: Any) -> Any:
        if f is None:
            return next(rest)
        kind, items = f
        if kind is dict:
            return {k: build(v) for k, v in items}
        made = [build(i) for i in items]
        return kind(*made) if hasattr(kind, "_fields") else kind(made)

    return build(form)


def same_form(a: Any, b: Any) -> bool:
    """Whether two structures agree; a list is as good as a tuple."""
    if a is None or b is None:
        return a is b
    if (a[0] is dict) != (b[0] is dict) or len(a[1]) != len(b[1]):
        return False
    if a[0] is dict:
        return all(k == m and same_form(x, y) for (k, x), (m, y) in zip(a[1], b[1]))
    return all(map(same_form, a[1], b[1]))


def pair(name: str, function: str, what: str, result: Any) -> tuple[Any, Any]:
    """The two parts of what a body returned. Raises TypeError naming it."""
    if not isinstance(result, (tuple, list)) or len(result) != 2:
        raise TypeError(f"{name}: {function} must return {what}, got {type(result).__name__}: {result!r:.80}")
    return result[0], result[1]


def _unsingle(result: Any, single: bool) -> Any:
    return [result] if single and isinstance(result, NDArray) else result


def truth(name: str, what: str, value: Any) -> bool:
    """A condition as a bool. Raises ValueError for an array with more than one element."""
    return bool(value) if isinstance(value, (bool, np.bool_, int)) else bool(scalar(name, what, as_array(name, what, value)))


def scalar(name: str, what: str, value: NDArray) -> NDArray:
    """A condition as a 0-d bool array. Raises ValueError unless it has one element."""
    if any(not (type(n) is int and n == 1) for n in value.shape):
        raise ValueError(
            f"{name}: {what}: expected an array with one element, got shape {value.shape}; reduce it with any() or all()"
        )
    return value.reshape(()).astype("bool", copy=False)


def check_states(name: str, where: str, before: Sequence[NDArray], form: Any, states: Any, step: str) -> list[NDArray]:
    """The new states as arrays. Raises where their structure, a shape or a dtype is not what it was."""
    what = "states" if name == "foreach" else "loop_vars"
    found, new_form = flatten(name, f"{what} that {where} returned{step}", states)
    if not same_form(form, new_form):
        raise ValueError(
            f"{name}: {where} returned {len(found)} {what}{step}, nested otherwise than the {len(before)} it was given; "
            f"return them in the structure in which they came"
        )
    for i, (old, new) in enumerate(zip(before, found)):
        if is_literal(new) and new.dtype != old.dtype and new.shape == ():
            found[i] = new = new.astype(old.dtype)
        if not same_shapes(old.shape, new.shape) or old.dtype != new.dtype:
            raise ValueError(
                f"{name}: {what[:-1].replace('_', ' ')} {i} was {describe(old)}, and {where} returned {describe(new)}{step}; "
                f"it must keep its shape and dtype (astype, reshape or broadcast_to it)"
            )
    return found


def same_shapes(a: tuple[Size, ...], b: tuple[Size, ...]) -> bool:
    """Whether two shapes are equal (symbolic sizes are compared, which may record a guard)."""
    return len(a) == len(b) and all(x == y for x, y in zip(a, b))


def describe(x: NDArray) -> str:
    """dtype[shape]."""
    return f"{x.dtype.name}[{','.join(map(str, x.shape))}]"


class _Steps:
    """Collects what the steps of an eager loop return."""

    def __init__(self, name: str, states: Sequence[NDArray], form: Any):
        self.name, self.states, self.states_form = name, states, form
        self.where = "body" if name == "foreach" else "func"
        self.found: list[list[NDArray]] = []
        self.form: Any = None

    def add(self, step: int, outputs: Any, states: Any) -> list[NDArray]:
        """Note the outputs of a step; returns its states."""
        at = f" in step {step}"
        arrays, form = flatten(self.name, f"outputs of {self.where}{at}", outputs)
        if not self.found:
            self.form = form
            self.empty = outputs is None
        else:
            first = self.found[0]
            if not same_form(form, self.form):
                raise ValueError(
                    f"{self.name}: {self.where} returned {len(arrays)} outputs{at}, {len(first)} (or nested otherwise) before"
                )
            for i, (a, b) in enumerate(zip(first, arrays)):
                if not same_shapes(a.shape, b.shape) or a.dtype != b.dtype:
                    raise ValueError(
                        f"{self.name}: output {i} was {describe(a)} in step 0, and {self.where} returned {describe(b)}{at}; "
                        f"outputs are stacked, so they keep their shape and dtype"
                    )
        self.found.append(arrays)
        return check_states(self.name, self.where, self.states, self.states_form, states, at)

    def outputs(self, taken: int, room: Size | None = None) -> Any:
        """All outputs, stacked, with zeros up to `room` steps."""
        room = taken if room is None else room
        result = []
        for parts in zip(*self.found):
            first = parts[0]
            made = [stack(list(parts))] if taken else []
            if taken < room or not taken:
                made.append(zeros((room - taken, *first.shape), dtype=first.dtype, device=first._device))
            result.append(made[0] if len(made) == 1 else concatenate(made))
        return None if self.empty else nest(self.form, result)


# -- the steps

class _Unwritten:
    """Context of one step, in which the arrays that the body was given must not be written: it would depend on who else
    has them what such a write means."""

    __slots__ = ("_arrays", "_name", "_step", "_versions", "_where")

    def __init__(self, name: str, where: str, step: int, arrays: Sequence[NDArray]):
        self._name, self._where, self._step, self._arrays = name, where, step, arrays
        self._versions = [a._version for a in arrays]

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None and self._versions != [a._version for a in self._arrays]:
            i = next(i for i, a in enumerate(self._arrays) if a._version != self._versions[i])
            where = self._arrays[i]._storage.where()  # type: ignore[union-attr]
            raise RuntimeError(written_argument(self._name, self._where, f"{where}, in step {self._step}"))


def written_argument(name: str, where: str, at: str) -> str:
    """The message for a write to an array that a body was given."""
    return (
        f"{name}: {where} wrote, at {at}, to an array that it was given; return a new one instead "
        f"(`state = state + x` rather than `state += x`)"
    )


def _common_length(slices: Sequence[NDArray]) -> Any:
    if not slices:
        raise ValueError("foreach: data: expected at least one array, got none")
    for i, x in enumerate(slices):
        if x.ndim == 0:
            raise ValueError(f"foreach: data: array {i} has no axis to loop over ({describe(x)})")
        if not x.shape[0] == slices[0].shape[0]:
            raise ValueError(
                f"foreach: data: all arrays have the same first axis; array 0 is {describe(slices[0])}, array {i} {describe(x)}"
            )
    return slices[0].shape[0]


def _unit_slices(slices: Sequence[NDArray]) -> list[NDArray]:
    return [zeros((1, *x.shape[1:]), dtype=x.dtype, device=x._device) for x in slices]


class _Shapes:
    """An interpreter that computes types only: what a loop of no steps would have returned. Values are zeros of no size
    in memory; nothing is written."""

    transparent = False
    recording = False

    @staticmethod
    def under() -> _Pushed:
        """Context in which this interpreter runs."""
        return _Pushed()

    def process(self, frame: Any, op: Op, arrays: tuple[NDArray, ...], attrs: dict[str, Any]) -> Any:
        """Results of the right types."""
        device = arrays[0]._device if arrays else current_device()
        types = op.infer(*[ArrayType(a.shape, a.dtype) for a in arrays], **attrs)
        found = tuple([wrap(np.broadcast_to(np.zeros((), t.dtype), tuple(map(int, t.shape))), device) for t in types])
        return found[0] if op.results == 1 else found

    def write(self, frame: Any, array: NDArray, value: NDArray, index: Any) -> None:
        """Nothing: this step does not take place."""


class _Pushed:
    def __enter__(self) -> None:
        self._token = _apply.push(_Shapes(), isolated=True)

    def __exit__(self, *_: object) -> None:
        _apply.pop(self._token)
