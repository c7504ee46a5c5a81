"""The straight-through factorizer: what it gathers, when supports change, resuming to the same bits."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from leanmatch.compression import (
    STF,
    CompressionSpec,
    DenseSparseSpec,
    PruningSpec,
    Rule,
    STFSchedule,
    compressed_layers,
    factorize,
)
from leanmatch.compression.stf.factorizer import forget_moments, shadow_step
from leanmatch.errors import ModelError, UsageError

SPEC = DenseSparseSpec(block=8, atoms=12, nonzeros=2)
SCHEDULE = STFSchedule(every=3, freeze=0.5, share=0.2, step=0.5)


def build(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(16, 24), nn.Tanh(), nn.Linear(24, 8))
    factorize(model, CompressionSpec((Rule("*", SPEC),)), iterations=2)
    return model


def batch(step):
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(32, 16, generator=generator)
    return x, torch.tanh(x[:, :8] * x[:, 8:])


def train(model, stf, optimizer, steps):
    losses = []
    for step in steps:
        x, y = batch(step)
        loss = functional.mse_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if stf is not None:
            stf.step(optimizer)
        losses.append(float(loss.detach()))
    return losses


def supports(model):
    return {n: layer.factors.indices.clone() for n, layer in compressed_layers(model).items()}


def test_evidence_is_the_dense_gradient():
    model = build()
    STF(model, SCHEDULE, total_steps=10)
    matrix = model[0].factors
    x, y = batch(0)
    dense = nn.Sequential(nn.Linear(16, 24), nn.Tanh(), nn.Linear(24, 8))
    for layer, compressed in ((dense[0], model[0]), (dense[2], model[2])):
        layer.weight.data, layer.bias.data = compressed.weight.detach().clone(), compressed.bias.data.clone()
    functional.mse_loss(dense(x), y).backward()
    functional.mse_loss(model(x), y).backward()
    assert dense[0].weight.grad.abs().max() > 1e-4
    torch.testing.assert_close(matrix.evidence.total, dense[0].weight.grad, atol=1e-6, rtol=1e-4)
    # identity metric: power is the mean square of the gradient in each row and block
    power = dense[0].weight.grad.square().view(24, 2, 8).mean(2)
    torch.testing.assert_close(matrix.evidence.power, power, atol=1e-9, rtol=1e-3)


def test_the_shadow_steps_against_the_gradient_whatever_the_scale_of_the_loss():
    model = build()
    STF(model, SCHEDULE, total_steps=10)
    matrix, steps = model[0].factors, []
    gradient = torch.randn(24, 16, generator=torch.Generator().manual_seed(0))
    for scale in (1.0, 1000.0):
        matrix.evidence.reset()
        for _ in range(4):
            matrix.evidence.listen(scale * gradient)
        steps.append(shadow_step(matrix.weight().detach(), matrix.evidence, 0.5))
    torch.testing.assert_close(steps[0], steps[1], atol=1e-6, rtol=1e-4)
    blocks = functional.cosine_similarity(steps[0].reshape(-1, 8), -gradient.view(-1, 8), dim=1)
    assert blocks.min() > 0.999
    # four steps that agree: z is two standard deviations
    size = matrix.weight().detach().view(24, 2, 8).square().mean(2).sqrt()
    found = steps[0].reshape(24, 2, 8).square().mean(2).sqrt()
    torch.testing.assert_close(found, 0.5 * 2 * size, atol=1e-4, rtol=1e-3)


def test_supports_change_at_refreshes_and_are_final_after_the_freeze():
    model = build()
    start = supports(model)
    stf = STF(model, SCHEDULE, total_steps=24)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    train(model, stf, optimizer, range(2))
    assert all(torch.equal(start[n], s) for n, s in supports(model).items())
    train(model, stf, optimizer, range(2, 12))
    frozen = supports(model)
    assert any(not torch.equal(start[n], s) for n, s in frozen.items())
    assert [record["step"] for record in stf.history] == [3, 6, 9, 12]
    assert 0 < stf.history[0]["swapped"] <= 0.21
    assert all(layer.factors.evidence is None for layer in compressed_layers(model).values())
    train(model, stf, optimizer, range(12, 24))
    assert len(stf.history) == 4
    assert all(torch.equal(frozen[n], s) for n, s in supports(model).items())
    for indices in frozen.values():
        assert (indices.long().sort(2).values.diff(dim=2) > 0).all()


def test_a_run_that_resumes_ends_with_the_same_bits():
    whole = build()
    optimizer = torch.optim.AdamW(whole.parameters(), lr=1e-2)
    stf = STF(whole, SCHEDULE, total_steps=24)
    saved = {}
    for stop in (4, 14, 24):  # before and after the freeze
        train(whole, stf, optimizer, range(stf.steps, stop))
        saved[stop] = copy.deepcopy((whole.state_dict(), optimizer.state_dict()))
    for stop in (4, 14):
        again = build(seed=1)
        other = torch.optim.AdamW(again.parameters(), lr=1e-2)
        twin = STF(again, SCHEDULE, total_steps=24)
        again.load_state_dict(saved[stop][0])
        other.load_state_dict(saved[stop][1])
        assert twin.steps == stop
        assert not torch.equal(again[0].bias, whole[0].bias)
        train(again, twin, other, range(stop, 24))
        assert again.state_dict().keys() == saved[24][0].keys()
        for name, value in again.state_dict().items():
            assert torch.equal(value, saved[24][0][name]), name


def test_learned_supports_beat_frozen_ones():
    """A target that the first supports can't express: a sparse layer with other supports."""
    torch.manual_seed(0)
    spec = CompressionSpec((Rule("*", PruningSpec(block=8, nonzeros=2, value_bits=None)),))
    target = nn.Sequential(nn.Linear(16, 24))
    factorize(target, spec)
    truth = target[0].weight.detach()
    losses = {}
    for learned in (False, True):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(16, 24))
        factorize(model, spec)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
        schedule = STFSchedule(every=10, freeze=0.8, share=0.3, step=0.3)
        stf = STF(model, schedule, total_steps=400) if learned else None
        for step in range(400):
            x = torch.randn(64, 16, generator=torch.Generator().manual_seed(step))
            loss = functional.mse_loss(model(x), x @ truth.T)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if stf:
                stf.step(optimizer)
        losses[learned] = float(loss.detach())
    assert losses[False] > 0.01
    assert losses[True] < 0.3 * losses[False]


def test_moments_of_changed_entries_start_anew():
    weight = nn.Parameter(torch.ones(4))
    optimizer = torch.optim.Adam([weight])
    (weight * torch.tensor([1.0, 2.0, 3.0, 4.0])).sum().backward()
    optimizer.step()
    state = optimizer.state[weight]
    mean = state["exp_avg_sq"].mean()
    forget_moments(optimizer, weight, torch.tensor([True, False, False, False]))
    assert state["exp_avg"][0] == 0 < state["exp_avg"][1]
    assert state["exp_avg_sq"][0] == mean
    assert state["step"] == 1
    forget_moments(None, weight, torch.tensor([True, False, False, False]))


def test_refusals():
    with pytest.raises(ModelError, match="no factored linear layer"):
        STF(nn.Sequential(nn.Linear(2, 2)))
    stf = STF(build())
    with pytest.raises(UsageError, match="length of the run"):
        stf.step()
    for options, message in (
        ({"every": 0}, "every"),
        ({"freeze": 1.5}, "freeze"),
        ({"share": -1}, "share"),
        ({"margin": float("inf")}, "margin"),
        ({"step": -1}, "step"),
    ):
        with pytest.raises(UsageError, match=message):
            STFSchedule(**options)
