"""The table against PyTorch and JAX: interleaved rounds, one process for each framework and workload."""

from __future__ import annotations

import importlib.util
import json
import queue
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .models import SMALL, WORKLOADS

__all__ = ["Worker", "measure", "table"]

NEEDS = {"ours": "ndarray", "torch": "torch", "torch_compile": "torch", "jax": "jax"}
ROUNDS, SECONDS = 3, 0.6


class Worker:
    """A process that holds one workload in one framework (`worker.py`). Use as a context manager, which ends it."""

    def __init__(self, framework: str, workload: str, device: str, small: bool) -> None:
        command = [sys.executable, "-m", "benchmarks.gpu.worker", framework, workload, "--device", device]
        self.process = subprocess.Popen(command + ["--small"] * small, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True, cwd=Path(__file__).resolve().parents[2])
        self.lines: queue.Queue[str | None] = queue.Queue()
        self.errors: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()
        threading.Thread(target=lambda: self.errors.extend(self.process.stderr), daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def answer(self, seconds: float) -> dict[str, Any]:
        """The next answer. Raises TimeoutError, or RuntimeError with the last lines of what the process complained of."""
        try:
            line = self.lines.get(timeout=max(0.1, seconds))
        except queue.Empty:
            raise TimeoutError(f"no answer within {seconds:.0f} s") from None
        if line is None:
            self.process.wait(5)
            said = [e.strip() for e in self.errors if e.strip()][-2:]
            raise RuntimeError(f"exit status {self.process.returncode}: {' | '.join(said)}"[:400])
        return json.loads(line)

    def round(self, seconds: float) -> dict[str, Any]:
        """Time it for that long."""
        self.process.stdin.write(f"round {seconds}\n")
        self.process.stdin.flush()
        return self.answer(60 + 10 * seconds)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            stream.close()


def available() -> list[str]:
    """The frameworks that are installed, ours first."""
    return [f for f, module in NEEDS.items() if importlib.util.find_spec(module)]


def measure(device: str, deadline: float, small: bool = False, names: Sequence[str] | None = None) -> dict[str, Any]:
    """workload -> framework -> figures, or why there are none. What does not fit before `deadline` (`time.monotonic`) is left
    out, by name."""
    results: dict[str, Any] = {}
    frameworks = available()
    for name in names or (SMALL if small else WORKLOADS):
        found: dict[str, Any] = {f: {"error": "not run: out of time"} for f in frameworks}
        results[name] = found
        workers: dict[str, Worker] = {}
        try:
            for f in frameworks:  # one after the other: compiling beside another one would disturb both
                left = deadline - time.monotonic()
                if left < 10:
                    break
                workers[f] = worker = Worker(f, name, device, small)
                try:
                    found[f] = worker.answer(min(left, 150))
                    found[f]["rounds"] = []
                except (TimeoutError, RuntimeError) as error:
                    found[f] = {"error": str(error)}
                    worker.__exit__()
            for _ in range(ROUNDS):
                for f, worker in workers.items():
                    if "error" not in found[f] and time.monotonic() < deadline:
                        try:
                            found[f]["rounds"].append(worker.round(SECONDS))
                        except (TimeoutError, RuntimeError, OSError) as error:
                            found[f] = {"error": str(error)}
            for figures in found.values():
                if figures.get("rounds"):
                    figures["median_ms"] = statistics.median(r["median_ms"] for r in figures["rounds"])
        finally:
            for worker in workers.values():
                worker.__exit__()
    return results


def table(results: dict[str, Any]) -> str:
    """A markdown table of milliseconds a step, the best peer's time over ours, and what did not run and why."""
    frameworks = list(dict.fromkeys(f for found in results.values() for f in found))
    lines = ["| workload | " + " | ".join(frameworks) + " | best peer / ours |", "| --- |" + " ---: |" * (len(frameworks) + 1)]
    notes = []
    for name, found in results.items():
        times = {f: v["median_ms"] for f, v in found.items() if "median_ms" in v}
        peers = {f: t for f, t in times.items() if f != "ours"}
        ratio = f"{min(peers.values()) / times['ours']:.2f}" if peers and "ours" in times else "-"
        cells = [f"{times[f]:.4g}" if f in times else "-" for f in frameworks]
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {ratio} |")
        notes += [f"- {name}, {f}: {v['error']}" for f, v in found.items() if "error" in v]
    return "\n".join([*lines, "", *notes])
