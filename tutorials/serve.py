"""Run an exported model in a process that has no model code: ``python -m tutorials.serve FOLDER``.

Reads FOLDER/lenet.json with its parameters and the inputs FOLDER/held-out.npy; writes the scores to FOLDER/served.npy and
prints, as one line of JSON, how long loading and the first call took.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

import hybrid
import ndarray as nd


def main(folder: Path) -> None:
    images = nd.array(np.load(folder / "held-out.npy"))
    begin = time.perf_counter()
    net = hybrid.load(folder / "lenet")
    loaded = time.perf_counter()
    scores = net(images).asnumpy()
    called = time.perf_counter()
    np.save(folder / "served.npy", scores)
    from jit.backend import backend

    print(json.dumps({"load": loaded - begin, "first call": called - loaded, "kernels compiled": backend.statistics.kernels,
                      "self test": net.self_test(),
                      "model code": sorted({"blocks", "tutorials.demo"} & set(sys.modules))}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
