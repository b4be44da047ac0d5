"""Generic tests of every primitive, made from its samples: eager against an independent reference, inference against
eager, layouts of the arguments, and gradients against differences to order 2."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ndarray as nd
from ndarray.apply import apply
from ndarray.op import NONDIFF, OPS, ArrayType, Sample
from ndarray.testing import assert_close, check_gradients

NAMES = sorted(n for n in OPS if n != "graph_call")
USERS = {"custom_gradient"}  # its gradient is whatever the user says: test_control
DIFFERENTIABLE = [  # those with the trait "random": test_random
    n for n in NAMES if OPS[n].vjp is not NONDIFF and "random" not in OPS[n].traits and n not in USERS]


def run(name: str, arrays: Any, attrs: Any) -> tuple[np.ndarray, ...]:
    with np.errstate(all="ignore"):
        out = OPS[name].eager(np, *arrays, **attrs)
    return tuple(np.asarray(o) for o in (out if isinstance(out, tuple) else (out,)))


def note(name: str, s: Sample) -> str:
    return f"{name}({', '.join(f'{a.dtype}{list(a.shape)}' for a in s.arrays)}, {dict(s.attrs)})"


@pytest.mark.parametrize("name", NAMES)
def test_eager_agrees_with_reference(name: str) -> None:
    for s in OPS[name].samples():
        if s.reference is None or s.error is not None:
            continue
        kept = [a.copy() for a in s.arrays]
        found = run(name, s.arrays, s.attrs)
        with np.errstate(all="ignore"):
            want = s.reference(*s.arrays, **s.attrs)
        want = want if isinstance(want, tuple) else (want,)
        for have, expected in zip(found, want, strict=True):
            assert have.dtype == np.asarray(expected).dtype, note(name, s)
            assert_close(have, expected, s.tolerance, note(name, s))
        for a, b in zip(s.arrays, kept, strict=True):
            np.testing.assert_array_equal(a, b, err_msg=f"{note(name, s)} wrote its argument")


@pytest.mark.parametrize("name", NAMES)
def test_infer_agrees_with_eager(name: str) -> None:
    for s in OPS[name].samples():
        types = OPS[name].infer(*(ArrayType(a.shape, a.dtype) for a in s.arrays), **s.attrs)
        found = run(name, s.arrays, s.attrs)
        assert [(t.shape, t.dtype) for t in types] == [(f.shape, f.dtype) for f in found], note(name, s)


@pytest.mark.parametrize("name", [n for n in NAMES if OPS[n].arguments])
def test_layout_of_the_arguments_does_not_matter(name: str) -> None:
    for s in OPS[name].samples():
        strided = [np.repeat(a, 2, axis=-1)[..., ::2] if a.ndim else a for a in s.arrays]
        reversed_ = [a[..., ::-1].copy()[..., ::-1] if a.ndim else a for a in s.arrays]
        fortran = [np.array(a, order="F") for a in s.arrays]
        want = run(name, s.arrays, s.attrs)
        for arrays in (strided, reversed_, fortran):
            for have, expected in zip(run(name, arrays, s.attrs), want, strict=True):
                assert_close(have, expected, s.tolerance, note(name, s))


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients(name: str) -> None:
    op, seen = OPS[name], 0
    for s in op.samples():
        if not s.differentiable or s.error is not None or not any(a.dtype in (np.float64, np.complex128) for a in s.arrays):
            continue
        if op.name == "cast" and s.attrs["dtype"] != np.float64:
            continue
        seen += 1
        try:
            check_gradients(lambda *xs, s=s: apply(op, *xs, **s.attrs), s.arrays, limit=2e-5)
        except Exception as error:
            error.add_note(note(name, s))
            raise
    assert seen, "no sample in float64"


@pytest.mark.parametrize("name", ["add", "where", "concatenate", "dot_general", "convolution", "take", "pad", "reshape",
                                  "transpose"])
def test_errors_name_the_op(name: str) -> None:
    """Arguments that don't fit are refused by inference with the op's name, expectation and what came."""
    bad: dict[str, tuple] = {
        "add": ([(3, 4), (3, 5)], {}),
        "where": ([(3,), (4,), (4,)], {}),
        "concatenate": ([(3, 4), (3, 5)], {"axis": 0}),
        "dot_general": ([(3, 4), (5, 4)], {"contract": ((1,), (0,)), "batch": ((), ())}),
        "convolution": ([(2, 3, 5, 5), (4, 2, 3, 3)],
                        {"stride": (1, 1), "padding": ((0, 0),) * 2, "dilation": (1, 1), "groups": 1}),
        "take": ([(3, 4), (2,)], {"axis": 5, "mode": "clip"}),
        "pad": ([(3,)], {"low": (-2,), "high": (-2,), "interior": (0,), "value": 0.0}),
        "reshape": ([(3, 4)], {"shape": (5,)}),
        "transpose": ([(3, 4)], {"axes": (0, 0)}),
    }
    shapes, attrs = bad[name]
    special = {("where", 0): np.bool_, ("take", 1): np.int64}
    dtypes = [np.dtype(special.get((name, k), np.float32)) for k in range(3)]
    with pytest.raises(ValueError, match=rf"^{name}: .*expected .*, got ") as info:
        OPS[name].infer(*(ArrayType(s, d) for s, d in zip(shapes, dtypes)), **attrs)
    assert str(info.value)


def test_views_share_memory() -> None:
    """Ops with the trait "view" don't copy where NumPy doesn't."""
    x = np.arange(12.0).reshape(3, 4)
    for name, attrs in (("reshape", {"shape": (12,)}), ("transpose", {"axes": (1, 0)}), ("flip", {"axes": (0,)}),
                        ("slice", {"start": (1, 0), "stop": (3, 4), "step": (1, 2)}), ("broadcast_to", {"shape": (2, 3, 4)})):
        assert "view" in OPS[name].traits
        assert np.shares_memory(run(name, (x,), attrs)[0], x), name


def test_no_floating_point_warnings() -> None:
    """log(0) is -inf and 1/0 is inf without a warning (warnings are errors in this run)."""
    zero = nd.array([0.0, 1.0])
    assert nd.log(zero).asnumpy()[0] == -np.inf
    assert nd.divide(zero + 1, zero).asnumpy()[0] == np.inf
    assert np.isnan(nd.sqrt(zero - 1).asnumpy()[0])


