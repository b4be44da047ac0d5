"""Tiled attention: kernels against NumPy, interpreted and native; compiled calls and gradients against the eager formula."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from native_kernels import Native, each_target

import ndarray as nd
from hybrid import hybridize
from jit.attention import lower_attention
from jit.attention_gradient import lower_attention_gradient
from jit.guard import guarded, guarded_empty
from jit.interpret import run_launches
from jit.launch import Storage
from jit.plain import plain_sink, plain_source
from jit.target import Target
from jit.verify import verify
from ndarray import autograd
from ndarray.dims import symbol
from ndarray.op import OPS
from ndarray.settings import settings

SMALL = {
    "sse": Target("", "", "", 16, 16), "avx2": Target("", "", "", 32, 16),
    "plain": Target("", "", "", 16, 16, fma=False, masked=False),
}
SHAPES = [  # batch, queries, keys, heads, E, V
    (1, 1, 1, 1, 1, 1), (2, 5, 7, 2, 3, 2), (1, 9, 4, 2, 4, 9), (0, 3, 3, 1, 2, 2), (1, 0, 3, 1, 2, 2), (1, 33, 130, 1, 2, 5),
    (1, 20, 270, 4, 2, 1),
]


def arrays_of(shape: tuple, mask: Any, backward: bool, causal: bool) -> list[np.ndarray]:
    n, length, keys, heads, e, width = shape
    rng = np.random.default_rng(7)
    made = [rng.standard_normal((n, m, heads, c)).astype(np.float32) for m, c in ((length, e), (keys, e), (keys, width))]
    if mask is not None:
        hidden = rng.random((1 if mask == "bool" else length, keys)) < 0.3
        hidden[1::3] |= mask == "pairs"  # some queries see nothing
        made.append(rng.standard_normal((length, keys)).astype(np.float32) if mask == "added" else ~hidden)
    if backward:
        name = "attention" if mask is None else "masked_attention"
        _, shift, total = OPS[name].eager(np, *made, scale=0.7, causal=causal)
        made += [shift, total, rng.standard_normal((n, length, heads)).astype(np.float32)]
        made.append(rng.standard_normal((n, length, heads, width)).astype(np.float32))
    return made


def lowered(shape: tuple, mask: Any, backward: bool, causal: bool, target: Target, symbolic: bool = False) -> tuple:
    """(launches, inputs, arrays, result storages, what they should hold, sizes)."""
    arrays = arrays_of(shape, mask, backward, causal)
    prefix, suffix = "" if mask is None else "masked_", "_gradient" if backward else ""
    want = OPS[f"{prefix}attention{suffix}"].eager(np, *arrays, scale=0.7, causal=causal)
    names = {shape[1]: symbol("L", shape[1]), shape[2]: symbol("S", shape[2])} if symbolic else {}
    sizes = {"L": shape[1], "S": shape[2]} if symbolic else {}
    sized = lambda s: tuple(names.get(n, n) for n in s)
    storages = [Storage(a.dtype.name, a.size) for a in arrays]
    results = [Storage("float32", w.size) for w in want]
    make = lower_attention_gradient if backward else lower_attention
    launches = make("attention", {"scale": 0.7, "causal": causal},
                    [plain_source(s, sized(a.shape)) for s, a in zip(storages, arrays)],
                    [plain_sink(s, sized(w.shape)) for s, w in zip(results, want)], target, ())
    for launch in launches:
        verify(launch.kernel)
    return launches, storages, arrays, results, want, sizes


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("target", SMALL.values(), ids=SMALL)
def test_interpreted(target: Target, backward: bool) -> None:
    for shape in SHAPES:
        for mask, causal in ((None, False), (None, True), ("bool", True), ("pairs", True), ("added", False)):
            if (mask is not None or not causal) and shape[2] > 100:
                continue
            launches, storages, arrays, results, want, sizes = lowered(shape, mask, backward, causal, target)
            memory = {s: a.reshape(-1) for s, a in zip(storages, arrays)}
            run_launches(launches, memory, sizes)
            for storage, expected in zip(results, want):
                if expected.size:
                    np.testing.assert_allclose(memory[storage].reshape(expected.shape), expected, 2e-5, 2e-5,
                                               err_msg=f"{shape} {mask} {causal}")


@each_target
@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
def test_native_in_guarded_memory(target: Target, backward: bool) -> None:
    for number, shape in enumerate((*SHAPES[1:3], (1, 37, 45, 2, 19, 35))):
        for mask, causal in ((None, True), ("bool", False)) if number < 2 else ((None, True), ("pairs", True)):
            launches, storages, arrays, results, want, _ = lowered(shape, mask, backward, causal, target)
            natives = [Native([launch.kernel], target) for launch in launches]
            for side in ("after", "before"):
                memory = {s: guarded(a, side) for s, a in zip(storages, arrays)}
                memory |= {s: guarded_empty(4 * s.size, side) for s in results}
                for native, launch in zip(natives, launches):
                    buffers = [memory[s] for s in launch.buffers]
                    native(launch.kernel.name, buffers, launch.arguments, 0, launch.tasks, int(launch.scratch))
                for storage, expected in zip(results, want):
                    found = memory[storage].view(np.float32).reshape(expected.shape)
                    np.testing.assert_allclose(found, expected, 2e-5, 2e-5, err_msg=f"{shape} {mask} {causal} {side}")


def test_symbolic_sizes_interpreted() -> None:
    for backward in (False, True):
        launches, storages, arrays, results, want, sizes = lowered((2, 13, 21, 2, 3, 5), None, backward, True, SMALL["sse"], True)
        memory = {s: a.reshape(-1) for s, a in zip(storages, arrays)}
        run_launches(launches, memory, sizes)
        for storage, expected in zip(results, want):
            np.testing.assert_allclose(memory[storage].reshape(expected.shape), expected, 2e-5, 2e-5)


MASKS = {
    "none": None, "keys": lambda rng, n, h, length, keys: rng.random((n, 1, 1, keys)) < 0.8,
    "pairs": lambda rng, n, h, length, keys: rng.random((length, keys)) < 0.8,
    "nothing seen": lambda rng, n, h, length, keys: np.zeros((n, 1, 1, keys), bool),
    "added": lambda rng, n, h, length, keys: rng.standard_normal((h, length, keys)),
    "column": lambda rng, n, h, length, keys: rng.standard_normal((length, 1)),
}


@pytest.mark.parametrize("masking", MASKS)
@pytest.mark.parametrize("causal", [False, True], ids=["all", "causal"])
def test_compiled_agrees_with_the_formula(masking: str, causal: bool) -> None:
    rng = np.random.default_rng(3)
    for dtype, (n, h, length, keys, e, width) in (
        (np.float64, (1, 2, 70, 150, 5, 33)), (np.float32, (2, 1, 131, 67, 19, 7)),
    ):
        shapes = (n, h, length, e), (n, h, keys, e), (n, h, keys, width)
        arrays = [rng.standard_normal(s).astype(dtype) for s in shapes]
        mask = MASKS[masking] and MASKS[masking](rng, n, h, length, keys)
        if mask is not None:
            arrays.append(mask if mask.dtype == bool else mask.astype(dtype))
        weight = nd.array(rng.standard_normal((n, h, length, width)), dtype=dtype)

        def attend(*xs: Any) -> Any:
            return nd.scaled_dot_product_attention(*xs[:3], mask=xs[3] if len(xs) > 3 else None, causal=causal)

        def run(function: Any, arrays: list = arrays, dtype: Any = dtype, weight: Any = weight) -> list[np.ndarray]:
            xs = [nd.array(a, dtype=a.dtype) for a in arrays]
            moving = [x for x in xs if x.dtype == dtype]
            for x in moving:
                x.attach_grad()
            with autograd.record():
                y = function(*xs)
                total = (y * weight).sum()
            total.backward()
            return [y.asnumpy(), *(x.grad.asnumpy() for x in moving)]

        tolerance = 1e-5 if dtype == np.float32 else 1e-12
        for have, expected in zip(run(hybridize(attend)), run(attend), strict=True):
            np.testing.assert_allclose(have, expected, tolerance, tolerance * max(1, float(np.abs(expected).max())))


def test_second_order_agrees() -> None:
    rng = np.random.default_rng(5)
    arrays = [rng.standard_normal((1, 2, 12, 4)) for _ in range(4)]

    def attend(q: Any, k: Any, v: Any) -> Any:
        return nd.scaled_dot_product_attention(q, k, v, causal=True)

    def run(function: Any) -> list[np.ndarray]:
        *xs, w = (nd.array(a, dtype=np.float64) for a in arrays)
        for x in xs:
            x.attach_grad()
        with autograd.record():
            slopes = autograd.grad((function(*xs) * w).sum(), xs, create_graph=True)
            z = sum((g * g).sum() for g in slopes)
        z.backward()
        return [x.grad.asnumpy() for x in xs]

    for have, expected in zip(run(hybridize(attend)), run(attend), strict=True):
        np.testing.assert_allclose(have, expected, 1e-10, 1e-10)


def test_projections_are_read_in_place_and_scores_never_stored() -> None:
    """One launch each way between the projections, whatever the layout of queries, keys and values."""
    n, t, h, d = 2, 48, 2, 16

    def attend(qkv: Any) -> Any:
        q, k, v = nd.transpose(nd.reshape(qkv, (n, t, 3, h, d)), (2, 0, 3, 1, 4))
        y = nd.scaled_dot_product_attention(q, k, v)
        return nd.reshape(nd.transpose(y, (0, 2, 1, 3)), (n, t, h * d))

    qkv = nd.array(np.random.default_rng(1).standard_normal((n, t, 3 * h * d)), dtype=np.float32)
    compiled = hybridize(attend)
    np.testing.assert_allclose(compiled(qkv).asnumpy(), attend(qkv).asnumpy(), 1e-5, 1e-5)
    assert [k.name for k in compiled.explain(qkv).kernels] == ["attention"]


@pytest.mark.parametrize("shape", [(2, 2, 90, 24), (1, 1, 300, 8)], ids=["whole heads", "parts of a head"])
def test_threads_do_not_change_a_bit(shape: tuple) -> None:
    rng = np.random.default_rng(2)
    arrays = [nd.array(rng.standard_normal(shape), dtype=np.float32) for _ in range(3)]
    results = []
    for count in (1, 2):
        with settings(HYBRID_NUM_THREADS=count):
            for x in arrays:
                x.attach_grad()
            with autograd.record():
                y = hybridize(lambda *xs: nd.scaled_dot_product_attention(*xs, causal=True))(*arrays)
            y.backward()
            results.append([y.asnumpy(), *(x.grad.asnumpy() for x in arrays)])
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)
