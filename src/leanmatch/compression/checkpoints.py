"""State of a training run in a file: whole or not there at all, and loaded without running code."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from leanmatch.files import atomic_file


def save_state(path: Path, state: Any) -> None:
    """Save tensors and plain values, atomically; a full disk is an ``OSError``."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    with atomic_file(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def load_state(path: Path) -> Any:
    """What :func:`save_state` wrote, on the CPU."""
    return torch.load(path, map_location="cpu", weights_only=True)
