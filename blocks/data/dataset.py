"""Datasets: numbered samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ndarray import NDArray

from .sampler import Sampler

__all__ = ["ArrayDataset", "Dataset", "SimpleDataset"]


class Dataset:
    """``len(dataset)`` samples; ``dataset[i]`` is one of them. A subclass defines both."""

    def __getitem__(self, idx: int) -> Any:
        raise NotImplementedError(f"{type(self).__name__} must define __getitem__(self, idx)")

    def __len__(self) -> int:
        raise NotImplementedError(f"{type(self).__name__} must define __len__(self)")

    def transform(self, fn: Callable, lazy: bool = True) -> Dataset:
        """The samples after ``fn(*sample)``: computed when they are asked for, or, if not `lazy`, all now."""
        transformed = _Transformed(self, fn)
        return transformed if lazy else SimpleDataset([transformed[i] for i in range(len(transformed))])

    def transform_first(self, fn: Callable, lazy: bool = True) -> Dataset:
        """The samples with `fn` applied to their first part only, which is usually the input, not the label."""
        return self.transform(_First(fn), lazy)

    def filter(self, fn: Callable[[Any], bool]) -> Dataset:
        """The samples for which `fn` is true. All are read now."""
        return _Chosen(self, [i for i in range(len(self)) if fn(self[i])])

    def shard(self, num_shards: int, index: int) -> Dataset:
        """The `index`-th of `num_shards` parts of about the same size."""
        if not 0 <= index < num_shards:
            raise ValueError(f"shard: index must be in [0, {num_shards}), got {index}")
        n = len(self)
        return _Chosen(self, range(n * index // num_shards, n * (index + 1) // num_shards))

    def take(self, count: int | None) -> Dataset:
        """The first `count` samples; all for None."""
        n = len(self)
        return _Chosen(self, range(n if count is None else min(max(count, 0), n)))

    def sample(self, sampler: Sampler) -> Dataset:
        """The samples that a sampler names, in its order."""
        return _Chosen(self, list(sampler))


class _Transformed(Dataset):
    def __init__(self, data: Dataset, fn: Callable):
        self._data, self._fn = data, fn

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, idx: int) -> Any:
        sample = self._data[idx]
        return self._fn(*sample) if isinstance(sample, tuple) else self._fn(sample)


class _First:
    def __init__(self, fn: Callable):
        self._fn = fn

    def __call__(self, x: Any, *rest: Any) -> Any:
        return (self._fn(x), *rest) if rest else self._fn(x)


class _Chosen(Dataset):
    def __init__(self, data: Dataset, indices: Sequence[int]):
        self._data, self._indices = data, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, idx: int) -> Any:
        return self._data[self._indices[idx]]


class SimpleDataset(Dataset):
    """The items of a list or another object with len() and indexing."""

    def __init__(self, data: Any):
        self._data = data

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, idx: int) -> Any:
        return self._data[idx]


class ArrayDataset(Dataset):
    """Samples ``(a[i], b[i], ...)`` of arrays, lists or datasets of one length; ``a[i]`` alone for a single one."""

    def __init__(self, *args: Any):
        if not args:
            raise ValueError("ArrayDataset: needs at least one array")
        lengths = [len(a) for a in args]
        if len(set(lengths)) > 1:
            raise ValueError(f"ArrayDataset: all arrays must have the same length, got {lengths}")
        self._length = lengths[0]
        # NumPy rows are cheap views; an NDArray's rows are wrapped one by one when they are asked for
        self._data = [a if isinstance(a, (NDArray, np.ndarray, Dataset)) else list(a) for a in args]

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, idx: int) -> Any:
        if len(self._data) == 1:
            return self._data[0][idx]
        return tuple(d[idx] for d in self._data)

    def batch(self, indices: Sequence[int]) -> list[Any] | None:
        """The samples at `indices`, already stacked per array, where all are arrays; else None."""
        if not all(isinstance(d, (NDArray, np.ndarray)) for d in self._data):
            return None
        rows = np.asarray(indices, dtype=np.int64)
        return [np.asarray(d)[rows] for d in self._data]
