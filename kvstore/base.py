"""The interface of a store, and the registry of its types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from ndarray import NDArray

__all__ = ["KVStoreBase", "create"]

T = TypeVar("T", bound="type[KVStoreBase]")
Arrays = NDArray | Sequence[NDArray] | Sequence[Sequence[NDArray]]


class KVStoreBase:
    """What a `Trainer` asks of a store: two verbs, `broadcast` and `pushpull`.

    Another engine subclasses it, and is registered with ``@KVStoreBase.register`` under its lower-case class name:
    ``Trainer(..., kvstore="myengine")`` then uses it. `is_capable` says what more it can do.
    """

    OPTIMIZER = "optimizer"
    kv_registry: dict[str, type[KVStoreBase]] = {}  # noqa: RUF012

    def broadcast(self, key: Any, value: Arrays, out: Arrays, priority: int = 0) -> None:
        """Copy `value` (of the root worker) to every array of `out`. Keys and arrays may be lists of equal length."""
        raise NotImplementedError(f"{type(self).__name__} must define broadcast")

    def pushpull(self, key: Any, value: Arrays, out: Arrays | None = None, priority: int = 0) -> None:
        """Sum `value` over devices and workers into every array of `out` (by default `value` itself)."""
        raise NotImplementedError(f"{type(self).__name__} must define pushpull")

    @staticmethod
    def is_capable(capability: str) -> bool:
        """Whether the store offers `capability` ("optimizer": it can update weights itself)."""
        raise NotImplementedError("a KVStoreBase must define is_capable")

    @property
    def type(self) -> str:
        """The name under which it was made."""
        raise NotImplementedError(f"{type(self).__name__} must define type")

    @property
    def rank(self) -> int:
        """The number of this worker, from 0."""
        raise NotImplementedError(f"{type(self).__name__} must define rank")

    @property
    def num_workers(self) -> int:
        """How many workers take part."""
        raise NotImplementedError(f"{type(self).__name__} must define num_workers")

    def set_optimizer(self, optimizer: Any) -> None:
        """Let the store update the weights that it holds with what is pushed."""
        raise NotImplementedError(f"{type(self).__name__} can't run an optimizer; use update_on_kvstore=False")

    def save_optimizer_states(self, fname: Any, dump_optimizer: bool = False) -> None:
        """Write the states of the optimizer that `set_optimizer` gave."""
        raise NotImplementedError(f"{type(self).__name__} keeps no optimizer states")

    def load_optimizer_states(self, fname: Any) -> None:
        """Read states that `save_optimizer_states` wrote."""
        raise NotImplementedError(f"{type(self).__name__} keeps no optimizer states")

    @staticmethod
    def register(cls: T) -> T:
        """Class decorator: make a store known by its lower-case class name."""
        KVStoreBase.kv_registry[cls.__name__.lower()] = cls
        return cls


_builtin = ("local", "device", "nccl")


def create(name: str | KVStoreBase = "local") -> KVStoreBase:
    """The store of a type: "local" or "device" (one process, any number of devices; they are the same on CPUs), "nccl" (one
    process, several GPUs, by NCCL), or one that `KVStoreBase.register` made known. Raises ValueError for another name."""
    if isinstance(name, KVStoreBase):
        return name
    if not isinstance(name, str):
        raise TypeError(f"kvstore.create: expected a name or a KVStoreBase, got {type(name).__name__}")
    key = name.lower()
    if key in KVStoreBase.kv_registry:
        return KVStoreBase.kv_registry[key]()
    if key == "nccl":
        from .nccl import NcclStore

        return NcclStore()
    if key in _builtin:
        from .local import KVStore

        return KVStore(key)
    known = ", ".join(sorted({*_builtin, *KVStoreBase.kv_registry}))
    raise ValueError(f"kvstore.create: no store {name!r}; known: {known}. Register others with KVStoreBase.register")
