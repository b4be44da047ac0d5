"""The examples in the docstrings of the packages run and print what they say.

They are written with NumPy's printing: where an example says nothing of dtype and device, neither is compared, and white
space doesn't count.
"""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re

import numpy as np
import pytest

import blocks
import hybrid
import jit
import kvstore
import ndarray as nd

PACKAGES = (nd, hybrid, kvstore, blocks, jit)
MODULES = sorted(
    info.name for package in PACKAGES for info in pkgutil.walk_packages(package.__path__, package.__name__ + ".")
    if not info.name.startswith("jit.") and ".ops" not in info.name
)
_DETAILS = re.compile(r",\s*(?:dtype=[a-z0-9_]+(?:,\s*device=[a-z]+\(\d+\))?|device=[a-z]+\(\d+\))")
_FINDER = doctest.DocTestFinder(recurse=True, exclude_empty=True)


class Checker(doctest.OutputChecker):
    """Compares without white space, and without dtype and device where they aren't expected."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        if "dtype=" not in want and "device=" not in want:
            got = _DETAILS.sub("", got)
        want, got = ("".join(t.split()) for t in (want, got))
        return super().check_output(want, got, optionflags | doctest.ELLIPSIS)


def examples(module: str) -> list[doctest.DocTest]:
    found = importlib.import_module(module)
    names = {"nd": nd, "np": np, "hybrid": hybrid, "blocks": blocks, "nn": blocks.nn, "autograd": nd.autograd}
    return [t for t in _FINDER.find(found, module, globs=names) if t.examples]


@pytest.mark.parametrize("module", MODULES)
def test_examples(module, monkeypatch):
    monkeypatch.setenv("HYBRID_MATMUL_PRECISION", "float32")  # an example sets it
    failed = []
    for test in examples(module):
        nd.random.seed(0)
        out: list[str] = []
        runner = doctest.DocTestRunner(Checker(), verbose=False)
        runner.run(test, out=out.append, clear_globs=False)
        if runner.failures:
            failed.append("".join(out))
    assert not failed, "\n".join(failed)


def test_functions_of_the_factories_have_their_examples_run(monkeypatch):
    """Functions made by other functions belong to no module's source, but to its namespace."""
    monkeypatch.setenv("HYBRID_MATMUL_PRECISION", "float32")
    failed = []
    seen = {t.name for m in MODULES for t in examples(m)}
    for space in (nd, nd.random, nd.linalg, nd.fft):
        for name in dir(space):
            function = getattr(space, name)
            if name.startswith("_") or not callable(function) or isinstance(function, type):
                continue
            known = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', '')}"
            if known in seen or ">>>" not in (function.__doc__ or ""):
                continue
            seen.add(known)
            test = doctest.DocTestParser().get_doctest(function.__doc__, {"nd": nd, "np": np}, name, None, 0)
            out: list[str] = []
            runner = doctest.DocTestRunner(Checker(), verbose=False)
            runner.run(test, out=out.append)
            if runner.failures:
                failed.append("".join(out))
    assert not failed, "\n".join(failed)


WITHOUT = {"settings"}


def test_every_public_function_has_an_example():
    missing = []
    for space in (nd, nd.random, nd.linalg, nd.fft):
        for name in getattr(space, "__all__", dir(space)):
            function = getattr(space, name)
            if callable(function) and not isinstance(function, type) and not name.startswith("_") and name not in WITHOUT:
                if ">>>" not in (function.__doc__ or ""):
                    missing.append(f"{space.__name__}.{name}")
    assert not missing, f"{len(missing)} without an example: {', '.join(missing)}"
