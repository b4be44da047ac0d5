"""One reduction inside a row kernel: its elements, how they are combined, and the loop IR of that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hybrid.graph import Equation
from ndarray.dtypes import name_of
from ndarray.op import Reduction
from ndarray.scalar import Scalar

from .launch import KernelBuilder
from .loopir import Apply, Const, Expr, Type, apply, cast, splat
from .nodes import Node

__all__ = ["Fold", "scalar_expr", "typed_const", "widen"]


@dataclass
class Fold:
    """One reduction of the group, ready to be emitted."""

    equation: Equation
    elements: list[Node]
    stage: int
    results: list[Node]

    @property
    def _lower(self) -> Reduction:
        lower = self.equation.op.lower
        assert isinstance(lower, Reduction)
        return lower

    @property
    def dtypes(self) -> tuple[np.dtype, ...]:
        return tuple(e.dtype for e in self.elements)

    @property
    def identity(self) -> tuple:
        return tuple(self._lower.identity(self.dtypes))

    def combiner(self, in_order: bool = False) -> tuple[Scalar, ...]:
        """`combine` as Scalars over index leaves "a0" ... (accumulator) and "e0" ... (element); `append` where there is
        one and elements come `in_order`."""
        leaf = lambda p: tuple(Scalar("index", (f"{p}{k}",), d) for k, d in enumerate(self.dtypes))
        lower = self._lower
        result = (lower.append if in_order and lower.append is not None else lower.combine)(leaf("a"), leaf("e"))
        return result if isinstance(result, tuple) else (result,)

    def horizontal(self) -> str | None:
        """The loop-IR operation that folds the lanes of one vector, if there is one."""
        combined = self.combiner()
        if len(combined) != 1 or combined[0].op not in ("add", "mul", "max", "min", "and", "or"):
            return None
        leaves = sorted(a.args[0] for a in combined[0].args if isinstance(a, Scalar) and a.op == "index")
        return f"reduce_{combined[0].op}" if leaves == ["a0", "e0"] else None


def scalar_expr(builder: KernelBuilder, scalar: Scalar, leaves: dict[str, Expr], lanes: int,
                memo: dict[Scalar, Expr] | None = None) -> Expr:
    """A small Scalar over named leaves as a loop-IR expression. `memo`: what has been made already."""
    memo = {} if memo is None else memo
    found = memo.get(scalar)
    if found is None:
        if scalar.op == "index":
            found = leaves[scalar.args[0]]
        elif scalar.op == "constant":
            found = Const(scalar.args[0], Type(name_of(scalar.dtype)))
        elif scalar.op == "size":
            found = builder.size(scalar.args[0])
        else:
            args = [scalar_expr(builder, a, leaves, lanes, memo) for a in scalar.args if isinstance(a, Scalar)]
            if scalar.op == "cast":
                found = cast(args[0], name_of(scalar.dtype))
            elif scalar.op == "bitcast":
                found = Apply("bitcast", (args[0],), Type(name_of(scalar.dtype), args[0].type.lanes))
            else:
                found = apply(scalar.op, *args)
        memo[scalar] = found
    return found


def typed_const(value: Any, dtype: np.dtype, lanes: int) -> Const:
    """A constant of a NumPy dtype."""
    value = bool(value) if dtype.kind == "b" else int(value) if dtype.kind in "iu" else float(value)
    return Const(value, Type(dtype.name, lanes))


def widen(value: Expr, lanes: int) -> Expr:
    """A scalar in every lane, if vectors are asked for."""
    return splat(value, lanes) if value.type.lanes == 1 else value
