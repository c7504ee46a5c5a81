"""Decoding, fake quantization, pursuit and changes of support against slow references."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from leanmatch.compression.decode import bag_decode, decode, scatter_decode
from leanmatch.compression.fitting.blocks import block_roots, blocks_of, rows_of
from leanmatch.compression.fitting.pursuit import pursue, refit
from leanmatch.compression.layer_specs import LowRankSpec
from leanmatch.compression.matrices import QuantizedMatrix
from leanmatch.compression.quantize import fake_quantize, quantize
from leanmatch.compression.stf.support import propose
from leanmatch.errors import ModelError
from leanmatch.factorization import ErrorMetric
from leanmatch.formats.artifact.fields import Fields, Tensors
from leanmatch.formats.artifact.forms import decode as decode_form
from leanmatch.formats.artifact.forms import encode


def problem(rows=7, blocks=3, atoms=10, block=4, nonzeros=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(rows, blocks, nonzeros, generator=generator)
    table = torch.randn(blocks, atoms, block, generator=generator)
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
    q, scale = quantize(x, bits)
    assert int(np.abs(q).max()) == 2 ** (bits - 1) - 1
    assert (scale > 0).all()
    rounded = fake_quantize(x, bits)
    with torch.no_grad():
        np.testing.assert_allclose(rounded.numpy(), q * scale[:, None], atol=1e-6, rtol=1e-6)
    assert (rounded - x).abs().max() > 1e-3
    rounded.sum().backward()
    assert torch.equal(x.grad, torch.ones(5, 6))
    assert fake_quantize(x, None) is x


def test_weights_that_are_not_finite_are_not_quantized():
    with pytest.raises(ModelError, match="NaN or infinite"):
        quantize(torch.tensor([[1.0, float("nan")]]), 8)


def test_pursuit_and_refit_agree_with_least_squares_on_their_supports():
    _, atoms, indices = problem(rows=9, atoms=12, block=8)
    values = torch.rand(9, 3, 2) + 1
    noisy = slow_decode(values, atoms, indices).float()
    noisy += 0.3 * torch.randn(noisy.shape, generator=torch.Generator().manual_seed(1))
    codes = pursue(noisy, atoms, 3)
    again = refit(noisy, atoms, codes.indices)
    torch.testing.assert_close(again.values, codes.values, atol=1e-4, rtol=1e-4)
    for block, row in itertools.product(range(3), range(9)):
        target = noisy[row, 8 * block : 8 * block + 8].double()
        chosen = atoms[block, codes.indices[row, block]].T.double()
        best = torch.linalg.lstsq(chosen, target[:, None]).solution[:, 0]
        torch.testing.assert_close(codes.values[row, block].double(), best, atol=1e-3, rtol=1e-3)
        left = float((target - chosen @ best).square().sum())
        assert left == pytest.approx(float(codes.errors[row, block]), abs=1e-4)


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
    # the shadow chooses; the new coefficient is nearest to the present weight
    assert by_atom == pytest.approx({0: 1.0, 3: 0.0})
    assert not propose(weight, step, indices, atoms, atoms, margin=1.0, share=1.0).changed.any()


def test_no_swap_loses_more_of_the_present_weight_than_it_gains_of_the_shadow():
    """Else a long step, as of weights that stand still while their gradients add up, would break a model."""
    values, atoms, indices = problem(rows=200)
    weight = slow_decode(values, atoms, indices).float()
    metric = torch.eye(4).expand(3, 4, 4)
    lost = []
    for length in (0.1, 0.5, 3.0):
        step = length * torch.randn(weight.shape, generator=torch.Generator().manual_seed(3))
        swap = propose(weight, step, indices, atoms, metric, margin=0.0, share=1.0)
        size = (weight + step).view(200, 3, 4).square().sum(2)
        moved = slow_decode(swap.values, atoms, swap.indices).float()
        damage = (moved - weight).view(200, 3, 4).square().sum(2)
        assert swap.changed.any()
        assert (damage < swap.gain * size + 1e-5)[swap.changed].all()
        lost.append(int((~swap.changed & (swap.indices != indices).any(2)).sum()))
    assert min(lost) > 0, "some that the shadow asks for are refused"


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


def test_the_metric_is_the_root_of_the_damped_blocks():
    x = torch.randn(50, 8, generator=torch.Generator().manual_seed(0)) * torch.linspace(1, 3, 8)
    moment = x.T @ x / 50
    roots = block_roots(ErrorMetric(moments=moment.double().numpy()), 8, 4)
    level = moment.diagonal().mean()
    for block in range(2):
        part = moment[4 * block : 4 * block + 4, 4 * block : 4 * block + 4] / level
        wanted = part + 0.01 * torch.eye(4)
        torch.testing.assert_close(roots[block] @ roots[block].T, wanted, atol=1e-5, rtol=1e-4)
    assert torch.equal(block_roots(ErrorMetric(), 8, 4), torch.eye(4).expand(2, 4, 4))


def test_ranks_save_what_they_promise():
    rank = LowRankSpec(ratio=2.67).rank_of(384, 1536)
    assert 384 * 1536 / (rank * (384 + 1536)) >= 2.67 > 384 * 1536 / ((rank + 1) * (384 + 1536))


def test_blocks_go_there_and_back():
    weight = torch.arange(24.0).view(2, 12)
    assert torch.equal(rows_of(blocks_of(weight, 4)), weight)
    assert torch.equal(blocks_of(weight, 4)[1, 0], torch.tensor([4.0, 5.0, 6.0, 7.0]))


@pytest.mark.parametrize("bits", [3, 2])
@pytest.mark.parametrize("group", [None, 5])
def test_odd_codes_are_what_the_forward_pass_sees_to_the_bit(bits, group):
    torch.manual_seed(0)
    weight = torch.randn(9, 35) * torch.rand(9, 1) ** 3
    weight[4] = 0
    matrix = QuantizedMatrix(weight, bits=bits, group=group)
    with torch.no_grad():  # as training does: the scales stay
        matrix.full.add_(0.3 * torch.randn(9, 35) * matrix.full.std(1, keepdim=True))
    wanted = torch.tensor([6, 4, 0])
    seen, rows = matrix.weight(), matrix.rows(wanted)
    assert torch.equal(rows, seen[wanted])
    assert (seen - matrix.full).abs().max() > 1e-3
    (seen * torch.arange(35)).sum().backward()
    assert torch.equal(matrix.full.grad, torch.arange(35.0).expand(9, 35))
    factors, final = matrix.to_factors(), matrix.finalize()
    assert (factors.q & 1).all() and (factors.bits, factors.group) == (bits, group or 35)
    assert np.array_equal(factors.dense(), seen.detach().numpy())
    assert torch.equal(final.weight(), seen) and torch.equal(final.rows(wanted), rows)
    assert sorted(name for name, _ in final.named_buffers()) == ["q", "scale"]
    encoded, tensors = encode(factors)
    names = {f"x/{name}": array for name, array in tensors.items()}
    assert tensors["q"].nbytes == -(-9 * 35 * bits // 8) and tensors["q_scale"].dtype == np.float16
    decoded = decode_form(Fields("x", encoded), Tensors(names), "x/{}".format)
    assert np.array_equal(decoded.dense(), factors.dense()) and np.array_equal(decoded.q, factors.q)


def test_odd_codes_of_weights_that_are_not_finite():
    with pytest.raises(ModelError, match="NaN or infinite"):
        QuantizedMatrix(torch.tensor([[1.0, float("inf")]]), bits=2)
    matrix = QuantizedMatrix(torch.ones(2, 3), bits=3)
    with torch.no_grad():
        matrix.full[0, 1] = float("nan")
    with pytest.raises(ModelError, match="NaN or infinite"):
        matrix.finalize()


@pytest.mark.parametrize("bits", [3, 2])
def test_a_checkpoint_brings_its_scales(bits):
    first, second = (QuantizedMatrix(torch.randn(4, 6), bits=bits) for _ in range(2))
    assert not torch.equal(first.weight(), second.weight())
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.weight(), second.weight())
