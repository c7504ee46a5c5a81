"""``auto``, ``cpu``, ``cuda``: names of devices to what torch calls them."""

from __future__ import annotations

import re

from leanmatch.errors import UsageError

DEVICES = ("auto", "cpu", "cuda")
"""What the command line offers; ``cuda:N`` names one of several."""


def resolve_device(device: str = "auto") -> str:
    """The torch device for a name: ``auto`` is CUDA where torch has it, else the CPU.

    Raises:
        UsageError: an unknown name, or a CUDA device that torch does not have here.
    """
    if device == "cpu":
        return device
    if device not in DEVICES and not re.fullmatch(r"cuda:\d+", device):
        raise UsageError(f"unknown device {device!r}", remedy=f"one of {', '.join(DEVICES)}, cuda:N")
    import torch

    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto":
        return "cuda" if there else "cpu"
    if int(device.partition(":")[2] or 0) >= there:
        raise UsageError(
            f"device {device!r} was asked for, torch sees {there} CUDA devices", remedy="use auto or cpu"
        )
    return device
