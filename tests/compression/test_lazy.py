"""Importing the package brings no torch; every public name is there."""

from __future__ import annotations

import subprocess
import sys

import pytest

import leanmatch.compression


def test_specifications_need_no_torch():
    code = (
        "import sys; from leanmatch.compression import CompressionSpec, DenseSparseSpec, Rule; "
        "CompressionSpec((Rule('*', DenseSparseSpec()),)).to_json(); "
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_public_name_is_there():
    assert len(leanmatch.compression.__all__) > 20
    for name in leanmatch.compression.__all__:
        assert getattr(leanmatch.compression, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = leanmatch.compression.nothing
