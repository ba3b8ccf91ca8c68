"""Arithmetic that gives the same bits on every machine.

Sums of floating-point numbers depend on their order, and the order on the processor and its
libraries. Here every factor is rounded to a grid (a multiple of a power of two) that is coarse
enough for every product and every sum to be exact in float64. Exact sums have no order, so BLAS
may do as it likes. What is left are single operations, each rounded as IEEE 754 says.
"""

import numpy as np

# Bits after the binary point, and what keeps magnitudes small.
WEIGHT_BITS, WEIGHT_MAX = 12, 7.0
ACTIVATION_BITS, ACTIVATION_MAX = 10, 63.0
GRADIENT_BITS, GRADIENT_MAX = 18, 63.0

SIGNIFICAND_BITS = 53


def to_grid(values, bits, maximum):
    """Rounds to multiples of 2**-bits, within +-maximum."""
    return np.clip(np.rint(values * 2.0**bits) * 2.0**-bits, -maximum, maximum)


def matmul(left, left_bits, right, right_bits):
    """left @ right, exactly; refuses factors for which that cannot be promised."""
    largest = float(np.abs(left).max()) * float(np.abs(right).max()) * left.shape[-1]
    if largest * 2.0 ** (left_bits + right_bits) >= 2.0**SIGNIFICAND_BITS:
        raise OverflowError(f"a sum of up to {largest} does not fit the significand")
    return left @ right


def exp(values):
    """e to the power of values <= 0, by operations that IEEE 754 fixes (np.exp is not among them)."""
    small = np.maximum(values, -60.0) / 256.0
    series = np.ones_like(small)
    for term in range(10, 0, -1):
        series = 1.0 + small / term * series
    for _ in range(8):
        series = series * series
    return series


def softmax(logits):
    """Probabilities along the last axis."""
    powers = exp(logits - logits.max(axis=-1, keepdims=True))
    total = np.zeros(powers.shape[:-1])
    for column in range(powers.shape[-1]):
        total = total + powers[..., column]
    return powers / total[..., None]
