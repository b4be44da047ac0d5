"""Special functions against SciPy, with derivatives, and compiled."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import scipy.special

import ndarray as nd
from hybrid import CompiledFunction
from ndarray.testing import check_gradients

LINE = np.concatenate([np.arange(-6.27, 6.2, 0.0973), [0.5, 1.0, 2.0, 7.999, 8.0, 30.0, 1e3, 1e6, 1e-5, -1e-5, 1e-30]])
FUNCTIONS: dict[str, tuple[Callable, np.ndarray]] = {
    "gammaln": (scipy.special.gammaln, np.append(LINE, 1e30)), "digamma": (scipy.special.digamma, np.append(LINE, 1e30)),
    "gamma": (scipy.special.gamma, LINE[np.abs(LINE) < 25]),
    "erfinv": (scipy.special.erfinv, np.concatenate([np.linspace(-1, 1, 101), [1 - 1e-6, -1 + 1e-13, 1e-20, 0.85, 0.8500001]])),
}


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_values(name: str, dtype: str) -> None:
    reference, x = FUNCTIONS[name]
    x = x.astype(dtype)
    want = reference(x.astype(np.float64))
    for function in (getattr(nd, name), CompiledFunction(getattr(nd, name))):
        found = function(nd.array(x, dtype=dtype)).asnumpy().astype(np.float64)
        finite = np.isfinite(want) & (np.abs(want) < 1e30)
        error = np.abs(found[finite] - want[finite]) / np.maximum(1, np.abs(want[finite]))
        if dtype == "float32":  # an error of the argument counts, too
            slope = np.abs(reference(np.nextafter(x, np.float32(9e9)).astype(np.float64))[finite] - want[finite])
            error -= 8 * slope / np.maximum(1, np.abs(want[finite]))
        assert error.max() < (1e-12 if dtype == "float64" else 4e-6), (x[finite][error.argmax()], found[finite][error.argmax()])
        assert np.isfinite(found[finite]).all()


@pytest.mark.parametrize(
    ("name", "low", "high"), [("gammaln", 0.1, 12), ("digamma", 0.3, 12), ("gamma", 0.3, 4), ("erfinv", -0.95, 0.95)]
)
def test_gradients(name: str, low: float, high: float) -> None:
    x = np.linspace(low, high, 12)
    check_gradients(getattr(nd, name), [x], limit=1e-4)
    if name != "erfinv":
        check_gradients(getattr(nd, name), [-x + 0.013], order=1, step=1e-7, limit=1e-3)


def test_special_arguments() -> None:
    x = nd.array([np.inf, 0.0, np.nan])
    assert nd.gammaln(x).tolist()[:2] == [np.inf, np.inf]
    assert nd.gamma(x).tolist()[:2] == [np.inf, np.inf]
    assert nd.digamma(x).tolist()[0] == np.inf
    assert nd.erfinv(nd.array([-1.0, 1.0])).tolist() == [-np.inf, np.inf]
    for function in (nd.gammaln, nd.gamma, nd.digamma, nd.erfinv):
        assert np.isnan(function(x).asnumpy()[2])
    assert np.isnan(nd.gamma(nd.array([-1.0, -2.0])).asnumpy()).all()
    assert np.isnan(nd.erfinv(nd.array([1.5])).asnumpy()).all()
