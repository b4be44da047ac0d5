"""Graph passes: functions graph -> graph, and the pipeline, which is one list of them.

    with skip_passes("cse"): ...         # leave passes out, to find the one that breaks something

Under ``HYBRID_DEBUG >= 1`` the graph is verified after every pass, from 2 on it is printed; tests verify always.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from ndarray.settings import settings

from ..graph import Graph
from ..verify import verify
from .abreast import abreast
from .absorb import absorb
from .bodies import each_body, hand_over, prune
from .cse import cse
from .dce import dce
from .detach import detach
from .fold import fold
from .inline import inline
from .layout import layout
from .simplify import simplify
from .turn import turn
from .widen import widen

__all__ = [
    "PIPELINE", "Pass", "abreast", "absorb", "always_verify", "as_usual", "cse", "dce", "detach", "fold", "hand_over", "inline",
    "layout", "optimize", "prune", "simplify", "skip_passes", "turn", "widen",
]

Pass = Callable[[Graph], Graph]

PIPELINE: tuple[tuple[str, Pass], ...] = (
    ("inline", inline),  # graph calls are replaced by what they call
    ("detach", detach),  # stop_gradient(x) -> x
    ("dce", dce),
    ("prune", prune),  # unread results of loops and branches
    ("bodies", each_body(lambda body: optimize(body))),  # sub-graphs, by the same passes
    ("widen", widen),  # narrow floats are added and multiplied as float32
    ("simplify", simplify),  # x * 1 -> x
    ("fold", fold),  # 2 * 3 -> 6
    ("cse", cse),  # what is computed twice is computed once
    ("simplify again", simplify),  # equal values have become identical
    ("dce again", dce),  # what nothing uses is left out
    ("turn", turn),  # sums of padded parts are stored as they are read
    ("hand over", hand_over),  # what steps are given and hand on is copied by an operation
    ("layout", layout),  # convolutions work with channels last
    ("abreast", abreast),  # sums of many short rows add several at once
)
"""The passes in order, by name."""

_skipped: ContextVar[frozenset[str]] = ContextVar("skipped_passes", default=frozenset())
_verify: ContextVar[bool] = ContextVar("verify_passes", default=False)


def optimize(graph: Graph, pipeline: Sequence[tuple[str, Pass]] = PIPELINE) -> Graph:
    """The graph after all passes that are switched on."""
    debug, skipped = settings.debug, _skipped.get()
    check = debug >= 1 or _verify.get()
    if check:
        verify(graph)
    if debug >= 2:
        print(f"-- traced\n{graph}", file=sys.stderr)
    for name, function in pipeline:
        if name.split()[0] in skipped or name in skipped:
            continue
        before, graph = graph, function(graph)
        if check:
            verify(graph, after=name)
        if debug >= 2 and graph is not before:
            print(f"-- after {name}\n{graph}", file=sys.stderr)
    return graph


def as_usual() -> bool:
    """Whether `optimize` runs all passes, and nobody wants to look at or check what they make."""
    return settings.debug == 0 and not _skipped.get() and not _verify.get()


@contextmanager
def skip_passes(*names: str) -> Iterator[None]:
    """Context in which passes are left out. Raises ValueError for unknown names."""
    known = {n for name, _ in PIPELINE for n in (name, name.split()[0])}
    for name in names:
        if name not in known:
            raise ValueError(f"no pass {name!r}; the passes are {', '.join(n for n, _ in PIPELINE)}")
    token = _skipped.set(_skipped.get() | set(names))
    try:
        yield
    finally:
        _skipped.reset(token)


@contextmanager
def always_verify() -> Iterator[None]:
    """Context in which every pass is followed by the verifier."""
    token = _verify.set(True)
    try:
        yield
    finally:
        _verify.reset(token)
