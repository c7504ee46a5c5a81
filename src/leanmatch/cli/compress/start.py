"""A compressed model that ``leanmatch compress --from`` trains further."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leanmatch.compression.planner.choice import Plan
from leanmatch.compression.planner.depth import encoder_layer_count
from leanmatch.compression.spec import CompressionSpec
from leanmatch.errors import ModelError, UsageError
from leanmatch.formats import is_artifact, model_fingerprint
from leanmatch.formats.artifact.gather import is_matcher
from leanmatch.formats.artifact.loader import load_compressed
from leanmatch.formats.artifact.reader import read_artifact
from leanmatch.models.adapter import transformer_of


@dataclass(frozen=True)
class Start:
    """The compressed model that training continues from.

    Attributes:
        model: the compressed torch model.
        plan: the forms of its layers.
        method: that made it.
        fingerprint: of its folder.
        split: manifest of its split into training and held-out pairs.
        record: what the new model's ``leanmatch.json`` says of it.
    """

    model: Any
    plan: Plan
    method: str
    fingerprint: str
    split: Mapping[str, Any]
    record: dict[str, Any]

    def check_split(self, split: Mapping[str, Any]) -> None:
        """Refuse another split of the table that the model was trained on.

        Raises:
            UsageError: some of its training pairs would be held out.
        """
        same_table = self.split.get("fingerprint") == split["fingerprint"]
        if same_table and self.split["parts"] != split["parts"]:
            own, given = self.split["options"]["seed"], split["options"]["seed"]
            raise UsageError(
                f"{self.record['folder']} was trained with --seed {own}: with seed {given}, some of its "
                "training pairs would be held out",
                remedy="give the same seed",
                command=f"give --seed {own}",
            )


def read_start(folder: Path, dense: Any) -> Start:
    """Load the compressed model and check that it has the dense one's architecture and size.

    Raises:
        ModelError: the folder holds no compressed model, ``leanmatch compress`` did not save it, or its
            architecture or size differs from the dense model's.
        FormatError: it is damaged.
    """
    if not is_artifact(folder):
        raise ModelError(
            f"--from {folder} is not a compressed model", remedy="name a folder that leanmatch compress saved"
        )
    artifact = read_artifact(folder)
    training: Mapping[str, Any] = artifact.provenance.get("training") or {}
    chosen = next((state for state in training.get("evaluated", ()) if state["chosen"]), None)
    spec = artifact.report["spec"]
    if spec is None or chosen is None:
        raise ModelError(
            f"leanmatch.json in {folder} has no plan or no record of training",
            remedy="name a folder that leanmatch compress saved",
        )
    model = load_compressed(folder, device=str(next(dense.parameters()).device))
    dropped = tuple(chosen["dropped"])
    _compare(model, dense, len(dropped), folder)
    before = training.get("start", {}).get("steps", 0) + chosen["training"]["steps"]
    fingerprint = model_fingerprint(folder)
    return Start(
        model,
        Plan(f"the layers of {folder.resolve().name}", CompressionSpec.from_json(spec), dropped),
        training["method"],
        fingerprint,
        artifact.provenance["split"],
        {"folder": str(folder), "fingerprint": fingerprint, "steps": before},
    )


def _compare(model: Any, dense: Any, dropped: int, folder: Path) -> None:
    """Refuse a model of another architecture or size."""
    shapes = [_shape(module) for module in (model, dense)]
    layers = encoder_layer_count(model) + dropped, encoder_layer_count(dense)
    if shapes[0] != shapes[1] or layers[0] != layers[1]:
        raise ModelError(
            f"{folder} was not made from this model: {_described(shapes[0], layers[0])}, and the model is "
            f"{_described(shapes[1], layers[1])}",
            remedy="name the model that it was made from",
        )


def _shape(model: Any) -> tuple[Any, ...]:
    config = (transformer_of(model) if is_matcher(model) else model).config
    return tuple(getattr(config, name, None) for name in ("model_type", "hidden_size", "vocab_size"))


def _described(shape: tuple[Any, ...], layers: int) -> str:
    kind, width, words = shape
    return f"{kind} of {width} dimensions, {words:,} words and {layers} encoder layers"
