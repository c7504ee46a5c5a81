"""Averaging weights with the base model's (WiSE-FT).

Source: Wortsman et al., *Robust fine-tuning of zero-shot models* (arXiv 2109.01903).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
        share: weight of the trained model: 0 is the base, 1 the trained model, above 1 goes on beyond it.

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


def mean_weights(states: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of several state dicts of one model (a soup); one alone stays as it is.

    An iterator is taken one by one: never more than two of its state dicts are held.

    Raises:
        ModelError: they do not have the same tensors, or there are none.
    """
    mean: dict[str, Tensor] | None = None
    for count, state in enumerate(states, 1):
        mean = dict(state) if mean is None else average_weights(mean, state, 1 / count)
    if mean is None:
        raise ModelError("there are no weights to average", remedy="give at least one state dict")
    return mean


def snapshot(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A copy of a state dict on the CPU that later training does not change."""
    return {name: value.detach().cpu().clone() for name, value in state.items()}
