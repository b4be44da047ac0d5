"""KVStore: keeps arrays by key and aggregates gradients over devices and, by registered stores, over machines."""

from .base import KVStoreBase, create
from .local import KVStore
from .optimizer import Optimizer

__all__ = ["KVStore", "KVStoreBase", "Optimizer", "create"]
