"""Pictures for the demo and the tutorials: digits with predictions, and the fused graph. Needs matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["draw_digits", "draw_graph"]


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def draw_digits(images: np.ndarray, answers: np.ndarray, labels: np.ndarray, path: Path, count: int = 40) -> Path:
    """A sheet of digits (N, 1, H, W) under their predicted class, wrong ones in red and first; returns the path."""
    order = np.argsort(answers == labels, kind="stable")[:count]
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(4, count // 4, figsize=(count // 4, 4.6))
    for axis, i in zip(axes.flat, order, strict=True):
        axis.imshow(images[i, 0], cmap="gray_r")
        right = answers[i] == labels[i]
        axis.set_title(str(answers[i]) if right else f"{answers[i]} (is {labels[i]})", color="black" if right else "crimson",
                       fontsize=9)
        axis.axis("off")
    figure.suptitle(f"Held-out digits and predictions ({(answers == labels).mean():.1%} right)")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return path


def draw_graph(net: Any, example: Any, path: Path) -> Path:
    """The kernels of a hybridized net as boxes from top to bottom, each with the equations fused into it."""
    kernels = net.kernels(example)
    pyplot = _pyplot()
    figure, axis = pyplot.subplots(figsize=(9, 0.62 * len(kernels) + 1))
    palette = {"contract": "#cfe3ff", "map": "#e2f5d8", "rows": "#ffe9c9"}
    for i, kernel in enumerate(kernels):
        y = -i
        kind = next((k for k in palette if k in kernel.name), "map")
        text = f"{kernel.name}: " + " → ".join(kernel.operations)
        axis.text(0, y, text, ha="center", va="center", fontsize=8,
                  bbox={"boxstyle": "round,pad=0.4", "facecolor": palette[kind], "edgecolor": "#555555"})
        if i:
            axis.annotate("", (0, y + 0.3), (0, y + 0.7), arrowprops={"arrowstyle": "->", "color": "#555555"})
    axis.set_xlim(-1, 1)
    axis.set_ylim(-len(kernels) + 0.3, 0.7)
    axis.axis("off")
    axis.set_title(f"{sum(len(k.operations) for k in kernels)} equations in {len(kernels)} kernels, one native call", fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return path
