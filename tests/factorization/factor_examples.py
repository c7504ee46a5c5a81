"""Small random factors and a hypothesis strategy for their shapes."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from leanmatch.factorization import DenseSparse
from leanmatch.factorization.checks import index_dtype


def support_of(m, blocks, r, k, seed=0):
    """Distinct atom numbers ``(m, B, k)``."""
    order = np.random.default_rng(seed).random((m, blocks, r)).argsort(axis=2)
    return order[..., :k].astype(index_dtype(r))


def factors_of(m, blocks, r, b, k, seed=0):
    rng = np.random.default_rng(seed)
    return DenseSparse(
        atoms=rng.normal(size=(blocks, r, b)).astype(np.float32),
        indices=support_of(m, blocks, r, k, seed),
        values=rng.normal(size=(m, blocks, k)).astype(np.float32),
    )


@st.composite
def shapes(draw, most_atoms=40, most_nonzeros=9):
    """``(m, B, r, b, k)``: no rows, one row, odd sizes, r not a multiple of 16, k = 1 and k = r."""
    m = draw(st.sampled_from([0, 1, 17, 33]))
    r = draw(st.integers(1, most_atoms))
    k = draw(st.integers(1, min(r, most_nonzeros)))
    return m, draw(st.integers(1, 3)), r, draw(st.integers(1, 19)), k
