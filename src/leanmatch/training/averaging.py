"""Averaging weights with the base model's (WiSE-FT).

Source: Wortsman et al., *Robust fine-tuning of zero-shot models* (arXiv 2109.01903).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from leanmatch.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor


def average_weights(
    base: Mapping[str, Tensor], trained: Mapping[str, Tensor], share: float
) -> dict[str, Tensor]:
    """``share * trained + (1 - share) * base`` for every floating-point tensor; others come from ``trained``.

    Args:
        base, trained: state dicts with the same names and shapes.
        share: weight of the trained model, between 0 (base) and 1 (trained).

    Raises:
        ModelError: the two do not have the same tensors.
    """
    different = sorted(
        set(base).symmetric_difference(trained)
        | {name for name in set(base) & set(trained) if base[name].shape != trained[name].shape}
    )
    if different:
        raise ModelError(
            f"weights cannot be averaged: {len(different)} tensors differ in name or shape, "
            f"first {different[0]!r}",
            remedy="average a model with the base that it was trained from",
        )
    return {
        name: base[name].to(value.device).lerp(value, share) if value.is_floating_point() else value.clone()
        for name, value in trained.items()
    }


def snapshot(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A copy of a state dict on the CPU that later training does not change."""
    return {name: value.detach().cpu().clone() for name, value in state.items()}
