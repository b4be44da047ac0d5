"""From a graph to launches of kernels over storages: `lower(graph, target) -> Lowered`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hybrid.graph import Graph, Value

from .launch import Launch, Storage

if TYPE_CHECKING:
    from .fuse import Group
    from .target import Target

__all__ = ["Lowered", "lower"]


@dataclass
class Lowered:
    """Everything that the plan needs to know about a lowered graph.

    launches    in an order in which they may run one after the other
    inputs      one storage for each graph input, in order. Those numbered in `written` are written by launches as well as
                read (state outputs); nothing else has to be done for state: after the last launch they hold the new values
    outputs     one storage for each graph output, in order; all distinct, none of them an input's. Each is written by a launch
    written     numbers of the graph inputs whose storage the launches write
    storages    the storage in which a value lies, row-major. Several values may share one (a reshape is an alias)
    temporaries storages that are neither an input's nor an output's, in order of first use: the plan places them in the arena
    groups      the fused groups, in order, for `explain`
    reasons     why neighbouring groups were not fused: (producer group, consumer group, reason), groups by number
    """

    graph: Graph
    launches: list[Launch] = field(default_factory=list)
    inputs: tuple[Storage, ...] = ()
    outputs: tuple[Storage, ...] = ()
    written: frozenset[int] = frozenset()
    storages: dict[Value, Storage] = field(default_factory=dict)
    groups: list[Group] = field(default_factory=list)
    reasons: list[tuple[int, int, str]] = field(default_factory=list)

    @property
    def temporaries(self) -> tuple[Storage, ...]:
        fixed = {*self.inputs, *self.outputs}
        found: dict[Storage, None] = {}
        for launch in self.launches:
            found.update(dict.fromkeys(s for s in launch.buffers if s not in fixed))
        return tuple(found)


def lower(graph: Graph, target: Target, **options: Any) -> Lowered:
    """Fuse the graph's equations into groups and make the kernels of each."""
    raise NotImplementedError("lower: being written")
