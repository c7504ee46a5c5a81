"""A ``SentenceTransformer`` in memory on the native kernels: its vectors in a fraction of the time.

Training has to encode validation texts with many candidate weights. Torch takes five times the processor time
of the native encoder for it (MiniLM, float32), so the candidate is written to a temporary folder and loaded
from there, which takes less than a second. A model with compressed layers runs as it will be served, mostly
in 8 bits, in about a tenth of torch's processor time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from leanmatch.errors import LeanmatchError
from leanmatch.formats.parity import ODD_TEXTS, compare_vectors
from leanmatch.models import RoleEncoder
from leanmatch.runtime.encoder import NativeEncoder
from leanmatch.runtime.tokenization import KnownTokenizer
from leanmatch.types import EncodeFunction

if TYPE_CHECKING:
    from leanmatch.runtime.loading import TokenizerOf

MOST_DIFFERENCE = 1e-5
"""Largest difference of a number of a normalized vector at which the two count as equal."""
LEAST_COSINE = 0.98
"""The same of compressed models, whose inputs the runtime rounds to 8 bits: least cosine of a text."""
COMPARED = (ODD_TEXTS[:13], ("long text " * 1500,))
"""Texts that both encode before the native vectors are used; the last one is longer than any model reads."""


class TwinEncoders:
    """Makes encode functions of a ``SentenceTransformer``'s current weights, natively where that is possible.

    The first model, and the first with compressed layers, encodes :data:`COMPARED` through torch as well.
    Where vectors differ by more than :data:`MOST_DIFFERENCE` (compressed: where a cosine is below
    :data:`LEAST_COSINE`), or the runtime has no code for the model, torch encodes from then on, and
    ``report`` says why.

    Encoders of models that differ in weights alone share one tokenizer, and each list of texts is tokenized
    once for all of them.

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
        self._refused = False
        self._checked: set[bool] = set()  # with compressed layers, without
        self._tokenizer_of = KnownTokenizer()

    def __call__(self, model: Any) -> EncodeFunction:
        """An encoder, by role, of the weights that ``model`` has now; later training does not change it."""
        through_torch = self._through_torch(model)
        if self._refused or model.device.type != "cpu":
            return through_torch
        try:
            twin = native_twin(model, self._tokenizer_of)
        except LeanmatchError as error:
            self._refuse(error.problem)
            return through_torch

        compressed = _is_compressed(model)
        if compressed not in self._checked:
            self._checked.add(compressed)
            self._compare(twin, through_torch, compressed)
        return through_torch if self._refused else RoleEncoder(twin)

    def _compare(self, twin: NativeEncoder, through_torch: EncodeFunction, compressed: bool) -> None:
        for texts in COMPARED:
            native, wanted = twin(texts), through_torch(texts)
            if compressed:
                cosine = compare_vectors(native, wanted, texts).min_cosine
                if not cosine >= LEAST_COSINE:
                    return self._refuse(f"a compressed vector has the cosine {cosine:.3f} to torch's")
            else:
                difference = float(np.abs(native - wanted).max())
                if not difference <= MOST_DIFFERENCE:
                    return self._refuse(f"its vectors differ by up to {difference:.1e}")

    def _refuse(self, reason: str) -> None:
        self._refused = True
        self._report(f"sentence-transformers encodes validation texts, not the native runtime: {reason}")


def native_twin(model: Any, tokenizer_of: TokenizerOf) -> NativeEncoder:
    """A native encoder with the current weights of a ``SentenceTransformer``: in float32, or as it will be
    served if it has compressed layers. ``tokenizer_of`` reads the tokenizer.

    Raises:
        ModelError: the runtime cannot run the model.
        NativeError: the compiled extension does not load.
    """
    from leanmatch.formats.artifact.writer import write_for_runtime
    from leanmatch.formats.layout import rewrite_to_legacy
    from leanmatch.formats.quiet import quiet_bars
    from leanmatch.runtime.loading import load_native

    with tempfile.TemporaryDirectory(prefix="leanmatch-") as name:
        folder = Path(name)
        if _is_compressed(model):
            write_for_runtime(model, folder)
            return load_native(folder, name="compressed model in memory", tokenizer_of=tokenizer_of)
        with quiet_bars():
            model.save_pretrained(str(folder), create_model_card=False)
        rewrite_to_legacy(folder, list(model))
        return load_native(folder, name="model in memory", precision="float32", tokenizer_of=tokenizer_of)


def _is_compressed(model: Any) -> bool:
    from leanmatch.compression import compressed_layers

    return bool(compressed_layers(model))
