"""Losses. Each returns one value per sample: the mean over all axes but `batch_axis`."""

from __future__ import annotations

from typing import Any

import ndarray as nd
from hybrid.block import HybridBlock
from ndarray import NDArray
from ndarray.ops.base import differ, is_one
from ndarray.precision import in_wide

__all__ = [
    "CTCLoss",
    "L1Loss",
    "L2Loss",
    "Loss",
    "SigmoidBCELoss",
    "SigmoidBinaryCrossEntropyLoss",
    "SoftmaxCELoss",
    "SoftmaxCrossEntropyLoss",
]


class Loss(HybridBlock):
    """Base class. `weight` multiplies the loss; `batch_axis` is the axis that is kept.

    A `sample_weight` multiplies the losses of the elements before their mean: it broadcasts to their shape, or is that
    shape without axes of size 1 ((N,) for predictions (N, 1), or for the class numbers (N,) of a classification).
    """

    def __init__(self, weight: float | None, batch_axis: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        self._weight = weight
        self._batch_axis = batch_axis

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        """Under mixed precision, losses are computed in float32."""
        return super()._run(*map(in_wide, args), **kwargs)

    def _extra_repr(self) -> str:
        return f"batch_axis={self._batch_axis}, w={self._weight}"

    def _finish(self, loss: NDArray, sample_weight: NDArray | None, weight: float | None) -> NDArray:
        if sample_weight is not None:
            loss = loss * self._fitting(sample_weight, loss)
        if weight is not None:
            loss = loss * weight
        axes = tuple(i for i in range(loss.ndim) if i != self._batch_axis % max(loss.ndim, 1))
        return nd.mean(loss, axis=axes) if axes else loss

    def _fitting(self, sample_weight: Any, loss: NDArray) -> Any:
        """The weights in a shape that broadcasts to the loss's. Raises ValueError if there is none: the product would be
        larger than the loss."""
        shape = tuple(getattr(sample_weight, "shape", ()))
        if len(shape) < loss.ndim:
            long, needed = ([n for n in s if not is_one(n)] for s in (shape, loss.shape))
            if len(long) == len(needed) and not any(map(differ, long, needed)):
                return nd.reshape(sample_weight, loss.shape)
        if len(shape) > loss.ndim or any(not is_one(n) and differ(n, m) for n, m in zip(shape[::-1], loss.shape[::-1])):
            raise ValueError(
                f"{type(self).__name__}: sample_weight: expected a shape that broadcasts to the loss's {loss.shape}, "
                f"got {shape}; one weight a sample has size 1 along the other axes"
            )
        return sample_weight


def _like(label: NDArray, prediction: NDArray) -> NDArray:
    label = label if label.dtype == prediction.dtype else label.astype(prediction.dtype)
    return label if tuple(label.shape) == tuple(prediction.shape) else nd.reshape(label, prediction.shape)


class L2Loss(Loss):
    """``(label - prediction)^2 / 2``, times `weight`."""

    def __init__(self, weight: float = 1.0, batch_axis: int = 0, **kwargs: Any):
        super().__init__(weight, batch_axis, **kwargs)

    def forward(self, pred: NDArray, label: NDArray, sample_weight: NDArray | None = None) -> NDArray:
        """`label` has as many elements as `pred`."""
        difference = _like(label, pred) - pred
        return self._finish(difference * difference, sample_weight, None if self._weight is None else self._weight / 2)


class L1Loss(Loss):
    """``|label - prediction|``, times `weight`."""

    def __init__(self, weight: float | None = None, batch_axis: int = 0, **kwargs: Any):
        super().__init__(weight, batch_axis, **kwargs)

    def forward(self, pred: NDArray, label: NDArray, sample_weight: NDArray | None = None) -> NDArray:
        """`label` has as many elements as `pred`."""
        return self._finish(nd.abs(_like(label, pred) - pred), sample_weight, self._weight)


class SigmoidBinaryCrossEntropyLoss(Loss):
    """Binary cross entropy of logits, ``max(x, 0) - x * label + log(1 + exp(-|x|))``, or, with `from_sigmoid`, of
    probabilities. `pos_weight` multiplies the term of positive labels."""

    def __init__(self, from_sigmoid: bool = False, weight: float | None = None, batch_axis: int = 0, **kwargs: Any):
        super().__init__(weight, batch_axis, **kwargs)
        self._from_sigmoid = from_sigmoid

    def forward(
        self, pred: NDArray, label: NDArray, sample_weight: NDArray | None = None, pos_weight: NDArray | None = None
    ) -> NDArray:
        """`label` has as many elements as `pred`, in [0, 1]."""
        label = _like(label, pred)
        if self._from_sigmoid:
            tiny = 1e-12
            positive = nd.log(pred + tiny) * label
            if pos_weight is not None:
                positive = positive * pos_weight
            loss = -(positive + nd.log(1.0 - pred + tiny) * (1.0 - label))
        else:
            if pos_weight is None:
                loss = nd.softplus(pred) - pred * label
            else:
                factor = 1.0 + (pos_weight - 1.0) * label
                loss = pred - pred * label + factor * nd.softplus(-pred)
        return self._finish(loss, sample_weight, self._weight)


SigmoidBCELoss = SigmoidBinaryCrossEntropyLoss


class SoftmaxCrossEntropyLoss(Loss):
    """``-log softmax(prediction)[label]`` along `axis`.

    With `sparse_label`, labels are class numbers, of the prediction's shape without `axis` (floats are rounded
    down; numbers outside are clipped); otherwise a distribution of the prediction's shape. With `from_logits`, the
    prediction is a log-softmax already.
    """

    def __init__(
        self,
        axis: int = -1,
        sparse_label: bool = True,
        from_logits: bool = False,
        weight: float | None = None,
        batch_axis: int = 0,
        **kwargs: Any,
    ):
        super().__init__(weight, batch_axis, **kwargs)
        self._axis = axis
        self._sparse_label = sparse_label
        self._from_logits = from_logits

    def forward(self, pred: NDArray, label: NDArray, sample_weight: NDArray | None = None) -> NDArray:
        """One loss per sample."""
        log_probability = pred if self._from_logits else nd.log_softmax(pred, axis=self._axis)
        if self._sparse_label:
            loss = -nd.pick(log_probability, label, axis=self._axis, keepdims=True)
        else:
            loss = -nd.sum(log_probability * _like(label, pred), axis=self._axis, keepdims=True)
        return self._finish(loss, sample_weight, self._weight)


SoftmaxCELoss = SoftmaxCrossEntropyLoss


class CTCLoss(Loss):
    """The connectionist temporal classification loss (Graves et al., 2006); the last class is the blank.

    layout        of the predictions: "NTC" or "TNC"
    label_layout  "NT" or "TN"; rows of labels end with -1 where they are shorter, if no lengths are given
    """

    def __init__(self, layout: str = "NTC", label_layout: str = "NT", weight: float | None = None, **kwargs: Any):
        if layout not in ("NTC", "TNC") or label_layout not in ("NT", "TN"):
            raise ValueError(
                f"CTCLoss: layout must be 'NTC' or 'TNC' and label_layout 'NT' or 'TN', got {layout!r} and {label_layout!r}"
            )
        super().__init__(weight, label_layout.index("N"), **kwargs)
        self._layout, self._label_layout = layout, label_layout

    def forward(
        self, pred: NDArray, label: NDArray, pred_lengths: NDArray | None = None, label_lengths: NDArray | None = None,
        sample_weight: NDArray | None = None,
    ) -> NDArray:
        """One loss per sample. pred: scores before softmax."""
        label = label if self._label_layout == "NT" else nd.swapaxes(label, 0, 1)
        loss = nd.ctc_loss(pred, label, pred_lengths, label_lengths, blank_label="last", layout=self._layout)
        if sample_weight is not None:
            loss = loss * nd.reshape(sample_weight, (-1,))
        return loss if self._weight is None else loss * self._weight
