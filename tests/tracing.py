"""For tests of tracing: functions compiled for the interpreter, and arrays for them."""

import numpy as np

import ndarray as nd
from hybrid import CompiledFunction


def compiled(function=None, **options):
    """On the interpreter: what is tested here is what is traced, when, and how the results come back."""
    if function is None:
        return lambda f: compiled(f, **options)
    return CompiledFunction(function, backend="interpreter", **options)


def normal(*shape, seed=0, dtype="float32"):
    return nd.array(np.random.default_rng(seed).standard_normal(shape), dtype=dtype)
