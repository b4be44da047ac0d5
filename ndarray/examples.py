"""Examples for the docstrings of the functions that are made from a table or a rule rather than written out.

They run as doctests with the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["EXAMPLES", "document"]

EXAMPLES: dict[str, tuple[str, str]] = {
    "abs": ("nd.abs(nd.array([-1.5, 2.0]))", "array([1.5, 2. ])"),
    "add": ("nd.add(nd.array([1, 2]), 3)", "array([4, 5])"),
    "all": ("nd.all(nd.array([[1, 0], [2, 3]]), axis=1)", "array([False,  True])"),
    "any": ("nd.any(nd.array([[0, 0], [2, 0]]), axis=1)", "array([False,  True])"),
    "arccos": ("nd.acos(nd.array([1.0, 0.0]))", "array([0.       , 1.5707964])"),
    "arccosh": ("nd.acosh(nd.array([1.0, 2.0]))", "array([0.      , 1.316958])"),
    "arcsin": ("nd.asin(nd.array([0.0, 1.0]))", "array([0.       , 1.5707964])"),
    "arcsinh": ("nd.asinh(nd.array([0.0, 1.0]))", "array([0.       , 0.8813736])"),
    "arctan": ("nd.atan(nd.array([0.0, 1.0]))", "array([0.       , 0.7853982])"),
    "arctan2": ("nd.arctan2(nd.array([1.0, -1.0]), 1.0)", "array([ 0.7853981, -0.7853981])"),
    "arctanh": ("nd.atanh(nd.array([0.0, 0.5]))", "array([0.        , 0.54930615])"),
    "argmax": ("nd.argmax(nd.array([3, 9, 5]))", "array(1)"),
    "argmin": ("nd.argmin(nd.array([3, 9, 1]))", "array(2)"),
    "bitwise_and": ("nd.bitwise_and(nd.array([12, 10]), 6)", "array([4, 2])"),
    "bitwise_or": ("nd.bitwise_or(nd.array([12, 10]), 1)", "array([13, 11])"),
    "bitwise_xor": ("nd.bitwise_xor(nd.array([12, 10]), 6)", "array([10, 12])"),
    "ceil": ("nd.ceil(nd.array([1.2, -1.2]))", "array([ 2., -1.])"),
    "copysign": ("nd.copysign(nd.array([1.0, 2.0]), nd.array([-1.0, 1.0]))", "array([-1.,  2.])"),
    "cos": ("nd.cos(nd.array([0.0, 1.0]))", "array([1.       , 0.5403023])"),
    "cosh": ("nd.cosh(nd.array([0.0, 1.0]))", "array([1.       , 1.5430807])"),
    "divide": ("nd.divide(nd.array([1.0, 4.0]), 2)", "array([0.5, 2. ])"),
    "equal": ("nd.equal(nd.array([1, 2]), 2)", "array([False,  True])"),
    "erf": ("nd.erf(nd.array([0.0, 1.0]))", "array([0.       , 0.8427008])"),
    "exp": ("nd.exp(nd.array([0.0, 1.0]))", "array([1.      , 2.718282])"),
    "exp2": ("nd.exp2(nd.array([0.0, 3.0]))", "array([1., 8.])"),
    "expm1": ("nd.expm1(nd.array([0.0, 1.0]))", "array([0.       , 1.7182819])"),
    "floor": ("nd.floor(nd.array([1.7, -1.2]))", "array([ 1., -2.])"),
    "floor_divide": ("nd.floor_divide(nd.array([7, -7]), 2)", "array([ 3, -4])"),
    "greater": ("nd.greater(nd.array([1, 3]), 2)", "array([False,  True])"),
    "greater_equal": ("nd.greater_equal(nd.array([1, 2]), 2)", "array([False,  True])"),
    "hypot": ("nd.hypot(nd.array([3.0]), nd.array([4.0]))", "array([5.])"),
    "left_shift": ("nd.left_shift(nd.array([1, 2]), 3)", "array([ 8, 16])"),
    "less": ("nd.less(nd.array([1, 3]), 2)", "array([ True, False])"),
    "less_equal": ("nd.less_equal(nd.array([2, 3]), 2)", "array([ True, False])"),
    "log": ("nd.log(nd.array([1.0, 10.0]))", "array([0.       , 2.3025851])"),
    "log10": ("nd.log10(nd.array([1.0, 100.0]))", "array([0.       , 2.0000002])"),
    "log1p": ("nd.log1p(nd.array([0.0, 1.0]))", "array([0.       , 0.6931472])"),
    "log2": ("nd.log2(nd.array([1.0, 8.0]))", "array([0., 3.])"),
    "max": ("nd.max(nd.array([[1, 5], [7, 2]]), axis=0)", "array([7, 5])"),
    "maximum": ("nd.maximum(nd.array([1, 5]), 3)", "array([3, 5])"),
    "min": ("nd.min(nd.array([[1, 5], [7, 2]]), axis=0)", "array([1, 2])"),
    "minimum": ("nd.minimum(nd.array([1, 5]), 3)", "array([1, 3])"),
    "multiply": ("nd.multiply(nd.array([1, 2]), 3)", "array([3, 6])"),
    "ndtr": ("nd.ndtr(nd.array([0.0, 9.0]))", "array([0.5, 1. ])"),
    "negative": ("nd.negative(nd.array([1, -2]))", "array([-1,  2])"),
    "nextafter": ("nd.nextafter(nd.array([1.0]), 2.0) > 1", "array([ True])"),
    "not_equal": ("nd.not_equal(nd.array([1, 2]), 2)", "array([ True, False])"),
    "prod": ("nd.prod(nd.array([[1, 2], [3, 4]]), axis=1)", "array([ 2, 12])"),
    "remainder": ("nd.remainder(nd.array([7, -7]), 3)", "array([1, 2])"),
    "right_shift": ("nd.right_shift(nd.array([8, 16]), 2)", "array([2, 4])"),
    "rint": ("nd.rint(nd.array([0.5, 1.5, 2.4]))", "array([0., 2., 2.])"),
    "sin": ("nd.sin(nd.array([0.0, 1.0]))", "array([0.      , 0.841471])"),
    "sinh": ("nd.sinh(nd.array([0.0, 1.0]))", "array([0.       , 1.1752012])"),
    "sqrt": ("nd.sqrt(nd.array([1.0, 9.0]))", "array([1., 3.])"),
    "subtract": ("nd.subtract(nd.array([5, 2]), 3)", "array([ 2, -1])"),
    "sum": ("nd.sum(nd.array([[1, 2], [3, 4]]), axis=0)", "array([4, 6])"),
    "tan": ("nd.tan(nd.array([0.0, 1.0]))", "array([0.       , 1.5574077])"),
    "tanh": ("nd.tanh(nd.array([0.0, 1.0]))", "array([0.       , 0.7615942])"),
    "trunc": ("nd.trunc(nd.array([1.7, -1.7]))", "array([ 1., -1.])"),
}
"""Name of a function -> (a call, what it prints)."""


def document(functions: Mapping[str, Any]) -> None:
    """Append the examples to the docstrings of the functions that lack one."""
    for name, (call, printed) in EXAMPLES.items():
        function = functions[name]
        if ">>>" not in (function.__doc__ or ""):
            function.__doc__ = f"{function.__doc__ or name}\n\n>>> {call}\n{printed}\n"
