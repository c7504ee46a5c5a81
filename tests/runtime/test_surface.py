"""Both runtimes answer every call of ``encode`` as the ``SentenceTransformer`` of the same folder does."""

from __future__ import annotations

import itertools
import sys
import warnings

import numpy as np
import pytest
from runtime_models import TEXTS

from leanmatch.errors import DataError, MissingExtraError, UsageError
from leanmatch.formats.reader import load_encoder
from leanmatch.runtime import load

torch = pytest.importorskip("torch", reason="the train extra (torch) is not installed")
NAMED = {"query": "red ", "document": "usb ", "other": "how "}
CLOSE = {"rtol": 2e-4, "atol": 2e-5}


@pytest.fixture(scope="module", params=["bert", "static"])
def folder(request, tiny, tmp_path_factory):
    """A model with prompts of its own, and its folder."""
    from sentence_transformers import SentenceTransformer

    plain, _ = tiny(request.param)
    model = SentenceTransformer(str(plain), device="cpu", local_files_only=True)
    model.prompts = dict(NAMED)
    target = tmp_path_factory.mktemp("surface") / request.param
    model.save_pretrained(str(target), create_model_card=False)
    return target


@pytest.fixture(params=["native", "torch"])
def both(request, folder):
    """The model in leanmatch and in sentence-transformers."""
    from sentence_transformers import SentenceTransformer

    own = load(folder, runtime="native") if request.param == "native" else load_encoder(folder, "cpu")
    return own, SentenceTransformer(str(folder), device="cpu", local_files_only=True)


CALLS = {
    "defaults": {},
    "unit length": {"normalize_embeddings": True},
    "truncated": {"truncate_dim": 7},
    "truncated, unit length": {"truncate_dim": 7, "normalize_embeddings": True},
    "more than all dimensions": {"truncate_dim": 999},
    "prompt": {"prompt": "how "},
    "no prompt": {"prompt": ""},
    "prompt name": {"prompt_name": "other"},
    "tensor": {"convert_to_tensor": True},
    "tensor although numpy": {"convert_to_tensor": True, "convert_to_numpy": True},
    "list of tensors": {"convert_to_numpy": False},
    "device": {"device": "cpu", "batch_size": 3, "show_progress_bar": False},
}


@pytest.mark.parametrize("method", ["encode", "encode_query", "encode_document"])
@pytest.mark.parametrize("name", CALLS)
def test_vectors(both, method: str, name: str) -> None:
    own, peer = both
    options = CALLS[name]
    for texts in (TEXTS, "usb dock with a camera", ("red", "drive"), np.array(["lens", "cable mount"])):
        found, wanted = getattr(own, method)(texts, **options), getattr(peer, method)(texts, **options)
        assert type(found) is type(wanted)
        assert np.shape(found) == np.shape(wanted) if not isinstance(wanted, list) else True
        if isinstance(wanted, list):
            assert type(found[0]) is type(wanted[0]) and len(found) == len(wanted)
            found, wanted = torch.stack(found), torch.stack(wanted)
        assert found.dtype == wanted.dtype
        np.testing.assert_allclose(found, wanted, **CLOSE)


def test_options_by_position(both) -> None:
    own, peer = both
    np.testing.assert_allclose(own.encode(TEXTS, "other"), peer.encode(TEXTS, "other"), **CLOSE)
    arguments = (TEXTS, None, "how ", 5, False, "sentence_embedding", "float32", True, False, None, True, 9)
    for method in ("encode", "encode_query"):
        np.testing.assert_allclose(
            getattr(own, method)(*arguments), getattr(peer, method)(*arguments), **CLOSE
        )
    np.testing.assert_allclose(own.encode(sentences=TEXTS), peer.encode(TEXTS), **CLOSE)


@pytest.mark.parametrize("precision", ["int8", "uint8", "binary", "ubinary"])
def test_codes(both, precision: str) -> None:
    own, peer = both
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = own.encode(TEXTS, precision=precision)
    assert any("ranges" in str(one.message) for one in caught) == precision.endswith("int8"), "few texts"
    wanted = peer.encode(TEXTS, precision=precision)
    assert found.dtype == wanted.dtype and found.shape == wanted.shape
    same = (found == wanted).mean()
    assert same > 0.995 and len(np.unique(wanted)) > 20, "codes differ only where rounding decides"
    one = own.encode(TEXTS[0], precision="ubinary", truncate_dim=9)
    assert (
        one.shape == (2,)
        and one.tolist() == peer.encode(TEXTS[0], precision="ubinary", truncate_dim=9).tolist()
    )


@pytest.mark.parametrize("name", ["cosine", "dot", "euclidean", "manhattan"])
def test_similarities(both, name: str) -> None:
    own, peer = both
    own.similarity_fn_name = peer.similarity_fn_name = name
    rows = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    rows[3] = 0
    other = rows[::-1] * 2 + 1
    for first, second in (
        (rows, other),
        (torch.from_numpy(rows), other.copy()),
        (list(torch.from_numpy(rows)), list(other)),
        (rows[0], other),
        (torch.from_numpy(rows).bfloat16(), torch.from_numpy(other.copy()).half()),
    ):
        found, wanted = own.similarity(first, second), peer.similarity(first, second)
        assert isinstance(found, torch.Tensor) and found.shape == wanted.shape
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    found, wanted = own.similarity_pairwise(rows, other), peer.similarity_pairwise(rows, other.copy())
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(own.similarity(rows, rows)[0, 0], own.similarity_pairwise(rows, rows)[0])


def test_settings_follow_sentence_transformers(both) -> None:
    own, peer = both
    assert own.prompts == peer.prompts and own.default_prompt_name is None
    assert own.similarity_fn_name == peer.similarity_fn_name == "cosine"
    assert own.max_seq_length == own.get_max_seq_length() == peer.max_seq_length
    whole = peer.get_embedding_dimension()
    assert own.get_sentence_embedding_dimension() == own.get_embedding_dimension() == own.dimension == whole
    with own.truncate_embeddings(5), peer.truncate_embeddings(5):
        assert own.dimension == own.get_embedding_dimension() == 5 and own.whole_dimension == whole
        np.testing.assert_allclose(own.encode(TEXTS), peer.encode(TEXTS), **CLOSE)
        np.testing.assert_allclose(np.linalg.norm(own(TEXTS[2:6]), axis=1), 1, rtol=1e-5)
    assert own.dimension == whole
    own.truncate_dim = peer.truncate_dim = 3
    np.testing.assert_allclose(own.encode(TEXTS, truncate_dim=4), peer.encode(TEXTS, truncate_dim=4), **CLOSE)
    np.testing.assert_allclose(own.encode(TEXTS), peer.encode(TEXTS), **CLOSE)
    own.truncate_dim = peer.truncate_dim = None
    own.prompts = peer.prompts = {"query": "the ", "other": "red "}
    own.default_prompt_name = peer.default_prompt_name = "other"
    for method in ("encode", "encode_query"):
        np.testing.assert_allclose(getattr(own, method)(TEXTS), getattr(peer, method)(TEXTS), **CLOSE)
    assert own.eval() is own and own.to("cpu") is own and str(own.device) == "cpu"
    with pytest.raises(UsageError, match="no prompt named 'nowhere'"):
        own.default_prompt_name = "nowhere"
    with pytest.raises(UsageError, match="truncate_dim is 0"):
        own.truncate_dim = 0


def test_features_and_length(both) -> None:
    own, peer = both
    found, wanted = own.tokenize(TEXTS), peer.tokenize(TEXTS)
    for name in set(found) & {"input_ids", "attention_mask", "offsets"}:
        torch.testing.assert_close(found[name], wanted[name], check_dtype=False)
    assert "input_ids" in found and len(found) >= 2
    if "offsets" in found:
        return
    before = own.encode(TEXTS)
    own.max_seq_length = peer.max_seq_length = 9
    np.testing.assert_allclose(own.encode(TEXTS), peer.encode(TEXTS), **CLOSE)
    assert abs(own.encode(TEXTS) - before).max() > 0.01, "texts are cut elsewhere"


def test_a_length_beyond_the_positions_is_refused(tiny) -> None:
    encoder = load(tiny("bert")[0], runtime="native")
    encoder.max_seq_length = 80
    assert encoder.encode(["the " * 200]).shape == (1, encoder.dimension)
    for length, message in (
        (81, "has 80 positions"),
        (2, "adds 2 special tokens"),
        (0, "max_seq_length is 0"),
    ):
        with pytest.raises(UsageError, match=message):
            encoder.max_seq_length = length


def test_token_embeddings(folder) -> None:
    own, peer = load(folder, runtime="torch"), load_encoder(folder).model
    if folder.name == "static":
        return
    for texts in (TEXTS[:5], TEXTS[0]):
        found, wanted = (
            own.encode(texts, output_value="token_embeddings"),
            peer.encode(texts, output_value="token_embeddings"),
        )
        for one, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(one, other)
    assert set(own.encode("usb", output_value=None)) == set(peer.encode("usb", output_value=None))


def test_streams_are_read_as_they_are_encoded(both) -> None:
    own, _ = both
    read = []

    def stream():
        for text in itertools.cycle(TEXTS):
            read.append(text)
            yield text

    batches = own.encode_batches(stream(), window=7)
    assert not read
    parts = [next(batches) for _ in range(3)]
    assert len(read) == 21 and all(part.shape == (7, own.dimension) for part in parts)
    np.testing.assert_allclose(np.concatenate(parts), own.encode(TEXTS[:21]), **CLOSE)
    whole = own.encode(itertools.islice(stream(), 30), normalize_embeddings=True)
    np.testing.assert_allclose(whole, own(TEXTS[:30]), **CLOSE)
    assert own.encode(iter(())).shape == (0, own.dimension)
    with pytest.raises(DataError, match="row 9: a text is a int"):
        list(own.encode_batches(iter([*TEXTS[:8], 3]), window=4))
    with pytest.raises(UsageError, match="ranges of all vectors"):
        next(own.encode_batches(stream(), precision="int8"))
    with pytest.raises(UsageError, match="window is 0"):
        next(own.encode_batches(stream(), window=0))


def test_the_level_of_the_logger_shows_a_bar(tiny, capsys, caplog) -> None:
    encoder = load(tiny("bert")[0])
    encoder.encode(["a"])
    assert not capsys.readouterr().err
    with caplog.at_level("INFO", logger="leanmatch"):
        encoder.encode(["a"])
        assert "encoding" in capsys.readouterr().err
        encoder.encode(["a"], show_progress_bar=False)
        encoder(["a"])
    assert not capsys.readouterr().err


def test_without_torch(tiny, monkeypatch) -> None:
    encoder = load(tiny("bert")[0], runtime="native")
    vectors = encoder.encode(TEXTS, normalize_embeddings=True)
    monkeypatch.setitem(sys.modules, "torch", None)
    for options in ({"convert_to_tensor": True}, {"convert_to_numpy": False}):
        with pytest.raises(
            MissingExtraError, match=r"needs torch, which is not installed\n.*leanmatch\[train\]"
        ):
            encoder.encode(TEXTS, **options)
    scores = encoder.similarity(vectors, vectors)
    assert isinstance(scores, np.ndarray)
    np.testing.assert_allclose(scores, vectors @ vectors.T, atol=1e-6)
    assert isinstance(encoder.tokenize(["usb"])["input_ids"], np.ndarray)


def test_similarities_refuse_what_does_not_fit(tiny) -> None:
    encoder = load(tiny("bert")[0])
    rows = np.ones((3, 4), np.float32)
    with pytest.raises(UsageError, match="vectors of 4 and 3 dimensions"):
        encoder.similarity(rows, rows[:, :3])
    with pytest.raises(UsageError, match="pairs of 3 and 2 vectors"):
        encoder.similarity_pairwise(rows, rows[:2])
    with pytest.raises(UsageError, match="there is no similarity 'maxsim'"):
        encoder.similarity_fn_name = "maxsim"
