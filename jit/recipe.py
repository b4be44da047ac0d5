"""A lowered graph as plain data: what is kept on disk beside the native code, and what a program is bound from.

A `Recipe` names kernels by (object digest, symbol), storages by number and sizes as expressions over the graph's
symbolic dimensions, so that a fresh process can run it without tracing passes, fusion or code generation.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

from ndarray.dims import Dim, Size, product, symbol

__all__ = ["BranchRecipe", "LaunchRecipe", "LoopRecipe", "Recipe", "StorageRecipe", "size_from_json", "size_to_json"]


@dataclass(frozen=True)
class StorageRecipe:
    """A piece of memory: `size` elements of `dtype`. role: "input", "output" or "arena", and `index` counts in the role; or
    "part" of the storage of number `index` (an earlier one), from element `offset` on; or "moving", which lies elsewhere in
    each step of a loop."""

    dtype: str
    size: Size
    role: str
    index: int = 0
    offset: Size = 0


@dataclass(frozen=True)
class LaunchRecipe:
    """One launch: a kernel's number, the numbers of its storages, and sizes (see `jit.launch.Launch`). `equations` are
    numbers of equations of the graph, whose hash finds the recipe: their lines are those of the graph at hand."""

    kernel: int
    buffers: tuple[int, ...]
    arguments: tuple[Size, ...]
    tasks: Size
    work: Size
    scratch: Size
    note: str = ""
    name: str = ""
    equations: tuple[int, ...] = ()


@dataclass(frozen=True)
class LoopRecipe:
    """A loop (see `jit.launch.Loop`), storages by number (-1: none). moving: (storage, source, step); carried: (current, new,
    next, initial, home, other)."""

    count: Size
    reverse: bool
    limit: int
    answer: int
    taken: int
    moving: tuple[tuple[int, int, Size], ...]
    carried: tuple[tuple[int, ...], ...]
    test: tuple[Any, ...]
    body: tuple[Any, ...]
    strips: Size = 0


@dataclass(frozen=True)
class BranchRecipe:
    """A branch: the number of the predicate's storage, and the steps of both sides."""

    predicate: int
    then: tuple[Any, ...]
    otherwise: tuple[Any, ...]


@dataclass(frozen=True)
class Recipe:
    """kernels: (object digest, symbol); outputs: (shape, dtype) of each result; not_fused: (an equation of the producing
    kernel, one of the consuming kernel, why they are two kernels); kept: (number of a storage, numbers of the
    launches behind it): values that may be kept between calls, for these launches depend on constant inputs only;
    steps: what is run, in order: numbers of launches, loops and branches."""

    kernels: tuple[tuple[str, str], ...]
    storages: tuple[StorageRecipe, ...]
    launches: tuple[LaunchRecipe, ...]
    outputs: tuple[tuple[tuple[Size, ...], str], ...]
    not_fused: tuple[tuple[int, int, str], ...] = ()
    kept: tuple[tuple[int, tuple[int, ...]], ...] = ()
    steps: tuple[Any, ...] = ()

    @cached_property
    def once(self) -> frozenset[int]:
        """Numbers of the launches that are behind what is kept: other calls leave them out."""
        return frozenset(n for _, behind in self.kept for n in behind)

    def to_json(self) -> dict[str, Any]:
        """Numbers, strings, lists and dicts only."""
        return {f.name: _encode(getattr(self, f.name)) for f in fields(self)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Recipe:
        """The recipe that `to_json` wrote. Raises KeyError, TypeError or ValueError for anything else."""
        return cls(
            kernels=tuple((str(d), str(s)) for d, s in data["kernels"]),
            storages=tuple(
                StorageRecipe(s["dtype"], size_from_json(s["size"]), s["role"], int(s["index"]), size_from_json(s["offset"]))
                for s in data["storages"]
            ),
            launches=tuple(
                LaunchRecipe(
                    int(r["kernel"]), tuple(map(int, r["buffers"])), tuple(map(size_from_json, r["arguments"])),
                    size_from_json(r["tasks"]), size_from_json(r["work"]), size_from_json(r["scratch"]), str(r["note"]),
                    str(r["name"]), tuple(map(int, r["equations"])),
                )
                for r in data["launches"]
            ),
            outputs=tuple((tuple(map(size_from_json, shape)), str(dtype)) for shape, dtype in data["outputs"]),
            not_fused=tuple((int(p), int(c), str(reason)) for p, c, reason in data["not_fused"]),
            kept=tuple((int(s), tuple(map(int, behind))) for s, behind in data["kept"]),
            steps=_steps(data["steps"]),
        )


def _steps(data: list[Any]) -> tuple[Any, ...]:
    return tuple([x if isinstance(x, int) else _control(x) for x in data])


def _control(data: dict[str, Any]) -> LoopRecipe | BranchRecipe:
    if "predicate" in data:
        return BranchRecipe(int(data["predicate"]), _steps(data["then"]), _steps(data["otherwise"]))
    return LoopRecipe(
        size_from_json(data["count"]), bool(data["reverse"]), int(data["limit"]), int(data["answer"]), int(data["taken"]),
        tuple((int(a), int(b), size_from_json(n)) for a, b, n in data["moving"]),
        tuple(tuple(map(int, c)) for c in data["carried"]), _steps(data["test"]), _steps(data["body"]),
        size_from_json(data["strips"]),
    )


def size_to_json(value: Size) -> Any:
    """An int as itself; a `Dim` as ``{"terms": [[coefficient, [atoms]]]}``, an atom being a name or [op, a, b]."""
    if not isinstance(value, Dim):
        return int(value)
    return {"terms": [[c, [a if isinstance(a, str) else [a[0], size_to_json(a[1]), size_to_json(a[2])] for a in m]]
                      for m, c in value.terms]}


def size_from_json(data: Any) -> Size:
    """The size that `size_to_json` wrote; symbols get the hint 2, which only estimates use."""
    if isinstance(data, int):
        return data
    total: Size = 0
    for coefficient, atoms in data["terms"]:
        total = total + coefficient * product(map(_atom, atoms))
    return total


def _atom(atom: Any) -> Size:
    if isinstance(atom, str):
        return symbol(atom, 2)
    op, left, right = atom
    a, b = size_from_json(left), size_from_json(right)
    return a // b if op == "//" else a % b


def _encode(value: Any) -> Any:
    if isinstance(value, (int, str)):
        return value
    if isinstance(value, tuple):
        return [_encode(v) for v in value]
    return size_to_json(value) if isinstance(value, Dim) else {k: _encode(v) for k, v in vars(value).items()}
