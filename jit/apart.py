"""Loops that become functions of their own (`For.apart`): equal ones of several kernels are written and compiled once.

Two loops are equal if one is the other after renaming, given the same facts about what they read from outside: which of it
is a known number, and which is never negative. `Functions` numbers expressions and statements so that equal ones have equal
numbers, whatever their names are.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import NamedTuple

from .loopir import INT, Apply, Const, Expr, For, Get, If, Let, Load, Prefetch, Register, Set, Stmt, Store, Var, const

__all__ = ["Functions", "Loop"]


class Loop(NamedTuple):
    """What a loop computes, under any names, and what it takes from outside."""

    key: tuple[object, ...]
    variables: tuple[Var, ...]
    buffers: tuple[str, ...]


class Functions:
    """The functions of one library that stand for loops.

    `texts` collects the definitions for the module at hand and `declarations` what they call, `take` empties both.
    """

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.declarations: set[str] = set()
        self._numbers: dict[tuple[object, ...], int] = {}
        self._found: dict[tuple[object, ...], tuple[str, str]] = {}
        self._here: set[str] = set()
        self._count = count()

    def symbol(self, key: tuple[object, ...], parameters: str, define: Callable[[str], str], declarations: set[str]) -> str:
        """The symbol of the function for a key, whose declaration is added to `declarations`. `define(symbol)` is its text, asked
        for once; `parameters` are their types."""
        found = self._found.get(key)
        if found is None:
            symbol = f"apart.{next(self._count)}"
            text = define(symbol)
            found = self._found[key] = (symbol, f"declare hidden void @{symbol}({parameters})")
            self._here.add(found[1])
            self.texts.append(text)
        declarations.add(found[1])
        return found[0]

    def take(self, declarations: set[str]) -> tuple[list[str], set[str]]:
        """(the definitions of the module at hand, which ends here; what must be declared there, where functions with such
        `declarations` stand beside them)."""
        texts, needed = self.texts, (self.declarations | declarations) - self._here
        self.texts, self.declarations, self._here = [], set(), set()
        return texts, needed

    def describe(self, loop: For, literal: Callable[[str], int | None], natural: Callable[[str], bool],
                 dtypes: dict[str, str]) -> Loop | None:
        """The loop as a function; None where it shares registers with what is around it, or reads vectors from there.

        literal   (variable) -> its value where that is a known number
        natural   whether a variable is known not to be negative
        """
        scanner = _Scanner(self._numbers, literal)
        try:
            body = scanner.statement(loop)
        except _Tied:
            return None
        variables = tuple(scanner.outside)
        known = tuple((v.type, scanner.divides and natural(v.name)) for v in variables)
        facts = (known, tuple(dtypes[b] for b in scanner.buffers))
        return Loop((body, *facts), variables, tuple(scanner.buffers))


class _Tied(Exception):
    """The loop can't be a function."""


class _Scanner:
    """Numbers the parts of one loop."""

    def __init__(self, numbers: dict[tuple[object, ...], int], literal: Callable[[str], int | None]):
        self.numbers, self.literal = numbers, literal
        self.names: dict[str, int] = {}  # bound within
        self.registers: dict[str, int] = {}
        self.outside: dict[Var, int] = {}
        self.buffers: dict[str, int] = {}
        self.memo: dict[int, int] = {}
        self.divides = False  # only then it matters what is never negative

    def number(self, *parts: object) -> int:
        return self.numbers.setdefault(parts, len(self.numbers))

    def bound(self, names: dict[str, int], name: str) -> int:
        return names.setdefault(name, len(names))

    def expr(self, e: Expr) -> int:
        found = self.memo.get(id(e))
        if found is None:
            found = self.memo[id(e)] = self._expr(e)
        return found

    def _expr(self, e: Expr) -> int:
        if isinstance(e, Apply):
            self.divides |= e.op in ("floordiv", "mod")
            return self.number(e.op, e.type, *map(self.expr, e.args))
        if isinstance(e, Var):
            return self._var(e)
        if isinstance(e, Const):
            return self.number(e)
        if isinstance(e, Load):
            return self.number("load", self.buffer(e.buffer), self.expr(e.index), e.type, self.optional(e.mask))
        assert isinstance(e, Get)
        if e.name not in self.registers:
            raise _Tied
        return self.number("get", self.registers[e.name])

    def _var(self, e: Var) -> int:
        if e.name in self.names:
            return self.number("inside", self.names[e.name], e.type)
        value = self.literal(e.name) if e.type == INT else None
        if value is not None:
            return self.number(const(value))
        if e.type.lanes > 1:
            raise _Tied
        return self.number("outside", self.outside.setdefault(e, len(self.outside)))

    def buffer(self, name: str) -> int:
        return self.buffers.setdefault(name, len(self.buffers))

    def optional(self, e: Expr | None) -> int | None:
        return None if e is None else self.expr(e)

    def body(self, body: tuple[Stmt, ...]) -> tuple[int, ...]:
        return tuple(map(self.statement, body))

    def statement(self, s: Stmt) -> int:
        if isinstance(s, Let):
            value = self.expr(s.value)
            return self.number("let", self.bound(self.names, s.name), value)
        if isinstance(s, Register):
            value = self.expr(s.value)
            return self.number("register", self.bound(self.registers, s.name), value)
        if isinstance(s, Set):
            if s.name not in self.registers:
                raise _Tied
            return self.number("set", self.registers[s.name], self.expr(s.value))
        if isinstance(s, Store):
            return self.number("store", self.buffer(s.buffer), self.expr(s.index), self.expr(s.value), self.optional(s.mask))
        if isinstance(s, Prefetch):
            return self.number("prefetch", self.buffer(s.buffer), self.expr(s.index))
        if isinstance(s, If):
            return self.number("if", self.expr(s.condition), self.body(s.then), self.body(s.otherwise))
        start, stop = self.expr(s.start), self.expr(s.stop)
        variable = self.bound(self.names, s.var)
        return self.number("for", variable, start, stop, s.step, s.unroll, s.apart, self.body(s.body))
