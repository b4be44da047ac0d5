"""Makes docs/support.md: what each public array function can do, found out by running the example in its docstring.

    python -m tests.support_table        # or: make docs

traced     the example's call goes into a graph, and the graph gives what the call gave eagerly
compiled   native: every equation of the optimized graph has native code; host: these operations run on the host between
           native segments (here, or for these dtypes)
gradient   to which order `autograd.grad` can be taken of the call, with floating arguments in float64 (integer ones where
           there are no others): tried up to the third. That the values are right is tested from the operations' samples.
sparse     whether it takes sparse arrays
"""

from __future__ import annotations

import doctest
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

import hybrid
import ndarray as nd
from hybrid.passes import optimize
from hybrid.trace import Tracer
from jit.cuts import reason_to_cut
from ndarray import NDArray, autograd
from ndarray.dtypes import is_inexact
from ndarray.op import ArrayType

__all__ = ["main", "table"]

PAGE = Path(__file__).resolve().parent.parent / "docs" / "support.md"
SPACES = (nd, nd.random, nd.linalg, nd.fft)
LEFT_OUT = {"save", "load", "waitall", "settings"}  # they work on files and on the process


class _Found(Exception):
    """Carries the call out of the example."""


class _Recorder:
    """Stands for a module in an example: notes the first call of one of its functions."""

    def __init__(self, module: ModuleType, name: str, outer: dict[str, Any] | None = None):
        self._module, self._name, self._outer = module, name, outer or {}

    def __getattr__(self, name: str) -> Any:
        if name in self._outer:
            return self._outer[name]
        value = getattr(self._module, name)
        if name != self._name:
            return value

        def noted(*args: Any, **options: Any) -> Any:
            raise _Found(args, options)

        return noted


def call_of(space: ModuleType, name: str, function: Callable) -> tuple[tuple, dict] | None:
    """Arguments of the first call of the function in its example."""
    names: dict[str, Any] = {"np": np, "hybrid": hybrid, "autograd": autograd}
    own = {name, *(n for n in dir(space) if getattr(space, n) is function)}
    for alias in sorted(own, key=lambda n: f".{n}(" not in (function.__doc__ or "")):
        recorder = _Recorder(space, alias)
        names["nd"] = recorder if space is nd else _Recorder(nd, "", {space.__name__.rpartition(".")[2]: recorder})
        if space is nd.linalg and f"nd.{alias}(" in (function.__doc__ or ""):  # the same function as in the main namespace
            names["nd"] = _Recorder(nd, alias)
        for example in doctest.DocTestParser().get_examples(function.__doc__ or ""):
            if example.source.startswith("import "):
                continue
            try:
                exec(compile(example.source, name, "single"), names)
            except _Found as found:
                return found.args[0], found.args[1]
    return None


def arrays_in(value: Any) -> Iterator[NDArray]:
    """The arrays in nested tuples, lists and dicts, in order."""
    if isinstance(value, NDArray):
        yield value
    elif isinstance(value, (tuple, list)):
        for v in value:
            yield from arrays_in(v)
    elif isinstance(value, dict):
        for v in value.values():
            yield from arrays_in(v)


def arrays_reached(value: Any) -> Iterator[NDArray]:
    """The floating arrays that functions among the arguments reach by name."""
    if isinstance(value, (tuple, list)):
        for v in value:
            yield from arrays_reached(v)
    elif hasattr(value, "__code__"):
        found = (value.__globals__.get(n) for n in value.__code__.co_names)
        yield from (v for v in found if isinstance(v, NDArray) and is_inexact(v.dtype))


def with_arrays(value: Any, arrays: Iterator[NDArray]) -> Any:
    """The same nested value with other arrays."""
    if isinstance(value, NDArray):
        return next(arrays)
    if isinstance(value, (tuple, list)):
        items = [with_arrays(v, arrays) for v in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if isinstance(value, dict):
        return {k: with_arrays(v, arrays) for k, v in value.items()}
    return value


def traced(function: Callable, call: tuple, want: list[NDArray]) -> tuple[str, str]:
    """Whether it can be traced, and what of it is native."""
    given = list(arrays_in(call))
    tracer = Tracer("support")
    device = nd.current_device()
    arguments = [tracer.argument(ArrayType(a.shape, a.dtype), device) for a in given]
    try:
        with tracer.under():
            args, options = with_arrays(call, iter(arguments))
            found = list(arrays_in(function(*args, **options)))
        trace = tracer.finish(found)
    except Exception:
        return "no", "-"
    if not trace.captured and "empty" not in function.__name__:
        computed = hybrid.evaluate_graph(trace.graph, [a.asnumpy() for a in given])
        for have, expected in zip(computed, want, strict=True):
            np.testing.assert_allclose(np.asarray(have), expected.asnumpy(), rtol=1e-4, atol=1e-5, err_msg=function.__name__)
    host = sorted({eq.op.name for eq in optimize(trace.graph).equations if reason_to_cut(eq) is not None})
    return "yes", f"host: {', '.join(host)}" if host else "native"


def gradient_order(function: Callable, call: tuple) -> str:
    """To which order it can be differentiated."""
    given = [nd.array(a.asnumpy(), dtype=a.dtype) for a in arrays_in(call)]
    reached = list(arrays_reached(call))
    for a in reached:
        a.attach_grad()
    if not given and not reached:
        return "-"
    floating = [i for i, a in enumerate(given) if is_inexact(a.dtype)]
    chosen = floating if floating or reached else list(range(len(given)))
    for i in chosen:
        wide = "complex128" if given[i].dtype.kind == "c" else "float64"
        given[i] = given[i].astype(wide)
        given[i].attach_grad()
    leaves = [*[given[i] for i in chosen], *reached]
    order = 0
    try:
        with autograd.record():
            args, options = with_arrays(call, iter(given))
            heads = [h for h in arrays_in(function(*args, **options)) if h._node is not None and h._node[0] is not None]
            while heads and leaves and order < 3:
                gradients = autograd.grad(heads, leaves, create_graph=True)
                order += 1
                heads = [g for g in gradients if g._node is not None]
    except Exception:
        return "no" if order == 0 else f"order {order}"
    return "no" if order == 0 else "any order"


def row(space: ModuleType, name: str, function: Callable) -> str:
    """One line of the table."""
    title = f"`{'nd' if space is nd else 'nd' + space.__name__.removeprefix('ndarray')}.{name}`"
    call = call_of(space, name, function)
    if call is None:
        raise AssertionError(f"{title}: the example in its docstring doesn't call it")
    nd.random.seed(0)
    args, options = call
    want = list(arrays_in(function(*args, **options)))
    if not want:
        return f"| {title} | yes | - | - | - | - |"
    nd.random.seed(0)
    can_trace, native = traced(function, call, want)
    return f"| {title} | yes | {can_trace} | {native} | {gradient_order(function, call)} | no |"


def table() -> str:
    """The page."""
    lines = [
        "# What each function can do", "",
        "Made by `make docs` from the examples in the docstrings; `tests/support_table.py` says how. A dash: there "
        "is no array to speak of.", "",
        "| function | eager | traced | compiled | gradient | sparse |", "|---|---|---|---|---|---|",
    ]
    for space in SPACES:
        first: dict[int, str] = {}
        for name in sorted(getattr(space, "__all__", dir(space))):
            function = getattr(space, name)
            if name.startswith("_") or name in LEFT_OUT or not callable(function) or isinstance(function, type):
                continue
            main = first.setdefault(id(function), name)
            title = "nd" + space.__name__.removeprefix("ndarray")
            again = f"| `{title}.{name}` | the same as `{title}.{main}` |||||"
            lines.append(row(space, name, function) if main == name else again)
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the page."""
    PAGE.write_text(table())
    print(f"{PAGE}: {PAGE.read_text().count(chr(10)) - 6} functions", file=sys.stderr)


if __name__ == "__main__":
    main()
