"""Elementary functions as formulas of primitive operations, for float32 and float64 at any number of lanes.

Each function builds an expression of add, mul, fma, div, sqrt, select, comparisons, shifts and bitcasts; nothing
branches, so all lanes cost the same. A sub-expression that a formula uses twice is one object; `vector_math` binds it
with a Let.
Polynomials come from `coefficients`. `fma` must round once. Selects are arranged so that NaN goes through.

Largest errors in ulp (tests/test_vector_math.py asserts them on samples, float32 over all exponents):

=========  =======  =======   domain, remarks
function   float32  float64
=========  =======  =======   =====================================================================================
exp        1.0      1.0      subnormal results too, as for all
expm1      2.0      2.0
log        1.0      1.0
log1p      2.0      2.0
log2       1.0      1.0      exact for powers of two
sin, cos   1.5      1.5      from |x| = 2**20 (float32), 2**50 (float64) on by `large_angles`, in a branch
tan        3.5      3.5      as sin
tanh       2.0      2.5
sinh       2.0      2.0
cosh       1.5      1.5
asin       1.5      1.5
acos       1.5      1.5
atan       2.0      2.0
atan2      2.0      2.0
erf        1.5      1.5
ndtr       1.0      1.5      times 2**-23 and 2**-52, absolute; float32: relative error 2e-3 down to x = -5
sigmoid    2.5      2.5
pow        0.51     1.5      float32 is computed in float64
=========  =======  =======   =====================================================================================

Sources: W. J. Cody and W. Waite, Software Manual for the Elementary Functions (1980), for the reductions;
J.-M. Muller, Elementary Functions, 3rd ed. (2016); K. C. Ng's arrangement of log(1 + f) (FDLIBM, 1993);
M. Joldes, J.-M. Muller, V. Popescu, Tight and rigorous error bounds for basic building blocks of double-word arithmetic
(ACM TOMS 44, 2017), for pow.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import numpy as np

from .coefficients import POLYNOMIALS
from .loopir import Apply, Const, Expr, Type, apply

__all__ = ["FUNCTIONS"]


@dataclass(frozen=True)
class Format:
    """A binary floating format: its dtype, the integer of the same width, and the bits of mantissa and exponent."""

    dtype: str
    integer: str
    mantissa: int
    bias: int

    @property
    def width(self) -> int:
        return 32 if self.mantissa == 23 else 64

    @property
    def magic(self) -> float:
        """1.5 * 2**mantissa: added to a number, it leaves the nearest integer in the low bits of the sum."""
        return 1.5 * 2.0**self.mantissa


FORMATS = {"float32": Format("float32", "int32", 23, 127), "float64": Format("float64", "int64", 52, 1023)}

HALF_PI = "1.570796326794896619231321691639751442098584699687552910487472296153908203143104499314017412671058533991"
_LN2 = "0.693147180559945309417232121458176568075500134360255254120680009493393621969694715605863326996418687542"
_LOG2E = "1.44269504088896340735992468100189213742664595415298593413544940693110921918118507988552662289350634449699"


@cache
def parts(decimal: str, dtype: str, count: int, scale: float = 1.0) -> tuple[float, ...]:
    """A number as a sum of `count` numbers of the dtype, each the nearest to what is left (non-overlapping)."""
    rest, result = Fraction(decimal) * Fraction(scale), []
    for _ in range(count):
        part = float(np.dtype(dtype).type(float(rest))) if dtype == "float32" else float(rest)
        result.append(part)
        rest -= Fraction(part)
    return tuple(result)


# -- the vocabulary of the formulas


def fma(a: Expr, b: Expr | float, c: Expr | float) -> Expr:
    return apply("fma", a, b, c)


def select(condition: Expr, a: Expr | float, b: Expr | float) -> Expr:
    return apply("select", condition, a, b)


def choose(condition: Expr, a: float, b: float, type: Type) -> Expr:
    """A select between two constants."""
    return Apply("select", (condition, Const(a, type), Const(b, type)), type)


def absolute(x: Expr) -> Expr:
    return apply("abs", x)


def negate(x: Expr) -> Expr:
    return apply("neg", x)


def at_most(x: Expr, bound: float) -> Expr:
    """min(x, bound); NaN stays."""
    return select(x > bound, bound, x)


def at_least(x: Expr, bound: float) -> Expr:
    """max(x, bound); NaN stays."""
    return select(x < bound, bound, x)


def bits(x: Expr) -> Expr:
    """The integer with the bits of x."""
    return Apply("bitcast", (x,), Type(FORMATS[x.type.dtype].integer, x.type.lanes))


def floating(i: Expr) -> Expr:
    """The number with the bits of i."""
    return Apply("bitcast", (i,), Type("float32" if i.type.dtype == "int32" else "float64", i.type.lanes))


def convert(x: Expr, dtype: str) -> Expr:
    return Apply("cast", (x,), Type(dtype, x.type.lanes))


def copy_sign(magnitude: Expr, sign: Expr) -> Expr:
    """`magnitude`, which is not negative, with the sign bit of `sign`."""
    lowest = -(1 << FORMATS[sign.type.dtype].width - 1)
    return floating(bits(magnitude) | (bits(sign) & lowest))


def is_negative(x: Expr) -> Expr:
    """Whether the sign bit is set, also of -0."""
    return bits(x) < 0


def polynomial(x: Expr, name: str) -> Expr:
    """c[0] + c[1] x + ... by Horner's rule, with the coefficients of that name."""
    c = POLYNOMIALS[x.type.dtype][name]
    result: Expr = Const(c[-1], x.type)
    for coefficient in c[-2::-1]:
        result = fma(result, x, coefficient)
    return result


# -- exponentials: x = n log(2) + r, |r| <= log(2)/2, n left in the low bits of t by the magic number


def _reduce_exp(x: Expr, shift: Expr | float) -> tuple[Expr, Expr]:
    """r, and 2**(n + shift - magic - bias); where `shift` has magic + bias + k that is 2**(n + k)."""
    f = FORMATS[x.type.dtype]
    high, low = parts(_LN2, f.dtype, 2)
    t = fma(x, parts(_LOG2E, f.dtype, 1)[0], shift)
    n = apply("sub", t, shift)
    r = fma(n, -low, fma(n, -high, x))
    return r, floating(apply("shl", bits(t), f.mantissa))


def exp(x: Expr, factor: float = 1.0) -> Expr:
    """e**x * factor = (2**(n -+ k) e**r) 2**+-k: the two steps let the result overflow and underflow rightly."""
    f = FORMATS[x.type.dtype]
    k = (f.bias + 1) // 2
    x = at_most(at_least(x, -104.0 if f.width == 32 else -746.0), 90.0 if f.width == 32 else 712.0)
    negative = x < 0.0
    r, scale = _reduce_exp(x, choose(negative, f.magic + f.bias + k, f.magic + f.bias - k, x.type))
    p = fma(r, fma(r, polynomial(r, "exp"), 1.0), 1.0)
    return p * scale * choose(negative, factor * 2.0**-k, factor * 2.0**k, x.type)


def _exp_normal(x: Expr) -> Expr:
    """e**x where neither x nor the result is extreme."""
    f = FORMATS[x.type.dtype]
    r, scale = _reduce_exp(x, f.magic + f.bias)
    return fma(r, fma(r, polynomial(r, "exp"), 1.0), 1.0) * scale


def _half_expm1(x: Expr) -> Expr:
    """(e**x - 1) / 2 = 2**(n-1) expm1(r) + (2**(n-1) - 1/2), for x in the range of the format."""
    f = FORMATS[x.type.dtype]
    r, half = _reduce_exp(x, f.magic + f.bias - 1)
    p = fma(r * r, polynomial(r, "expm1"), r)
    return fma(half, p, half - 0.5)


def expm1(x: Expr) -> Expr:
    f = FORMATS[x.type.dtype]
    y = _half_expm1(at_most(at_least(x, -30.0 if f.width == 32 else -50.0), 89.0 if f.width == 32 else 710.0))
    return select(absolute(x) < 2.0 ** -(f.mantissa + 2), x, y * 2.0)


def tanh(x: Expr) -> Expr:
    """y = h / (h + 1) with h = (e**2|x| - 1) / 2, corrected by what rounding took from h + 1; 1/(h + 1) is 1 - y."""
    a = at_most(absolute(x), 10.0 if x.type.dtype == "float32" else 20.0)
    h = _half_expm1(a + a)
    d = h + 1.0
    y = h / d
    return copy_sign(at_most(fma(y * (d - 1.0 - h), apply("sub", Const(1.0, x.type), y), y), 1.0), x)


def sinh(x: Expr) -> Expr:
    a, z = absolute(x), x * x
    half = exp(a, 0.5)
    large = copy_sign(half - Const(0.25, x.type) / half, x)
    return select(a < 1.0, fma(x * z, polynomial(z, "sinh"), x), large)


def cosh(x: Expr) -> Expr:
    half = exp(absolute(x), 0.5)
    return half + Const(0.25, x.type) / half


# -- logarithms: x = 2**e m, sqrt(1/2) <= m < sqrt(2), f = m - 1


def _split(x: Expr) -> tuple[Expr, Expr]:
    """(e, m) of a positive normal x; e is an integer."""
    f = FORMATS[x.type.dtype]
    root = {32: 0x3F3504F3, 64: 0x3FE6A09E667F3BCD}[f.width]  # the bits of sqrt(1/2)
    e = apply("shr", bits(x) - root, f.mantissa)
    return e, floating(bits(x) - apply("shl", e, f.mantissa))


def _split_any(x: Expr) -> tuple[Expr, Expr]:
    """(e, m - 1) of any positive x, both floating; subnormal numbers are scaled first."""
    f = FORMATS[x.type.dtype]
    small = x < 2.0 ** (1 - f.bias)
    shift = f.mantissa + 1
    e, m = _split(select(small, x * 2.0**shift, x))
    return convert(e, f.dtype) + choose(small, -shift, 0.0, x.type), m - 1.0


def _log_tail(f: Expr) -> Expr:
    """log(1 + f) - f."""
    if f.type.dtype == "float32":
        return f * f * fma(f, polynomial(f, "log"), -0.5)
    s, half_square = f / (f + 2.0), f * f * 0.5
    z = s * s
    return fma(s, fma(z, polynomial(z, "log_ratio"), half_square), negate(half_square))


def _log_limits(x: Expr, y: Expr) -> Expr:
    """y, but the right thing where x is 0, negative, infinite or NaN."""
    y = select(x < math.inf, y, x)
    return select(x > 0.0, y, select(x.equals(0.0), Const(-math.inf, x.type), math.nan))


def _assemble_log(e: Expr, f: Expr) -> Expr:
    high, low = parts(_LN2, f.type.dtype, 2)
    return fma(e, high, f + fma(e, low, _log_tail(f)))


def log(x: Expr) -> Expr:
    e, f = _split_any(x)
    return _log_limits(x, _assemble_log(e, f))


def log2(x: Expr) -> Expr:
    e, f = _split_any(x)
    high, low = parts(_LOG2E, x.type.dtype, 2)
    return _log_limits(x, e + fma(f, high, fma(_log_tail(f), high, f * low)))


def log1p(x: Expr) -> Expr:
    """log(u) with u = 1 + x, where f is corrected by what rounding took from u."""
    g = FORMATS[x.type.dtype]
    u = x + 1.0
    v = u - 1.0
    lost = (x - v) + (Const(1.0, x.type) - (u - v))
    e, m = _split(u)
    exponent = apply("sub", Const(g.bias, e.type), apply("min", e, g.bias - 2))
    inverse = floating(apply("shl", exponent, g.mantissa))  # 2**-e
    f = fma(lost, inverse, m - 1.0)
    y = _log_limits(u, _assemble_log(convert(e, g.dtype), f))
    return select(absolute(x) < 2.0 ** -(g.mantissa + 2), x, y)


# -- trigonometric functions: x = q pi/2 + r + low, |r| <= pi/4


def reduce_half_pi(x: Expr) -> tuple[Expr, Expr, Expr]:
    """(r, low, integer with q in its low bits), with pi/2 in four parts; low is what rounding took from r."""
    f = FORMATS[x.type.dtype]
    p1, p2, p3, p4 = parts(HALF_PI, f.dtype, 4)
    t = fma(x, 2.0 / math.pi, f.magic)
    q = t - f.magic
    product = q * p2
    r, error = _sum(fma(q, -p1, x), negate(product))
    rest = fma(q, -p4, fma(q, -p3, error - fma(q, p2, negate(product))))
    total = r + rest
    return total, (r - total) + rest, bits(t)


def _sine_cosine(r: Expr, low: Expr) -> tuple[Expr, Expr]:
    z = r * r
    sine = r + fma(r * z, polynomial(z, "sin"), low)
    cosine = fma(negate(r), low, z * fma(z, polynomial(z, "cos"), -0.5)) + 1.0
    return sine, cosine


def _turn(value: Expr, q: Expr) -> Expr:
    """`value` negated where bit 1 of q is set."""
    width = FORMATS[value.type.dtype].width
    return floating(apply("xor", bits(value), apply("shl", q & 2, width - 2)))


Angle = tuple[Expr, Expr, Expr]
"""(r, low, q) as `reduce_half_pi` gives them."""


def sin(x: Expr, angle: Angle | None = None) -> Expr:
    r, low, q = angle or reduce_half_pi(x)
    s, c = _sine_cosine(r, low)
    return select(x.equals(0.0), x, _turn(select((q & 1).equals(0), s, c), q))


def cos(x: Expr, angle: Angle | None = None) -> Expr:
    r, low, q = angle or reduce_half_pi(x)
    s, c = _sine_cosine(r, low)
    return _turn(select((q & 1).equals(0), c, s), q + 1)


def tan(x: Expr, angle: Angle | None = None) -> Expr:
    r, low, q = angle or reduce_half_pi(x)
    s, c = _sine_cosine(r, low)
    even = (q & 1).equals(0)
    return select(x.equals(0.0), x, select(even, s, negate(c)) / select(even, c, s))


ANGLES = frozenset({"sin", "cos", "tan"})
"""Functions that take a reduced angle, so that `vector_math` can branch to another reduction where x is large."""


def is_large_angle(x: Expr) -> Expr:
    """Where `reduce_half_pi` is out of its domain; not for infinities and NaN, which it handles."""
    a = absolute(x)
    return (a > (2.0**20 if x.type.dtype == "float32" else 2.0**50)) & (a < math.inf)


# -- inverse trigonometric functions


def _asin_kernel(x: Expr) -> tuple[Expr, Expr]:
    """(whether |x| > 0.55, asin(s)) with s = |x|, or sqrt((1 - |x|)/2) where |x| > 0.55.

    At 0.55 the second s is below 1/2, which halves its rounding error against a limit of 1/2.
    """
    a = absolute(x)
    large = a > 0.55
    z = select(large, fma(a, -0.5, 0.5), x * x)
    s = select(large, apply("sqrt", z), a)
    return large, fma(s * z, polynomial(z, "asin"), s)


def asin(x: Expr) -> Expr:
    """asin(s), or pi/2 - 2 asin(s) where |x| > 0.55."""
    high, low = parts(HALF_PI, x.type.dtype, 2)
    large, p = _asin_kernel(x)
    return copy_sign(select(large, fma(p - low / 2, -2.0, high), p), x)


def acos(x: Expr) -> Expr:
    """pi/2 -+ asin(s), or 2 asin(s), or pi - 2 asin(s)."""
    high, low = parts(HALF_PI, x.type.dtype, 2)
    large, p = _asin_kernel(x)
    negative = x < 0.0
    signed = select(negative, negate(p), p)
    near = select(negative, fma(p - low, -2.0, 2 * high), p + p)
    return select(large, near, apply("sub", Const(high, x.type), signed - low))


def _assemble_atan(t: Expr, eighths: Expr) -> Expr:
    """eighths * pi/4 + atan(t), |t| <= 1/2."""
    high, low = parts(HALF_PI, t.type.dtype, 2, 0.5)
    z = t * t
    p = fma(t * z, polynomial(z, "atan"), t)
    return fma(eighths, high, fma(eighths, low, p))


def atan(x: Expr) -> Expr:
    """atan(a), from 1/2 on as pi/4 + atan((a - 1)/(a + 1)), where a - 1 is exact, from 2 on as pi/2 + atan(-1/a)."""
    a = absolute(x)
    middle, large = a > 0.5, a > 2.0
    t = select(large, -1.0, select(middle, a - 1.0, a)) / select(large, a, select(middle, a + 1.0, 1.0))
    return copy_sign(_assemble_atan(t, select(large, 2.0, choose(middle, 1.0, 0.0, x.type))), x)


def atan2(y: Expr, x: Expr) -> Expr:
    """atan(least / most) of the magnitudes, reflected into the octant; infinities and zeros as in IEEE 754."""
    f = FORMATS[x.type.dtype]
    ax, ay = absolute(x), absolute(y)
    swap = ay > ax
    most, least = select(swap, ay, ax), select(swap, ax, ay)
    infinite = most.equals(math.inf)
    least = select(infinite, choose(least.equals(math.inf), 1.0, 0.0, x.type), least)
    most = select(infinite | most.equals(0.0), 1.0, most)
    scale = choose(most > 2.0 ** (f.bias - 1), 0.25, 1.0, x.type)
    most, least = most * scale, least * scale
    middle = least > most * 0.5
    t = select(middle, least - most, least) / select(middle, least + most, most)
    eighths = choose(middle, 1.0, 0.0, x.type)
    left = is_negative(x)
    eighths = select(swap, Const(2.0, x.type) - eighths, eighths)
    eighths = select(left, Const(4.0, x.type) - eighths, eighths)
    t = select(apply("xor", swap, left), negate(t), t)
    unordered = apply("isnan", x) | apply("isnan", y)
    return select(unordered, x + y, copy_sign(absolute(_assemble_atan(t, eighths)), y))


# -- error function


def erf(x: Expr) -> Expr:
    """x + x q(x**2) up to 1, then 1 - exp(polynomial in |x| - 1), the polynomial being log(erfc)."""
    last = 4.0 if x.type.dtype == "float32" else 6.0
    a = absolute(x)
    small = fma(x, polynomial(x * x, "erf_small"), x)
    complement = _exp_normal(polynomial(at_most(a, last) - 1.0, "erf_large"))
    return select(a < 1.0, small, copy_sign(Const(1.0, x.type) - complement, x))


def ndtr(x: Expr) -> Expr:
    """P(N <= x) for a standard normal N. float32: q = P(N > |x|) = 2**p, p a polynomial in |x|, and q or 1 - q; where p is below
    -127 + 1/2 the power's bits are 0. float64: (1 + erf(x / sqrt(2))) / 2."""
    f = FORMATS[x.type.dtype]
    if f.width == 64:
        return fma(erf(x * math.sqrt(0.5)), 0.5, 0.5)
    a, shift = absolute(x), f.magic + f.bias
    p = at_least(fma(a, polynomial(a, "ndtr"), -1.0), -float(f.bias))
    t = p + shift
    r = p - (t - shift)
    q = fma(r, polynomial(r, "exp2"), 1.0) * floating(apply("shl", bits(t), f.mantissa))
    return select(x < 0.0, q, apply("sub", Const(1.0, x.type), q))


def sigmoid(x: Expr) -> Expr:
    """1 / (1 + e**-x) with both numbers times 2**-k, so that neither overflows before the result is 0."""
    f = FORMATS[x.type.dtype]
    k = 26 if f.width == 32 else 54
    y = negate(at_most(at_least(x, -4.0 * k if f.width == 32 else -746.0), 69.0 if f.width == 32 else 600.0))
    r, scale = _reduce_exp(y, f.magic + f.bias - k)
    p = fma(r, fma(r, polynomial(r, "exp"), 1.0), 1.0)
    return Const(2.0**-k, x.type) / fma(p, scale, 2.0**-k)


# -- power


def _power_limits(x: Expr, y: Expr, magnitude: Expr) -> Expr:
    """|x|**y with the sign and the special cases of IEEE 754: 1 for y = 0 or x = 1, NaN for x < 0 and no integer y."""
    whole = y.equals(apply("trunc", y))
    half = y * 0.5
    odd = whole & apply("ne", half, apply("floor", half)) & (absolute(y) < math.inf)
    value = select(odd & is_negative(x), negate(magnitude), magnitude)
    invalid = (x < 0.0) & (x > -math.inf) & apply("not", whole)
    value = select(invalid, math.nan, value)
    value = select(apply("isnan", x) | apply("isnan", y), x + y, value)
    sure = y.equals(0.0) | x.equals(1.0) | (x.equals(-1.0) & absolute(y).equals(math.inf))
    return select(sure, 1.0, value)


def power(x: Expr, y: Expr) -> Expr:
    """exp(y log|x|); float32 in float64, float64 with a logarithm in two words."""
    if x.type.dtype == "float32":
        wide = exp(convert(y, "float64") * log(convert(absolute(x), "float64")))
        return _power_limits(x, y, convert(wide, "float32"))
    a = absolute(x)
    high, low = _log_two_words(a)
    product = y * high
    rest = fma(y, low, fma(y, high, negate(product)))
    plain = exp(product)
    rest = select(absolute(product) < 800.0, rest, 0.0)
    corrected = select(plain < math.inf, fma(plain, rest, plain), plain)
    zero = a.equals(0.0)
    extreme = choose(apply("xor", y < 0.0, zero), 0.0, math.inf, x.type)
    return _power_limits(x, y, select(zero | a.equals(math.inf), extreme, corrected))


def _log_two_words(x: Expr) -> tuple[Expr, Expr]:
    """log(x) of a positive finite float64 as high + low with a relative error of about 2**-66.

    2 s + 2/3 s**3 + s**5 q(s**2), s = f/(2 + f), the first two terms in two words.
    """
    e, f = _split_any(x)
    d = f + 2.0
    d_low = f - (d - 2.0)
    s = f / d
    s_low = fma(negate(s), d_low, fma(negate(s), d, f)) / d
    z = s * s
    z_low = fma(s, s_low + s_low, fma(s, s, negate(z)))
    third_high, third_low = parts("0.66666666666666666666666666666666666666666666666666", "float64", 2)
    tail = fma(z, polynomial(z, "log_ratio5"), third_low)
    c = tail + third_high
    c_low = tail - (c - third_high)
    cz, cz_low = _product(c, c_low, z, z_low)
    cubic, cubic_low = _product(cz, cz_low, s, s_low)
    ln2_high, ln2_low = parts(_LN2, "float64", 2)
    whole = e * ln2_high
    whole_low = fma(e, ln2_low, fma(e, ln2_high, negate(whole)))
    two_s = s + s
    first, first_low = _fast_sum(two_s, cubic)
    first_low = first_low + (cubic_low + (s_low + s_low))
    total, total_low = _sum(whole, first)
    return _fast_sum(total, total_low + (whole_low + first_low))


def _product(a: Expr, a_low: Expr, b: Expr, b_low: Expr) -> tuple[Expr, Expr]:
    p = a * b
    return p, fma(a, b_low, fma(a_low, b, fma(a, b, negate(p))))


def _fast_sum(a: Expr, b: Expr) -> tuple[Expr, Expr]:
    """a + b and its rounding error, for |a| >= |b| (Dekker)."""
    s = a + b
    return s, b - (s - a)


def _sum(a: Expr, b: Expr) -> tuple[Expr, Expr]:
    """a + b and its rounding error (Knuth)."""
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


FUNCTIONS: dict[str, Callable[..., Expr]] = {
    "exp": exp,
    "expm1": expm1,
    "log": log,
    "log1p": log1p,
    "log2": log2,
    "sin": sin,
    "cos": cos,
    "tan": tan,
    "tanh": tanh,
    "erf": erf,
    "ndtr": ndtr,
    "sigmoid": sigmoid,
    "asin": asin,
    "acos": acos,
    "atan": atan,
    "sinh": sinh,
    "cosh": cosh,
    "atan2": atan2,
    "pow": power,
}
"""Loop-IR operation -> the formula that replaces it."""
