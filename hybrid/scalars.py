"""Python floats that a traced function takes in: 0-d inputs, so that a new value needs no new program.

A `ScalarInput` passes for a float (``isinstance(s, float)`` holds, arithmetic works) and turns into a 0-d array of the
right dtype where it meets an array. Code that must know the number now (``if s > 0``, ``int(s)``, ``math.sqrt(s)``)
gets it, and the trace is then *pinned*: valid for this value only.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np

from ndarray.apply import apply
from ndarray.array import NDArray, literal, wrap
from ndarray.device import Device, current_device
from ndarray.dims import Dim
from ndarray.op import OPS

from .trace import Cell, LeakedTracerError, Traced, Tracer, current_tracer

__all__ = ["NumberOf", "ScalarInput", "Together", "argument_scalar", "scalar_input"]

_F64 = np.dtype(np.float64)


class ScalarInput:
    """A float known when the program runs. `roots` are the inputs that it is computed from."""

    __slots__ = ("_array", "_hint", "_roots", "_tracer")
    __class__ = property(lambda self: float)
    __array_ufunc__ = None

    def __init__(self, tracer: Tracer, array: NDArray, hint: Callable[[], float], roots: tuple[int, ...]):
        self._tracer, self._array, self._hint, self._roots = tracer, array, hint, roots

    def as_array(self, dtype: Any, device: Device) -> NDArray:
        """The number as a 0-d array; `ndarray.array.literal` asks for it."""
        if not self._tracer.active:
            raise LeakedTracerError(
                f"a traced number of {self._tracer.name!r} is used after its trace; return it instead of keeping it"
            )
        array = self._array
        if array._device is not device:
            array = wrap(array._data, device)
        return array if array.dtype == dtype else apply(OPS["cast"], array, dtype=np.dtype(dtype))

    def astype(self, dtype: Any, copy: bool = True) -> NDArray:
        """The number as a 0-d array of a dtype."""
        return self.as_array(np.dtype(dtype), current_device())

    def _pin(self) -> float:
        for root in self._roots:
            self._tracer.pinned[root] = self._tracer.hints[root]()
        return self._hint()

    def __float__(self) -> float:
        return self._pin()

    def __int__(self) -> int:
        return int(self._pin())

    def __bool__(self) -> bool:
        return bool(self._pin())

    def __hash__(self) -> int:
        return hash(self._pin())

    def __round__(self, digits: int | None = None) -> Any:
        return round(self._pin(), digits)

    def __trunc__(self) -> int:
        return int(self._pin())

    def __format__(self, spec: str) -> str:
        return format(self._hint(), spec)

    def __repr__(self) -> str:
        return repr(self._hint())

    def is_integer(self) -> bool:
        """float.is_integer."""
        return self._pin().is_integer()


def _arithmetic(op: str, function: Callable, reflected: bool) -> Callable:
    def method(self: ScalarInput, other: Any) -> Any:
        if type(other) is ScalarInput:
            right, hint, roots = other._array, other._hint, other._roots
        elif isinstance(other, NDArray):
            return NotImplemented
        elif isinstance(other, Dim):
            right, hint, roots = other.as_array(_F64, self._array._device), (lambda: float(other.hint)), ()
        elif isinstance(other, (int, float, np.generic)):
            right, hint, roots = literal(float(other), _F64, self._array._device), (lambda: float(other)), ()
        else:
            return NotImplemented
        pair = (right, self._array) if reflected else (self._array, right)
        mine = self._hint
        value = (lambda: function(hint(), mine())) if reflected else (lambda: function(mine(), hint()))
        return ScalarInput(self._tracer, apply(OPS[op], *pair), value, tuple(dict.fromkeys(self._roots + roots)))

    return method


def _comparison(function: Callable) -> Callable:
    def method(self: ScalarInput, other: Any) -> Any:
        if isinstance(other, NDArray):
            return NotImplemented
        return function(self._pin(), float(other) if type(other) is ScalarInput else other)

    return method


for _name, _op, _function in (
    ("add", "add", operator.add), ("sub", "subtract", operator.sub), ("mul", "multiply", operator.mul),
    ("truediv", "divide", operator.truediv), ("floordiv", "floor_divide", operator.floordiv),
    ("mod", "remainder", operator.mod), ("pow", "power", operator.pow),
):
    setattr(ScalarInput, f"__{_name}__", _arithmetic(_op, _function, False))
    setattr(ScalarInput, f"__r{_name}__", _arithmetic(_op, _function, True))
for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    setattr(ScalarInput, f"__{_name}__", _comparison(getattr(operator, _name)))


def _unary(op: str, function: Callable) -> Callable:
    def method(self: ScalarInput) -> ScalarInput:
        mine = self._hint
        return ScalarInput(self._tracer, apply(OPS[op], self._array), lambda: function(mine()), self._roots)

    return method


for _name, _method in (("neg", _unary("negative", operator.neg)), ("abs", _unary("abs", abs)), ("pos", lambda self: self)):
    setattr(ScalarInput, f"__{_name}__", _method)


def argument_scalar(tracer: Tracer, value: float, name: str = "") -> ScalarInput:
    """A new input for a float argument, whose value in the present call is `value`."""
    scalar = _make(tracer, None, lambda: value, name)
    tracer.arguments = len(tracer.inputs)
    return scalar


def scalar_input(getter: Callable[[], float]) -> Any:
    """A number that ``getter()`` gives anew at each call of the compiled program (in the order in which they were made).

    Outside a trace: ``getter()``. A learning rate, say, which a schedule changes.
    """
    tracer = current_tracer()
    if tracer is None:
        return getter()
    seen: list[float] = []

    def once() -> float:  # the call that is being traced reads it once, whether or not the trace looks at it
        if not seen:
            seen.append(float(getter()))
        return seen[0]

    return _make(tracer, getter, once, "")


class Together:
    """Numbers that are read all at once: ``read(first)`` gives them in a list; ``getters[k]``, for `scalar_input`, gives number
    k. `first` says whether number 0 is among those that are wanted, with which a call begins."""

    __slots__ = ("_last", "getters", "read")

    def __init__(self, read: Callable[[bool], Sequence[float]], count: int):
        self.read, self._last = read, cast("Sequence[float]", ())
        self.getters = [NumberOf(self, k) for k in range(count)]

    def one(self, k: int) -> float:
        """Number k, read by itself: the others are then those that came with number 0."""
        if k == 0 or not self._last:
            self._last = self.read(k == 0)
        return self._last[k]


class NumberOf:
    """Gives one of some numbers that are read together."""

    __slots__ = ("number", "together")

    def __init__(self, together: Together, number: int):
        self.together, self.number = together, number

    def __call__(self) -> float:
        return self.together.one(self.number)


def _make(tracer: Tracer, getter: Callable[[], float] | None, hint: Callable[[], float], name: str) -> ScalarInput:
    while (outside := getattr(tracer, "parent", None)) is not None:  # in a loop's body: an input of the whole trace
        tracer = outside
    number, value = tracer.scalar(getter, name)
    tracer.hints[number] = hint
    array = wrap(Traced(tracer, Cell(value), value), current_device())
    return ScalarInput(tracer, array, hint, (number,))

