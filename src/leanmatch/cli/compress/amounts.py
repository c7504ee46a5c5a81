"""Shares, ratios and sizes as people write them."""

from __future__ import annotations

import math
import re

from leanmatch.errors import UsageError

UNITS = {"": 1, "b": 1, "kb": 1000, "mb": 1000**2, "gb": 1000**3, "kib": 1024, "mib": 1024**2, "gib": 1024**3}


def parse_share(text: str) -> float:
    """A share above 0 and at most 1: 0.99 or 99%.

    Raises:
        UsageError: none of that; of 99 the message says how it was probably meant.

    >>> parse_share("99%"), parse_share("0.99")
    (0.99, 0.99)
    """
    percent = text.strip().endswith("%")
    number = _number("keep", text.strip().removesuffix("%"), "a share such as 0.99 or 99%")
    share = number / 100 if percent else number
    if not 0 < share <= 1:
        meant = number if 2 <= number <= 100 else 99.0
        raise UsageError(
            f"--keep is {text}, but a share is above 0 and at most 1",
            remedy=f"--keep {meant / 100:g} or --keep {meant:g}%",
        )
    return share


def parse_ratio(text: str, option: str = "macs") -> float:
    """How many times fewer, or faster: 2.67x or 2.67.

    >>> parse_ratio("2.67x")
    2.67
    """
    return _number(option, text.lower().removesuffix("x"), "a ratio such as 2.67x")


def parse_size(text: str) -> int:
    """Bytes: 10MB is ten million, 10MiB 10 * 2^20.

    >>> parse_size("10MB"), parse_size("1.5 KiB"), parse_size("9000")
    (10000000, 1536, 9000)
    """
    match = re.fullmatch(r"\s*([0-9.]+)\s*([a-zA-Z]*)\s*", text)
    unit = match[2].lower() if match else "?"
    if match is None or unit not in UNITS:
        raise UsageError(
            f"--size must be a size such as 10MB (found {text!r})", remedy="for example --size 10MB"
        )
    return int(_number("size", match[1], "a size such as 10MB") * UNITS[unit])


def _number(name: str, text: str, wanted: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(f"--{name} must be {wanted} (found {text!r})")
    return number
