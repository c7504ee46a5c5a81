"""ONNX: texts' tokens in, vectors or scores out; pooling and normalization are in the graph.

The graph is made by torch's exporter from the densified model, holds operators of the standard only, and
takes any batch size and length. It is compared with the compressed model by running it in onnxruntime.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from leanmatch.errors import FormatError, MissingExtraError, UsageError
from leanmatch.files import atomic_folder, write_json
from leanmatch.formats.artifact.contents import Artifact
from leanmatch.formats.artifact.loader import build
from leanmatch.formats.artifact.outputs import MOST_DIFFERENCE, most_tokens
from leanmatch.formats.exports.dense import densify
from leanmatch.formats.exports.origin import provenance_of, tokenizer_of
from leanmatch.formats.parity import MIN_COSINE, ODD_TEXTS, Parity, compare_vectors
from leanmatch.formats.provenance import FILE_NAME
from leanmatch.formats.writer import common_fields, same_mode
from leanmatch.models.adapter import tokenize

OPSET = 18
MODEL_FILE = "model.onnx"
LIBRARIES = ("onnx", "onnxscript", "onnxruntime")
EXAMPLES = ("usb c dock with two hdmi ports", "How do I mount an external drive on startup?")


def export_onnx(
    artifact: Artifact, folder: Path, *, overwrite: bool, sample: Sequence[str]
) -> tuple[Parity, int]:
    """Write ``model.onnx`` with tokenizer, configurations and ``leanmatch.json``; parity and bytes.

    Raises:
        MissingExtraError: a library of :data:`LIBRARIES` is not installed.
        UsageError: a static encoder, which has no graph worth exporting.
        FormatError: the graph computes something else than the model, or holds foreign operators.
    """
    _require_libraries()
    if not artifact.config:
        raise UsageError(
            "a static encoder is a table of rows and has no ONNX form here",
            remedy="export to sentence-transformers instead",
            command="use --to sentence-transformers",
        )
    model = build(artifact, "cpu")
    tokenizer = model.tokenizer if artifact.task == "matcher" else tokenizer_of(artifact)
    graph = _graph(densify(model), artifact.task == "matcher")
    features = _features(model, tokenizer, list(EXAMPLES))
    with atomic_folder(folder, overwrite=overwrite) as temporary:
        outputs = _write(graph, features, temporary / MODEL_FILE)
        tokenizer.save_pretrained(str(temporary))
        inner = model[0].auto_model if artifact.task == "matcher" else model
        inner.config.save_pretrained(str(temporary))
        parity = _compare(model, tokenizer, temporary / MODEL_FILE, [*ODD_TEXTS, *sample])
        content = {
            **common_fields(temporary, provenance_of(artifact, "onnx"), [], (".onnx",)),
            "kind": "onnx",
            "parity": {"min_cosine": parity.min_cosine, "texts": parity.texts},
            "onnx": {"opset": OPSET, "inputs": list(features), "outputs": outputs, "file": MODEL_FILE},
        }
        write_json(temporary / FILE_NAME, content)
        size = same_mode(temporary)
    return parity, size


def _require_libraries() -> None:
    for library in LIBRARIES:
        try:
            __import__(library)
        except ModuleNotFoundError as error:
            raise MissingExtraError(library, "export", "exporting to ONNX") from error


def _graph(model: Any, matcher: bool) -> Any:
    """A module from tensors to tensors: names of inputs are set on it by :func:`_write`."""
    import torch

    class Graph(torch.nn.Module):
        names: tuple[str, ...] = ()

        def __init__(self) -> None:
            super().__init__()
            self.parts = torch.nn.ModuleList(list(model) if matcher else [model])

        def forward(self, *tensors: Any) -> Any:
            features: dict[str, Any] = dict(zip(self.names, tensors, strict=True))
            if not matcher:
                return tuple(v for v in self.parts[0](**features).to_tuple() if isinstance(v, torch.Tensor))
            for part in self.parts:
                features = part(features)
            return features["sentence_embedding"]

    return Graph().eval()


def _features(model: Any, tokenizer: Any, texts: list[str]) -> dict[str, Any]:
    """Tensors that the model takes, by name."""
    import torch

    limit = None if hasattr(model, "encode") else most_tokens(model, tokenizer)
    features = tokenize(model, texts, tokenizer=tokenizer, max_length=limit)
    return {name: value for name, value in features.items() if isinstance(value, torch.Tensor)}


def _write(graph: Any, features: dict[str, Any], path: Path) -> list[str]:
    """Export, check, save; the names of the outputs."""
    import onnx
    import torch

    graph.names = tuple(features)
    with torch.no_grad():
        computed = graph(*features.values())
    if isinstance(computed, tuple):
        outputs = [f"output_{index}" for index in range(len(computed))]
    else:
        outputs = ["sentence_embedding"]
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
    with _quiet():
        program = torch.onnx.export(
            graph,
            tuple(features.values()),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(features),
            output_names=outputs,
            dynamic_shapes=(tuple({0: batch, 1: length} for _ in features),),
            verbose=False,
        )
        program.save(str(path), external_data=False)  # type: ignore[union-attr]
    model = onnx.load(str(path))
    onnx.checker.check_model(model)
    domains = {node.domain for node in model.graph.node} | {entry.domain for entry in model.opset_import}
    if domains - {"", "ai.onnx"} or model.functions:
        raise FormatError(
            f"the graph holds operators of {sorted(domains)}", remedy="report this with the model"
        )
    return outputs


def _compare(model: Any, tokenizer: Any, path: Path, texts: list[str]) -> Parity:
    """Run the graph on batches of several lengths and on single texts, beside the model."""
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    worst = Parity(1.0, len(texts), texts[0])
    for batch in [texts[start : start + 8] for start in range(0, len(texts), 8)] + [texts[:1]]:
        features = _features(model, tokenizer, batch)
        graph_outputs = session.run(None, {name: value.numpy() for name, value in features.items()})
        with torch.no_grad():
            wanted = _outputs(model, features)
        for expected, computed in zip(wanted, graph_outputs, strict=True):
            rows = expected.reshape(len(batch), -1)
            parity = compare_vectors(rows, computed.reshape(len(batch), -1).astype(np.float32), batch)
            gap = float(np.linalg.norm(expected - computed)) / max(float(np.linalg.norm(expected)), 1e-30)
            if parity.min_cosine < MIN_COSINE or gap > MOST_DIFFERENCE:
                raise FormatError(
                    f"the ONNX graph gives other outputs for {parity.worst_text!r:.80}: cosine "
                    f"{parity.min_cosine:.6f} (at least {MIN_COSINE} is asked)",
                    remedy="nothing was written; report this with the model's modules: print(model)",
                )
            if parity.min_cosine < worst.min_cosine:
                worst = Parity(parity.min_cosine, len(texts), parity.worst_text)
    return worst


def _outputs(model: Any, features: dict[str, Any]) -> list[Any]:
    import torch

    if hasattr(model, "encode"):
        return [model(dict(features))["sentence_embedding"].numpy()]
    return [value.numpy() for value in model(**features).to_tuple() if isinstance(value, torch.Tensor)]


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns of what it does not need; the caller's settings are put back."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
