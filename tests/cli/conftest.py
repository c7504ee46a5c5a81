"""A tiny BERT and pairs for it, for ``leanmatch compress``. Nothing is downloaded."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Folder of the dense model."""
    import training_models

    folder = tmp_path_factory.mktemp("base")
    model = training_models.transformer_model(folder / "source")
    model.save_pretrained(str(folder / "bert"), create_model_card=False)
    return folder / "bert"


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """File of pairs with a split."""
    import training_models
    from leanmatch.data import PairTable, write_pairs

    anchors, positives = training_models.pair_lists()
    path = tmp_path_factory.mktemp("data") / "pairs.csv"
    split = ["train" if row % 3 else "valid" if row % 2 else "test" for row in range(len(anchors))]
    write_pairs(PairTable.from_columns({"anchor": anchors, "positive": positives, "split": split}), path)
    return path
