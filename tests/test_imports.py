"""Imports point downwards only, importing is light, and modules stay readable."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ALLOWED = {
    "ndarray": set(),
    "kvstore": {"ndarray"},
    "hybrid": {"ndarray"},
    "jit": {"ndarray", "hybrid"},
    "blocks": {"ndarray", "hybrid", "kvstore"},
}


def imported(path):
    """Names of the top-level packages that a file imports absolutely, with line numbers."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((a.name.split(".")[0], node.lineno) for a in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module.split(".")[0], node.lineno


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_point_downwards_and_are_relative_within_a_package(package):
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in sorted((ROOT / package).rglob("*.py"))
        for name, line in imported(path)
        if name in ALLOWED and name not in ALLOWED[package]
    ]
    assert not wrong


def test_importing_the_library_leaves_the_heavy_modules_out():
    code = "import sys, ndarray, hybrid, kvstore, blocks; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert not {"llvmlite", "scipy", "matplotlib", "sklearn", "jit"} & set(out)


def test_importing_never_writes_to_the_terminal():
    done = subprocess.run([sys.executable, "-W", "error", "-c", "import ndarray, hybrid, kvstore, blocks, jit"], cwd=ROOT,
                          capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
