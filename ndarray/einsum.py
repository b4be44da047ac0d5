"""Einstein's summation, by pairwise contractions over the primitive dot_general: it differentiates and compiles as they do."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import reduction
from .array import NDArray
from .dims import Size
from .dtypes import bool_, default_int, promote
from .elementwise import multiply
from .manipulation import diagonal, permute_dims, reshape
from .operands import as_array, convert, primitive
from .ops.base import differ, is_one

__all__ = ["einsum", "einsum_path"]

Labels = tuple[Any, ...]  # one for each axis: a letter, or an int for an axis of the ellipsis
Term = tuple[NDArray, Labels]


def einsum(subscripts: Any, /, *operands: Any, optimize: Any = True) -> NDArray:
    """Sums of products of elements, as ``subscripts`` say: ``einsum("ik,kj->ij", a, b)`` is a matrix product.

    Each operand has a letter an axis; letters that the part behind "->" lacks are summed over. Without "->", those that occur
    once remain, in alphabetic order. "..." stands for further axes, which broadcast. A letter twice in one operand is its
    diagonal. The form ``einsum(a, [0, 2], b, [2, 1], [0, 1])`` is understood too. Operands of several dtypes promote. More
    than two operands are contracted in pairs in the order of `optimize` (as NumPy's; True: found greedily, False: from left
    to right). Raises ValueError for subscripts that don't fit the operands.

    >>> nd.einsum("ij,j->i", nd.array([[1, 2], [3, 4]]), nd.array([10, 1]))
    array([12, 34])
    """
    text, arrays = _normal_form(subscripts, operands)
    terms, output = _labelled(text, arrays)
    sizes = _sizes(terms, text)
    terms = [_simplified(x, labels) for x, labels in terms]
    for k, j in _order(text, arrays, optimize):
        needed = set(output).union(*(labels for n, (_, labels) in enumerate(terms) if n not in (k, j)))
        pair = _contract(terms[k], terms[j], needed)
        terms = [t for n, t in enumerate(terms) if n not in (k, j)] + [pair]
    x, labels = terms[0]
    x, labels = _summed(x, labels, set(output))
    for label in output:
        if label not in labels:  # an ellipsis axis that had size 1 everywhere, or a broadcast one
            x, labels = reshape(x, (*x.shape, 1)), (*labels, label)
    x = permute_dims(x, tuple(labels.index(label) for label in output))
    shape = tuple(sizes[label] for label in output)
    if any(is_one(n) and not is_one(m) for n, m in zip(x.shape, shape)):
        x = primitive("broadcast_to", x, shape=shape)
    return x


def einsum_path(subscripts: Any, /, *operands: Any, optimize: Any = "greedy") -> tuple[list, str]:
    """The order in which `einsum` would contract, and NumPy's description of it.

    >>> nd.einsum_path("ij,jk,kl->il", nd.ones((2, 3)), nd.ones((3, 4)), nd.ones((4, 5)))[0]
    ['einsum_path', (1, 2), (0, 1)]
    """
    text, arrays = _normal_form(subscripts, operands)
    return np.einsum_path(text, *(_stand_in(a) for a in arrays), optimize=optimize)


def _stand_in(x: NDArray) -> np.ndarray:
    return np.broadcast_to(np.float32(0), tuple(int(n) for n in x.shape))


def _normal_form(subscripts: Any, operands: tuple) -> tuple[str, list[NDArray]]:
    """Subscripts as text without spaces, and the operands as arrays of one dtype."""
    if not isinstance(subscripts, str):
        given = (subscripts, *operands)
        lists = [*given[1::2], *(given[-1:] if len(given) % 2 else ())]
        if any(not isinstance(v, (list, tuple)) for v in lists):
            raise ValueError("einsum: subscripts: expected a text such as 'ij,jk->ik', or arrays each followed by a list of ints")
        word = lambda v: "".join("..." if k is Ellipsis else chr(ord("A") + k if k < 26 else ord("a") + k - 26) for k in v)
        text = ",".join(word(v) for v in given[1::2]) + (f"->{word(given[-1])}" if len(given) % 2 else "")
        operands = given[: len(given) - len(given) % 2 : 2]
    else:
        text = subscripts.replace(" ", "")
    arrays = [as_array("einsum", f"operands[{k}]", x) for k, x in enumerate(operands)]
    if not arrays:
        raise ValueError("einsum: operands: expected at least one array")
    dtype = promote(*(a.dtype for a in arrays))
    return text, [convert(a, default_int if dtype == bool_ else dtype) for a in arrays]


def _labelled(text: str, arrays: list[NDArray]) -> tuple[list[Term], Labels]:
    """The operands with a label for each axis, and the result's labels. Axes of the ellipsis are 0, 1 ... from the last."""
    left, arrow, right = text.partition("->")
    words = left.split(",")
    if len(words) != len(arrays):
        raise ValueError(f"einsum: subscripts: expected one part for each of {len(arrays)} operands, got {text!r}")
    terms, deepest = [], 0
    for k, (word, x) in enumerate(zip(words, arrays)):
        extra = x.ndim - len(word.replace("...", ""))
        dots = word.count("...") == 1
        letters = word.replace("...", "")
        if (not letters.isalpha() and letters) or extra < 0 or (extra and not dots):
            raise ValueError(f"einsum: subscripts: {word!r} doesn't fit operand {k} of shape {x.shape} (in {text!r})")
        before, _, behind = word.partition("...")
        terms.append((x, (*before, *(reversed(range(extra)) if dots else ()), *behind)))
        deepest = max(deepest, extra)
    shared = tuple(reversed(range(deepest)))
    if arrow:
        before, mark, behind = right.partition("...")
        if (letters := before + behind) and (not letters.isalpha() or len(set(letters)) != len(letters)
                                             or not set(letters) <= set(left)):
            raise ValueError(f"einsum: subscripts: expected each letter of the result once, and in an operand, got {text!r}")
        return terms, (*before, *(shared if mark else ()), *behind)
    letters = left.replace("...", "").replace(",", "")
    return terms, (*shared, *sorted(c for c in set(letters) if letters.count(c) == 1))


def _sizes(terms: list[Term], text: str) -> dict[Any, Size]:
    sizes: dict[Any, Size] = {}
    for x, labels in terms:
        for label, n in zip(labels, x.shape):
            have = sizes.get(label, 1)
            if is_one(have):
                sizes[label] = n
            elif not is_one(n) and differ(n, have):
                name = label if isinstance(label, str) else "..."
                raise ValueError(f"einsum: operands: axis {name!r} of {text!r} has sizes {have} and {n}")
    return sizes


def _simplified(x: NDArray, labels: Labels) -> Term:
    """Repeated labels become the diagonal."""
    for label in dict.fromkeys(labels):
        while labels.count(label) > 1:
            i = labels.index(label)
            j = labels.index(label, i + 1)
            if is_one(x.shape[i]) != is_one(x.shape[j]):
                raise ValueError(f"einsum: operands: a diagonal {label!r} of axes of sizes {x.shape[i]} and {x.shape[j]}")
            x = diagonal(x, 0, i, j)
            labels = (*(v for k, v in enumerate(labels) if k not in (i, j)), label)
    return x, labels


def _order(text: str, arrays: list[NDArray], optimize: Any) -> list[tuple[int, int]]:
    """Pairs of positions to contract, the result going to the end."""
    n = len(arrays)
    if n <= 2 or optimize is False:
        return [(0, n - 1 - k) if k == 0 and n == 2 else (0, 1) for k in range(n - 1)]
    mode = "greedy" if optimize is True else optimize
    path = np.einsum_path(text, *(_stand_in(a) for a in arrays), optimize=mode)[0][1:]
    pairs = []
    for step in path:
        count = len(step)
        if count == 1:
            continue
        places = sorted(step, reverse=True)
        pairs.append((places[1], places[0]))
        for k in range(2, count):  # NumPy may contract several at once: join the rest to the pair, which is last
            last = n - len(pairs)  # so many terms are left, the pair being the last one
            pairs.append((places[k], last - 1))
    return pairs


def _summed(x: NDArray, labels: Labels, needed: set) -> Term:
    """Labels that nobody needs are summed over."""
    axes = tuple(k for k, label in enumerate(labels) if label not in needed)
    if not axes:
        return x, labels
    return reduction.sum(x, axes, dtype=x.dtype), tuple(label for label in labels if label in needed)


def _contract(a: Term, b: Term, needed: set) -> Term:
    """The product of two terms, summed over the labels that are not needed any more."""
    (x, p), (y, q) = a, b
    x, p = _without_ones(x, p, y, q)
    y, q = _without_ones(y, q, x, p)
    x, p = _summed(x, p, needed | set(q))
    y, q = _summed(y, q, needed | set(p))
    both = [label for label in p if label in q]
    batch = tuple(label for label in both if label in needed)
    gone = tuple(label for label in both if label not in needed)
    if not gone and (not both or len(batch) in (len(p), len(q))):
        return _product(x, p, y, q)
    axes = lambda labels, chosen: tuple(labels.index(label) for label in chosen)
    out = primitive("dot_general", x, y, contract=(axes(p, gone), axes(q, gone)), batch=(axes(p, batch), axes(q, batch)))
    rest = lambda labels: tuple(label for label in labels if label not in both)
    return out, (*batch, *rest(p), *rest(q))


def _product(x: NDArray, p: Labels, y: NDArray, q: Labels) -> Term:
    """An elementwise product of terms that nothing is summed over."""
    labels = (*p, *(label for label in q if label not in p))
    x = reshape(x, (*x.shape, *(1,) * (len(labels) - len(p))))
    order = sorted(range(len(q)), key=lambda k: labels.index(q[k]))
    y = permute_dims(y, tuple(order))
    known = {q[k]: y.shape[j] for j, k in enumerate(order)}
    return multiply(x, reshape(y, tuple(known.get(label, 1) for label in labels))), labels


def _without_ones(x: NDArray, p: Labels, y: NDArray, q: Labels) -> Term:
    """Axes of size 1 that broadcast against longer ones of the other term are dropped."""
    drop = [k for k, label in enumerate(p) if label in q and is_one(x.shape[k]) and not is_one(y.shape[q.index(label)])]
    if not drop:
        return x, p
    return (reshape(x, tuple(n for k, n in enumerate(x.shape) if k not in drop)),
            tuple(label for k, label in enumerate(p) if k not in drop))
