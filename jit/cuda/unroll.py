"""Loops whose rounds don't depend on each other, with the loads of several rounds in front of their stores.

A thread waits for what it loads; several loads on their way at once are what keeps memory busy. The CUDA compiler doesn't move
a load above a store that may be to the same memory, as in an `in_place` kernel, whose contract (each element is read before it
is written, and nothing else is) allows just that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..loopir import Apply, Const, Expr, For, Kernel, Let, Load, Prefetch, Stmt, Store, Var, apply, walk_exprs, walk_statements
from ..target import ITEMSIZE

__all__ = ["independent", "interleaved", "rounds_of"]

MOST = 8


def independent(s: For, kernel: Kernel) -> bool:
    """Whether a loop only names values and stores them, to buffers that the kernel doesn't load."""
    if s.unroll < 2 or not all(isinstance(x, Let | Store | Prefetch) for x in s.body):
        return False
    stored = {x.buffer for x in s.body if isinstance(x, Store)}
    return bool(stored) and stored.isdisjoint(_loaded(kernel))


def _loaded(kernel: Kernel) -> set[str]:
    from .barriers import expressions

    return {e.buffer for s in walk_statements(kernel.body) for x in expressions(s) for e in walk_exprs(x) if isinstance(e, Load)}


def rounds_of(s: For, kernel: Kernel) -> int:
    """How many rounds are joined: as many as the loop asks for, twice that where no element takes more than two bytes."""
    from .barriers import expressions

    dtypes = {b.name: b.dtype for b in kernel.buffers}
    touched = {x.buffer for x in s.body if isinstance(x, Store)}
    touched |= {e.buffer for x in s.body for y in expressions(x) for e in walk_exprs(y) if isinstance(e, Load)}
    narrow = all(ITEMSIZE[dtypes[b]] <= 2 for b in touched)
    return min(MOST, s.unroll * 2) if narrow else s.unroll


def interleaved(s: For, rounds: int) -> list[Stmt]:
    """A loop over `rounds` rounds at once, and a loop over what is left."""
    width = rounds * s.step
    rest = s.start + apply("max", s.stop - s.start, 0) // width * width
    body = [x for x in s.body if not isinstance(x, Prefetch)]
    lets: list[Stmt] = []
    stores: list[Stmt] = []
    for k in range(rounds):
        names: dict[str, Expr] = {s.var: Var(s.var) + k * s.step}
        for n, x in enumerate(body):
            name = f"{x.name}_{k}" if isinstance(x, Let) else f"{s.var}_value{n}_{k}"
            value = _renamed(x.value, names)  # type: ignore[union-attr]
            lets.append(Let(name, value))
            if isinstance(x, Let):
                names[x.name] = Var(name, value.type)
                continue
            assert isinstance(x, Store)
            index, mask = _renamed(x.index, names), None if x.mask is None else _renamed(x.mask, names)
            if any(isinstance(e, Load) for e in walk_exprs(index)):
                lets.append(Let(f"{name}_at", index))
                index = Var(f"{name}_at", index.type)
            if mask is not None and any(isinstance(e, Load) for e in walk_exprs(mask)):
                lets.append(Let(f"{name}_if", mask))
                mask = Var(f"{name}_if", mask.type)
            stores.append(Store(x.buffer, index, Var(name, value.type), mask))
    if isinstance(rest, Const) and isinstance(s.start, Const) and isinstance(s.stop, Const):
        main, left = rest.value > s.start.value, rest.value < s.stop.value
        return [*([For(s.var, s.start, rest, width, (*lets, *stores))] if main else []),
                *([For(s.var, rest, s.stop, s.step, s.body)] if left else [])]
    middle = Var(f"{s.var}_rest")
    return [Let(middle.name, rest), For(s.var, s.start, middle, width, (*lets, *stores)),
            For(s.var, middle, s.stop, s.step, s.body)]


def _renamed(e: Expr, names: Mapping[str, Expr]) -> Expr:
    """The expression with other expressions in place of some names; equal objects stay one."""
    known: dict[int, Expr] = {}

    def go(e: Expr) -> Expr:
        found = known.get(id(e))
        if found is None:
            if isinstance(e, Var):
                found = names.get(e.name, e)
            elif isinstance(e, Apply):
                args: Sequence[Expr] = tuple(map(go, e.args))
                found = e if all(a is b for a, b in zip(args, e.args)) else Apply(e.op, tuple(args), e.type)
            elif isinstance(e, Load):
                found = Load(e.buffer, go(e.index), e.type, None if e.mask is None else go(e.mask))
            else:
                found = e
            known[id(e)] = found
        return found

    return go(e)
