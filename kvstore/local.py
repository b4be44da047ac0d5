"""The store of one process: "local" and "device". Gradients of several devices are summed in one call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ndarray import NDArray, autograd
from ndarray.apply import eagerly, is_tracing
from ndarray.array import storage_of, wrap
from ndarray.device import cpu

from .base import KVStoreBase
from .optimizer import Optimizer, Updater

__all__ = ["KVStore"]


class KVStore(KVStoreBase):
    """Keeps one array per key, and sums, copies or updates it.

    `init` makes a key. `push` adds up what the devices bring and stores it (or, with an optimizer, updates the stored
    weight by it); `pull` copies the stored value out. `pushpull` does both without storing where nothing was stored.
    """

    compile: Callable[[Callable], Callable] | None = None
    """Turns the sum of all keys into a compiled function of the same meaning; set by a package that can."""

    def __init__(self, name: str = "local"):
        self._type = name
        self._store: dict[Any, NDArray] = {}
        self._updater: Updater | None = None
        self._program: Callable | None = None
        self._twins: dict[int, tuple[NDArray, NDArray]] = {}

    # -- description

    @staticmethod
    def is_capable(capability: str) -> bool:
        """True for "optimizer"."""
        return capability.lower() == KVStoreBase.OPTIMIZER

    @property
    def type(self) -> str:
        """ "local" or "device"."""
        return self._type

    @property
    def rank(self) -> int:
        """0: there is one worker."""
        return 0

    @property
    def num_workers(self) -> int:
        """1."""
        return 1

    def __repr__(self) -> str:
        return f"KVStore({self._type!r}, {len(self._store)} keys)"

    # -- values

    def init(self, key: Any, value: Any) -> None:
        """Make keys with their first values. Raises ValueError for one that exists."""
        for k, values in _pairs(key, value, "init"):
            if k in self._store:
                raise ValueError(f"kvstore.init: key {k!r} exists already; use push to change it")
            with eagerly(), autograd.pause():
                self._store[k] = values[0].copy()

    def push(self, key: Any, value: Any, priority: int = 0) -> None:
        """Sum the arrays that the devices bring for each key; store the sums, or update the stored weights by them."""
        with autograd.pause():
            pairs = list(_pairs(key, value, "push"))
            weights = [self._stored(k, "push") for k, _ in pairs]
            sums = [
                _on(_total(values, None) if len(values) > 1 else values[0], w.device)
                for (_, values), w in zip(pairs, weights)
            ]
            if self._updater is None:
                for w, total in zip(weights, sums):
                    w[...] = total
                return
            by_device: dict[Any, list[int]] = {}
            for n, w in enumerate(weights):
                by_device.setdefault(w.device, []).append(n)
            for chosen in by_device.values():
                self._updater([pairs[n][0] for n in chosen], [sums[n] for n in chosen], [weights[n] for n in chosen])

    def pull(self, key: Any, out: Any = None, priority: int = 0, ignore_sparse: bool = True) -> None:
        """Copy the stored value of each key into every array of `out`."""
        if out is None:
            raise ValueError("kvstore.pull: give `out`, the arrays to write")
        with autograd.pause():
            for k, outs in _pairs(key, out, "pull"):
                stored = self._stored(k, "pull")
                for o in outs:
                    o[...] = _on(stored, o.device)

    def pushpull(self, key: Any, value: Any, out: Any = None, priority: int = 0) -> None:
        """Sum the devices' arrays into every array of `out` (by default the arrays themselves).

        With an optimizer, the stored weight is updated by the sum, and `out` gets the weight.
        """
        outs = dict(_pairs(key, out, "pushpull")) if out is not None else {}
        with autograd.pause():
            if self._updater is not None:
                self.push(key, value)
                self.pull(key, value if out is None else out)
                return
            pairs = [(values, outs.get(k, values)) for k, values in _pairs(key, value, "pushpull")]
            pairs = [(v, t) for v, t in pairs if not (len(v) == len(t) == 1 and v[0] is t[0])]
            if self._sum_compiled(pairs):
                return
            for values, targets in pairs:
                total = _total(values, targets[0] if targets[0].device == values[0].device else None)
                for target in targets:
                    if target is not total:
                        target[...] = _on(total, target.device)

    def _sum_compiled(self, pairs: list[tuple[list[NDArray], list[NDArray]]]) -> bool:
        """Sum all keys into their values' own arrays in one call of a compiled function; False where that can't be done.

        CPU devices share their memory, so that one program may see the buffers of several as arrays of one.
        """
        make = type(self).compile
        in_place = all(list(map(id, v)) == list(map(id, t)) for v, t in pairs)
        if make is None or not pairs or not in_place or is_tracing():
            return False
        if any(a.device.kind != "cpu" for values, _ in pairs for a in values):
            return False
        if self._program is None:
            self._program = make(_sum_in_place)
        old, self._twins = self._twins, {}
        self._program([[self._twin(a, old) for a in values] for values, _ in pairs])
        for values, _ in pairs:
            for a in values:
                a._touch()
                storage_of(a).finish_write()
        return True

    def _twin(self, array: NDArray, known: dict[int, tuple[NDArray, NDArray]]) -> NDArray:
        """An array of the first CPU device on the same memory; the same object again in the next call."""
        pair = known.get(id(array))
        if pair is None or pair[0] is not array or pair[1]._data is not array._data:
            pair = array, wrap(array._data, cpu(0))
        self._twins[id(array)] = pair
        return pair[1]

    def broadcast(self, key: Any, value: Any, out: Any, priority: int = 0) -> None:
        """Store each value under its key (unless the key exists), and copy it into every array of `out`."""
        for k, values in _pairs(key, value, "broadcast"):
            if k not in self._store:
                self.init(k, values[0])
        self.pull(key, out)

    def row_sparse_pull(self, key: Any, out: Any = None, priority: int = 0, row_ids: Any = None) -> None:
        """Not supported yet: parameters are dense."""
        raise NotImplementedError(
            "kvstore.row_sparse_pull: row-sparse arrays are not supported; use pull with dense parameters"
        )

    def _stored(self, key: Any, verb: str) -> NDArray:
        try:
            return self._store[key]
        except KeyError:
            known = ", ".join(map(repr, list(self._store)[:8])) or "none"
            raise KeyError(
                f"kvstore.{verb}: key {key!r} was never initialized; keys: {known}. Call init or broadcast first"
            ) from None

    # -- optimizer

    def set_optimizer(self, optimizer: Optimizer) -> None:
        """From now on `push` updates the stored weights."""
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"kvstore.set_optimizer: expected an Optimizer, got {type(optimizer).__name__}")
        self._updater = Updater(optimizer)

    def set_gradient_compression(self, compression_params: dict[str, Any]) -> None:
        """Only ``{"type": "none"}``: within one process there is nothing to compress."""
        kind = compression_params.get("type", "none")
        if kind != "none":
            raise NotImplementedError(
                f"kvstore.set_gradient_compression: type {kind!r} is not supported by the {self._type!r} store; "
                "supported: 'none'"
            )

    def save_optimizer_states(self, fname: Any, dump_optimizer: bool = False) -> None:
        """Write the optimizer's states (and, with `dump_optimizer`, its settings) to a file, atomically."""
        self._need_updater("save_optimizer_states").save(fname, dump_optimizer)

    def load_optimizer_states(self, fname: Any) -> None:
        """Read what `save_optimizer_states` wrote."""
        self._need_updater("load_optimizer_states").load(fname, {k: v.device for k, v in self._store.items()})

    def _need_updater(self, verb: str) -> Updater:
        if self._updater is None:
            raise RuntimeError(f"kvstore.{verb}: no optimizer was set; call set_optimizer first")
        return self._updater

    # -- processes

    def barrier(self) -> None:
        """Return at once: there is one worker."""


def _pairs(key: Any, value: Any, verb: str) -> Iterator[tuple[Any, list[NDArray]]]:
    """(key, its arrays) for one key with an array or a list of arrays, or for a list of keys with a list of those."""
    if isinstance(key, (list, tuple)):
        if not isinstance(value, (list, tuple)) or len(value) != len(key):
            raise ValueError(f"kvstore.{verb}: {len(key)} keys need a list of as many values")
        if len(set(key)) != len(key):
            raise ValueError(f"kvstore.{verb}: a key stands twice in {list(key)[:8]}")
        for k, v in zip(key, value):
            yield from _pairs(k, v, verb)
        return
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    if not values or not all(isinstance(v, NDArray) for v in values):
        raise TypeError(f"kvstore.{verb}: key {key!r} needs an NDArray or a list of them, got {value!r:.80}")
    shapes = {tuple(v.shape) for v in values}
    if len(shapes) > 1:
        raise ValueError(f"kvstore.{verb}: the arrays of key {key!r} have different shapes: {sorted(shapes)}")
    yield key, values


def _on(array: NDArray, device: Any) -> NDArray:
    return array if array.device == device else array.to_device(device)


def _sum_in_place(values: list[list[NDArray]]) -> None:
    """Write the sum of each list of arrays into all of them; summed in their order."""
    for copies in values:
        total = copies[0]
        for value in copies[1:]:
            total = total + value
        for value in copies:
            value[...] = total


def _total(values: list[NDArray], out: NDArray | None) -> NDArray:
    """The sum of arrays of one shape, in their order, in one call of the first one's device (its `KernelProvider`).

    It is written to `out` where that is given and is none of the later summands.
    """
    if is_tracing():
        total = values[0]
        for value in values[1:]:
            total = total + _on(value, total.device)
        return total
    device = values[0].device
    data = [v._data if v.device.kind == device.kind == "cpu" else _on(v, device)._data for v in values]
    with device.active():
        if out is None or any(out is v for v in values[1:]):
            return wrap(device.kernels.total(data), device)
        device.kernels.total(data, out._data)
    out._touch()
    storage_of(out).finish_write()
    return out
