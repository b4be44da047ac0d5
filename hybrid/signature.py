"""What selects a compiled program among the arguments: how they are nested, and their plain values.

`flatten` takes nested arguments apart into array and float leaves and a hashable key for the rest.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ndarray.array import NDArray
from ndarray.dims import Dim, Size, symbol

__all__ = ["SCALARS", "describe_change", "flatten", "paths", "rebuild", "repeats", "symbolic_pattern", "typed"]

SCALARS = (int, float, bool, str, bytes, type(None), complex)


def flatten(value: Any, leaves: list[Any], static: frozenset = frozenset(), path: tuple = ()) -> Any:
    """A hashable key for `value`; arrays and Python floats are put into `leaves`.

    Floats at the paths in `static` are part of the key instead. Raises TypeError for NumPy arrays and unhashable things.
    """
    kind = type(value)
    if isinstance(value, NDArray):
        leaves.append(value)
        return ("array", value.dtype, value._device, value.ndim)
    if kind is float or kind is np.float64:
        if path in static:
            return ("=", "float", float(value))
        leaves.append(value)
        return "float"
    if kind in SCALARS:
        return ("=", kind.__name__, value)
    if isinstance(value, (list, tuple)):
        return (kind, *[flatten(v, leaves, static, (*path, i)) for i, v in enumerate(value)])
    if isinstance(value, dict):
        return (kind, *[(k, flatten(v, leaves, static, (*path, k))) for k, v in value.items()])
    if isinstance(value, np.ndarray):
        raise TypeError(
            f"argument{_at(path)} of a hybridized function is a NumPy array; pass nd.array(x) (or nd.from_numpy(x), which "
            f"shares its memory), since its numbers would otherwise be compiled in"
        )
    try:
        hash(value)
    except TypeError:
        raise TypeError(
            f"argument{_at(path)} of a hybridized function is a {kind.__name__}, which is neither an array, a number, a "
            f"text, None, a list, tuple or dict of those, nor hashable; pass what the function needs of it instead"
        ) from None
    return ("=", kind, value)


def snapshot(value: Any) -> Any:
    """`value` as it is nested now: its lists and dicts, which may change, are copied."""
    kind = type(value)
    if kind is list:
        return [snapshot(v) for v in value]
    if kind is dict:
        return {k: snapshot(v) for k, v in value.items()}
    if kind is tuple and not _collect(value, []):
        return tuple([snapshot(v) for v in value])
    return value


def _collect(value: Any, leaves: list[Any]) -> bool:
    """Whether `value` is a tuple of arrays, or of such tuples, which can't change; its arrays go to `leaves`, or none."""
    if type(value) is not tuple:
        return False
    start = len(leaves)
    for v in value:
        if type(v) is NDArray:
            leaves.append(v)
        elif not _collect(v, leaves):
            del leaves[start:]
            return False
    return True


def repeats(value: Any, known: Any, leaves: list[Any]) -> bool:
    """Whether `value` is nested like `known` with the very same arrays; the leaves (floats may differ) go to `leaves`."""
    kind = type(value)
    if kind is list or kind is tuple:
        if value is known and _collect(value, leaves):
            return True
        if type(known) is not kind or len(known) != len(value):
            return False
        for v, k in zip(value, known):
            if v is k and type(v) is NDArray:
                leaves.append(v)
            elif not repeats(v, k, leaves):
                return False
        return True
    if kind is float:
        leaves.append(value)
        return type(known) is float
    if kind is dict:
        if type(known) is not dict or len(known) != len(value):
            return False
        return all(i == j and repeats(v, k, leaves) for (i, v), (j, k) in zip(value.items(), known.items()))
    if kind is NDArray:
        leaves.append(value)
        return value is known
    return type(known) is kind and bool(value == known)


def _at(path: tuple) -> str:
    return "".join(f"[{p!r}]" for p in path)


def rebuild(value: Any, leaves: Iterable[Any], static: frozenset = frozenset(), path: tuple = ()) -> Any:
    """`value` with its leaves replaced, in the order of `flatten`."""
    return _rebuild(value, iter(leaves), static, path)


def _rebuild(value: Any, leaves: Any, static: frozenset, path: tuple) -> Any:
    kind = type(value)
    if isinstance(value, NDArray) or ((kind is float or kind is np.float64) and path not in static):
        return next(leaves)
    if isinstance(value, (list, tuple)):
        items = [_rebuild(v, leaves, static, (*path, i)) for i, v in enumerate(value)]
        return kind(*items) if hasattr(value, "_fields") else kind(items)
    if isinstance(value, dict):
        named = {k: _rebuild(v, leaves, static, (*path, k)) for k, v in value.items()}
        return named if kind is dict else _same_dict(value, named)
    return value


def _same_dict(like: dict, items: dict) -> dict:
    import copy

    new = copy.copy(like)
    new.update(items)
    return new


def paths(value: Any, static: frozenset = frozenset(), path: tuple = ()) -> list[tuple]:
    """The path of each leaf, in the order of `flatten`."""
    kind = type(value)
    if isinstance(value, NDArray) or ((kind is float or kind is np.float64) and path not in static):
        return [path]
    if isinstance(value, (list, tuple)):
        return [q for i, v in enumerate(value) for q in paths(v, static, (*path, i))]
    if isinstance(value, dict):
        return [q for k, v in value.items() for q in paths(v, static, (*path, k))]
    return []


def typed(value: Any) -> Any:
    """A value that differs wherever types differ: 1, 1.0 and True are three."""
    if isinstance(value, tuple):
        return ("tuple", *map(typed, value))
    return (type(value).__name__, value) if isinstance(value, SCALARS) else value


def describe_change(old: Any, new: Any, where: str = "") -> str:
    """The first difference between two keys, as text for the log."""
    if isinstance(old, dict) and isinstance(new, dict):
        for k in {**old, **new}:
            if k not in old or k not in new or old[k] != new[k]:
                return f"{k}: {old.get(k, 'nothing')!r} -> {new.get(k, 'nothing')!r}"
    if isinstance(old, tuple) and isinstance(new, tuple) and len(old) == len(new):
        for i, (a, b) in enumerate(zip(old, new)):
            if a != b:
                return describe_change(a, b, f"{where}[{i}]")
    return f"{where + ': ' if where else ''}{old!r} -> {new!r}"


_NAMES = "nmklpqrst"


def symbolic_pattern(seen: Sequence[tuple], shapes: tuple) -> tuple | None:
    """The shapes with symbols for the sizes that have differed between calls; None where none has.

    Sizes that have always agreed get one symbol. Its hint is the present size, unless that is 0 or 1.
    """
    others = [s for s in seen if len(s) == len(shapes) and all(len(a) == len(b) for a, b in zip(s, shapes))]
    symbols: dict[tuple, Dim] = {}
    names = itertools.chain(_NAMES, (f"d{i}" for i in itertools.count()))
    pattern = []
    for i, shape in enumerate(shapes):
        sizes: list[Size] = []
        for axis, size in enumerate(shape):
            history = tuple([s[i][axis] for s in others])
            if all(h == size for h in history):
                sizes.append(size)
                continue
            if history not in symbols:
                hint = size if size > 1 else max(2, *history)
                symbols[history] = symbol(next(names), hint)
            sizes.append(symbols[history])
        pattern.append(tuple(sizes))
    return tuple(pattern) if symbols else None
