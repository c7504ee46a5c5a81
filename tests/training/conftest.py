"""Fixtures of :mod:`training_models`. Nothing is downloaded."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # killed processes import training_models as well
import training_models as models


@pytest.fixture
def transformer(tmp_path):
    return models.transformer_model(tmp_path / "bert")


@pytest.fixture
def dropping_transformer(tmp_path):
    return models.transformer_model(tmp_path / "bert-dropout", dropout=0.3)


@pytest.fixture
def static():
    return models.static_model()


@pytest.fixture
def pair_texts():
    return models.pair_lists()
