"""Does an artifact fit the architecture of its configuration? Asked before anything is allocated."""

from __future__ import annotations

from typing import Any

from leanmatch.errors import FormatError
from leanmatch.formats.artifact.contents import Artifact, LayerTensors

_REMEDY = "the artifact is damaged or was not written by leanmatch: compress the model again"


def check_against_skeleton(artifact: Artifact) -> None:
    """Build the transformers model on torch's meta device, which holds no numbers, and compare every shape.

    Raises:
        FormatError: an unknown class, a configuration that it refuses, a layer that is not there or has
            another shape, a parameter without values or values without a parameter.
    """
    if not artifact.config:
        _check_static(artifact)
        return
    skeleton = _skeleton(artifact)
    modules = dict(skeleton.named_modules(remove_duplicate=False))
    state = skeleton.state_dict(keep_vars=True)
    covered: set[int] = set()
    for name, layer in artifact.layers.items():
        if name.startswith("module"):
            continue
        covered |= _check_layer(name, layer, modules.get(name))
    for name, array in artifact.tensors.items():
        if name.startswith("module"):
            continue
        value = state.get(name)
        if value is None or tuple(value.shape) != array.shape:
            expected = "has none of that name" if value is None else f"has shape {tuple(value.shape)}"
            raise FormatError(
                f"the tensor {name!r:.120} has shape {array.shape}; {artifact.architecture} {expected}",
                remedy=_REMEDY,
            )
        if id(value) in covered:
            raise FormatError(f"the tensor {name!r:.120} is that of a compressed layer", remedy=_REMEDY)
        covered.add(id(value))
    for name, value in state.items():
        if id(value) not in covered and name not in artifact.dropped:
            raise FormatError(f"there are no values for {name}, {tuple(value.shape)}", remedy=_REMEDY)


def _skeleton(artifact: Artifact) -> Any:
    import torch
    import transformers

    kind = getattr(transformers, artifact.architecture, None)
    if not isinstance(kind, type) or not issubclass(kind, transformers.PreTrainedModel):
        raise FormatError(
            f"transformers has no model class {artifact.architecture!r}", remedy="update transformers"
        )
    most = len(artifact.tensors) + len(artifact.layers)
    for name, value in artifact.config.items():
        if name.endswith("layers") and isinstance(value, int) and value > most:
            raise FormatError(
                f"config.json has {name} = {value}, and there are {most} tensors", remedy=_REMEDY
            )
    try:
        config = transformers.AutoConfig.from_pretrained(str(artifact.folder), local_files_only=True)
        with torch.device("meta"):
            return kind(config)
    except Exception as error:  # whatever a configuration makes the library raise
        first = (str(error).strip().splitlines() or [""])[0]
        raise FormatError(
            f"config.json makes no {artifact.architecture}: {type(error).__name__}: {first:.200}",
            remedy=_REMEDY,
        ) from error


def _check_layer(name: str, layer: LayerTensors, module: Any) -> set[int]:
    """The ids of the parameters that the layer stands for."""
    weight = getattr(module, "weight", None)
    kind = (
        "embedding"
        if hasattr(module, "num_embeddings")
        else "linear"
        if hasattr(module, "in_features")
        else None
    )
    if weight is None or kind != layer.kind or tuple(weight.shape) != layer.factors.shape:
        expected = "nothing" if weight is None else f"a {type(module).__name__} of {tuple(weight.shape)}"
        raise FormatError(
            f"layer {name!r:.120} is a {layer.kind} layer of {layer.factors.shape}; "
            f"the architecture has {expected} there",
            remedy=_REMEDY,
        )
    bias = getattr(module, "bias", None)
    if (bias is None) != (layer.bias is None):
        raise FormatError(
            f"layer {name!r:.120}: it and the architecture differ in having a bias", remedy=_REMEDY
        )
    return {id(weight)} | (set() if bias is None else {id(bias)})


def _check_static(artifact: Artifact) -> None:
    if artifact.architecture != "StaticEmbedding":
        raise FormatError(
            f"a model without a transformer cannot be a {artifact.architecture!r:.80}", remedy=_REMEDY
        )
    for name in (*artifact.layers, *artifact.tensors):
        if not name.startswith("module"):
            raise FormatError(f"the tensor {name!r:.120} belongs to no module", remedy=_REMEDY)
