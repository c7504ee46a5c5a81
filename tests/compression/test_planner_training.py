"""What makes the planner fast: parts of like length, layers beside one another, factors made once."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch
from compression_models import tiny_encoder, token_batch

from leanmatch.compression import DenseSparseSpec, convert, factorize
from leanmatch.compression.fitting.workers import in_parallel
from leanmatch.compression.layers import FactoredLinear
from leanmatch.compression.matrices import FactoredMatrix
from leanmatch.compression.patterns import default_spec
from leanmatch.compression.planner import tasks, training
from leanmatch.compression.planner.tasks import by_length, in_passes
from leanmatch.compression.planner.training import Batches, TrainingOptions
from leanmatch.factorization import DenseSparse

TEXTS = 1000


class TestBatches:
    def test_a_pass_holds_no_text_twice_and_passes_differ(self):
        batches = Batches(TEXTS, 16, seed=1)
        each = TEXTS // 16
        passes = [np.concatenate([batches(step) for step in range(p * each, (p + 1) * each)]) for p in (0, 1)]
        for order in passes:
            assert len(order) == each * 16
            assert len(set(order.tolist())) == len(order)
        assert not np.array_equal(passes[0], passes[1])

    def test_what_a_step_gets_hangs_on_the_step_alone(self):
        """So that a run that is resumed sees the batches of an unbroken one."""
        forth, back = Batches(TEXTS, 16, seed=1), Batches(TEXTS, 16, seed=1)
        steps = (0, 1, 61, 62, 200)
        expected = [forth(step) for step in steps]
        found = [back(step) for step in reversed(steps)][::-1]
        assert all(np.array_equal(a, b) for a, b in zip(expected, found, strict=True))
        assert not np.array_equal(Batches(TEXTS, 16, seed=2)(0), expected[0])
        later = Batches(TEXTS, 16, seed=1, begin=2)
        assert np.array_equal(later(0), forth(2)) and np.array_equal(later(59), expected[2])

    def test_the_first_pass_does_not_begin_with_the_texts_of_the_first_factors(self):
        """numpy.random.default_rng([0, 0]) draws what default_rng(0) does."""
        fitted = set(np.random.default_rng(0).permutation(TEXTS)[:200].tolist())
        batches = Batches(TEXTS, 16, seed=0)
        first = np.concatenate([batches(step) for step in range(10)])
        assert 10 < len(fitted & set(first.tolist())) < 60, "a fifth, by chance"

    @pytest.mark.parametrize(("texts", "size"), [(1, 64), (5, 64), (64, 64), (65, 64), (129, 64)])
    def test_few_texts(self, texts, size):
        batches = Batches(texts, size, seed=0)
        for step in range(5):
            rows = batches(step)
            assert len(rows) == min(texts, size)
            assert set(rows.tolist()) <= set(range(texts))


def loss_of(hidden):
    """Of random sign for each number: a LayerNorm's outputs have constant squares."""
    return (hidden * torch.arange(hidden.numel()).sin().view_as(hidden)).sum()


class TestPartsOfABatch:
    def test_each_layer_is_decoded_once_and_gradients_are_those_of_the_whole_batch(self, monkeypatch):
        encoder = tiny_encoder("bert").eval()
        factorize(
            encoder, default_spec(encoder, DenseSparseSpec(block=8, atoms=16, nonzeros=2)), iterations=1
        )
        ids, decoded = token_batch(), []
        weight = FactoredMatrix.weight
        monkeypatch.setattr(FactoredMatrix, "weight", lambda self: decoded.append(self) or weight(self))

        def gradients(run):
            encoder.zero_grad()
            loss_of(run()).backward()
            return {name: p.grad.clone() for name, p in encoder.named_parameters() if p.grad is not None}

        def hidden(rows):
            return encoder(**{n: v[rows] for n, v in ids.items()}).last_hidden_state

        rows = np.arange(len(ids["input_ids"]))
        wanted = gradients(lambda: hidden(rows))
        layers = len(decoded)
        decoded.clear()
        shorter_and_shorter = ["x" * (len(rows) - row) for row in rows]
        found = gradients(lambda: by_length(encoder, rows, shorter_and_shorter, hidden))
        assert layers == len(decoded) == len(set(decoded)) > 0
        for name, gradient in wanted.items():
            torch.testing.assert_close(
                found[name], gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max()) + 1e-5
            )
        with torch.no_grad():
            torch.testing.assert_close(by_length(encoder, rows, shorter_and_shorter, hidden), hidden(rows))
        decoded.clear()
        hidden(rows), hidden(rows)
        assert len(decoded) == 2 * layers, "nothing is held afterwards"

    def test_recomputed_parts_decode_for_themselves(self, monkeypatch):
        encoder = tiny_encoder("bert").eval()
        factorize(
            encoder, default_spec(encoder, DenseSparseSpec(block=8, atoms=16, nonzeros=2)), iterations=1
        )
        ids = token_batch()
        rows = np.arange(len(ids["input_ids"]))

        def gradients():
            encoder.zero_grad()
            loss_of(
                by_length(
                    encoder,
                    rows,
                    ["x" * row for row in rows],
                    lambda part: in_passes(
                        encoder,
                        {n: v[part] for n, v in ids.items()},
                        lambda some: encoder(**some).last_hidden_state,
                    ),
                )
            ).backward()
            return {name: p.grad.clone() for name, p in encoder.named_parameters() if p.grad is not None}

        wanted = gradients()
        monkeypatch.setattr(tasks, "BATCH_BYTES", 1)
        found = gradients()
        for name, gradient in wanted.items():
            torch.testing.assert_close(
                found[name], gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max()) + 1e-5
            )


@pytest.mark.parametrize(("width", "rate"), [(32, 5e-4), (384, 5e-4), (768, 2.5e-4)])
def test_wide_models_train_at_lower_rates(width, rate):
    atoms, values = np.ones((1, 4, width), np.float32), np.ones((8, 1, 1), np.float32)
    matrix = FactoredMatrix(DenseSparse(atoms, np.zeros((8, 1, 1), np.uint8), values))
    model = torch.nn.Sequential(FactoredLinear(matrix, torch.zeros(8)))
    rates = [group["lr"] for group in training._optimizer(model, TrainingOptions()).param_groups]
    assert rates == [rate, 1e-4]


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
