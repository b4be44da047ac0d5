"""What the compiler made, printed to standard error: the rungs of HYBRID_DEBUG from 3 to 6 (see `ndarray.settings`)."""

from __future__ import annotations

import sys
from typing import TextIO

from . import llvm, machine, vector_math
from .launch import Launch
from .lower import Lowered
from .show import show_kernel
from .target import Target

__all__ = ["describe", "show"]


def show(lowered: Lowered, target: Target, level: int, file: TextIO | None = None) -> None:
    """Print the fused groups (level 3 and above), loop IR (4), LLVM IR (5) and assembly (6) of a lowered graph."""
    print("\n".join(describe(lowered, target, level)), file=file or sys.stderr)


def describe(lowered: Lowered, target: Target, level: int) -> list[str]:
    """The lines that `show` prints."""
    name, lines = lowered.graph.name, []
    if level >= 3:
        lines.append(f"-- fused groups of {name}: {len(lowered.groups)} groups, {len(lowered.launches)} launches")
        for group in lowered.groups:
            results = ", ".join(str(v.type) for v in group.outputs)
            lines.append(f"  {group.number:3} {group} -> {results}")
            lines += [f"        {eq.op.name:<20} # {eq.source}" for eq in group.equations if eq.source is not None]
        lines += [f"  groups {p} and {c} stay apart: {reason}" for p, c, reason in lowered.reasons]
    if level >= 4:
        lines.append(f"-- launches of {name}")
        lines += [_launch_line(i, launch) for i, launch in enumerate(lowered.launches)]
        for i, launch in _distinct(lowered):
            text = getattr(launch.kernel, "text", None)  # of a library's step
            lines += [f"-- step of launch {i}", text] if text else [f"-- loop IR of launch {i}", show_kernel(launch.kernel)]
    if level >= 5:
        kernels = [launch.kernel for _, launch in _distinct(lowered)]
        symbols = [f"launch{i}_{launch.kernel.name}" for i, launch in _distinct(lowered)]
        text = llvm.emit([vector_math.expand(k) for k in kernels], symbols, target)
        lines += [f"-- LLVM IR of {name}", text]
        if level >= 6:
            lines += [f"-- assembly of {name}", machine.assembly(text, target)]
    return lines


def _distinct(lowered: Lowered) -> list[tuple[int, Launch]]:
    """The first launch of each kernel."""
    first: dict = {}
    for i, launch in enumerate(lowered.launches):
        first.setdefault(launch.kernel, (i, launch))
    return list(first.values())


def _launch_line(number: int, launch: Launch) -> str:
    sizes = f"tasks {launch.tasks}, about {launch.work} ns, scratch {launch.scratch} bytes"
    storages = ", ".join(f"{s.dtype}[{s.size}]" for s in launch.buffers)
    return f"  {number:3} {launch.kernel.name}({storages}; {', '.join(map(str, launch.arguments))}): {sizes}   {launch.note}"
