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
)
from .creation import ones, ones_like, zeros, zeros_like
from .elementwise import *  # noqa: F403
from .linear import *  # noqa: F403
from .manipulation import *  # noqa: F403
from .operands import primitive
from .reduction import *  # noqa: F403

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

__all__ = [
    *elementwise.__all__, *linear.__all__, *manipulation.__all__, *reduction.__all__, *neural.__all__,
    *activations.__all__, *attention.__all__, *control.__all__, *convolutional.__all__, *detection.__all__,
    *normalization.__all__, *pools.__all__, *positions.__all__, *probabilities.__all__, *rearrangement.__all__,
    *recurrent.__all__, *sequences.__all__, *spatial.__all__,
]

_REACHED = (ones, ones_like, zeros, zeros_like, primitive)  # used by gradient rules and by NDArray's methods
