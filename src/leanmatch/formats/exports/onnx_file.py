"""ONNX: texts' tokens in, vectors or scores out; pooling, Dense layers and normalization are in the graph.

The graph is made by torch's exporter from the model with stock layers, holds operators of the standard only,
and takes any batch size and length. It is compared with the model by running it in onnxruntime.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from leanmatch.errors import FormatError, MissingExtraError
from leanmatch.formats.exports.source import Source

OPSET = 18
MODEL_FILE = "model.onnx"
LIBRARIES = ("onnx", "onnxscript", "onnxruntime")


def require_libraries() -> None:
    """Refuse to begin without the libraries of :data:`LIBRARIES`.

    Raises:
        MissingExtraError: one of them is not installed.
    """
    for library in LIBRARIES:
        try:
            __import__(library)
        except ModuleNotFoundError as error:
            raise MissingExtraError(library, "export", "exporting to ONNX") from error


def write_onnx(source: Source, path: Path) -> tuple[list[str], list[str]]:
    """Write the graph; the names of its inputs and outputs.

    Raises:
        FormatError: torch cannot export the model, or the graph holds foreign operators.
    """
    import torch

    from leanmatch.formats.exports.graph import EXAMPLES, MATCHER_OUTPUT, graph_of, inputs_of

    features = inputs_of(source, list(EXAMPLES))
    graph = graph_of(source, features)
    with torch.no_grad():
        computed = graph(*features.values())
    outputs = (
        [f"output_{index}" for index in range(len(computed))]
        if isinstance(computed, tuple)
        else [MATCHER_OUTPUT]
    )
    names = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    static = source.is_matcher and source.inner is None
    options = {
        "dynamo": True,
        "opset_version": OPSET,
        "input_names": list(features),
        "output_names": outputs,
        "dynamic_shapes": tuple(names for _ in features) if static else (tuple(names for _ in features),),
        "verbose": False,
    }
    with _quiet():
        program = _traced(source, graph, tuple(features.values()), options)
        program.save(str(path), external_data=False)
    check_standard(path)
    return list(features), outputs


def _traced(source: Source, graph: Any, tensors: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """The exported program; a model that does not export with fused attention (T5) gets the plain one."""
    import torch

    inner: Any = getattr(source.dense[0], "auto_model", None) if source.is_matcher else source.dense
    attention = getattr(getattr(inner, "config", None), "_attn_implementation", "eager")
    try:
        return torch.onnx.export(graph, tensors, **options)
    except Exception as error:  # whatever the exporter raises at a model that it cannot trace
        failure = error
    if attention != "eager" and hasattr(inner, "set_attn_implementation"):
        inner.set_attn_implementation("eager")
        try:
            return torch.onnx.export(graph, tensors, **options)
        except Exception as error:
            failure = error
        finally:
            inner.set_attn_implementation(attention)
    lines = [line.strip() for line in str(failure).splitlines() if line.strip()]
    reason = next((line for line in lines if line.startswith("<class")), lines[0] if lines else "")
    raise FormatError(
        f"torch cannot export {source.name} to ONNX: {type(failure).__name__}: {reason:.200}",
        remedy="update torch and onnxscript, or use the model with leanmatch as it is",
    ) from failure


def round_onnx(path: Path) -> None:
    """Round the weights of a graph to 8 bits, a scale a column, in place; inputs are rounded as they come."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    rounded = path.with_name(f"int8-{path.name}")
    with _quiet("root"):
        quantize_dynamic(str(path), str(rounded), weight_type=QuantType.QInt8, per_channel=True)
    rounded.replace(path)
    check_standard(path, also=("com.microsoft",))


def check_standard(path: Path, also: tuple[str, ...] = ()) -> None:
    """Check that a graph is whole and holds operators of the standard only.

    Raises:
        FormatError: it holds others, from domains that are not in ``also``.
    """
    import onnx

    model = onnx.load(str(path))
    onnx.checker.check_model(model)
    domains = {node.domain for node in model.graph.node}
    if not also:
        domains |= {entry.domain for entry in model.opset_import}
    if domains - {"", "ai.onnx", *also} or model.functions:
        raise FormatError(
            f"the graph holds operators of {sorted(domains)}", remedy="report this with the model"
        )


def onnx_runner(path: Path) -> Any:
    """A function from inputs by name (numpy) to a list of outputs."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda features: session.run(None, features)


@contextmanager
def _quiet(name: str = "torch.onnx") -> Iterator[None]:
    """The exporter warns of what it does not need; the caller's settings are put back."""
    logger = logging.getLogger(None if name == "root" else name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
