"""Continuous distributions. Parameters are numbers or arrays, which broadcast to each other and to `shape`.

Where a number is a function of the parameters and of noise that does not depend on them, gradients flow to array
parameters; to the shapes of gamma and its relatives they flow implicitly (`ndarray/ops/samplers.py`).

Common to all: `shape` is the result's, by default that to which the parameters broadcast (`size` is NumPy's name of it); `dtype`
is floating, by default float32; `device` (MXNet: `ctx`) draws, by default that of the parameters. Raises ValueError for
parameters out of range (in a trace, where values are unknown, the numbers are NaN) and TypeError for another dtype.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import elementwise as E
from ..apply import apply
from ..array import NDArray
from ..device import Device
from ..dims import Size
from ..dtypes import float32, float64
from ..linear import matmul
from ..manipulation import expand_dims, squeeze
from ..op import OPS
from ..operands import as_floating
from ..reduction import max as maximum
from ..reduction import sum as total
from .generator import (
    Place,
    Shape,
    affine,
    arrays,
    as_shape,
    bits,
    cast,
    draw,
    expect,
    float_dtype,
    inside,
    parameter,
    part,
    place_of,
    positive,
    result_shape,
    shifted,
    times,
    uniforms,
)

__all__ = [
    "beta", "chisquare", "dirichlet", "exponential", "f", "gamma", "gumbel", "laplace", "logistic", "lognormal",
    "multivariate_normal", "normal", "pareto", "power", "rand", "randn", "rayleigh", "standard_t", "student_t", "uniform",
    "weibull",
]


class _Call:
    """What every function makes of its arguments: dtype, the dtype to compute in, device, shape, and arrays for lists."""

    def __init__(self, name: str, shape: Shape, size: Shape, dtype: Any, device: Place, ctx: Place, *parameters: Any):
        self.name = name
        self.dtype = float_dtype(name, dtype)
        self.work = float64 if self.dtype == float64 else float32
        self.place: Device = place_of(device, ctx, *parameters)
        self.parameters = arrays(self.place, *parameters)
        self.shape = result_shape(name, size if shape is None else shape, *self.parameters)

    def uniform(self) -> NDArray:
        """Strictly inside (0, 1)."""
        return inside(self.shape, self.work, self.place)

    def exponential(self) -> NDArray:
        """Of mean 1, positive."""
        return apply(OPS["negative"], apply(OPS["log"], self.uniform()))

    def value(self, k: int) -> Any:
        """Parameter k: an array in the dtype to compute in, or the number."""
        p = self.parameters[k]
        return cast(p, self.work) if isinstance(p, NDArray) else p

    def gamma(self, alpha: Any, log: bool = False) -> NDArray:
        """Of scale 1, or the logarithms."""
        return draw("random_gamma", self.place, 1, parameter(alpha, self.shape, self.work, self.place), log=log)

    def positive(self, **named: Any) -> None:
        """Check that the parameters are positive."""
        for argument, value in named.items():
            expect(self.name, argument, value, _is_positive, "a positive number")

    def scale(self, value: Any, argument: str = "scale") -> None:
        """Check that a scale is not negative."""
        expect(self.name, argument, value, _is_scale, "a number of at least 0")


_is_positive: Callable[[Any], Any] = lambda v: v > 0
_is_scale: Callable[[Any], Any] = lambda v: v >= 0


def uniform(
    low: Any = 0.0, high: Any = 1.0, shape: Shape = None, dtype: Any = None, device: Place = None, ctx: Place = None,
    *, size: Shape = None,
) -> NDArray:
    """Numbers uniform in [low, high): multiples of 2**-24 (float64: 2**-53, float16: 2**-11, bfloat16: 2**-8) of the range.

    >>> import ndarray as nd
    >>> x = nd.random.uniform(2, 3, shape=(4, 5))
    >>> x.shape, bool((x >= 2).all())
    ((4, 5), True)
    """
    c = _Call("uniform", shape, size, dtype, device, ctx, low, high)
    low, high = c.parameters
    return affine(uniforms(c.shape, c.dtype, c.place), high - low, low, c.dtype)


def rand(*shape: Size, dtype: Any = None, device: Place = None, ctx: Place = None) -> NDArray:
    """``uniform(0, 1, shape)`` with the shape as arguments.

    >>> import ndarray as nd
    >>> nd.random.rand(2, 3).shape
    (2, 3)
    """
    return uniform(0.0, 1.0, shape, dtype, device, ctx)


def normal(
    loc: Any = 0.0, scale: Any = 1.0, shape: Shape = None, dtype: Any = None, device: Place = None, ctx: Place = None,
    *, size: Shape = None,
) -> NDArray:
    """Numbers of the normal distribution with mean `loc` and standard deviation `scale` (Box and Muller, 1958).

    >>> import ndarray as nd
    >>> nd.random.normal(nd.array([0.0, 100.0]), 1.0, shape=(3, 2)).shape
    (3, 2)
    """
    c = _Call("normal", shape, size, dtype, device, ctx, loc, scale)
    loc, scale = c.parameters
    c.scale(scale)
    return affine(_standard_normal(c.shape, c.work, c.place), scale, loc, c.dtype)


def _standard_normal(shape: tuple[Size, ...], work: np.dtype, place: Device) -> NDArray:
    words = bits((2, *shape), place)
    radius = apply(OPS["sqrt"], times(apply(OPS["log"], positive(part(words, 0, shape), work)), -2.0))
    angle = times(cast(shifted(part(words, 1, shape), 8), work), 2.0**-24 * 2 * math.pi)
    return apply(OPS["multiply"], radius, apply(OPS["cos"], angle))


def randn(
    *shape: Size, loc: Any = 0.0, scale: Any = 1.0, dtype: Any = None, device: Place = None, ctx: Place = None,
) -> NDArray:
    """``normal(loc, scale, shape)`` with the shape as arguments.

    >>> import ndarray as nd
    >>> nd.random.randn(2, 3).shape
    (2, 3)
    """
    return normal(loc, scale, shape, dtype, device, ctx)


def lognormal(
    mean: Any = 0.0, sigma: Any = 1.0, shape: Shape = None, dtype: Any = None, device: Place = None, ctx: Place = None,
    *, size: Shape = None,
) -> NDArray:
    """``exp`` of numbers of the normal distribution with mean `mean` and standard deviation `sigma`.

    >>> import ndarray as nd
    >>> bool((nd.random.lognormal(0, 1, shape=9) > 0).all())
    True
    """
    c = _Call("lognormal", shape, size, dtype, device, ctx, mean, sigma)
    mean, sigma = c.parameters
    c.scale(sigma, "sigma")
    return cast(E.exp(affine(_standard_normal(c.shape, c.work, c.place), sigma, mean, c.work)), c.dtype)


def exponential(
    scale: Any = 1.0, shape: Shape = None, dtype: Any = None, device: Place = None, ctx: Place = None,
    *, size: Shape = None,
) -> NDArray:
    """Numbers of the exponential distribution with mean `scale`.

    >>> import ndarray as nd
    >>> bool((nd.random.exponential(2.0, shape=9) >= 0).all())
    True
    """
    c = _Call("exponential", shape, size, dtype, device, ctx, scale)
    (scale,) = c.parameters
    c.scale(scale)
    u = positive(bits(c.shape, c.place), c.work)
    return affine(apply(OPS["negative"], apply(OPS["log"], u)), scale, 0.0, c.dtype)


def gumbel(
    loc: Any = 0.0, scale: Any = 1.0, shape: Shape = None, dtype: Any = None, device: Place = None, ctx: Place = None,
    *, size: Shape = None,
) -> NDArray:
    """Numbers of the Gumbel distribution: ``loc - scale * log(-log(u))``.

    >>> import ndarray as nd
    >>> nd.random.gumbel(shape=(2,)).shape
    (2,)
    """
    c = _Call("gumbel", shape, size, dtype, device, ctx, loc, scale)
    loc, scale = c.parameters
    c.scale(scale)
    return affine(_standard_gumbel(c.shape, c.work, c.place), scale, loc, c.dtype)


def _standard_gumbel(shape: tuple[Size, ...], work: np.dtype, place: Device) -> NDArray:
    inner = apply(OPS["negative"], apply(OPS["log"], inside(shape, work, place)))
    return apply(OPS["negative"], apply(OPS["log"], inner))


def laplace(
    loc: Any = 0.0, scale: Any = 1.0, shape: Shape = None, dtype: Any = None, device: Place = None, ctx: Place = None,
    *, size: Shape = None,
) -> NDArray:
    """Numbers with density ``exp(-|x - loc| / scale) / (2 * scale)``, by inversion.

    >>> import ndarray as nd
    >>> nd.random.laplace(0.0, 2.0, shape=(2,)).shape
    (2,)
    """
    c = _Call("laplace", shape, size, dtype, device, ctx, loc, scale)
    loc, scale = c.parameters
    c.scale(scale)
    u = E.subtract(c.uniform(), 0.5)
    z = E.negative(E.multiply(E.sign(u), E.log1p(E.multiply(E.abs(u), -2))))
    return affine(z, scale, loc, c.dtype)


def logistic(
    loc: Any = 0.0, scale: Any = 1.0, shape: Shape = None, dtype: Any = None, device: Place = None, ctx: Place = None,
    *, size: Shape = None,
) -> NDArray:
    """``loc + scale * log(u / (1 - u))``.

    >>> import ndarray as nd
    >>> nd.random.logistic(0.0, 2.0, shape=(2,)).shape
    (2,)
    """
    c = _Call("logistic", shape, size, dtype, device, ctx, loc, scale)
    loc, scale = c.parameters
    c.scale(scale)
    u = c.uniform()
    return affine(E.subtract(E.log(u), E.log1p(E.negative(u))), scale, loc, c.dtype)


def rayleigh(
    scale: Any = 1.0, shape: Shape = None, dtype: Any = None, device: Place = None, ctx: Place = None, *, size: Shape = None,
) -> NDArray:
    """``scale * sqrt(2 * e)`` with e exponential of mean 1: the length of two normal components.

    >>> import ndarray as nd
    >>> bool((nd.random.rayleigh(2.0, shape=9) > 0).all())
    True
    """
    c = _Call("rayleigh", shape, size, dtype, device, ctx, scale)
    (scale,) = c.parameters
    c.scale(scale)
    return affine(E.sqrt(E.multiply(c.exponential(), 2)), scale, 0.0, c.dtype)


def weibull(
    a: Any, shape: Shape = None, dtype: Any = None, device: Place = None, ctx: Place = None, *, size: Shape = None
) -> NDArray:
    """``e ** (1/a)`` with e exponential of mean 1: the Weibull distribution of scale 1.

    >>> import ndarray as nd
    >>> bool((nd.random.weibull(2.0, shape=9) > 0).all())
    True
    """
    c = _Call("weibull", shape, size, dtype, device, ctx, a)
    c.positive(a=c.parameters[0])
    return cast(E.exp(E.divide(E.log(c.exponential()), c.value(0))), c.dtype)


def pareto(
    a: Any, shape: Shape = None, dtype: Any = None, device: Place = None, ctx: Place = None, *, size: Shape = None
) -> NDArray:
    """``exp(e / a) - 1`` with e exponential of mean 1: the Pareto distribution of the second kind (Lomax), as NumPy's.

    >>> import ndarray as nd
    >>> bool((nd.random.pareto(2.0, shape=9) > 0).all())
    True
    """
    c = _Call("pareto", shape, size, dtype, device, ctx, a)
    c.positive(a=c.parameters[0])
    return cast(E.expm1(E.divide(c.exponential(), c.value(0))), c.dtype)


def power(
    a: Any, shape: Shape = None, dtype: Any = None, device: Place = None, ctx: Place = None, *, size: Shape = None
) -> NDArray:
    """``u ** (1/a)``: numbers in [0, 1] with density ``a * x**(a - 1)``.

    >>> import ndarray as nd
    >>> bool((nd.random.power(2.0, shape=9) <= 1).all())
    True
    """
    c = _Call("power", shape, size, dtype, device, ctx, a)
    c.positive(a=c.parameters[0])
    return cast(E.exp(E.divide(E.log(c.uniform()), c.value(0))), c.dtype)


# -- gamma and its relatives

def gamma(
    alpha: Any = 1.0, beta: Any = 1.0, shape: Shape = None, dtype: Any = None, device: Place = None, ctx: Place = None,
    *, size: Shape = None, scale: Any = None,
) -> NDArray:
    """Numbers with density ``x**(alpha-1) * exp(-x/beta) / (Gamma(alpha) * beta**alpha)``; beta is the scale, as in MXNet.

    >>> import ndarray as nd
    >>> bool((nd.random.gamma(2.0, 3.0, shape=9) > 0).all())
    True
    """
    c = _Call("gamma", shape, size, dtype, device, ctx, alpha, beta if scale is None else scale)
    alpha, beta = c.parameters
    c.positive(alpha=alpha)
    c.scale(beta, "beta")
    return affine(c.gamma(alpha), beta, 0.0, c.dtype)


def beta(
    a: Any, b: Any, shape: Shape = None, dtype: Any = None, device: Place = None, ctx: Place = None, *, size: Shape = None
) -> NDArray:
    """Numbers in [0, 1] with density proportional to ``x**(a-1) * (1-x)**(b-1)``: a share of two gamma numbers.

    >>> import ndarray as nd
    >>> bool((nd.random.beta(2.0, 3.0, shape=9) <= 1).all())
    True
    """
    c = _Call("beta", shape, size, dtype, device, ctx, a, b)
    a, b = c.parameters
    c.positive(a=a, b=b)
    return cast(apply(OPS["sigmoid"], E.subtract(c.gamma(a, log=True), c.gamma(b, log=True))), c.dtype)


def chisquare(
    df: Any, shape: Shape = None, dtype: Any = None, device: Place = None, ctx: Place = None, *, size: Shape = None
) -> NDArray:
    """The sum of the squares of `df` normal numbers: twice a gamma number of shape ``df / 2``.

    >>> import ndarray as nd
    >>> bool((nd.random.chisquare(2.0, shape=9) > 0).all())
    True
    """
    c = _Call("chisquare", shape, size, dtype, device, ctx, df)
    c.positive(df=c.parameters[0])
    return cast(E.multiply(c.gamma(_half(c.value(0))), 2), c.dtype)


def _half(value: Any) -> Any:
    return E.multiply(value, 0.5) if isinstance(value, NDArray) else value / 2


def f(
    dfnum: Any, dfden: Any, shape: Shape = None, dtype: Any = None, device: Place = None, ctx: Place = None,
    *, size: Shape = None,
) -> NDArray:
    """Fisher's F: the ratio of two chi-square numbers, each divided by its degrees of freedom.

    >>> import ndarray as nd
    >>> bool((nd.random.f(2.0, 3.0, shape=9) > 0).all())
    True
    """
    c = _Call("f", shape, size, dtype, device, ctx, dfnum, dfden)
    dfnum, dfden = c.parameters
    c.positive(dfnum=dfnum, dfden=dfden)
    a, b = c.value(0), c.value(1)
    ratio = E.exp(E.subtract(c.gamma(_half(a), log=True), c.gamma(_half(b), log=True)))
    return cast(E.divide(E.multiply(ratio, b), a), c.dtype)


def standard_t(
    df: Any, shape: Shape = None, dtype: Any = None, device: Place = None, ctx: Place = None, *, size: Shape = None
) -> NDArray:
    """Student's t: a normal number over the square root of a chi-square number per degree of freedom.

    >>> import ndarray as nd
    >>> nd.random.student_t(3.0, shape=(2,)).shape
    (2,)
    """
    c = _Call("student_t", shape, size, dtype, device, ctx, df)
    c.positive(df=c.parameters[0])
    half = _half(c.value(0))
    z = _standard_normal(c.shape, c.work, c.place)
    spread = E.exp(E.multiply(c.gamma(half, log=True), -0.5))
    return cast(E.multiply(E.multiply(z, spread), E.sqrt(half) if isinstance(half, NDArray) else math.sqrt(half)), c.dtype)


student_t = standard_t


# -- vectors

def dirichlet(
    alpha: Any, shape: Shape = None, dtype: Any = None, device: Place = None, ctx: Place = None, *, size: Shape = None
) -> NDArray:
    """Shares that add up to 1: gamma numbers of the shapes `alpha` (..., K) over their sum; result: (*shape, *alpha.shape).

    >>> import ndarray as nd
    >>> x = nd.random.dirichlet([1.0, 2.0, 3.0], shape=5)
    >>> x.shape, bool((abs(x.sum(axis=1) - 1) < 1e-5).all())
    ((5, 3), True)
    """
    place = place_of(device, ctx, alpha)
    (alpha,) = arrays(place, alpha)
    if not isinstance(alpha, NDArray) or alpha.ndim < 1:
        raise ValueError(f"random.dirichlet: alpha: expected an array of shape (..., K), got {alpha!r:.60}")
    extra = as_shape(size if shape is None else shape)
    c = _Call("dirichlet", (*extra, *alpha.shape), None, dtype, place, None, as_floating("random.dirichlet", alpha, "alpha"))
    c.positive(alpha=alpha)
    logs = c.gamma(c.value(0), log=True)
    grown = E.exp(E.subtract(logs, maximum(E.stop_gradient(logs), -1, keepdims=True)))
    return cast(E.divide(grown, total(grown, -1, keepdims=True)), c.dtype)


def multivariate_normal(
    mean: Any, cov: Any, shape: Shape = None, dtype: Any = None, device: Place = None, ctx: Place = None, *, size: Shape = None
) -> NDArray:
    """Vectors of the normal distribution with mean (..., K) and covariance (..., K, K), symmetric and positive definite:
    ``mean + L @ z`` with ``cov = L @ L.T`` (Cholesky). Result: (*shape, ..., K).

    Raises ValueError for shapes that do not fit, LinAlgError where `cov` is not positive definite.

    >>> import ndarray as nd
    >>> nd.random.multivariate_normal([0.0, 1.0], [[1.0, 0.5], [0.5, 1.0]], shape=5).shape
    (5, 2)
    """
    from ..linalg import cholesky

    name = "multivariate_normal"
    place = place_of(device, ctx, mean, cov)
    mean, cov = arrays(place, mean, cov)
    result = float_dtype(name, dtype)
    work = float64 if result == float64 else float32
    if not isinstance(mean, NDArray) or not isinstance(cov, NDArray) or mean.ndim < 1 or cov.ndim < 2 or (
        cov.shape[-1] != cov.shape[-2] or cov.shape[-1] != mean.shape[-1]
    ):
        shapes = " and ".join(str(getattr(v, "shape", v)) for v in (mean, cov))
        raise ValueError(f"random.{name}: expected mean (..., K) and cov (..., K, K), got shapes {shapes}")
    mean, factor = cast(mean, work), cholesky(cast(cov, work))
    batch = result_shape(name, None, mean, factor[..., 0])
    z = _standard_normal((*as_shape(size if shape is None else shape), *batch), work, place)
    return cast(E.add(mean, squeeze(matmul(factor, expand_dims(z, -1)), -1)), result)
