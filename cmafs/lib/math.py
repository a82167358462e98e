"""Integers rounded to multiples. Kernel: ``include/linux/math.h``."""

from __future__ import annotations


def round_down(x: int, y: int) -> int:
    """The kernel's round_down(): a mask, and so as wrong as there for what is no power of two."""
    return x & ~(y - 1)


def round_up(x: int, y: int) -> int:
    """The kernel's round_up(), likewise a mask."""
    return ((x - 1) | (y - 1)) + 1


def rounddown(x: int, y: int) -> int:
    """The largest multiple of any ``y`` that is not above ``x``."""
    return x // y * y


def roundup(x: int, y: int) -> int:
    """The smallest multiple of any ``y`` that is not below ``x``."""
    return -(-x // y) * y


def div_round_up(n: int, d: int) -> int:
    """``DIV_ROUND_UP()``: how many times ``d`` hold ``n``."""
    return -(-n // d)
