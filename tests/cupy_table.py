"""Writes ndarray/cupy_table.py, what CuPy offers, from the installed CuPy (no GPU is needed): ``python -m tests.cupy_table``."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import textwrap
from pathlib import Path
from typing import Any

import numpy as np

PLACE = Path(__file__).parent.parent / "ndarray" / "cupy_table.py"
HEAD = '''"""What CuPy {version} offers: names, parameters and dtypes, for `simulated`. Made by ``python -m tests.cupy_table``.

A line of FUNCTIONS and METHODS is a name and its parameters, those with a default ending in "="; "*" begins those that are
keywords only. UFUNCS lists the functions with the same loops behind their dtypes (characters of NumPy, E is bfloat16).
"""

VERSION = "{version}"
'''
SKIPPED = ("annotations", "test", "fuse", "set_printoptions", "set_string_function")


def parameters(function: Any) -> str | None:
    """The parameters of a function, from its signature or from the first line of its documentation."""
    try:
        found = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        match = re.match(r"[\w.]+\((.*)\)( -> .*)?$", (function.__doc__ or "").strip().partition("\n")[0])
        if match is None:
            return None
        given = [p.strip().replace("\\*", "*") for p in match[1].split(",")]
        given = [p for p in given if p and p != "self"]
        return " ".join(p if p in ("*", "/") else p.split("=")[0].split(" ")[-1] + "=" * ("=" in p) for p in given)
    words, keywords = [], False
    for p in found:
        if p.name == "self":
            continue
        if p.kind is p.KEYWORD_ONLY and not keywords:
            words.append("*")
        keywords = keywords or p.kind in (p.KEYWORD_ONLY, p.VAR_POSITIONAL)
        star = {p.VAR_POSITIONAL: "*", p.VAR_KEYWORD: "**"}.get(p.kind, "")
        words.append(star + p.name + "=" * (p.default is not p.empty))
    return " ".join(words)


def of_module(name: str, beside: Any = None) -> dict[str, str]:
    """The functions of a module (those that `beside` has too) and their parameters."""
    import cupy

    module = importlib.import_module(name)
    found = {}
    for key in sorted(n for n in dir(module) if not n.startswith("_") and n not in SKIPPED):
        value = getattr(module, key)
        if not callable(value) or isinstance(value, (type, cupy.ufunc)) or (beside is not None and not hasattr(beside, key)):
            continue
        words = parameters(value)
        if words is not None:
            found[key] = words
    return found


def of_sources(folder: Path) -> dict[str, str]:
    """The public functions of a package that can't be imported here (it wants cuBLAS), read from its sources."""
    named = set(re.findall(r"import (\w+)  # NOQA", (folder / "__init__.py").read_text()))
    found = {}
    for path in sorted(folder.glob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name in named:
                a = node.args
                names = [x.arg for x in a.posonlyargs + a.args]
                first = len(names) - len(a.defaults)
                words = [n + "=" * (k >= first) for k, n in enumerate(names)]
                if a.kwonlyargs:
                    words += ["*", *(x.arg + "=" for x in a.kwonlyargs)]
                found[node.name] = " ".join(words)
    return dict(sorted(found.items()))


def ufuncs(names: dict[str, Any]) -> dict[str, list[str]]:
    """Names of ufuncs by their loops."""
    grouped: dict[str, list[str]] = {}
    for name, value in sorted(names.items()):
        grouped.setdefault(" ".join(value.types), []).append(name)
    return grouped


def text() -> str:
    """The page."""
    import cupy
    import cupyx.scipy.special

    methods = {}
    for name in sorted(n for n in dir(cupy.ndarray) if not n.startswith("_")):
        value = getattr(cupy.ndarray, name)
        if callable(value):
            methods[name] = parameters(value) or ""
    attributes = sorted(n for n in dir(cupy.ndarray) if not n.startswith("_") and n not in methods)
    scipy = Path(cupyx.__file__).parent / "scipy" / "linalg"
    modules = {
        "": of_module("cupy", np), "linalg": of_module("cupy.linalg"), "fft": of_module("cupy.fft"),
        "lib.stride_tricks": of_module("cupy.lib.stride_tricks"), "cupyx.scipy.linalg": of_sources(scipy),
        "cupyx.scipy.special": of_module("cupyx.scipy.special"),
    }
    found = {n: getattr(cupy, n) for n in dir(cupy) if isinstance(getattr(cupy, n), cupy.ufunc)}
    special = {n: getattr(cupyx.scipy.special, n) for n in dir(cupyx.scipy.special) if n[0] != "_"}
    special = {n: v for n, v in special.items() if isinstance(v, cupy.ufunc)}
    out = [HEAD.format(version=cupy.__version__)]
    out.append("FUNCTIONS = {")
    for module, table in modules.items():
        out.append(f'    "{module}": """')
        out += [f"{name} {words}".rstrip() for name, words in table.items()]
        out.append('""",')
    out += ["}", "", 'METHODS = """', *(f"{name} {words}".rstrip() for name, words in methods.items()), '"""', ""]
    out += ['ATTRIBUTES = """', *textwrap.wrap(" ".join(attributes), 126), '"""', ""]
    for title, values in (("UFUNCS", found), ("SPECIAL_UFUNCS", special)):
        out.append(f"{title} = {{")
        for types, names in ufuncs(values).items():
            out.append('    """')
            out += textwrap.wrap(types, 126) + ['""": """'] + textwrap.wrap(" ".join(names), 126) + ['""",']
        out += ["}", ""]
    return "\n".join(out)


if __name__ == "__main__":
    PLACE.write_text(text())
    print(f"{PLACE}: {len(PLACE.read_text().splitlines())} lines")
