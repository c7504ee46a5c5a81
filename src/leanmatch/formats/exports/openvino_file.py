"""OpenVINO: the graph of the ONNX export, converted by OpenVINO itself; weights in 8 bits by NNCF."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from leanmatch.errors import MissingExtraError

MODEL_FILE = "openvino_model.xml"
"""The name that optimum and sentence-transformers look for; the weights lie beside it in ``.bin``."""


def require_openvino(*, int8: bool) -> None:
    """Refuse to begin without the libraries.

    Raises:
        MissingExtraError: one of them is not installed.
    """
    for library in ("openvino", "nncf") if int8 else ("openvino",):
        try:
            __import__(library)
        except ModuleNotFoundError as error:
            raise MissingExtraError(library, "openvino", "exporting to OpenVINO") from error


def write_openvino(onnx: Path, path: Path, *, int8: bool) -> None:
    """Convert an ONNX graph to OpenVINO's form, float32 or with weights in 8 bits."""
    import openvino

    model = openvino.convert_model(str(onnx))
    if int8:
        import nncf

        model = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_ASYM)
    openvino.save_model(model, str(path), compress_to_fp16=False)


def openvino_runner(path: Path) -> Any:
    """A function from inputs by name (numpy) to a list of outputs, computed in float32 on the CPU."""
    import openvino

    model = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda features: list(model(features).values())
