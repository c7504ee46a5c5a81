from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture
def shared_data() -> Path:
    """The folder of real data, which is not part of the project."""
    folder = Path(
        os.environ.get("LEANMATCH_SHARED_DATA", Path(__file__).parents[2].parent / "shared" / "data")
    )
    if not folder.is_dir():
        pytest.skip(f"NO REAL DATA at {folder}: set LEANMATCH_SHARED_DATA")
    return folder
