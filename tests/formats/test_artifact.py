"""The artifact: there and back for every form, without torch, with exact bytes, for any kind of model."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from compressed_models import SMALL, SPEC, compressed

import leanmatch
from leanmatch.compression import CompressionSpec, DenseSparseSpec, RoundingSpec, Rule, compressed_layers
from leanmatch.errors import FormatError, LeanmatchError, ModelError, UsageError
from leanmatch.factorization import DenseSparse, IntMatrix, LowRank, QuantizedDenseSparse
from leanmatch.factorization.cost import STORED_FLOAT_BITS
from leanmatch.formats import is_artifact, save_compressed, save_matcher
from leanmatch.formats.artifact import loader, writer
from leanmatch.formats.artifact.halves import stored, stored_scales
from leanmatch.formats.artifact.loader import load_compressed
from leanmatch.formats.artifact.reader import read_artifact
from leanmatch.formats.reader import load_encoder, load_matcher

TEXTS = ["usb dock", "red camera lens", "how do i mount a drive"]
PROVENANCE = {"base": "tiny", "metrics": {"MRR@10": 0.5}}


@pytest.fixture(scope="module")
def model(build_bert, tmp_path_factory):
    return compressed(build_bert(tmp_path_factory.mktemp("bert"), dense=True))


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("artifact") / "m"
    quality = {"metric": "MRR@10", "dense": 0.5, "compressed": 0.49}
    errors = {"encoder.layer.0.attention.self.query": 0.25}
    return save_compressed(model, folder, PROVENANCE, spec=SPEC, quality=quality, errors=errors)


def files_of(folder):
    return {p.relative_to(folder).as_posix(): p.stat().st_size for p in folder.rglob("*") if p.is_file()}


def test_a_reloaded_model_computes_the_same(model, saved):
    found = load_matcher(saved.folder, device="cpu")
    expected = model.encode(TEXTS)
    assert np.abs(expected).max() > 0.01 and not np.allclose(expected[0], expected[1], atol=1e-3)
    np.testing.assert_allclose(found.encode(TEXTS), expected, atol=2e-3)
    assert {type(layer).__name__ for layer in compressed_layers(found).values()} == {
        "FactoredLinear", "QuantizedLinear", "LowRankLinear", "QuantizedEmbedding", "FactoredEmbedding",
    }  # fmt: skip
    assert not found.training and found.max_seq_length == 24
    first = compressed_layers(found)
    atoms = {n.rpartition(".")[2]: layer.factors for n, layer in first.items() if ".0.attention.self" in n}
    assert atoms["query"].atoms_q.data_ptr() == atoms["key"].atoms_q.data_ptr(), "the stack shares its atoms"


def test_integer_codes_and_indices_are_kept_exactly(model, saved):
    artifact = read_artifact(saved.folder)
    kinds = set()
    assert list(artifact.layers) == list(compressed_layers(model[0].auto_model))
    for name, layer in compressed_layers(model[0].auto_model).items():
        found, expected = artifact.layers[name].factors, layer.to_factors()
        kinds.add((type(found), getattr(found, "identity", None)))
        assert type(found) is type(expected) and found.shape == expected.shape
        if isinstance(found, QuantizedDenseSparse | DenseSparse):
            assert found.indices.dtype == expected.indices.dtype and (found.indices == expected.indices).all()
        for field in ("values_q", "atoms_q", "q"):
            if hasattr(found, field):
                assert np.abs(getattr(expected, field)).max() > (field != "atoms_q")
                assert (getattr(found, field) == getattr(expected, field)).all()
        np.testing.assert_allclose(
            found.dense(), expected.dense(), rtol=0, atol=2e-3 * np.abs(expected.dense()).max()
        )
        if getattr(layer, "bias", None) is not None:
            np.testing.assert_allclose(artifact.layers[name].bias, layer.bias.detach().numpy(), atol=1e-3)
    assert kinds == {
        (QuantizedDenseSparse, False), (QuantizedDenseSparse, True), (DenseSparse, False),
        (DenseSparse, True), (IntMatrix, None), (LowRank, None),
    }  # fmt: skip


def test_what_it_says_of_itself(saved):
    artifact = read_artifact(saved.folder)
    assert (artifact.task, artifact.architecture) == ("matcher", "BertModel")
    assert artifact.config["hidden_size"] == 32 and artifact.tokenizer_file.name == "tokenizer.json"
    assert [module.type for module in artifact.modules] == ["Transformer", "Pooling", "Dense", "Normalize"]
    assert artifact.modules[0].config == {"max_seq_length": 24, "do_lower_case": False}
    assert artifact.modules[1].config["pooling_mode_mean_tokens"] is True
    assert artifact.dropped == ("pooler.dense.bias", "pooler.dense.weight")
    assert artifact.tensors["module2.linear.weight"].shape == (16, 32)
    assert all(np.isfinite(value).all() for value in artifact.tensors.values())
    assert artifact.provenance["kind"] == "compressed" and artifact.provenance["base"] == "tiny"
    assert artifact.provenance["parity"]["min_cosine"] == saved.parity.min_cosine > 0.9999
    assert artifact.report["quality"]["dense"] == 0.5
    assert CompressionSpec.from_json(artifact.report["spec"]) == SPEC
    query = artifact.layers["encoder.layer.0.attention.self.query"]
    assert query.report["error"] == 0.25 and query.stack.endswith("encoder.layer.0.attention.self")
    assert query.report["dense_macs"] == 32 * 32
    # n r + m (n/b) k for the first member of the stack, m (n/b) k for the others
    others = [
        artifact.layers[f"encoder.layer.0.attention.self.{one}"].report["macs"] for one in ("key", "value")
    ]
    assert query.report["macs"] == 32 * 12 + 32 * 4 * 3 and others == [32 * 4 * 3] * 2
    assert artifact.layers["embeddings.word_embeddings"].report["macs"] == 0


def test_bytes_are_those_of_the_report(saved):
    sizes, found = saved.report["bytes"], files_of(saved.folder)
    assert sizes["weights"] == found["compressed.safetensors"]
    assert sizes["layers"] + sizes["tensors"] + sizes["header"] == sizes["weights"]
    assert sizes["total"] == sum(size for name, size in found.items() if name != "leanmatch.json")
    assert saved.bytes == sum(found.values()) and sizes["layers"] > 1000
    layers = read_artifact(saved.folder).layers
    assert sum(layer.report["bytes"] for layer in layers.values()) == sizes["layers"]
    factors = layers["encoder.layer.0.intermediate.dense"]
    packed = -(-64 * 4 * 3 * 4 // 8)  # m (n/b) k values of 4 bits; indices of 12 atoms take 4 bits as well
    assert factors.report["bytes"] == 2 * packed + 4 * 12 * 8 + 2 * (64 + 4 * 12 + 64)


def test_layers_take_the_bytes_and_multiply_adds_that_their_cost_says(saved):
    """Tensors end at whole bytes; values that are no codes are float16, and so are biases."""
    stacks = set()
    for name, layer in read_artifact(saved.folder).layers.items():
        shared = {"shared_atoms": True} if layer.stack in stacks else {}
        stacks |= {layer.stack} - {None}
        cost = layer.factors.cost(STORED_FLOAT_BITS, **shared)
        bias = 0 if layer.bias is None else 2 * len(layer.bias)
        assert 0 <= layer.report["bytes"] - bias - cost.bits / 8 < 3, name
        if layer.kind == "linear":
            assert layer.report["macs"] == cost.macs, name
    assert stacks


def test_a_report_that_misses_bytes_is_not_saved(model, tmp_path, monkeypatch):
    real = writer._sizes

    def short(gathered, folder):
        sizes = real(gathered, folder)
        return {**sizes, "bytes": {**sizes["bytes"], "total": sizes["bytes"]["total"] * 49 // 50}}

    monkeypatch.setattr(writer, "_sizes", short)
    with pytest.raises(FormatError, match="the report says"):
        save_compressed(model, tmp_path / "m", PROVENANCE)
    assert os.listdir(tmp_path) == []


def test_no_torch_is_needed_to_read(saved):
    script = f"""
import sys
from leanmatch.formats.artifact.reader import read_artifact
artifact = read_artifact({str(saved.folder)!r})
print(len(artifact.layers), "torch" in sys.modules, "transformers" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["14", "False", "False"], done.stderr


def test_an_encoder_with_its_provenance(model, saved):
    encoder = load_encoder(saved.folder, device="cpu")
    assert encoder.dimension == 16 and encoder.provenance["kind"] == "compressed"
    expected = model.encode(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(encoder(TEXTS), expected, atol=2e-3)


def test_a_reloaded_model_can_be_saved_again_without_change(saved, tmp_path):
    again = save_compressed(load_compressed(saved.folder, "cpu"), tmp_path / "again", PROVENANCE)
    first, second = (folder / "compressed.safetensors" for folder in (saved.folder, again.folder))
    assert first.read_bytes() == second.read_bytes()


def test_parity_failure_leaves_nothing_behind(model, tmp_path, monkeypatch):
    real = loader._fill

    def damaged(made, artifact):
        real(made, artifact)
        with torch.no_grad():
            made[0].auto_model.embeddings.LayerNorm.bias.add_(torch.randn(32))

    monkeypatch.setattr(loader, "_fill", damaged)
    with pytest.raises(FormatError, match="reloaded, gives a cosine of"):
        save_compressed(model, tmp_path / "m", PROVENANCE)
    assert os.listdir(tmp_path) == []


def test_a_matcher_is_no_artifact_and_an_artifact_is_never_half_read(bert, saved, tmp_path):
    save_matcher(bert, tmp_path / "plain", PROVENANCE)
    assert is_artifact(saved.folder) and not is_artifact(tmp_path / "plain")
    with pytest.raises(FormatError, match="holds no compressed model"):
        read_artifact(tmp_path / "plain")
    (tmp_path / "plain" / "leanmatch.json").write_text("{")
    assert load_matcher(tmp_path / "plain", device="cpu") is not None, "only its provenance is damaged"


def test_what_cannot_be_saved(bert, static, model, tmp_path):
    with pytest.raises(ModelError, match="no compressed layer"):
        save_compressed(bert, tmp_path / "m", PROVENANCE)
    with pytest.raises(FormatError, match=r"\['artifact', 'kind'\] are filled in by the writer"):
        save_compressed(model, tmp_path / "m", {"kind": "x", "artifact": {}})
    with pytest.raises(UsageError, match="with its tokenizer"):
        save_compressed(model[0].auto_model, tmp_path / "m", PROVENANCE)
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "thesis.tex").write_text("years of work")
    with pytest.raises(LeanmatchError, match="exists already"):
        save_compressed(model, tmp_path / "m", PROVENANCE)
    with pytest.raises(ModelError, match="is not a saved model"):
        save_compressed(model, tmp_path / "m", PROVENANCE, overwrite=True)


def test_weights_that_are_not_finite(model, tmp_path):
    import copy

    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken[0].auto_model.embeddings.LayerNorm.bias[0] = float("nan")
    with pytest.raises(ModelError, match=r"LayerNorm\.bias holds NaN"):
        save_compressed(broken, tmp_path / "m", PROVENANCE)
    assert os.listdir(tmp_path) == []


def _config(name, **more):
    import transformers

    sizes = {"vocab_size": 90, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 64, "max_position_embeddings": 64, "initializer_range": 0.1}
    if name == "DistilBert":
        sizes = {
            "vocab_size": 90,
            "dim": 32,
            "n_layers": 2,
            "n_heads": 2,
            "hidden_dim": 64,
            "initializer_range": 0.1,
        }
    if name == "T5":
        sizes = {"vocab_size": 90, "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}
    if name == "Albert":
        sizes["embedding_size"] = 16
    return getattr(transformers, f"{name}Config")(**sizes, **more)


CLASSES = [
    ("Bert", "BertForSequenceClassification", "sequence-classification"),
    ("Bert", "BertForQuestionAnswering", "question-answering"),
    ("Albert", "AlbertForSequenceClassification", "sequence-classification"),
    ("DistilBert", "DistilBertForQuestionAnswering", "question-answering"),
    ("Roberta", "RobertaForSequenceClassification", "sequence-classification"),
    ("XLMRoberta", "XLMRobertaModel", "encoder"),
    ("MPNet", "MPNetForSequenceClassification", "sequence-classification"),
    ("T5", "T5EncoderModel", "encoder"),
]


@pytest.mark.parametrize(("family", "name", "task"), CLASSES)
def test_transformers_models_of_all_families(family, name, task, bert, tmp_path):
    import transformers

    torch.manual_seed(0)
    more = {"num_labels": 3} if "Sequence" in name else {}
    made = getattr(transformers, name)(_config(family, **more)).eval()
    layer = DenseSparseSpec(**SMALL)
    wanted = [n for n, m in made.named_modules() if isinstance(m, torch.nn.Linear) and m.in_features % 8 == 0]
    wanted = [n for n in wanted if not any(part in n for part in ("classifier", "qa_", "pooler"))]
    words = (
        "shared"
        if family == "T5"
        else next(n for n, _ in made.named_modules() if n.endswith("word_embeddings"))
    )
    spec = CompressionSpec((*(Rule(n, layer) for n in wanted), Rule(words, RoundingSpec(bits=8))))
    model = compressed(made, spec, grow=False)
    saved = save_compressed(model, tmp_path / "m", {"base": name}, tokenizer=bert.tokenizer, sample=TEXTS)
    artifact = read_artifact(saved.folder)
    assert (artifact.task, artifact.architecture, artifact.modules) == (task, name, ())
    again = leanmatch.load(saved.folder, runtime="transformers", device="cpu")
    ids = torch.tensor([[2, 70, 71, 3]])
    with torch.no_grad():
        one, two = (m(input_ids=ids).to_tuple()[0] for m in (model, again))
    assert one.abs().max() > 1e-3
    torch.testing.assert_close(one, two, atol=5e-3, rtol=1e-2)
    assert len(compressed_layers(again)) == len(wanted) + 1
    if family == "Albert":
        assert again.config.num_hidden_layers == 2 and len(wanted) < 10, "shared layers stay shared"
    with pytest.raises(ModelError, match=r"leanmatch\.load\(folder, runtime='transformers'\)"):
        leanmatch.load(saved.folder)
    with pytest.raises(UsageError, match=f"task '{task}', with precision 'int8'"):
        leanmatch.load(saved.folder, runtime="transformers", precision="int8")


def test_half_precision_is_taken_only_where_it_loses_little():
    rng = np.random.default_rng(0)
    usual = rng.normal(size=100).astype(np.float32)
    assert stored(usual).dtype == np.float16 and stored(np.zeros(3)).dtype == np.float16
    assert stored(usual * 1e6).dtype == np.float32, "beyond float16"
    assert stored(usual * 1e-7).dtype == np.float32, "below its precision"
    scales = np.abs(usual) + 0.01
    assert stored_scales(scales).dtype == np.float16
    assert stored_scales(np.append(scales, 1e-9)).dtype == np.float32, "one scale would become 0"
