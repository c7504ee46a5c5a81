"""The ways in which a linear layer can run, packed for one instruction set, and which one is taken."""
from __future__ import annotations
from typing import Any
import numpy as np
from leanmatch import native
from leanmatch.factorization import Factors


def pack(factors: Factors, bias, level: str) -> Any:
    module = native.load()
    m = factors.shape[0]
    return [(0, module.pack_dense_f32(np.ascontiguousarray(factors.dense()), np.zeros(m, np.float32) if bias is None else bias))]
