"""Every setting of a sentence-transformers folder: torch's vectors, or a refusal with a remedy."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runtime_models import build, build_static
from tiny_bert import module

from leanmatch.errors import LeanmatchError, ModelError
from leanmatch.formats.reader import load_encoder
from leanmatch.runtime import FallbackEncoder, FallbackWarning, load
from leanmatch.runtime.architectures import UnsupportedError

TEXTS = [
    "usb dock with two hdmi ports",
    "How do I mount a Drive",
    " ".join(f"camera {number} lens" for number in range(40)),
    "red",
    "a A b B",
]
ROLES = ("encode", "encode_query", "encode_document")
MAIN, BERT, POOLING = (
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
    "1_Pooling/config.json",
)
TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
PROMPTS = {"query": "usb red: ", "document": "how do: ", "sts": "camera ", "passage": "lens "}
TRUNCATION = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}


@dataclass(frozen=True)
class Setting:
    """One setting of one file.

    ``outcome``: native, torch (the runtime leaves it to sentence-transformers) or refused.
    ``bites``: vectors of torch change with it; where not, that is the point of the case.
    """

    file: str
    values: dict[str, Any]
    outcome: str = "native"
    kind: str = "bert"
    bites: bool = True
    also: tuple[tuple[str, dict[str, Any]], ...] = field(default=())


SETTINGS = {
    "truncate_dim": Setting(MAIN, {"truncate_dim": 10}),
    "truncate_dim beyond the width": Setting(MAIN, {"truncate_dim": 1000}, bites=False),
    "truncate_dim, static": Setting(MAIN, {"truncate_dim": 7}, kind="static"),
    "truncate_dim after Normalize": Setting(MAIN, {"truncate_dim": 10}, kind="heads"),
    "truncate_dim 0": Setting(MAIN, {"truncate_dim": 0}, "refused"),
    "prompts": Setting(MAIN, {"prompts": PROMPTS}),
    "prompts, static": Setting(MAIN, {"prompts": PROMPTS}, kind="static"),
    "prompts, passage alone": Setting(MAIN, {"prompts": {"passage": "lens "}}, bites=False),
    "prompts, null": Setting(MAIN, {"prompts": {"query": None}}, bites=False),
    "prompts, no mapping": Setting(MAIN, {"prompts": ["query: "]}, "refused"),
    "default prompt": Setting(MAIN, {"prompts": PROMPTS, "default_prompt_name": "sts"}),
    "default prompt, unknown": Setting(MAIN, {"default_prompt_name": "nowhere"}, "refused"),
    "similarity cosine": Setting(MAIN, {"similarity_fn_name": "cosine"}, bites=False),
    "similarity null": Setting(MAIN, {"similarity_fn_name": None}, bites=False),
    "similarity dot": Setting(MAIN, {"similarity_fn_name": "dot"}, "refused"),
    "similarity dot, normalized": Setting(MAIN, {"similarity_fn_name": "dot"}, kind="heads", bites=False),
    "similarity dot, normalized and truncated": Setting(
        MAIN, {"similarity_fn_name": "dot", "truncate_dim": 10}, "refused", kind="heads"
    ),
    "similarity euclidean": Setting(MAIN, {"similarity_fn_name": "euclidean"}, "refused", kind="heads"),
    "similarity manhattan": Setting(MAIN, {"similarity_fn_name": "manhattan"}, "refused", kind="static"),
    "max_seq_length": Setting(BERT, {"max_seq_length": 9}),
    "max_seq_length null": Setting(BERT, {"max_seq_length": None}, bites=False),
    "do_lower_case": Setting(BERT, {"do_lower_case": True}, kind="cased"),
    "do_lower_case, lower already": Setting(BERT, {"do_lower_case": True}, bites=False),
    "unpad_inputs": Setting(BERT, {"unpad_inputs": False}, bites=False),
    "query_length": Setting(BERT, {"query_length": 4}, "torch"),
    "document_length": Setting(BERT, {"document_length": 4}, "torch"),
    "processing_kwargs": Setting(BERT, {"processing_kwargs": {"text": {"max_length": 4}}}, "torch"),
    "module_output_name": Setting(
        BERT,
        {
            "module_output_name": "token_embeddings",
            "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
        },
        bites=False,
    ),
    "pooling cls": Setting(POOLING, {"pooling_mode": "cls"}),
    "pooling max": Setting(POOLING, {"pooling_mode": "max"}),
    "pooling mean_sqrt_len_tokens": Setting(POOLING, {"pooling_mode": "mean_sqrt_len_tokens"}),
    "pooling weightedmean": Setting(POOLING, {"pooling_mode": "weightedmean"}),
    "pooling lasttoken": Setting(POOLING, {"pooling_mode": "lasttoken"}),
    "pooling of two": Setting(POOLING, {"pooling_mode": ["lasttoken", "mean"]}),
    "include_prompt without prompts": Setting(POOLING, {"include_prompt": False}, bites=False),
    "include_prompt": Setting(
        POOLING, {"include_prompt": False}, "torch", also=((MAIN, {"prompts": PROMPTS}),)
    ),
    "truncation_side": Setting(TOKENIZER_CONFIG, {"truncation_side": "left"}),
    "padding_side": Setting(TOKENIZER_CONFIG, {"padding_side": "left"}, "torch"),
    "model_max_length": Setting(
        TOKENIZER_CONFIG, {"model_max_length": 6}, also=((BERT, {"max_seq_length": None}),)
    ),
    "tokenizer's truncation": Setting(TOKENIZER, {"truncation": TRUNCATION}, bites=False),
    "tokenizer's truncation side": Setting(TOKENIZER, {"truncation": TRUNCATION | {"direction": "Left"}}),
    "tokenizer's truncation, static": Setting(TOKENIZER, {"truncation": TRUNCATION}, kind="static"),
    "tokenizer's truncation side, static": Setting(
        TOKENIZER, {"truncation": TRUNCATION | {"direction": "Left"}}, kind="static"
    ),
    "tokenizer's truncation and stride, static": Setting(
        TOKENIZER, {"truncation": TRUNCATION | {"stride": 2}}, kind="static"
    ),
    "tokenizer's truncation and a prompt, static": Setting(
        TOKENIZER, {"truncation": TRUNCATION}, kind="static", also=((MAIN, {"prompts": PROMPTS}),)
    ),
    "Dense out": Setting("2_Dense/config.json", {"module_output_name": "other"}, "torch", "heads"),
    "Dense activation": Setting(
        "2_Dense/config.json",
        {"activation_function": "torch.nn.modules.activation.ReLU"},
        kind="heads",
    ),
    "Dense residual": Setting("2_Dense/config.json", {"use_residual": True}, "torch", "residual"),
    "Normalize out": Setting("3_Normalize/config.json", {"module_output_name": "other"}, "torch", "heads"),
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``plain(kind)``: a folder without the settings that are tried."""
    made: dict[str, Path] = {}

    def get(kind: str) -> Path:
        if kind not in made:
            made[kind] = _build(tmp_path_factory.mktemp(kind), kind) / "model"
        return made[kind]

    return get


def _build(folder: Path, kind: str) -> Path:
    from torch import nn

    if kind == "static":
        build_static(folder)
    elif kind == "heads":
        build(folder, heads=[module("Dense")(48, 20, activation_function=nn.Tanh()), module("Normalize")()])
    elif kind == "residual":
        build(folder, heads=[module("Dense")(48, 48)])
    else:
        build(folder)
    if kind == "cased":
        rewrite(folder / "model" / TOKENIZER, {"normalizer": None})
    return folder


def rewrite(file: Path, values: dict[str, Any]) -> None:
    content = json.loads(file.read_text()) if file.exists() else {}
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({**content, **values}))


def torch_vectors(folder: Path) -> dict[str, np.ndarray]:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    return {role: getattr(model, role)(TEXTS) for role in ROLES}


def same(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> bool:
    return all(
        first[role].shape == second[role].shape
        and np.allclose(first[role], second[role], rtol=2e-4, atol=2e-5)
        for role in ROLES
    )


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_gives_the_vectors_of_torch_or_is_refused(name: str, plain, tmp_path: Path) -> None:
    setting = SETTINGS[name]
    folder = Path(shutil.copytree(plain(setting.kind), tmp_path / "model"))
    for file, values in ((setting.file, setting.values), *setting.also):
        rewrite(folder / file, values)
    if setting.outcome == "refused":
        with pytest.raises(ModelError) as refused:
            load(folder)
        assert refused.value.remedy and not isinstance(refused.value, UnsupportedError)
        with pytest.raises(LeanmatchError):
            load_encoder(folder)
        return
    wanted = torch_vectors(folder)
    base = torch_vectors(plain(setting.kind))
    assert same(wanted, base) != setting.bites, "the setting changes torch's vectors, or is said not to"
    if setting.outcome == "torch":
        with pytest.raises(UnsupportedError):
            load(folder, runtime="native")
        with pytest.warns(FallbackWarning):
            encoder: Any = load(folder)
        assert isinstance(encoder, FallbackEncoder)
    else:
        encoder = load(folder, runtime="native")
    assert same({role: getattr(encoder, role)(TEXTS) for role in ROLES}, wanted)
    if setting.outcome == "native":
        assert encoder.dimension == wanted["encode"].shape[1]
    own = load_encoder(folder, "cpu")
    assert same({role: getattr(own, role)(TEXTS) for role in ROLES}, wanted)
    prompt = own.prompts.query
    assert encoder.count_tokens(TEXTS, prompt=prompt) == own.count_tokens(TEXTS, prompt=prompt)
