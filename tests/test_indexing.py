"""Reading and writing at indices of all kinds, against NumPy: eagerly, recorded (with the gradient), and traced."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import hybrid
import ndarray as nd
from ndarray import autograd

SHAPE = (4, 5, 6, 3)


def random_index(rng: np.random.Generator) -> tuple:
    """Ints, slices of all steps, None, Ellipsis, integer arrays and masks, for some axes of an array of `SHAPE`."""
    items: list[Any] = []
    axis, last, ellipsis = 0, int(rng.integers(1, 5)), False
    while axis < last:
        kind, n = rng.integers(0, 9), SHAPE[axis]
        if kind == 3:
            items.append(None)
        elif kind == 4:
            if not ellipsis:
                items.append(Ellipsis)
            ellipsis = True
        elif kind == 8:
            if axis + 2 <= last:
                items.append(rng.random(SHAPE[axis : axis + 2]) < 0.5)
                axis += 2
        else:
            step = (None, 1, 2, -1, -2)[rng.integers(0, 5)]
            bounds = [None if rng.random() < 0.4 else int(rng.integers(-n - 1, n + 2)) for _ in range(2)]
            items.append({
                0: int(rng.integers(-n, n)), 1: slice(*bounds, step), 2: slice(*bounds, step), 5: rng.integers(-n, n, 2),
                6: rng.integers(-n, n, (3, 1)), 7: rng.random(n) < 0.5,
            }[int(kind)])
            axis += 1
    return tuple(items)


def as_ours(index: tuple) -> tuple:
    return tuple(nd.array(i) if isinstance(i, np.ndarray) else i for i in index)


@pytest.mark.parametrize("seed", range(8))
def test_random_indices(seed: int) -> None:
    rng = np.random.default_rng(seed)
    raw = rng.standard_normal(SHAPE)
    positions = np.arange(raw.size).reshape(SHAPE)
    seen = 0
    while seen < 60:
        index = random_index(rng)
        try:
            want = raw[index]
        except IndexError:
            continue
        if want.size == 0 and any(isinstance(i, np.ndarray) and i.dtype != bool for i in index):
            continue  # nothing is read: NumPy doesn't look at the positions
        seen += 1
        note = str([(i.dtype.name, i.shape) if isinstance(i, np.ndarray) else i for i in index])
        x = nd.array(raw)
        np.testing.assert_array_equal(x[as_ours(index)].asnumpy(), want, note)
        values = rng.standard_normal(want.shape)
        written = raw.copy()
        written[index] = values
        y = nd.array(raw)
        y[as_ours(index)] = nd.array(values)
        np.testing.assert_array_equal(y.asnumpy(), written, note)
        x.attach_grad()
        with autograd.record():
            z = x[as_ours(index)]
            total = (z * nd.array(values)).sum()
        assert z.shape == want.shape, note
        np.testing.assert_array_equal(z.asnumpy(), want, note)
        total.backward()
        gradient = np.zeros(raw.size)
        np.add.at(gradient, positions[index].ravel(), values.ravel())
        np.testing.assert_allclose(x.grad.asnumpy(), gradient.reshape(SHAPE), atol=1e-12, err_msg=note)


INDICES: dict[str, Any] = {
    "ints": np.array([2, 0, -1]), "pairs": (np.array([[0], [2]]), np.array([1, -1])),
    "between slices": (slice(1, 3), np.array([3, 0])),
    "apart": (np.array([0, 3]), slice(None), np.array([1, 5])), "with None": (None, np.array([0, 1]), None, slice(0, 2)),
    "known mask": np.array([True, False, True, True]), "twice": np.array([1, 1, 1]),
}


@pytest.mark.parametrize("name", sorted(INDICES))
def test_traced(name: str) -> None:
    """Reads and writes at known and at traced positions."""
    index = INDICES[name]
    raw = np.random.default_rng(1).standard_normal((4, 5, 6)).astype(np.float32)
    values = np.random.default_rng(2).standard_normal(raw[index].shape).astype(np.float32)
    written = raw.copy()
    written[index] = values

    @hybrid.hybridize(backend="interpreter")
    def read(x: Any) -> Any:
        return x[index]

    @hybrid.hybridize(backend="interpreter")
    def write(x: Any, v: Any) -> Any:
        x = x.copy()
        x[index] = v
        return x

    np.testing.assert_array_equal(read(nd.array(raw)).asnumpy(), raw[index])
    x, v = nd.array(raw), nd.array(values)
    np.testing.assert_array_equal(write(x, v).asnumpy(), written)
    v.attach_grad()
    with autograd.record():
        out = write(x, v).sum()
    out.backward()
    assert v.grad.sum().item() == len(np.unique(np.arange(raw.size).reshape(raw.shape)[index]))  # the last of equal ones counts


def test_traced_positions() -> None:
    @hybrid.hybridize(backend="interpreter")
    def write(x: Any, i: Any, v: Any) -> Any:
        x = x + 0
        x[i, :2] = v
        return x

    x = nd.zeros((3, 3))
    assert write(x, nd.array([2, 0]), nd.array([[1.0, 2.0], [3.0, 4.0]])).tolist() == [[3, 4, 0], [0, 0, 0], [1, 2, 0]]


def test_bools_add_an_axis() -> None:
    raw = np.arange(6.0).reshape(2, 3)
    x = nd.array(raw)
    x.attach_grad()
    with autograd.record():
        for index in (True, False, (True, [0, 1]), (0, True), (None, True, 0), np.array(True)):
            assert x[index].shape == raw[index].shape
        for wrong in (np.zeros(3, bool), np.ones((2, 2), bool), (slice(None), np.ones(2, bool))):
            with pytest.raises(IndexError, match="mask of shape"):
                x[wrong]
        with pytest.raises(IndexError, match="too many indices"):
            x[0, 0, 0]
