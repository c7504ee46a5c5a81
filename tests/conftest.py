"""Fixtures that several test modules share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data(repository: Path) -> Path:
    """The folder of real data beside the checkout (or LEANMATCH_SHARED_DATA); skips where there is none."""
    folder = Path(os.environ.get("LEANMATCH_SHARED_DATA") or repository.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"real data: no folder {folder} (set LEANMATCH_SHARED_DATA)")
    return folder
