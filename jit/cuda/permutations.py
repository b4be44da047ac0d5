"""Operations across the lanes of vectors, as texts: reductions, one lane, and shuffles.

A builder takes the printer and the node and returns its value. What needs other threads is bound to a name at once, so
that all threads of the worker get there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..loopir import Apply
from . import operations as ops

if TYPE_CHECKING:
    from .expressions import Expressions, Value

__all__ = ["PERMUTATIONS"]


def _operands(f: Expressions, e: Apply) -> list[Value]:
    """The vectors, as int64 where they are indices and with names."""
    vectors = e.args[:1] if e.op == "lane" else e.args
    return [f.name_of(f.wide(f.value(a)), a.type.dtype) for a in vectors]


def _value(parts: list[str]) -> Value:
    from .expressions import Value

    return Value(tuple(parts))


def _from(f: Expressions, text: str, source: str, dtype: str) -> str:
    return f.bind(f"from_lane<{f.lanes}>({text}, {source})", ops.value_type(dtype))


def _lane(f: Expressions, e: Apply) -> Value:
    (vector,), number = _operands(f, e), int(e.args[1].value)  # type: ignore[attr-defined]
    part, thread = divmod(number, f.lanes)
    return _value([_from(f, vector.parts[part], str(thread), e.type.dtype)])


def _reduce(f: Expressions, e: Apply) -> Value:
    op, operand = e.op.removeprefix("reduce_"), e.args[0].type
    (vector,) = _operands(f, e)
    found, type = ops.pattern(op, operand.dtype), ops.value_type(operand.dtype)
    if found is None:
        raise TypeError(f"operation {e.op!r} isn't defined for operands of type {operand}")
    parts = list(vector.parts)
    while len(parts) > 1:
        half = len(parts) // 2
        texts = [found.replace("{0}", a).replace("{1}", b) for a, b in zip(parts[:half], parts[half:])]
        parts = [f.bind(t, type) for t in texts]
    if operand.dtype == "bool":
        every = op in ("and", "mul", "min")
        return _value([f.bind(f"{'all' if every else 'any'}<{f.lanes}>({parts[0]})", "bool")])
    name = "reduce" if op in ("min", "max") else "reduce_symmetric"
    combine = f"[]({type} a, {type} b) {{ return {found.replace('{0}', 'a').replace('{1}', 'b')}; }}"
    return _value([f.bind(f"{name}<{f.lanes}, {min(operand.lanes, f.lanes)}>({parts[0]}, {combine})", type)])


def _reverse(f: Expressions, e: Apply) -> Value:
    (vector,), lanes = _operands(f, e), e.type.lanes
    source = f"{min(lanes, f.lanes) - 1} - {f.lane_of(min(lanes, f.lanes))}"
    return _value([_from(f, p, source, e.type.dtype) for p in reversed(vector.parts)])


def _concat(f: Expressions, e: Apply) -> Value:
    a, b = _operands(f, e)
    lanes = e.args[0].type.lanes
    if lanes >= f.lanes:
        return _value([*a.parts, *b.parts])
    return _value([f"({f.lane_of(2 * lanes)} < {lanes} ? {a.parts[0]} : {b.parts[0]})"])


def _interleave(f: Expressions, e: Apply) -> Value:
    a, b = _operands(f, e)
    result = []
    for p in range(f.parts_of(e.type.lanes)):
        lane = f.lane_of(min(e.type.lanes, f.lanes))
        source = f"{lane} / 2 + {f.lanes // 2}" if p % 2 else f"{lane} / 2"
        x, y = (_from(f, v.parts[p // 2], source, e.type.dtype) for v in (a, b))
        result.append(f"({lane} % 2 ? {y} : {x})")
    return _value(result)


def _every_other(odd: int) -> Callable[[Expressions, Apply], Value]:
    def build(f: Expressions, e: Apply) -> Value:
        (vector,), lanes = _operands(f, e), e.type.lanes
        if len(vector.parts) == 1:
            return _value([_from(f, vector.parts[0], f"2 * {f.lane_of(lanes)} + {odd}", e.type.dtype)])
        result, source = [], f"(2 * lane + {odd}) % {f.lanes}"
        for p in range(len(vector.parts) // 2):
            x, y = (_from(f, vector.parts[2 * p + k], source, e.type.dtype) for k in (0, 1))
            result.append(f"(lane < {f.lanes // 2} ? {x} : {y})")
        return _value(result)

    return build


PERMUTATIONS: dict[str, Callable[[Expressions, Apply], Value]] = {
    "lane": _lane, "reverse": _reverse, "concat": _concat, "interleave": _interleave, "even": _every_other(0),
    "odd": _every_other(1), **{f"reduce_{op}": _reduce for op in ("add", "mul", "max", "min", "and", "or")},
}
