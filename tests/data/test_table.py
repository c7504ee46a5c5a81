from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from leanmatch.data import PairTable
from leanmatch.errors import DataError

COLUMNS = {
    "anchor": ["a", "b", "c", "d"],
    "positive": ["w", "x", "y", "z"],
    "label": [1, 0, 1, 0],
    "split": ["train", "dev", "test", "validation"],
    "category": ["Toys", "Toys", None, "Games"],
    "negative_2": ["n2", None, "m2", None],
    "negative_1": ["n1", None, None, None],
}


def test_columns() -> None:
    table = PairTable.from_columns(COLUMNS)
    assert len(table) == 4 and table.has_labels and table.labels.dtype == np.int8
    assert table.negatives == [["n1", "n2"], [], ["m2"], []]
    assert table.slice_columns == ("category",)
    assert table.select_split("valid").anchors == ["b", "d"] == table.select_split("val").anchors
    assert table.relevant().anchors == ["a", "c"]
    assert table.take([2, 0]).positives == ["y", "w"]
    assert table.filter([True, False, False, True]).anchors == ["a", "d"]
    assert table.has("category") and not table.has("group")
    assert table.corpus is None


def test_without_labels_all_are_relevant() -> None:
    table = PairTable.from_columns({"anchor": ["a", "b"], "positive": ["c", "d"]})
    assert not table.has_labels and table.labels.tolist() == [1, 1]
    assert table.relevant().anchors == table.anchors and table.negatives == [[], []]


def test_labels_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        PairTable.from_columns(COLUMNS).labels[0] = 0


def test_identifiers_are_no_slices() -> None:
    count = 100
    table = PairTable.from_columns(
        {
            "anchor": ["a"] * count,
            "positive": ["b"] * count,
            "url": [str(i) for i in range(count)],
            "k": ["v"] * count,
        }
    )
    assert table.slice_columns == ("k",)


def test_errors() -> None:
    table = PairTable.from_columns(COLUMNS)
    with pytest.raises(DataError, match=r"'group'(.|\n)*anchor, positive, label, split, category"):
        table.column("group")
    with pytest.raises(DataError, match="row 4 of a table of 4 rows"):
        table.take([4])
    with pytest.raises(DataError, match="row -1"):
        table.take([-1])
    with pytest.raises(DataError, match=r"shape \(2,\)"):
        table.filter([True, False])
    with pytest.raises(DataError, match="int64"):
        table.filter([0, 1, 1, 0])
    with pytest.raises(DataError, match=r"'tran'(.|\n)*train, valid, test"):
        table.select_split("tran")
    with pytest.raises(DataError, match="no column 'split'"):
        PairTable.from_columns({"anchor": ["a"], "positive": ["b"]}).select_split("train")
    with pytest.raises(DataError, match="differ in length"):
        PairTable.from_columns({"anchor": ["a"], "positive": []})
    with pytest.raises(DataError, match="required column missing: positive"):
        PairTable.from_columns({"anchor": ["a"]})
    with pytest.raises(DataError, match="row 2 column 'anchor'"):
        PairTable.from_columns({"anchor": ["a", float("nan")], "positive": ["b", "c"]})


def test_fingerprint_depends_on_content_order_and_names_only() -> None:
    table = PairTable.from_columns(COLUMNS)
    arrow = table.to_arrow()
    chunked = pa.concat_tables([arrow.slice(0, 1), arrow.slice(1)])
    other_order = arrow.select(list(reversed(arrow.column_names)))
    assert PairTable.from_arrow(chunked).fingerprint() == table.fingerprint()
    assert PairTable.from_arrow(other_order, source="x").fingerprint() == table.fingerprint()
    changed = [
        table.take([1, 0, 2, 3]),
        table.take([0, 1, 2]),
        PairTable.from_columns(COLUMNS | {"category": ["Toys", "Toys", "x", "Games"]}),
        PairTable.from_columns({("group" if k == "category" else k): v for k, v in COLUMNS.items()}),
        PairTable.from_columns(COLUMNS | {"label": [1, 1, 1, 0]}),
        PairTable.from_columns(COLUMNS | {"anchor": [*["ab", "", "c", "d"][:1], "b", "c", "d"]}),
    ]
    prints = {table.fingerprint(), *(t.fingerprint() for t in changed)}
    assert len(prints) == len(changed) + 1


def test_concat() -> None:
    with_labels = PairTable.from_columns({"anchor": ["a"], "positive": ["b"], "label": [0]}, source="one")
    without = PairTable.from_columns({"anchor": ["c"], "positive": ["d"], "group": ["g"]}, source="two")
    both = PairTable.concat([with_labels, without])
    assert (
        both.labels.tolist() == [0, 1] and both.column("group") == [None, "g"] and both.source == "one + two"
    )
    with pytest.raises(DataError, match="no table"):
        PairTable.concat([])
    with pytest.raises(DataError, match="two has no column 'split'"):
        PairTable.concat([PairTable.from_columns(COLUMNS), without])


CLICKS = {
    "query": ["usb c dock", "hdmi"],
    "title": ["docking station", "cable"],
    "clicked": [1, 0],
    "shop": ["A", "B"],
}
CLICK_COLUMNS = {"anchor": "query", "positive": "title", "label": "clicked"}


def test_pandas_frames_are_read() -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = pandas.DataFrame(CLICKS, index=[7, 9])
    table = PairTable.from_pandas(frame, "clicks", columns=CLICK_COLUMNS)
    assert table.column_names == ("anchor", "positive", "label", "shop") and table.source == "clicks"
    assert table.anchors == CLICKS["query"] and table.labels.tolist() == [1, 0]
    with pytest.raises(DataError, match="no column 'qery' to read as 'anchor'") as failure:
        PairTable.from_pandas(frame, columns={"anchor": "qery"})
    assert "query, title, clicked, shop" in str(failure.value)
    with pytest.warns(UserWarning, match="Reading query as anchor, title as positive, clicked as label"):
        assert PairTable.from_pandas(frame).columns_read == {
            "anchor": "query",
            "positive": "title",
            "label": "clicked",
        }
    frame.loc[9, "title"] = float("nan")
    with pytest.raises(DataError, match=r"row 2 column 'positive'"):
        PairTable.from_pandas(frame, columns=CLICK_COLUMNS)
    assert len(PairTable.from_pandas(frame, columns=CLICK_COLUMNS, on_error="skip")) == 1


def test_datasets_go_in_and_come_out() -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    dataset = datasets.Dataset.from_dict(CLICKS).select([1, 0])
    table = PairTable.from_dataset(dataset, columns=CLICK_COLUMNS)
    assert table.anchors == ["hdmi", "usb c dock"]
    assert table.to_dataset().to_dict() == table.to_arrow().to_pydict()
