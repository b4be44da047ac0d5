"""Whether a launch can do with 32-bit sizes: the ranges of everything that a kernel computes with C type I.

While a kernel is printed, a step is noted for each such value: how its range follows from those before it. The steps are
plain data, kept with the kernel; at a launch, with the parameters known, they are evaluated in the arithmetic of intervals,
which tells for certain that nothing leaves the range of an int32 (lanes that are switched off included).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["MOST_WORKERS", "Ranges", "fits_int32"]

Interval = tuple[int, int]
MOST_WORKERS = 1 << 20
"""A launch has no more workers (blocks times workers a block)."""
_LEAST, _MOST = -(1 << 31), (1 << 31) - 1


class Ranges:
    """The steps of one kernel: tuples of a rule's name, numbers of earlier steps, and numbers."""

    def __init__(self) -> None:
        self.steps: list[tuple[Any, ...]] = []
        self._known: dict[tuple[Any, ...], int] = {}

    def note(self, rule: str, *operands: int) -> int:
        """The number of a step."""
        step = (rule, *operands)
        if step not in self._known:
            self._known[step] = len(self.steps)
            self.steps.append(step)
        return self._known[step]


def fits_int32(steps: Sequence[Sequence[Any]], parameters: Sequence[int], tasks: int) -> bool:
    """Whether a launch of `tasks` tasks with these parameters stays within int32; `steps` as noted by the printer."""
    found: list[Interval] = []
    for rule, *operands in steps:
        if rule == "parameter":
            low, high = parameters[operands[0]], parameters[operands[0]]
        elif rule == "task":
            low, high = 0, max(tasks, 1) - 1
            if high + MOST_WORKERS > _MOST:  # the loop's last step goes beyond the end
                return False
        elif rule == "const":
            low, high = operands[0], operands[0]
        elif rule == "loop":
            start, stop, step = found[operands[0]], found[operands[1]], operands[2]
            low, high = start[0], max(start[1], stop[1] - 1)
            if high + step > _MOST:
                return False
        elif rule == "lanes":
            low, high = found[operands[0]][0], found[operands[0]][1] + operands[1] - 1
        else:
            low, high = _RULES[rule](*[found[k] for k in operands])
        if low < _LEAST or high > _MOST:
            return False
        found.append((low, high))
    return True


def _corners(combine: Callable[[int, int], int]) -> Callable[[Interval, Interval], Interval]:
    def rule(a: Interval, b: Interval) -> Interval:
        values = [combine(x, y) for x in a for y in b]
        return min(values), max(values)

    return rule


def _floordiv(a: Interval, b: Interval) -> Interval:
    if b[0] < 0:
        most = max(abs(a[0]), abs(a[1]))
        return -most, most
    values = [x // y for x in a for y in (max(b[0], 1), max(b[1], 1))] + [0] * (b[0] == 0)
    return min(values), max(values)


def _mod(a: Interval, b: Interval) -> Interval:
    return min(b[0] + 1, 0), max(b[1] - 1, 0)


def _absolute(a: Interval) -> Interval:
    return min(abs(a[0]), abs(a[1])) if a[0] * a[1] > 0 else 0, max(abs(a[0]), abs(a[1]))


def _either(a: Interval, b: Interval) -> Interval:
    return min(a[0], b[0]), max(a[1], b[1])


_add = _corners(lambda x, y: x + y)
_mul = _corners(lambda x, y: x * y)
_RULES: dict[str, Callable[..., Interval]] = {
    "add": _add, "sub": _corners(lambda x, y: x - y), "mul": _mul, "neg": lambda a: (-a[1], -a[0]), "abs": _absolute,
    "min": lambda a, b: (min(a[0], b[0]), min(a[1], b[1])), "max": lambda a, b: (max(a[0], b[0]), max(a[1], b[1])),
    "floordiv": _floordiv, "mod": _mod, "fma": lambda a, b, c: _add(_mul(a, b), c), "select": _either,
    "clip": lambda low, high: (min(low[0], high[0]), max(low[1], high[1])),
    "ramp": lambda base, step, lane: _add(base, _mul(step, lane)),
}
