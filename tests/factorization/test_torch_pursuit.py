"""The torch pursuit equals the native one."""

from __future__ import annotations

import numpy as np
import pytest

from factor_examples import support_of
from leanmatch.errors import DataError, UsageError
from leanmatch.factorization.pursuit import batched as torch_pursuit
from leanmatch.factorization.pursuit import native as pursuit
from leanmatch.factorization.pursuit.batched import pursue_torch, refit_torch
from slow_pursuit import pursue_reference

torch = pytest.importorskip("torch", reason="torch is not installed")


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def tensor(array):
    return torch.from_numpy(array)


@pytest.mark.parametrize("selection", pursuit.SELECTIONS)
@pytest.mark.parametrize(
    ("m", "blocks", "r", "b", "k"), [(0, 1, 5, 3, 2), (1, 2, 20, 16, 1), (57, 3, 64, 16, 4), (33, 1, 7, 9, 7)]
)
def test_same_codes(selection, m, blocks, r, b, k, monkeypatch):
    weight, atoms = normal(m, blocks * b), normal(blocks, r, b, seed=1)
    native = pursuit.pursue(weight, atoms, k, selection=selection)
    clear = pursue_reference(weight, atoms, k, selection).gap > 1e-3
    for chunk in (1 << 24, 200):
        monkeypatch.setitem(torch_pursuit.CHUNKS, "cpu", chunk)
        found = pursue_torch(tensor(weight), tensor(atoms), k, selection=selection)
        assert clear.sum() >= clear.size // 2
        np.testing.assert_array_equal(found.indices.numpy()[clear], native.indices[clear])
        np.testing.assert_allclose(found.values.numpy()[clear], native.values[clear], rtol=2e-2, atol=2e-3)
        np.testing.assert_allclose(found.errors.numpy()[clear], native.errors[clear], rtol=1e-2, atol=1e-3)


def test_the_same_refit():
    weight, atoms, start = normal(200, 32), normal(2, 40, 16, seed=1), support_of(200, 2, 40, 3)
    old = pursuit.refit(weight, atoms, start)
    refitted = refit_torch(tensor(weight), tensor(atoms), tensor(start))
    np.testing.assert_allclose(refitted.values.numpy(), old.values, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(refitted.errors.numpy(), old.errors, rtol=1e-4, atol=1e-4)


def test_zeros_and_duplicates():
    atoms = normal(1, 6, 5)
    atoms[0, 3] = atoms[0, 1]
    atoms[0, 4] = 0
    weight = normal(9, 5, seed=1)
    weight[2] = 0
    found = pursue_torch(tensor(weight), tensor(atoms), 5)
    indices = found.indices.numpy()
    assert (np.diff(np.sort(indices, axis=2), axis=2) > 0).all()
    assert indices[2].tolist() == [[0, 1, 2, 3, 4]]
    assert (found.values[2] == 0).all()
    native = pursuit.pursue(weight, atoms, 5)
    np.testing.assert_allclose(found.errors.numpy(), native.errors, atol=1e-4)


def test_bad_calls_are_refused():
    weight, atoms = tensor(normal(4, 8)), tensor(normal(2, 6, 4))
    with pytest.raises(DataError, match="must be float32"):
        pursue_torch(weight[:, :7], atoms, 2)
    with pytest.raises(DataError, match="must be float32"):
        refit_torch(weight.double(), atoms, torch.zeros((4, 2, 1)))
    with pytest.raises(UsageError, match="from 1 to the number of atoms, 6"):
        pursue_torch(weight, atoms, 7)
    with pytest.raises(UsageError, match="one of gain"):
        pursue_torch(weight, atoms, 2, selection="best")
    with pytest.raises(DataError, match="not finite"):
        pursue_torch(weight * torch.nan, atoms, 2)
    with pytest.raises(DataError, match="not finite"):
        refit_torch(weight * torch.inf, atoms, torch.zeros((4, 2, 1)))
