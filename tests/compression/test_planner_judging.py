"""What a model is judged by: a search among held-out texts and distractors."""

from __future__ import annotations

import numpy as np
import pytest

from leanmatch.compression.planner import tasks
from leanmatch.compression.planner.evidence import Judgement, load_judgement, save_judgement
from leanmatch.compression.planner.tasks import Matching
from leanmatch.data import PairTable
from leanmatch.metrics.encoding import SideVectors


class Table:
    """A model of given vectors, without anything to train."""

    def __init__(self, vectors):
        self.vectors = vectors

    def modules(self):
        return []

    def eval(self):
        pass


def cosine(degrees):
    return [np.cos(np.radians(degrees)), np.sin(np.radians(degrees))]


def test_a_training_text_that_comes_nearer_in_the_compressed_model_costs_a_rank():
    """Degrees from the query: its match 20, a training text 25; compressed they change places."""
    held_out = PairTable.from_columns({"anchor": ["q", "r"], "positive": ["match of q", "match of r"]})
    train = PairTable.from_columns({"anchor": ["a", "q"], "positive": ["between", "another match of q"]})
    degrees = {"q": 0, "match of q": 20, "between": 25, "r": 180, "match of r": 190, "another match of q": 1}
    models = [
        Table({text: cosine(angle) for text, angle in (degrees | change).items()})
        for change in ({}, {"match of q": 25, "between": 20})
    ]

    def encoder_of(model):
        return lambda texts: np.array([model.vectors[text] for text in texts], np.float32)

    def kept(**options):
        task = Matching(["a", "b"], held_out, encoder_of=encoder_of, **options)
        dense, compressed = (task.judge(model) for model in models)
        assert dense.scores.tolist() == [1.0, 1.0]
        return compressed.scores.tolist(), task.candidates

    assert kept() == ([1.0, 1.0], 2)
    assert kept(train=train) == ([0.5, 1.0], 3)


def test_only_held_out_texts_say_how_far_vectors_moved():
    """A model reproduces the training texts that it was trained on, and turns all others by 10 degrees."""
    held_out = PairTable.from_columns({"anchor": ["q", "r"], "positive": ["match of q", "match of r"]})
    train = PairTable.from_columns(
        {"anchor": [f"query {n}" for n in range(50)], "positive": [f"thing number {n}" for n in range(50)]}
    )
    angles = {"q": 0, "match of q": 20, "r": 180, "match of r": 200}
    held = set(angles)
    angles |= {f"{kind} {n}": 30 + n for kind in ("query", "thing number") for n in range(50)}
    models = [
        Table({text: cosine(angle + turn * (text in held)) for text, angle in angles.items()})
        for turn in (0, 10)
    ]

    def encoder_of(model):
        return lambda texts: np.array([model.vectors[text] for text in texts], np.float32)

    task = Matching(["a", "b"], held_out, encoder_of=encoder_of, train=train)
    assert task.candidates > 40
    found = task.evidence(*(task.judge(model) for model in models))
    assert found["texts"] == 4
    assert found["moved"] == pytest.approx(1 - np.cos(np.radians(10)), abs=1e-6)


def test_the_search_is_as_large_as_its_time_allows_and_stays_so(monkeypatch):
    count, clock = 3000, [0.0]
    train = PairTable.from_columns(
        {
            "anchor": [f"query {n}" for n in range(count)],
            "positive": [f"thing number {n}" for n in range(count)],
        }
    )
    held_out = PairTable.from_columns({"anchor": ["q"], "positive": ["its match"]})

    def encoder_of(model):
        def encode(texts):
            clock[0] += 0.04 * len(texts)  # processor seconds
            return np.ones((len(texts), 1), np.float32)

        return encode

    monkeypatch.setattr(tasks.time, "process_time", lambda: clock[0])
    monkeypatch.setattr(tasks, "usable_cpus", lambda: 4)

    def task():
        return Matching(["a", "b"], held_out, encoder_of=encoder_of, train=train)

    pool = len(task()._pool)
    assert pool == count
    for seconds, former, expected in (
        (15.0, None, 1500),
        (1.0, None, tasks.FEWEST_DISTRACTORS),
        (1e9, None, pool),
        (np.inf, None, pool),
        (15.0, 1200, 1200),
    ):
        made = task()
        assert made.prepare(None, seconds, former) == pytest.approx(expected, abs=1)
        assert made.candidates == pytest.approx(expected + 1, abs=1)


@pytest.mark.parametrize("kind", ["alike", "by role", "none"])
def test_a_judgement_is_kept_to_the_bit(tmp_path, kind):
    rng = np.random.default_rng(0)
    queries, documents = rng.standard_normal((2, 5, 3)).astype(np.float32)
    vectors = {
        "alike": SideVectors(queries, queries),
        "by role": SideVectors(queries, documents),
        "none": None,
    }
    given = Judgement(rng.random(4), vectors[kind])
    save_judgement(tmp_path / "dense.safetensors", given)
    found = load_judgement(tmp_path / "dense.safetensors")
    assert np.array_equal(found.scores, given.scores) and found.scores.dtype == np.float64
    if given.vectors is None:
        assert found.vectors is None
    else:
        assert (found.vectors.documents is found.vectors.queries) == (kind == "alike")
        assert all(np.array_equal(a, b) for a, b in zip(found.vectors, given.vectors, strict=True))
