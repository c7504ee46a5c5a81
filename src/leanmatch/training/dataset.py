"""From a pair table to the text columns that a loss is fed with."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from leanmatch.errors import DataError
from leanmatch.training.negatives import (
    MIN_COVERAGE,
    coverage,
    fill_negatives,
    given_negatives,
    mined_negatives,
)

if TYPE_CHECKING:
    from datasets import Dataset

    from leanmatch.data import PairTable
    from leanmatch.training.options import TrainOptions


def training_dataset(table: PairTable, options: TrainOptions, base_model: Any) -> tuple[Dataset, list[str]]:
    """Columns ``anchor, positive[, negative_1 ...]`` of the rows with label 1.

    Returns:
        The data set, and remarks for the user (which negatives were used).

    Raises:
        DataError: fewer than two positives.
    """
    from datasets import Dataset

    relevant = table.relevant()
    if len(relevant) < 2:
        raise DataError(
            f"{len(relevant)} training pairs with label 1 are too few",
            path=table.source,
            remedy="check the split, hold_out and the label column",
            command="check the split, --hold-out and the label column",
        )
    anchors, positives = relevant.anchors, relevant.positives
    columns = {"anchor": anchors, "positive": positives}
    remarks = []
    if options.negatives != "none":
        count = options.negatives_per_anchor
        if options.negatives == "mined":
            negatives = mined_negatives(base_model, anchors, positives, count)
        else:
            negatives = given_negatives(table)
        share = coverage(anchors, positives, negatives)
        if options.negatives == "mined" or share >= MIN_COVERAGE:
            extra = fill_negatives(anchors, positives, negatives, count, options.schedule.seed)
            columns.update({f"negative_{i + 1}": column for i, column in enumerate(extra)})
            remarks.append(f"{options.negatives} negatives: {share:.0%} of the pairs have their own")
        elif share > 0:
            remarks.append(f"given negatives are not used: only {share:.0%} of the pairs have one")
    return Dataset.from_dict(columns), remarks


def most_repeated(dataset: Dataset) -> int:
    """How many rows the commonest text stands in.

    No batch holds a text twice, so an epoch has at least as many batches.
    """
    columns = dataset[:].values()  # a column by itself would be read row by row
    return max(Counter(text for row in zip(*columns, strict=True) for text in set(row)).values())


def fewest_distinct(dataset: Dataset) -> tuple[str, int]:
    """The column with the fewest distinct texts, and how many it has."""
    return min(((name, len(set(texts))) for name, texts in dataset[:].items()), key=lambda pair: pair[1])
