"""Exports that are one graph: written, compared with the model on odd texts, refused if they differ."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from leanmatch.errors import FormatError
from leanmatch.files import atomic_folder, write_json
from leanmatch.formats.artifact.outputs import MOST_DIFFERENCE
from leanmatch.formats.exports import onnx_file, openvino_file
from leanmatch.formats.exports.source import Source
from leanmatch.formats.model_card import write_model_card
from leanmatch.formats.parity import MIN_COSINE, ODD_TEXTS, Parity, compare_vectors
from leanmatch.formats.provenance import FILE_NAME
from leanmatch.formats.writer import common_fields, same_mode

MIN_COSINE_INT8 = 0.95
"""What 8 bits must keep of the worst text; a format that rounds a whole matrix by one scale loses more."""


def export_graph(
    source: Source, target: str, folder: Path, *, int8: bool, overwrite: bool, sample: Sequence[str]
) -> tuple[Parity, int, tuple[str, ...]]:
    """Write a graph with tokenizer, configuration, card and ``leanmatch.json``; parity, bytes and notes.

    Args:
        source: the model.
        target: ``onnx`` or ``openvino``.
        folder: where to.
        int8: weights in 8 bits.
        overwrite: replace a model folder that is there.
        sample: texts of the user's own to compare on, as well.

    Raises:
        MissingExtraError: a library is not installed.
        FormatError: the graph computes something else than the model, or cannot be made.
    """
    onnx_file.require_libraries()
    if target == "openvino":
        openvino_file.require_openvino(int8=int8)
    notes = _notes(source, int8)
    with atomic_folder(folder, overwrite=overwrite) as temporary:
        graph = temporary / onnx_file.MODEL_FILE
        inputs, outputs = onnx_file.write_onnx(source, graph)
        if target == "openvino":
            path = temporary / openvino_file.MODEL_FILE
            openvino_file.write_openvino(graph, path, int8=int8)
            graph.unlink()
            run, weights = openvino_file.openvino_runner(path), (".bin",)
        else:
            if int8:
                onnx_file.round_onnx(graph)
            path, run, weights = graph, onnx_file.onnx_runner(graph), (".onnx",)
        limit = _write_tokenizer(source, temporary)
        if source.inner is not None:
            source.inner.config.save_pretrained(str(temporary))
        parity = compare_graph(source, run, [*ODD_TEXTS, *sample], int8=int8)
        content = {
            **common_fields(temporary, source.provenance(target), list(notes), weights),
            "kind": target,
            "parity": {"min_cosine": parity.min_cosine, "texts": parity.texts},
            target: {
                **({"opset": onnx_file.OPSET} if target == "onnx" else {}),
                "inputs": inputs,
                "outputs": outputs,
                "file": path.name,
                "precision": "int8" if int8 else "float32",
                "max_tokens": limit,
                "prompts": dict(source.model.prompts) if source.is_matcher else {},
            },
        }
        write_json(temporary / FILE_NAME, content)
        write_model_card(temporary, content, name=folder.name)
        del run  # it may hold the file
        size = same_mode(temporary)
    return parity, size, notes


def compare_graph(
    source: Source, run: Callable[[dict[str, Any]], list[Any]], texts: list[str], *, int8: bool
) -> Parity:
    """Run a graph on batches of several lengths and on single texts, beside the model.

    Raises:
        FormatError: it computes something else.
    """
    from leanmatch.formats.exports.graph import inputs_of, outputs_of

    least = MIN_COSINE_INT8 if int8 else MIN_COSINE
    worst = Parity(1.0, len(texts), texts[0])
    for batch in [texts[start : start + 8] for start in range(0, len(texts), 8)] + [texts[:1]]:
        features = {name: value.numpy() for name, value in inputs_of(source, batch).items()}
        for expected, given in zip(outputs_of(source, batch), run(features), strict=True):
            computed = np.asarray(given, dtype=np.float32)
            parity = compare_vectors(
                expected.reshape(len(batch), -1), computed.reshape(len(batch), -1), batch
            )
            gap = float(np.linalg.norm(expected - computed)) / max(float(np.linalg.norm(expected)), 1e-30)
            if parity.min_cosine < least or (gap > MOST_DIFFERENCE and not int8):
                raise FormatError(
                    f"the graph gives other outputs for {parity.worst_text!r:.80}: cosine "
                    f"{parity.min_cosine:.6f} (at least {least} is asked)",
                    remedy="nothing was written; export it without int8"
                    if int8
                    else "nothing was written; report this with the model's modules: print(model)",
                )
            if parity.min_cosine < worst.min_cosine:
                worst = Parity(parity.min_cosine, len(texts), parity.worst_text)
    return worst


def _write_tokenizer(source: Source, folder: Path) -> int | None:
    """The tokenizer, which truncates at the model's own length; that length, None where there is none."""
    if source.is_matcher and source.inner is None:
        from transformers import PreTrainedTokenizerFast

        plain = copy.deepcopy(source.tokenizer)
        plain.post_processor = None  # a static encoder adds no tokens
        padding = next((token for token in ("[PAD]", "<pad>") if plain.token_to_id(token) is not None), None)
        options = {
            "pad_token": padding or plain.id_to_token(0),
            "model_input_names": ["input_ids", "attention_mask"],
        }
        wrap: Any = PreTrainedTokenizerFast
        wrap(tokenizer_object=plain, **options).save_pretrained(str(folder))
        return None
    tokenizer = copy.deepcopy(source.tokenizer)
    if source.is_matcher and source.model.max_seq_length is not None:
        tokenizer.model_max_length = min(int(source.model.max_seq_length), tokenizer.model_max_length)
    tokenizer.save_pretrained(str(folder))
    limit = int(tokenizer.model_max_length)
    return limit if limit < 10**9 else None


def _notes(source: Source, int8: bool) -> tuple[str, ...]:
    """What the graph does not do and the model does."""
    if not source.is_matcher:
        return ()
    model = source.model
    kinds = [type(module).__name__ for module in model if type(module).__name__ != "Dropout"]
    notes = []
    if kinds[-1:] != ["Normalize"]:
        notes.append(
            "the model has no Normalize module: divide vectors by their length before you compare them"
        )
    if model.truncate_dim is not None:
        notes.append(
            f"the graph gives all dimensions: keep the first {model.truncate_dim} and normalize them again"
        )
    prompts = {name: text for name, text in model.prompts.items() if text}
    if prompts:
        notes.append(f"the graph adds no prompts; put them before the texts: {prompts}")
    if getattr(model[0], "do_lower_case", False):
        notes.append("the model lower-cases texts before its tokenizer does: do the same")
    return tuple(notes)
