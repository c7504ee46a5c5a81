"""Makes :mod:`factor_examples` importable, and pins each instruction-set level in turn."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from leanmatch.factorization.pursuit import native as pursuit
from leanmatch.native import LIMIT_VARIABLE, variants

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(params=pursuit.LEVELS)
def each_level(request, monkeypatch):
    """The test runs once at every level that the machine has."""
    monkeypatch.delenv(LIMIT_VARIABLE, raising=False)
    variant = variants().get(request.param)
    if variant is None or not variant.runs:
        pytest.skip(f"no level {request.param} here: {variant and variant.why_not}")
    monkeypatch.setenv(LIMIT_VARIABLE, request.param)
    assert pursuit.level() == request.param
    return request.param
