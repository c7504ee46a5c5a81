"""Damaged and hostile manifests and configurations: always FormatError, never a crash."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from hostile import FLOATS, INT6, LOW, PRUNED, QUERY, WORDS, Content, refused

from leanmatch.errors import FormatError
from leanmatch.formats.artifact.loader import load_compressed
from leanmatch.formats.artifact.reader import read_artifact


@pytest.fixture
def folder(good_artifact, tmp_path):
    return Path(shutil.copytree(good_artifact, tmp_path / "m"))


@pytest.mark.parametrize(
    ("layer", "change", "message"),
    [
        (QUERY, {"form": "pickle"}, "form must be one of 'dense'"),
        (QUERY, {"kind": "conv"}, "kind must be one of 'linear', 'embedding'"),
        (QUERY, {"shape": [2**24, 2**24]}, "must be int8 of shape"),
        (QUERY, {"shape": [2**40, 32]}, "must be a whole number from 1 to"),
        (QUERY, {"shape": [-32, 32]}, "must be a whole number from 1"),
        (QUERY, {"shape": [0, 32]}, "must be a whole number from 1"),
        (QUERY, {"shape": [32]}, "shape must be 2 numbers"),
        (QUERY, {"blocks": 0}, "blocks must be a whole number from 1"),
        (QUERY, {"blocks": 3}, "3 blocks do not divide 32 columns"),
        (QUERY, {"blocks": 10**400}, "blocks must be a whole number"),
        (QUERY, {"nonzeros": 13}, "nonzeros must be a whole number from 1 to 12"),
        (QUERY, {"nonzeros": 2}, "must be int8 of shape"),
        (QUERY, {"atoms": 1 << 17}, "atoms must be a whole number"),
        (QUERY, {"atoms": 60}, "must be uint8 of shape"),
        (QUERY, {"identity": True}, "identity atoms of 12 in blocks of 8"),
        (QUERY, {"identity": 0}, "identity must be one of False, True"),
        (QUERY, {"value_bits": 5}, "value_bits must be one of 8, 6, 4"),
        (QUERY, {"value_bits": 8.0}, "value_bits must be one of"),
        (QUERY, {"atom_bits": 4}, "atom_bits must be one of 8"),
        (QUERY, {"bias": None}, "bias must be one of True, False"),
        (QUERY, {"stack": 3}, "its stack is 3, not a name"),
        (QUERY, {"stack": "other"}, "is missing"),
        (QUERY, {"bytes": -1}, "bytes must be a whole number from 0"),
        (QUERY, {"error": -1}, "error must be a number"),
        (QUERY, {"error": "small"}, "error must be a number"),
        (QUERY, {"surprise": 1}, "unknown fields 'surprise'"),
        (PRUNED, {"shape": [1, 2**24], "blocks": 1, "atoms": 2**16, "nonzeros": 1}, "identity atoms of"),
        (
            PRUNED,
            {"shape": [2**24, 2**20], "blocks": 2**20, "atoms": 1, "nonzeros": 1},
            "must be int8 of shape",
        ),
        (FLOATS, {"form": "dense-sparse-int"}, "value_bits' is missing"),
        (LOW, {"rank": 5 * 2**20}, "must be int8 of shape"),
        (LOW, {"rank": 0}, "rank must be a whole number from 1"),
        (LOW, {"left": None}, "left is None, not an object"),
        (LOW, {"left": {"bits": 16, "group": 5}}, "bits must be one of 8, 4, 3, 2"),
        (WORDS, {"bits": 5}, "bits must be one of 8, 4, 3, 2"),
        (WORDS, {"bits": 3}, "must be uint8 of shape"),
        (WORDS, {"group": 0}, "group must be a whole number from 1"),
        (WORDS, {"group": 7}, "groups of 7 do not divide 32 columns"),
    ],
)
def test_entries_of_layers(folder, layer, change, message):
    content = Content(folder)
    content.layers[layer] |= change
    content.write()
    refused(folder, message)


def test_layers_and_tensors_that_do_not_belong(folder):
    content = Content(folder)
    entry = content.layers.pop(WORDS)
    content.seal()
    refused(folder, "unknown tensors")
    content.layers["../../etc/passwd"] = entry
    content.seal()
    refused(folder, "is missing")
    del content.layers["../../etc/passwd"]
    content.layers[WORDS] = entry
    content.add(f"tensors/{QUERY}.weight", "F16", [2], b"\0\0\0\0")
    content.write()
    refused(folder, "belongs to a compressed layer")
    content.drop(f"tensors/{QUERY}.weight")
    content.add("surprise", "U8", [1], b"\0")
    content.write()
    refused(folder, "1 unknown tensors, the first being 'surprise'")


def test_members_of_a_stack_with_other_inputs(folder):
    content = Content(folder)
    content.layers[FLOATS]["stack"] = "s"
    content.layers[INT6]["stack"] = "s"
    for layer, names in ((FLOATS, ["atoms"]), (INT6, ["atoms_scale"])):
        for name in names:
            content.header[f"stacks/s/{name}"] = content.header.pop(f"layers/{layer}/{name}")
    content.write()
    refused(folder, "stacks/s/atoms' must be int8|holds layers of")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"artifact": None}, "artifact is None, not an object"),
        ({"artifact": {}}, "the field 'version' is missing"),
        ({"kind": "matcher"}, "holds no compressed model"),
        ({"weights_sha256": 3}, "weights_sha256"),
    ],
)
def test_the_manifest(folder, change, message):
    content = Content(folder)
    (folder / "leanmatch.json").write_text(json.dumps(content.manifest | change))
    refused(folder, message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 4}, "reads up to 3"),
        ({"version": True}, "version must be a whole number"),
        ({"task": "poetry"}, "task must be one of"),
        ({"architecture": "os.system"}, "architecture must be a name"),
        ({"layers": []}, "layers must be an object"),
        ({"bytes": {}}, "the field 'layers' is missing"),
        ({"dense": {"bytes": "many"}}, "bytes must be a whole number"),
        ({"layer_macs": -1}, "layer_macs must be a whole number"),
        ({"quality": 3}, "quality is no object"),
        ({"dropped": ["encoder.layer.0.output.LayerNorm.bias"]}, "dropped must be parameters of"),
        ({"dropped": "pooler."}, "dropped must be a list of texts"),
        ({"surprise": 1}, "unknown fields 'surprise'"),
    ],
)
def test_the_section(folder, change, message):
    content = Content(folder)
    content.section |= change
    (folder / "leanmatch.json").write_text(json.dumps(content.manifest))
    refused(folder, message)


def test_a_wrong_size_is_named(folder):
    content = Content(folder)
    content.section["bytes"]["weights"] += 1
    (folder / "leanmatch.json").write_text(json.dumps(content.manifest))
    refused(folder, "bytes, not .* as leanmatch.json says")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('{"a":' * 50_000, "is not JSON"),
        ('{"kind": "compressed", "kind": "matcher"}', "stands there twice"),
        ('{"format_version": 1e999}', "too large a number"),
        ('{"format_version": ' + "9" * 5000 + "}", "is not JSON"),
    ],
)
def test_the_text_of_the_manifest(folder, text, message):
    (folder / "leanmatch.json").write_text(text)
    refused(folder, message)


# ---- configurations ----


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"path": "../../etc"}, "is no plain name of a folder"),
        ({"path": "/etc"}, "is no plain name of a folder"),
        ({"path": "1_Pooling/../.."}, "is no plain name of a folder"),
        ({"path": 3}, "path must be text"),
        ({"type": "os.system"}, "names the type 'os.system'"),
        ({"type": "sentence_transformers.models.Transformer.Evil"}, "names the type"),
        ({"idx": 7}, "idx must be one of"),
        ({"idx": "1"}, "idx must be one of"),
    ],
)
def test_modules(folder, change, message):
    entries = json.loads((folder / "modules.json").read_text())
    entries[1] |= change
    (folder / "modules.json").write_text(json.dumps(entries))
    refused(folder, message)


@pytest.mark.parametrize("text", ["{}", "[]", "[1]", json.dumps([{}] * 100), "[" * 10_000])
def test_the_list_of_modules(folder, text):
    (folder / "modules.json").write_text(text)
    refused(folder, "modules.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": None}, "model_type None, not a name"),
        ({"auto_map": {"AutoModel": "evil.Model"}}, "auto_map"),
        ({"hidden_size": 2**40}, "more than"),
        ({"num_hidden_layers": 10**9}, "more than 1,024"),
    ],
)
def test_the_architecture(folder, change, message):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    refused(folder, message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"hidden_size": 2**24, "num_attention_heads": 1},
            r"the architecture has a Embedding of \(90, 16777216\)",
        ),
        ({"vocab_size": 2**31}, r"the architecture has a Embedding of \(2147483648, 32\)"),
        ({"intermediate_size": 65}, r"the architecture has a Linear of \(65, 32\)"),
        ({"num_hidden_layers": 1000}, "num_hidden_layers = 1000, and there are"),
        ({"num_hidden_layers": 1}, "the architecture has nothing there"),
        ({"num_hidden_layers": 3}, "there are no values for"),
        ({"num_hidden_layers": -1}, "config.json makes no BertModel|the architecture has nothing there"),
        ({"num_attention_heads": 0}, "config.json makes no BertModel"),
        ({"hidden_act": "explode"}, "config.json makes no BertModel"),
        ({"model_type": "gpt9"}, "config.json makes no BertModel"),
        ({"max_position_embeddings": "many"}, "config.json makes no BertModel"),
        ({"type_vocab_size": 3}, r"the tensor 'embeddings.token_type_embeddings.weight' has shape"),
    ],
)
def test_the_architecture_is_checked_before_torch_allocates(folder, change, message):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    refused(folder, message, lambda path: load_compressed(path, "cpu"))


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ("PreTrainedTokenizerFast", "no model class"),
        ("NoSuchModel", "no model class"),
        ("StaticEmbedding", "no model class"),
        ("RobertaModel", "RobertaModel"),
    ],
)
def test_other_classes(folder, architecture, message):
    content = Content(folder)
    content.section["architecture"] = architecture
    content.seal()
    refused(folder, message, lambda path: load_compressed(path, "cpu"))


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "sentence_bert_config.json"])
@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 50_000])
def test_damaged_tokenizers_and_options(folder, name, text):
    (folder / name).write_text(text)
    with pytest.raises(FormatError):
        load_compressed(folder, "cpu")


def test_random_damage(folder):
    """Flipped, cut and repeated bytes in every file: an error of ours, or a model that loads."""
    rng = np.random.default_rng(0)
    outcomes = {True: 0, False: 0}
    for name in ("leanmatch.json", "compressed.safetensors", "modules.json", "config.json"):
        original = (folder / name).read_bytes()
        for _ in range(40):
            data = bytearray(original)
            place = int(rng.integers(len(data)))
            kind = int(rng.integers(3))
            if kind == 0:
                data[place] ^= 1 << int(rng.integers(8))
            elif kind == 1:
                del data[place : place + int(rng.integers(1, 9))]
            else:
                data[place:place] = data[place : place + int(rng.integers(1, 9))]
            (folder / name).write_bytes(data)
            try:
                read_artifact(folder)
                outcomes[True] += 1
            except FormatError:
                outcomes[False] += 1
        (folder / name).write_bytes(original)
    assert outcomes[False] > 80
