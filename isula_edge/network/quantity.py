"""Kubernetes quantities: ``10M``, ``1.5Gi``, ``2e6``."""

from __future__ import annotations

import re

from isula_edge import errors

__all__ = ["parse_quantity"]

_FORM = re.compile(
    r"\+?([0-9]*)(?:\.([0-9]*))?"
    r"(?:([numkMGTPE])|([KMGTPE])i|[eE]([+-]?[0-9]{1,3}))?"
)
_TENS = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_LARGEST = (1 << 63) - 1


def parse_quantity(text: str) -> int:
    """The whole number that ``text`` means, a fraction rounded up.

    Raises InvalidArgument for what is no quantity, is negative or exceeds 63 bits.
    """
    found = _FORM.fullmatch(text)
    whole, fraction = (found[1], found[2] or "") if found else ("", "")
    if found is None or not whole + fraction or len(text) > 64:
        raise errors.InvalidArgument(f"invalid quantity: {text!r}", ref=text)
    tens = (_TENS[found[3]] if found[3] else int(found[5] or 0)) - len(fraction)
    value = int(whole + fraction)
    if found[4]:
        value <<= 10 * ("KMGTPE".index(found[4]) + 1)
    scale: int = 10 ** abs(tens)
    value = value * scale if tens >= 0 else -(-value // scale)
    if value > _LARGEST:
        raise errors.InvalidArgument(f"the quantity is too large: {text!r}", ref=text)
    return value
