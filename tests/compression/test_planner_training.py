"""What makes the planner fast: batches of like length, layers beside one another, factors made once."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch
from compression_models import tiny_encoder, token_batch

from leanmatch.compression import DenseSparseSpec, convert, factorize
from leanmatch.compression.fitting.workers import in_parallel
from leanmatch.compression.patterns import default_spec
from leanmatch.compression.planner.training import STRETCH, Batches

LENGTHS = np.random.default_rng(0).integers(3, 200, 1000)


class TestBatches:
    def test_a_pass_holds_no_text_twice_and_passes_differ(self):
        batches = Batches(LENGTHS, 16, seed=1)
        each = len(LENGTHS) // 16
        passes = [np.concatenate([batches(step) for step in range(p * each, (p + 1) * each)]) for p in (0, 1)]
        for order in passes:
            assert len(order) == each * 16
            assert len(set(order.tolist())) == len(order)
        assert not np.array_equal(passes[0], passes[1])

    def test_what_a_step_gets_hangs_on_the_step_alone(self):
        """So that a run that is resumed sees the batches of an unbroken one."""
        forth, back = Batches(LENGTHS, 16, seed=1), Batches(LENGTHS, 16, seed=1)
        steps = (0, 1, 61, 62, 200)
        expected = [forth(step) for step in steps]
        found = [back(step) for step in reversed(steps)][::-1]
        assert all(np.array_equal(a, b) for a, b in zip(expected, found, strict=True))
        assert not np.array_equal(Batches(LENGTHS, 16, seed=2)(0), expected[0])

    def test_little_padding(self):
        batches = Batches(LENGTHS, 16, seed=1)
        rows = [LENGTHS[batches(step)] for step in range(len(LENGTHS) // 16)]
        padded = sum(len(part) * part.max() for part in rows)
        plain = LENGTHS.reshape(-1, 8)[: 16 * (len(LENGTHS) // 16) // 8].reshape(-1, 16)
        assert padded < 1.2 * sum(part.sum() for part in rows)
        assert padded < 0.7 * (16 * plain.max(1)).sum()
        assert STRETCH > 1

    def test_order_within_a_stretch_is_not_by_length(self):
        """Short texts first would be a curriculum that nobody asked for."""
        batches = Batches(LENGTHS, 16, seed=1)
        longest = [LENGTHS[batches(step)].max() for step in range(STRETCH)]
        assert longest != sorted(longest)

    @pytest.mark.parametrize(("texts", "size"), [(1, 64), (5, 64), (64, 64), (65, 64), (129, 64)])
    def test_few_texts(self, texts, size):
        batches = Batches(LENGTHS[:texts], size, seed=0)
        for step in range(5):
            rows = batches(step)
            assert len(rows) == min(texts, size)
            assert set(rows.tolist()) <= set(range(texts))

    def test_a_sample_goes_from_short_to_long(self):
        longest = [LENGTHS[rows].max() for rows in Batches(LENGTHS, 16, seed=1).sample(4)]
        assert longest == sorted(longest)
        assert longest[0] < np.median(LENGTHS) < longest[-1]


class TestBesideOneAnother:
    def test_in_order(self):
        assert list(in_parallel(lambda x: x + 1, range(50))) == list(range(1, 51))

    def test_an_error_is_the_callers_and_ends_the_work(self):
        begun: list[int] = []

        def work(item: int) -> int:
            begun.append(item)
            if item == 1:
                raise ValueError("layer 1")
            time.sleep(0.001)
            return item

        with pytest.raises(ValueError, match="layer 1"):
            list(in_parallel(work, range(5_000)))
        assert len(begun) < 5_000
        assert not [t for t in threading.enumerate() if t.name.startswith("ThreadPoolExecutor")]

    def test_a_caller_who_stops_listening_ends_it(self):
        begun: list[int] = []

        def work(item: int) -> None:
            begun.append(item)
            time.sleep(0.001)

        results = in_parallel(work, range(5_000))
        next(results)
        results.close()
        assert len(begun) < 5_000


class TestFactorCache:
    spec_of = staticmethod(lambda model: default_spec(model, DenseSparseSpec(block=8, atoms=8, nonzeros=2)))

    def test_the_second_time_nothing_is_factored_and_the_model_is_equal(self, monkeypatch):
        cache: dict = {}
        first, second = tiny_encoder("bert"), tiny_encoder("bert")
        factorize(first, self.spec_of(first), cache=cache)
        assert cache
        monkeypatch.setattr(convert, "fit_layers", lambda *_, **__: pytest.fail("factored again"))
        factorize(second, self.spec_of(second), cache=cache)
        batch = token_batch()
        with torch.no_grad():
            assert torch.equal(first(**batch).last_hidden_state, second(**batch).last_hidden_state)

    def test_training_a_model_does_not_reach_the_cache(self):
        cache: dict = {}
        first, second = tiny_encoder("bert"), tiny_encoder("bert")
        factorize(first, self.spec_of(first), cache=cache)
        batch = token_batch()
        with torch.no_grad():
            expected = first(**batch).last_hidden_state
            for parameter in first.parameters():
                parameter.add_(1.0)
            factorize(second, self.spec_of(second), cache=cache)
            assert torch.equal(second(**batch).last_hidden_state, expected)

    def test_other_specifications_are_made_anew(self):
        cache: dict = {}
        for nonzeros in (2, 3):
            model = tiny_encoder("bert")
            factorize(
                model, default_spec(model, DenseSparseSpec(block=8, atoms=8, nonzeros=nonzeros)), cache=cache
            )
        assert len({layer.nonzeros for _, layer, *_ in cache}) == 2
