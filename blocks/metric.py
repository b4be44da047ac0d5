"""Metrics: running figures over batches, computed with NumPy outside of any graph."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from ndarray import NDArray

__all__ = [
    "MAE",
    "MSE",
    "RMSE",
    "Accuracy",
    "CompositeEvalMetric",
    "CrossEntropy",
    "CustomMetric",
    "EvalMetric",
    "Loss",
    "TopKAccuracy",
    "create",
    "register",
]

_registry: dict[str, type[EvalMetric]] = {}
_aliases = {
    "acc": "accuracy",
    "ce": "crossentropy",
    "cross-entropy": "crossentropy",
    "top_k_accuracy": "topkaccuracy",
    "top_k_acc": "topkaccuracy",
    "composite": "compositeevalmetric",
}
T = TypeVar("T", bound="type[EvalMetric]")


def register(cls: T) -> T:
    """Class decorator: make a metric known by its lower-case name."""
    _registry[cls.__name__.lower()] = cls
    return cls


def create(metric: Any, *args: Any, **settings: Any) -> EvalMetric:
    """A metric from a name ("acc", "mse" ...), a metric, a function ``(label, prediction)``, or a list of those."""
    if isinstance(metric, EvalMetric):
        return metric
    if isinstance(metric, (list, tuple)):
        composite = CompositeEvalMetric()
        for m in metric:
            composite.add(create(m, *args, **settings))
        return composite
    if isinstance(metric, str):
        key = _aliases.get(metric.lower(), metric.lower())
        if key not in _registry:
            raise ValueError(f"no metric {metric!r}; known: {', '.join(sorted(_registry))}")
        return _registry[key](*args, **settings)
    if callable(metric):
        return CustomMetric(metric, *args, **settings)
    raise TypeError(f"metric: expected a name, a metric, a function or a list, got {type(metric).__name__}")


def _list(values: Any) -> list[np.ndarray]:
    values = values if isinstance(values, (list, tuple)) else [values]
    return [v.asnumpy() if isinstance(v, NDArray) else np.asarray(v) for v in values]


class EvalMetric:
    """A sum over what `update` was given, divided by a count."""

    def __init__(self, name: str, output_names: Sequence[str] | None = None, label_names: Sequence[str] | None = None):
        self.name = str(name)
        self.output_names, self.label_names = output_names, label_names
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.num_inst = 0
        self.sum_metric = 0.0

    def update(self, labels: Any, preds: Any) -> None:
        """Take in one batch: an array, or a list of them (one per device)."""
        labels, preds = _list(labels), _list(preds)
        if len(labels) != len(preds):
            raise ValueError(f"{self.name}: {len(labels)} arrays of labels, {len(preds)} of predictions")
        for label, prediction in zip(labels, preds):
            total, count = self.measure(label, prediction)
            self.sum_metric += float(total)
            self.num_inst += int(count)

    def measure(self, label: np.ndarray, pred: np.ndarray) -> tuple[float, int]:
        """(sum, count) of one pair of arrays."""
        raise NotImplementedError(f"{type(self).__name__} must define measure or update")

    def get(self) -> tuple[Any, Any]:
        """(name, value); the value is nan before the first update."""
        return self.name, self.sum_metric / self.num_inst if self.num_inst else math.nan

    def get_name_value(self) -> list[tuple[str, float]]:
        """A list of (name, value)."""
        name, value = self.get()
        return list(zip(name, value)) if isinstance(name, list) else [(name, value)]

    def __str__(self) -> str:
        return f"EvalMetric: {dict(self.get_name_value())}"


@register
class Accuracy(EvalMetric):
    """The share of samples whose largest score along `axis` is at the label. Predictions may also be class numbers."""

    def __init__(self, axis: int = 1, name: str = "accuracy", output_names: Any = None, label_names: Any = None):
        super().__init__(name, output_names, label_names)
        self.axis = axis

    def measure(self, label: np.ndarray, pred: np.ndarray) -> tuple[float, int]:
        """(hits, samples)."""
        if pred.shape != label.shape and pred.ndim > 1:
            pred = pred.argmax(axis=self.axis)
        if pred.size != label.size:
            raise ValueError(
                f"accuracy: {label.size} labels (shape {label.shape}) for {pred.size} predictions (shape {pred.shape})"
            )
        return float((pred.astype(np.int64).ravel() == label.astype(np.int64).ravel()).sum()), label.size


@register
class TopKAccuracy(EvalMetric):
    """The share of samples whose label is among the `top_k` largest scores."""

    def __init__(self, top_k: int = 1, name: str = "top_k_accuracy", output_names: Any = None, label_names: Any = None):
        if top_k < 2:
            raise ValueError(f"top_k_accuracy: top_k must be above 1, got {top_k}; use Accuracy for 1")
        super().__init__(f"{name}_{top_k}", output_names, label_names)
        self.top_k = top_k

    def measure(self, label: np.ndarray, pred: np.ndarray) -> tuple[float, int]:
        """(hits, samples)."""
        if pred.ndim != 2 or len(pred) != label.size:
            raise ValueError(f"{self.name}: predictions must have shape ({label.size}, classes), got {pred.shape}")
        k = min(self.top_k, pred.shape[1])
        best = np.argpartition(pred, -k, axis=1)[:, -k:]
        return float((best == label.astype(np.int64).reshape(-1, 1)).any(axis=1).sum()), label.size


class _Regression(EvalMetric):
    def measure(self, label: np.ndarray, pred: np.ndarray) -> tuple[float, int]:
        """(sum of the batch's figures, samples)."""
        label = label.reshape(len(label), -1).astype(np.float64)
        pred = pred.reshape(len(pred), -1).astype(np.float64)
        if label.shape != pred.shape:
            raise ValueError(f"{self.name}: labels {label.shape} and predictions {pred.shape} differ in shape")
        return self.error(label - pred) * len(label), len(label)

    def error(self, difference: np.ndarray) -> float:
        """The figure of a batch."""
        raise NotImplementedError


@register
class MAE(_Regression):
    """Mean absolute error."""

    def __init__(self, name: str = "mae", output_names: Any = None, label_names: Any = None):
        super().__init__(name, output_names, label_names)

    def error(self, difference: np.ndarray) -> float:
        """The figure of a batch."""
        return float(np.abs(difference).mean())


@register
class MSE(_Regression):
    """Mean squared error."""

    def __init__(self, name: str = "mse", output_names: Any = None, label_names: Any = None):
        super().__init__(name, output_names, label_names)

    def error(self, difference: np.ndarray) -> float:
        """The figure of a batch."""
        return float((difference**2).mean())


@register
class RMSE(MSE):
    """Root of the mean squared error over all samples."""

    def __init__(self, name: str = "rmse", output_names: Any = None, label_names: Any = None):
        super().__init__(name, output_names, label_names)

    def get(self) -> tuple[Any, Any]:
        """(name, value)."""
        name, value = super().get()
        return name, math.sqrt(value)


@register
class CrossEntropy(EvalMetric):
    """Mean of ``-log(probability of the label + eps)``; predictions are probabilities along the last axis."""

    def __init__(
        self, eps: float = 1e-12, name: str = "cross-entropy", output_names: Any = None, label_names: Any = None
    ):
        super().__init__(name, output_names, label_names)
        self.eps = eps

    def measure(self, label: np.ndarray, pred: np.ndarray) -> tuple[float, int]:
        """(sum, samples)."""
        label, pred = label.ravel().astype(np.int64), pred.reshape(-1, pred.shape[-1])
        if len(label) != len(pred):
            raise ValueError(f"{self.name}: {len(label)} labels for {len(pred)} predictions")
        return float(-np.log(pred[np.arange(len(label)), label].astype(np.float64) + self.eps).sum()), len(label)


@register
class Loss(EvalMetric):
    """The mean of losses: ``update(None, losses)``."""

    def __init__(self, name: str = "loss", output_names: Any = None, label_names: Any = None):
        super().__init__(name, output_names, label_names)

    def update(self, _: Any, preds: Any) -> None:
        """Take in losses."""
        for loss in _list(preds):
            self.sum_metric += float(loss.astype(np.float64).sum())
            self.num_inst += loss.size


class CustomMetric(EvalMetric):
    """The mean over batches of ``function(label, prediction)``, which returns a number or (sum, count)."""

    def __init__(
        self,
        feval: Callable[[np.ndarray, np.ndarray], Any],
        name: str | None = None,
        output_names: Any = None,
        label_names: Any = None,
    ):
        super().__init__(name or f"custom({getattr(feval, '__name__', 'function')})", output_names, label_names)
        self._feval = feval

    def measure(self, label: np.ndarray, pred: np.ndarray) -> tuple[float, int]:
        """(sum, count)."""
        result = self._feval(label, pred)
        return result if isinstance(result, tuple) else (result, 1)


@register
class CompositeEvalMetric(EvalMetric):
    """Several metrics, updated together."""

    def __init__(
        self,
        metrics: Sequence[Any] | None = None,
        name: str = "composite",
        output_names: Any = None,
        label_names: Any = None,
    ):
        self.metrics = [create(m) for m in metrics or ()]
        super().__init__(name, output_names, label_names)

    def add(self, metric: Any) -> None:
        """Add one more."""
        self.metrics.append(create(metric))

    def get_metric(self, index: int) -> EvalMetric:
        """The metric at `index`."""
        return self.metrics[index]

    def reset(self) -> None:
        """Reset all."""
        for m in self.metrics:
            m.reset()

    def update(self, labels: Any, preds: Any) -> None:
        """Update all."""
        for m in self.metrics:
            m.update(labels, preds)

    def get(self) -> tuple[Any, Any]:
        """(names, values)."""
        pairs = [p for m in self.metrics for p in m.get_name_value()]
        return [n for n, _ in pairs], [v for _, v in pairs]
