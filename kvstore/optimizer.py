"""Optimizers: the base class, the registry (name and JSON settings), and the updater that a store runs.

An optimizer is three things: the states that it keeps per weight (`create_state`), the numbers that an update uses
(`numbers`: learning rate, decay, momentum ...), and the update rule (`rule`), a function of arrays and those numbers.
The base class runs the rule for all weights as one function, so that a compiler can make one program of it; numbers
are passed in at each call and never compiled in.

This module is below the compiler: who has one puts it into `Optimizer.compile`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import ndarray as nd
from ndarray import NDArray, autograd
from ndarray.apply import capturing, is_tracing
from ndarray.files import FileFormatError, load_arrays, save_arrays

__all__ = ["Optimizer", "Updater", "create", "register"]

_registry: dict[str, type[Optimizer]] = {}
T = TypeVar("T", bound="type[Optimizer]")
States = tuple[NDArray, ...]


def register(cls: T) -> T:
    """Class decorator: make an optimizer known by its lower-case class name."""
    _registry[cls.__name__.lower()] = cls
    return cls


def create(name: str | Optimizer, **settings: Any) -> Optimizer:
    """The optimizer of a name, with its settings. Raises ValueError naming the known ones."""
    if isinstance(name, Optimizer):
        if settings:
            raise ValueError(
                f"optimizer: settings {sorted(settings)} given beside an {type(name).__name__}; set them on it"
            )
        return name
    if not isinstance(name, str):
        raise TypeError(f"optimizer: expected a name or an Optimizer, got {type(name).__name__}")
    try:
        cls = _registry[name.lower()]
    except KeyError:
        raise ValueError(f"no optimizer {name!r}; known: {', '.join(sorted(_registry))}") from None
    try:
        return cls(**settings)
    except TypeError as error:
        raise TypeError(f"optimizer {name!r}: {error}") from None


class Optimizer:
    """Updates weights by their gradients.

    learning_rate  the step size; `lr_scheduler`, a function of the number of updates, replaces it where given
    wd             weight decay: ``wd * weight`` is added to the gradient
    rescale_grad   the gradient is multiplied by it first (a `Trainer` sets 1 / batch size)
    clip_gradient  then clipped to [-clip_gradient, clip_gradient]
    param_dict     {index: Parameter} whose `lr_mult` and `wd_mult` count
    multi_precision  float16 and bfloat16 weights are updated in float32: their states begin with a float32 copy (the master),
                     which the rule updates with float32 states; the weight is the master, rounded
    """

    compile: Callable[[Callable], Callable] = staticmethod(lambda function: function)
    """Turns the update of all weights into a compiled function of the same meaning; set by a package that can."""

    opt_registry = _registry

    def __init__(
        self,
        rescale_grad: float = 1.0,
        param_idx2name: Mapping[Any, str] | None = None,
        wd: float = 0.0,
        clip_gradient: float | None = None,
        learning_rate: float | None = None,
        lr_scheduler: Any = None,
        begin_num_update: int = 0,
        multi_precision: bool = False,
        param_dict: Mapping[Any, Any] | None = None,
        aggregate_num: int | None = None,
        use_fused_step: bool | None = None,
    ):
        self.rescale_grad = rescale_grad
        self.wd = wd
        self.clip_gradient = clip_gradient
        self.lr_scheduler = lr_scheduler
        self.lr = 0.01 if learning_rate is None else learning_rate
        if lr_scheduler is not None and learning_rate is not None:
            lr_scheduler.base_lr = learning_rate
        self.multi_precision = bool(multi_precision)
        self.begin_num_update = begin_num_update
        self.num_update = begin_num_update
        self.param_dict = dict(param_dict or {})
        self.idx2name = dict(param_idx2name or {})
        self.lr_mult: dict[Any, float] = {}
        self.wd_mult: dict[Any, float] = {}
        self._count: dict[Any, int] = {}
        self._programs: dict[Any, Callable] = {}
        self._skips: Callable[[], int] | None = None  # how many counted updates turned out not to be made (see blocks.amp)
        self._skips_known = 0

    # -- what a subclass defines

    def create_state(self, index: Any, weight: NDArray) -> Any:
        """The states of one weight: an array, a tuple of arrays, or None."""
        return None

    def has_master(self, weight: NDArray) -> bool:
        """Whether the weight is updated through a float32 copy."""
        return self.multi_precision and is_narrow(weight.dtype)

    def create_state_multi_precision(self, index: Any, weight: NDArray) -> Any:
        """`create_state`; for a weight with a master, (master, the states of the master)."""
        if not self.has_master(weight):
            return self.create_state(index, weight)
        master = weight.astype(nd.float32)
        return master, self.create_state(index, master)

    def numbers(self, lr: float, wd: float, count: int) -> dict[str, float]:
        """The numbers of the `count`-th update (from 1), in Python floats; `lr` and `wd` include their multipliers."""
        return {"lr": lr, "wd": wd}

    def rule(self, weight: NDArray, grad: NDArray, states: States, n: Mapping[str, Any]) -> tuple[NDArray, States]:
        """The new weight and states. `grad` is rescaled and clipped already; `n` are the `numbers`.

        Weights of the same type share what it computes: a compiler may call it for the first one only.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must define rule(weight, grad, states, numbers) or update(...)"
        )

    def structure(self) -> tuple:
        """The settings on which the form of `rule` depends (beyond the arrays); another one makes another program."""
        return ()

    # -- rates

    @property
    def learning_rate(self) -> float:
        """The learning rate of the present update."""
        return self.lr_scheduler(self.num_update) if self.lr_scheduler is not None else self.lr

    def set_learning_rate(self, lr: float) -> None:
        """Set the learning rate. Raises UserWarning where a scheduler rules."""
        if self.lr_scheduler is not None:
            raise UserWarning("set_learning_rate: an lr_scheduler decides the learning rate; change it instead")
        self.lr = lr

    def set_lr_mult(self, args_lr_mult: Mapping[Any, float]) -> None:
        """Multipliers of the learning rate by index or name, for weights without a Parameter."""
        self.lr_mult = dict(args_lr_mult)

    def set_wd_mult(self, args_wd_mult: Mapping[Any, float]) -> None:
        """Multipliers of the weight decay by index or name, for weights without a Parameter."""
        self.wd_mult = dict(args_wd_mult)

    def _multipliers(self, index: Any) -> tuple[float, float]:
        parameter = self.param_dict.get(index)
        if parameter is not None:
            return parameter.lr_mult, parameter.wd_mult
        name = self.idx2name.get(index, index)
        return tuple(m.get(index, m.get(name, 1.0)) for m in (self.lr_mult, self.wd_mult))  # type: ignore[return-value]

    # -- updating

    def update(self, index: Any, weight: NDArray, grad: NDArray, state: Any) -> None:
        """Update one weight, or lists of them, in place."""
        if isinstance(index, (list, tuple)):
            self.update_all(list(index), list(weight), list(grad), list(state))
        else:
            self.update_all([index], [weight], [grad], [state])

    def update_multi_precision(self, index: Any, weight: Any, grad: Any, state: Any) -> None:
        """Update one weight, or lists of them, in place; the states are those of `create_state_multi_precision`."""
        if self._is_rule():
            self.update(index, weight, grad, state)
            return
        several = isinstance(index, (list, tuple))
        for i, w, g, s in zip(index, weight, grad, state) if several else ((index, weight, grad, state),):
            if not self.has_master(w):
                self.update(i, w, g, s)
                continue
            master, inner = s
            self.update(i, master, g.astype(nd.float32), inner)
            w[...] = master.astype(w.dtype)

    def begin_update(self, indices: Sequence[Any]) -> None:
        """Count one update of each weight."""
        counts, begin, latest = self._count, self.begin_num_update, self.num_update
        for i in indices:
            now = counts[i] = counts.get(i, begin) + 1
            if now > latest:
                latest = now
        self.num_update = latest

    def discount(self, indices: Sequence[Any]) -> None:
        """Take back the counts of updates that a compiled step left out because gradients had overflowed."""
        if self._skips is None:
            return
        known, now = self._skips_known, self._skips()
        self._skips_known = now
        if now > known:
            for i in indices:
                if i in self._count:
                    self._count[i] -= now - known
            self.num_update -= now - known

    def update_all(
        self,
        indices: Sequence[Any],
        weights: list[NDArray],
        grads: list[NDArray],
        states: list[Any],
        count: bool = True,
        rescale: Any = None,
    ) -> None:
        """Update many weights of one device in place, as one compiled function (in a trace: as part of it).

        `count` is False where these weights have been counted already (on another device). `rescale` (a number, or in a
        trace a 0-d array) stands for `rescale_grad`.
        """
        rescale = self.rescale_grad if rescale is None else rescale
        if not self._is_rule():
            if count:
                self.begin_update(indices)
            for arguments in zip(indices, weights, grads, states):
                self.update_multi_precision(*arguments)
            return
        self._run(indices, weights, grads, [_flat(s) for s in states], count, rescale)

    def _is_rule(self) -> bool:
        """Whether updates are stated as `rule`; a subclass in Gluon's old form has its own `update`."""
        return type(self).update is Optimizer.update

    def _run(self, indices: Sequence[Any], weights: Any, grads: Any, flat: Any, count: bool, rescale: Any) -> None:
        """Update by `rule`. A compiled update that gets the very same tuples again is found at once."""
        weights, grads, flat = tuple(weights), tuple(grads), tuple(map(tuple, flat))
        if is_tracing():  # later calls may find other multipliers and counts: no weight shares another's numbers
            groups, members = tuple(range(len(indices))), list(indices)
            numbers = self._traced_numbers(indices, members, count)
            with autograd.pause():
                self._update_all(groups, weights, grads, flat, numbers, rescale)
            return
        groups, members = self._groups(indices)
        if count:
            self.begin_update(indices)
        numbers = self._numbers(members)
        key = (groups, self.clip_gradient, self.multi_precision, self.structure())
        program = self._programs.get(key)
        if program is None:

            def run(weights: Any, grads: Any, states: Any, numbers: Any, rescale: Any) -> None:
                self._update_all(groups, weights, grads, states, numbers, rescale)

            run.__name__ = f"{type(self).__name__.lower()}_update"
            program = self._programs[key] = type(self).compile(run)
        with autograd.pause():
            program(weights, grads, flat, numbers, float(rescale))

    def _update_all(
        self, groups: tuple[int, ...], weights: Any, grads: Any, states: Any, numbers: Any, rescale: Any
    ) -> None:
        cast: dict[Any, dict[str, Any]] = {}
        known: dict[Any, Any] = {}
        alike = getattr(capturing(), "alike", _called)
        for group, weight, grad, state in zip(groups, weights, grads, states):
            target, state = weight, tuple(state)
            if self.has_master(weight):
                target, state = state[0], state[1:]
            dtype = target.dtype
            n = cast.get((group, dtype))
            if n is None:
                n = cast[group, dtype] = {
                    k: v.astype(dtype, copy=False) if isinstance(v, NDArray) else v for k, v in numbers[group].items()
                }
            new, *new_state = alike(known, self._step, (target, grad, *state), {**n, "rescale_grad": rescale})
            target[...] = new
            if target is not weight:
                weight[...] = new.astype(weight.dtype)
            for old, new in zip(state, new_state):
                old[...] = new

    def _step(self, arrays: Sequence[NDArray], numbers: Mapping[str, Any]) -> list[NDArray]:
        """The new values of (weight, gradient, *states)'s weight and states."""
        weight, grad, *state = arrays
        n = dict(numbers)
        rescale, dtype = n.pop("rescale_grad"), weight.dtype
        wide = dtype if not is_narrow(dtype) else nd.float32  # 1 / (batch size * loss scale) is no float16 number
        grad = grad.astype(wide, copy=False) * (rescale.astype(wide) if isinstance(rescale, NDArray) else rescale)
        if self.clip_gradient is not None:
            grad = nd.clip(grad, -self.clip_gradient, self.clip_gradient)
        new, new_state = self.rule(weight, grad.astype(dtype, copy=False), tuple(state), n)
        return [new, *new_state]

    def _groups(self, indices: Sequence[Any]) -> tuple[tuple[int, ...], list[Any]]:
        """Weights that share multipliers and count share their numbers: (group of each weight, a member of each)."""
        seen: dict[Any, int] = {}
        members: list[Any] = []
        groups = []
        parameters, counts, begin = self.param_dict, self._count, self.begin_num_update
        for i in indices:
            parameter = parameters.get(i)
            multipliers = (parameter.lr_mult, parameter.wd_mult) if parameter is not None else self._multipliers(i)
            key = (multipliers, counts.get(i, begin))
            if key not in seen:
                seen[key] = len(members)
                members.append(i)
            groups.append(seen[key])
        return tuple(groups), members

    def _numbers(self, members: list[Any]) -> list[dict[str, float]]:
        """The numbers of each weight; weights with equal multipliers and counts have the same dictionary."""
        lr, counts, begin = self.learning_rate, self._count, self.begin_num_update
        known: dict[Any, dict[str, float]] = {}
        result = []
        for i in members:
            lr_mult, wd_mult = self._multipliers(i)
            key = lr_mult, wd_mult, counts.get(i, begin)
            found = known.get(key)
            if found is None:
                numbers = self.numbers(lr * lr_mult, self.wd * wd_mult, key[2])
                found = known[key] = {k: float(v) for k, v in numbers.items()}
            result.append(found)
        return result

    def _traced_numbers(self, indices: Sequence[Any], members: list[Any], count: bool) -> list[dict[str, Any]]:
        raise RuntimeError(
            "optimizer: updating inside a hybridized function needs the package `blocks`, which connects the two"
        )

    # -- settings

    def config(self) -> dict[str, Any]:
        """The settings as plain data: what `from_config` makes the same optimizer of."""
        names = {
            k: v
            for k, v in self.__dict__.items()
            if not k.startswith("_") and isinstance(v, (int, float, bool, str, type(None)))
        }
        names.pop("num_update", None)
        names["learning_rate"] = names.pop("lr")
        scheduler = None
        if self.lr_scheduler is not None:
            scheduler = {
                "name": type(self.lr_scheduler).__name__,
                "state": {k: v for k, v in self.lr_scheduler.__dict__.items() if not k.startswith("_")},
            }
        names.pop("lr_scheduler", None)
        return {"name": type(self).__name__.lower(), "settings": names, "scheduler": scheduler}

    @staticmethod
    def from_config(config: Mapping[str, Any]) -> Optimizer:
        """An optimizer from `config`'s data (its scheduler is the caller's to set)."""
        return create(config["name"], **config["settings"])

    def __repr__(self) -> str:
        settings = {k: v for k, v in self.config()["settings"].items() if v is not None}
        return f"{type(self).__name__}({', '.join(f'{k}={v}' for k, v in settings.items())})"


class Updater:
    """An optimizer with the states of the weights of one device: ``updater(index, grad, weight)`` updates in place."""

    def __init__(self, optimizer: Optimizer):
        self.optimizer = optimizer
        self.states: dict[Any, Any] = {}
        self.masters: set[Any] = set()  # weights whose states are (master, states of the master)
        self._last: tuple[Any, list, tuple] = (None, [], ())  # indices, their states, these as tuples of arrays

    def __call__(self, index: Any, grad: Any, weight: Any, count: bool = True, rescale: Any = None) -> None:
        indices, grads, weights = (
            (index, grad, weight) if isinstance(index, (list, tuple)) else ([index], [grad], [weight])
        )
        known = self.states
        if type(indices) is tuple and indices is self._last[0] and self.optimizer._is_rule():
            _, states, flat = self._last
            if all(known.get(i) is s for i, s in zip(indices, states)):
                rescale = self.optimizer.rescale_grad if rescale is None else rescale
                self.optimizer._run(indices, weights, grads, flat, count, rescale)
                return
        self.ensure_states(indices, weights)
        states = [known[i] for i in indices]
        self._last = (indices, states, tuple([tuple(_flat(s)) for s in states]))
        self.optimizer.update_all(list(indices), list(weights), list(grads), states, count, rescale)

    def ensure_states(self, indices: Sequence[Any], weights: Sequence[NDArray]) -> None:
        """Create the states of weights that have none yet."""
        from ndarray.apply import eagerly

        for i, weight in zip(indices, weights):
            if i not in self.states:
                with eagerly(), autograd.pause():
                    self.states[i] = self.optimizer.create_state_multi_precision(i, weight)
                if self.optimizer.has_master(weight):
                    self.masters.add(i)

    # -- files

    def save(self, fname: Any, dump_optimizer: bool = False) -> None:
        """Write states, counts and, with `dump_optimizer`, settings to a safetensors file, atomically."""
        arrays = {f"{i}/{k}": a.asnumpy() for i, s in self.states.items() for k, a in enumerate(_flat(s))}
        optimizer = self.optimizer
        about = {
            "kinds": [[i, _kind(s[1] if i in self.masters else s)] for i, s in self.states.items()],
            "masters": sorted(self.masters, key=str),
            "counts": [[i, c] for i, c in optimizer._count.items()],
            "num_update": optimizer.num_update,
            "name": type(optimizer).__name__.lower(),
            "optimizer": optimizer.config() if dump_optimizer else None,
        }
        save_arrays(fname, arrays, {"format": "hybrid-optimizer-states", "version": "1", "about": json.dumps(about)})

    def load(self, fname: Any, devices: Any = None, shapes: Mapping[Any, tuple[int, ...]] | None = None) -> None:
        """Read what `save` wrote. `devices` maps indices to devices, or is one for all; `shapes` maps indices to the
        shapes that the states must have.

        Raises FileFormatError for another file, ValueError for states of another optimizer or other weights.
        """
        arrays, metadata = load_arrays(fname)
        if (metadata.get("format"), metadata.get("version")) != ("hybrid-optimizer-states", "1"):
            raise FileFormatError(
                f"{fname}: no optimizer states of version 1 (format {metadata.get('format')!r}, version "
                f"{metadata.get('version')!r})"
            )
        try:
            about = json.loads(metadata["about"])
            counts = {_key(i): int(c) for i, c in about["counts"]}
            num_update, name, config = int(about["num_update"]), about["name"], about["optimizer"]
            kinds = {_key(i): int(kind) for i, kind in about["kinds"]}
            masters = set(map(_key, about.get("masters", ())))
            counted = {i: abs(kind) + (i in masters) for i, kind in kinds.items()}
            parts = {i: [arrays[f"{i}/{k}"] for k in range(count)] for i, count in counted.items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FileFormatError(f"{fname}: damaged optimizer states ({error!r})") from None
        mine = type(self.optimizer).__name__.lower()
        if name != mine:
            raise ValueError(f"{fname}: holds the states of {name!r}, the optimizer is {mine!r}")
        if shapes is not None:
            for i, arrays_of in parts.items():
                for a in arrays_of:
                    if i not in shapes or a.shape != tuple(shapes[i]):
                        raise ValueError(
                            f"{fname}: the state of weight {i!r} has shape {a.shape}, the weight {shapes.get(i)}; "
                            "it belongs to another model"
                        )
        states: dict[Any, Any] = {}
        for i, kind in kinds.items():
            device = devices.get(i) if isinstance(devices, Mapping) else devices
            loaded = tuple(nd.array(a, dtype=a.dtype, device=device) for a in parts[i])
            own = loaded[1:] if i in masters else loaded
            state = None if kind == 0 else own[0] if kind == -1 else own
            states[i] = (loaded[0], state) if i in masters else state
        if config:
            old, self.optimizer = self.optimizer, Optimizer.from_config(config)
            for attribute in ("param_dict", "lr_scheduler", "idx2name", "lr_mult", "wd_mult"):
                setattr(self.optimizer, attribute, getattr(old, attribute))
        self.states, self.masters = states, masters
        self.optimizer._count, self.optimizer.num_update = counts, num_update


def _called(known: dict[Any, Any], function: Callable, *arguments: Any) -> Any:
    """What stands for a tracer's `alike` where nothing is traced."""
    return function(*arguments)


def is_narrow(dtype: Any) -> bool:
    """Whether a dtype is float16 or bfloat16."""
    return dtype.name in ("float16", "bfloat16")


def _flat(state: Any) -> list[NDArray]:
    if state is None:
        return []
    return [a for s in state for a in _flat(s)] if isinstance(state, (tuple, list)) else [state]


def _kind(state: Any) -> int:
    """0: None, -1: one array, n: a tuple of n."""
    return 0 if state is None else len(state) if isinstance(state, (tuple, list)) else -1


def _key(index: Any) -> Any:
    if not isinstance(index, (int, str)):
        raise TypeError(f"a key must be an int or a str, got {index!r}")
    return index
