"""Everything that a machine with a GPU has to show, in under ten minutes: `make gpu-check`.

    python -m benchmarks.gpu                               # into benchmarks/results/DATE-gpu.md and .json
    python -m benchmarks.gpu --only ops,networks           # some sections
    python -m benchmarks.gpu --device sim --quick          # the same program where there is no GPU; no peers

Sections: ops, lenet, networks (correctness against the CPU), launches (host time, graph replay), bandwidth, sanitizer
(compute-sanitizer on `networks`, where it is installed) and peers (PyTorch, eager and compiled, and JAX). Each runs in a
process of its own with a time limit, so none takes the others with it. The exit status is 1 where a correctness check failed.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from . import peers
from .sections import SECTIONS

ROOT = Path(__file__).resolve().parents[2]
SANITIZER = ["compute-sanitizer", "--tool", "memcheck", "--error-exitcode", "9"]
LIMITS = {"ops": 120, "libraries": 60, "lenet": 60, "networks": 90, "launches": 40, "bandwidth": 60, "sanitizer": 90}


def run_section(name: str, device: str, quick: bool, limit: float, before: list[str] = []) -> dict[str, Any]:  # noqa: B006
    """The report of a section, run in a process of its own, behind the command `before`."""
    command = [*before, sys.executable, "-m", "benchmarks.gpu.sections", name, "--device", device] + ["--quick"] * quick
    begin = time.monotonic()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, cwd=ROOT)
    except subprocess.TimeoutExpired as late:
        report = _last_report(late.stdout)
        return {**report, "failed": [*report["failed"], f"not finished within {limit:.0f} s"]}
    report = _last_report(done.stdout)
    if done.returncode:
        report["failed"] += [f"exit status {done.returncode}: " + (done.stderr or done.stdout)[-1500:]]
    return report | {"seconds": round(time.monotonic() - begin, 1)}


def _last_report(output: str | bytes | None) -> dict[str, Any]:
    """The last whole report among the lines of a section, which may have been cut off."""
    text = output.decode(errors="replace") if isinstance(output, bytes) else output or ""
    for line in reversed(text.splitlines(keepends=True)):
        if line.startswith("{") and line.endswith("\n"):
            return json.loads(line)
    return {"failed": []}


def machine() -> dict[str, str]:
    """What this was run on."""
    found = {"python": platform.python_version(), "system": platform.platform()}
    for package in ("numpy", "cupy-cuda13x", "llvmlite", "nvidia-cudnn-frontend", "torch", "jax"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
        found["gpu"] = subprocess.run(query, capture_output=True, text=True).stdout.strip()
    return found


def markdown(reports: dict[str, Any], device: str, quick: bool) -> str:
    """The report for people."""
    lines = [f"# GPU check, {datetime.date.today()}", "", f"On {device}{', quick' if quick else ''}: " +
             ", ".join(f"{k} {v}" for k, v in reports["machine"].items()) + ".", ""]
    for name, report in reports.items():
        if name in ("machine", "peers"):
            continue
        failed = report.get("failed", [])
        lines += [f"## {name}: " + (f"{len(failed)} FAILED" if failed else "passed"), ""]
        lines += [f"- {k}: {v}" for k, v in report.items() if k != "failed"]
        lines += [f"- FAILED {x}" for x in failed] + [""]
    if "peers" in reports:
        lines += ["## Milliseconds a step", "", peers.table(reports["peers"]), ""]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Run the sections that were asked for; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="gpu(0)")
    parser.add_argument("--only", default=",".join([*SECTIONS, "sanitizer", "peers"]))
    parser.add_argument("--quick", action="store_true", help="small sizes and few samples")
    parser.add_argument("--seconds", type=float, default=570, help="for everything")
    parser.add_argument("--output", type=Path, help="folder of the report (default: benchmarks/results; with --quick: none)")
    options = parser.parse_args(arguments)
    wanted = options.only.split(",")
    unknown = set(wanted) - {*SECTIONS, "sanitizer", "peers"}
    if unknown:
        parser.error(f"no section {', '.join(sorted(unknown))}; there are {', '.join([*SECTIONS, 'sanitizer', 'peers'])}")
    deadline = time.monotonic() + options.seconds
    on_gpu = options.device.startswith("gpu")
    reports: dict[str, Any] = {"machine": machine()}
    for name in wanted:
        left = deadline - time.monotonic()
        if name in SECTIONS:
            reports[name] = run_section(name, options.device, options.quick, min(left, LIMITS[name]))
        elif name == "sanitizer" and on_gpu:
            if shutil.which(SANITIZER[0]):
                reports[name] = run_section("networks", options.device, True, min(left, LIMITS[name]), SANITIZER)
            else:
                reports[name] = {"failed": [], "not run": f"{SANITIZER[0]} is not installed"}
        elif name == "peers" and on_gpu:
            reports[name] = peers.measure("gpu", deadline, options.quick)
        if name in reports and name != "peers":
            failed = reports[name]["failed"]
            print(f"{name}: {'passed' if not failed else 'FAILED: ' + '; '.join(failed)[:600]}", flush=True)
    text = markdown(reports, options.device, options.quick)
    folder = options.output or (None if options.quick else ROOT / "benchmarks" / "results")
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        stem = f"{datetime.date.today()}-{options.device.strip(')').replace('(', '')}"
        (folder / f"{stem}.md").write_text(text)
        (folder / f"{stem}.json").write_text(json.dumps(reports, indent=1))
    print(text)
    return int(any(r.get("failed") for n, r in reports.items() if n not in ("machine", "peers")))


if __name__ == "__main__":
    sys.exit(main())
