"""What expressions calculate: the arithmetic of a server, whose integers have 64 bits. Pure.

Results may have more bits, or be no number: what calls these functions wraps the one and knows nothing of the other.
"""

import math
from typing import Any

_BITS = 64
_MODULUS = 1 << _BITS


def exactly_one(*values: bool) -> bool:
    """Whether one of the values is true, and no other."""
    return sum(values) == 1


def add(*values: Any) -> Any:
    """The sum."""
    return sum(values)


def subtract(first: Any, *others: Any) -> Any:
    """The first less all the others; a single one is negated."""
    return first - sum(others) if others else -first


def multiply(*values: Any) -> Any:
    """The product."""
    return math.prod(values)


def divide(first: Any, *others: Any) -> Any:
    """The first over all the others; a single one is inverted. Raises ZeroDivisionError for integers."""
    divisor = math.prod(others) if others else first
    dividend = first if others else 1
    if isinstance(divisor, float):
        return dividend / divisor if divisor else math.copysign(math.inf, divisor) * dividend
    return _quotient(dividend, divisor)


def _quotient(dividend: int, divisor: int) -> int:
    """Integer division rounds toward zero, as in C."""
    quotient = abs(dividend) // abs(divisor)
    return quotient if (dividend < 0) == (divisor < 0) else -quotient


def modulo(dividend: int, divisor: int) -> int:
    """What division leaves; with the sign of the dividend."""
    return dividend - divisor * _quotient(dividend, divisor)


def floor(value: float) -> float:
    """The next whole number below."""
    return float(math.floor(value))


def ceiling(value: float) -> float:
    """The next whole number above."""
    return float(math.ceil(value))


def shift_left(value: int, by: int) -> int:
    """Bits moved up; as a processor does it, by less than all of them."""
    return value << by % _BITS


def shift_right(value: int, by: int) -> int:
    """Bits moved down, zeros moved in."""
    return value % _MODULUS >> by % _BITS


def shift_right_signed(value: int, by: int) -> int:
    """Bits moved down, the sign kept."""
    return value >> by % _BITS


def count_ones(value: int) -> int:
    """How many bits are set."""
    return (value % _MODULUS).bit_count()


def first_bit(value: int, bit: bool) -> int:
    """The place, from the left, of the first bit with a value; -1 if there is none."""
    found = (value if bit else ~value) % _MODULUS
    return _BITS - found.bit_length() if found else -1


def last_bit(value: int, bit: bool) -> int:
    """The place, from the left, of the last bit with a value; -1 if there is none."""
    found = (value if bit else ~value) % _MODULUS
    return _BITS - (found & -found).bit_length() if found else -1
