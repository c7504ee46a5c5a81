"""Diagnoses of the planted case, made once."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip(
    "sentence_transformers", reason="the train extra (sentence-transformers) is not installed"
)
sys.path.insert(0, str(Path(__file__).parent))
import report_models as planted

from leanmatch.metrics import EvaluationOptions
from leanmatch.report import DiagnoseOptions, diagnose

OPTIONS = DiagnoseOptions(resamples=200, shown=60)
EVALUATION = EvaluationOptions(slices=("site",), hold_out=("site=toys",), resamples=200)


@pytest.fixture(scope="session")
def table():
    return planted.planted_table(160, seed=1)


@pytest.fixture(scope="session")
def base():
    return planted.base_matcher()


@pytest.fixture(scope="session")
def plain(table, base):
    """What plain fine-tuning did."""
    model = planted.fine_tuned(0)
    return diagnose(model, table, against=base, options=OPTIONS, evaluation=EVALUATION, name="plain")


@pytest.fixture(scope="session")
def regularized(table, base):
    """What fine-tuning with ITVReg did."""
    model = planted.fine_tuned(3)
    return diagnose(model, table, against=base, options=OPTIONS, evaluation=EVALUATION, name="itv")
