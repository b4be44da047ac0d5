"""DataLoader: batches of a dataset, made ahead of time by threads if asked to."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

import ndarray as nd
from ndarray import NDArray

from .dataset import ArrayDataset
from .sampler import BatchSampler, RandomSampler, Sampler, SequentialSampler

if TYPE_CHECKING:
    from concurrent.futures import Future

__all__ = ["DataLoader", "default_batchify_fn"]


def default_batchify_fn(data: list[Any]) -> Any:
    """Stack samples along a new first axis; samples that are tuples give a list of stacks."""
    first = data[0]
    if isinstance(first, (tuple, list)):
        return [default_batchify_fn(list(column)) for column in zip(*data, strict=True)]
    if isinstance(first, NDArray):
        return _to_array(np.stack([d.asnumpy() for d in data]))
    return _to_array(np.stack([np.asarray(d) for d in data]))


def _to_array(values: np.ndarray) -> NDArray:
    """A batch of values that nobody else holds: they are not copied again."""
    if values.dtype == np.float64:
        values = values.astype(np.float32)  # Python floats mean the default dtype
    return nd.array(values, dtype=values.dtype, copy=False)


def _pinned(batch: Any) -> Any:
    """A batch with its arrays in pinned memory."""
    if isinstance(batch, NDArray):
        return nd.pin_memory(batch) if batch.device.kind == "cpu" else batch
    if isinstance(batch, (list, tuple)):
        parts = [_pinned(b) for b in batch]
        return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)
    return {k: _pinned(v) for k, v in batch.items()} if isinstance(batch, dict) else batch


class DataLoader:
    """Iterates over a dataset in batches.

    batch_size, shuffle, last_batch ("keep", "discard", "rollover") or `sampler` or `batch_sampler` say which samples;
    `batchify_fn` makes a batch of a list of samples; `num_workers` threads prepare up to `prefetch` batches ahead
    (default twice the workers), in order. With `pin_memory`, arrays of a batch lie in page-locked memory where there is a GPU
    (`nd.pin_memory`), so that `nd.copy_async` can copy them while the GPU computes. `timeout` is the number of seconds to wait
    for a batch.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int | None = None,
        shuffle: bool | None = None,
        sampler: Sampler | None = None,
        last_batch: str | None = None,
        batch_sampler: Any = None,
        batchify_fn: Callable[[list], Any] | None = None,
        num_workers: int = 0,
        pin_memory: bool = False,
        pin_device_id: int = 0,
        prefetch: int | None = None,
        thread_pool: bool = True,
        timeout: float = 120,
        try_nopython: Any = None,
        auto_reload: bool = False,
    ):
        self._dataset = dataset
        if batch_sampler is None:
            if batch_size is None:
                raise ValueError("DataLoader: batch_size is needed unless batch_sampler is given")
            if sampler is None:
                sampler = RandomSampler(len(dataset)) if shuffle else SequentialSampler(len(dataset))
            elif shuffle:
                raise ValueError("DataLoader: shuffle must not be given together with sampler")
            batch_sampler = BatchSampler(sampler, batch_size, last_batch or "keep")
        elif batch_size is not None or shuffle or sampler is not None or last_batch is not None:
            raise ValueError(
                "DataLoader: batch_size, shuffle, sampler and last_batch must not be given together with batch_sampler"
            )
        if num_workers < 0:
            raise ValueError(f"DataLoader: num_workers must not be negative, got {num_workers}")
        self._batch_sampler = batch_sampler
        self._batchify_fn = batchify_fn
        self._num_workers = num_workers
        self._prefetch = max(2 * num_workers if prefetch is None else prefetch, 1)
        self._timeout = timeout
        self._pin = pin_memory

    def __len__(self) -> int:
        return len(self._batch_sampler)

    def _make(self, indices: list[int]) -> Any:
        batch = self._batch(indices)
        return _pinned(batch) if self._pin else batch

    def _batch(self, indices: list[int]) -> Any:
        if self._batchify_fn is None and isinstance(self._dataset, ArrayDataset):
            columns = self._dataset.batch(indices)
            if columns is not None:
                arrays = [_to_array(c) for c in columns]
                return arrays if len(arrays) > 1 else arrays[0]
        return (self._batchify_fn or default_batchify_fn)([self._dataset[i] for i in indices])

    def __iter__(self) -> Iterator[Any]:
        if self._num_workers == 0:
            return map(self._make, iter(self._batch_sampler))
        return self._iterate_ahead()

    def _iterate_ahead(self) -> Iterator[Any]:
        from concurrent.futures import ThreadPoolExecutor

        pool = ThreadPoolExecutor(self._num_workers, thread_name_prefix="DataLoader")
        waiting: deque[Future] = deque()
        try:
            for indices in self._batch_sampler:
                waiting.append(pool.submit(self._make, indices))
                if len(waiting) > self._prefetch:
                    yield self._result(waiting.popleft())
            while waiting:
                yield self._result(waiting.popleft())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _result(self, future: Future) -> Any:
        try:
            return future.result(self._timeout)
        except TimeoutError:
            if future.done():
                raise
            raise TimeoutError(
                f"DataLoader: a batch took longer than timeout={self._timeout} s; raise it, or look at the dataset"
            ) from None
