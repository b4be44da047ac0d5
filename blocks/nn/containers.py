"""Blocks that are made of other Blocks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ndarray as nd
from hybrid.block import Block, HybridBlock

__all__ = ["Concatenate", "HybridConcatenate", "HybridSequential", "Sequential"]


class _Stack:
    """What Sequential and HybridSequential have in common: children in order, added, counted and indexed."""

    _children: dict[str, Block]

    def add(self, *blocks: Block) -> None:
        """Append Blocks."""
        for block in blocks:
            self.register_child(block)  # type: ignore[attr-defined]

    def forward(self, x: Any, *args: Any) -> Any:
        """The Blocks one after another; further arguments go to the first."""
        for block in self._children.values():
            x = block(x, *args)
            args = ()
            if isinstance(x, (tuple, list)):
                x, args = x[0], tuple(x[1:])
        return (x, *args) if args else x

    def __len__(self) -> int:
        return len(self._children)

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[Block]:
        return iter(self._children.values())

    def __getitem__(self, key: int | slice) -> Any:
        blocks = list(self._children.values())
        if isinstance(key, slice):
            part = type(self)()
            part.add(*blocks[key])
            return part
        return blocks[key]


class Sequential(_Stack, Block):
    """Blocks one after another."""

    def __init__(self, *blocks: Block, **kwargs: Any):
        Block.__init__(self, **kwargs)
        self.add(*blocks)


class HybridSequential(_Stack, HybridBlock):
    """HybridBlocks one after another; the whole can be compiled."""

    def __init__(self, *blocks: Block, **kwargs: Any):
        HybridBlock.__init__(self, **kwargs)
        self.add(*blocks)


class Concatenate(Sequential):
    """All Blocks on the same input, their results concatenated along `axis`."""

    def __init__(self, axis: int = -1, **kwargs: Any):
        super().__init__(**kwargs)
        self.axis = axis

    def forward(self, x: Any, *_: Any) -> Any:
        """The concatenated results."""
        return nd.concatenate([block(x) for block in self._children.values()], axis=self.axis)


class HybridConcatenate(HybridSequential):
    """All HybridBlocks on the same input, their results concatenated along `axis`."""

    def __init__(self, axis: int = -1, **kwargs: Any):
        super().__init__(**kwargs)
        self.axis = axis

    forward = Concatenate.forward
