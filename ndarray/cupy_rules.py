"""What a call of CuPy accepts: parameters and dtypes, read from `cupy_table` (which is made from CuPy itself)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import numpy as np

from . import cupy_table

__all__ = ["ATTRIBUTES", "METHODS", "SCATTER_DTYPES", "Parameters", "functions", "loop", "loops"]

SCATTER_DTYPES = {
    "add": ("int32", "uint32", "uint64", "float16", "float32", "float64"),
    "maximum": ("int32", "uint32", "uint64", "float32", "float64"),
    "minimum": ("int32", "uint32", "uint64", "float32", "float64"),
}
"""The functions whose ``at`` works, and for which dtypes (CuPy's `_scatter_op_single`)."""


class Parameters:
    """The parameters of one function."""

    def __init__(self, name: str, words: str):
        self.name, self.positional, self.keywords = name, [], set()
        self.any_position = self.any_keyword = False
        only = False
        for word in words.split():
            plain = word.strip("*=")
            if word == "/":
                continue
            if word.startswith("**"):
                self.any_keyword = True
            elif word.startswith("*"):
                self.any_position, only = self.any_position or word != "*", True
            elif only:
                self.keywords.add(plain)
            else:
                self.positional.append(plain)

    positional: list[str]
    keywords: set[str]

    def check(self, count: int, options: Iterable[str]) -> None:
        """Raise TypeError where so many positional arguments, or these keyword arguments, are not what the function takes."""
        if count > len(self.positional) and not self.any_position:
            raise TypeError(f"cupy.{self.name} takes {len(self.positional)} arguments, got {count}")
        allowed = self.keywords.union(self.positional[count:])
        for option in options:
            if option not in allowed and not self.any_keyword:
                raise TypeError(f"cupy.{self.name} takes no argument {option!r} here; it has {', '.join(sorted(allowed))}")


def _parsed(lines: str) -> dict[str, Parameters]:
    found = {}
    for line in lines.strip().splitlines():
        name, _, words = line.partition(" ")
        found[name] = Parameters(name, words)
    return found


@cache
def functions(module: str) -> Mapping[str, Parameters]:
    """The functions of a module of CuPy ("" for the main one) that are no ufuncs."""
    return _parsed(cupy_table.FUNCTIONS[module])


METHODS = _parsed(cupy_table.METHODS)
ATTRIBUTES = frozenset(cupy_table.ATTRIBUTES.split())


@cache
def loops(special: bool = False) -> Mapping[str, tuple[str, ...]]:
    """The ufuncs (of ``cupyx.scipy.special``, if `special`) and their loops, such as "ff->f"."""
    table = cupy_table.SPECIAL_UFUNCS if special else cupy_table.UFUNCS
    return {name: tuple(types.split()) for types, names in table.items() for name in names.split()}


@cache
def _dtype(char: str) -> np.dtype:
    if char == "E":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(char)


_WEAK = {bool: "?biufcE", int: "iufcE", float: "fcE", complex: "c"}


def loop(name: str, arguments: tuple[Any, ...], special: bool = False) -> tuple[tuple[np.dtype, ...], tuple[np.dtype, ...]]:
    """The dtypes that a ufunc converts its arguments to, and those of its results: the first loop to which all can be cast
    safely, Python's numbers counting by their kind only. Raises TypeError where there is none.
    """
    found = _loop(name, tuple([type(a) if type(a) in _WEAK else np.dtype(a.dtype) for a in arguments]), special)
    if found is None:
        given = ", ".join(type(a).__name__ if type(a) in _WEAK else str(a.dtype) for a in arguments)
        raise TypeError(f"cupy.{name} has no loop for {given}; it has {' '.join(loops(special)[name])}")
    return found


@cache
def _loop(name: str, given: tuple[Any, ...], special: bool) -> tuple | None:
    strong = any(isinstance(g, np.dtype) for g in given)
    for types in loops(special)[name]:
        before, _, after = types.partition("->")
        if len(before) != len(given):
            continue
        accepted = [_dtype(c) for c in before]
        for g, dtype in zip(given, accepted):
            if isinstance(g, np.dtype):
                fits = np.can_cast(g, dtype, "safe")
            elif strong:
                fits = ("E" if dtype.name == "bfloat16" else "?" if dtype.kind == "b" else dtype.kind) in _WEAK[g]
            else:
                fits = np.can_cast(np.dtype(g), dtype, "safe")
            if not fits:
                break
        else:
            return tuple(accepted), tuple(_dtype(c) for c in after)
    return None
