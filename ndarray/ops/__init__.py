"""The primitive operations, one record each, by family. Importing this package fills `ndarray.op.OPS`."""

from . import (
    activation,
    attention,
    binary,
    complex,
    contract,
    convolution,
    cumulative,
    detection,
    elementary,
    fourier,
    gather,
    linear_algebra,
    order,
    pool,
    random_bits,
    reduce,
    samplers,
    shape,
    spectral,
    unary,
)

__all__ = [
    "activation", "attention", "binary", "complex", "contract", "convolution", "cumulative", "detection", "elementary",
    "fourier", "gather", "linear_algebra", "order", "pool", "random_bits", "reduce", "samplers", "shape", "spectral", "unary",
]
