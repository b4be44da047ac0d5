"""Every scalar lowering (Elementwise, Indexed, Reduction), evaluated by NumPy, agrees with the op's eager function, and
reads no argument out of bounds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ndarray  # noqa: F401  (fills the table of ops)
from ndarray.dims import symbol
from ndarray.op import OPS, ArrayType, Elementwise, Indexed, Op, Reduction, Sample
from ndarray.scalar import OPERATIONS, Element, Scalar, constant, index_variable

LOWERED = sorted(n for n, op in OPS.items() if isinstance(op.lower, (Elementwise, Indexed, Reduction)) and n != "graph_call")


class Evaluator:
    """Values of scalar expressions for many positions at once; `mask` says at which a value matters."""

    def __init__(self, arrays: tuple[np.ndarray, ...], variables: dict[str, np.ndarray], bound: list | None = None):
        self.arrays, self.variables, self.bound = arrays, variables, bound or []
        self.memo: dict[tuple, np.ndarray] = {}
        self.alive: list[Scalar] = []

    def __call__(self, s: Scalar, mask: np.ndarray) -> np.ndarray:
        key = id(s), mask.tobytes()
        if key not in self.memo:
            self.alive.append(s)
            value = np.asarray(self.compute(s, mask))
            assert value.dtype == s.dtype, (s.op, value.dtype, s.dtype)
            self.memo[key] = value
        return self.memo[key]

    def compute(self, s: Scalar, mask: np.ndarray) -> Any:
        if s.op == "constant":
            return np.full(mask.shape, s.args[0], s.dtype)
        if s.op == "bound":
            return self.bound[s.args[0]]
        if s.op == "index":
            return self.variables[s.args[0]]
        if s.op == "element":
            array = self.arrays[s.args[0]]
            position = []
            for i, n in zip(s.args[1:], array.shape, strict=True):
                i = self(i, mask)
                assert i.dtype == np.int64
                assert ((i >= 0) & (i < n))[mask].all(), f"reads argument {s.args[0]} outside of axis of size {n}"
                position.append(np.clip(i, 0, max(n - 1, 0)))
            if not mask.any():
                return np.zeros(mask.shape, s.dtype)
            return np.broadcast_to(array[tuple(position)], mask.shape)
        if s.op == "select":
            condition = self(s.args[0], mask)
            assert condition.dtype == np.bool_
            a, b = self(s.args[1], mask & condition), self(s.args[2], mask & ~condition)
            return np.where(condition, a, b)
        values = [self(a, mask) for a in s.args]
        if s.op == "cast":
            return values[0].astype(s.dtype)
        if s.op == "bitcast":
            return values[0].view(s.dtype)
        if s.op in ("shl", "shr"):
            assert values[0].dtype == values[1].dtype
        return OPERATIONS[s.op].evaluate(*values)


def index_arrays(shape: tuple[int, ...], prefix: str) -> dict[str, np.ndarray]:
    return {f"{prefix}{k}": g.astype(np.int64) for k, g in enumerate(np.indices(shape).reshape(len(shape), int(np.prod(shape))))}


def evaluate(op: Op, sample: Sample) -> tuple[np.ndarray, ...]:
    types = [ArrayType(a.shape, a.dtype) for a in sample.arrays]
    results = op.infer(*types, **sample.attrs)
    shape, lower = results[0].shape, op.lower
    arguments = [Element(k, t.shape, t.dtype) for k, t in enumerate(types)]
    if isinstance(lower, Reduction):
        return fold(op, sample, types, results, arguments)
    index = tuple(index_variable(str(k)) for k in range(len(shape)))
    variables = index_arrays(shape, "")
    mask = np.ones(int(np.prod(shape)), bool)
    if isinstance(lower, Elementwise):
        read = [
            e[tuple(0 if n == 1 else index[len(shape) - len(e.shape) + k] for k, n in enumerate(e.shape))] for e in arguments
        ]
        scalars = lower.function(*read, **sample.attrs)
    else:
        scalars = lower.function(index, *arguments, **sample.attrs)
    scalars = scalars if isinstance(scalars, tuple) else (scalars,)
    run = Evaluator(sample.arrays, variables)
    return tuple(run(s, mask).reshape(t.shape) for s, t in zip(scalars, results, strict=True))


def fold(op: Op, sample: Sample, types: list, results: tuple, arguments: list) -> tuple[np.ndarray, ...]:
    lower, shape = op.lower, results[0].shape
    domain = tuple(lower.domain(*types, **sample.attrs))
    index = tuple(index_variable(str(k)) for k in range(len(shape)))
    reduced = tuple(index_variable(f"r{k}") for k in range(len(domain)))
    elements = lower.element(index, reduced, *arguments, **sample.attrs)
    count, depth = int(np.prod(shape)), int(np.prod(domain))
    at = {k: np.repeat(v, depth) for k, v in index_arrays(shape, "").items()}
    inner = {k: np.tile(v, count) for k, v in index_arrays(domain, "r").items()}
    run = Evaluator(sample.arrays, {**at, **inner})
    mask = np.ones(count * depth, bool)
    values = [np.asarray(run(e, mask)).reshape(count, depth) for e in elements]
    dtypes = tuple(e.dtype for e in elements)
    state = [np.full(count, i, d) for i, d in zip(lower.identity(dtypes), dtypes, strict=True)]
    everywhere = np.ones(count, bool)
    order = list(range(depth))
    if not lower.ordered:  # any order must do
        np.random.default_rng(5).shuffle(order)
    for k in order:
        bound = [*state, *(v[:, k] for v in values)]
        left = tuple(Scalar("bound", (n,), d) for n, d in enumerate(dtypes))
        right = tuple(Scalar("bound", (len(dtypes) + n,), d) for n, d in enumerate(dtypes))
        step = Evaluator((), {}, bound)
        state = [step(s, everywhere) for s in lower.combine(left, right)]
    final = Evaluator((), {}, state)
    left = tuple(Scalar("bound", (n,), d) for n, d in enumerate(dtypes))
    post = lower.post(left, *types, **sample.attrs)
    return tuple(final(s, everywhere).reshape(t.shape) for s, t in zip(post, results, strict=True))


@pytest.mark.parametrize("name", LOWERED)
def test_lowering_agrees_with_eager(name: str) -> None:
    op = OPS[name]
    for sample in op.samples():
        if sample.error is not None:
            continue
        with np.errstate(all="ignore"):
            expected = op.eager(np, *sample.arrays, **sample.attrs)
            found = evaluate(op, sample)
        expected = expected if isinstance(expected, tuple) else (expected,)
        assert len(found) == len(expected) == op.results
        for have, want in zip(found, expected, strict=True):
            note = f"{name} {[f'{a.dtype}{a.shape}' for a in sample.arrays]} {dict(sample.attrs)}"
            assert have.dtype == want.dtype, note
            if have.dtype.kind in "biu":
                np.testing.assert_array_equal(have, want, err_msg=note)
            else:
                scale = sample.tolerance * (4 if op.results == 1 else 0)
                eps = np.finfo(have.dtype).eps
                np.testing.assert_allclose(have, want, rtol=scale * eps, atol=scale * eps, err_msg=note)


def symbolic(arrays: tuple[np.ndarray, ...]) -> list[ArrayType]:
    """The types with a symbol for each size above 1, equal sizes sharing one."""
    return [ArrayType(tuple(symbol(f"n{n}", n) if n > 1 else n for n in a.shape), a.dtype) for a in arrays]


SHAPED = {"reshape", "broadcast_to", "slice", "update_slice", "iota", "random_bits", "max_unpool", "sum_unpool",
          "max_pool_gather"}
SHAPELESS = sorted(set(LOWERED) - SHAPED)


@pytest.mark.parametrize("name", [*SHAPELESS, "dot_general"])
def test_infer_and_lower_take_symbolic_sizes(name: str) -> None:
    """With symbolic sizes the inferred shape is right, and nothing specialises them."""
    from ndarray.dims import evaluate as value_of
    from ndarray.dims import record_guards

    op, guards = OPS[name], []
    for sample in op.samples():
        sizes = {f"n{n}": n for a in sample.arrays for n in a.shape}
        types = symbolic(sample.arrays)
        want = op.infer(*(ArrayType(a.shape, a.dtype) for a in sample.arrays), **sample.attrs)
        with record_guards(guards.append):
            found = op.infer(*types, **sample.attrs)
            if isinstance(op.lower, Indexed):
                index = tuple(index_variable(str(k)) for k in range(len(found[0].shape)))
                op.lower.function(index, *(Element(k, t.shape, t.dtype) for k, t in enumerate(types)), **sample.attrs)
        for a, b in zip(found, want, strict=True):
            assert tuple(value_of(n, sizes) for n in a.shape) == b.shape
            assert a.dtype == b.dtype
    assert not [g for g in guards if g.comparison in ("==", "!=")], guards


def test_philox_known_answers() -> None:
    """Known answers of Philox4x32-10 (counter 0, key 0), from the paper's test vectors."""
    bits = OPS["random_bits"].eager(np, np.zeros(2, np.uint64), shape=(64,))
    assert [hex(int(b)) for b in bits[[0, 16, 32, 48]]] == ["0x6627e8d5", "0xe169c58d", "0xbc57ac4c", "0x9b00dbd8"]


def test_scalars_of_two_dtypes_do_not_mix() -> None:
    with pytest.raises(TypeError, match="cast them to one"):
        constant(1, np.float32) + constant(1, np.float64)
