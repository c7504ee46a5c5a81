"""A diagnosis that was killed goes on where it was, and ends with the same numbers."""

from __future__ import annotations

import numpy as np
import pytest

from leanmatch.data import PairTable
from leanmatch.report import DiagnoseOptions, diagnose
from leanmatch.report.kept import KeptVectors

WORDS = [f"w{i}" for i in range(30)]


class Model:
    """Bag of hashed words; dies after ``alive`` texts."""

    def __init__(self, seed, alive=10**9):
        self.table = np.random.default_rng(seed).standard_normal((30, 16)).astype(np.float32)
        self.alive, self.encoded = alive, 0

    def __call__(self, texts):
        self.encoded += len(texts)
        if self.encoded > self.alive:
            raise KeyboardInterrupt
        vectors = np.zeros((len(texts), 16), np.float32)
        for row, text in enumerate(texts):
            for word in text.split():
                vectors[row] += self.table[int(word[1:])]
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


@pytest.fixture
def table():
    draw = np.random.default_rng(0)
    texts = [" ".join(f"w{w}" for w in draw.integers(0, 30, 6)) for _ in range(240)]
    return PairTable.from_columns({"anchor": texts[:120], "positive": texts[120:]})


def without_options(found):
    return {name: value for name, value in found.to_json().items() if name != "options"}


def test_a_killed_run_goes_on_and_ends_alike(table, tmp_path, monkeypatch):
    monkeypatch.setattr("leanmatch.interventions.scoring.CHUNK_EDITS", 64)
    options = DiagnoseOptions(budget=50_000, max_pairs=60, shown=20)
    whole = [Model(1), Model(2)]
    expected = diagnose(whole[0], table, against=whole[1], options=options)
    killed = [Model(1), Model(2, alive=600)]
    kept = KeptVectors(tmp_path / "work", ("one", "two"))
    with pytest.raises(KeyboardInterrupt):
        diagnose(killed[0], table, against=killed[1], options=options, kept=kept)
    assert list((tmp_path / "work").glob("*.npy"))
    again = [Model(1), Model(2)]
    found = diagnose(
        again[0], table, against=again[1], options=options, kept=KeptVectors(kept.folder, kept.models)
    )
    assert without_options(found) == without_options(expected)
    assert again[0].encoded < 0.5 * whole[0].encoded, "the first model had been through"
    kept.remove()
    assert not (tmp_path / "work").exists()


def test_vectors_of_another_model_or_damaged_ones_are_not_taken(tmp_path):
    texts = ["w1 w2", "w3"]
    first = KeptVectors(tmp_path / "work", ("one", "two"))
    expected = first.by_role(0, Model(1), progress=None).encode_query(texts)
    other = KeptVectors(tmp_path / "work", ("three", "two"))
    assert not np.allclose(other.by_role(0, Model(5), progress=None).encode_query(texts), expected)
    for file in (tmp_path / "work").glob("*.npy"):
        file.write_bytes(file.read_bytes()[:-7])
    np.testing.assert_array_equal(first.by_role(0, Model(1), progress=None).encode_query(texts), expected)


def test_lists_that_join_to_the_same_text_have_vectors_of_their_own(tmp_path):
    kept = KeptVectors(tmp_path / "work")
    encode = kept.by_role(0, Model(1), progress=None).encode_query
    one, other = encode(["w1 w2", "w3"]), encode(["w1", "w2 w3"])
    np.testing.assert_array_equal(other, Model(1)(["w1", "w2 w3"]))
    assert not np.array_equal(one, other)


def test_the_number_of_tokens_that_fit_is_that_of_the_killed_run(table, tmp_path, monkeypatch):
    from leanmatch.report import diagnosis
    from leanmatch.report.timing import Pace

    kept = KeptVectors(tmp_path / "work")
    budgets = []
    for seconds in (0.01, 0.001):
        monkeypatch.setattr(diagnosis, "measure_pace", lambda *given, seconds=seconds: Pace(seconds, 40.0))
        said = []
        found = diagnose(
            *(Model(1), table),
            against=Model(2),
            kept=kept,
            report=said.append,
            options=DiagnoseOptions(minutes=0.5),
        )
        budgets.append(found.options.budget)
        assert any("tokens for each of 2 models" in message for message in said)
    assert budgets == [2000, 2000]
    assert any("too few to name one: give it more time" in line for line in found.advice)
    other = diagnose(Model(1), table, against=Model(2), kept=kept, options=DiagnoseOptions(minutes=0.6))
    assert other.options.budget == 24000, "other options are another run"


def test_punctuation_gains_nothing(table):
    import dataclasses

    found = diagnose(Model(1), table, against=Model(2), options=DiagnoseOptions(budget=9_000, min_pairs=2))
    assert found.gained() or found.lost()
    dashes = tuple(dataclasses.replace(word, word="-,") for word in found.words)
    only = dataclasses.replace(found, words=dashes)
    assert not only.gained() and not only.lost() and not only.spoken()
