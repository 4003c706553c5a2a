"""exp, tanh, log and what is made of them, as written polynomials: the same bits wherever they are evaluated.

A library's exp may differ in the last bit from one version to the next. These are float32 multiplications and
additions in the order written, so a vector kernel can follow them exactly. Errors stay within 3 units in the last
place of the true value. Polynomials: S. Moshier's Cephes library, single precision (expf.c, tanhf.c, logf.c).
A GPU has one call for its own exp, and no bits to keep.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]

_LOG2_E = np.float32(1.44269504088896341)
_LN2_HIGH = np.float32(0.693359375)  # 10 bits, so n * _LN2_HIGH is exact
_LN2_LOW = np.float32(-2.12194440e-4)
_EXP = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
_EXP_MAX = np.float32(88.72283905206835)  # above: infinity
_EXP_MIN = np.float32(-103.97208)  # below: zero
_TANH = (-5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1)
_SQRT_HALF = np.float32(0.707106781186547524)
_LOG = (
    7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
    -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
)  # fmt: skip
_GELU_A = np.float32(0.044715)
_GELU_B = np.float32(0.79788456080286535587989211986876)  # sqrt(2 / pi)
_GELU_QUICK = np.float32(-1.702)


def _polynomial(coefficients: tuple[float, ...], x: F32) -> F32:
    """Horner's rule, highest power first, coefficients rounded to float32."""
    y: F32 = np.full_like(x, coefficients[0])
    for c in coefficients[1:]:
        y = y * x + np.float32(c)
    return y


def exp(x: F32) -> F32:
    """e**x = 2**n * e**r with n = round(x / ln 2) and r = x - n ln 2 in two steps, e**r by polynomial."""
    if not isinstance(x, np.ndarray):
        return np.exp(x)
    clipped: F32 = np.minimum(np.maximum(x, _EXP_MIN), _EXP_MAX)
    n: F32 = np.rint(clipped * _LOG2_E)
    r: F32 = (clipped - n * _LN2_HIGH) - n * _LN2_LOW
    y = (_polynomial(_EXP, r) * (r * r) + r) + np.float32(1)
    n = np.where(np.isnan(n), np.float32(0), n)
    with np.errstate(over="ignore", under="ignore"):
        y = np.ldexp(y, n.astype(np.int32))
    y = np.where(x > _EXP_MAX, np.float32(np.inf), np.where(x < _EXP_MIN, np.float32(0), y))
    return y.astype(np.float32, copy=False)


def tanh(x: F32) -> F32:
    """Near zero a polynomial in x**2, else 1 - 2 / (e**2|x| + 1) with the sign of x."""
    a = np.abs(x)
    z = x * x
    with np.errstate(over="ignore", invalid="ignore"):  # the branch not taken may overflow
        near = _polynomial(_TANH, z) * z * x + x
        far = np.float32(1) - np.float32(2) / (exp(a + a) + np.float32(1))
    return np.where(a < np.float32(0.625), near, np.copysign(far, x)).astype(np.float32, copy=False)


def sigmoid(x: F32) -> F32:
    """1 / (1 + e**-x)"""
    return np.float32(1) / (np.float32(1) + exp(-x))


def silu(x: F32) -> F32:
    """x / (1 + e**-x), also called swish (ggml_silu)."""
    return x / (np.float32(1) + exp(-x))


def gelu(x: F32) -> F32:
    """x/2 (1 + tanh(sqrt(2/pi) x (1 + 0.044715 x**2))) (ggml_gelu, without its half-precision table)."""
    with np.errstate(over="ignore"):
        inner = _GELU_B * x * (np.float32(1) + _GELU_A * x * x)
    return np.float32(0.5) * x * (np.float32(1) + tanh(inner))


def relu(x: F32) -> F32:
    """max(x, 0); adding zero makes -0 into 0, which of the two a maximum gives being up to the machine."""
    return np.maximum(x, np.float32(0)) + np.float32(0)


def relu_sqr(x: F32) -> F32:
    """max(x, 0)**2 (So et al. 2021, Primer)."""
    y = relu(x)
    return y * y


def log(x: F32) -> F32:
    """Natural logarithm of normal positive numbers: x = m 2**e with m in [sqrt(1/2), sqrt(2)), log m by polynomial."""
    m, e = np.frexp(x)
    small = m < _SQRT_HALF
    m = np.where(small, m + m, m) - np.float32(1)
    n = (e - small).astype(np.float32)
    z = m * m
    y: F32 = _polynomial(_LOG, m) * m * z + n * _LN2_LOW - np.float32(0.5) * z
    return m + y + n * _LN2_HIGH


def softplus(x: F32) -> F32:
    """log(1 + e**x) = max(x, 0) + log(1 + e**-|x|) (ggml_softplus).

    What 1 + e**-|x| loses in rounding is put back by a factor (Higham 2002, section 1.14.1).
    """
    small = exp(-np.abs(x))
    u = np.float32(1) + small
    lost = u == np.float32(1)
    kept = np.where(lost, np.float32(1), u - np.float32(1))
    log1p = np.where(lost, small, log(u) * (small / kept))
    return (np.maximum(x, np.float32(0)) + log1p).astype(np.float32, copy=False)
