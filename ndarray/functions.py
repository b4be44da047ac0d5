"""All public array functions in one place: what ``import ndarray as nd`` offers as ``nd.exp``, ``nd.sum``, ``nd.relu`` ...

The gradient rules of the primitives are written in these functions too.
"""

from __future__ import annotations

from . import (
    elementwise,
    linear,
    manipulation,
    ops,  # noqa: F401  (the table of primitives; its rules refer to this module)
    reduction,
    searching,
)
from .binary import *  # noqa: F403
from .complexes import *  # noqa: F403
from .creation import asarray, eye, ones, ones_like, zeros, zeros_like
from .elementwise import *  # noqa: F403
from .linear import *  # noqa: F403
from .manipulation import *  # noqa: F403
from .operands import primitive
from .padding import pad
from .reduction import *  # noqa: F403
from .searching import *  # noqa: F403
from .unary import *  # noqa: F403

from . import assembly, calculus, equality, sets, statistics  # isort: skip
from .assembly import *  # noqa: F403
from .calculus import *  # noqa: F403
from .einsum import einsum, einsum_path
from .equality import *  # noqa: F403
from .sets import *  # noqa: F403
from .statistics import *  # noqa: F403

from . import (  # isort: skip
    activations,
    attention,
    control,
    convolutional,
    detection,
    neural,
    normalization,
    pools,
    positions,
    probabilities,
    rearrangement,
    recurrent,
    sequences,
    spatial,
    special,
)
from .activations import *  # noqa: F403
from .attention import *  # noqa: F403
from .control import *  # noqa: F403
from .convolutional import *  # noqa: F403
from .detection import *  # noqa: F403
from .neural import *  # noqa: F403
from .normalization import *  # noqa: F403
from .pools import *  # noqa: F403
from .positions import *  # noqa: F403
from .probabilities import *  # noqa: F403
from .rearrangement import *  # noqa: F403
from .recurrent import *  # noqa: F403
from .sequences import *  # noqa: F403
from .spatial import *  # noqa: F403
from .special import *  # noqa: F403

__all__ = [
    *elementwise.__all__, *linear.__all__, *manipulation.__all__, *reduction.__all__, *neural.__all__,
    *activations.__all__, *attention.__all__, *control.__all__, *convolutional.__all__, *detection.__all__,
    *normalization.__all__, *pools.__all__, *positions.__all__, *probabilities.__all__, *rearrangement.__all__,
    *recurrent.__all__, *sequences.__all__, *spatial.__all__, *special.__all__,
    *calculus.__all__, *assembly.__all__, *equality.__all__, *searching.__all__, *sets.__all__, *statistics.__all__,
    "einsum", "einsum_path", "pad",
]

from . import fft, linalg  # noqa: F401  isort: skip  (made of the functions above)

_REACHED = (asarray, eye, ones, ones_like, zeros, zeros_like, primitive)  # used by gradient rules and by NDArray's methods
