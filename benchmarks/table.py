"""The table of the peer benchmark: our times beside those of other frameworks, the goals, and the machine's ceilings.

    PEERS_SUITE=folder python -m benchmarks.table                      # run the suite, print the table, keep it in results/
    python -m benchmarks.table --suite folder --rounds 5 --workloads public --frameworks ours,torch,jax
    python -m benchmarks.table --suite folder --json out.json --only-table

The suite is the one that `fw_ours.py` is an adapter for; it lives outside of this project. Frameworks that are not
installed are left out; without any, our own times stand beside the ceilings. Peak and bandwidth are measured before and
after the run, and the better figure counts. What has convolutions is run once more with direct summation only.
"""

from __future__ import annotations

import argparse
import compileall
import importlib
import importlib.util
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.ceilings import Work, ceiling_ms
from jit.limits import Limits

__all__ = ["Figures", "geometric_mean", "main", "markdown", "report"]

HERE = Path(__file__).resolve().parent
OURS = "ours"
NEEDS = {"torch": ("torch",), "torch_mkl512": ("torch",), "torch_compile": ("torch",), "torch_freeze": ("torch",),
         "jax": ("jax",), "ort": ("onnxruntime", "onnx", "onnxscript", "torch")}
DIRECT = "ours_direct"  # with HYBRID_WINOGRAD=0
NO_PEER = "_mkl512"  # suffix of what is shown, but is no peer
LOSS = 0.95  # below this share of the best peer's speed we lose
DIRECT_GOAL, INFERENCE_GOAL, TRAINING_GOAL, SHARE_GOAL, LARGE = 1.15, 1.3, 1.5, 0.9, 100e6
COLD_MS, WARM_MS, TINY_MS = 50.0, 100.0, 0.003


@dataclass(frozen=True)
class Figures:
    """One workload: the suite's record of each framework that ran it; its work (None where it couldn't be counted)."""

    name: str
    train: bool
    records: Mapping[str, Mapping[str, Any]]
    work: Work | None = None

    def value(self, framework: str, field: str = "median_ms") -> float | None:
        """A figure, or None."""
        found = self.records.get(framework, {}).get(field)
        return None if found is None else float(found)

    @property
    def peers(self) -> dict[str, float]:
        """Milliseconds of all peers."""
        every = {f: self.value(f) for f in self.records if f not in (OURS, DIRECT) and not f.endswith(NO_PEER)}
        return {f: v for f, v in every.items() if v is not None}

    @property
    def best(self) -> str | None:
        """The fastest peer."""
        return min(self.peers, key=self.peers.__getitem__) if self.peers else None

    @property
    def ratio(self) -> float | None:
        """The best peer's time over ours: above 1 we are faster."""
        return self.ratio_of(self.value(OURS))

    @property
    def direct_ratio(self) -> float | None:
        """The same with direct convolutions only."""
        return self.ratio_of(self.value(DIRECT) or self.value(OURS))

    def ratio_of(self, ours: float | None) -> float | None:
        """The best peer's time over a time of ours."""
        return self.peers[self.best] / ours if self.best is not None and ours else None

    def first_ms(self, framework: str, field: str = "first_s") -> float | None:
        """The first call less a steady one."""
        first, steady = self.value(framework, field), self.value(framework)
        return None if first is None or steady is None else max(0.0, 1e3 * first - steady)

    @property
    def cold_goal(self) -> float:
        """Milliseconds that the first call may take with an empty cache."""
        return max(COLD_MS, (self.first_ms("jax") or 0.0) / 3)

    @property
    def memory_goal(self) -> float | None:
        """The peak memory of the leaner of PyTorch and JAX, in MB."""
        found = [v for f in ("torch", "torch_compile", "torch_freeze", "jax") if (v := self.value(f, "rss_mb")) is not None]
        return min(found, default=None)

    def share(self, limits: Limits) -> float | None:
        """Of the roofline ceiling."""
        ours = self.value(OURS)
        return ceiling_ms(self.work, limits) / ours if self.work is not None and ours else None


def geometric_mean(values: Iterable[float]) -> float | None:
    """None of nothing."""
    found = list(values)
    return math.exp(sum(map(math.log, found)) / len(found)) if found else None


# -- text

def number(value: float | None, digits: int = 3) -> str:
    """So many significant digits, never an exponent; "-" for None."""
    if value is None:
        return "-"
    if value == 0:
        return "0"
    return f"{value:,.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table; all columns but the first are aligned to the right."""
    rule = ["---", *["---:"] * (len(rows[0]) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [rows[0], rule, *rows[1:]])


def report(meta: Mapping[str, Any], figures: Sequence[Figures], limits: Limits) -> str:
    """The whole report as Markdown."""
    frameworks = [f for f in (OURS, DIRECT, *NEEDS, *{f for w in figures for f in w.records})
                  if any(w.value(f) is not None for w in figures)]
    frameworks = list(dict.fromkeys(frameworks))
    versions = ", ".join(f"{f} {v}" for f, v in meta.get("versions", {}).items() if not f.endswith(NO_PEER))
    lines = [f"{meta.get('cpu', 'unknown machine')}, {meta.get('cores', '?')} cores; {versions}.", ""]
    for run in meta.get("runs", ()):
        what = ", ".join(run.get("frameworks", ())) or "settling of " + (", ".join(run.get("settled", ())) or "nothing")
        load = [f"{run[k][0]:.2f}" for k in ("load_start", "load_end") if run.get(k)]
        lines.append(f"- {run.get('date', '')}: {run.get('rounds', '?')} rounds of {what}; load average {' to '.join(load)}")
    lines += [f"- ceilings measured in the same run: {limits}", "", *_goals(figures, limits)]
    lines += [f"- {meta['errors']}", ""] if "errors" in meta else [""]
    lines += ["### Time per call, ms", "", _times(figures, frameworks, limits), ""]
    lines += ["### First call less a steady one, ms", "", _first_calls(figures, frameworks), ""]
    lines += ["### Peak resident memory, MB", "", _memory(figures, frameworks), ""]
    failed = [f"- {w.name}, {f}: {r['error']}" for w in figures for f, r in w.records.items() if "error" in r]
    return "\n".join(lines + (["### Not timed", "", *failed, ""] if failed else []))


def _goals(figures: Sequence[Figures], limits: Limits) -> list[str]:
    """The goals, one line each."""
    ratios = {w.name: w.ratio for w in figures if w.ratio is not None}
    lost = [f"{n} {r:.2f}" for n, r in ratios.items() if r < LOSS]
    lines = []
    if ratios:
        lines.append(f"- losses to the best peer (below {LOSS}): {', '.join(lost) or 'none'} (of {len(ratios)})")
    for name, train, goal in (("inference", False, INFERENCE_GOAL), ("training", True, TRAINING_GOAL)):
        mean = geometric_mean(w.ratio for w in figures if w.train == train and w.ratio is not None)
        if mean is not None:
            lines.append(f"- geometric mean of best peer / ours, {name}: {mean:.3f} (goal {goal})")
        direct = geometric_mean(w.direct_ratio for w in figures if w.train == train and w.direct_ratio is not None)
        if direct is not None and any(w.train == train and w.value(DIRECT) is not None for w in figures):
            goal = goal if train else DIRECT_GOAL
            lines.append(f"- the same with direct convolutions only (HYBRID_WINOGRAD=0): {direct:.3f} (goal {goal})")
    large = [(w.name, w.share(limits)) for w in figures if w.work is not None and w.work.flops > LARGE]
    short = [f"{n} {s:.0%}" for n, s in large if s is not None and s < SHARE_GOAL]
    if large:
        lines.append(f"- below {SHARE_GOAL:.0%} of the roofline, of the {len(large)} above {LARGE / 1e6:.0f} MFLOP: "
                     f"{', '.join(short) or 'none'}")
    tiny = next((w.value(OURS) for w in figures if w.name == "tiny"), None)
    if tiny is not None:
        lines.append(f"- tiny: {tiny * 1e3:.2f} us a call (goal below {TINY_MS * 1e3:.0f})")
    for what, missed in (
        ("cold first call over its goal", [w.name for w in figures if (v := w.first_ms(OURS)) is not None and v > w.cold_goal]),
        (f"warm first call over {WARM_MS:.0f} ms",
         [w.name for w in figures if (v := w.first_ms(OURS, "first_warm_s")) is not None and v > WARM_MS]),
        ("peak memory over the leaner of PyTorch and JAX", [
            w.name for w in figures
            if (v := w.value(OURS, "rss_mb")) is not None and w.memory_goal is not None and v > w.memory_goal]),
    ):
        lines.append(f"- {what}: {', '.join(missed) or 'none'}")
    return lines


def _times(figures: Sequence[Figures], frameworks: Sequence[str], limits: Limits) -> str:
    rows = [["workload", *frameworks, "best peer", "best peer / ours", "", "MFLOP", "MB", "ceiling", "share of it"]]
    for w in figures:
        best, ratio = w.best, w.ratio
        cells = [f"**{number(w.value(f))}**" if f == best else number(w.value(f)) for f in frameworks]
        mark = "" if ratio is None else "**loss**" if ratio < LOSS else ""
        counted = ["-"] * 4
        if w.work is not None:
            share = w.share(limits)
            counted = [number(w.work.flops / 1e6), number(w.work.bytes / 1e6), number(ceiling_ms(w.work, limits)),
                       "-" if share is None else f"{share:.0%}"]
        rows.append([w.name, *cells, best or "-", "-" if ratio is None else f"{ratio:.2f}", mark, *counted])
    return markdown(rows)


def _first_calls(figures: Sequence[Figures], frameworks: Sequence[str]) -> str:
    rows = [["workload", *(f"{f} cold" for f in frameworks), "goal", "", "ours, warm disk cache", ""]]
    for w in figures:
        cold, warm = w.first_ms(OURS), w.first_ms(OURS, "first_warm_s")
        rows.append([
            w.name, *(number(w.first_ms(f)) for f in frameworks), number(w.cold_goal), _mark(cold, w.cold_goal), number(warm),
            _mark(warm, WARM_MS),
        ])
    return markdown(rows)


def _memory(figures: Sequence[Figures], frameworks: Sequence[str]) -> str:
    rows = [["workload", *frameworks, "leaner of PyTorch and JAX", "", "ours when imported"]]
    for w in figures:
        ours, imported = w.value(OURS, "rss_mb"), w.value(OURS, "import_mb")
        rows.append([w.name, *(_megabytes(w.value(f, "rss_mb")) for f in frameworks), _megabytes(w.memory_goal),
                     _mark(ours, w.memory_goal), _megabytes(imported)])
    return markdown(rows)


def _mark(value: float | None, goal: float | None) -> str:
    return "**over**" if value is not None and goal is not None and value > goal else ""


def _megabytes(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


# -- running

def main(arguments: Sequence[str] | None = None) -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--suite", default=os.environ.get("PEERS_SUITE", ""), help="the suite's folder (default: $PEERS_SUITE)")
    parser.add_argument("--json", default="", help="where the suite keeps its figures (default: build/peers.json)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workloads", default="public")
    parser.add_argument("--frameworks", default="", help="comma-separated (default: ours and all that are installed)")
    parser.add_argument("--only-table", action="store_true", help="of figures that are there already")
    parser.add_argument("--output", default="", help="the Markdown file (default: benchmarks/results/<date>-peers.md)")
    options = parser.parse_args(arguments)
    if not options.suite or not (Path(options.suite) / "suite.py").is_file():
        print("the peer benchmark's suite is not here; say where it is by --suite or PEERS_SUITE", file=sys.stderr)
        return
    suite = Path(options.suite).resolve()
    path = Path(options.json or HERE.parent / "build" / "peers.json").resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    limits = _limits()
    if not options.only_table:
        _run_suite(suite, path, options.frameworks.split(",") if options.frameworks else _installed(), options)
        after = _limits()
        limits = Limits(limits.threads, max(limits.gflops, after.gflops), max(limits.gigabytes, after.gigabytes))
    data = json.loads(path.read_text())
    trains, works, convolving = _work(suite, list(data["results"]))
    other = path.with_name(path.stem + "-direct.json")
    if convolving and not options.only_table:
        one = argparse.Namespace(workloads=",".join(convolving), rounds=options.rounds)
        _run_suite(suite, other, [OURS], one, {"HYBRID_WINOGRAD": "0"})
        data["meta"]["errors"] = _errors()
    if other.is_file():
        for name, records in json.loads(other.read_text())["results"].items():
            if OURS in records and name in data["results"]:
                data["results"][name][DIRECT] = records[OURS]
    figures = [Figures(n, trains.get(n, "_train" in n), r, works.get(n)) for n, r in data["results"].items()]
    text = report(data["meta"], figures, limits)
    print(text)
    output = Path(options.output or HERE / "results" / f"{time.strftime('%Y-%m-%d')}-peers.md")
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(f"# Peer benchmark, {time.strftime('%Y-%m-%d')}\n\n{text}")
    print(f"kept in {output.name}", file=sys.stderr)


def _installed() -> list[str]:
    found = [f for f, modules in NEEDS.items() if all(importlib.util.find_spec(m) for m in modules)]
    return [OURS, *found]


def _run_suite(
    suite: Path, path: Path, frameworks: Sequence[str], options: argparse.Namespace, extra: Mapping[str, str] | None = None
) -> None:
    """One run of the suite, and a further round of what varied; `extra` is added to the environment. Our packages have bytecode
    then, as installed ones do."""
    for package in ("ndarray", "hybrid", "jit", "kvstore", "blocks"):
        compileall.compile_dir(HERE.parent / package, quiet=2)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]), **(extra or {})}
    environment.setdefault("PEERS_CACHE", str(HERE.parent / "build" / "peers-cache"))
    run = [sys.executable, str(suite / "suite.py")]
    subprocess.run([*run, "run", "--frameworks", ",".join(frameworks), "--workloads", options.workloads,
                    "--rounds", str(options.rounds), "--json", str(path)], env=environment, cwd=HERE.parent, check=True)
    if options.rounds > 1:
        subprocess.run([*run, "settle", "--json", str(path)], env=environment, cwd=HERE.parent, check=True)


def _errors() -> str:
    """The errors of a convolution in float32, direct and by Winograd's method."""
    from benchmarks.winograd import measure

    largest = [f"{measure(1, 28, 128, 128, tile).largest:.1e} with {what}" for tile, what in
               ((0, "direct summation"), (2, "tiles of 2 x 2"), (4, "tiles of 4 x 4"))]
    return f"largest error of a 3x3 layer of 128 channels, relative to |x| * |w|: {', '.join(largest)}"


def _limits() -> Limits:
    """Measured now, with as many threads as the suite uses; the best of some tries."""
    from jit.limits import measure

    tries = [measure(2) for _ in range(3)]
    return Limits(2, max(t.gflops for t in tries), max(t.gigabytes for t in tries))


def _work(suite: Path, names: Sequence[str]) -> tuple[dict[str, bool], dict[str, Work], list[str]]:
    """Which workloads train, the work of each, and those with convolutions, counted in a process of its own: it traces the
    adapter's models."""
    code = "import sys; from benchmarks.table import count; count(sys.argv[1:])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(suite), str(HERE.parent)])}
    done = subprocess.run([sys.executable, "-c", code, *names], env=environment, cwd=HERE.parent, capture_output=True, text=True)
    if done.returncode:
        print(f"the work of the workloads can't be counted:\n{done.stderr}", file=sys.stderr)
        return {}, {}, []
    found = json.loads(done.stdout.splitlines()[-1])
    works = {n: Work(f["flops"], f["bytes"]) for n, f in found.items() if "flops" in f}
    return {n: f["train"] for n, f in found.items()}, works, [n for n, f in found.items() if f.get("convolves")]


def count(names: Sequence[str]) -> None:
    """Print {workload: {train, flops, bytes}} as JSON; what can't be traced has `train` only."""
    adapter, specs = importlib.import_module("fw_ours"), importlib.import_module("models").load_specs()
    from benchmarks.ceilings import work_of
    from hybrid.graph import every_equation
    from hybrid.passes import optimize

    found: dict[str, dict[str, Any]] = {}
    for name in names:
        if name not in specs:
            continue
        found[name] = {"train": bool(specs[name]["train"])}
        try:
            function, given = adapter.compiled(name)
            traced = function.graph if hasattr(function, "graph") else function._compile().graph  # a step, or a Block
            graph = optimize(traced(*given))
            work = work_of(graph)
        except Exception as error:
            print(f"{name}: {error}", file=sys.stderr)
            continue
        convolves = any(eq.op.name.startswith("convolution") for eq in every_equation(graph))
        found[name] |= {"flops": work.flops, "bytes": work.bytes, "convolves": convolves}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
