"""Trainer: sums gradients over devices and workers, and updates parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import kvstore as kv
import ndarray as nd
from hybrid.epoch import epoch as _epoch
from hybrid.parameter import Parameter
from hybrid.scalars import scalar_input
from kvstore.optimizer import Optimizer, Updater, _flat
from ndarray import NDArray, autograd
from ndarray.apply import is_tracing
from ndarray.dims import Dim

from . import optimizer as opt

__all__ = ["Trainer"]


_Seen = dict[tuple[int, Any], tuple[NDArray, int]]
"""By parameter and device: the gradient array that was used last, and its version then."""


def _last_used(seen: _Seen, key: tuple[int, Any], grad: NDArray) -> int:
    """The version of `grad` when it was last used; 0, that of an array never written, for another array than that."""
    used = seen.get(key)
    return used[1] if used is not None and used[0] is grad else 0


class _Place:
    """The weights of one device with their gradients: the same tuples at each step."""

    def __init__(self, indices: list[int], weights: list[NDArray], grads: list[NDArray], epoch: int):
        self.indices, self.weights, self.grads, self.epoch = tuple(indices), tuple(weights), tuple(grads), epoch
        self.device = weights[0].device
        self.keys = [(i, self.device) for i in indices]
        self.versions: list[int] = []  # of the gradients when they were last used here

    def is_fresh(self, seen: _Seen) -> bool:
        """Whether backward has written every gradient since it was last used, into the arrays known here."""
        if not self.versions:
            self.versions = [_last_used(seen, k, g) for k, g in zip(self.keys, self.grads)]
        for weight, grad, version in zip(self.weights, self.grads, self.versions):
            storage = grad._storage
            if storage is None or storage.version == version or weight.grad is not grad:
                return False
        return True

    def remember(self, seen: _Seen) -> None:
        """These gradients have been used."""
        self.versions = [g._version for g in self.grads]
        seen.update(zip(self.keys, zip(self.grads, self.versions)))


class Trainer:
    """Applies an optimizer to parameters.

    params            a dict (`net.collect_params()`) or a list of Parameters; a shared one counts once
    optimizer         a name ("sgd", "adam" ...) with its settings in `optimizer_params`, or an Optimizer
    kvstore           where gradients of several devices or workers are summed: a name, a store, or None (not at all)
    update_on_kvstore whether the store updates the weights (default: only if it must)

    All weights of a device are updated by one compiled program. Inside a hybridized function, `step` becomes part of
    that function's program; learning rate and the like are then read anew at each call.
    """

    def __init__(
        self,
        params: Mapping[str, Parameter] | Iterable[Parameter],
        optimizer: str | Optimizer,
        optimizer_params: dict[str, Any] | None = None,
        kvstore: Any = "device",
        compression_params: dict[str, Any] | None = None,
        update_on_kvstore: bool | None = None,
    ):
        named = list(params.items()) if isinstance(params, Mapping) else [(getattr(p, "path", ""), p) for p in params]
        self._params: list[Parameter] = []
        seen: set[int] = set()
        for name, parameter in named:
            if not isinstance(parameter, Parameter):
                raise ValueError(f"Trainer: params must be Parameters, got {type(parameter).__name__} for {name!r}")
            if id(parameter) not in seen:
                seen.add(id(parameter))
                self._params.append(parameter)
        self._optimizer = opt.create(optimizer, **(optimizer_params or {}))
        self._optimizer.param_dict = dict(enumerate(self._params))
        self._scale = self._optimizer.rescale_grad
        self._updaters: dict[Any, Updater] = {}
        self._requested = kvstore, update_on_kvstore
        self._compression_params = compression_params
        self._kvstore: kv.KVStoreBase | None = None
        self._update_on_kvstore = False
        self._ready = False
        self._on_store: set[int] = set()
        self._seen: _Seen = {}
        self._only: _Place | None = None  # the weights, where there is one device
        self._amp_loss_scaler: Any = None  # see blocks.amp
        self._amp_scaled = False  # whether the gradients are those of a scaled loss

    # -- rates

    @property
    def learning_rate(self) -> float:
        """The present learning rate."""
        return self._optimizer.learning_rate

    @property
    def optimizer(self) -> Optimizer:
        """The optimizer."""
        return self._optimizer

    def set_learning_rate(self, lr: float) -> None:
        """Set the learning rate; nothing is compiled anew."""
        self._optimizer.set_learning_rate(lr)

    # -- steps

    def step(self, batch_size: Any, ignore_stale_grad: bool = False) -> None:
        """Sum the gradients over devices and workers, and update the parameters by them, divided by `batch_size`.

        To be called after ``backward``, outside of ``record``. Raises UserWarning for a parameter whose gradient no
        backward has written since the last step; with `ignore_stale_grad`, such parameters are left as they are.
        """
        self._prepare()
        rescale = self._rescale(batch_size)
        if self._update_on_kvstore:
            self._step_on_store(rescale)
            return
        if self._kvstore is None and type(rescale) is float and self._amp_loss_scaler is None and not is_tracing():
            place = self._place()
            if place is not None and place.is_fresh(self._seen):
                self._optimizer.rescale_grad = rescale
                self._updater(place.device)(place.indices, place.grads, place.weights, rescale=rescale)
                place.remember(self._seen)
                return
        trained = self._trained(ignore_stale_grad)
        self._allreduce(trained)
        self._update(trained, rescale)

    def _place(self) -> _Place | None:
        """All weights, if they are on one device; kept until an array of a parameter is replaced."""
        place = self._only
        if place is None or place.epoch != _epoch.value:
            place = None
            trained = [(i, p) for i, p in enumerate(self._params) if p.grad_req != "null"]
            ready = bool(trained) and all(p.is_initialized for _, p in trained)
            if ready and all(len(p.list_device()) == 1 and p.list_device() == trained[0][1].list_device() for _, p in trained):
                arrays = [p.list_data()[0] for _, p in trained]
                place = _Place([i for i, _ in trained], arrays, [p.list_grad()[0] for _, p in trained], _epoch.value)
            self._only = place
        return place

    def allreduce_grads(self) -> None:
        """Sum the gradients over devices and workers only; then, for example, clip them, and call `update`."""
        self._prepare()
        if self._update_on_kvstore:
            raise RuntimeError(
                "Trainer.allreduce_grads: the store updates the weights itself; create the Trainer with "
                "update_on_kvstore=False"
            )
        self._allreduce([(i, p) for i, p in enumerate(self._params) if p.grad_req != "null"])

    def update(self, batch_size: Any, ignore_stale_grad: bool = False) -> None:
        """Update the parameters by the gradients as they are, divided by `batch_size`."""
        self._prepare()
        if self._update_on_kvstore:
            raise RuntimeError(
                "Trainer.update: the store updates the weights itself; create the Trainer with update_on_kvstore=False"
            )
        self._update(self._trained(ignore_stale_grad), self._rescale(batch_size))

    def _rescale(self, batch_size: Any) -> Any:
        scale = scalar_input(lambda: self._scale)  # in a trace, read anew at each call
        if self._amp_scaled:
            batch_size = self._amp_divisor(batch_size)
        if isinstance(batch_size, (Dim, NDArray)):  # in a trace, a size that varies: counted by the program itself
            return scale / batch_size
        if not batch_size > 0:
            raise ValueError(f"Trainer.step: batch_size must be positive, got {batch_size}")
        return scale / batch_size

    def _amp_divisor(self, batch_size: Any) -> Any:
        """The batch size times the loss scale with which the gradients were made."""
        scaler = self._amp_loss_scaler
        if scaler.is_one:
            return batch_size
        if not is_tracing():
            return batch_size * scaler.loss_scale
        scale = scaler.scale(self._params[0].list_device()[0])
        return scale * (batch_size if isinstance(batch_size, NDArray) else batch_size.as_array(scale.dtype, scale.device)
                        if isinstance(batch_size, Dim) else float(batch_size))

    def _trained(self, ignore_stale_grad: bool) -> list[tuple[int, Parameter]]:
        """The parameters to be updated."""
        trained = []
        for i, p in enumerate(self._params):
            if p.grad_req == "null":
                continue
            grads = p.list_grad()
            if not is_tracing():
                stale = [g.device for g in grads if _last_used(self._seen, (i, g.device), g) == g._version]
                if stale:
                    if not ignore_stale_grad:
                        raise UserWarning(
                            f"Gradient of Parameter {p.path or p.name!r} on {stale[0]} has not been updated by "
                            "backward since the last step. If only part of the network was meant to be used, call step "
                            "with ignore_stale_grad=True"
                        )
                    continue
            trained.append((i, p))
        return trained

    def _allreduce(self, trained: list[tuple[int, Parameter]]) -> None:
        if self._kvstore is None or not trained:
            return
        grads = [p.list_grad() for _, p in trained]
        self._kvstore.pushpull([i for i, _ in trained], grads, grads)

    def _update(self, trained: list[tuple[int, Parameter]], rescale: Any) -> None:
        if not trained:
            return
        if self._amp_loss_scaler is not None and self._amp_loss_scaler.dynamic:
            overflow = self._amp_loss_scaler.has_overflow(self._summed(trained))
            if overflow is True:
                self._remember(trained)
                return
            if overflow is not False:
                self._update_where(overflow, trained, rescale)
                return
        self._update_all(trained, rescale)

    def _summed(self, trained: list[tuple[int, Parameter]]) -> list[NDArray]:
        """The gradients, each once where a store has made them equal on all devices."""
        grads = [p.list_grad() for _, p in trained]
        return [gs[0] for gs in grads] if self._kvstore is not None else [g for gs in grads for g in gs]

    def _update_where(self, overflow: NDArray, trained: list[tuple[int, Parameter]], rescale: Any) -> None:
        """In a trace: update, but keep weights and states as they were where gradients have overflowed."""
        written: list[NDArray] = []
        for i, p in trained:
            for array in p.list_data():
                updater = self._updater(array.device)
                updater.ensure_states([i], [array])
                written += [array, *_flat(updater.states[i])]
        with autograd.pause():
            before = [(a, a.copy()) for a in written]
            self._update_all(trained, rescale)
            for array, old in before:
                here = overflow if overflow.device == array.device else overflow.to_device(array.device)
                array[...] = nd.where(here, old, array)

    def _remember(self, trained: list[tuple[int, Parameter]]) -> None:
        """These gradients have been used."""
        for i, p in trained:
            for grad in p.list_grad():
                self._seen[i, grad.device] = (grad, grad._version)
        if self._only is not None:
            self._only.versions = []

    def _update_all(self, trained: list[tuple[int, Parameter]], rescale: Any) -> None:
        if not is_tracing() and isinstance(rescale, float):
            self._optimizer.rescale_grad = rescale
        per_device: dict[Any, tuple[list[int], list[NDArray], list[NDArray]]] = {}
        for i, p in trained:
            for array, grad in zip(p.list_data(), p.list_grad()):
                indices, weights, grads = per_device.setdefault(array.device, ([], [], []))
                indices.append(i)
                weights.append(array)
                grads.append(grad)
        for k, (device, (indices, weights, grads)) in enumerate(per_device.items()):
            updater = self._updater(device)
            updater(indices, grads, weights, count=k == 0, rescale=rescale)

        if not is_tracing():
            self._remember(trained)

    def _updater(self, device: Any) -> Updater:
        if device not in self._updaters:
            self._updaters[device] = Updater(self._optimizer)
        return self._updaters[device]

    # -- the store

    def _prepare(self) -> None:
        """Make the store, once, when the devices are known."""
        if not self._ready:
            name, on_store = self._requested
            devices = {tuple(p.list_device()) for p in self._params}
            if len(devices) > 1:
                raise ValueError(
                    f"Trainer: all parameters must be on the same devices, got {sorted(map(str, devices))}"
                )
            several = any(len(d) > 1 for d in devices)
            store = (
                kv.create(name)
                if name and (several or on_store or isinstance(name, kv.KVStoreBase) or name not in ("local", "device"))
                else None
            )
            if on_store and (store is None or not store.is_capable(kv.KVStoreBase.OPTIMIZER)):
                raise ValueError(f"Trainer: the store {name!r} can't run an optimizer; use update_on_kvstore=False")
            if store is not None and self._compression_params:
                store.set_gradient_compression(self._compression_params)  # type: ignore[attr-defined]
            self._kvstore, self._update_on_kvstore, self._ready = store, bool(on_store), True
            if self._update_on_kvstore:
                store.set_optimizer(self._optimizer)  # type: ignore[union-attr]
        store = self._kvstore
        if store is not None and (self._update_on_kvstore or not isinstance(store, kv.KVStore)):
            for i, p in enumerate(self._params):
                if i not in self._on_store and p.is_initialized:
                    store.broadcast(i, p.list_data()[0], p.list_data())
                    self._on_store.add(i)

    def _step_on_store(self, rescale: Any) -> None:
        if is_tracing():
            raise RuntimeError(
                "Trainer.step: inside a hybridized function the store can't update weights; use update_on_kvstore=False"
            )
        self._optimizer.rescale_grad = rescale
        trained = self._trained(False)
        keys = [i for i, _ in trained]
        assert self._kvstore is not None
        self._kvstore.pushpull(keys, [p.list_grad() for _, p in trained], [p.list_data() for _, p in trained])
        for i, p in trained:
            for grad in p.list_grad():
                self._seen[i, grad.device] = (grad, grad._version)

    # -- files

    def save_states(self, fname: Any) -> None:
        """Write the optimizer's states (momentum and the like) and counts to a file, atomically."""
        self._prepare()
        if self._update_on_kvstore:
            assert self._kvstore is not None
            self._kvstore.save_optimizer_states(fname)
            return
        first = next(iter(self._updaters.values()), None) or Updater(self._optimizer)
        first.save(fname)

    def load_states(self, fname: Any) -> None:
        """Read what `save_states` wrote; every device gets a copy. Raises ValueError for another optimizer's states or
        shapes that differ."""
        self._prepare()
        if self._update_on_kvstore:
            assert self._kvstore is not None
            self._kvstore.load_optimizer_states(fname)
            return
        for device in dict.fromkeys(d for p in self._params for d in p.list_device()):
            self._updater(device).load(fname, device, {i: tuple(p.shape or ()) for i, p in enumerate(self._params)})
