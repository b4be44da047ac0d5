"""One workload in one framework in a process of its own, timed whenever it is asked: `python -m benchmarks.gpu.worker`.

It writes a line of JSON when it is ready (seconds of the first step) and one for each line "round SECONDS" that it reads: the
median, least and number of samples, in milliseconds a step. A sample is so many steps that it takes 20 ms at least, and
ends when the last result has been computed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time

from .frameworks import FRAMEWORKS, build
from .models import SMALL, WORKLOADS


def main() -> None:
    """Serve until the input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("framework", choices=FRAMEWORKS)
    parser.add_argument("workload")
    parser.add_argument("--device", default="gpu")
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    workload = (SMALL if options.small else WORKLOADS)[options.workload]
    answers, sys.stdout = sys.stdout, sys.stderr  # what frameworks print is no answer

    def answer(**values: object) -> None:
        print(json.dumps(values), file=answers, flush=True)

    step, wait, read = build(options.framework, workload, options.device)
    begin = time.perf_counter()
    result = step()
    wait(result)
    first = time.perf_counter() - begin
    found = read(result).reshape(-1)
    for _ in range(12):  # graphs are captured, algorithms chosen
        result = step()
    wait(result)
    begin = time.perf_counter()
    wait(step())
    steps = max(1, round(0.02 / max(1e-6, time.perf_counter() - begin)))
    answer(first_s=first, result=[float(x) for x in found[:4]])
    for line in sys.stdin:
        seconds = float(line.split()[1])
        samples = []
        end = time.perf_counter() + seconds
        while len(samples) < 3 or time.perf_counter() < end:
            begin = time.perf_counter()
            for _ in range(steps):
                result = step()
            wait(result)
            samples.append(1e3 * (time.perf_counter() - begin) / steps)
        answer(median_ms=statistics.median(samples), min_ms=min(samples), samples=len(samples))


if __name__ == "__main__":
    main()
