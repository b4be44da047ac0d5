"""CPU time of one thread for a step of the peer benchmark's workloads: figures that a busy machine does not spoil.

    PYTHONPATH=benchmarks:../shared/peers python benchmarks/cpu_time.py [--frameworks ours,torch,jax] [workload ...]

Wall times on a machine that others use tell little; the processor time of a single thread is repeatable to some 10%.
It says how good the code is, not how well it uses threads. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
import time

ENVIRONMENT = {
    "HYBRID_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HYBRID_CACHE_DIR": "", "PEERS_COMPILE_CACHE": "",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}


def worker(framework: str, name: str, seconds: float = 1.0) -> None:
    """Print the milliseconds of processor time of the fastest of many steps."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-1:])
    adapter = importlib.import_module("fw_" + framework)
    if framework == "torch":
        importlib.import_module("torch").set_num_threads(1)
    step = adapter.build(name, framework)
    for _ in range(2):
        adapter.sync(step())
    times, begin = [], time.perf_counter()
    while len(times) < 3 or time.perf_counter() - begin < seconds:
        repeat = 1 if not times or times[0] > 1e-3 else 200
        start = time.process_time()
        for _ in range(repeat):
            adapter.sync(step())
        times.append((time.process_time() - start) / repeat)
    print(min(times[1:]) * 1e3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workloads", nargs="*")
    parser.add_argument("--frameworks", default="ours,torch,jax")
    options = parser.parse_args()
    names = options.workloads or list(importlib.import_module("workloads").WORKLOADS)
    frameworks = options.frameworks.split(",")
    print("| ms of one thread | " + " | ".join(frameworks) + " | ours / best |\n|---" + "|---:" * (len(frameworks) + 1) + "|")
    for name in names:
        found = []
        for framework in frameworks:
            done = subprocess.run([sys.executable, __file__, "--worker", framework, name], capture_output=True, text=True,
                                  env={**os.environ, **ENVIRONMENT})
            found.append(float(done.stdout) if done.returncode == 0 else float("nan"))
        peers = [t for f, t in zip(frameworks, found) if f != "ours"]
        ratio = f"{found[frameworks.index('ours')] / min(peers):.2f}" if "ours" in frameworks and peers else "-"
        print(f"| {name} | " + " | ".join(f"{t:.4g}" for t in found) + f" | {ratio} |", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        worker(*sys.argv[2:])
    else:
        main()
