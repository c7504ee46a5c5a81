"""Damaged and hostile model folders: an error of ours that names what is wrong, before much is allocated."""

from __future__ import annotations

import json
import re
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from leanmatch.errors import DataError, LeanmatchError, ModelError
from leanmatch.formats.reader import load_matcher
from leanmatch.runtime.architectures import UnsupportedError
from leanmatch.runtime.loading import load_native
from leanmatch.runtime.modules import MOST_CONFIG_BYTES

Harm = Callable[[Path], object]

DEEP = "[" * 200_000 + "]" * 200_000
MOST_BYTES = 64 * 2**20
TEXTS = ["usb dock with two hdmi ports", "a hieroglyph: \U00013000", ""]


def write(name: str, text: str | bytes) -> Harm:
    data = text if isinstance(text, bytes) else text.encode()
    return lambda place: (place / name).write_bytes(data)


def put(name: str, *without: str, **values: Any) -> Harm:
    def harm(place: Path) -> None:
        content = json.loads((place / name).read_text())
        kept = {key: value for key, value in content.items() if key not in without}
        (place / name).write_text(json.dumps({**kept, **values}))

    return harm


def module(number: int, path: Any) -> Harm:
    def harm(place: Path) -> None:
        entries = json.loads((place / "modules.json").read_text())
        entries[number]["path"] = path
        (place / "modules.json").write_text(json.dumps(entries))

    return harm


def vocabulary(change: Callable[[dict[str, int]], object]) -> Harm:
    def harm(place: Path) -> None:
        content = json.loads((place / "tokenizer.json").read_text())
        change(content["model"]["vocab"])
        (place / "tokenizer.json").write_text(json.dumps(content))

    return harm


def moved(by: int) -> Harm:
    return vocabulary(lambda words: words.update({word: number + by for word, number in words.items()}))


def header(change: Callable[[dict[str, Any]], object]) -> Harm:
    def harm(place: Path) -> None:
        whole = (place / "model.safetensors").read_bytes()
        size = int.from_bytes(whole[:8], "little")
        content = json.loads(whole[8 : 8 + size])
        change(content)
        text = json.dumps(content).encode()
        (place / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + whole[8 + size :])

    return harm


def all_of(*harms: Harm) -> Harm:
    return lambda place: [harm(place) for harm in harms]


def only_vocabulary(text: str | bytes) -> Harm:
    return all_of(lambda place: (place / "tokenizer.json").unlink(), write("vocab.txt", text))


NO_LENGTH = put("sentence_bert_config.json", "max_seq_length")
CASES: dict[str, tuple[Harm, str]] = {
    "vocabulary without [UNK]": (vocabulary(lambda words: words.pop("[UNK]")), r"Missing \[UNK\]"),
    "token ids outside the table": (moved(10**6), "outside the vocabulary"),
    "token ids beyond 32 bits": (moved(2**31), "does not fit 32 bits"),
    "vocab.txt without [UNK]": (only_vocabulary("a\nb\n[CLS]\n[SEP]\n"), r"Missing \[UNK\]"),
    "vocab.txt in no UTF-8": (only_vocabulary(b"\xff\xfe\n"), "vocab.txt cannot be read"),
    "vocab.txt of nothing": (only_vocabulary(""), "not found in the vocabulary"),
    "module folder outside": (module(0, "../copy"), r"module folder '../copy', which is not inside"),
    "pooling folder outside": (module(1, "x/../../y"), "which is not inside"),
    "absolute module folder": (module(1, "/etc"), "module folder '/etc', which is not inside"),
    "Windows' module folder": (module(1, "..\\y"), "which is not inside"),
    "module folder of a number": (module(1, 5), "module folder 5, which is not inside"),
    "100,000 modules": (
        write("modules.json", json.dumps([{"type": "x.Normalize", "path": ""}] * 100_000)),
        "lists 100,000 modules, more than 64",
    ),
    "deep modules.json": (write("modules.json", DEEP), "modules.json cannot be read"),
    "deep config.json": (write("config.json", DEEP), "config.json cannot be read"),
    "deep tokenizer.json": (write("tokenizer.json", DEEP), "tokenizer.json cannot be read"),
    "deep tokenizer_config.json": (write("tokenizer_config.json", DEEP), "tokenizer_config.json cannot"),
    "deep settings": (write("config_sentence_transformers.json", DEEP), "transformers.json cannot be read"),
    "deep provenance": (write("leanmatch.json", DEEP), "leanmatch.json is not JSON"),
    "huge config.json": (
        write("config.json", b'{"a":"' + b"x" * MOST_CONFIG_BYTES + b'"}'),
        "config.json has .* bytes, more than",
    ),
    "config.json of a list": (write("config.json", "[]"), "config.json holds a list, not an object"),
    "pooling of a list": (write("1_Pooling/config.json", "[]"), "holds a list, not an object"),
    "lengths of a list": (write("sentence_bert_config.json", "[]"), "holds a list, not an object"),
    "pooling mode of a list": (write("1_Pooling/config.json", '{"pooling_mode": [["mean"]]}'), "no pooling"),
    "length of text": (put("sentence_bert_config.json", max_seq_length="a"), "max_seq_length is 'a'"),
    "infinite length": (write("sentence_bert_config.json", '{"max_seq_length": Infinity}'), "is inf"),
    "negative length": (put("sentence_bert_config.json", max_seq_length=-5), "max_seq_length is -5"),
    "tokenizer's length of text": (
        all_of(NO_LENGTH, put("tokenizer_config.json", model_max_length="x")),
        "the longest text is 'x'",
    ),
    "positions of text": (
        all_of(NO_LENGTH, put("config.json", max_position_embeddings="x")),
        "the longest text is 'x'|max_position_embeddings",
    ),
    "10^9 layers": (put("config.json", num_hidden_layers=10**9), "num_hidden_layers is 1,?000|1000000000"),
    "2,000 layers": (put("config.json", num_hidden_layers=2000), "is 2,000, more than 1,024"),
    "width of 10^9": (put("config.json", hidden_size=10**9), "hidden_size is 1000000000"),
    "inner size of 2^31": (put("config.json", intermediate_size=2**31), "intermediate_size is 2147483648"),
    "heads that do not divide": (
        put("config.json", num_attention_heads=7),
        "multiple of the number of heads",
    ),
    "epsilon of NaN": (put("config.json", layer_norm_eps=float("nan")), "layer_norm_eps is nan"),
    "epsilon of text": (put("config.json", layer_norm_eps="x"), "layer_norm_eps is 'x'"),
    "activation of a list": (put("config.json", hidden_act=["gelu"]), r"no activation \['gelu'\]"),
    "padding id of text": (put("config.json", model_type="roberta", pad_token_id="x"), "pad_token_id is 'x'"),
    "padding id of 2^40": (put("config.json", model_type="roberta", pad_token_id=2**40), "pad_token_id is"),
    "no weights": (write("model.safetensors", b""), "model.safetensors cannot be read"),
    "header of 2^62 bytes": (
        write("model.safetensors", (2**62).to_bytes(8, "little") + b"{}"),
        "cannot be read",
    ),
    "deep header": (
        write("model.safetensors", len(DEEP).to_bytes(8, "little") + DEEP.encode()),
        "model.safetensors cannot be read",
    ),
    "tensor of 2^80 numbers": (
        header(lambda content: content[max(content)].update(shape=[2**40, 2**40])),
        "model.safetensors cannot be read",
    ),
    "weights of integers": (
        header(lambda content: [one.update(dtype="I32") for one in content.values() if "dtype" in one]),
        "has the dtype int32, not a floating one",
    ),
}


@pytest.fixture
def place(tiny, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny("bert")[0], tmp_path / "copy"))


@pytest.mark.parametrize("name", CASES)
def test_what_is_wrong_is_said(place: Path, name: str) -> None:
    harm, message = CASES[name]
    assert load_native(place, name="whole").encode(TEXTS, threads=1).shape == (3, 48), (
        "it must be whole at first"
    )
    harm(place)
    tracemalloc.start()
    try:
        with pytest.raises(LeanmatchError, match=message) as caught:
            load_native(place, name="hostile").encode(TEXTS, threads=1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(caught.value, ModelError) or name == "deep provenance"
    assert caught.value.remedy or isinstance(caught.value, UnsupportedError)
    assert not re.search(r"(Type|Key|Attribute|Recursion)Error", str(caught.value))
    assert peak < MOST_BYTES


@pytest.mark.parametrize("kind", ["bert", "static"])
def test_a_static_model_too(tiny, tmp_path: Path, kind: str) -> None:
    copy = Path(shutil.copytree(tiny(kind)[0], tmp_path / "copy"))
    moved(10**6)(copy)
    with pytest.raises(ModelError, match=r"token id 10000\d\d is outside the vocabulary of"):
        load_native(copy, name="moved").encode(TEXTS, threads=1)
    vocabulary(lambda words: words.pop("[UNK]"))(copy)
    with pytest.raises(ModelError, match=r"fails on characters that it does not know: .*\[UNK\]"):
        load_native(copy, name="without")


@pytest.mark.parametrize("path", ["../copy", "/etc"])
def test_torch_does_not_follow_paths_out_of_the_folder(place: Path, path: str) -> None:
    module(1, path)(place)
    with pytest.raises(ModelError, match="which is not inside the model's folder"):
        load_matcher(place, "cpu")


@pytest.mark.parametrize(
    "name", ["config.json", "modules.json", "tokenizer_config.json", "config_sentence_transformers.json"]
)
def test_deep_json_is_an_error_on_torch_too(place: Path, name: str) -> None:
    (place / name).write_text(DEEP)
    with pytest.raises(ModelError):
        load_matcher(place, "cpu")


def test_half_a_surrogate_pair_is_named(place: Path) -> None:
    encoder = load_native(place, name="whole")
    for texts in (["a\ud800"], ["a", "b\udfff"]):
        with pytest.raises(DataError, match="half of a surrogate pair"):
            encoder.encode(texts)
