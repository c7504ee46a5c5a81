"""A ``SentenceTransformer`` in memory on the native kernels: the same vectors in a fraction of the time.

Training has to encode validation texts with many candidate weights. Torch takes five times the processor time
of the native encoder for it (MiniLM, float32), so the candidate is written to a temporary folder and loaded
from there, which takes less than a second.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from leanmatch.errors import LeanmatchError
from leanmatch.formats.parity import ODD_TEXTS
from leanmatch.models import RoleEncoder
from leanmatch.runtime.encoder import NativeEncoder
from leanmatch.types import EncodeFunction

MOST_DIFFERENCE = 1e-5
"""Largest difference of a number of a normalized vector at which the two count as equal."""
COMPARED = (ODD_TEXTS[:13], ("long text " * 1500,))
"""Texts that both encode before the native vectors are used; the last one is longer than any model reads."""


class TwinEncoders:
    """Makes encode functions of a ``SentenceTransformer``'s current weights, natively where that is possible.

    The first model encodes :data:`COMPARED` through torch as well. Where vectors differ by more than
    :data:`MOST_DIFFERENCE`, or the runtime has no code for the model, torch encodes from then on, and
    ``report`` says why.

    Args:
        through_torch: makes the encode function of a model on torch.
        report: gets a sentence where torch takes over.
    """

    def __init__(
        self,
        through_torch: Callable[[Any], EncodeFunction],
        report: Callable[[str], None] = lambda message: None,
    ) -> None:
        self._through_torch, self._report = through_torch, report
        self._checked = self._refused = False

    def __call__(self, model: Any) -> EncodeFunction:
        """An encoder, by role, of the weights that ``model`` has now; later training does not change it."""
        through_torch = self._through_torch(model)
        if self._refused or model.device.type != "cpu":
            return through_torch
        try:
            twin = native_twin(model)
        except LeanmatchError as error:
            self._refuse(error.problem)
            return through_torch

        if not self._checked:
            self._compare(twin, through_torch)
        return through_torch if self._refused else RoleEncoder(twin)

    def _compare(self, twin: NativeEncoder, through_torch: EncodeFunction) -> None:
        self._checked = True
        for texts in COMPARED:
            difference = float(np.abs(twin(texts) - through_torch(texts)).max())
            if not difference <= MOST_DIFFERENCE:
                self._refuse(f"its vectors differ by up to {difference:.1e}")
                return

    def _refuse(self, reason: str) -> None:
        self._refused = True
        self._report(f"sentence-transformers encodes validation texts, not the native runtime: {reason}")


def native_twin(model: Any) -> NativeEncoder:
    """A native encoder with the current weights of a ``SentenceTransformer``, in float32.

    Raises:
        ModelError: the runtime cannot run the model.
        NativeError: the compiled extension does not load.
    """
    from leanmatch.formats.layout import rewrite_to_legacy
    from leanmatch.formats.quiet import quiet_bars
    from leanmatch.runtime.loading import load_native

    with tempfile.TemporaryDirectory(prefix="leanmatch-") as name:
        folder = Path(name)
        with quiet_bars():
            model.save_pretrained(str(folder), create_model_card=False)
        rewrite_to_legacy(folder, list(model))
        return load_native(folder, name="model in memory", precision="float32")
