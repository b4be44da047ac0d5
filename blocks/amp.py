"""Automatic mixed precision, in the way of Gluon's `amp`: products and convolutions in bfloat16 or float16, what overflows or
adds up many numbers in float32, weights and their updates in float32.

    amp.init("bfloat16")                       # from now on, for all code: eager, hybridized, on every device
    trainer = Trainer(net.collect_params(), "adam")
    amp.init_trainer(trainer)
    with autograd.record():
        loss = loss_fn(net(x), y)
        with amp.scale_loss(loss, trainer) as scaled:
            autograd.backward(scaled)
    trainer.step(batch_size)

float16 gradients underflow, so the loss is multiplied by a scale that adapts: where a gradient is infinite or NaN, the step is
skipped and the scale halved; after `LossScaler.window` good steps it is doubled. bfloat16 has float32's range and needs none.
The casts are decided by `ndarray.precision`, operation by operation; the lists are arguments of `init`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hybrid.block import HybridBlock
from hybrid.epoch import raise_epoch
from ndarray import NDArray, autograd, precision
from ndarray.dtypes import canonical
from ndarray.op import OPS
from ndarray.precision import FUNCTIONS, TARGET_OPS, WIDE_OPS, Policy

from .loss_scaler import LossScaler
from .trainer import Trainer

__all__ = [
    "LossScaler", "convert_hybrid_block", "init", "init_trainer", "list_conditional_fp32_ops", "list_fp32_ops", "list_lp16_ops",
    "off", "scale_loss", "unscale",
]

_GLUON = {"FullyConnected": "fully_connected", "Convolution": "convolution", "Deconvolution": "deconvolution"}
"""MXNet's names of operations that users put on the lists."""


def list_lp16_ops(target_dtype: Any = "float16") -> list[str]:
    """What computes in the target type by default."""
    _target(target_dtype)
    return sorted(TARGET_OPS)


def list_fp32_ops(target_dtype: Any = "float16") -> list[str]:
    """What computes in float32 by default."""
    _target(target_dtype)
    return sorted(WIDE_OPS)


def list_conditional_fp32_ops(target_dtype: Any = "float16") -> list[tuple[str, str, list]]:
    """What computes in float32 for some values of an attribute by default: nothing."""
    _target(target_dtype)
    return []


def policy(
    target_dtype: Any = "float16", target_precision_ops: Iterable[str] | None = None,
    conditional_fp32_ops: Iterable[tuple[str, str, Sequence]] | None = None, fp32_ops: Iterable[str] | None = None,
) -> Policy:
    """The `Policy` of a target type and lists. A list that is given adds to the default one, and takes its operations from the
    other. Raises ValueError for a target type other than float16 and bfloat16 and for names that are no operations."""
    target, wide = _names("target_precision_ops", target_precision_ops), _names("fp32_ops", fp32_ops)
    both = target & wide
    if both:
        raise ValueError(f"amp: {sorted(both)} stand in both target_precision_ops and fp32_ops; choose one for each")
    conditions = tuple([
        (name, attribute, tuple(values)) for op, attribute, values in conditional_fp32_ops or ()
        for name in _names("conditional_fp32_ops", [op])
    ])
    return Policy(_target(target_dtype), (TARGET_OPS - wide) | target, (WIDE_OPS - target) | wide, conditions)


def _target(dtype: Any) -> Any:
    found = canonical(dtype)
    if found.name not in ("float16", "bfloat16"):
        raise ValueError(f"amp: target_dtype: expected 'float16' or 'bfloat16', got {dtype!r}")
    return found


def _names(argument: str, names: Iterable[str] | None) -> frozenset[str]:
    found = [_GLUON.get(name, name) for name in names or ()]
    unknown = [n for n in found if n == "cast" or (n not in OPS and n not in FUNCTIONS)]
    if unknown:
        raise ValueError(
            f"amp: {argument}: no operation {', '.join(map(repr, unknown))} to choose a type for; known are "
            f"{', '.join(sorted(FUNCTIONS))} and the primitives {', '.join(sorted(OPS.keys() - {'cast'}))}"
        )
    return frozenset(found)


def init(
    target_dtype: Any = "float16", target_precision_ops: Iterable[str] | None = None,
    conditional_fp32_ops: Iterable[tuple[str, str, Sequence]] | None = None, fp32_ops: Iterable[str] | None = None,
) -> None:
    """Compute in mixed precision from now on, in all code of the process; hybridized functions are traced anew.

    target_precision_ops  operations that are to compute in `target_dtype` beside the default ones (`list_lp16_ops`)
    fp32_ops              operations that are to compute in float32 beside the default ones (`list_fp32_ops`)
    conditional_fp32_ops  (operation, attribute, values): in float32 where the attribute has one of the values

    Operations are named as in ``ndarray.op.OPS`` and `ndarray.precision.FUNCTIONS`; MXNet's FullyConnected, Convolution and
    Deconvolution are known too. Parameters stay in float32.
    """
    precision.set_default(policy(target_dtype, target_precision_ops, conditional_fp32_ops, fp32_ops))
    raise_epoch()


def off() -> None:
    """Undo `init`."""
    precision.set_default(None)
    raise_epoch()


def init_trainer(trainer: Trainer, loss_scaler: LossScaler | None = None) -> None:
    """Let a trainer look for overflow before each step, as `scale_loss` needs it.

    By default the scale starts at 65536 and adapts for float16, and is always 1 for bfloat16, where nothing is looked for.
    Raises RuntimeError before `init` unless a `loss_scaler` is given, and where the store updates the weights.
    """
    if not isinstance(trainer, Trainer):
        raise TypeError(f"amp.init_trainer: expected a Trainer, got {type(trainer).__name__}")
    if loss_scaler is None:
        found = precision.current()
        if found is None:
            raise RuntimeError("amp.init_trainer: call amp.init first, or give a loss_scaler")
        loss_scaler = LossScaler() if found.target.name == "float16" else LossScaler(1.0, dynamic=False)
    if trainer._requested[1]:
        raise RuntimeError(
            "amp.init_trainer: the store updates the weights and can't skip a step; create the Trainer with "
            "update_on_kvstore=False"
        )
    trainer._amp_loss_scaler, trainer._amp_scaled = loss_scaler, False
    if loss_scaler.dynamic:
        trainer._optimizer._skips, trainer._optimizer._skips_known = loss_scaler.skipped_in_programs, 0


def _scaler(name: str, trainer: Trainer) -> LossScaler:
    scaler = getattr(trainer, "_amp_loss_scaler", None)
    if scaler is None:
        raise RuntimeError(f"amp.{name}: call amp.init_trainer(trainer) first")
    return scaler


@contextmanager
def scale_loss(loss: Any, trainer: Trainer) -> Iterator[Any]:
    """The loss (an array, or a list of them) times the trainer's loss scale; `trainer.step` divides the gradients by it again."""
    scaler = _scaler("scale_loss", trainer)
    trainer._amp_scaled = True
    if isinstance(loss, (list, tuple)):
        yield [_scaled(a, scaler) for a in loss]
    else:
        yield _scaled(loss, scaler)


def _scaled(loss: NDArray, scaler: LossScaler) -> NDArray:
    wide = loss.astype("float32") if loss.dtype.itemsize < 4 else loss
    return wide if scaler.is_one else wide * scaler.scale(loss.device).astype(wide.dtype)


def unscale(trainer: Trainer) -> None:
    """Divide the gradients by the loss scale now (to clip them, say); `trainer.step` then doesn't."""
    scaler = _scaler("unscale", trainer)
    if not trainer._amp_scaled:
        return
    trainer._amp_scaled = False
    if scaler.is_one:
        return
    with autograd.pause():
        for parameter in trainer._params:
            if parameter.grad_req == "null":
                continue
            for grad in parameter.list_grad():
                grad[...] = grad / scaler.scale(grad.device).astype(grad.dtype)


class _Converted:
    """Mixed in before a Block's class: it computes under its own policy, whatever the rest of the program does."""

    _policy: Policy | None

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        if self._policy is None:
            args = tuple([a.astype("float32") if isinstance(a, NDArray) and a.dtype.itemsize < 4 else a for a in args])
        with precision.use(self._policy):
            return super()._run(*args, **kwargs)  # type: ignore[misc]


def _convert(block: HybridBlock, chosen: Policy | None) -> None:
    kind = type(block)
    block.__class__ = type(kind.__name__, (_Converted, kind), {"__module__": kind.__module__, "__doc__": kind.__doc__})
    object.__setattr__(block, "_policy", chosen)


def convert_hybrid_block(
    block: HybridBlock, target_dtype: Any = "float16", target_dtype_ops: Iterable[str] | None = None,
    fp32_ops: Iterable[str] | None = None, conditional_fp32_ops: Iterable[tuple[str, str, Sequence]] | None = None,
    excluded_sym_names: Iterable[str] | None = None, device: Any = None, cast_params_offline: bool = False,
) -> HybridBlock:
    """A copy of a network that computes in mixed precision by itself, for inference or training, without `init`.

    excluded_sym_names   paths of children ("0", "body.2") that stay as they are
    device               where the copy's parameters go (None: where they are)
    cast_params_offline  keep the weights of layers that compute in the target type in that type: half the memory

    Raises ValueError for a path that does not exist, and for lists as `init` does.
    """
    if not isinstance(block, HybridBlock):
        raise TypeError(f"amp.convert_hybrid_block: expected a HybridBlock, got {type(block).__name__}")
    chosen = policy(target_dtype, target_dtype_ops, conditional_fp32_ops, fp32_ops)
    net = copy.deepcopy(block)
    net.hybridize(False)
    if cast_params_offline:
        for _, part in net._walk():
            if isinstance(part, _layers()):
                for parameter in part._own.values():
                    parameter.cast(chosen.target)
    parts = dict(net._walk())
    for path in excluded_sym_names or ():
        if not path or not isinstance(parts.get(path), HybridBlock):
            raise ValueError(f"amp.convert_hybrid_block: no child {path!r}; the children are {[p for p in parts if p]}")
        parts[path].cast("float32")
        _convert(parts[path], None)  # type: ignore[arg-type]
    if device is not None:
        net.reset_device(device)
    _convert(net, chosen)
    if block._active:
        net.hybridize()
    return net


def _layers() -> tuple[type, ...]:
    from .nn.basic import Dense
    from .nn.convolution import _Conv
    from .nn.transposed import _ConvTranspose
    from .rnn.layers import _RNNLayer

    return Dense, _Conv, _ConvTranspose, _RNNLayer
