"""The record that says everything about one primitive operation, and the table of all of them.

An op's family file in `ndarray/ops/` is the only place that knows it. Everything else (eager execution, the tape,
the tracer, the gradient, the compiler, the generic tests) reads these records.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from .dims import Size
from .dtypes import name_of
from .scalar import Scalar

__all__ = [
    "NONDIFF", "OPAQUE", "OPS", "ArrayType", "Elementwise", "Indexed", "Op", "Reduction", "Sample", "Template", "Vjp",
    "register",
]


@dataclass(frozen=True)
class ArrayType:
    """The type of an array value: sizes (ints, or `Dim`s in a trace) and a NumPy dtype."""

    shape: tuple[Size, ...]
    dtype: np.dtype

    def __str__(self) -> str:
        return f"{name_of(self.dtype)}[{','.join(map(str, self.shape))}]"


class _Absent:
    def __init__(self, name: str):
        self._name = name

    def __repr__(self) -> str:
        return self._name


NONDIFF: Final = _Absent("NONDIFF")
"""In place of a gradient: the derivative is zero or does not exist."""
OPAQUE: Final = _Absent("OPAQUE")
"""In place of a lowering: the compiler can't look inside; the op runs on the host between native segments."""


# -- lowerings: how one element of the result is computed

@dataclass(frozen=True)
class Elementwise:
    """``function(*elements, **attrs) -> Scalar``: same position in every argument (broadcast to the result's shape).

    An op with several results returns a tuple.
    """

    function: Callable[..., Scalar | tuple[Scalar, ...]]


@dataclass(frozen=True)
class Indexed:
    """``function(index, *arguments, **attrs) -> Scalar``: the result at `index` (a tuple of int64 Scalars) from
    `Element` arguments read at any position. Reshapes, transposes, slices, padding, gathers, iota, random bits.
    """

    function: Callable[..., Scalar]


@dataclass(frozen=True)
class Reduction:
    """A fold over a domain of `reduced` positions for each position of the result.

    ``domain(*types, **attrs) -> sizes`` of the reduced axes; ``element(index, reduced, *arguments, **attrs)``
    maps positions to a tuple of Scalars; ``combine(accumulator, element)`` folds two such tuples, starting from
    ``identity(dtypes of the elements)`` (Python numbers); ``post(accumulator, *types, **attrs)`` gives the tuple of
    results. `combine` is associative and commutative unless `ordered`; the compiler may then split the fold. `append`, if
    given, is a cheaper `combine` for an element that comes after all that the accumulator has seen, in row-major order.
    """

    domain: Callable[..., tuple[Size, ...]]
    element: Callable[..., tuple[Scalar, ...]]
    combine: Callable[[tuple[Scalar, ...], tuple[Scalar, ...]], tuple[Scalar, ...]]
    identity: Callable[[tuple[np.dtype, ...]], tuple[Any, ...]]
    post: Callable[..., tuple[Scalar, ...]] = lambda accumulator, *types, **attrs: accumulator
    ordered: bool = False
    append: Callable[[tuple[Scalar, ...], tuple[Scalar, ...]], tuple[Scalar, ...]] | None = None


@dataclass(frozen=True)
class Template:
    """A family of kernels that the compiler owns (``"dot_general"``, ``"convolution"``, ``"scatter_add"`` ...)."""

    name: str


Lowering = Elementwise | Indexed | Reduction | Template | _Absent


# -- gradients

@dataclass(frozen=True)
class Vjp:
    """The gradient rule with respect to one argument, and what it keeps from the forward pass.

    `rule` is a function whose parameter names say what it needs: ``g`` (the cotangent of the result; ``g0, g1 ...``
    for an op with several results, None where nothing flowed in), the op's argument names, ``out`` (or ``out0,
    out1 ...``), ``x_type`` (the `ArrayType` of argument x, whose values are then not kept), and attribute names. It is
    written in public array functions, so that the same rule serves the tape, higher orders and graphs. What it returns
    may have a broadcast shape: the caller sums it to the argument's.
    """

    rule: Callable[..., Any]
    parameters: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameters", tuple(inspect.signature(self.rule).parameters))

    def keeps(self, op: Op) -> tuple[str, ...]:
        """The names of the arguments and results that the rule reads."""
        return tuple(p for p in self.parameters if p in op.arguments or p.startswith("out"))

    def types(self, op: Op) -> tuple[str, ...]:
        """The names of the arguments of which the rule reads the type only."""
        return tuple(a for a in op.arguments if f"{a}_type" in self.parameters)


@dataclass(frozen=True)
class Sample:
    """Inputs from which the generic tests are made: NumPy arrays and attributes.

    `reference(*arrays, **attrs)` is an independent NumPy implementation; `error` (an exception class) says that the
    user-facing call must be refused instead. `tolerance` multiplies the default tolerance of its dtype.
    """

    arrays: tuple[np.ndarray, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    reference: Callable[..., Any] | None = None
    error: type[Exception] | None = None
    differentiable: bool = True
    tolerance: float = 1.0


@dataclass(frozen=True, eq=False)
class Op:
    """One primitive operation.

    name        the key in `OPS`, and the word that graphs print
    arguments   names of the array arguments, in order; a single ``"*xs"`` takes any number
    infer       ``(*ArrayTypes, **attrs) -> tuple[ArrayType, ...]``, or a TypeError/ValueError that names the op, the
                argument, what was expected and what came
    eager       ``(array_module, *arrays, **attrs) -> array or tuple``, on NumPy-like arrays; must not write its arguments
    vjp         {argument name: `Vjp`}, arguments not named being NONDIFF; for ``"*xs"`` one function
                ``(g, xs, out, **attrs) -> tuple``; or NONDIFF
    lower       an `Elementwise`, `Indexed`, `Reduction` or `Template`, or OPAQUE
    samples     ``() -> iterable of Sample``
    results     how many arrays it returns
    traits      words that passes ask for: "elementwise", "view" (eagerly shares memory), "random", "linear", "effect"
    """

    name: str
    arguments: tuple[str, ...]
    infer: Callable[..., tuple[ArrayType, ...]]
    eager: Callable[..., Any]
    vjp: Mapping[str, Vjp] | Callable[..., tuple] | _Absent
    lower: Lowering
    samples: Callable[[], Iterable[Sample]]
    results: int = 1
    traits: frozenset[str] = frozenset()

    @property
    def variadic(self) -> bool:
        return self.arguments[:1] != () and self.arguments[0].startswith("*")

    def __repr__(self) -> str:
        return self.name


_table: dict[str, Op] = {}
OPS: Mapping[str, Op] = MappingProxyType(_table)
"""Every registered op by name."""


def register(op: Op) -> Op:
    """Check that a record is complete and put it in the table; returns it.

    Raises TypeError where a field is missing or has the wrong form, ValueError where the name is taken.
    """
    if op.name in _table:
        raise ValueError(f"op {op.name!r} is registered twice")
    for name in ("infer", "eager", "samples"):
        if not callable(getattr(op, name)):
            raise TypeError(f"op {op.name!r}: `{name}` must be a function, got {getattr(op, name)!r}")
    if not isinstance(op.lower, Lowering):
        raise TypeError(f"op {op.name!r}: `lower` must be a lowering or OPAQUE, got {op.lower!r}")
    if isinstance(op.vjp, Mapping):
        results = {"g", "out"} if op.results == 1 else {f"{k}{i}" for k in ("g", "out") for i in range(op.results)}
        for argument, vjp in op.vjp.items():
            if argument not in op.arguments:
                raise TypeError(f"op {op.name!r}: a gradient for {argument!r}, which is none of {op.arguments}")
            if not results & set(vjp.parameters):
                raise TypeError(f"op {op.name!r}: the gradient for {argument!r} never reads a cotangent ({sorted(results)})")
    elif not (op.vjp is NONDIFF or (callable(op.vjp) and op.variadic)):
        raise TypeError(f"op {op.name!r}: `vjp` must be a mapping of `Vjp`s or NONDIFF, got {op.vjp!r}")
    if isinstance(op.lower, Elementwise) and "elementwise" not in op.traits:
        op = Op(**{**op.__dict__, "traits": op.traits | {"elementwise"}})
    _table[op.name] = op
    return op
