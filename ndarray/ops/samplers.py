"""Random numbers of distributions that are drawn by rejection: gamma, Poisson, binomial.

``state`` is uint64[2] = (key, counter), as of `random_bits`. The pair seeds a generator of its own, NumPy's Philox4x64-10, with
its samplers: the number of attempts varies, but not by how much the caller advances the counter. They run on the host,
in compiled programs too, so that both get the same numbers. (A later NumPy may draw other ones from the same seed.)

Computed in float64. The gradient of a gamma sample x with respect to its shape a is the implicit one (Figurnov et al., 2018):
``dx/da = -(dP/da) / (dP/dx)`` with P(a, x) the cumulative distribution function; a rejection sampler's own derivative is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .. import functions as F
from ..op import NONDIFF, OPAQUE, ArrayType, Op, Sample, Vjp, register
from .base import broadcast_shapes, expect_kind, expect_same_dtype, fail, quiet, random_array

__all__ = ["digamma"]

UINT64, INT64, FLOAT64 = np.dtype(np.uint64), np.dtype(np.int64), np.dtype(np.float64)


def _generator(state: Any) -> np.random.Generator:
    key, counter = (int(v) for v in (state if isinstance(state, np.ndarray) else state.get()))
    return np.random.Generator(np.random.Philox(key=counter << 64 | key))


def _host(x: Any) -> np.ndarray:
    return np.asarray(x.get() if hasattr(x, "get") else x).astype(FLOAT64)


def _check_state(name: str, state: ArrayType) -> None:
    if state.dtype != UINT64 or len(state.shape) != 1 or state.shape[0] != 2:
        fail(name, "state", "uint64[2], (key, counter)", state, TypeError)


# -- gamma

def _gamma_infer(state: ArrayType, alpha: ArrayType, *, log: bool) -> tuple[ArrayType, ...]:
    _check_state("random_gamma", state)
    expect_kind("random_gamma", "alpha", alpha.dtype, "f")
    return (alpha,)


def _gamma(xp: Any, state: Any, alpha: Any, *, log: bool) -> Any:
    """Gamma numbers of scale 1, or their logarithms; NaN unless alpha > 0. ``G(a) = G(a + 1) * U**(1/a)`` never underflows as a
    logarithm."""
    a, generator = _host(alpha), _generator(state)
    valid = a > 0
    a = np.where(valid, a, 1.0)
    if log:
        out = np.log(generator.standard_gamma(a + 1)) - generator.standard_exponential(a.shape) / a
    else:
        out = generator.standard_gamma(a)
    return xp.asarray(np.where(valid, out, np.nan).astype(alpha.dtype))


def _gamma_vjp(g: Any, alpha: Any, out: Any, log: bool) -> Any:
    if log:
        return F.multiply(g, F.primitive("gamma_slope", alpha, out))
    some = F.greater(out, 0)
    slope = F.primitive("gamma_slope", alpha, F.log(F.where(some, out, 1)))
    return F.where(some, F.multiply(g, F.multiply(out, slope)), 0)


def _states() -> Iterator[np.ndarray]:
    yield np.array((0, 0), np.uint64)
    yield np.array((0x123456789ABCDEF0, 7), np.uint64)


def _gamma_samples() -> Iterator[Sample]:
    def again(state: np.ndarray, alpha: np.ndarray, log: bool) -> np.ndarray:
        draw = np.random.Generator(np.random.Philox(key=int(state[1]) << 64 | int(state[0])))
        a = alpha.astype(np.float64)
        if not log:
            return np.asarray(draw.standard_gamma(a)).astype(alpha.dtype)
        grown = draw.standard_gamma(a + 1)
        return (np.log(grown) - draw.standard_exponential(a.shape) / a).astype(alpha.dtype)

    for state in _states():
        for shape in ((5,), (3, 4), (), (0, 2)):
            for log in (False, True):
                for dtype in (np.float64, np.float32):
                    yield Sample((state, random_array(1, shape, dtype, 0.1, 9.0)), {"log": log}, again, differentiable=False)


register(Op("random_gamma", ("state", "alpha"), _gamma_infer, quiet(_gamma), {"alpha": Vjp(_gamma_vjp)}, OPAQUE, _gamma_samples,
            traits=frozenset({"random"})))


def digamma(x: np.ndarray) -> np.ndarray:
    """The derivative of the logarithm of the gamma function, for x > 0 in float64: recurrence to 10, then Stirling's series."""
    total, x = np.zeros_like(x), x.copy()
    for _ in range(10):
        small = x < 10
        total -= np.where(small, 1 / x, 0)
        x = np.where(small, x + 1, x)
    s = 1 / (x * x)
    series = s * (1 / 12 - s * (1 / 120 - s * (1 / 252 - s * (1 / 240 - s * (1 / 132 - s * (691 / 32760 - s / 12))))))
    return total + np.log(x) - 0.5 / x - series


def _slope(xp: Any, alpha: Any, logarithm: Any) -> Any:
    """``d log(x) / da`` of a gamma number x with shape a whose quantile stays.

    With ``P(a, x) = x**a exp(-x) / Gamma(a + 1) * S``, ``S = sum c[n]``, ``c[n] = c[n-1] * x / (a + n)``:
    ``-((log(x) - digamma(a + 1)) * S + dS/da) / a``. From a = 1e4 on by the normal approximation's corrections.
    """
    shape = np.broadcast_shapes(alpha.shape, logarithm.shape)
    a, y = (np.broadcast_to(_host(v), shape).ravel() for v in (alpha, logarithm))
    out = np.full(a.shape, np.nan)
    small = np.flatnonzero((a > 0) & (a < 1e4))
    if small.size:
        b, x = a[small], np.exp(y[small])
        term, change, rate = np.ones_like(x), np.zeros_like(x), np.zeros_like(x)
        total, n, live = np.ones_like(x), 0, np.arange(x.size)
        while live.size and n < 100000:
            n += 1
            term[live] *= x[live] / (b[live] + n)
            rate[live] -= 1 / (b[live] + n)
            total[live] += term[live]
            change[live] += term[live] * rate[live]
            if n % 8 == 0:
                live = live[(term[live] > 1e-18 * total[live]) | (x[live] > b[live] + n)]
        out[small] = -((y[small] - digamma(b + 1)) * total + change) / b
    large = np.flatnonzero(a >= 1e4)
    if large.size:
        b, x = a[large], np.exp(y[large])
        w = (x - b) / np.sqrt(b)
        z = w - (w * w - 1) / (3 * np.sqrt(b))
        out[large] = (1 + z / (2 * np.sqrt(b))) / x
    return xp.asarray(out.reshape(shape).astype(alpha.dtype))


def _slope_infer(alpha: ArrayType, logarithm: ArrayType) -> tuple[ArrayType, ...]:
    dtype = expect_same_dtype("gamma_slope", ("alpha", "logarithm"), (alpha, logarithm))
    expect_kind("gamma_slope", "alpha", dtype, "f")
    return (ArrayType(broadcast_shapes("gamma_slope", alpha.shape, logarithm.shape), dtype),)


def _slope_samples() -> Iterator[Sample]:
    def by_quadrature(alpha: np.ndarray, logarithm: np.ndarray) -> np.ndarray:
        """``-(dP/da) / (x dP/dx)``: P's logarithmic integral, differentiated under the integral sign."""
        out = []
        for a, y in zip(*np.broadcast_arrays(alpha.astype(np.float64), logarithm.astype(np.float64))):
            nodes, weights = np.polynomial.legendre.leggauss(400)
            low = y - 60 / min(a, 1.0)
            t = low + (y - low) * (np.concatenate([nodes, nodes]) + np.repeat([1, 3], 400)) / 4
            share = (y - low) / 4 * np.tile(weights, 2)
            density = np.exp(a * (t - y) - np.exp(t) + np.exp(y))  # relative to that at y
            import math

            out.append(-np.sum(share * density * (t - float(digamma(np.array([a]))[0]))) if math.isfinite(y) else np.nan)
        return np.array(out).astype(alpha.dtype)

    for dtype in (np.float64, np.float32):
        alpha = np.array([0.5, 0.7, 1.0, 2.5, 8.0, 30.0, 3.0], dtype)
        x = np.array([0.1, 0.9, 0.3, 2.0, 11.0, 25.0, 0.2], dtype)
        yield Sample((alpha, np.log(x)), {}, by_quadrature, differentiable=False, tolerance=20.0)


register(Op("gamma_slope", ("alpha", "logarithm"), _slope_infer, quiet(_slope), NONDIFF, OPAQUE, _slope_samples))


# -- counts

def _counts(name: str, arguments: tuple[str, ...], draw: Callable, valid: Callable, parameters: Callable) -> None:
    """Register a sampler of whole numbers: ``draw(generator, *parameters)``; -1 where the parameters are not valid."""

    def infer(state: ArrayType, *types: ArrayType) -> tuple[ArrayType, ...]:
        _check_state(name, state)
        dtype = expect_same_dtype(name, arguments, types)
        expect_kind(name, arguments[0], dtype, "f")
        return (ArrayType(broadcast_shapes(name, *(t.shape for t in types)), INT64),)

    def eager(xp: Any, state: Any, *arrays: Any) -> Any:
        values = np.broadcast_arrays(*map(_host, arrays))
        ok = valid(*values)
        safe = [np.where(ok, v, 0.5) for v in values]
        return xp.asarray(np.where(ok, draw(_generator(state), *safe), -1).astype(INT64))

    def samples() -> Iterator[Sample]:
        def again(state: np.ndarray, *arrays: np.ndarray) -> np.ndarray:
            generator = np.random.Generator(np.random.Philox(key=int(state[1]) << 64 | int(state[0])))
            return draw(generator, *(a.astype(np.float64) for a in arrays)).astype(np.int64)

        for state in _states():
            for shape in ((5,), (3, 4), (), (0, 2)):
                for dtype in (np.float64, np.float32):
                    yield Sample((state, *parameters(shape, dtype)), {}, again)

    register(Op(name, ("state", *arguments), infer, quiet(eager), NONDIFF, OPAQUE, samples, traits=frozenset({"random"})))


_counts("random_poisson", ("lam",), lambda generator, lam: np.asarray(generator.poisson(lam)),
        lambda lam: (lam >= 0) & (lam < 9e18), lambda shape, dtype: (random_array(1, shape, dtype, 0.0, 30.0),))
_counts("random_binomial", ("n", "p"), lambda generator, n, p: np.asarray(generator.binomial(n.astype(np.int64), p)),
        lambda n, p: (n >= 0) & (n < 9e18) & (p >= 0) & (p <= 1),
        lambda shape, dtype: (
            np.asarray(np.floor(random_array(1, shape, dtype, 0.0, 30.0))), random_array(2, shape, dtype, 0.0, 1.0)))
