"""Loop IR as text: one statement a line, expressions in infix.

    kernel scale(b0: read float32, b1: write float32, s0: scratch float32[64]; n0) for task:
        for i in range(0, n0, 16):
            let x: float32x16 = b0[i:16]
            b1[i:16] if i < n0 = x * 2.0

``b[i:16]`` is 16 contiguous elements from position i, ``b[v]`` with a vector v a gather or scatter; ``if`` behind
them is the mask. Registers are written ``%name``. Constants carry their dtype unless it is int64, float32 or bool.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .loopir import Apply, Const, Expr, For, Get, If, Kernel, Let, Load, Prefetch, Register, Set, Stmt, Store, Var

__all__ = ["show_expr", "show_kernel", "show_statement"]

_INFIX = {  # operation -> (symbol, how tightly it binds), as in Python
    "eq": ("==", 1),
    "ne": ("!=", 1),
    "lt": ("<", 1),
    "le": ("<=", 1),
    "gt": (">", 1),
    "ge": (">=", 1),
    "or": ("|", 2),
    "xor": ("^", 3),
    "and": ("&", 4),
    "shl": ("<<", 5),
    "shr": (">>", 5),
    "add": ("+", 6),
    "sub": ("-", 6),
    "mul": ("*", 7),
    "div": ("/", 7),
    "floordiv": ("//", 7),
    "mod": ("%", 7),
}
_PREFIX = {"neg": "-", "not": "~"}
_UNARY, _ATOM = 8, 9
_SUFFIX = {"int64": "", "float32": "", "bool": "", "float64": "f64", "float16": "f16", "bfloat16": "bf16"}


def show_kernel(kernel: Kernel) -> str:
    """The whole kernel, a line for each statement, ending without a newline."""
    buffers = ", ".join(
        f"{b.name}: {b.access} {b.dtype}" + (f"[{show_expr(b.size)}]" if b.size is not None else "")
        for b in kernel.buffers
    )
    parameters = "; " + ", ".join(kernel.parameters) if kernel.parameters else ""
    place = " in place" if kernel.in_place else ""
    lines = [f"kernel {kernel.name}({buffers}{parameters}) for {kernel.task}{place}:"]
    _show_body(kernel.body, 1, lines)
    return "\n".join(lines)


def show_statement(statement: Stmt) -> str:
    """One statement; of a loop or condition, the head only."""
    if isinstance(statement, Let):
        return f"let {statement.name}: {getattr(statement.value, 'type', '?')} = {show_expr(statement.value)}"
    if isinstance(statement, Register):
        return f"register %{statement.name}: {getattr(statement.value, 'type', '?')} = {show_expr(statement.value)}"
    if isinstance(statement, Set):
        return f"%{statement.name} = {show_expr(statement.value)}"
    if isinstance(statement, Store):
        place = _show_place(statement.buffer, statement.index, _lanes(statement.value), statement.mask)
        return f"{place} = {show_expr(statement.value)}"
    if isinstance(statement, Prefetch):
        return f"prefetch {_show_place(statement.buffer, statement.index, 1, None)}"
    if isinstance(statement, For):
        step = f", {statement.step}" if statement.step != 1 else ""
        unroll = f" unroll {statement.unroll}" if statement.unroll != 1 else ""
        apart = " apart" if statement.apart else ""
        return f"for {statement.var} in range({show_expr(statement.start)}, {show_expr(statement.stop)}{step}){unroll}{apart}:"
    if isinstance(statement, If):
        return f"if {show_expr(statement.condition)}:"
    return f"<not a statement: {statement!r}>"


def show_expr(expr: Expr) -> str:
    """An expression in infix."""
    return _show(expr)[0]


def _show_body(body: tuple[Stmt, ...], depth: int, lines: list[str]) -> None:
    indent = "    " * depth
    if not body:
        lines.append(indent + "pass")
    for statement in body:
        lines.append(indent + show_statement(statement))
        if isinstance(statement, For):
            _show_body(statement.body, depth + 1, lines)
        elif isinstance(statement, If):
            _show_body(statement.then, depth + 1, lines)
            if statement.otherwise:
                lines.append(indent + "else:")
                _show_body(statement.otherwise, depth + 1, lines)


def _show(expr: Expr) -> tuple[str, int]:
    """The text and how tightly its outermost operation binds."""
    if isinstance(expr, Const):
        text = _show_constant(expr.value, expr.type.dtype)
        return text, _UNARY if text.startswith("-") else _ATOM
    if isinstance(expr, Var):
        return expr.name, _ATOM
    if isinstance(expr, Get):
        return f"%{expr.name}", _ATOM
    if isinstance(expr, Load):
        place = _show_place(expr.buffer, expr.index, expr.type.lanes, expr.mask)
        return (f"({place})", _ATOM) if expr.mask is not None else (place, _ATOM)
    if not isinstance(expr, Apply):
        return f"<not an expression: {expr!r}>", _ATOM
    if expr.op in _INFIX and len(expr.args) == 2:
        symbol, level = _INFIX[expr.op]
        right = level + 1  # operators of one level group to the left; comparisons are never chained
        left = right if level == 1 else level
        return f"{_within(expr.args[0], left)} {symbol} {_within(expr.args[1], right)}", level
    if expr.op in _PREFIX and len(expr.args) == 1:
        return f"{_PREFIX[expr.op]}{_within(expr.args[0], _UNARY)}", _UNARY
    arguments = ", ".join(show_expr(a) for a in expr.args)
    if expr.op == "cast":
        return f"{expr.type.dtype}({arguments})", _ATOM
    if expr.op == "bitcast":
        return f"bitcast_{expr.type.dtype}({arguments})", _ATOM
    if expr.op in ("splat", "ramp"):
        return f"{expr.op}({arguments}, x{expr.type.lanes})", _ATOM
    return f"{expr.op}({arguments})", _ATOM


def _within(expr: Expr, level: int) -> str:
    text, binds = _show(expr)
    return text if binds >= level else f"({text})"


def _show_place(buffer: str, index: Expr, lanes: int, mask: Expr | None) -> str:
    contiguous = f":{lanes}" if lanes > 1 and _lanes(index) == 1 else ""
    condition = f" if {show_expr(mask)}" if mask is not None else ""
    return f"{buffer}[{show_expr(index)}{contiguous}]{condition}"


def _lanes(value: Any) -> int:
    return value.type.lanes if isinstance(value, Expr) else 1  # ill-formed IR is printed too


def _show_constant(value: Any, dtype: str) -> str:
    value = value.item() if hasattr(value, "item") else value
    suffix = _SUFFIX.get(dtype, dtype.replace("uint", "u").replace("int", "i"))
    if dtype == "float32":
        return str(np.float32(value))  # the shortest text that gives this float32
    return f"{float(value) if 'float' in dtype else value!r}{suffix}"
