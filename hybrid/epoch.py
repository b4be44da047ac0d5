"""The attribute epoch: a number that rises whenever something that a trace may have baked in could have changed.

Writing an attribute of a Block, adding a child, replacing a parameter's arrays: each raises it. A compiled function
remembers the epoch at which it last compared the attributes of its Blocks, and compares again only when it differs.
"""

from __future__ import annotations

from ndarray.settings import changed

__all__ = ["epoch", "raise_epoch"]


class _Epoch:
    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0


epoch = _Epoch()
"""``epoch.value`` is the current number."""


def raise_epoch() -> None:
    """Say that an attribute, a child or a parameter's array has been replaced."""
    epoch.value += 1


changed.append(raise_epoch)
