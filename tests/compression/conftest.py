"""Fixtures of tiny models. Nothing is downloaded."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "training"))


@pytest.fixture
def matcher(tmp_path):
    """A tiny SentenceTransformer over BERT."""
    import training_models

    return training_models.transformer_model(tmp_path / "bert")


@pytest.fixture
def texts():
    import training_models

    anchors, positives = training_models.pair_lists()
    return anchors + positives
