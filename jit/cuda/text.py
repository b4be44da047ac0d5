"""C++ text: names, parentheses, the prelude."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

__all__ = ["atom", "bare", "fill", "identifier", "is_atom", "prelude", "summand"]


@cache
def prelude() -> str:
    """The text that a module begins with."""
    return (Path(__file__).parent / "prelude.h").read_text()


_KEYWORDS = """alignas and and_eq asm auto bitand bitor bool break case catch char class compl const constexpr continue default
delete do double else enum explicit export extern false float for friend goto if inline int long mutable namespace new not
not_eq nullptr operator or or_eq private protected public register return short signed sizeof static struct switch template
this throw true try typedef typeid typename union unsigned using virtual void volatile wchar_t while xor xor_eq threadIdx
blockIdx blockDim gridDim warpSize lane first_task end_task spill spill_bytes scratch main memory"""


@cache
def _reserved() -> frozenset[str]:
    functions, others = re.findall(r"(\w+) ?\(", prelude()), re.findall(r"(?:typedef [\w ]+|#define|struct) (\w+)", prelude())
    return frozenset(_KEYWORDS.split()) | set(functions) | set(others)


def identifier(name: str) -> str:
    """A C name for a loop-IR name."""
    plain = re.sub(r"\W", "_", name)
    return f"{plain}_" if plain in _reserved() or plain.startswith("__") or re.fullmatch(r"[tr]\d+|lane\d+", plain) else plain


def fill(text: str, operands: Sequence[str]) -> str:
    """A pattern with its operands in place."""
    for k, operand in enumerate(operands):
        text = text.replace(f"{{{k}}}", operand)
    return text


def bare(text: str) -> str:
    """Without parentheses around the whole."""
    if not (text.startswith("(") and text.endswith(")")):
        return text
    depth = 0
    for k, c in enumerate(text):
        depth += (c == "(") - (c == ")")
        if depth == 0:
            return text[1:-1] if k == len(text) - 1 else text
    return text


def summand(text: str) -> str:
    """As an operand of +."""
    inner = bare(text)
    return inner if re.fullmatch(r"[\w\s+*]+", inner) else text


def atom(text: str) -> str:
    """As an operand of any operator."""
    return text if re.fullmatch(r"\w+", text) else f"({text})"


def is_atom(text: str) -> bool:
    """Whether a text is a name or a constant, perhaps converted, which may as well stand twice."""
    return re.fullmatch(r"(\(\w+\))?-?\w+(\.\w+)?", text) is not None
