"""x mod pi/2 for large x, by the method of Payne and Hanek: integer multiplication by the bits of 2/pi that matter.

x = M 2**e with an integer M. Bits of 2/pi so high that M 2**e times them is a multiple of 4 turn by whole circles and
are skipped; of the rest, as many are taken as the closest approach of a number of the format to a multiple of pi/2
asks for.

Source: M. H. Payne, R. N. Hanek, Radian reduction for trigonometric functions, SIGNUM Newsletter 18 (1983).
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise

from .elementary import FORMATS, HALF_PI, absolute, bits, convert, fma, is_negative, negate, parts, select
from .loopir import Const, Expr, Type, apply

__all__ = ["reduce_large_angle"]


@cache
def _words(count: int) -> tuple[int, ...]:
    """The first words of 2/pi after the point, from pi by Machin's formula in integers; a zero word in front."""
    digits = 32 * count + 64

    def inverse_tangent(n: int) -> int:
        term = total = (1 << digits) // n
        k, sign = 3, -1
        while term:
            term //= n * n
            total += sign * (term // k)
            k, sign = k + 2, -sign
        return total

    pi = 4 * (4 * inverse_tangent(5) - inverse_tangent(239))
    ratio = (2 << (2 * digits)) // pi >> (digits - 32 * count)
    return (0, *((ratio >> (32 * (count - 1 - k))) & 0xFFFFFFFF for k in range(count)))


def reduce_large_angle(x: Expr) -> tuple[Expr, Expr, Expr]:
    """(r, low, q): x = q pi/2 + r + low modulo 2 pi, |r| <= pi/4; q counts in its two low bits. For finite |x| >= 2**20
    (float32) or 2**50 (float64); `low` is what rounding took from r."""
    f = FORMATS[x.type.dtype]
    limbs, length = (4, 8) if f.width == 32 else (6, 38)
    word = Type("uint64", x.type.lanes)
    pattern = bits(absolute(x))
    exponent = apply("shr", pattern, f.mantissa) - (f.bias + f.mantissa)
    mantissa = convert((pattern & ((1 << f.mantissa) - 1)) | (1 << f.mantissa), "uint64")
    position = convert(exponent + 30, "uint64")  # of the first bit that matters, counted from the zero word
    window = _window(position, _words(length), limbs, word)
    product = _multiply((mantissa & 0xFFFFFFFF, apply("shr", mantissa, 32)), window)

    top = apply("shl", product[0], 32) | product[1]
    q = apply("shr", apply("shr", top, 61) + 1, 1)
    rest = convert(top - apply("shl", q, 62), "int64")  # the fraction of a quarter turn in units of 2**-62
    coarse = convert(rest, "float64")
    fine = convert(rest - convert(coarse, "int64"), "float64")
    fine = fine + convert(apply("shl", product[2], 32) | product[3], "float64") * 2.0**-64
    turn = (coarse + fine) * 2.0**-62
    turn_low = (coarse - (coarse + fine) + fine) * 2.0**-62
    high, low = parts(HALF_PI, "float64", 2)
    r = turn * high
    r_low = fma(turn, high, negate(r)) + fma(turn, low, turn_low * high)
    if f.width == 32:
        r, r_low = convert(r, "float32"), convert(r - convert(convert(r, "float32"), "float64"), "float32")
    q = convert(q, f.integer)
    left = is_negative(x)
    return select(left, negate(r), r), select(left, negate(r_low), r_low), select(left, apply("neg", q), q)


def _window(position: Expr, words: tuple[int, ...], limbs: int, word: Type) -> list[Expr]:
    """`limbs` words from a bit position on, most significant first: a barrel shifter over the words, then over bits."""
    number = apply("shr", position, 5)
    chosen: list[Expr] = [Const(w, word) for w in words]
    step = 1 << (len(words) - limbs - 1).bit_length()
    while step > 1:
        step //= 2
        on = apply("ne", number & step, 0)
        width = limbs + step  # entries that the smaller steps can still reach
        chosen = [select(on, chosen[min(k + step, len(words) - 1)], chosen[k]) for k in range(min(width, len(chosen)))]
    shift = position & 31
    pairs = pairwise(chosen[: limbs + 1])
    return [apply("shr", apply("shl", apply("shl", a, 32) | b, shift), 32) for a, b in pairs]


def _multiply(m: tuple[Expr, Expr], window: list[Expr]) -> list[Expr]:
    """The words of m * window modulo 2**(32 * words), most significant first; m has its low word first."""
    count = len(window)
    columns: list[list[Expr]] = [[] for _ in range(count)]  # least significant first
    for i, a in enumerate(m):
        for j, b in enumerate(window[::-1]):
            if i + j < count:
                p = a * b
                columns[i + j].append(p & 0xFFFFFFFF)
                if i + j + 1 < count:
                    columns[i + j + 1].append(apply("shr", p, 32))
    result: list[Expr] = []
    carry: Expr | None = None
    for column in columns:
        total = column[0] if carry is None else column[0] + carry
        for term in column[1:]:
            total = total + term
        result.append(total & 0xFFFFFFFF)
        carry = apply("shr", total, 32)
    return result[::-1]
