"""The primitive operations, one record each, by family. Importing this package fills `ndarray.op.OPS`."""

from . import attention, binary, contract, convolution, detection, gather, order, pool, random_bits, reduce, shape, unary

__all__ = [
    "attention", "binary", "contract", "convolution", "detection", "gather", "order", "pool", "random_bits", "reduce",
    "shape", "unary",
]
