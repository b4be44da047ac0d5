"""Learning rate schedules: functions of the number of updates done."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

__all__ = ["CosineScheduler", "FactorScheduler", "LRScheduler", "MultiFactorScheduler", "PolyScheduler"]


class LRScheduler:
    """Base class: ``scheduler(num_update)`` is the learning rate.

    In the first `warmup_steps` updates it rises from `warmup_begin_lr` to `base_lr` ("linear"), or stays at
    `warmup_begin_lr` ("constant").
    """

    def __init__(
        self, base_lr: float = 0.01, warmup_steps: int = 0, warmup_begin_lr: float = 0.0, warmup_mode: str = "linear"
    ):
        if warmup_mode not in ("linear", "constant"):
            raise ValueError(f"LRScheduler: warmup_mode must be 'linear' or 'constant', got {warmup_mode!r}")
        if warmup_steps < 0:
            raise ValueError(f"LRScheduler: warmup_steps must not be negative, got {warmup_steps}")
        if warmup_begin_lr > base_lr:
            raise ValueError(f"LRScheduler: warmup_begin_lr ({warmup_begin_lr}) must not be above base_lr ({base_lr})")
        self.base_lr = base_lr
        self.warmup_steps = warmup_steps
        self.warmup_begin_lr = warmup_begin_lr
        self.warmup_mode = warmup_mode

    def get_warmup_lr(self, num_update: int) -> float:
        """The rate during the warm-up."""
        if self.warmup_mode == "constant":
            return self.warmup_begin_lr
        return self.warmup_begin_lr + (self.base_lr - self.warmup_begin_lr) * num_update / self.warmup_steps

    def __call__(self, num_update: int) -> float:
        if num_update < self.warmup_steps:
            return self.get_warmup_lr(num_update)
        return self.rate(num_update)

    def rate(self, num_update: int) -> float:
        """The rate after the warm-up."""
        raise NotImplementedError(f"{type(self).__name__} must define __call__(num_update) or rate(num_update)")


class FactorScheduler(LRScheduler):
    """``base_lr * factor ** ((num_update - 1) // step)``, never below `stop_factor_lr`."""

    def __init__(
        self,
        step: int,
        factor: float = 1.0,
        stop_factor_lr: float = 1e-8,
        base_lr: float = 0.01,
        warmup_steps: int = 0,
        warmup_begin_lr: float = 0.0,
        warmup_mode: str = "linear",
    ):
        super().__init__(base_lr, warmup_steps, warmup_begin_lr, warmup_mode)
        if step < 1:
            raise ValueError(f"FactorScheduler: step must be at least 1, got {step}")
        if factor > 1.0:
            raise ValueError(f"FactorScheduler: factor must be at most 1 so that the rate falls, got {factor}")
        self.step, self.factor, self.stop_factor_lr = step, factor, stop_factor_lr

    def rate(self, num_update: int) -> float:
        """The rate after the warm-up."""
        return max(self.stop_factor_lr, self.base_lr * self.factor ** max(0, (num_update - 1) // self.step))


class MultiFactorScheduler(LRScheduler):
    """`base_lr` times `factor` for each of the `step`s that lies before `num_update`."""

    def __init__(
        self,
        step: Sequence[int],
        factor: float = 1.0,
        base_lr: float = 0.01,
        warmup_steps: int = 0,
        warmup_begin_lr: float = 0.0,
        warmup_mode: str = "linear",
    ):
        super().__init__(base_lr, warmup_steps, warmup_begin_lr, warmup_mode)
        steps = list(step)
        if not steps or steps[0] < 1 or any(b <= a for a, b in pairwise(steps)):
            raise ValueError(f"MultiFactorScheduler: step must be rising numbers from 1, got {steps}")
        if factor > 1.0:
            raise ValueError(f"MultiFactorScheduler: factor must be at most 1 so that the rate falls, got {factor}")
        self.step, self.factor = steps, factor

    def rate(self, num_update: int) -> float:
        """The rate after the warm-up."""
        return self.base_lr * self.factor ** sum(num_update > s for s in self.step)


class _Annealing(LRScheduler):
    """From `base_lr` to `final_lr` in `max_update` updates."""

    def __init__(
        self,
        max_update: int,
        base_lr: float = 0.01,
        final_lr: float = 0.0,
        warmup_steps: int = 0,
        warmup_begin_lr: float = 0.0,
        warmup_mode: str = "linear",
    ):
        super().__init__(base_lr, warmup_steps, warmup_begin_lr, warmup_mode)
        if max_update < 1 or max_update <= warmup_steps:
            raise ValueError(
                f"{type(self).__name__}: max_update must be above 0 and warmup_steps ({warmup_steps}), got {max_update}"
            )
        self.max_update, self.final_lr = max_update, final_lr

    def rate(self, num_update: int) -> float:
        """The rate after the warm-up."""
        done = min(1.0, (num_update - self.warmup_steps) / (self.max_update - self.warmup_steps))
        return self.final_lr + (self.base_lr - self.final_lr) * self.shape(done)

    def shape(self, done: float) -> float:
        """What is left of the way at a share `done` of it: from 1 at 0 to 0 at 1."""
        raise NotImplementedError


class PolyScheduler(_Annealing):
    """``final_lr + (base_lr - final_lr) * (1 - done) ** pwr``."""

    def __init__(
        self,
        max_update: int,
        base_lr: float = 0.01,
        pwr: float = 2,
        final_lr: float = 0.0,
        warmup_steps: int = 0,
        warmup_begin_lr: float = 0.0,
        warmup_mode: str = "linear",
    ):
        super().__init__(max_update, base_lr, final_lr, warmup_steps, warmup_begin_lr, warmup_mode)
        self.pwr = pwr

    def shape(self, done: float) -> float:
        """What is left of the way."""
        return (1 - done) ** self.pwr


class CosineScheduler(_Annealing):
    """``final_lr + (base_lr - final_lr) * (1 + cos(pi * done)) / 2``."""

    def shape(self, done: float) -> float:
        """What is left of the way."""
        return (1 + math.cos(math.pi * done)) / 2
