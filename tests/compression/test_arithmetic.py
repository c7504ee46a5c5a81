"""Decoding, fake quantization, pursuit and changes of support against slow references."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch.nn import functional

from leanmatch.compression.decode import bag_decode, decode, scatter_decode
from leanmatch.compression.pursuit import project, project_torch, pursue, pursue_torch
from leanmatch.compression.quantize import fake_quantize, quantize
from leanmatch.compression.solvers import (
    block_metric,
    blocks_of,
    fit_dense_sparse,
    fit_low_rank,
    fit_nm,
    rank_for,
    rows_of,
    update_atoms,
)
from leanmatch.compression.support import drop_costs, gram_of, propose, thin, whitened_atoms
from leanmatch.errors import ModelError


def problem(rows=7, blocks=3, atoms=10, width=4, nonzeros=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(rows, blocks, nonzeros, generator=generator)
    table = torch.randn(blocks, atoms, width, generator=generator)
    indices = torch.rand(rows, blocks, atoms, generator=generator).topk(nonzeros, 2).indices
    return values, table, indices


def slow_decode(values, atoms, indices):
    rows, blocks, _ = values.shape
    parts = [
        torch.stack([values[o, i].double() @ atoms[i, indices[o, i].long()].double() for o in range(rows)])
        for i in range(blocks)
    ]
    return torch.cat(parts, 1)


@pytest.mark.parametrize("rows", [1, 7, 65])
def test_decoding_and_its_gradients_are_those_of_the_definition(rows):
    values, atoms, indices = problem(rows=rows)
    weights = torch.randn(rows, 12)
    found = []
    for function in (decode, bag_decode, slow_decode):
        v, a = values.clone().requires_grad_(), atoms.clone().requires_grad_()
        dense = function(v, a, indices.to(torch.uint8))
        (dense * weights).sum().backward()
        found.append((dense.detach().double(), v.grad, a.grad))
    assert found[2][1].abs().max() > 0.1
    for dense, d_values, d_atoms in found[:2]:
        torch.testing.assert_close(dense, found[2][0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(d_values, found[2][1], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(d_atoms, found[2][2], atol=1e-5, rtol=1e-5)


def test_scattering_is_decoding_with_unit_vectors():
    values, _, indices = problem(atoms=4)
    eye = torch.eye(4).expand(3, 4, 4).contiguous()
    torch.testing.assert_close(scatter_decode(values, indices, 4).double(), slow_decode(values, eye, indices))


@pytest.mark.parametrize("bits", [8, 6, 4])
def test_fake_quantization_is_quantization_with_the_gradient_passed(bits):
    x = torch.randn(5, 6)
    x[2] = 0
    x.requires_grad_()
    q, scale = quantize(x, bits, (1,))
    assert int(q.abs().max()) == 2 ** (bits - 1) - 1
    assert (scale > 0).all()
    rounded = fake_quantize(x, bits, (1,))
    torch.testing.assert_close(rounded.detach(), q * scale, atol=1e-6, rtol=1e-6)
    assert (rounded - x).abs().max() > 1e-3
    rounded.sum().backward()
    assert torch.equal(x.grad, torch.ones(5, 6))
    assert fake_quantize(x, None, (1,)) is x


def test_weights_that_are_not_finite_are_not_quantized():
    with pytest.raises(ModelError, match="NaN or infinite"):
        quantize(torch.tensor([[1.0, float("nan")]]), 8, (1,))


@pytest.mark.parametrize("pair", [(pursue, project), (pursue_torch, project_torch)])
def test_pursuit_finds_planted_codes_and_projection_is_least_squares(pair):
    pursuing, projecting = pair
    _, atoms, indices = problem(rows=9, atoms=12, width=8)
    atoms = functional.normalize(atoms, dim=2)
    values = torch.rand(9, 3, 2) + 1
    targets = blocks_of(slow_decode(values, atoms, indices).float(), 8)
    noisy = targets + 0.3 * torch.randn(targets.shape, generator=torch.Generator().manual_seed(1))
    codes = pursuing(noisy, atoms, 3)
    assert (codes.indices.sort(2).values.diff(dim=2) > 0).all()
    on_support = projecting(noisy, atoms, codes.indices)
    torch.testing.assert_close(on_support.error, codes.error, atol=1e-4, rtol=1e-4)
    for block, row in itertools.product(range(3), range(9)):
        chosen = atoms[block, codes.indices[block, row]].T.double()
        best = torch.linalg.lstsq(chosen, noisy[block, row].double()[:, None]).solution[:, 0]
        torch.testing.assert_close(codes.values[block, row].double(), best, atol=1e-3, rtol=1e-3)
        left = (noisy[block, row].double() - chosen @ best).square().sum()
        assert float(left) == pytest.approx(float(codes.error[block, row]), abs=1e-4)
    one = torch.zeros(1, 1, 4)
    one[..., 2] = 3
    code = pursuing(one, torch.eye(4)[None], 1)
    assert code.indices.tolist() == [[[2]]]
    assert code.values.tolist() == [[[3.0]]]


def test_dropping_costs_are_those_of_refitting_without_the_nonzero():
    values, atoms, indices = problem(nonzeros=3, atoms=6)
    atoms = functional.normalize(atoms, dim=2)
    kept = torch.ones(values.shape, dtype=torch.bool)
    kept[0, 0, 1] = False
    costs, _ = drop_costs(values * kept, gram_of(atoms, indices), kept)
    assert costs[0, 0, 1] == float("inf")
    dense = blocks_of(slow_decode(values * kept, atoms, indices).float(), 4)
    for row, block, entry in itertools.product(range(7), range(3), range(3)):
        if not kept[row, block, entry]:
            continue
        rest = [j for j in range(3) if j != entry and kept[row, block, j]]
        chosen = atoms[block, indices[row, block, rest]].T.double()
        target = dense[block, row].double()
        best = torch.linalg.lstsq(chosen, target[:, None]).solution[:, 0]
        error = float((target - chosen @ best).square().sum())
        assert float(costs[row, block, entry]) == pytest.approx(error, rel=0.02, abs=1e-4)


def test_thinning_leaves_the_count_asked_for_and_errs_less_than_dropping_small_values():
    values, atoms, indices = problem(rows=40, nonzeros=4, atoms=8)
    metric = torch.eye(4).expand(3, 4, 4)
    kept = torch.ones(values.shape, dtype=torch.bool)
    before = slow_decode(values, atoms, indices)
    some, left = thin(values, indices, kept, atoms, metric, least=2, total=400)
    assert int(left.sum()) == 400
    assert bool((left.sum(2) >= 2).all())
    assert set(left.sum(2).unique().tolist()) == {3, 4} or 2 in left.sum(2)
    assert (some[~left] == 0).all()
    done, left = thin(some, indices, left, atoms, metric, least=2, total=240)
    assert (left.sum(2) == 2).all()
    error = (slow_decode(done, atoms, indices) - before).square().sum()
    _, norms = whitened_atoms(atoms, metric)
    sizes = values.abs() * norms.expand(40, -1, -1).gather(2, indices)
    small = torch.zeros_like(kept).scatter_(2, sizes.topk(2, 2).indices, True)
    naive = (slow_decode(values * small, atoms, indices) - before).square().sum()
    assert error < 0.8 * naive


def test_a_swap_is_proposed_where_the_shadow_asks_for_it_and_nowhere_else():
    atoms = torch.eye(4).expand(2, 4, 4).contiguous()
    indices = torch.tensor([[0, 1]]).expand(3, 2, 2).contiguous()
    values = torch.tensor([1.0, 0.1]).expand(3, 2, 2).contiguous()
    weight = slow_decode(values, atoms, indices).float()
    step = torch.zeros(3, 8)
    step[1, 4 + 3] = 0.5
    swap = propose(weight, step, indices, atoms, atoms, margin=1e-3, share=1.0)
    assert swap.changed.nonzero().tolist() == [[1, 1]]
    assert sorted(swap.indices[1, 1].tolist()) == [0, 3]
    by_atom = dict(zip(swap.indices[1, 1].tolist(), swap.values[1, 1].tolist(), strict=True))
    assert by_atom == pytest.approx({0: 1.0, 3: 0.5})
    assert not propose(weight, step, indices, atoms, atoms, margin=1.0, share=1.0).changed.any()


def test_the_share_bounds_how_many_rows_and_blocks_swap():
    values, atoms, indices = problem(rows=50)
    weight = slow_decode(values, atoms, indices).float()
    step = torch.randn(weight.shape, generator=torch.Generator().manual_seed(3))
    metric = torch.eye(4).expand(3, 4, 4)
    all_of_them = propose(weight, step, indices, atoms, metric, margin=0.0, share=1.0).changed
    few = propose(weight, step, indices, atoms, metric, margin=0.0, share=0.1).changed
    assert int(all_of_them.sum()) > 40
    assert int(few.sum()) == 15
    assert (all_of_them | ~few).all()


def test_a_metric_lowers_the_error_of_outputs():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(64, 16, generator=generator)
    x = torch.randn(400, 16, generator=generator) @ torch.diag(torch.logspace(-1.5, 0.5, 16))
    x = x @ torch.linalg.qr(torch.randn(16, 16, generator=generator)).Q
    moment = x.T @ x / 400

    def errors(factors):
        left = torch.from_numpy(factors.dense()) - weight
        return float((left @ x.T).square().sum() / (weight @ x.T).square().sum()), float(
            left.square().sum() / weight.square().sum()
        )

    options = dict(width=8, atoms=16, nonzeros=2, rounds=5)
    plain = fit_dense_sparse(weight, metric=block_metric(None, 16, 8), **options)
    weighted = fit_dense_sparse(weight, metric=block_metric(moment, 16, 8), **options)
    assert errors(weighted)[0] < 0.5 * errors(plain)[0]
    assert errors(weighted)[1] > errors(plain)[1]
    assert errors(fit_low_rank(weight, 6, moment=moment))[0] < 0.5 * errors(fit_low_rank(weight, 6))[0]
    assert (
        errors(fit_nm(weight, width=8, nonzeros=4, moment=moment))[0]
        < errors(fit_nm(weight, width=8, nonzeros=4))[0]
    )


def test_low_rank_is_the_truncated_svd_and_ranks_save_what_they_promise():
    weight = torch.randn(12, 20, generator=torch.Generator().manual_seed(0))
    found = torch.from_numpy(fit_low_rank(weight, 5).dense())
    u, s, v = torch.linalg.svd(weight.double(), full_matrices=False)
    torch.testing.assert_close(found.double(), (u[:, :5] * s[:5]) @ v[:5], atol=1e-5, rtol=1e-4)
    rank = rank_for(384, 1536, 2.67)
    assert 384 * 1536 / (rank * (384 + 1536)) >= 2.67 > 384 * 1536 / ((rank + 1) * (384 + 1536))


def test_nm_keeps_the_largest_of_each_block():
    weight = torch.tensor([[3.0, -5.0, 1.0, 0.5, 0.0, 2.0, -2.5, 9.0]])
    found = fit_nm(weight, width=4, nonzeros=2)
    assert np.array_equal(found.dense(), [[3, -5, 0, 0, 0, 0, -2.5, 9]])
    assert found.identity


def test_an_idle_atom_becomes_the_worst_row():
    targets = torch.tensor([[[1.0, 0.0], [0.9, 0.0], [0.0, 2.0]]])
    dictionary = torch.tensor([[[1.0, 0.0], [-0.8, 0.6]]])
    codes = pursue(targets, dictionary, 1)
    codes = codes._replace(
        indices=torch.zeros(1, 3, 1, dtype=torch.int64), error=torch.tensor([[0.0, 0.0, 4.0]])
    )
    codes = codes._replace(values=torch.tensor([[[1.0], [0.9], [0.0]]]))
    made = update_atoms(targets, codes, dictionary)
    torch.testing.assert_close(made, torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), atol=1e-3, rtol=0)


def test_blocks_go_there_and_back():
    weight = torch.arange(24.0).view(2, 12)
    assert torch.equal(rows_of(blocks_of(weight, 4)), weight)
    assert torch.equal(blocks_of(weight, 4)[1, 0], torch.tensor([4.0, 5.0, 6.0, 7.0]))
