"""Saving: the layout's exact keys, parity on reload, nothing left behind on failure."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from leanmatch.errors import FormatError, LeanmatchError, ModelError
from leanmatch.formats import read_provenance, save_matcher, weights_sha256
from leanmatch.formats import writer as writer_module
from leanmatch.formats.reader import load_encoder, load_matcher

torch = pytest.importorskip("torch")

TEXTS = ["usb dock", "red camera lens", "how do i mount a drive"]


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_bert_layout_is_the_one_that_old_versions_read(bert, tmp_path, provenance):
    saved = save_matcher(bert, tmp_path / "m", provenance, sample=TEXTS)
    folder = saved.folder
    assert [entry["type"] for entry in read(folder / "modules.json")] == [
        "sentence_transformers.models.Transformer",
        "sentence_transformers.models.Pooling",
        "sentence_transformers.models.Normalize",
    ]
    assert read(folder / "sentence_bert_config.json") == {"max_seq_length": 24, "do_lower_case": False}
    assert read(folder / "1_Pooling" / "config.json") == {
        "word_embedding_dimension": 32,
        "pooling_mode_cls_token": False,
        "pooling_mode_max_tokens": False,
        "pooling_mode_mean_tokens": True,
        "pooling_mode_mean_sqrt_len_tokens": False,
        "pooling_mode_weightedmean_tokens": False,
        "pooling_mode_lasttoken": False,
        "include_prompt": True,
    }
    assert "__version__" not in read(folder / "config_sentence_transformers.json")
    tokenizer = read(folder / "tokenizer_config.json")
    assert not {"backend", "is_local", "local_files_only"} & set(tokenizer)
    assert (folder / "tokenizer.json").is_file() and (folder / "model.safetensors").is_file()
    assert saved.notes == () and saved.parity.min_cosine >= 0.9999
    assert saved.bytes == sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def test_reloaded_model_gives_the_same_vectors(bert, tmp_path, provenance):
    save_matcher(bert, tmp_path / "m", provenance)
    vectors = load_matcher(tmp_path / "m", device="cpu").encode(TEXTS)
    expected = bert.encode(TEXTS)
    assert np.abs(expected).max() > 0.01 and not np.allclose(expected[0], expected[1])
    np.testing.assert_allclose(vectors, expected, atol=1e-6)


def test_static_layout(static, tmp_path, provenance):
    saved = save_matcher(static, tmp_path / "m", provenance)
    assert [entry["type"] for entry in read(saved.folder / "modules.json")] == [
        "sentence_transformers.models.StaticEmbedding"
    ]
    np.testing.assert_allclose(
        load_matcher(tmp_path / "m", device="cpu").encode(TEXTS), static.encode(TEXTS), atol=1e-6
    )


def test_generic_tokenizer_and_dense_are_written_in_old_words(build_bert, tmp_path, provenance):
    model = build_bert(tmp_path, generic_tokenizer=True, dense=True, pooling=("cls"))
    assert model.tokenizer.__class__.__name__ == "TokenizersBackend", "the set-up no longer bites"
    saved = save_matcher(model, tmp_path / "m", provenance)
    tokenizer = read(saved.folder / "tokenizer_config.json")
    assert tokenizer["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert tokenizer["additional_special_tokens"] == ["<item>"] and "extra_special_tokens" not in tokenizer
    assert set(read(saved.folder / "2_Dense" / "config.json")) == {
        "in_features",
        "out_features",
        "bias",
        "activation_function",
    }
    assert read(saved.folder / "1_Pooling" / "config.json")["pooling_mode_cls_token"] is True
    assert "<item>" in load_matcher(saved.folder, device="cpu").tokenizer.all_special_tokens


def test_what_the_old_layout_cannot_say_is_kept_and_noted(build_bert, tmp_path, provenance):
    reason = "only from sentence-transformers 5.4 on can a Dense be residual"
    modules = pytest.importorskip("sentence_transformers.base.modules", reason=reason)
    model = build_bert(tmp_path, pooling=("mean", "cls"))
    model.insert(2, modules.Dense(64, 8, use_residual=True))
    saved = save_matcher(model, tmp_path / "m", provenance)
    types = [entry["type"] for entry in read(saved.folder / "modules.json")]
    assert (
        types[1].startswith("sentence_transformers.sentence_transformer.")
        and "base.modules.dense" in types[2]
    )
    assert [note for note in saved.notes if "pooling modes in the order" in note]
    assert [note for note in saved.notes if "use_residual = true" in note]
    assert read_provenance(saved.folder)["layout_notes"] == list(saved.notes)


def test_provenance_is_written_and_read(bert, tmp_path, provenance):
    saved = save_matcher(
        bert, tmp_path / "m", {**provenance, "metrics": {"auc": float("nan"), "n": np.int64(3)}}
    )
    content = read_provenance(tmp_path / "m")
    assert content["format"] == "leanmatch-matcher" and content["format_version"] == 1
    assert content["base"] == "tiny" and content["data"] == {"rows": 3} and content["split"] == {}
    assert content["metrics"] == {"auc": None, "n": 3}
    assert saved.notes == ("metrics.auc was nan, stored as null",)
    assert content["weights_sha256"] == saved.weights_sha256 == weights_sha256(tmp_path / "m")
    assert content["parity"]["min_cosine"] == saved.parity.min_cosine
    assert load_encoder(tmp_path / "m", device="cpu").provenance == content


def test_weights_hash_moves_with_the_weights(build_bert, tmp_path, provenance):
    model = build_bert(tmp_path)
    before = save_matcher(model, tmp_path / "a", provenance).weights_sha256
    with torch.no_grad():
        next(model.parameters())[0, 0] += 0.5
    assert save_matcher(model, tmp_path / "b", provenance).weights_sha256 != before


def test_parity_failure_leaves_nothing_behind(bert, tmp_path, provenance, monkeypatch):
    real = writer_module.open_folder

    def damaged(folder, device):
        model = real(folder, device)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.5)
        return model

    monkeypatch.setattr(writer_module, "open_folder", damaged)
    with pytest.raises(FormatError, match=r"reloaded, gives a cosine of .* \(at least 0\.9999"):
        save_matcher(bert, tmp_path / "m", provenance)
    assert os.listdir(tmp_path) == []


def test_diverged_model_is_refused(build_bert, tmp_path, provenance):
    model = build_bert(tmp_path / "work")
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.raises(FormatError, match="NaN or infinite"):
        save_matcher(model, tmp_path / "m", provenance)
    assert not (tmp_path / "m").exists()


def test_a_kill_while_writing_keeps_the_old_folder(bert, tmp_path, provenance, monkeypatch):
    save_matcher(bert, tmp_path / "m", provenance)
    before = read(tmp_path / "m" / "leanmatch.json")

    def interrupted(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr(writer_module, "check_parity", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_matcher(bert, tmp_path / "m", {**provenance, "base": "other"}, overwrite=True)
    assert read(tmp_path / "m" / "leanmatch.json") == before and os.listdir(tmp_path) == ["m"]


def test_overwrite(bert, tmp_path, provenance):
    save_matcher(bert, tmp_path / "m", provenance)
    with pytest.raises(LeanmatchError, match="exists already"):
        save_matcher(bert, tmp_path / "m", provenance)
    save_matcher(bert, tmp_path / "m", {**provenance, "base": "second"}, overwrite=True)
    assert read_provenance(tmp_path / "m")["base"] == "second" and os.listdir(tmp_path) == ["m"]


def test_overwrite_never_replaces_what_is_no_model(bert, tmp_path, provenance):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ModelError, match="is not a saved model"):
        save_matcher(bert, tmp_path, provenance, overwrite=True)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_overwrite_never_removes_files_beside_the_model(bert, tmp_path, provenance):
    save_matcher(bert, tmp_path / "m", provenance)
    before = read(tmp_path / "m" / "leanmatch.json")
    for name in ("thesis.txt", "notes/thesis.txt", "pairs.json", ".git/HEAD"):
        path = tmp_path / "m" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("years of work")
        found = name if "/" not in name else name.partition("/")[0] + "/"
        with pytest.raises(ModelError, match=rf"no part of the model: {found}\n.*move that elsewhere"):
            save_matcher(bert, tmp_path / "m", provenance, overwrite=True)
        assert path.read_text() == "years of work" and read(tmp_path / "m" / "leanmatch.json") == before
        path.unlink()
        if path.parent != tmp_path / "m":
            path.parent.rmdir()
    save_matcher(bert, tmp_path / "m", provenance, overwrite=True)


def test_unmerged_adapters_are_refused(build_bert, tmp_path, provenance):
    peft = pytest.importorskip("peft", reason="peft is not installed")
    model = build_bert(tmp_path)
    # not model.add_adapter: transformers 5.24 asks there for a peft that is not published yet
    peft.inject_adapter_in_model(peft.LoraConfig(r=2, target_modules=["query"]), model[0].auto_model)
    with pytest.raises(ModelError, match=r"2 layers carry unmerged adapters.*(\n.*)?merge"):
        save_matcher(model, tmp_path / "m", provenance)


def test_training_mode_and_file_modes_are_kept(build_bert, tmp_path, provenance):
    model = build_bert(tmp_path)
    model.train()
    model[1].eval()
    save_matcher(model, tmp_path / "m", provenance)
    assert model.training and model[0].training and not model[1].training
    modes = {file.stat().st_mode for file in (tmp_path / "m").rglob("*") if file.is_file()}
    assert len(modes) == 1


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"format": "x"}, "filled in by the writer"),
        ({"data": [1]}, "'data' is a list"),
        ({"options": {"f": object()}}, "options.f is a object"),
    ],
)
def test_bad_provenance_is_refused_before_any_writing(bert, tmp_path, bad, message):
    with pytest.raises(FormatError, match=message):
        save_matcher(bert, tmp_path / "m", bad)
    assert os.listdir(tmp_path) == []
