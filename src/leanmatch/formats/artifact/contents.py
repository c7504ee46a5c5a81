"""What an artifact holds, once it is read and checked. Plain arrays: no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from leanmatch.factorization import Factors

KINDS = ("linear", "embedding")
TASKS: Mapping[str, str] = {
    "matcher": "a sentence encoder: texts to vectors",
    "sequence-classification": "texts or pairs of texts to class scores",
    "question-answering": "a question and a passage to start and end scores of tokens",
    "encoder": "a bare transformers model",
}


@dataclass(frozen=True)
class LayerTensors:
    """One compressed layer.

    Attributes:
        factors: its weight ``(m, n)``: outputs by inputs of a linear layer, entries by dimension of a table.
        bias: float32 ``(m,)``, or None.
        kind: one of :data:`KINDS`.
        stack: layers with the same stack read the same input and share their atoms; None for all others.
        report: what ``leanmatch.json`` says of it: ``bytes macs dense_bytes dense_macs error``.
    """

    factors: Factors
    bias: NDArray[np.float32] | None
    kind: str = "linear"
    stack: str | None = None
    report: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ModuleConfig:
    """One module of a sentence encoder.

    Attributes:
        type: class name in sentence-transformers: ``Transformer``, ``Pooling``, ``Normalize``, ...
        path: its folder inside the artifact, "" for the folder itself.
        config: its configuration file's content, empty where it has none.
    """

    type: str
    path: str
    config: Mapping[str, Any]


@dataclass(frozen=True)
class Artifact:
    """A compressed model as it lies on the disk.

    Attributes:
        folder: where.
        task: one of :data:`TASKS`.
        architecture: class name in transformers (``BertModel``); ``StaticEmbedding`` for a static encoder.
        config: the architecture's ``config.json``; empty for a static encoder.
        modules: of a sentence encoder, in order; empty for other tasks.
        layers: compressed layers by module name inside the transformers model (a static encoder's table:
            ``module0.embedding``).
        tensors: all other parameters by name in the model's state dict, float32 (integer ones int64); those
            of module ``i`` behind the transformer carry the prefix ``module{i}.``.
        dropped: parameters that no sentence vector depends on (the pooler's); a loader makes them zeros.
        tokenizer_file: ``tokenizer.json`` of the ``tokenizers`` library, None where there is none.
        provenance: all of ``leanmatch.json``.
    """

    folder: Path
    task: str
    architecture: str
    config: Mapping[str, Any]
    modules: tuple[ModuleConfig, ...]
    layers: Mapping[str, LayerTensors]
    tensors: Mapping[str, NDArray[Any]]
    dropped: tuple[str, ...]
    tokenizer_file: Path | None
    provenance: Mapping[str, Any]

    @property
    def report(self) -> Mapping[str, Any]:
        """The section ``artifact`` of ``leanmatch.json``: bytes, multiply-adds, quality."""
        section: Mapping[str, Any] = self.provenance["artifact"]
        return section
