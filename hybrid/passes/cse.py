"""Common subexpressions: two equations with the same op, inputs and attributes are one.

Ops have no hidden state (random bits take theirs as an input), so this needs no exceptions but the trait "effect".
"""

from __future__ import annotations

from typing import Any

from ..graph import Atom, Equation, Graph, Literal, Value, attribute_text
from .rewrite import Rewriter, rewrite

__all__ = ["cse"]


def cse(graph: Graph) -> Graph:
    """Keep the first of equal equations."""
    seen: dict[Any, tuple[Value, ...]] = {}

    def step(rewriter: Rewriter, eq: Equation) -> dict[Value, Atom] | None:
        if "effect" in eq.op.traits:
            return None
        attrs = tuple((k, attribute_text(v)) for k, v in sorted(eq.attrs.items()))
        key = (eq.op.name, tuple([_key(a) for a in eq.inputs]), attrs)
        first = seen.setdefault(key, eq.outputs)
        return None if first is eq.outputs else dict(zip(eq.outputs, first))

    return rewrite(graph, step)


def _key(atom: Atom) -> Any:
    # text tells 0.0 from -0.0, and one NaN equals another
    return (repr(atom.value), atom.dtype) if isinstance(atom, Literal) else atom
