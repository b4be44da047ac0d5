"""A minute of random graphs (see tests/graph_fuzzer.py), in a process of their own: a crash is a finding too.

    python -m pytest tests/test_fuzz.py --fuzz-seconds 3600 --fuzz-seed 12345
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_random_graphs(request, tmp_path):
    seconds, seed = request.config.getoption("--fuzz-seconds"), request.config.getoption("--fuzz-seed")
    note = tmp_path / "seed"
    command = [sys.executable, "-m", "tests.graph_fuzzer", "--seconds", str(seconds), "--seed", str(seed)]
    environment = {**os.environ, "HYBRID_CACHE_DIR": "", "HYBRID_FUZZ_NOTE": str(note)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=seconds + 300)
    last = note.read_text() if note.exists() else seed
    replay = f"replay it with: python -m tests.graph_fuzzer --count 1 --seed {last}"
    print(done.stdout)
    assert done.returncode == 0, f"{replay}\n{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
