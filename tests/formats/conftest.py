"""Tiny random models, made on the spot: no download, seconds to build."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_bert import fast_tokenizer, module, tiny_bert

torch = pytest.importorskip("torch", reason="the train extra (torch) is not installed")
pytest.importorskip(
    "sentence_transformers", reason="the train extra (sentence-transformers) is not installed"
)

WORDS = ["usb", "dock", "hdmi", "cable", "camera", "lens", "mount", "drive", "how", "do", "on", "the", "red"]


def make_tokenizer():
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [form for letter in "abcdefghijklmnopqrstuvwxyz0123456789" for form in (letter, f"##{letter}")]
    vocabulary = {token: row for row, token in enumerate([*special, *letters, *WORDS])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    return tokenizer


def _build_bert(
    folder: Path, *, generic_tokenizer: bool = False, dense: bool = False, pooling: str = "mean", **config
):
    """A random two-layer BERT; ``generic_tokenizer`` takes the class that transformers 5 renamed."""
    kind = "PreTrainedTokenizerFast" if generic_tokenizer else "BertTokenizerFast"
    tokenizer = fast_tokenizer(make_tokenizer(), kind=kind, model_max_length=48)
    if generic_tokenizer:
        tokenizer.add_special_tokens({"additional_special_tokens": ["<item>"]})

    def head():
        return module("Dense")(32, 16, activation_function=torch.nn.Identity())

    more = (head,) if dense else ()
    options = {"pooling": pooling, "before_normalize": more, **config}
    return tiny_bert(folder / "source", tokenizer, length=24, **options)


def _build_static():
    """A random static embedding, 24 wide, without a Normalize module."""
    from sentence_transformers import SentenceTransformer

    torch.manual_seed(0)
    return SentenceTransformer(
        modules=[module("StaticEmbedding")(make_tokenizer(), embedding_dim=24)], device="cpu"
    )


@pytest.fixture(scope="session")
def bert(tmp_path_factory):
    return _build_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="session")
def static():
    return _build_static()


@pytest.fixture
def provenance():
    return {"base": "tiny", "data": {"rows": 3}, "metrics": {"ndcg@10": 0.5}}


@pytest.fixture(scope="session")
def build_bert():
    """The builder itself, for tests that change the model."""
    return _build_bert


@pytest.fixture(scope="session")
def good_artifact(build_bert, tmp_path_factory):
    """A compressed model on disk, with every form of factors; copy it before damaging it."""
    from compressed_models import compressed

    from leanmatch.formats import save_compressed

    model = compressed(build_bert(tmp_path_factory.mktemp("bert")))
    return save_compressed(model, tmp_path_factory.mktemp("hostile") / "good", {"base": "tiny"}).folder
