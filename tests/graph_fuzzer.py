"""Random graphs over the op table, compiled, against the reference interpreter. A seed makes the same graph again.

    python -m tests.graph_fuzzer --seconds 600              # from a seed taken from the clock, which it prints
    python -m tests.graph_fuzzer --seed 1234 --count 1      # replay one graph

Integers must agree exactly. For floats the graph is run in float64, and again with every inexact operation disturbed
by some units in the last place of its own dtype: a result may be off by what such disturbances do, so a flipped
comparison or a cancellation is no finding, and an error that rounding does not explain is one.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import sys
import time
import traceback
from collections import Counter

import ml_dtypes
import numpy as np

from hybrid.backend import Options
from hybrid.control import parts_of
from hybrid.graph import Graph, Literal
from hybrid.interpret import bind_sizes, concrete_attributes
from hybrid.passes import optimize
from hybrid.passes.dce import dce
from hybrid.passes.gradient import Joint, joint, split
from hybrid.verify import verify
from jit.backend import backend
from ndarray.array import wrap
from ndarray.device import cpu
from ndarray.dims import evaluate
from tests.random_graphs import F64, Maker, kind_of
from tests.random_loops import in_a_loop


class Finding(AssertionError):
    """A compiled result that the interpreter does not give."""


# -- the oracle

_ROUNDED = frozenset(("add", "subtract", "multiply", "divide", "sqrt", "cast"))  # exact where the result is representable
_INEXACT = _ROUNDED | {"exp", "expm1", "log", "log1p", "sin", "cos", "tanh", "erf", "ndtr", "sigmoid", "power", "remainder",
                       "floor_divide", "arctan2", "prod", "gelu", "gelu_tanh", "silu", "softplus", "mish", "arctan", "arcsinh",
                       "sinh", "cosh", "exp2", "hypot"}
_OF_INPUTS = {"remainder", "floor_divide", "gelu", "gelu_tanh", "mish", "silu"}  # errors are relative to the first operand, too
_SUMS = frozenset(("sum", "dot_general", "convolution", "convolution_data_gradient", "convolution_weight_gradient", "sum_pool",
                   "sum_unpool", "max_unpool", "scatter_add", "scatter_along_add"))


ROUNDED = -1
"""The disturbance that adds nothing: all results are rounded to their dtype, and equal ones stay equal."""


def widen(dtype: np.dtype) -> np.dtype:
    return F64 if kind_of(dtype) == "f" else dtype


def run(graph: Graph, arrays: list, disturbance: int | None = None) -> list[np.ndarray]:
    """Outputs, then new states, computed with float64 in place of float32; a `disturbance` (a seed) adds rounding errors
    at random. With odd ones all results are rounded to their dtype, too: what saturates (tanh) then does so here."""
    disturb = None if disturbance is None else np.random.default_rng(abs(disturbance))
    sizes = bind_sizes(graph, [a.shape for a in arrays])
    values = {v: a.astype(widen(a.dtype)) for v, a in zip(graph.inputs, arrays)}
    read = lambda a: np.asarray(np.asarray(a.value, a.dtype), widen(a.dtype)) if isinstance(a, Literal) else values[a]
    for eq in graph.equations:
        attrs = {k: concrete_attributes(v, sizes) for k, v in eq.attrs.items()}
        if "dtype" in attrs:
            attrs["dtype"] = widen(np.dtype(attrs["dtype"]))
        inputs = [read(a) for a in eq.inputs]
        if disturb is not None and eq.op.name.startswith("convolution"):  # NaN times padding may be NaN, or left out
            inputs = [np.where(np.isfinite(a), a, 0) for a in inputs]
        if eq.op.name in ("scan", "branch"):
            function = run_scan if eq.op.name == "scan" else run_branch
            values.update(zip(eq.outputs, function(inputs, attrs, disturbance), strict=True))
            continue
        attention = "attention" in eq.op.name
        if disturb is not None and disturbance != ROUNDED and attention:
            unit = float(ml_dtypes.finfo(eq.outputs[0].dtype).eps)
            inputs = [a * (1 + 8 * unit * disturb.uniform(-1, 1, a.shape)) if kind_of(a.dtype) == "f" else a for a in inputs]
        with np.errstate(all="ignore"):
            found = eq.op.eager(np, *inputs, **attrs)
            for v, r in zip(eq.outputs, found if isinstance(found, tuple) else (found,), strict=True):
                r = np.asarray(r, widen(v.dtype))
                if disturb is not None and kind_of(v.dtype) == "f":
                    unit = float(ml_dtypes.finfo(v.dtype).eps)
                    name, size = eq.op.name, None
                    if name in _SUMS:
                        absolute = [np.abs(a) if kind_of(a.dtype) == "f" else a for a in inputs]
                        whole = eq.op.eager(np, *absolute, **attrs)
                        terms = sum(a.size for a in inputs) / max(1, r.size)  # errors of many terms add up at random
                        size = (4 + 2 * np.sqrt(terms)) * unit * np.asarray(whole, F64)
                    elif name in _ROUNDED:
                        size = unit * np.abs(r) * (np.asarray(r, v.dtype) != r if v.dtype != F64 else 1)
                    elif name in _INEXACT:
                        size = 4 * unit * np.abs(r)
                        if name in _OF_INPUTS:
                            size = size + 4 * unit * np.abs(inputs[0])
                    elif attention and r.size:
                        size = 8 * unit * np.abs(r).max() + 0 * r
                    if size is not None and disturbance != ROUNDED:
                        r = r + size * disturb.uniform(-1, 1, r.shape)
                    if disturbance % 2:
                        r = r.astype(v.dtype).astype(F64)
                values[v] = r
    return [np.array(read(a)) for a in graph.results()]


def run_scan(arrays: list, attrs: dict, disturbance: int | None) -> list[np.ndarray]:
    """A loop, step by step."""
    body, count, limited = attrs["body"], attrs["carried"], attrs.get("limited", False)
    limit, constants, carries, slices = parts_of(arrays, count, attrs["stacked"], limited)
    steps = max(0, min(attrs["length"], int(limit[0]))) if limited else attrs["length"]
    outputs = [np.zeros((attrs["length"], *a.shape), widen(a.dtype)) for a in body.outputs[count:]]
    taken = 0
    for t in range(steps)[:: -1 if attrs.get("reverse") else 1]:
        if "condition" in attrs and not run(attrs["condition"], [*constants, *carries])[0]:
            break
        salt = disturbance if disturbance in (None, ROUNDED) else disturbance + 2 * t
        found = run(body, [*constants, *carries, *[x[t] for x in slices]], salt)
        carries = found[:count]
        for whole, part in zip(outputs, found[count:]):
            whole[t] = part
        taken += 1
    return [*([np.asarray(taken)] if "condition" in attrs else []), *carries, *outputs]


def run_branch(arrays: list, attrs: dict, disturbance: int | None) -> list[np.ndarray]:
    """One side of a branch."""
    return run(attrs["then"] if arrays[0] else attrs["otherwise"], arrays[1:], disturbance)


def compare_results(graph: Graph, arrays: list, got: list[np.ndarray], what: str) -> None:
    """Raise `Finding` where a result isn't one that rounding explains."""
    want = run(graph, arrays)
    disturbed = [run(graph, arrays, k) for k in (ROUNDED, 0, 1, 2, 3)]
    for more in (8, 16, 32, 0):  # disturbances, where those before don't explain a result
        bad = None
        for i, (g, w, atom) in enumerate(zip(got, want, graph.results(), strict=True)):
            if (g.shape, g.dtype) != (w.shape, atom.dtype):
                raise Finding(f"{what}: result {i} is {g.dtype}{g.shape}, expected {atom.dtype}{w.shape}")
            if not w.size:
                continue
            with np.errstate(all="ignore"):
                spread = np.max([np.abs(d[i].astype(F64) - w.astype(F64)) for d in disturbed], axis=0)
            if kind_of(w.dtype) == "f":
                unit = float(ml_dtypes.finfo(atom.dtype).eps)
                with np.errstate(all="ignore"):
                    allowed = 12 * spread + 16 * unit * np.abs(w) + unit * 1e-3
                    wrong = ~(np.abs(g.astype(F64) - w) <= allowed)
                steady = np.all([(d[i] == w) | (np.isnan(d[i]) & np.isnan(w)) for d in disturbed], axis=0)
                wrong &= np.isfinite(w) & np.isfinite(spread) | steady
                wrong &= ~((g == w) | (np.isnan(g) & np.isnan(w)))
            else:
                wrong = (g != w) & ~(spread > 0)
            if wrong.any():
                at = tuple(map(int, np.argwhere(wrong)[0]))
                bad = (f"{what}: result {i} ({atom.type}) at {at}: {g[at]!r}, expected {w[at]!r}; {int(wrong.sum())} of "
                       f"{w.size} elements are wrong")
                break
        if bad is None:
            return
        disturbed += [run(graph, arrays, k) for k in range(len(disturbed) - 1, len(disturbed) - 1 + more)]
    raise Finding(bad)


def apart(array: np.ndarray, kind: int) -> np.ndarray:
    """A copy whose elements lie in another order, or with gaps."""
    if kind and array.ndim > 1:
        return np.array(array, order="F")  # always another array: a state is written
    wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]) if array.ndim else (2,), array.dtype)
    view = wide[..., ::2] if array.ndim else wide[0:1].reshape(())
    view[...] = array
    return view


def check_kept(graph: Graph, makers: list, sizes_list: list[dict], seed: int) -> None:
    """Some inputs as weights: what depends on them only is kept between calls, and follows when one of them is written."""
    r = np.random.default_rng(seed)
    free = [i for i, v in enumerate(graph.inputs) if i not in graph.state and all(isinstance(n, int) for n in v.shape)]
    weights = [i for i in free if r.random() < 0.6]
    if not weights:
        return
    program = backend.compile(optimize(graph), Options(frozenset(weights)))
    arrays = [make(sizes_list[0]) for make in makers]
    held = {i: wrap(arrays[i], cpu()) for i in weights}
    keeping = getattr(program, "keeping", None)
    if keeping is None:
        return
    keeper = keeping(held)
    for sizes in sizes_list:
        if not all(g.holds(sizes) for g in graph.guards):
            continue
        arrays = [held[i]._data if i in held else make(sizes) for i, make in enumerate(makers)]
        for call in range(4):
            if call == 2:
                i = weights[int(r.integers(len(weights)))]
                held[i][...] = wrap(np.array(arrays[i][::-1] if arrays[i].ndim else arrays[i]), cpu())
                arrays[i] = held[i]._data
            own = [a if i in held else a.copy() for i, a in enumerate(arrays)]
            before = [a.copy() for a in own]
            outputs = keeper(own)
            states = [own[i] for i in graph.state]
            compare_results(graph, before, [*outputs, *states], f"weights {weights} kept, call {call}, sizes {sizes}")


def check(graph: Graph, makers: list, sizes_list: list[dict], seed: int, guard: bool = True) -> None:
    """Compile the graph, as it is and optimized, and compare at all sizes; at one of them between guard pages, and with inputs
    that are not contiguous."""
    verify(graph)
    improved = optimize(graph)
    verify(improved)
    programs = [("as built", backend.compile(graph))]
    if improved is not graph:
        programs.append(("optimized", backend.compile(improved)))
    for k, sizes in enumerate(sizes_list):
        if not all(g.holds(sizes) for g in graph.guards):
            continue
        arrays = [make(sizes) for make in makers]
        for what, program in programs:
            own = [a.copy() for a in arrays]
            outputs = program(own)
            states = [own[i] for i in graph.state]
            compare_results(graph, arrays, [*outputs, *states], f"{what}, sizes {sizes}")
            for i, (a, b) in enumerate(zip(arrays, own)):
                if i not in graph.state and not np.array_equal(a, b, equal_nan=kind_of(a.dtype) == "f"):
                    raise Finding(f"{what}: input {i}, which is no state, has been written")
            if guard and k == seed % len(sizes_list):
                second = [apart(a, (seed + i) % 2) for i, a in enumerate(arrays)]
                found = program(second)
                # what is left to the host adds in another order then
                found += [second[i] for i in graph.state]
                compare_results(graph, arrays, found, f"{what}, sizes {sizes}, inputs not contiguous")
                for side, threads in (("after", 1), ("before", 3)):
                    second = [a.copy() for a in arrays]
                    found = program.run_guarded(second, side, threads)
                    for i, (a, b) in enumerate(zip([*outputs, *states], [*found, *[second[i] for i in graph.state]])):
                        if a.tobytes() != b.tobytes():
                            raise Finding(f"{what}, sizes {sizes}: result {i} differs between guard pages {side, threads}")


def gradient_graph(graph: Graph, makers: list, seed: int) -> tuple[Joint, list] | None:
    """The graph with its gradient, the cotangents made at random; None where nothing is differentiable."""
    plain = graph.replace(state={})
    wanted = [kind_of(v.dtype) == "f" for v in plain.inputs]
    if not any(wanted) or not any(kind_of(a.dtype) == "f" for a in plain.outputs):
        return None
    whole = joint(plain, wanted)
    if not whole.gradients:
        return None
    extra = []
    for k, v in enumerate(whole.graph.inputs[len(plain.inputs):]):
        def make(sizes, v=v, k=k):
            shape = tuple(evaluate(d, sizes) for d in v.shape)
            return np.asarray(np.random.default_rng(seed + k).standard_normal(shape)).astype(v.dtype)
        extra.append(make)
    return whole, [*makers, *extra]


def check_parts(whole: Joint, makers: list, sizes_list: list[dict]) -> None:
    """The joint graph cut in two, as a recorded call and its backward run it, against the joint graph."""
    parts = split(whole)
    forward, backward = optimize(parts.forward), optimize(parts.backward)
    verify(forward)
    verify(backward)
    programs = backend.compile(forward), backend.compile(backward)
    for sizes in sizes_list:
        if not all(g.holds(sizes) for g in (*whole.graph.guards, *forward.guards, *backward.guards)):
            continue
        arrays = [make(sizes) for make in makers]
        inputs, cotangents = arrays[: whole.inputs], arrays[whole.inputs :]
        outputs = programs[0]([a.copy() for a in inputs])
        residuals = [(inputs if kind == "input" else outputs)[i] for kind, i in parts.residuals]
        given = dict(zip(whole.cotangents, cotangents))
        gradients = programs[1]([*residuals, *[given[j] for j in parts.cotangents]])
        compare_results(whole.graph, arrays, [*outputs[: whole.outputs], *gradients], f"in two parts, sizes {sizes}")


def sizes_for(graph: Graph, maker: Maker) -> list[dict]:
    names = graph.symbols
    if not names:
        return [{}]
    r = maker.random
    options = [2, 3, 5, 8, 17, 33, 64]
    large = {n: int(r.choice(options)) for n in names}
    total = lambda: sum(int(np.prod([evaluate(d, large) for d in v.shape])) for eq in graph.equations for v in eq.outputs)
    while total() > 1_000_000 and max(large.values()) > 2:
        large = {n: max(2, k // 2) for n, k in large.items()}
    found = [dict.fromkeys(names, 1), large]
    if maker.empty and r.random() < 0.5:
        found.append({n: int(r.choice([0, 3])) for n in names})
    return found


def one_seed(seed: int, gradients: bool = True) -> Graph:
    """Make the graph of a seed and check it. Raises `Finding` (or what went wrong on the way)."""
    maker = Maker(seed)
    graph = maker.build()
    for _ in range(int(maker.random.choice([0, 0, 0, 0, 1, 1, 2]))):
        graph = in_a_loop(maker, graph)
    sizes = sizes_for(graph, maker)
    try:
        check(graph, maker.arrays, sizes, seed)
    except Exception as error:
        raise reduced(graph, maker.arrays, sizes, seed, error) from error
    if seed % 3 == 1:
        try:
            check_kept(graph, maker.arrays, sizes, seed)
        except Exception as error:
            raise Finding(f"seed {seed}: {type(error).__name__}: {error}\n{graph}") from error
    if gradients and seed % 3 == 0:
        with_gradient = gradient_graph(graph, maker.arrays, seed)
        if with_gradient is not None:
            whole, makers = with_gradient
            derived = whole.graph
            positive = [s for s in sizes if 0 not in s.values()]
            try:
                check(derived, makers, positive, seed)
            except Exception as error:
                raise reduced(derived, makers, positive, seed, error) from error
            check_parts(whole, makers, positive)
    return graph


def reduced(graph: Graph, makers: list, sizes: list[dict], seed: int, error: Exception) -> Exception:
    """The error with the smallest part of the graph that shows it: the first value that comes out wrong."""
    for eq in graph.equations:
        part = dce(graph.replace(outputs=eq.outputs, state={}))
        try:
            check(part, makers, sizes, seed)
        except Exception as smaller:
            return Finding(f"seed {seed}: {type(smaller).__name__}: {smaller}\n{part}\n-- in --\n{graph}")
    return Finding(f"seed {seed}: {type(error).__name__}: {error}\n(no single value shows it)\n{graph}")


def main() -> int:
    """Fuzz for some time; the status is 1 where something was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="stop after this time (60)")
    parser.add_argument("--count", type=int, default=1 << 60, help="stop after this many graphs")
    parser.add_argument("--seed", type=int, help="the first seed; the following graphs take the following seeds")
    parser.add_argument("--keep-going", action="store_true", help="go on after a finding")
    options = parser.parse_args()
    faulthandler.enable()
    first = options.seed if options.seed is not None else time.time_ns() % (1 << 40)
    print(f"first seed {first}", flush=True)
    begin, found, ops = time.monotonic(), 0, Counter()
    number = 0
    while number < options.count and time.monotonic() - begin < options.seconds:
        seed = first + number
        note = os.environ.get("HYBRID_FUZZ_NOTE")  # a crash leaves the seed there
        if note:
            with open(note, "w") as file:
                file.write(str(seed))
        try:
            ops.update(eq.op.name for eq in one_seed(seed).equations)
        except Exception as error:
            found += 1
            print(f"FOUND seed {seed}: {error}", flush=True)
            if not isinstance(error, Finding) or os.environ.get("HYBRID_FUZZ_TRACE"):
                traceback.print_exc()
            if not options.keep_going:
                break
        number += 1
    print(f"{number} graphs from seed {first} in {time.monotonic() - begin:.0f} s, {found} findings; {len(ops)} ops", flush=True)
    print(", ".join(f"{n} {c}" for n, c in sorted(ops.items())), flush=True)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
