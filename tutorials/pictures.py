"""Pictures for the demo and the tutorials: digits with predictions, and a compiled program. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["draw_digits", "draw_program", "owners"]

COLORS = ["#8ecae6", "#ffd166", "#b5e48c", "#f4a6b7", "#cdb4db", "#ffb48a", "#9fd8cb", "#d9d28b", "#a9c1f5", "#e0b1a3"]
INK, HELPER, FREE = "#333333", "#eeeeee", "#ffffff"


def _figure(width: float, height: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=72, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def draw_digits(images: np.ndarray, scores: np.ndarray, labels: np.ndarray, path: Path | None = None, count: int = 40) -> Any:
    """A sheet of digits (N, 1, H, W), each under the class of highest score (N, classes) and its probability; the wrong ones
    first, in red, with what they are. Written to `path`, if given; returns the figure."""
    answers = scores.argmax(axis=1)
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    right = answers == labels
    order = np.argsort(right, kind="stable")[:count]
    columns = 10
    rows = -(-len(order) // columns)
    figure = _figure(columns * 0.92, rows * 1.25 + 0.7)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, i in zip(axes.flat, order):
        axis.imshow(images[i, 0], cmap="gray_r", interpolation="nearest")
        share = shares[i, answers[i]]
        sure = "" if share >= 0.99 else f"  {share:.0%}"
        note = sure if right[i] else f", is {labels[i]}"
        axis.set_title(f"$\\bf{{{answers[i]}}}${note}", color=INK if right[i] else "#c1121f", fontsize=10, pad=3)
    wrong = f"the {(~right).sum()} wrong ones come first, in red" if not right.all() else "none is wrong"
    figure.suptitle(f"Held-out digits under the network's answers (and their probability, where that is below 99%).\n"
                    f"{right.sum()} of {len(labels)} are right; {wrong}.", fontsize=10)
    if path is not None:
        figure.savefig(path, dpi=80)
    return figure


def owners(graph: Any, kernels: Sequence[Any]) -> dict[int, int]:
    """For each equation of the traced graph that a kernel computes, the kernel's number (equation -> kernel)."""
    found: dict[int, int] = {}
    for number, kernel in enumerate(kernels):
        for operation in kernel.operations:
            match = next((i for i, eq in enumerate(graph.equations) if i not in found and eq.op.name == operation), None)
            if match is not None:
                found[match] = number
    return found


def draw_program(graph: Any, program: Any, path: Path | None = None, name: str = "") -> Any:
    """What became of a traced graph (`hybrid.Graph`) in a compiled program (a row of ``net.explain(x).programs``): its
    equations, the kernels that compute them, in the same colours, and where the temporaries lie in the arena while which
    kernel runs. Written to `path`, if given; returns the figure."""
    kernels, owner = program.kernels, owners(graph, program.kernels)
    computing = [i for i, k in enumerate(kernels) if k.operations]
    color = {k: COLORS[n % len(COLORS)] for n, k in enumerate(computing)}
    count = max(len(graph.equations), len(kernels))
    figure = _figure(12, 0.36 * count + 1.3)
    left, middle, right = figure.subplots(1, 3, width_ratios=[4.6, 5.2, 2.6])
    for axis in (left, middle):
        axis.set_xlim(0, 1)
        axis.set_ylim(count, 0)
        axis.axis("off")
    step = count / len(graph.equations)
    for i, eq in enumerate(graph.equations):
        fill = color.get(owner.get(i, -1), FREE)
        _box(left, 0.0, i * step, 0.9, step, fill)
        left.text(0.03, (i + 0.5) * step, _call(eq), va="center", fontsize=8.5, family="monospace", color=INK)
        out = eq.outputs[0]
        left.text(0.88, (i + 0.5) * step, "×".join(map(str, out.shape)), va="center", ha="right", fontsize=8, color="#666666")
    height = count / len(kernels)
    for k, kernel in enumerate(kernels):
        mid = (k + 0.5) * height
        _box(middle, 0.12, k * height, 0.86, height, color.get(k, HELPER))
        what = " + ".join(kernel.operations) if kernel.operations else _helper(kernel.note)
        middle.text(0.15, mid - 0.13 * height, what, va="center", fontsize=9.5 if kernel.operations else 8.5,
                    weight="bold" if kernel.operations else "normal", color=INK)
        middle.text(0.15, mid + 0.22 * height, _speed(kernel), va="center", fontsize=8, color="#555555")
    for i, k in owner.items():
        middle.annotate("", (0.12, (k + 0.5) * height), (-0.11, (i + 0.5) * step), annotation_clip=False,
                        arrowprops={"arrowstyle": "-", "color": color[k], "linewidth": 2.2})
    _draw_arena(right, program.memory, len(kernels), color)
    left.set_title(f"Traced: {len(graph.equations)} equations", fontsize=11, loc="left", weight="bold")
    took = f" ({program.seconds * 1e3:.1f} ms)" if program.seconds else ""
    middle.set_title(f"Compiled: {len(kernels)} kernels, one native call{took}", fontsize=11, loc="left", weight="bold", x=0.12)
    right.set_title(f"Arena: {program.memory.arena / 1e6:.1f} MB", fontsize=11, loc="left", weight="bold")
    sizes = " for " + ", ".join(f"{k} = {v}" for k, v in program.sizes.items()) if program.sizes else ""
    legend = ("Same colour: equations fused into one kernel. White: no kernel, its readers index the original. Grey: prepares an "
              "operand of the next kernel.\nRight: where each temporary lies, from the kernel that writes it down to the last "
              "one that reads it.")
    figure.supxlabel(f"{name or program.name + sizes}. {legend}", fontsize=8.5, color="#555555", x=0.01, ha="left")
    if path is not None:
        figure.savefig(path, dpi=80)
    return figure


def _box(axis: Any, x: float, y: float, width: float, height: float, fill: str) -> None:
    from matplotlib.patches import FancyBboxPatch

    axis.add_patch(FancyBboxPatch((x + 0.005, y + 0.07), width - 0.01, height - 0.14, boxstyle="round,pad=0,rounding_size=0.01",
                                  facecolor=fill, edgecolor="#999999", linewidth=0.7))


def _call(eq: Any) -> str:
    """An equation as a call: the op with its named inputs."""
    named = [str(a.name) for a in eq.inputs if getattr(a, "name", None) and "." in str(a.name)]
    return f"{eq.op.name} {' '.join(named)}"


def _helper(note: str) -> str:
    return {"padded copy": "copy with padding", "pack": "pack an operand"}.get(note, note.partition("(")[0])


def _speed(kernel: Any) -> str:
    if not kernel.seconds:
        return kernel.name
    text = f"{kernel.name}: {kernel.seconds * 1e6:,.0f} µs on {kernel.threads} thread{'s' * (kernel.threads > 1)}"
    share = kernel.share_of_peak if kernel.flops else None
    return text + (f", {kernel.gflops:.0f} GFLOP/s, {share:.0%} of peak" if share is not None and share >= 0.02 else
                   f", {kernel.gigabytes:.1f} GB/s" if kernel.gigabytes else "")


def _draw_arena(axis: Any, memory: Any, launches: int, color: dict[int, str]) -> None:
    """Temporaries as boxes: bytes to the right, the launches during which they live downwards."""
    from matplotlib.patches import Rectangle

    total = max(memory.arena, 1)
    for t in memory.temporaries:
        axis.add_patch(Rectangle((t.offset / 1e6, t.first + 0.04), t.bytes / 1e6, t.last - t.first + 0.92,
                                 facecolor=color.get(t.first, HELPER), edgecolor="#777777", linewidth=0.8))
        if t.bytes > 0.2 * total:
            axis.text((t.offset + t.bytes / 2) / 1e6, (t.first + t.last + 1) / 2, f"{t.bytes / 1e6:.1f} MB", ha="center",
                      va="center", fontsize=8, color=INK)
    axis.set_xlim(0, total / 1e6)
    axis.set_ylim(launches, 0)
    axis.set_yticks([])
    axis.set_xlabel(f"MB; {memory.unshared / 1e6:.1f} MB without reuse", fontsize=8.5)
    axis.tick_params(labelsize=8)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
