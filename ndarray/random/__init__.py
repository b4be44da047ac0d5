"""Random numbers, seeded for each device; the same eagerly and in compiled programs.

>>> import ndarray as nd
>>> nd.random.seed(1)
>>> nd.random.normal(0.0, 1.0, shape=(2, 3)).shape
(2, 3)
"""

from __future__ import annotations

from . import continuous, discrete, generator
from .continuous import *  # noqa: F403
from .discrete import *  # noqa: F403
from .generator import bits, seed, state  # noqa: F401

__all__ = [*generator.__all__, *continuous.__all__, *discrete.__all__]
