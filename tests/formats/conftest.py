"""Tiny random models, made on the spot: no download, seconds to build."""

from __future__ import annotations

from pathlib import Path

import pytest

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


def _build_bert(folder: Path, *, generic_tokenizer: bool = False, dense: bool = False, pooling: str = "mean"):
    """A random two-layer BERT; ``generic_tokenizer`` takes the class that transformers 5 renamed."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Dense, Normalize, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling
    from transformers import BertConfig, BertModel, BertTokenizerFast, PreTrainedTokenizerFast

    tokenizer_class = PreTrainedTokenizerFast if generic_tokenizer else BertTokenizerFast
    tokens = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    tokenizer = tokenizer_class(tokenizer_object=make_tokenizer(), model_max_length=48, **tokens)
    if generic_tokenizer:
        tokenizer.add_special_tokens({"additional_special_tokens": ["<item>"]})
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    source = folder / "source"
    BertModel(config).save_pretrained(source)
    tokenizer.save_pretrained(source)
    modules = [Transformer(str(source), max_seq_length=24), Pooling(32, pooling)]
    if dense:
        modules.append(Dense(32, 16, activation_function=torch.nn.Identity()))
    return SentenceTransformer(modules=[*modules, Normalize()], device="cpu")


def _build_static():
    """A random static embedding, 24 wide, without a Normalize module."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    torch.manual_seed(0)
    return SentenceTransformer(modules=[StaticEmbedding(make_tokenizer(), embedding_dim=24)], device="cpu")


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
